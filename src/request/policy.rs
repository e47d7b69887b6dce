//! Requests about policies: X_SPDADD and its relatives, X_MIGRATE.

use super::{check_pair, exact, finish, width};
use crate::error::Code;
use crate::wire::layout::{SadbLifetime, SadbXPolicy};
use crate::wire::sockaddr::Sockaddr;
use crate::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, Writer};

/// Which request about a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyRequestKind {
    /// X_SPDADD.
    Add,
    /// X_SPDUPDATE.
    Update,
    /// X_SPDDELETE: needs a policy of 16 bytes.
    Delete,
    /// X_SPDSETIDX: needs a policy of 16 bytes.
    SetIdx,
}

/// A policy and its selector.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRequest<'a> {
    /// Which request.
    pub kind: PolicyRequestKind,
    /// Source prefix, with its port.
    pub src: Sockaddr<'a>,
    /// Source prefix length in bits.
    pub prefs: u32,
    /// Destination prefix, with its port.
    pub dst: Sockaddr<'a>,
    /// Destination prefix length in bits.
    pub prefd: u32,
    /// Upper-layer protocol, 255 = any.
    pub proto: u8,
    /// Seconds that the policy lives; 0 = no limit.
    pub ltime: u64,
    /// Seconds that it lives unused; 0 = no limit.
    pub vtime: u64,
    /// `struct sadb_x_policy` with its requests, copied without a look.
    pub policy: &'a [u8],
    /// Sequence number.
    pub seq: u32,
}

impl PolicyRequest<'_> {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// What `pfkey_send_spd*` refuses, in its order.
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        let msg_type = match self.kind {
            PolicyRequestKind::Add => MessageType::X_SPDADD,
            PolicyRequestKind::Update => MessageType::X_SPDUPDATE,
            PolicyRequestKind::Delete => MessageType::X_SPDDELETE,
            PolicyRequestKind::SetIdx => MessageType::X_SPDSETIDX,
        };
        let bare = matches!(self.kind, PolicyRequestKind::Delete | PolicyRequestKind::SetIdx);
        if bare && self.policy.len() != size_of::<SadbXPolicy>() {
            return Err(Code::InvalidArgument);
        }
        let (prefs, prefd) = prefixes(self.src, self.prefs, self.dst, self.prefd)?;
        let header = Header::new(msg_type, SaType::UNSPEC, self.seq, pid);
        let mut w = Writer::new(buffer, header, Profile::Linux);
        w.address(Ext::ADDRESS_SRC, self.proto, prefs, exact(self.src)?);
        w.address(Ext::ADDRESS_DST, self.proto, prefd, exact(self.dst)?);
        w.lifetime(
            Ext::LIFETIME_HARD,
            SadbLifetime { addtime: self.ltime.into(), usetime: self.vtime.into(), ..Default::default() },
        );
        w.raw(self.policy);
        finish(w)
    }
}

fn prefixes(src: Sockaddr<'_>, prefs: u32, dst: Sockaddr<'_>, prefd: u32) -> Result<(u8, u8), Code> {
    let plen = u32::from(check_pair(src, dst)?);
    if prefs > plen || prefd > plen {
        return Err(Code::InvalidPrefixLength);
    }
    Ok((prefs as u8, prefd as u8))
}

/// X_SPDGET or X_SPDDELETE2: a policy by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyIdRequest {
    /// [`MessageType::X_SPDGET`] or [`MessageType::X_SPDDELETE2`].
    pub msg_type: MessageType,
    /// `sadb_x_policy_id`.
    pub id: u32,
}

impl PolicyIdRequest {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// Only a buffer that is too small.
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        let mut w = Writer::new(buffer, Header::new(self.msg_type, SaType::UNSPEC, 0, pid), Profile::Linux);
        w.policy(SadbXPolicy { id: self.id.into(), ..Default::default() }, &[]);
        finish(w)
    }
}

/// X_MIGRATE.
#[derive(Clone, Copy, Debug)]
pub struct MigrateRequest<'a> {
    /// The key manager's own address.
    pub local: Sockaddr<'a>,
    /// Its peer's.
    pub remote: Sockaddr<'a>,
    /// Source prefix of the policy.
    pub src: Sockaddr<'a>,
    /// Source prefix length in bits.
    pub prefs: u32,
    /// Destination prefix of the policy.
    pub dst: Sockaddr<'a>,
    /// Destination prefix length in bits.
    pub prefd: u32,
    /// Upper-layer protocol, 255 = any.
    pub proto: u8,
    /// `struct sadb_x_policy` with pairs of old and new requests, copied without a look.
    pub policy: &'a [u8],
    /// Sequence number.
    pub seq: u32,
}

impl MigrateRequest<'_> {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// What `pfkey_send_migrate` refuses, in its order.
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        if self.src.family() != self.dst.family() || self.local.family() != self.remote.family() {
            return Err(Code::FamilyMismatch);
        }
        width(self.src)?;
        let (prefs, prefd) = prefixes(self.src, self.prefs, self.dst, self.prefd)?;
        let header = Header::new(MessageType::X_MIGRATE, SaType::UNSPEC, self.seq, pid);
        let mut w = Writer::new(buffer, header, Profile::Linux);
        w.kmaddress(exact(self.local)?, exact(self.remote)?);
        w.address(Ext::ADDRESS_SRC, self.proto, prefs, exact(self.src)?);
        w.address(Ext::ADDRESS_DST, self.proto, prefd, exact(self.dst)?);
        w.raw(self.policy);
        finish(w)
    }
}
