//! What a key manager asks for, typed, and as messages: the same checks in the same order as libipsec's
//! `pfkey_send_*`, and the same bytes.
//!
//! Every `write` builds the whole message in the caller's buffer and allocates nothing. `pid` is the process id
//! that goes into the header. A failed check gives libipsec's [`Code`]; a buffer that is too small gives
//! [`Code::NoBuffers`].
#![forbid(unsafe_code)]

mod policy;
mod sa;

pub use policy::{MigrateRequest, PolicyIdRequest, PolicyRequest, PolicyRequestKind};
pub use sa::{Lifetime, NatT, SaIdRequest, SaRequest, SaRequestKind, SecurityContext, SpiRequest};

use crate::error::Code;
use crate::wire::sockaddr::{AF_INET, AF_INET6, Sockaddr};
use crate::wire::{Header, MessageType, Profile, SaType, Writer};

/// `IPSEC_ULPROTO_ANY`.
pub const ANY_PROTOCOL: u8 = 255;

/// Both addresses of a request, checked: one family, IPv4 or IPv6. Gives the family's prefix length.
fn check_pair(src: Sockaddr<'_>, dst: Sockaddr<'_>) -> Result<u8, Code> {
    if src.family() != dst.family() {
        return Err(Code::FamilyMismatch);
    }
    width(src)
}

fn width(sockaddr: Sockaddr<'_>) -> Result<u8, Code> {
    match sockaddr.family() {
        AF_INET => Ok(32),
        AF_INET6 => Ok(128),
        _ => Err(Code::InvalidFamily),
    }
}

/// The sockaddr's bytes without what may lie behind it.
fn exact(sockaddr: Sockaddr<'_>) -> Result<&[u8], Code> {
    sockaddr.exact().ok_or(Code::InvalidArgument)
}

fn finish(writer: Writer<'_>) -> Result<usize, Code> {
    writer.finish().map(|message| message.len()).map_err(|_| Code::NoBuffers)
}

/// A request that is a header only: REGISTER, FLUSH, DUMP, X_PROMISC, X_SPDFLUSH, X_SPDDUMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRequest {
    /// Which.
    pub msg_type: MessageType,
    /// SA type, or for X_PROMISC 1 or 0. Checked for REGISTER, FLUSH and DUMP.
    pub satype: u32,
}

impl HeaderRequest {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// An SA type that libipsec does not send: [`Code::InvalidArgument`] for REGISTER, [`Code::InvalidSaType`]
    /// for the others.
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        let satype = match (self.satype, self.msg_type) {
            (satype @ (0 | 2 | 3 | 9), _) => satype as u8,
            (_, MessageType::REGISTER) => return Err(Code::InvalidArgument),
            (_, MessageType::FLUSH | MessageType::DUMP) => return Err(Code::InvalidSaType),
            (satype, _) => satype as u8,
        };
        let header = Header::new(self.msg_type, SaType(satype), 0, pid);
        finish(Writer::new(buffer, header, Profile::Linux))
    }
}
