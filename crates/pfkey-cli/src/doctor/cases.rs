//! What a trial adds: an SA of each protocol, mode and algorithm, and policies, in setkey's language.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use pfkey_wire::algorithm::{AEAD, Algorithm, Keys, by_id};

use crate::model::names;

/// Something that a kernel has or lacks.
pub struct Case {
    /// Its name, for people and for [`super::daemons`].
    pub name: String,
    /// What adds it.
    pub text: String,
}

impl Case {
    /// Whether it is about an algorithm only.
    pub fn is_algorithm(&self) -> bool {
        is_algorithm(&self.name)
    }
}

/// Whether a case of this name is about an algorithm only.
pub fn is_algorithm(name: &str) -> bool {
    !name.contains(' ')
}

/// What SAs of all algorithms need.
pub const PLAIN_ESP: &str = "ESP transport IPv4";

/// Names of cases, shorter where all of a protocol are among them.
pub fn summary(names: &BTreeSet<&str>) -> String {
    let of = |protocol: &str, family: &str| {
        let modes: &[&str] =
            if protocol == "ESP" { &["transport", "tunnel", "beet"] } else { &["transport", "tunnel"] };
        modes.iter().map(|mode| format!("{protocol} {mode} {family}")).collect::<Vec<_>>()
    };
    let mut rest = names.clone();
    let mut shown = Vec::new();
    for protocol in ["ESP", "AH", "IPComp"] {
        let (v4, v6) = (of(protocol, "IPv4"), of(protocol, "IPv6"));
        let has = |all: &[String]| all.iter().all(|name| names.contains(name.as_str()));
        let (has4, has6) = (has(&v4), has(&v6));
        if has4 || has6 {
            shown.push(match (has4, has6) {
                (true, true) => protocol.to_owned(),
                (true, false) => format!("{protocol} IPv4"),
                _ => format!("{protocol} IPv6"),
            });
        }
        let taken = v4.iter().filter(|_| has4).chain(v6.iter().filter(|_| has6));
        for name in taken {
            rest.remove(name.as_str());
        }
    }
    shown.extend(rest.into_iter().map(str::to_owned));
    shown.join(", ")
}

/// The base of SAs that are about something else.
const CIPHER: &str = "aes-cbc";
const HASH: &str = "hmac-sha1";

/// Documentation's addresses (RFC 5737, RFC 3849): a source and a destination of each family.
const HOSTS: [(&str, &str, &str); 2] = [("IPv4", "192.0.2.1", "192.0.2.2"), ("IPv6", "2001:db8::1", "2001:db8::2")];
/// Networks behind them.
const NETWORKS: [(&str, &str); 2] = [("198.51.100.0/25", "198.51.100.128/25"), ("2001:db8:1::/48", "2001:db8:2::/48")];

/// A key of the shortest length that an algorithm takes, of bytes that differ: DES and 3DES refuse equal halves.
fn key(algorithm: &Algorithm) -> String {
    let bits = match algorithm.keys {
        Keys::OneOf(lengths) => lengths.first().copied().unwrap_or(0),
        Keys::Range(least, _) => least.max(128),
    };
    let mut text = String::from("0x");
    for n in 0..u32::from(bits / 8) {
        let _ = write!(text, "{:02x}", (n * 0x1d + 0x13) & 0xff);
    }
    text
}

/// `-E NAME KEY`, or whatever option it is.
fn option(option: &str, tables: names::Tables, name: &str) -> String {
    let key = names::find(tables, name).filter(|(_, algorithm)| names::takes_key(algorithm)).map(|(_, a)| key(a));
    format!("{option} {name} {}", key.unwrap_or_default())
}

