//! Why a byte string is not a PF_KEY message.

use core::fmt;

use super::Errno;

/// The rule that a message breaks. Framing rules ([`Rule::is_framing`]) make the kernel's `send` itself fail;
/// the others are reported by a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Fewer bytes than a base header.
    TooShort,
    /// The version is not 2.
    Version(u8),
    /// The reserved field of the base header is not 0.
    Reserved(u16),
    /// Message type 0 or above the profile's last.
    MessageType(u8),
    /// The header's length and the number of bytes disagree.
    Length {
        /// Bytes that the header announces.
        header: usize,
        /// Bytes that are there.
        actual: usize,
    },
    /// Fewer bytes left than an extension header.
    TrailingBytes(usize),
    /// An extension of length 0.
    ExtensionEmpty(u16),
    /// An extension longer than what is left of the message.
    ExtensionOverrun(u16),
    /// Extension type 0 (or, for libipsec, a type it does not know).
    ExtensionType(u16),
    /// An extension shorter than its fixed part.
    ExtensionShort(u16),
    /// The same extension twice.
    ExtensionTwice(u16),
    /// An address family other than IPv4 and IPv6.
    AddressFamily(u16),
    /// An address extension whose length does not fit its family.
    AddressLength(u16),
    /// A prefix longer than the address.
    PrefixLength(u8),
    /// A key extension too short for its bits.
    KeyLength(u16),
    /// A security context whose length does not fit.
    SecurityContext(u16),
    /// An extension whose content is not what its type has.
    Content(u16),
    /// The message does not fit the buffer that it is written to, or the 16-bit length fields.
    TooLong,
}

/// A broken [`Rule`] and the offset in bytes, from the start of the message, where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Where, in bytes from the start of the message.
    pub offset: usize,
    /// What.
    pub rule: Rule,
}

impl Rule {
    /// Whether `send` itself fails on AF_KEY (`pfkey_sendmsg`, `pfkey_get_base_msg`), without any answer.
    #[must_use]
    pub const fn is_framing(self) -> bool {
        matches!(
            self,
            Self::TooShort | Self::Version(_) | Self::Reserved(_) | Self::MessageType(_) | Self::Length { .. }
        )
    }

    /// The errno that Linux's af_key returns for this rule.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::TooShort | Self::Length { .. } | Self::TooLong => Errno::EMSGSIZE,
            _ => Errno::EINVAL,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: ", self.offset)?;
        match self.rule {
            Rule::TooShort => write!(f, "shorter than the 16 bytes of a base header"),
            Rule::Version(v) => write!(f, "version {v} instead of 2"),
            Rule::Reserved(v) => write!(f, "reserved field of the header is {v:#x} instead of 0"),
            Rule::MessageType(t) => write!(f, "no message type {t}"),
            Rule::Length { header, actual } => write!(f, "header says {header} bytes, {actual} are there"),
            Rule::TrailingBytes(n) => write!(f, "{n} stray bytes after the last extension"),
            Rule::ExtensionEmpty(t) => write!(f, "extension {t} has length 0"),
            Rule::ExtensionOverrun(t) => write!(f, "extension {t} is longer than the rest of the message"),
            Rule::ExtensionType(t) => write!(f, "no extension type {t}"),
            Rule::ExtensionShort(t) => write!(f, "extension {t} is shorter than its fixed part"),
            Rule::ExtensionTwice(t) => write!(f, "extension {t} is there twice"),
            Rule::AddressFamily(a) => write!(f, "address family {a} is neither IPv4 nor IPv6"),
            Rule::AddressLength(t) => write!(f, "address extension {t} has the wrong length for its family"),
            Rule::PrefixLength(p) => write!(f, "prefix length {p} is longer than the address"),
            Rule::KeyLength(t) => write!(f, "key extension {t} is too short for its bits"),
            Rule::SecurityContext(n) => write!(f, "security context of {n} bytes does not fit its extension"),
            Rule::Content(t) => write!(f, "extension {t} holds something else than its type has"),
            Rule::TooLong => write!(f, "the message does not fit"),
        }
    }
}

impl std::error::Error for WireError {}
