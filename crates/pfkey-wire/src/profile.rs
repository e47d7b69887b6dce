//! Dialects of PF_KEYv2: which numbers exist and how long the structures are.
//!
//! A profile belongs to a whole engine or socket; it is never guessed from a message.

use super::extension::{self, Body, EXTENSIONS};
use super::message_type::{self, MESSAGES};

/// A dialect of PF_KEYv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Linux's af_key, as in `linux/pfkeyv2.h`; RFC 2367's numbers are among them.
    #[default]
    Linux,
    /// Openswan's KLIPS: its own numbers above the RFC's, longer SA, lifetime and comb structures.
    Klips,
}

/// Fixed parts of KLIPS's extensions in bytes, by type (Openswan 2.6 `pfkeyv2.h`).
const KLIPS_MIN: [u8; 31] =
    [0, 24, 40, 40, 40, 8, 8, 8, 8, 8, 16, 16, 16, 8, 8, 8, 16, 8, 8, 24, 8, 8, 8, 8, 8, 56, 8, 8, 8, 8, 8];

/// Extension types of the profile that has most of them.
pub(super) const SLOTS: usize = if EXTENSIONS.len() > KLIPS_MIN.len() { EXTENSIONS.len() } else { KLIPS_MIN.len() };

impl Profile {
    /// The highest message type.
    #[must_use]
    pub const fn max_message_type(self) -> u8 {
        match self {
            Self::Linux => MESSAGES[MESSAGES.len() - 1].msg_type.0,
            Self::Klips => 17,
        }
    }

    /// Whether there is a message of a type.
    #[must_use]
    pub const fn has_message_type(self, msg_type: u8) -> bool {
        match self {
            Self::Linux => message_type::is_message(msg_type),
            Self::Klips => msg_type != 0 && msg_type <= self.max_message_type(),
        }
    }

    /// The highest extension type.
    #[must_use]
    pub const fn max_extension_type(self) -> u16 {
        match self {
            Self::Linux => EXTENSIONS[EXTENSIONS.len() - 1].ext_type.0,
            Self::Klips => KLIPS_MIN.len() as u16 - 1,
        }
    }

    /// Where a message keeps an extension of a type, below [`SLOTS`]; `None` for a type that the profile lacks.
    pub(super) const fn slot(self, ext_type: u16) -> Option<usize> {
        match self {
            Self::Linux => extension::place(ext_type),
            Self::Klips if ext_type != 0 && (ext_type as usize) < KLIPS_MIN.len() => Some(ext_type as usize),
            Self::Klips => None,
        }
    }

    /// The fixed part of an extension in bytes, header included; `None` for a type that the profile lacks.
    #[must_use]
    pub const fn min_extension_len(self, ext_type: u16) -> Option<usize> {
        match (self, self.slot(ext_type)) {
            (Self::Linux, Some(slot)) => Some(EXTENSIONS[slot].min_len),
            (Self::Klips, Some(slot)) => Some(KLIPS_MIN[slot] as usize),
            (_, None) => None,
        }
    }

    /// What else is checked of an extension.
    #[must_use]
    pub const fn body(self, ext_type: u16) -> Body {
        match (self, self.slot(ext_type)) {
            (Self::Linux, Some(slot)) => EXTENSIONS[slot].body,
            (Self::Klips, Some(5..=7 | 20..=24 | 30)) => Body::Address,
            (Self::Klips, Some(8 | 9)) => Body::Key,
            _ => Body::Any,
        }
    }

    /// Bytes of `struct sadb_sa`.
    #[must_use]
    pub const fn sa_len(self) -> usize {
        match self {
            Self::Linux => 16,
            Self::Klips => 24,
        }
    }

    /// Bytes of `struct sadb_lifetime`.
    #[must_use]
    pub const fn lifetime_len(self) -> usize {
        match self {
            Self::Linux => 32,
            Self::Klips => 40,
        }
    }

    /// Bytes of `struct sadb_comb`.
    #[must_use]
    pub const fn comb_len(self) -> usize {
        match self {
            Self::Linux => 72,
            Self::Klips => 80,
        }
    }
}
