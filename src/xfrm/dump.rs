//! Dumps: each has a netlink socket of its own, which holds its place in the kernel's list.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use zerocopy::IntoBytes;
use zeroize::Zeroize;

use super::XfrmEngine;
use super::attribute::{DUMP, REQUEST, Received, split};
use super::layout::{AddressFilter, UserpolicyInfo, UsersaInfo, attribute, message};
use super::netlink::{Netlink, RECEIVE_BUFFER};
use super::{policy, sa};
use crate::afkey::message::{Shown, write_policy, write_sa};
use crate::keyd::{DumpStep, Errno, Time};
use crate::wire::layout::SadbXFilter;
use crate::wire::{Header, Message, MessageType, SaType};

/// What a dump lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Sas,
    Policies,
}

/// A running dump.
pub struct XfrmDump {
    /// Given back at the end.
    netlink: Option<Netlink>,
    listed: Listed,
    buffer: Box<[u8]>,
    /// What of the buffer is filled, and how far it was read.
    filled: usize,
    read: usize,
    /// The kernel said that there are no more.
    ended: bool,
    /// When it began, as [`super::gone::Gone`] counts.
    since: u64,
}

impl XfrmDump {
    /// Gives the next message of the kernel's to `take`; `None` at the end.
    fn next<R>(&mut self, take: impl FnOnce(u64, &Received<'_>) -> R) -> Result<Option<R>, Errno> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let waiting = self.buffer.get(self.read..self.filled).unwrap_or_default();
            let Some((received, rest)) = split(waiting) else {
                self.refill()?;
                continue;
            };
            self.read = self.filled - rest.len();
            match received.msg_type {
                message::DONE | message::ERROR => {
                    self.ended = true;
                    match received.error() {
                        0 => {}
                        errno => return Err(Errno::from_raw(errno)),
                    }
                }
                _ => return Ok(Some(take(self.since, &received))),
            }
        }
    }

    fn refill(&mut self) -> Result<(), Errno> {
        if let Some(used) = self.buffer.get_mut(..self.filled) {
            used.zeroize();
        }
        (self.filled, self.read) = (0, 0);
        // The kernel puts the next part into the queue when this one is taken out.
        let netlink = self.netlink.as_ref().ok_or(Errno::EBADF)?;
        self.filled = netlink.receive(&mut self.buffer)?.ok_or(Errno::ENOBUFS)?.len();
        Ok(())
    }
}

impl Drop for XfrmDump {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

impl XfrmEngine {
    fn open_dump(&mut self, listed: Listed) -> Result<XfrmDump, Errno> {
        let netlink = match self.spare.take() {
            Some(netlink) => netlink,
            None => Netlink::open()?,
        };
        let sent = netlink.send(self.writer.bytes());
        self.writer.clear();
        sent?;
        let buffer = vec![0; RECEIVE_BUFFER].into();
        Ok(XfrmDump {
            netlink: Some(netlink),
            listed,
            buffer,
            filled: 0,
            read: 0,
            ended: false,
            since: self.gone.begin(),
        })
    }

    fn open_sa_dump(&mut self, proto: u8, filter: Option<&SadbXFilter>) -> Result<XfrmDump, Errno> {
        self.writer.message(message::GETSA, REQUEST | DUMP, 0, 0, &[0_u8; 0]);
        self.writer.attribute(attribute::PROTO, &[&[proto]]);
        if let Some(f) = filter {
            let (saddr, daddr) = (f.saddr, f.daddr);
            let filter = AddressFilter { saddr, daddr, family: f.family, splen: f.splen, dplen: f.dplen };
            self.writer.attribute(attribute::ADDRESS_FILTER, &[filter.as_bytes()]);
        }
        self.open_dump(Listed::Sas)
    }

    fn open_policy_dump(&mut self) -> Result<XfrmDump, Errno> {
        self.writer.message(message::GETPOLICY, REQUEST | DUMP, 0, 0, &[0_u8; 0]);
        self.open_dump(Listed::Policies)
    }

