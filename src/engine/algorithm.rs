//! The algorithms that the engine accepts and lists: xfrm's tables (`net/xfrm/xfrm_algo.c`) as Debian's Linux 7.2 has
//! them (without SM3 and SM4). The order is that of REGISTER's reply.

use crate::wire::extras::Aead;
use crate::wire::layout::SadbAlg;
use crate::wire::{AuthAlgorithm as A, EncryptAlgorithm as E};

/// (id, ivlen in bytes, shortest and longest key in bits)
const AUTH: [(A, u8, u16, u16); 7] = [
    (A::X_NULL, 0, 0, 0),
    (A::MD5HMAC, 0, 128, 128),
    (A::SHA1HMAC, 0, 160, 160),
    (A::X_SHA2_256HMAC, 0, 256, 256),
    (A::X_SHA2_384HMAC, 0, 384, 384),
    (A::X_SHA2_512HMAC, 0, 512, 512),
    (A::X_AES_XCBC_MAC, 0, 128, 128),
];

const ENCRYPT: [(E, u8, u16, u16); 10] = [
    (E::NULL, 0, 0, 0),
    (E::DESCBC, 8, 64, 64),
    (E::A3DESCBC, 8, 192, 192),
    (E::X_CASTCBC, 8, 40, 128),
    (E::X_BLOWFISHCBC, 8, 40, 448),
    (E::X_AESCBC, 8, 128, 256),
    (E::X_SERPENTCBC, 8, 128, 256),
    (E::X_CAMELLIACBC, 8, 128, 256),
    (E::X_TWOFISHCBC, 8, 128, 256),
    (E::X_AESCTR, 8, 160, 288),
];

fn alg(id: u8, ivlen: u8, minbits: u16, maxbits: u16) -> SadbAlg {
    SadbAlg { id, ivlen, minbits: minbits.into(), maxbits: maxbits.into(), ..Default::default() }
}

/// What `SADB_EXT_SUPPORTED_AUTH` lists.
#[must_use]
pub fn supported_auth() -> Vec<SadbAlg> {
    AUTH.iter().map(|&(id, iv, min, max)| alg(id.0, iv, min, max)).collect()
}

/// What `SADB_EXT_SUPPORTED_ENCRYPT` lists.
#[must_use]
pub fn supported_encrypt() -> Vec<SadbAlg> {
    ENCRYPT.iter().map(|&(id, iv, min, max)| alg(id.0, iv, min, max)).collect()
}

/// Whether an authentication algorithm exists (`xfrm_aalg_get_byid`).
#[must_use]
pub fn has_auth(id: u8) -> bool {
    id != 0 && AUTH.iter().any(|a| a.0.0 == id)
}

/// Whether an encryption algorithm exists (`xfrm_ealg_get_byid`); AEADs do not for AF_KEY.
#[must_use]
pub fn has_encrypt(id: u8) -> bool {
    ENCRYPT.iter().any(|a| a.0.0 == id)
}

/// Whether a compression algorithm exists: deflate alone does.
#[must_use]
pub const fn has_compress(id: u8) -> bool {
    id == 2
}

/// Whether the hash takes a key of this many bytes: HMACs take any, XCBC 16.
#[must_use]
pub fn accepts_auth_key(id: u8, len: usize) -> bool {
    match A(id) {
        A::X_AES_XCBC_MAC => len == 16,
        _ => true,
    }
}

/// Whether the cipher takes a key of this many bytes.
#[must_use]
pub fn accepts_encrypt_key(id: u8, len: usize) -> bool {
    match E(id) {
        E::NULL => len == 0,
        E::DESCBC => len == 8,
        E::A3DESCBC => len == 24,
        E::X_CASTCBC => (5..=16).contains(&len),
        E::X_BLOWFISHCBC => (4..=56).contains(&len),
        E::X_AESCBC | E::X_CAMELLIACBC | E::X_TWOFISHCBC => matches!(len, 16 | 24 | 32),
        E::X_SERPENTCBC => len <= 32,
        E::X_AESCTR => matches!(len, 20 | 28 | 36),
        _ => Aead::by_id(id).is_some_and(|aead| aead.keys.iter().any(|bits| usize::from(*bits) == len * 8)),
    }
}
