//! KLIPS's numbers above RFC 2367's (Openswan 2.4 `pfkeyv2.h`), and what its tables make of SA types.
//!
//! Below message 13, extension 18 and SA type 9 they are those of [`pfkey_wire::number`].

use pfkey_wire::{ExtensionType, MessageType, SaType};

/// Links two SAs, or takes a group apart.
pub const X_GRPSA: MessageType = MessageType(13);
/// Adds an eroute, or an inbound policy to an SA.
pub const X_ADDFLOW: MessageType = MessageType(14);
/// Removes an eroute, or all.
pub const X_DELFLOW: MessageType = MessageType(15);
/// Sets debugging masks.
pub const X_DEBUG: MessageType = MessageType(16);
/// The kernel says that a NAT-T peer moved.
pub const X_NAT_T_NEW_MAPPING: MessageType = MessageType(17);
/// Messages, [`MessageType::RESERVED`] included.
pub const MESSAGES: usize = 18;

/// `struct sadb_x_satype`: the type of the second SA of a group.
pub const X_EXT_SATYPE2: ExtensionType = ExtensionType(18);
/// The second SA of a group, a `struct sadb_sa`.
pub const X_EXT_SA2: ExtensionType = ExtensionType(19);
/// The second SA's destination.
pub const X_EXT_ADDRESS_DST2: ExtensionType = ExtensionType(20);
/// Source of a flow, with its port.
pub const X_EXT_ADDRESS_SRC_FLOW: ExtensionType = ExtensionType(21);
/// Destination of a flow, with its port.
pub const X_EXT_ADDRESS_DST_FLOW: ExtensionType = ExtensionType(22);
/// Mask of a flow's source; its port is the mask of the port.
pub const X_EXT_ADDRESS_SRC_MASK: ExtensionType = ExtensionType(23);
/// Mask of a flow's destination; its port is the mask of the port.
pub const X_EXT_ADDRESS_DST_MASK: ExtensionType = ExtensionType(24);
/// Debugging masks.
pub const X_EXT_DEBUG: ExtensionType = ExtensionType(25);
/// A flow's transport protocol.
pub const X_EXT_PROTOCOL: ExtensionType = ExtensionType(26);
/// Type of UDP encapsulation.
pub const X_EXT_NAT_T_TYPE: ExtensionType = ExtensionType(27);
/// Source port of UDP encapsulation.
pub const X_EXT_NAT_T_SPORT: ExtensionType = ExtensionType(28);
/// Destination port of UDP encapsulation.
pub const X_EXT_NAT_T_DPORT: ExtensionType = ExtensionType(29);
/// Original address behind a NAT.
pub const X_EXT_NAT_T_OA: ExtensionType = ExtensionType(30);
/// `SADB_EXT_MAX`.
pub const EXT_MAX: u16 = 30;
/// `SADB_EXT_MAX` of a build without NAT-T.
pub const EXT_MAX_WITHOUT_NAT_T: u16 = 26;

/// An IP-in-IP tunnel.
pub const X_SATYPE_IPIP: SaType = SaType(9);
/// IP payload compression.
pub const X_SATYPE_COMP: SaType = SaType(10);
/// The "SAs" that are no SAs: pass, drop, reject, hold, trap.
pub const X_SATYPE_INT: SaType = SaType(11);
/// `SADB_SATYPE_MAX`.
pub const SATYPE_MAX: u8 = 11;

/// IP protocol numbers that KLIPS has SAs for.
pub mod proto {
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// IP in IP.
    pub const IPIP: u8 = 4;
    /// "Any host internal protocol" (IANA): the magic SPIs.
    pub const INT: u8 = 61;
    /// IP payload compression.
    pub const COMP: u8 = 108;
}

/// `sadb_sa_flags`.
pub mod flags {
    /// Shown by the kernel: the SA's destination is an address of this host (`EMT_INBOUND`). In requests the same
    /// bit is the RFC's PFS.
    pub const INBOUND: u32 = 1;
    /// X_ADDFLOW: an eroute like this one goes first.
    pub const REPLACEFLOW: u32 = 2;
    /// X_DELFLOW: all eroutes go.
    pub const CLEARFLOW: u32 = 4;
    /// X_ADDFLOW: no eroute, but what a tunnel SA lets in.
    pub const INFLOW: u32 = 8;
}