/// Every case; `aead` are those that AF_KEY does not have. `listed` are the algorithms that the engine says it has.
pub fn all(listed: &BTreeSet<String>, aead: bool) -> Vec<Case> {
    let base = |tables, wanted: &'static str, otherwise: &'static str| {
        let first = names::all(tables).filter_map(|algorithm| algorithm.names.first().copied());
        let mut first = first.filter(|name| listed.contains(*name));
        if listed.contains(wanted) { wanted } else { first.next().unwrap_or(otherwise) }
    };
    let cipher = option("-E", names::ENCRYPT, base(names::ENCRYPT, CIPHER, "null"));
    let hash = option("-A", names::AUTH, base(names::AUTH, HASH, HASH));
    let mut cases = Vec::new();
    let mut spi = 0x1000;
    let mut sa = |name: String, hosts: (&str, &str), protocol: &str, mode: &str, algorithms: &str| {
        spi += 1;
        let (source, destination) = hosts;
        let text = format!("add {source} {destination} {protocol} {spi} -m {mode} {algorithms};");
        cases.push(Case { name, text });
    };
    let esp = format!("{cipher} {hash}");
    for (family, source, destination) in HOSTS {
        // BEET is ESP's (draft-nikander-esp-beet-mode).
        let kinds = [
            ("ESP", "esp", esp.as_str(), &["transport", "tunnel", "beet"][..]),
            ("AH", "ah", &hash, &["transport", "tunnel"]),
            ("IPComp", "ipcomp", "-C deflate", &["transport", "tunnel"]),
        ];
        for (shown, protocol, algorithms, modes) in kinds {
            for mode in modes {
                sa(format!("{shown} {mode} {family}"), (source, destination), protocol, mode, algorithms);
            }
        }
    }
    sa("NAT traversal".to_owned(), ("192.0.2.1[4500]", "192.0.2.2[4500]"), "esp-udp", "tunnel", &esp);
    let hosts = ("192.0.2.1", "192.0.2.2");
    for (tables, letter) in [(names::ENCRYPT, "-E"), (names::AUTH, "-A")] {
        for algorithm in names::all(tables).filter(|algorithm| !algorithm.kernel.is_empty()) {
            let Some(name) = algorithm.names.first() else { continue };
            let own = option(letter, tables, name);
            let is_aead = letter == "-E" && by_id(AEAD, algorithm.id).is_some();
            let words = match letter {
                "-E" if is_aead && !aead => continue,
                "-E" if is_aead => own,
                "-E" => format!("{own} {hash}"),
                // No protection at all is no algorithm.
                _ if !names::takes_key(algorithm) => continue,
                _ => format!("{cipher} {own}"),
            };
            sa((*name).to_owned(), hosts, "esp", "transport", &words);
        }
    }
    for ((family, source, destination), (from, to)) in HOSTS.into_iter().zip(NETWORKS) {
        let text = format!(
            "spdadd {from} {to} any -P out ipsec esp/tunnel/{source}-{destination}/require;
             spdadd {to} {from} any -P in ipsec esp/tunnel/{destination}-{source}/require;"
        );
        cases.push(Case { name: format!("policies {family}"), text });
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_short() {
        let cases = all(&BTreeSet::new(), false);
        let esp = || cases.iter().map(|case| case.name.as_str()).filter(|name| name.starts_with("ESP "));
        assert_eq!(summary(&esp().collect()), "ESP");
        let v6 = esp().filter(|name| name.ends_with('6')).chain(["NAT traversal", "ESP beet IPv4"]);
        assert_eq!(summary(&v6.collect()), "ESP IPv6, ESP beet IPv4, NAT traversal");
    }

    #[test]
    fn every_case_is_of_setkeys_language() {
        let listed = ["aes-cbc", "hmac-sha1"].map(str::to_owned).into();
        let cases = all(&listed, true);
        for case in &cases {
            let parsed = crate::setkey::parse(case.text.as_bytes(), false);
            assert_eq!(parsed.errors, [], "{}: {}", case.name, case.text);
            assert_eq!(parsed.warnings, [], "{}: {}", case.name, case.text);
            assert!(!parsed.commands.is_empty());
        }
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len(), "a name twice");
        for name in ["ESP beet IPv6", "IPComp tunnel IPv4", "aes-gcm-16", "3des-cbc", "hmac-sha1"] {
            assert!(names.contains(name), "{name} in {names:?}");
        }
        assert!(!all(&listed, false).iter().any(|case| case.name == "aes-gcm-16"));
    }
}
