//! Dumps: each has a netlink socket of its own, which holds its place in the kernel's list.
#![forbid(unsafe_code)]

use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::XfrmEngine;
use super::reqid::InUse;
use crate::attribute::{DUMP, REQUEST, Received};
use crate::dump_reader::DumpReader;
use crate::layout::{AddressFilter, UserpolicyInfo, UsersaInfo, attribute, message};
use crate::netlink::{Netlink, RECEIVE_BUFFER};
use crate::{policy, sa};
#[cfg(fuzzing)]
use pfkey_hub::Context;
use pfkey_hub::{DumpMessage, DumpStep, Errno, Time};
use pfkey_model::message::{Part, write_policy, write_sa};
use pfkey_model::request::refuse_xfrm;
use pfkey_model::sa::SaId;
use pfkey_wire::address::{family, to_xfrm, width};
use pfkey_wire::layout::SadbXFilter;
use pfkey_wire::{Header, IpsecProtocol, Message, MessageType, SaType};

/// What a dump lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Sas,
    Policies,
}

/// What became of one message of the kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is the next message of the dump.
    Written,
    /// What it shows was removed after the kernel wrote it.
    Removed,
    /// PF_KEY cannot show it, or it is not whole.
    Unshowable,
}

/// A running dump.
pub struct XfrmDump {
    reader: DumpReader,
    listed: Listed,
    /// The number of the last removal before it began, see [`super::removals::Removals`].
    since: u64,
}

impl XfrmEngine {
    fn open_dump(&mut self, listed: Listed) -> Result<XfrmDump, Errno> {
        let netlink = self.dump_socket();
        let reader = netlink.and_then(|netlink| {
            DumpReader::start(netlink, self.writer.bytes()).map_err(|(errno, netlink)| {
                // A session has no other.
                self.spare = Some(netlink);
                errno
            })
        });
        // Also where the dump could not begin: the next message would be sent together with this one.
        self.writer.clear();
        Ok(XfrmDump { reader: reader?, listed, since: self.removals.begin() })
    }

    /// A session's; of the engine's own the last that was used, or a new one.
    fn dump_socket(&mut self) -> Result<Netlink, Errno> {
        let netlink = match self.spare.take() {
            Some(netlink) => netlink,
            None if self.lent.is_some() => return Err(Errno::ENOBUFS),
            None if self.elsewhere => self.requests.netlink.try_clone()?,
            None => return Netlink::open(),
        };
        if self.lent.is_some() || self.elsewhere {
            // A dump may have broken off, here, or in the worker before this one.
            let mut stale = Zeroizing::new(vec![0; RECEIVE_BUFFER]);
            if let Err(errno) = netlink.drain(&mut stale) {
                self.spare = Some(netlink);
                return Err(errno);
            }
        }
        Ok(netlink)
    }

    fn open_sa_dump(&mut self, proto: IpsecProtocol, filter: Option<&SadbXFilter>) -> Result<XfrmDump, Errno> {
        self.writer.message(message::GETSA, REQUEST | DUMP, self.requests.number(), 0, &[0_u8; 0]);
        self.writer.attribute(attribute::PROTO, &[&[proto.0]]);
        if let Some(f) = filter {
            let (saddr, daddr) = (f.saddr, f.daddr);
            let filter = AddressFilter { saddr, daddr, family: f.family, splen: f.splen, dplen: f.dplen };
            self.writer.attribute(attribute::ADDRESS_FILTER, &[filter.as_bytes()]);
        }
        self.open_dump(Listed::Sas)
    }

    fn open_policy_dump(&mut self) -> Result<XfrmDump, Errno> {
        self.writer.message(message::GETPOLICY, REQUEST | DUMP, self.requests.number(), 0, &[0_u8; 0]);
        self.open_dump(Listed::Policies)
    }

    /// DUMP and SPDDUMP.
    pub(super) fn start_dump(&mut self, request: &Message<'_>, _now: Time) -> Result<XfrmDump, Errno> {
        refuse_xfrm(request)?;
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
        message: &mut DumpMessage<'_>,
    ) -> Result<DumpStep, Errno> {
        loop {
            let since = dump.since;
            if !self.removals.are_known(since) {
                return Err(Errno::ENOBUFS);
            }
            let step = match dump.listed {
                Listed::Sas => dump.reader.next(|received| self.append_sa(since, received, now, message)),
                Listed::Policies => dump.reader.next(|received| self.append_policy(since, received, now, message)),
            };
            match step?.transpose()? {
                None => return Ok(DumpStep::End),
                Some(Outcome::Written) => return Ok(DumpStep::Entry),
                // AF_KEY ends a dump at what it cannot show.
                Some(Outcome::Removed | Outcome::Unshowable) => {}
            }
        }
    }

