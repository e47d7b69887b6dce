//! Why an extension of XFRM's attributes is refused, in words that name the attribute.

use std::fmt;

use super::{MAX_LEN, attribute_info};
use crate::Errno;

/// An attribute's number, and its name if it has one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub u16);

impl Name {
    /// That a kernel has not got it, and which has.
    #[must_use]
    pub const fn is_unknown(self) -> Unknown {
        Unknown(self.0)
    }
}

/// An attribute that a kernel does not know, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(u16);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this kernel does not know {}", Name(self.0))?;
        attribute_info(self.0).map_or(Ok(()), |row| write!(f, ", which Linux has since {}", row.since))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute {}", self.0)?;
        attribute_info(self.0).map_or(Ok(()), |row| write!(f, " ({}{})", row.prefix(), row.c_name))
    }
}

/// Why an extension is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More than [`MAX_LEN`] bytes of attributes: no message could show them together with the longest keys.
    TooLong(usize),
    /// Reserved bytes are not zero.
    Reserved,
    /// Flags that `sadb_sa_flags` has, or that no policy has.
    Flags(u8),
    /// An attribute whose length does not fit.
    Length(u16),
    /// An attribute is there twice.
    Twice(u16),
    /// PF_KEY says it in another place, or another extension of this message does.
    PfKeysOwn(u16),
    /// The kernel reports it; nobody sets it.
    Report(u16),
    /// This message cannot carry it.
    Misplaced(u16),
}

impl Refusal {
    /// The errno of the error report.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::TooLong(_) => Errno::ENOBUFS,
            _ => Errno::EINVAL,
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong(n) => write!(f, "{n} bytes of attributes: at most {MAX_LEN} are possible"),
            Self::Reserved => f.write_str("reserved bytes of the extension are not zero"),
            Self::Flags(flags) => write!(f, "flags {flags:#x} do not belong here"),
            Self::Length(n) => write!(f, "{} has the wrong length, or a value that it cannot have", Name(n)),
            Self::Twice(n) => write!(f, "{} is there twice", Name(n)),
            Self::PfKeysOwn(n) => write!(f, "{} says what PF_KEY says in another place", Name(n)),
            Self::Report(n) => write!(f, "{} is what the kernel reports; it cannot be set", Name(n)),
            Self::Misplaced(n) => write!(f, "{} does not belong to this message", Name(n)),
        }
    }
}
