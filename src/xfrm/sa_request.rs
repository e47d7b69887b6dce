//! Requests about SAs: af_key's checks, then XFRM's messages.
#![forbid(unsafe_code)]

use super::attribute::{ACK, REQUEST};
use super::layout::{UsersaInfo, UserspiInfo, message};
use super::sa::{read, usersa_id, usersa_info, write_attributes};
use super::shadow::Unused;
use super::{Own, XfrmEngine};
use crate::afkey::message::{Shown, write_sa};
use crate::afkey::read::{self as request_as, answer, ends, mode, spi_range};
use crate::afkey::sa::{Sa, SaId};
use crate::keyd::{Audience, Context, Errno, Time};
use crate::wire::{Header, IpsecProtocol, Message, MessageType, SaType};

/// IPComp's SPIs are CPIs, of 16 bits.
const MAX_CPI: u32 = 0xffff;

impl XfrmEngine {
    /// The SA of the last answer.
    fn answered_sa(&self, now: Time) -> Option<Sa> {
        let (info, attributes) = self.requests.answer()?.fixed::<UsersaInfo>()?;
        let mut sa = read(&info, attributes, self.extras)?;
        self.shadow.complete(&mut sa, now);
        Some(sa)
    }

    /// Asks for one SA.
    fn ask(&mut self, id: &SaId) -> Result<(), Errno> {
        self.writer.message(message::GETSA, REQUEST, self.requests.number(), 0, &usersa_id(id));
        self.requests.ask(&mut self.writer)
    }

    /// The sequence number under which the kernel stored an SA, 0 if it is gone.
    pub(super) fn stored_seq(&mut self, id: &SaId) -> u32 {
        match self.ask(id) {
            Ok(()) => {
                self.requests.answer().and_then(|m| m.fixed::<UsersaInfo>()).map_or(0, |(info, _)| info.seq.get())
            }
            Err(_) => 0,
        }
    }

    /// `pfkey_getspi`.
    pub(super) fn getspi(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let ends = ends(request)?;
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let (mode, reqid) = mode(request)?;
        let (min, max) = spi_range(request);
        if proto == IpsecProtocol::ANY {
            return Err(Errno::EINVAL);
        }
        let mut larval = Sa::new(ends, 0, proto, 0);
        (larval.mode, larval.reqid) = (mode, reqid);
        // A larval that was given up is none any more.
        larval.seq = if self.shadow.is_refused(header.seq) { 0 } else { header.seq };
        let possible = min <= max && (proto != IpsecProtocol::IPCOMP || max <= MAX_CPI);
        // AF_KEY looks at the range when the larval is there already, which stays. A range of SPI 0 does the same.
        let (from, to) = if possible { (min, max) } else { (0, 0) };
        let info = UserspiInfo { info: usersa_info(&larval), min: from.into(), max: to.into() };
        self.writer.message(message::ALLOCSPI, REQUEST, self.requests.number(), 0, &info);
        let outcome = self.requests.ask(&mut self.writer);
        if !possible {
            return Err(Errno::EINVAL);
        }
        outcome?;
        let sa = self.answered_sa(cx.now).ok_or(Errno::ENOBUFS)?;
        let reply = answer(header, MessageType::GETSPI, SaType::from_protocol(proto));
        cx.send(Audience::One, reply, |writer| write_sa(writer, &sa, Shown::Whole))
    }

    /// Writes the change that an ADD or UPDATE asks for.
    pub(super) fn write_add(&mut self, request: &Message<'_>, flags: u16, now: Time) -> Result<Own, Errno> {
        let header = request.header();
        let update = header.msg_type == MessageType::UPDATE;
        let sa = request_as::sa(request, now.as_secs(), self)?;
        if sa.proto == IpsecProtocol::ANY {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let mut mature = false;
        if update {
            mature = self.ask(&sa.id()).is_ok() && self.answered_sa(now).is_some_and(|sa| sa.state.is_valid());
        }
        let msg_type = if update { message::UPDSA } else { message::NEWSA };
        self.writer.message(msg_type, flags, header.seq, header.pid, &usersa_info(&sa));
        write_attributes(&sa, request, self.extras, &mut self.writer);
        Ok(Own { id: sa.id(), seq: header.seq, pid: header.pid, mature, unused: Unused::of(&sa) })
    }

    /// `pfkey_add`: ADD and UPDATE. The notification comes from the kernel.
    pub(super) fn add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let own = self.write_add(request, REQUEST, cx.now)?;
        self.change(Some(own), cx)
    }

    /// Writes the change that a DELETE asks for.
    pub(super) fn write_delete(&mut self, request: &Message<'_>, flags: u16) -> Result<(), Errno> {
        let header = request.header();
        let id = named(request)?;
        self.writer.message(message::DELSA, flags, header.seq, header.pid, &usersa_id(&id));
        Ok(())
    }

    /// `pfkey_delete`. The notification comes from the kernel.
    pub(super) fn delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.write_delete(request, REQUEST)?;
        self.change(None, cx)
    }

    /// `pfkey_get`.
    pub(super) fn get(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.ask(&named(request)?)?;
        let sa = self.answered_sa(cx.now).ok_or(Errno::EINVAL)?;
        let reply = answer(request.header(), MessageType::GET, request.header().satype);
        cx.send(Audience::One, reply, |writer| write_sa(writer, &sa, Shown::Whole))
    }

    /// `pfkey_acquire`: a key manager gave up. XFRM has no way to say so: the larval stays until it dies.
    pub(super) fn acquire_failed(&mut self, request: &Message<'_>) -> Result<(), Errno> {
        let header = request.header();
        if header.len != 2 {
            return Err(Errno::EOPNOTSUPP);
        }
        if header.seq != 0 && header.errno != 0 {
            self.shadow.refuse(header.seq);
        }
        Ok(())
    }

    /// `pfkey_flush`: the answer first; a notification comes from the kernel if something was removed.
    pub(super) fn flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        self.writer.message(message::FLUSHSA, REQUEST | ACK, header.seq, header.pid, &proto.0);
        let outcome = self.requests.order(&mut self.writer);
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        outcome
    }
}

/// The SA that a DELETE or GET names; there is none without a protocol.
fn named(request: &Message<'_>) -> Result<SaId, Errno> {
    let id = request_as::sa_id(request)?;
    if id.proto == IpsecProtocol::ANY { Err(Errno::ESRCH) } else { Ok(id) }
}
