//! Dumps: each has a netlink socket of its own, which holds its place in the kernel's list.
#![forbid(unsafe_code)]

use zerocopy::IntoBytes;

use super::XfrmEngine;
use super::attribute::{DUMP, REQUEST, Received};
use super::dump_reader::DumpReader;
use super::layout::{AddressFilter, UserpolicyInfo, UsersaInfo, attribute, message};
use super::netlink::Netlink;
use super::reqid::Taken;
use super::{policy, sa};
use crate::afkey::message::{Shown, write_policy, write_sa};
#[cfg(fuzzing)]
use crate::keyd::Context;
use crate::keyd::{DumpMessage, DumpStep, Errno, Time};
use crate::wire::layout::SadbXFilter;
use crate::wire::{Header, IpsecProtocol, Message, MessageType, SaType};

/// What a dump lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Sas,
    Policies,
}

/// A running dump.
pub struct XfrmDump {
    reader: DumpReader,
    listed: Listed,
    /// When it began, as [`super::removals::Removals`] counts.
    since: u64,
}

impl XfrmEngine {
    fn open_dump(&mut self, listed: Listed) -> Result<XfrmDump, Errno> {
        let netlink = self.spare.take().map_or_else(Netlink::open, Ok);
        let reader = netlink.and_then(|netlink| DumpReader::start(netlink, self.writer.bytes()));
        // Whatever became of it: the next request must not follow it.
        self.writer.clear();
        Ok(XfrmDump { reader: reader?, listed, since: self.removals.begin() })
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
            let step = match dump.listed {
                Listed::Sas => dump.reader.next(|received| self.append_sa(since, received, now, message)),
                Listed::Policies => dump.reader.next(|received| self.append_policy(since, received, now, message)),
            };
            match step? {
                None => return Ok(DumpStep::End),
                Some(Some(())) => return Ok(DumpStep::Entry),
                // Gone, or not for PF_KEY: AF_KEY ends a dump at something that it cannot show.
                Some(None) => {}
            }
        }
    }

    fn append_sa(
        &mut self,
        since: u64,
        received: &Received<'_>,
        now: Time,
        message: &mut DumpMessage<'_>,
    ) -> Option<()> {
        let (info, attributes) = received.fixed::<UsersaInfo>()?;
        let mut sa = sa::read(&info, attributes, self.extras).filter(|sa| !self.removals.has_sa(since, &sa.id()))?;
        self.shadow.complete(&mut sa, now);
        let header = Header::new(MessageType::DUMP, sa.satype(), 0, 0);
        message.write(header, |writer| write_sa(writer, &sa, Shown::Whole)).ok()
    }

    fn append_policy(
        &mut self,
        since: u64,
        received: &Received<'_>,
        now: Time,
        message: &mut DumpMessage<'_>,
    ) -> Option<()> {
        let (info, attributes) = received.fixed::<UserpolicyInfo>()?;
        let policy = policy::read(&info, attributes).filter(|policy| !self.removals.has_policy(since, policy.id))?;
        let reserved = self.references(&policy, now);
        let header = Header { reserved, ..Header::new(MessageType::X_SPDDUMP, SaType::UNSPEC, 0, 0) };
        message.write(header, |writer| write_policy(writer, &policy)).ok()
    }

    /// Reads a message as a part of each dump.
    #[cfg(fuzzing)]
    pub(super) fn read_dumped(&mut self, received: &Received<'_>, cx: &mut Context<'_>) {
        let mut out = Vec::new();
        self.append_sa(0, received, cx.now, &mut DumpMessage::new(cx.buffer, &mut out));
        self.append_policy(0, received, cx.now, &mut DumpMessage::new(cx.buffer, &mut out));
    }

    /// Keeps the socket of a dump that came to its end for the next one.
    pub(super) fn end_dump(&mut self, dump: XfrmDump) {
        self.removals.end();
        if self.spare.is_none() {
            self.spare = dump.reader.into_netlink();
        }
    }

    /// Hands everything that a dump lists to `take`.
    fn walk(
        &mut self,
        mut dump: XfrmDump,
        mut take: impl FnMut(&mut Self, &Received<'_>) -> Option<()>,
    ) -> Result<(), Errno> {
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

    /// The reqids of policies and SAs.
    pub(super) fn taken_reqids(&mut self) -> Result<Taken, Errno> {
        let mut taken = Taken::default();
        let policies = self.open_policy_dump()?;
        self.walk(policies, |_, received| {
            let (_, attributes) = received.fixed::<UserpolicyInfo>()?;
            taken.extend(policy::templates(attributes).map(|template| template.reqid.get()));
            Some(())
        })?;
        let sas = self.open_sa_dump(IpsecProtocol::ANY, None)?;
        self.walk(sas, |_, received| {
            let (info, _) = received.fixed::<UsersaInfo>()?;
            taken.insert(info.reqid.get());
            Some(())
        })?;
        Ok(taken)
    }

    /// Makes what the engine remembers equal to the kernel's SAs.
    pub(super) fn reconcile(&mut self) -> Result<(), Errno> {
        let dump = self.open_sa_dump(IpsecProtocol::ANY, None)?;
        let mut before = self.shadow.start_over();
        let outcome = self.walk(dump, |engine, received| {
            let (info, attributes) = received.fixed::<UsersaInfo>()?;
            let sa = sa::read(&info, attributes, engine.extras)?;
            engine.shadow.carry_over(&mut before, &sa);
            Some(())
        });
        match outcome {
            Ok(()) => self.complete = true,
            Err(_) => self.shadow.keep(before),
        }
        outcome
    }
}
