//! libipsec's names of numbers, as `setkey -D` shows them. A number without a name is shown in decimal.

use core::fmt;

use crate::wire::SaType;

/// A name, or the number that has none.
pub(super) struct Named {
    name: Option<&'static str>,
    number: u8,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.number),
        }
    }
}

fn in_list(names: &[&'static str], number: u8) -> Named {
    Named { name: names.get(usize::from(number)).copied(), number }
}

/// The name of an SA type.
pub(super) fn satype(satype: SaType) -> Named {
    const NAMES: [&str; 12] =
        ["unspec", "unknown", "ah", "esp", "unknown", "rsvp", "ospfv2", "ripv2", "mip", "ipcomp", "policy", "tcp"];
    in_list(&NAMES, satype.0)
}

/// The name of a mode.
pub(super) fn mode(mode: u8) -> Named {
    in_list(&["any", "transport", "tunnel"], mode)
}

/// The name of a state.
pub(super) fn state(state: u8) -> Named {
    in_list(&["larval", "mature", "dying", "dead"], state)
}

/// The name of an authentication algorithm.
pub(super) fn auth(algorithm: u8) -> Named {
    let name = match algorithm {
        0 => Some("none"),
        2 => Some("hmac-md5"),
        3 => Some("hmac-sha1"),
        5 => Some("hmac-sha256"),
        6 => Some("hmac-sha384"),
        7 => Some("hmac-sha512"),
        8 => Some("hmac-ripemd160"),
        9 => Some("aes-xcbc-mac"),
        249 => Some("md5"),
        250 => Some("sha"),
        251 => Some("null"),
        _ => None,
    };
    Named { name, number: algorithm }
}

/// The name of an encryption algorithm.
pub(super) fn encrypt(algorithm: u8) -> Named {
    let name = match algorithm {
        0 => Some("none"),
        2 => Some("des-cbc"),
        3 => Some("3des-cbc"),
        6 => Some("cast128-cbc"),
        7 => Some("blowfish-cbc"),
        11 => Some("null"),
        12 => Some("aes-cbc"),
        13 => Some("aes-ctr"),
        22 => Some("camellia-cbc"),
        253 => Some("twofish-cbc"),
        _ => None,
    };
    Named { name, number: algorithm }
}

/// The name of a compression algorithm.
pub(super) fn compression(algorithm: u8) -> Named {
    in_list(&["none", "oui", "deflate", "lzs"], algorithm)
}
