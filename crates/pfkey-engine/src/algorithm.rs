//! The algorithms that the engine accepts and lists: those of [`pfkey_wire::algorithm`] that Debian's Linux 7.2 has (without SM3
//! and SM4), in the order of REGISTER's reply.

use pfkey_wire::algorithm::{AEAD, AUTH, Algorithm, COMPRESS, ENCRYPT, by_id};
use pfkey_wire::layout::SadbAlg;
use pfkey_wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm};

fn listed(table: &'static [Algorithm]) -> Vec<SadbAlg> {
    table.iter().filter(|algorithm| algorithm.embedded).map(Algorithm::listed).collect()
}

fn embedded(table: &'static [Algorithm], id: u8) -> bool {
    by_id(table, id).is_some_and(|algorithm| algorithm.embedded)
}

/// What `SADB_EXT_SUPPORTED_AUTH` lists.
#[must_use]
pub fn supported_auth() -> Vec<SadbAlg> {
    listed(AUTH)
}

/// What `SADB_EXT_SUPPORTED_ENCRYPT` lists.
#[must_use]
pub fn supported_encrypt() -> Vec<SadbAlg> {
    listed(ENCRYPT)
}

/// What it lists beyond AF_KEY.
#[must_use]
pub fn supported_aead() -> Vec<SadbAlg> {
    listed(AEAD)
}

/// Whether an authentication algorithm exists (`xfrm_aalg_get_byid`).
#[must_use]
pub fn has_auth(id: AuthAlgorithm) -> bool {
    embedded(AUTH, id.0)
}

/// Whether an encryption algorithm exists (`xfrm_ealg_get_byid`); AEADs do not for AF_KEY.
#[must_use]
pub fn has_encrypt(id: EncryptAlgorithm) -> bool {
    embedded(ENCRYPT, id.0)
}

/// Whether a number is an AEAD's.
#[must_use]
pub fn is_aead(id: EncryptAlgorithm) -> bool {
    embedded(AEAD, id.0)
}

/// Whether a compression algorithm exists: deflate alone does.
#[must_use]
pub fn has_compress(id: CompressionAlgorithm) -> bool {
    embedded(COMPRESS, id.0)
}

/// Whether the hash takes a key of this many bytes.
#[must_use]
pub fn accepts_auth_key(id: AuthAlgorithm, len: usize) -> bool {
    by_id(AUTH, id.0).is_none_or(|algorithm| algorithm.accepts_key(len))
}

/// Whether the cipher takes a key of this many bytes.
#[must_use]
pub fn accepts_encrypt_key(id: EncryptAlgorithm, len: usize) -> bool {
    by_id(ENCRYPT, id.0).or_else(|| by_id(AEAD, id.0)).is_some_and(|algorithm| algorithm.accepts_key(len))
}
