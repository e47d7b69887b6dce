//! `types`: the numbers of a dialect, and two dialects beside each other.

use std::collections::BTreeMap;

use pfkey_klips::{self as klips, MSG_PARSERS};
use pfkey_wire::message_type::MESSAGES;
use pfkey_wire::{CompressionAlgorithm, ExtensionType, IdentityType, MessageType, Profile, SaFlags};

use crate::failure::Failure;
use crate::meaning;
use crate::output::{Out, Record, Value, View, show};

/// RFC 2367's last message and extension, up to which the dialects agree.
const LAST_SHARED: (u8, u16) = (12, 17);

/// KLIPS's flags of an SA (Openswan's `pfkeyv2.h`).
const KLIPS_FLAGS: [(u32, &str); 4] = [(1, "PFS"), (2, "REPLACEFLOW"), (4, "CLEARFLOW"), (8, "INFLOW")];
/// What KLIPS calls the algorithms of an IP-in-IP SA.
const KLIPS_TRANSFORMS: [(u32, &str); 4] =
    [(1, "IPv4_in_IPv4"), (2, "IPv6_in_IPv4"), (3, "IPv4_in_IPv6"), (4, "IPv6_in_IPv6")];
/// Linux's flags.
const LINUX_FLAGS: [(u32, &str); 4] = [
    (SaFlags::PFS.0, "PFS"),
    (SaFlags::NOPMTUDISC.0, "NOPMTUDISC"),
    (SaFlags::DECAP_DSCP.0, "DECAP_DSCP"),
    (SaFlags::NOECN.0, "NOECN"),
];

/// One number of a dialect.
#[derive(Clone, Copy)]
struct Number {
    kind: Kind,
    number: u32,
    name: &'static str,
    /// Who sends a message to whom.
    direction: &'static str,
    /// The C structure of an extension.
    structure: &'static str,
    /// Its fixed part.
    bytes: Option<usize>,
    /// What it is for.
    meaning: &'static str,
    /// The function that a kernel has for a message.
    handler: Option<&'static str>,
    /// Whether it is RFC 2367's.
    rfc: bool,
}

impl Number {
    const fn new(kind: Kind, number: u32, name: &'static str, rfc: bool) -> Self {
        Self { kind, number, name, direction: "", structure: "", bytes: None, meaning: "", handler: None, rfc }
    }
}

/// What a number is for. The order is that of the lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Message,
    Extension,
    SaType,
    Flag,
    Compression,
    Transform,
    Identity,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Extension => "extension",
            Self::SaType => "satype",
            Self::Flag => "flag",
            Self::Compression => "compression",
            Self::Transform => "transform",
            Self::Identity => "identity",
        }
    }
}

/// A dialect of PF_KEY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    Linux,
    Klips,
    Rfc2367,
}

impl Dialect {
    /// Its numbers and sizes.
    const fn profile(self) -> Profile {
        match self {
            Self::Linux | Self::Rfc2367 => Profile::Linux,
            Self::Klips => Profile::Klips,
        }
    }
}

/// All numbers of a dialect.
fn numbers(dialect: Dialect) -> Vec<Number> {
    let (profile, klips) = (dialect.profile(), dialect == Dialect::Klips);
    let mut list = Vec::new();
    for number in 1..=profile.max_message_type() {
        let (message, index) = (MessageType(number), usize::from(number));
        let (name, handler) = match dialect {
            Dialect::Klips => (
                klips::number::message_name(message),
                MSG_PARSERS.get(index).copied().flatten().map(|parser| parser.name),
            ),
            Dialect::Linux => {
                (message.name(), MESSAGES.iter().find(|row| row.msg_type == message).and_then(|row| row.handler))
            }
            Dialect::Rfc2367 => (message.name(), None),
        };
        let Some(name) = name else { continue };
        let (direction, meaning) =
            meaning::message(dialect, name).map_or(("", ""), |(direction, meaning)| (direction.name(), meaning));
        let plain = Number::new(Kind::Message, number.into(), name, number <= LAST_SHARED.0);
        list.push(Number { direction, meaning, handler, ..plain });
    }
    for number in 1..=profile.max_extension_type() {
        let extension = ExtensionType(number);
        let name = if klips { klips::number::extension_name(extension) } else { extension.name() };
        let Some(name) = name else { continue };
        let (structure, meaning) = meaning::extension(profile, name).unwrap_or_default();
        let bytes = Some(profile.min_extension_len(number).unwrap_or_default());
        let plain = Number::new(Kind::Extension, number.into(), name, number <= LAST_SHARED.1);
        list.push(Number { structure, bytes, meaning, ..plain });
    }
    for (number, name, meaning, rfc) in meaning::satypes(profile) {
        list.push(Number { meaning, ..Number::new(Kind::SaType, number.into(), name, rfc) });
    }
    let flags = if klips { KLIPS_FLAGS } else { LINUX_FLAGS };
    list.extend(flags.map(|(number, name)| Number::new(Kind::Flag, number, name, number == SaFlags::PFS.0)));
    for algorithm in CompressionAlgorithm::ALL {
        list.extend(algorithm.name().map(|name| Number::new(Kind::Compression, algorithm.0.into(), name, false)));
    }
    if klips {
        list.extend(KLIPS_TRANSFORMS.map(|(number, name)| Number::new(Kind::Transform, number, name, false)));
    }
    for identity in IdentityType::ALL {
        list.extend(identity.name().map(|name| Number::new(Kind::Identity, identity.0.into(), name, true)));
    }
    if klips {
        list.push(Number::new(Kind::Identity, 4, "CONNECTION", false));
    }
    list
}

