//! Requests about SAs as XFRM's messages.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::change::OwnChange;
use super::shadow::Unused;
use crate::attached::{self, write_mark, write_xfrm};
use crate::attribute::{ACK, REQUEST};
use crate::layout::{UsersaInfo, UserspiInfo, message};
use crate::sa::{read, usersa_id, usersa_info, write_attributes};
use pfkey_hub::{Audience, Context, Errno, Time};
use pfkey_model::message::{Part, write_sa};
use pfkey_model::read::answer;
use pfkey_model::request::GetSpi;
use pfkey_model::sa::{Sa, SaId};
use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::xfrm::Mark;
use pfkey_wire::{Header, IpsecProtocol, Message, MessageType, SaType};

/// IPComp's SPIs are CPIs, of 16 bits.
pub(super) const MAX_CPI: u32 = 0xffff;

/// The mark that a look-up by a name has.
fn mark_of(id: &SaId) -> Mark {
    Mark { value: id.mark, mask: if id.mark == 0 { 0 } else { u32::MAX } }
}

impl XfrmEngine {
    /// The SA of the last answer.
    pub(super) fn answered_sa(&self, now: Time) -> Option<Sa> {
        let (info, attributes) = self.requests.answer()?.fixed::<UsersaInfo>()?;
        let mut sa = read(info, attributes, self.extras)?;
        self.shadow.complete(&mut sa, now);
        Some(sa)
    }

    /// Asks for one SA.
    pub(super) fn ask(&mut self, id: &SaId) -> Result<(), Errno> {
        self.writer.message(message::GETSA, REQUEST, self.requests.number(), 0, &usersa_id(id));
        write_mark(mark_of(id), &mut self.writer);
        match self.requests.ask(&mut self.writer) {
            // The kernel's answer has room for less than a page. It has looked at the right to ask.
            Err(Errno::EMSGSIZE) => self.as_itself(|engine| engine.find(id)),
            outcome => outcome,
        }
    }

    /// The sequence number under which the kernel stored an SA, 0 if it is gone; its mark and its XFRM interface.
    pub(super) fn stored(&mut self, id: &SaId) -> (u32, Xfrm) {
        let asked = self.ask(id);
        let answer = asked.ok().and_then(|()| self.requests.answer()?.fixed::<UsersaInfo>());
        answer.map_or_else(Default::default, |(info, attributes)| {
            (info.seq.get(), Xfrm::from(&attached::view(XfrmView { attributes, ..XfrmView::default() }).xfrm).scope())
        })
    }

    /// `pfkey_getspi`.
    pub(super) fn getspi(&mut self, header: Header, wanted: &GetSpi, cx: &mut Context<'_>) -> Result<(), Errno> {
        let GetSpi { ends, proto, mode, reqid, range: (min, max), .. } = *wanted;
        if proto == IpsecProtocol::ANY {
            return Err(Errno::EINVAL);
        }
        let mut larval = Sa::new(ends, 0, proto, 0);
        (larval.mode, larval.reqid) = (mode, reqid);
        larval.seq = header.seq;
        let possible = min <= max && (proto != IpsecProtocol::IPCOMP || max <= MAX_CPI);
        // AF_KEY looks at the range when the larval is there already, which stays. A range of SPI 0 does the same.
        let (from, to) = if possible { (min, max) } else { (0, 0) };
        let info = UserspiInfo { info: usersa_info(&larval), min: from.into(), max: to.into() };
        self.writer.message(message::ALLOCSPI, REQUEST, self.requests.number(), 0, &info);
        write_xfrm(&wanted.xfrm, &mut self.writer);
        let outcome = self.requests.ask(&mut self.writer);
        if !possible {
            return Err(Errno::EINVAL);
        }
        outcome?;
        let sa = self.answered_sa(cx.now).ok_or(Errno::ENOBUFS)?;
        let reply = answer(header, MessageType::GETSPI, SaType::from_protocol(proto));
        cx.send(Audience::One, reply, |writer| write_sa(writer, &sa, Part::Whole))
    }

    /// Writes the change that an ADD asks for (`pfkey_add`). The notification comes from the kernel.
    pub(super) fn write_add(&mut self, request: &Message<'_>, sa: &Sa, flags: u16) -> Result<OwnChange, Errno> {
        self.write_sa(request, sa, message::NEWSA, flags, false)
    }

    /// Writes the change that an UPDATE asks for (`pfkey_add`).
    pub(super) fn write_update(
        &mut self,
        request: &Message<'_>,
        sa: &Sa,
        flags: u16,
        now: Time,
    ) -> Result<OwnChange, Errno> {
        let is_any = sa.proto == IpsecProtocol::ANY;
        let found = !is_any && self.ask(&sa.id()).is_ok();
        let mature = found && self.answered_sa(now).is_some_and(|sa| sa.state.is_valid());
        self.write_sa(request, sa, message::UPDSA, flags, mature)
    }

    fn write_sa(
        &mut self,
        request: &Message<'_>,
        sa: &Sa,
        msg_type: u16,
        flags: u16,
        mature: bool,
    ) -> Result<OwnChange, Errno> {
        if sa.proto == IpsecProtocol::ANY {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let Header { seq, pid, .. } = request.header();
        self.writer.message(msg_type, flags, seq, pid, &usersa_info(sa));
        write_attributes(sa, request, self.extras, &mut self.writer);
        Ok(OwnChange { id: sa.id(), mature, unused: Unused::of(sa) })
    }

    /// Writes the change that a DELETE asks for (`pfkey_delete`).
    pub(super) fn write_delete(&mut self, header: Header, id: &SaId, flags: u16) -> Result<(), Errno> {
        if id.proto == IpsecProtocol::ANY {
            return Err(Errno::ESRCH);
        }
        self.writer.message(message::DELSA, flags, header.seq, header.pid, &usersa_id(id));
        write_mark(mark_of(id), &mut self.writer);
        Ok(())
    }

    /// `pfkey_get`. There is no SA without a protocol.
    pub(super) fn get(&mut self, header: Header, id: &SaId, cx: &mut Context<'_>) -> Result<(), Errno> {
        if id.proto == IpsecProtocol::ANY {
            return Err(Errno::ESRCH);
        }
        self.ask(id)?;
        let sa = self.answered_sa(cx.now).ok_or(Errno::EINVAL)?;
        let reply = answer(header, MessageType::GET, header.satype);
        cx.send(Audience::One, reply, |writer| write_sa(writer, &sa, Part::Whole))
    }

    /// `pfkey_flush`: the answer first; a notification comes from the kernel if something was removed.
    pub(super) fn flush(&mut self, header: Header, proto: IpsecProtocol, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.writer.message(message::FLUSHSA, REQUEST | ACK, header.seq, header.pid, &proto.0);
        let outcome = self.requests.order(&mut self.writer);
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        outcome
    }
}
