//! The base header (`struct sadb_msg`), and the checks that are made of it alone.

use zerocopy::FromBytes;

use super::layout::SadbMsg;
use super::{MessageType, PF_KEY_V2, Profile, Rule, SaType, WireError};

/// The base header in host types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `sadb_msg_version`.
    pub version: u8,
    /// `sadb_msg_type`.
    pub msg_type: MessageType,
    /// `sadb_msg_errno`.
    pub errno: u8,
    /// `sadb_msg_satype`.
    pub satype: SaType,
    /// `sadb_msg_len`, in units of 8 bytes.
    pub len: u16,
    /// `sadb_msg_reserved`.
    pub reserved: u16,
    /// `sadb_msg_seq`.
    pub seq: u32,
    /// `sadb_msg_pid`.
    pub pid: u32,
}

impl Header {
    /// A header of version 2 with errno, length and reserved 0.
    #[must_use]
    pub const fn new(msg_type: MessageType, satype: SaType, seq: u32, pid: u32) -> Self {
        Self { version: PF_KEY_V2, msg_type, errno: 0, satype, len: 2, reserved: 0, seq, pid }
    }

    /// Reads the first 16 bytes without judging them.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (h, _) = SadbMsg::read_from_prefix(bytes).ok()?;
        Some(Self {
            version: h.version,
            msg_type: MessageType(h.msg_type),
            errno: h.errno,
            satype: SaType(h.satype),
            len: h.len.get(),
            reserved: h.reserved.get(),
            seq: h.seq.get(),
            pid: h.pid.get(),
        })
    }

    /// Reads the header and applies the checks that make `send` itself fail on AF_KEY, in its order
    /// (`pfkey_sendmsg`, `pfkey_get_base_msg`).
    ///
    /// # Errors
    /// The first framing [`Rule`] that `bytes` breaks.
    pub fn check(bytes: &[u8], profile: Profile) -> Result<Self, WireError> {
        Self::check_start(bytes, bytes.len(), profile)
    }

    /// As [`Header::check`], for a message of `len` bytes whose first ones are `start`.
    ///
    /// # Errors
    /// As [`Header::check`].
    pub fn check_start(start: &[u8], len: usize, profile: Profile) -> Result<Self, WireError> {
        let at = |offset, rule| Err(WireError { offset, rule });
        let Some(header) = Self::read(start) else { return at(0, Rule::TooShort) };
        if header.version != PF_KEY_V2 {
            return at(0, Rule::Version(header.version));
        }
        if header.reserved != 0 {
            return at(6, Rule::Reserved(header.reserved));
        }
        if !profile.has_message_type(header.msg_type.0) {
            return at(1, Rule::MessageType(header.msg_type.0));
        }
        // Up to seven stray bytes at the end are ignored.
        if usize::from(header.len) != len / 8 {
            return at(4, Rule::Length { header: usize::from(header.len) * 8, actual: len });
        }
        Ok(header)
    }

    /// The 16 bytes of this header.
    #[must_use]
    pub fn to_layout(self) -> SadbMsg {
        SadbMsg {
            version: self.version,
            msg_type: self.msg_type.0,
            errno: self.errno,
            satype: self.satype.0,
            len: self.len.into(),
            reserved: self.reserved.into(),
            seq: self.seq.into(),
            pid: self.pid.into(),
        }
    }

    /// AF_KEY's answer to a failed request: this header with `errno` and a length of 2.
    #[must_use]
    pub const fn error_report(self, errno: u8) -> Self {
        Self { errno, len: 2, ..self }
    }
}
