//! setkey's names of numbers, both ways.

use std::sync::OnceLock;

use pfkey_rs::wire::{AuthAlgorithm as A, CompressionAlgorithm as C, EncryptAlgorithm as E, SaType};

/// Lengths of key that an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// These.
    OneOf(&'static [u16]),
    /// From, to, in steps of 8.
    Range(u16, u16),
}

impl Bits {
    /// Whether a key of this length is one.
    pub fn contains(self, bits: usize) -> bool {
        match self {
            Self::OneOf(lengths) => lengths.iter().any(|&n| usize::from(n) == bits),
            Self::Range(min, max) => (usize::from(min)..=usize::from(max)).contains(&bits),
        }
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OneOf(lengths) => {
                let words: Vec<_> = lengths.iter().map(ToString::to_string).collect();
                write!(f, "{} bits", words.join(" or "))
            }
            Self::Range(min, max) => write!(f, "{min} to {max} bits"),
        }
    }
}

/// An algorithm: its name in files, its number, its keys.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    /// Name.
    pub name: &'static str,
    /// Number.
    pub id: u8,
    /// Key lengths.
    pub bits: Bits,
}

const fn algorithm(name: &'static str, id: u8, bits: Bits) -> Algorithm {
    Algorithm { name, id, bits }
}

/// No key at all.
pub const NO_KEY: Bits = Bits::OneOf(&[0]);
/// AES and its like.
const AES: Bits = Bits::OneOf(&[128, 192, 256]);
/// AES with a salt of 32 bits behind the key (RFC 3686, RFC 4106, RFC 4543).
const AES_SALT_32: Bits = Bits::OneOf(&[160, 224, 288]);
/// AES with a salt of 24 bits behind the key (RFC 4309).
const AES_SALT_24: Bits = Bits::OneOf(&[152, 216, 280]);

/// Authentication; of several names of a number the first is the one that is shown.
pub const AUTH: &[Algorithm] = &[
    algorithm("hmac-md5", A::MD5HMAC.0, Bits::OneOf(&[128])),
    algorithm("hmac-sha1", A::SHA1HMAC.0, Bits::OneOf(&[160])),
    algorithm("hmac-sha256", A::X_SHA2_256HMAC.0, Bits::OneOf(&[256])),
    algorithm("hmac-sha2-256", A::X_SHA2_256HMAC.0, Bits::OneOf(&[256])),
    algorithm("hmac-sha384", A::X_SHA2_384HMAC.0, Bits::OneOf(&[384])),
    algorithm("hmac-sha2-384", A::X_SHA2_384HMAC.0, Bits::OneOf(&[384])),
    algorithm("hmac-sha512", A::X_SHA2_512HMAC.0, Bits::OneOf(&[512])),
    algorithm("hmac-sha2-512", A::X_SHA2_512HMAC.0, Bits::OneOf(&[512])),
    algorithm("hmac-ripemd160", A::X_RIPEMD160HMAC.0, Bits::OneOf(&[160])),
    algorithm("aes-xcbc-mac", A::X_AES_XCBC_MAC.0, Bits::OneOf(&[128])),
    algorithm("hmac-sm3", A::X_SM3_256HMAC.0, Bits::OneOf(&[256])),
    // KAME's numbers, which no Linux knows.
    algorithm("keyed-md5", 249, Bits::OneOf(&[128])),
    algorithm("keyed-sha1", 250, Bits::OneOf(&[160])),
    algorithm("null", A::X_NULL.0, NO_KEY),
];

/// Encryption.
pub const ENCRYPT: &[Algorithm] = &[
    algorithm("des-cbc", E::DESCBC.0, Bits::OneOf(&[64])),
    algorithm("des-deriv", E::DESCBC.0, Bits::OneOf(&[64])),
    algorithm("des-32iv", E::DESCBC.0, Bits::OneOf(&[64])),
    algorithm("3des-cbc", E::A3DESCBC.0, Bits::OneOf(&[192])),
    algorithm("cast128-cbc", E::X_CASTCBC.0, Bits::Range(40, 128)),
    algorithm("blowfish-cbc", E::X_BLOWFISHCBC.0, Bits::Range(32, 448)),
    algorithm("null", E::NULL.0, NO_KEY),
    algorithm("simple", E::NULL.0, NO_KEY),
    algorithm("aes-cbc", E::X_AESCBC.0, AES),
    algorithm("rijndael-cbc", E::X_AESCBC.0, AES),
    algorithm("aes-ctr", E::X_AESCTR.0, AES_SALT_32),
    algorithm("aes-ccm-8", E::X_AES_CCM_ICV8.0, AES_SALT_24),
    algorithm("aes-ccm-12", E::X_AES_CCM_ICV12.0, AES_SALT_24),
    algorithm("aes-ccm-16", E::X_AES_CCM_ICV16.0, AES_SALT_24),
    algorithm("aes-gcm-8", E::X_AES_GCM_ICV8.0, AES_SALT_32),
    algorithm("aes-gcm-12", E::X_AES_GCM_ICV12.0, AES_SALT_32),
    algorithm("aes-gcm-16", E::X_AES_GCM_ICV16.0, AES_SALT_32),
    algorithm("camellia-cbc", E::X_CAMELLIACBC.0, AES),
    algorithm("aes-gmac", E::X_NULL_AES_GMAC.0, AES_SALT_32),
    algorithm("chacha20-poly1305", E::X_CHACHA20_POLY1305.0, Bits::OneOf(&[288])),
    algorithm("sm4-cbc", E::X_SM4CBC.0, Bits::OneOf(&[128])),
    algorithm("serpent-cbc", E::X_SERPENTCBC.0, Bits::Range(0, 256)),
    algorithm("twofish-cbc", E::X_TWOFISHCBC.0, AES),
];

