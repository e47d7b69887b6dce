//! What is wrong with a policy text, and where.

use super::address::AddressError;

/// A policy text that is refused. Positions count bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy, at byte {position} (length {length}): {kind}")]
pub struct PolicyError {
    /// Where what is wrong starts, in bytes.
    pub position: usize,
    /// How long it is, in bytes; 0 at the end of the text.
    pub length: usize,
    /// What is wrong.
    pub kind: PolicyErrorKind,
}

/// The kinds of [`PolicyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyErrorKind {
    /// The grammar has no place for this token.
    #[error("{expected} expected")]
    Syntax {
        /// What could stand here.
        expected: &'static str,
    },
    /// A request breaks off after its protocol.
    #[error("request breaks off, {expected} expected")]
    FewArguments {
        /// What should stand here.
        expected: &'static str,
    },
    /// A distance from `def` beyond 2147483648 upwards or 2147483647 downwards.
    #[error("priority offset out of range")]
    PriorityOffset,
    /// A distance from a named base beyond 1073741824 upwards or 1073741823 downwards.
    #[error("priority offset from a base out of range")]
    PriorityBaseOffset,
    /// `me-any` needs direction `out`, `any-me` needs `in`.
    #[error("addresses do not go with the direction of the policy")]
    Direction,
    /// A tunnel needs two addresses.
    #[error("tunnel without addresses")]
    TunnelWithoutAddresses,
    /// One IPv4 and one IPv6 address.
    #[error("addresses of different families")]
    FamilyMismatch,
    /// No numeric address, or no numeric port.
    #[error(transparent)]
    Address(AddressError),
    /// More requests than the 16-bit length field can count (512 KiB).
    #[error("policy too long")]
    TooLong,
    /// There is no memory for it.
    #[error("no memory")]
    NoMemory,
}

/// `sadb_x_policy` bytes that are no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// Too short, or its requests do not add up.
    #[error("Invalid sadb message")]
    Message,
    /// No policy extension.
    #[error("Invalid extension type")]
    ExtensionType,
    /// Its direction.
    #[error("Invalid direction")]
    Direction,
    /// Its type.
    #[error("Invalid security policy")]
    Policy,
    /// A request's protocol.
    #[error("Invalid ipsec protocol")]
    Proto,
    /// A request's mode.
    #[error("Invalid ipsec mode")]
    Mode,
    /// A request's addresses.
    #[error("Invalid address specification")]
    Address,
    /// A request's level.
    #[error("Invalid ipsec level")]
    Level,
}

/// A policy of more requests than the 16-bit length field can count (512 KiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy too long")]
pub struct TooLong;
