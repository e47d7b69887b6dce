//! What Linux's af_key and RFC 2367 do differently with sessions: one row for each difference, one column for each dialect.
//! What they do differently with SAs is in the engine's. KLIPS shares neither (`pfkey-klips`).

use super::Audience;
use pfkey_wire::{ExtensionType, MessageType, SaType};

/// What a promiscuous session gets instead of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromiscuousCopy {
    /// The message itself.
    Bare,
    /// The message behind a PROMISC header, and the other way round: what a session wraps goes to whom it names (RFC 2367
    /// section 3.1.11).
    Wrapped,
}

/// A dialect, as a hub speaks it.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Its name.
    pub name: &'static str,
    /// Whether up to seven bytes behind the length that a header announces are passed over.
    pub stray_bytes: bool,
    /// What promiscuous sessions get.
    pub promiscuous_copy: PromiscuousCopy,
    /// Who receives the error report of a request. That of what is no message goes to the requester only.
    pub errors: Audience,
    /// Message types that nobody handles.
    pub unhandled: &'static [MessageType],
    /// Whether a session may register for SA type 0, which registers it for none.
    pub register_unspec: bool,
    /// Whether a session may register twice.
    pub register_again: bool,
    /// Whether a REGISTER for an SA type lists the algorithms of such an extension.
    pub lists: fn(SaType, ExtensionType) -> bool,
    /// Who receives a message that concerns those registered.
    pub listeners: fn(MessageType, SaType) -> Audience,
}

/// Linux's af_key.
pub static LINUX: Dialect = Dialect {
    name: "linux",
    stray_bytes: true,
    promiscuous_copy: PromiscuousCopy::Bare,
    errors: Audience::One,
    unhandled: &[
        MessageType::EXPIRE,
        MessageType::X_PCHANGE,
        MessageType::X_SPDACQUIRE,
        MessageType::X_SPDEXPIRE,
        MessageType::X_NAT_T_NEW_MAPPING,
    ],
    register_unspec: true,
    register_again: false,
    lists: |_, _| true,
    listeners: |_, _| Audience::Registered,
};

/// RFC 2367 to the letter, on Linux's numbers.
pub static RFC2367: Dialect = Dialect {
    name: "rfc2367",
    stray_bytes: false,
    promiscuous_copy: PromiscuousCopy::Wrapped,
    // Section 1.6: the others may see it.
    errors: Audience::All,
    unhandled: &[
        MessageType::EXPIRE,
        MessageType::X_SPDACQUIRE,
        MessageType::X_SPDEXPIRE,
        MessageType::X_NAT_T_NEW_MAPPING,
    ],
    register_unspec: false,
    register_again: true,
    lists: |satype, list| match list {
        ExtensionType::SUPPORTED_AUTH => matches!(satype, SaType::AH | SaType::ESP),
        _ => satype == SaType::ESP,
    },
    // Sections 3.1.6 to 3.1.8.
    listeners: |msg_type, satype| match msg_type {
        MessageType::EXPIRE => Audience::All,
        _ => Audience::RegisteredFor(satype),
    },
};