    fn append_sa(
        &mut self,
        since: u64,
        received: &Received<'_>,
        now: Time,
        message: &mut DumpMessage<'_>,
    ) -> Result<Outcome, Errno> {
        let read = |(info, attributes)| sa::read(info, attributes, self.extras);
        let Some(mut sa) = received.fixed::<UsersaInfo>().and_then(read) else { return Ok(Outcome::Unshowable) };
        if self.removals.has_sa(since, &sa.id()) {
            return Ok(Outcome::Removed);
        }
        self.shadow.complete(&mut sa, now);
        let header = Header::new(MessageType::DUMP, sa.satype(), 0, 0);
        message.write(header, |writer| write_sa(writer, &sa, Part::Whole))?;
        Ok(Outcome::Written)
    }

    fn append_policy(
        &mut self,
        since: u64,
        received: &Received<'_>,
        now: Time,
        message: &mut DumpMessage<'_>,
    ) -> Result<Outcome, Errno> {
        let read = |(info, attributes)| policy::read(info, attributes);
        let Some(policy) = received.fixed::<UserpolicyInfo>().and_then(read) else { return Ok(Outcome::Unshowable) };
        if self.removals.has_policy(since, policy.id) {
            return Ok(Outcome::Removed);
        }
        if policy.attached.xfrm.is_sub() && !message.shows_xfrm() {
            return Ok(Outcome::Unshowable);
        }
        let reserved = self.references(&policy, now);
        let header = Header { reserved, ..Header::new(MessageType::X_SPDDUMP, SaType::UNSPEC, 0, 0) };
        message.write(header, |writer| write_policy(writer, &policy))?;
        Ok(Outcome::Written)
    }

    /// Reads a message as a part of each dump.
    #[cfg(fuzzing)]
    pub(super) fn read_dumped(&mut self, received: &Received<'_>, cx: &mut Context<'_>) {
        let mut out = Vec::new();
        let _ = self.append_sa(0, received, cx.now, &mut DumpMessage::new(cx.buffer, &mut out));
        let _ = self.append_policy(0, received, cx.now, &mut DumpMessage::new(cx.buffer, &mut out));
    }

    /// Keeps the socket of a dump that was read to its end for the next dump.
    pub(super) fn end_dump(&mut self, dump: XfrmDump) {
        self.removals.end();
        let (netlink, ended) = dump.reader.into_netlink();
        // A session, and another namespace, has no other.
        if self.spare.is_none() && (ended || self.lent.is_some() || self.elsewhere) {
            self.spare = Some(netlink);
        }
    }

    /// Passes every message of a dump to `take`.
    fn walk(&mut self, mut dump: XfrmDump, mut take: impl FnMut(&mut Self, &Received<'_>)) -> Result<(), Errno> {
        let outcome = loop {
            match dump.reader.next(|received| take(self, received)) {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(errno) => break Err(errno),
            }
        };
        self.end_dump(dump);
        outcome
    }

    /// Looks among all SAs for the answer to a question for one, whose keys are too long for a page.
    pub(super) fn find(&mut self, id: &SaId) -> Result<(), Errno> {
        let width = width(id.dst);
        let filter = SadbXFilter {
            daddr: to_xfrm(id.dst),
            family: family(id.dst).into(),
            dplen: width,
            ..SadbXFilter::default()
        };
        let dump = self.open_sa_dump(id.proto, Some(&filter))?;
        let mut found = false;
        self.walk(dump, |engine, received| {
            let read = |(info, attributes)| sa::read(info, attributes, engine.extras);
            if !found && received.fixed::<UsersaInfo>().and_then(read).is_some_and(|sa| sa.is_named(id)) {
                engine.requests.take_answer(received);
                found = true;
            }
        })?;
        if found { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// The reqids of policies and SAs.
    pub(super) fn reqids_in_use(&mut self) -> Result<InUse, Errno> {
        let mut in_use = InUse::default();
        let policies = self.open_policy_dump()?;
        self.walk(policies, |_, received| {
            if let Some((_, attributes)) = received.fixed::<UserpolicyInfo>() {
                in_use.extend(policy::templates(attributes).map(|template| template.reqid.get()));
            }
        })?;
        let sas = self.open_sa_dump(IpsecProtocol::ANY, None)?;
        self.walk(sas, |_, received| {
            if let Some((info, _)) = received.fixed::<UsersaInfo>() {
                in_use.insert(info.reqid.get());
            }
        })?;
        Ok(in_use)
    }

    /// Makes the shadow hold exactly the kernel's SAs.
    pub(super) fn reconcile(&mut self) -> Result<(), Errno> {
        let dump = self.open_sa_dump(IpsecProtocol::ANY, None)?;
        let mut before = self.shadow.start_over();
        let outcome = self.walk(dump, |engine, received| {
            let read = |(info, attributes)| sa::read(info, attributes, engine.extras);
            if let Some(sa) = received.fixed::<UsersaInfo>().and_then(read) {
                engine.shadow.carry_over(before.take(&sa.id()), &sa);
            }
        });
        match outcome {
            Ok(()) => self.complete = true,
            Err(_) => self.shadow.keep(before),
        }
        outcome
    }
}
