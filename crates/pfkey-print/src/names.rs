//! libipsec's names of numbers, as `setkey -D` shows them. A number without a name is shown in decimal.

use core::fmt;

use crate::wire::SaType;
use crate::wire::algorithm::{AUTH, Algorithm, COMPRESS, ENCRYPT, KAME_AUTH, OTHER_COMPRESS, by_id};

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

fn in_tables(tables: &[&'static [Algorithm]], number: u8) -> Named {
    let name = match number {
        0 => Some("none"),
        _ => tables.iter().find_map(|table| by_id(table, number)).and_then(|algorithm| algorithm.libipsec),
    };
    Named { name, number }
}

/// The name of an authentication algorithm.
pub(super) fn auth(algorithm: u8) -> Named {
    in_tables(&[AUTH, KAME_AUTH], algorithm)
}

/// The name of an encryption algorithm.
pub(super) fn encrypt(algorithm: u8) -> Named {
    in_tables(&[ENCRYPT], algorithm)
}

/// The name of a compression algorithm.
pub(super) fn compression(algorithm: u8) -> Named {
    in_tables(&[OTHER_COMPRESS, COMPRESS], algorithm)
}
