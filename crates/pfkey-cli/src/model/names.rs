//! setkey's names of numbers, both ways.

use std::sync::OnceLock;

use pfkey_wire::SaType;
use pfkey_wire::algorithm::{self, Algorithm, Keys};

/// Algorithms that one option of setkey's names.
pub type Tables = &'static [&'static [Algorithm]];

/// Authentication.
pub const AUTH: Tables = &[algorithm::AUTH, algorithm::KAME_AUTH];
/// Encryption.
pub const ENCRYPT: Tables = &[algorithm::ENCRYPT, algorithm::AEAD];
/// Compression; it takes no key.
pub const COMPRESS: Tables = &[algorithm::OTHER_COMPRESS, algorithm::COMPRESS];

/// Every algorithm of tables.
pub fn all(tables: Tables) -> impl Iterator<Item = &'static Algorithm> {
    tables.iter().copied().flatten()
}

/// Whether an algorithm takes a key.
pub fn takes_key(algorithm: &Algorithm) -> bool {
    algorithm.keys != Keys::OneOf(&[0])
}

/// The algorithm of a name, and that name. The kernel's own is one too, as `ip xfrm` has it; of several with that the one with
/// the longest integrity value.
pub fn find(tables: Tables, name: &str) -> Option<(&'static str, &'static Algorithm)> {
    let named = all(tables).find_map(|algorithm| Some((*algorithm.names.iter().find(|one| **one == name)?, algorithm)));
    named.or_else(|| {
        let kernels = all(tables).filter(|algorithm| !name.is_empty() && algorithm.kernel == name);
        kernels.max_by_key(|algorithm| algorithm.icv).and_then(|algorithm| Some((*algorithm.names.first()?, algorithm)))
    })
}

/// The bits of an integrity value that a name says: those of SHA2-256 are others on AF_KEY than everywhere else.
pub fn icv_bits(name: &str) -> Option<u32> {
    match name {
        "hmac-sha2-256" | "hmac-sha2-256-128" => Some(128),
        "hmac-sha2-256-96" => Some(96),
        _ => None,
    }
}

/// The name of a number.
pub fn name_of(tables: Tables, id: u8) -> Option<&'static str> {
    all(tables).find(|algorithm| algorithm.id == id)?.names.first().copied()
}

/// The name of a number, or the number.
pub fn shown(tables: Tables, id: u8) -> String {
    name_of(tables, id).map_or_else(|| id.to_string(), str::to_owned)
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
    let text = std::fs::read(path).unwrap_or_default();
    table_of(&String::from_utf8_lossy(&text))
}

/// The same of its text, of which comments may be in any encoding.
fn table_of(text: &str) -> Vec<(String, u16, String)> {
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
    let ranked = candidates.into_iter().map(|c| (strsim::levenshtein(name, c), c)).filter(|(d, _)| *d <= limit);
    ranked.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_in_any_encoding_hides_no_name() {
        let path = std::env::temp_dir().join(format!("pfkey-names-{}", std::process::id()));
        std::fs::write(&path, b"# caf\xe9\nexample 4242/udp also # \xff\n").unwrap();
        let table = read_table(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        let named = |name: &str| (name.to_owned(), 4242, "udp".to_owned());
        assert_eq!(table, [named("example"), named("also")]);
    }

    #[test]
    fn the_nearest_name() {
        let names = || all(AUTH).flat_map(|algorithm| algorithm.names.iter().copied());
        assert_eq!(nearest("hmac-sha265", names()), Some("hmac-sha256"));
        assert_eq!(nearest("hmac_sha1", names()), Some("hmac-sha1"));
        assert_eq!(nearest("frobnicate", names()), None);
    }

    #[test]
    fn the_kernels_names_are_names_too() {
        let found = |tables, name| find(tables, name).map(|(name, algorithm)| (name, algorithm.id));
        assert_eq!(found(AUTH, "hmac(sha1)"), Some(("hmac-sha1", 3)));
        assert_eq!(found(AUTH, "digest_null"), Some(("null", 251)));
        assert_eq!(found(ENCRYPT, "ecb(cipher_null)"), Some(("null", 11)));
        assert_eq!(found(ENCRYPT, "rfc4106(gcm(aes))"), Some(("aes-gcm-16", 20)));
        assert_eq!(found(ENCRYPT, "rfc7539esp(chacha20,poly1305)"), Some(("chacha20-poly1305", 28)));
        assert_eq!(found(ENCRYPT, ""), None);
    }
}
