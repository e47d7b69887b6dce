//! ESP in tunnel mode (RFC 4303): AES-GCM (RFC 4106), and AES-CBC with HMAC-SHA2 (RFC 3602, RFC 4868).

use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _, block_padding::NoPadding};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInPlace, KeyInit as _};
use aes_gcm::{AesGcm, Nonce};
use hmac::{Hmac, Mac};
use pfkey_engine::resolve::mtu::icv_length;
use pfkey_model::sa::Sa;
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm};
use sha2::{Sha256, Sha384, Sha512};

/// SPI and sequence number.
const HEADER: usize = 8;
/// The explicit part of AES-GCM's nonce.
const GCM_IV: usize = 8;
const GCM_ICV: usize = 16;
const BLOCK: usize = 16;
/// The next header of an inner IPv4 packet.
const IPV4: u8 = 4;

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The SA's algorithms or keys are none of these.
    Unsupported,
    /// It is no ESP packet, or its integrity value is wrong.
    Forged,
}

/// Protects an inner packet. `iv` is random; AES-GCM takes the sequence number, which never comes twice, instead.
pub fn seal(sa: &Sa, seq: u32, iv: &[u8; BLOCK], inner: &[u8]) -> Result<Vec<u8>, Drop> {
    let gcm = sa.encrypt == EncryptAlgorithm::X_AES_GCM_ICV16;
    let block = if gcm { 4 } else { BLOCK };
    let mut esp = [sa.spi.to_be_bytes(), seq.to_be_bytes()].concat();
    let counter = u64::from(seq).to_be_bytes();
    esp.extend_from_slice(if gcm { &counter } else { iv });
    let clear = esp.len();
    esp.extend_from_slice(inner);
    // Padding 1, 2, 3 …, its length, the next header (RFC 4303 section 2.4).
    let padding = (block - (inner.len() + 2) % block) % block;
    esp.extend((1..=padding).map(|n| n as u8));
    esp.extend([padding as u8, IPV4]);
    let (head, text) = esp.split_at_mut(clear);
    if gcm {
        let tag = gcm_seal(sa, head.get(..HEADER).unwrap_or_default(), &counter, text)?;
        esp.extend(tag);
    } else if sa.encrypt == EncryptAlgorithm::X_AESCBC {
        cbc_seal(&sa.encrypt_key.bytes, iv, text)?;
        let icv = mac(sa, &esp)?;
        esp.extend(icv);
    } else {
        return Err(Drop::Unsupported);
    }
    Ok(esp)
}

/// The sequence number of a packet and the inner packet, if its integrity value is right.
pub fn open(sa: &Sa, esp: &[u8]) -> Result<(u32, Vec<u8>), Drop> {
    let seq = esp.get(4..HEADER).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes).ok_or(Drop::Forged)?;
    let mut text = if sa.encrypt == EncryptAlgorithm::X_AES_GCM_ICV16 {
        let (head, rest) = esp.split_at_checked(HEADER).ok_or(Drop::Forged)?;
        let (iv, rest) = rest.split_at_checked(GCM_IV).ok_or(Drop::Forged)?;
        let at = rest.len().checked_sub(GCM_ICV).ok_or(Drop::Forged)?;
        let (text, tag) = rest.split_at_checked(at).ok_or(Drop::Forged)?;
        gcm_open(sa, head, iv, text, tag)?
    } else {
        let len = icv_length(sa.auth).ok_or(Drop::Unsupported)? as usize;
        let (covered, icv) =
            esp.split_at_checked(esp.len().checked_sub(len).ok_or(Drop::Forged)?).ok_or(Drop::Forged)?;
        // Compared without telling where they differ.
        if mac(sa, covered)?.iter().zip(icv).fold(0, |different, (a, b)| different | (a ^ b)) != 0 {
            return Err(Drop::Forged);
        }
        let (iv, text) = covered.get(HEADER..).and_then(|rest| rest.split_at_checked(BLOCK)).ok_or(Drop::Forged)?;
        cbc_open(&sa.encrypt_key.bytes, iv, text)?
    };
    let (padding, next) = match text.as_slice() {
        [.., padding, next] => (usize::from(*padding), *next),
        _ => return Err(Drop::Forged),
    };
    let len = text.len().checked_sub(2 + padding).filter(|_| next == IPV4).ok_or(Drop::Forged)?;
    text.truncate(len);
    Ok((seq, text))
}