/// A number as people read it.
fn value(kind: Kind, number: u32) -> Value {
    if kind == Kind::Flag { Value::Hex(number) } else { Value::Number(number.into()) }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Shows the tables of a dialect.
pub fn types(view: View, dialect: Dialect) -> Result<(), Failure> {
    let records: Vec<Record> = numbers(dialect)
        .into_iter()
        .map(|number| {
            let mut record = vec![
                ("kind", text(number.kind.name())),
                ("number", value(number.kind, number.number)),
                ("name", text(number.name)),
            ];
            let texts = [("direction", number.direction), ("structure", number.structure)];
            record
                .extend(texts.into_iter().filter(|(_, word)| !word.is_empty()).map(|(name, word)| (name, text(word))));
            record.extend(number.bytes.map(|bytes| ("fixed_bytes", Value::Number(bytes as u64))));
            if !number.meaning.is_empty() {
                record.push(("meaning", text(number.meaning)));
            }
            record.push(("origin", text(if number.rfc { "RFC 2367" } else { "extension" })));
            record
        })
        .collect();
    let columns = &["kind", "number", "name", "direction", "structure", "fixed_bytes", "meaning"];
    Ok(show(&mut Out::new(), view, "types", columns, &records)?)
}

/// Shows KLIPS's tables beside those of a dialect on Linux's numbers (beside Linux's, if it is KLIPS): what a number
/// means to each, what a message is handled by (`pfkey_funcs[]`, `msg_parsers[]`), and whether they agree.
pub fn diff(view: View, dialect: Dialect) -> Result<(), Failure> {
    let (first, names) = match dialect {
        Dialect::Rfc2367 => (Dialect::Rfc2367, ["rfc2367", "rfc2367_bytes", "rfc2367_handler"]),
        Dialect::Linux | Dialect::Klips => (Dialect::Linux, ["linux", "linux_bytes", "linux_handler"]),
    };
    let names = [names, ["klips", "klips_bytes", "klips_handler"]];
    let mut rows: BTreeMap<(Kind, u32), [Option<Number>; 2]> = BTreeMap::new();
    for (side, dialect) in [first, Dialect::Klips].into_iter().enumerate() {
        for number in numbers(dialect) {
            rows.entry((number.kind, number.number)).or_default()[side] = Some(number);
        }
    }
    let records: Vec<Record> = rows
        .into_iter()
        .map(|((kind, number), sides)| {
            let same = match &sides {
                [Some(a), Some(b)] => (a.name, a.bytes) == (b.name, b.bytes),
                _ => false,
            };
            let mut record = vec![
                ("kind", text(kind.name())),
                ("number", value(kind, number)),
                ("same", text(if same { "yes" } else { "no" })),
            ];
            for ([name, bytes, handler], entry) in names.into_iter().zip(sides) {
                let Some(entry) = entry else { continue };
                record.push((name, text(entry.name)));
                record.extend(entry.bytes.map(|count| (bytes, Value::Number(count as u64))));
                record.extend(entry.handler.map(|function| (handler, text(function))));
            }
            record
        })
        .collect();
    let columns = [&["kind", "number"][..], &names.concat(), &["same"]].concat();
    Ok(show(&mut Out::new(), view, "types", &columns, &records)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey_wire::extension::EXTENSIONS;

    fn name(dialect: Dialect, kind: Kind, number: u32) -> Option<&'static str> {
        numbers(dialect).into_iter().find(|n| n.kind == kind && n.number == number).map(|n| n.name)
    }

    #[test]
    fn every_number_of_a_dialect_has_a_name_and_a_meaning() {
        for dialect in [Dialect::Linux, Dialect::Rfc2367, Dialect::Klips] {
            let (all, profile) = (numbers(dialect), dialect.profile());
            // KLIPS's numbers have no gaps.
            let (messages, extensions) = match dialect {
                Dialect::Klips => (usize::from(profile.max_message_type()), usize::from(profile.max_extension_type())),
                _ => (MESSAGES.len(), EXTENSIONS.len()),
            };
            let count = |kind| all.iter().filter(|n| n.kind == kind && !n.meaning.is_empty()).count();
            assert_eq!(count(Kind::Message), messages, "{dialect:?} messages");
            assert_eq!(count(Kind::Extension), extensions, "{dialect:?} extensions");
        }
    }

    #[test]
    fn the_dialects_part_where_their_headers_do() {
        // linux/pfkeyv2.h and Openswan's pfkeyv2.h.
        let both = |kind, number| (name(Dialect::Linux, kind, number), name(Dialect::Klips, kind, number));
        assert_eq!(both(Kind::Message, 14), (Some("X_SPDADD"), Some("X_ADDFLOW")));
        assert_eq!(both(Kind::Extension, 26), (Some("X_FILTER"), Some("X_PROTOCOL")));
        assert_eq!(both(Kind::Extension, 30), (None, Some("X_NAT_T_OA")));
        assert_eq!(both(Kind::SaType, 9), (Some("X_IPCOMP"), Some("X_IPIP")));
        assert_eq!(both(Kind::Flag, 2), (None, Some("REPLACEFLOW")));
        assert_eq!(both(Kind::Identity, 4), (None, Some("CONNECTION")));
    }
}