/// The magic SPIs of protocol [`proto::INT`], host byte order.
pub mod spi {
    /// Send in clear.
    pub const PASS: u32 = 256;
    /// Discard.
    pub const DROP: u32 = 257;
    /// Discard and tell the sender.
    pub const REJECT: u32 = 258;
    /// Keep the last packet, wait for a key manager.
    pub const HOLD: u32 = 259;
    /// Ask a key manager, hold the packet's addresses.
    pub const TRAP: u32 = 260;
    /// Ask a key manager, hold the whole flow.
    pub const TRAPSUBNET: u32 = 261;
}

/// The messages' names without prefix, by number.
const MESSAGE_NAMES: [&str; MESSAGES] = [
    "RESERVED",
    "GETSPI",
    "UPDATE",
    "ADD",
    "DELETE",
    "GET",
    "ACQUIRE",
    "REGISTER",
    "EXPIRE",
    "FLUSH",
    "DUMP",
    "X_PROMISC",
    "X_PCHANGE",
    "X_GRPSA",
    "X_ADDFLOW",
    "X_DELFLOW",
    "X_DEBUG",
    "X_NAT_T_NEW_MAPPING",
];

/// The names of extensions 18 and above.
const EXTENSION_NAMES: [&str; 13] = [
    "X_SATYPE2",
    "X_SA2",
    "X_ADDRESS_DST2",
    "X_ADDRESS_SRC_FLOW",
    "X_ADDRESS_DST_FLOW",
    "X_ADDRESS_SRC_MASK",
    "X_ADDRESS_DST_MASK",
    "X_DEBUG",
    "X_PROTOCOL",
    "X_NAT_T_TYPE",
    "X_NAT_T_SPORT",
    "X_NAT_T_DPORT",
    "X_NAT_T_OA",
];

/// A message's name in KLIPS without its prefix.
#[must_use]
pub fn message_name(msg_type: MessageType) -> Option<&'static str> {
    MESSAGE_NAMES.get(usize::from(msg_type.0)).copied()
}

/// An extension's name in KLIPS without its prefix.
#[must_use]
pub fn extension_name(ext_type: ExtensionType) -> Option<&'static str> {
    match ext_type.0.checked_sub(X_EXT_SATYPE2.0) {
        Some(above) => EXTENSION_NAMES.get(usize::from(above)).copied(),
        None => ext_type.name(),
    }
}

/// An SA type's name in KLIPS without its prefix.
#[must_use]
pub fn satype_name(satype: SaType) -> Option<&'static str> {
    match satype {
        X_SATYPE_IPIP => Some("X_IPIP"),
        X_SATYPE_COMP => Some("X_COMP"),
        X_SATYPE_INT => Some("X_INT"),
        _ => satype.name(),
    }
}

/// The IP protocol of an SA type (`satype2proto`); `None` where KLIPS knows none.
#[must_use]
pub const fn protocol(satype: SaType) -> Option<u8> {
    match satype {
        SaType::AH => Some(proto::AH),
        SaType::ESP => Some(proto::ESP),
        X_SATYPE_IPIP => Some(proto::IPIP),
        X_SATYPE_COMP => Some(proto::COMP),
        X_SATYPE_INT => Some(proto::INT),
        _ => None,
    }
}

/// The SA type of an IP protocol (`proto2satype`).
#[must_use]
pub const fn satype(protocol: u8) -> Option<SaType> {
    match protocol {
        proto::AH => Some(SaType::AH),
        proto::ESP => Some(SaType::ESP),
        proto::IPIP => Some(X_SATYPE_IPIP),
        proto::COMP => Some(X_SATYPE_COMP),
        proto::INT => Some(X_SATYPE_INT),
        _ => None,
    }
}