/// Compression; it takes no key.
pub const COMPRESS: &[Algorithm] = &[
    algorithm("oui", C::OUI.0, NO_KEY),
    algorithm("deflate", C::DEFLATE.0, NO_KEY),
    algorithm("lzs", C::LZS.0, NO_KEY),
    algorithm("lzjh", C::LZJH.0, NO_KEY),
];

/// The algorithm of a name.
pub fn find(table: &'static [Algorithm], name: &str) -> Option<&'static Algorithm> {
    table.iter().find(|a| a.name == name)
}

/// The name of a number.
pub fn name_of(table: &'static [Algorithm], id: u8) -> Option<&'static str> {
    table.iter().find(|a| a.id == id).map(|a| a.name)
}

/// The name of a number, or the number.
pub fn shown(table: &'static [Algorithm], id: u8) -> String {
    name_of(table, id).map_or_else(|| id.to_string(), str::to_owned)
}

/// Security protocols: name, SA type.
pub const PROTOCOLS: &[(&str, SaType)] = &[
    ("esp", SaType::ESP),
    ("ah", SaType::AH),
    ("ipcomp", SaType::X_IPCOMP),
    ("esp-udp", SaType::ESP),
    ("esp-old", SaType::ESP),
    ("ah-old", SaType::AH),
];

/// The name of an SA type.
pub fn satype(satype: SaType) -> String {
    match PROTOCOLS.iter().find(|(_, t)| *t == satype) {
        Some((name, _)) => (*name).to_owned(),
        None => satype.name().map_or_else(|| satype.0.to_string(), str::to_lowercase),
    }
}

/// The name of a mode of SA2 and of requests.
pub fn mode(mode: u8) -> String {
    match ["any", "transport", "tunnel", "beet"].get(usize::from(mode)) {
        Some(name) => (*name).to_owned(),
        None => mode.to_string(),
    }
}

/// The name of an SA's state.
pub fn state(state: u8) -> String {
    match ["larval", "mature", "dying", "dead"].get(usize::from(state)) {
        Some(name) => (*name).to_owned(),
        None => state.to_string(),
    }
}

/// Upper-layer protocols that need no file. The first of a number's names is the one that is shown.
const UPPER: &[(&str, u8)] = &[
    ("any", 255),
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmp6", 58),
    ("ipv6-icmp", 58),
    ("ip4", 4),
    ("ipencap", 4),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipcomp", 108),
    ("sctp", 132),
    ("mh", 135),
    ("mobility-header", 135),
    ("igmp", 2),
    ("ospf", 89),
    ("l2tp", 115),
];

/// `/etc/protocols` or `/etc/services` as (name, number, rest of the number's word).
fn read_table(path: &str) -> Vec<(String, u16, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut table = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
        let (number, rest) = number.split_once('/').unwrap_or((number, ""));
        let Ok(number) = number.parse() else { continue };
        for name in std::iter::once(name).chain(words) {
            table.push((name.to_owned(), number, rest.to_owned()));
        }
    }
    table
}

/// The number of an upper-layer protocol's name.
pub fn upper_number(name: &str) -> Option<u8> {
    static FILE: OnceLock<Vec<(String, u16, String)>> = OnceLock::new();
    if let Some((_, number)) = UPPER.iter().find(|(n, _)| *n == name) {
        return Some(*number);
    }
    let file = FILE.get_or_init(|| read_table("/etc/protocols"));
    file.iter().find(|(n, ..)| n == name).and_then(|(_, number, _)| u8::try_from(*number).ok())
}

/// The name of an upper-layer protocol, or its number.
pub fn upper(number: u8) -> String {
    match UPPER.iter().find(|(_, n)| *n == number) {
        Some((name, _)) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// The names of upper-layer protocols that are suggested.
pub fn upper_names() -> impl Iterator<Item = &'static str> {
    UPPER.iter().map(|(name, _)| *name)
}

/// The port of a service's name.
pub fn service(name: &str) -> Option<u16> {
    static FILE: OnceLock<Vec<(String, u16, String)>> = OnceLock::new();
    let file = FILE.get_or_init(|| read_table("/etc/services"));
    file.iter().find(|(n, ..)| n == name).map(|(_, port, _)| *port)
}

/// The candidate that is most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a name of a thousand letters.
    if name.len() > 64 {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1) + 1;
    let ranked = candidates.into_iter().map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= limit);
    ranked.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Levenshtein's distance, row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (above, cb) in row.iter_mut().skip(1).zip(&b) {
            left = (*above + 1).min(left + 1).min(diagonal + usize::from(ca != *cb));
            diagonal = std::mem::replace(above, left);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name() {
        let names = || AUTH.iter().map(|a| a.name);
        assert_eq!(nearest("hmac-sha265", names()), Some("hmac-sha256"));
        assert_eq!(nearest("hmac_sha1", names()), Some("hmac-sha1"));
        assert_eq!(nearest("frobnicate", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn every_number_of_the_wire_has_a_name_here() {
        for id in A::ALL.iter().filter(|a| **a != A::NONE) {
            assert!(name_of(AUTH, id.0).is_some(), "{id:?}");
        }
        for id in E::ALL.iter().filter(|e| **e != E::NONE) {
            assert!(name_of(ENCRYPT, id.0).is_some(), "{id:?}");
        }
        for id in C::ALL.iter().filter(|c| **c != C::NONE) {
            assert!(name_of(COMPRESS, id.0).is_some(), "{id:?}");
        }
    }
}