/// The integrity value of an SA's algorithm, as long as PF_KEY has it.
fn mac(sa: &Sa, bytes: &[u8]) -> Result<Vec<u8>, Drop> {
    fn of<M: Mac + hmac::digest::KeyInit>(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Drop> {
        let mut mac = <M as Mac>::new_from_slice(key).map_err(|_| Drop::Unsupported)?;
        mac.update(bytes);
        Ok(mac.finalize().into_bytes().to_vec())
    }
    let key = &sa.auth_key.bytes;
    let mut icv = match sa.auth {
        AuthAlgorithm::X_SHA2_256HMAC => of::<Hmac<Sha256>>(key, bytes),
        AuthAlgorithm::X_SHA2_384HMAC => of::<Hmac<Sha384>>(key, bytes),
        AuthAlgorithm::X_SHA2_512HMAC => of::<Hmac<Sha512>>(key, bytes),
        _ => Err(Drop::Unsupported),
    }?;
    icv.truncate(icv_length(sa.auth).ok_or(Drop::Unsupported)? as usize);
    Ok(icv)
}

/// Calls a function with the AES of a key's length.
macro_rules! with_aes {
    ($len:expr, $aes:ident => $call:expr) => {
        match $len {
            16 => {
                type $aes = Aes128;
                $call
            }
            24 => {
                type $aes = Aes192;
                $call
            }
            32 => {
                type $aes = Aes256;
                $call
            }
            _ => Err(Drop::Unsupported),
        }
    };
}

fn cbc_seal(key: &[u8], iv: &[u8], text: &mut [u8]) -> Result<(), Drop> {
    let len = text.len();
    with_aes!(key.len(), Aes => {
        let cipher = cbc::Encryptor::<Aes>::new_from_slices(key, iv).map_err(|_| Drop::Unsupported)?;
        cipher.encrypt_padded_mut::<NoPadding>(text, len).map(drop).map_err(|_| Drop::Unsupported)
    })
}

fn cbc_open(key: &[u8], iv: &[u8], text: &[u8]) -> Result<Vec<u8>, Drop> {
    let mut text = text.to_vec();
    with_aes!(key.len(), Aes => {
        let cipher = cbc::Decryptor::<Aes>::new_from_slices(key, iv).map_err(|_| Drop::Unsupported)?;
        cipher.decrypt_padded_mut::<NoPadding>(&mut text).map(drop).map_err(|_| Drop::Forged)
    })?;
    Ok(text)
}

/// Key and nonce: the salt behind the key, and the explicit part.
fn gcm_parts<'a>(sa: &'a Sa, iv: &[u8]) -> Result<(&'a [u8], [u8; 12]), Drop> {
    let key = &sa.encrypt_key.bytes;
    let (key, salt) = key.split_at_checked(key.len().saturating_sub(4)).ok_or(Drop::Unsupported)?;
    let nonce = [salt, iv].concat().try_into().map_err(|_| Drop::Unsupported)?;
    Ok((key, nonce))
}

fn gcm_seal(sa: &Sa, head: &[u8], iv: &[u8], text: &mut [u8]) -> Result<Vec<u8>, Drop> {
    let (key, nonce) = gcm_parts(sa, iv)?;
    with_aes!(key.len(), Aes => {
        let cipher = AesGcm::<Aes, U12, U16>::new_from_slice(key).map_err(|_| Drop::Unsupported)?;
        let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), head, text);
        tag.map(|tag| tag.to_vec()).map_err(|_| Drop::Unsupported)
    })
}

fn gcm_open(sa: &Sa, head: &[u8], iv: &[u8], text: &[u8], tag: &[u8]) -> Result<Vec<u8>, Drop> {
    let (key, nonce) = gcm_parts(sa, iv)?;
    let mut text = text.to_vec();
    with_aes!(key.len(), Aes => {
        let cipher = AesGcm::<Aes, U12, U16>::new_from_slice(key).map_err(|_| Drop::Unsupported)?;
        let tag = aes_gcm::Tag::<U16>::from_slice(tag);
        cipher.decrypt_in_place_detached(Nonce::from_slice(&nonce), head, &mut text, tag).map_err(|_| Drop::Forged)
    })?;
    Ok(text)
}
