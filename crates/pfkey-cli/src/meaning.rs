//! What messages, extensions and SA types are for: the tables of "Unix Network Programming", figures 19.2 to 19.4, for
//! every number of a dialect.

use pfkey_wire::extension::EXTENSIONS;
use pfkey_wire::message_type::{Direction, MESSAGES};
use pfkey_wire::{Profile, SaType};

use crate::types::Dialect;

/// Who sends a message to whom, and what for. The names are those of [`crate::types`].
pub fn message(dialect: Dialect, name: &str) -> Option<(Direction, &'static str)> {
    let row = MESSAGES.iter().find(|row| row.msg_type.name() == Some(name));
    let row = row.map(|row| (row.direction, row.meaning));
    Some(match name {
        "DUMP" | "X_PROMISC" if dialect == Dialect::Klips => (Direction::Neither, row?.1),
        "X_PCHANGE" if dialect == Dialect::Rfc2367 => (Direction::Both, row?.1),
        "X_GRPSA" => (Direction::Both, "apply one SA behind another, or take such a chain apart"),
        "X_ADDFLOW" => (Direction::Both, "send packets of a flow through an SA"),
        "X_DELFLOW" => (Direction::Both, "forget a flow, or all"),
        "X_DEBUG" => (Direction::ToKernel, "set what is logged"),
        _ => row?,
    })
}

/// The C structure of an extension, and what it is for.
pub fn extension(profile: Profile, name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "X_SA2" if profile == Profile::Klips => Some(("sadb_sa", "the second SA of a group")),
        "X_SATYPE2" => Some(("sadb_x_satype", "type of the second SA of a group")),
        "X_ADDRESS_DST2" => Some(("sadb_address", "destination of the second SA of a group")),
        "X_ADDRESS_SRC_FLOW" => Some(("sadb_address", "source of a flow")),
        "X_ADDRESS_DST_FLOW" => Some(("sadb_address", "destination of a flow")),
        "X_ADDRESS_SRC_MASK" => Some(("sadb_address", "mask of a flow's source")),
        "X_ADDRESS_DST_MASK" => Some(("sadb_address", "mask of a flow's destination")),
        "X_DEBUG" => Some(("sadb_x_debug", "what is logged")),
        "X_PROTOCOL" => Some(("sadb_protocol", "protocol of a flow")),
        // What KLIPS has under another number is the same for the rest.
        _ => {
            let mut rows = EXTENSIONS.iter();
            rows.find(|row| row.ext_type.name() == Some(name)).map(|row| (row.structure, row.meaning))
        }
    }
}

/// The SA types of a dialect: number, name, what they are for, whether RFC 2367 has them.
pub fn satypes(profile: Profile) -> Vec<(u8, &'static str, &'static str, bool)> {
    let mut list = vec![
        (SaType::UNSPEC.0, "UNSPEC", "any", true),
        (SaType::AH.0, "AH", "IPsec authentication header, protocol 51", true),
        (SaType::ESP.0, "ESP", "IPsec encapsulating security payload, protocol 50", true),
        (SaType::RSVP.0, "RSVP", "RSVP authentication", true),
        (SaType::OSPFV2.0, "OSPFV2", "OSPF version 2 authentication", true),
        (SaType::RIPV2.0, "RIPV2", "RIP version 2 authentication", true),
        (SaType::MIP.0, "MIP", "Mobile IP authentication", true),
    ];
    if profile == Profile::Klips {
        list.push((9, "X_IPIP", "IP in IP, protocol 4", false));
        list.push((10, "X_COMP", "IP payload compression, protocol 108", false));
        list.push((11, "X_INT", "KLIPS's own: pass, drop, reject, hold, trap", false));
    } else {
        list.push((SaType::X_IPCOMP.0, "X_IPCOMP", "IP payload compression, protocol 108", false));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_those_of_the_book() {
        // Figure 19.2: EXPIRE is the one message that comes from the kernel alone.
        let direction = |name| message(Dialect::Linux, name).unwrap().0.name();
        for name in ["ACQUIRE", "ADD", "DELETE", "DUMP", "FLUSH", "GET", "GETSPI", "REGISTER", "UPDATE"] {
            assert_eq!(direction(name), "both", "{name}");
        }
        assert_eq!(direction("EXPIRE"), "from kernel");
    }

    #[test]
    fn structures_are_those_of_the_book() {
        // Figure 19.3.
        for (name, structure) in [
            ("SA", "sadb_sa"),
            ("LIFETIME_SOFT", "sadb_lifetime"),
            ("ADDRESS_PROXY", "sadb_address"),
            ("KEY_ENCRYPT", "sadb_key"),
            ("IDENTITY_DST", "sadb_ident"),
            ("SENSITIVITY", "sadb_sens"),
            ("PROPOSAL", "sadb_prop"),
            ("SUPPORTED_AUTH", "sadb_supported"),
            ("SPIRANGE", "sadb_spirange"),
        ] {
            assert_eq!(extension(Profile::Linux, name).unwrap().0, structure, "{name}");
        }
    }
}