    /// DUMP and SPDDUMP.
    pub(super) fn start_dump(&mut self, request: &Message<'_>, _now: Time) -> Result<XfrmDump, Errno> {
        if request.header().msg_type == MessageType::X_SPDDUMP {
            return self.open_policy_dump();
        }
        let proto = request.header().satype.protocol().ok_or(Errno::EINVAL)?;
        let filter = request.filter();
        if filter.is_some_and(|f| f.splen > 128 || f.dplen > 128) {
            return Err(Errno::EINVAL);
        }
        self.open_sa_dump(proto, filter.as_ref())
    }

    /// The next SA or policy that PF_KEY can show.
    pub(super) fn continue_dump(
        &mut self,
        dump: &mut XfrmDump,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<DumpStep, Errno> {
        loop {
            let step = match dump.listed {
                Listed::Sas => dump.next(|since, received| self.append_sa(since, received, now, out)),
                Listed::Policies => dump.next(|since, received| self.append_policy(since, received, now, out)),
            };
            match step? {
                None => return Ok(DumpStep::End),
                Some(Some(())) => return Ok(DumpStep::Entry),
                // Gone, or not for PF_KEY: AF_KEY ends a dump at something that it cannot show.
                Some(None) => {}
            }
        }
    }

    fn append_sa(&mut self, since: u64, received: &Received<'_>, now: Time, out: &mut Vec<u8>) -> Option<()> {
        let (info, attributes) = received.fixed::<UsersaInfo>()?;
        let mut sa = sa::read(&info, attributes, self.extras).filter(|sa| !self.gone.has_sa(since, &sa.said))?;
        self.shadow.complete(&mut sa, now);
        let header = Header::new(MessageType::DUMP, sa.satype(), 0, 0);
        let message = write_sa(&mut self.buffer, header, &sa, Shown::Whole).ok()?;
        out.extend_from_slice(message);
        message.zeroize();
        Some(())
    }

    fn append_policy(&mut self, since: u64, received: &Received<'_>, now: Time, out: &mut Vec<u8>) -> Option<()> {
        let (info, attributes) = received.fixed::<UserpolicyInfo>()?;
        let policy = policy::read(&info, attributes).filter(|policy| !self.gone.has_policy(since, policy.id))?;
        let reserved = self.references(&policy, now);
        let header = Header { reserved, ..Header::new(MessageType::X_SPDDUMP, SaType::UNSPEC, 0, 0) };
        out.extend_from_slice(write_policy(&mut self.buffer, header, &policy).ok()?);
        Some(())
    }

    /// Keeps the socket of a dump that came to its end for the next one.
    pub(super) fn end_dump(&mut self, mut dump: XfrmDump) {
        self.gone.end();
        if dump.ended && self.spare.is_none() {
            self.spare = dump.netlink.take();
        }
    }

    /// The reqids above those for manual use that policies have.
    pub(super) fn taken_reqids(&mut self) -> Result<HashSet<u32>, Errno> {
        let mut dump = self.open_policy_dump()?;
        let mut taken = HashSet::new();
        while let Some(reqids) = dump.next(|_, received| {
            let attributes = received.fixed::<UserpolicyInfo>().map(|(_, attributes)| attributes)?;
            Some(policy::templates(attributes).map(|tmpl| tmpl.reqid.get()).collect::<Vec<_>>())
        })? {
            taken.extend(reqids.into_iter().flatten());
        }
        self.end_dump(dump);
        Ok(taken)
    }

    /// Makes what the engine remembers equal to the kernel's SAs.
    pub(super) fn reconcile(&mut self) -> Result<(), Errno> {
        let mut dump = self.open_sa_dump(255, None)?;
        let mut before = self.shadow.start_over();
        while let Some(sa) = dump.next(|_, received| {
            let (info, attributes) = received.fixed::<UsersaInfo>()?;
            sa::read(&info, attributes, self.extras)
        })? {
            if let Some(sa) = sa {
                self.shadow.carry_over(&mut before, &sa);
            }
        }
        self.end_dump(dump);
        self.complete = true;
        Ok(())
    }
}
