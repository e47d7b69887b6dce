//! What messages, extensions and SA types are for: the tables of "Unix Network Programming", figures 19.2 to 19.4, for
//! every number of a dialect.

use pfkey_rs::wire::{Profile, SaType};

use crate::types::Dialect;

/// Who sends a message to whom, and what for. The names are those of [`crate::types`].
pub fn message(dialect: Dialect, name: &str) -> Option<(&'static str, &'static str)> {
    const BOTH: &str = "both";
    const FROM: &str = "from kernel";
    const TO: &str = "to kernel";
    const NEITHER: &str = "neither";
    let klips = dialect == Dialect::Klips;
    let unused_by_klips = if klips { NEITHER } else { BOTH };
    Some(match name {
        "GETSPI" => (BOTH, "choose an SPI for a larval SA"),
        "UPDATE" => (BOTH, "complete a larval SA, or change an SA's limits"),
        "ADD" => (BOTH, "add a whole SA"),
        "DELETE" => (BOTH, "remove an SA"),
        "GET" => (BOTH, "show an SA, to the asker only"),
        "ACQUIRE" => (BOTH, "ask key managers for an SA; back with an errno: there is none to be had"),
        "REGISTER" => (BOTH, "be asked for SAs of a type; back: the algorithms"),
        "EXPIRE" => (FROM, "an SA has reached a limit"),
        "FLUSH" => (BOTH, "remove all SAs, or those of a type"),
        "DUMP" => (unused_by_klips, "show all SAs, to the asker only"),
        "X_PROMISC" => (unused_by_klips, "hear every message"),
        "X_PCHANGE" if dialect == Dialect::Rfc2367 => (BOTH, "tell key managers that a policy has changed"),
        "X_PCHANGE" => (NEITHER, "tell key managers that a policy has changed"),
        "X_SPDUPDATE" => (BOTH, "add a policy, or change it"),
        "X_SPDADD" => (BOTH, "add a policy"),
        "X_SPDDELETE" => (BOTH, "remove a policy by its selector"),
        "X_SPDGET" => (BOTH, "show a policy by its number"),
        "X_SPDACQUIRE" => (NEITHER, "ask for a policy"),
        "X_SPDDUMP" => (BOTH, "show all policies, to the asker only"),
        "X_SPDFLUSH" => (BOTH, "remove all policies"),
        "X_SPDSETIDX" => (BOTH, "add a policy"),
        "X_SPDEXPIRE" => (NEITHER, "a policy has reached a limit"),
        "X_SPDDELETE2" => (BOTH, "remove a policy by its number"),
        "X_NAT_T_NEW_MAPPING" => (FROM, "the peer of an SA in UDP sends from another address or port"),
        "X_MIGRATE" => (BOTH, "change the addresses of SAs and policies"),
        "X_GRPSA" => (BOTH, "apply one SA behind another, or take such a chain apart"),
        "X_ADDFLOW" => (BOTH, "send packets of a flow through an SA"),
        "X_DELFLOW" => (BOTH, "forget a flow, or all"),
        "X_DEBUG" => (TO, "set what is logged"),
        _ => return None,
    })
}

/// The C structure of an extension, and what it is for.
pub fn extension(profile: Profile, name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "SA" => ("sadb_sa", "SPI, algorithms, state, replay window"),
        "LIFETIME_CURRENT" => ("sadb_lifetime", "what an SA has carried, and since when"),
        "LIFETIME_HARD" => ("sadb_lifetime", "where an SA ends"),
        "LIFETIME_SOFT" => ("sadb_lifetime", "where a successor is wanted"),
        "ADDRESS_SRC" => ("sadb_address", "source address"),
        "ADDRESS_DST" => ("sadb_address", "destination address"),
        "ADDRESS_PROXY" => ("sadb_address", "address that an SA is used on behalf of"),
        "KEY_AUTH" => ("sadb_key", "authentication key"),
        "KEY_ENCRYPT" => ("sadb_key", "encryption key"),
        "IDENTITY_SRC" => ("sadb_ident", "source's identity"),
        "IDENTITY_DST" => ("sadb_ident", "destination's identity"),
        "SENSITIVITY" => ("sadb_sens", "sensitivity of the traffic"),
        "PROPOSAL" => ("sadb_prop", "combinations of algorithms, best first"),
        "SUPPORTED_AUTH" => ("sadb_supported", "authentication algorithms"),
        "SUPPORTED_ENCRYPT" => ("sadb_supported", "encryption algorithms"),
        "SPIRANGE" => ("sadb_spirange", "SPIs to choose from"),
        "X_KMPRIVATE" => ("sadb_x_kmprivate", "private to key managers"),
        "X_POLICY" => ("sadb_x_policy", "a policy, and the SAs that it asks for"),
        "X_SA2" if profile == Profile::Klips => ("sadb_sa", "the second SA of a group"),
        "X_SA2" => ("sadb_x_sa2", "mode and request id"),
        "X_NAT_T_TYPE" => ("sadb_x_nat_t_type", "encapsulation in UDP"),
        "X_NAT_T_SPORT" => ("sadb_x_nat_t_port", "UDP source port"),
        "X_NAT_T_DPORT" => ("sadb_x_nat_t_port", "UDP destination port"),
        "X_NAT_T_OA" => ("sadb_address", "peer's address before translation"),
        "X_SEC_CTX" => ("sadb_x_sec_ctx", "security label"),
        "X_KMADDRESS" => ("sadb_x_kmaddress", "key managers' addresses"),
        "X_FILTER" => ("sadb_x_filter", "which SAs a dump shows"),
        "X_SATYPE2" => ("sadb_x_satype", "type of the second SA of a group"),
        "X_ADDRESS_DST2" => ("sadb_address", "destination of the second SA of a group"),
        "X_ADDRESS_SRC_FLOW" => ("sadb_address", "source of a flow"),
        "X_ADDRESS_DST_FLOW" => ("sadb_address", "destination of a flow"),
        "X_ADDRESS_SRC_MASK" => ("sadb_address", "mask of a flow's source"),
        "X_ADDRESS_DST_MASK" => ("sadb_address", "mask of a flow's destination"),
        "X_DEBUG" => ("sadb_x_debug", "what is logged"),
        "X_PROTOCOL" => ("sadb_protocol", "protocol of a flow"),
        _ => return None,
    })
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
        let direction = |name| message(Dialect::Linux, name).unwrap().0;
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
