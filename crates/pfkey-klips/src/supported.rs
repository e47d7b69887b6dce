//! The algorithms that KLIPS has (`pfkey_supported_list`).

use super::number::{X_SATYPE_COMP, X_SATYPE_IPIP};
use pfkey_hub::Supported;
use pfkey_wire::layout::SadbAlg;
use pfkey_wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, SaType};

/// "IPv4 in IPv4", an IP-in-IP SA's "algorithm".
pub const TALG_IPV4_IN_IPV4: u8 = 1;

fn algorithm(id: u8, iv_bits: u8, bits: u16) -> SadbAlg {
    SadbAlg { id, ivlen: iv_bits, minbits: bits.into(), maxbits: bits.into(), ..Default::default() }
}

/// The algorithms of an SA type. Unlike Linux, KLIPS lists those of the one type, and `ivlen` counts bits.
#[must_use]
pub fn supported(satype: SaType) -> Supported {
    let auth = || vec![algorithm(AuthAlgorithm::MD5HMAC.0, 0, 128), algorithm(AuthAlgorithm::SHA1HMAC.0, 0, 160)];
    match satype {
        SaType::AH => Supported { auth: auth(), encrypt: Vec::new() },
        SaType::ESP => Supported { auth: auth(), encrypt: vec![algorithm(EncryptAlgorithm::A3DESCBC.0, 64, 168)] },
        X_SATYPE_IPIP => Supported { auth: Vec::new(), encrypt: vec![algorithm(TALG_IPV4_IN_IPV4, 0, 32)] },
        X_SATYPE_COMP => {
            Supported { auth: Vec::new(), encrypt: vec![algorithm(CompressionAlgorithm::DEFLATE.0, 0, 1)] }
        }
        _ => Supported::default(),
    }
}

/// The bits that an authentication key must have; `None` for an algorithm that KLIPS lacks.
pub(super) const fn auth_bits(id: u8) -> Option<u16> {
    match AuthAlgorithm(id) {
        AuthAlgorithm::MD5HMAC => Some(128),
        AuthAlgorithm::SHA1HMAC => Some(160),
        _ => None,
    }
}

/// Whether a key of so many bits is one of this cipher: 3DES with its parity bits, as key managers send it, or without,
/// as the list says.
pub(super) const fn is_encrypt_key(id: u8, bits: u16) -> bool {
    matches!((EncryptAlgorithm(id), bits), (EncryptAlgorithm::A3DESCBC, 168 | 192))
}
