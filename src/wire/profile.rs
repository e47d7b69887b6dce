//! Dialects of PF_KEYv2: which numbers exist and how long the structures are.
//!
//! A profile belongs to a whole engine or socket; it is never guessed from a message.

/// A dialect of PF_KEYv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Linux's af_key, as in `linux/pfkeyv2.h`; RFC 2367's numbers are among them.
    #[default]
    Linux,
    /// Openswan's KLIPS: its own numbers above the RFC's, longer SA, lifetime and comb structures.
    Klips,
}

/// Fixed parts of Linux's extensions in bytes, by type (`sadb_ext_min_len` of af_key).
const LINUX_MIN: [u8; 27] =
    [0, 16, 32, 32, 32, 8, 8, 8, 8, 8, 16, 16, 16, 8, 8, 8, 16, 8, 16, 16, 8, 8, 8, 8, 8, 8, 40];

/// Fixed parts of KLIPS's extensions in bytes, by type (Openswan 2.6 `pfkeyv2.h`).
const KLIPS_MIN: [u8; 31] =
    [0, 24, 40, 40, 40, 8, 8, 8, 8, 8, 16, 16, 16, 8, 8, 8, 16, 8, 8, 24, 8, 8, 8, 8, 8, 56, 8, 8, 8, 8, 8];

impl Profile {
    /// The highest message type.
    #[must_use]
    pub const fn max_message_type(self) -> u8 {
        match self {
            Self::Linux => 24,
            Self::Klips => 17,
        }
    }

    /// The highest extension type.
    #[must_use]
    pub const fn max_extension_type(self) -> u16 {
        match self {
            Self::Linux => 26,
            Self::Klips => 30,
        }
    }

    /// The fixed part of an extension in bytes, header included; `None` for a type that the profile lacks.
    #[must_use]
    pub const fn min_extension_len(self, ext_type: u16) -> Option<usize> {
        let table: &[u8] = match self {
            Self::Linux => &LINUX_MIN,
            Self::Klips => &KLIPS_MIN,
        };
        let index = ext_type as usize;
        if index == 0 || index >= table.len() { None } else { Some(table[index] as usize) }
    }

    /// Whether an extension holds one sockaddr behind `struct sadb_address`.
    #[must_use]
    pub const fn is_address(self, ext_type: u16) -> bool {
        match self {
            Self::Linux => matches!(ext_type, 5 | 6 | 7 | 23),
            Self::Klips => matches!(ext_type, 5 | 6 | 7 | 20..=24 | 30),
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
