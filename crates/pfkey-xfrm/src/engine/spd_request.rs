//! Requests about policies as XFRM's messages.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use crate::attached::{self, write_label, write_xfrm};
use crate::attribute::{ACK, REQUEST};
use crate::layout::{UserpolicyId, UserpolicyInfo, message};
use crate::policy::{self, by_id, by_selector, userpolicy_info, write_moves, write_templates};
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::message::write_policy;
use pfkey_model::migrate::Migration;
use pfkey_model::policy::Policy;
use pfkey_model::read::spd_answer;
use pfkey_model::request::{PolicyId, PolicyName};
use pfkey_wire::{ExtensionType as Ext, Header, Message, MessageType, PolicyDirection};

impl XfrmEngine {
    /// Writes the change of SPDADD and SPDSETIDX, or of SPDUPDATE (`replace`; `pfkey_spdadd`). The notification comes from
    /// the kernel.
    pub(super) fn write_spd_add(&mut self, request: &Message<'_>, policy: &Policy, replace: bool, flags: u16) {
        let header = request.header();
        let msg_type = if replace { message::UPDPOLICY } else { message::NEWPOLICY };
        self.writer.message(msg_type, flags, header.seq, header.pid, &userpolicy_info(policy));
        write_templates(policy, &mut self.writer);
        self.labelled |= request.has(Ext::X_SEC_CTX);
        attached::write(request, &policy.attached, &mut self.writer);
    }

    /// A reqid that no policy and no SA has.
    pub(super) fn unused_reqid(&mut self) -> Option<u32> {
        if !self.reqids.is_known() {
            let in_use = self.as_itself(Self::reqids_in_use).ok()?;
            self.reqids.know(in_use);
        }
        self.reqids.next()
    }

    /// Writes the change of SPDDELETE (`pfkey_spddelete`).
    pub(super) fn write_spd_delete(&mut self, request: &Message<'_>, name: &PolicyName, flags: u16) {
        let header = request.header();
        let id: UserpolicyId = by_selector(&name.selector, name.device, name.dir);
        self.writer.message(message::DELPOLICY, flags, header.seq, header.pid, &id);
        write_xfrm(&name.xfrm(), &mut self.writer);
        write_label(request, &mut self.writer);
    }

    /// Asks for one policy.
    pub(super) fn ask_policy(&mut self, id: PolicyId) -> Result<Policy, Errno> {
        self.writer.message(message::GETPOLICY, REQUEST, self.requests.number(), 0, &by_id(id.id));
        write_xfrm(&id.xfrm(), &mut self.writer);
        self.requests.ask(&mut self.writer)?;
        let (info, attributes) =
            self.requests.answer().and_then(|m| m.fixed::<UserpolicyInfo>()).ok_or(Errno::ENOBUFS)?;
        policy::read(info, attributes).ok_or(Errno::EINVAL)
    }

    /// `pfkey_spdget`. XFRM takes the id 0 for "by selector".
    pub(super) fn spd_get(&mut self, header: Header, id: PolicyId, cx: &mut Context<'_>) -> Result<(), Errno> {
        if id.id == 0 {
            return Err(Errno::ENOENT);
        }
        let policy = self.ask_policy(id)?;
        // The answer itself holds one.
        let references = self.references(&policy, cx.now) + 1;
        cx.send(Audience::One, spd_answer(header, MessageType::X_SPDGET, references), |writer| {
            write_policy(writer, &policy)
        })
    }

    /// Writes the change of SPDDELETE2 (`pfkey_spdget`).
    pub(super) fn write_spd_delete_by_id(&mut self, header: Header, id: PolicyId, flags: u16) -> Result<(), Errno> {
        if id.id == 0 {
            return Err(Errno::ENOENT);
        }
        self.writer.message(message::DELPOLICY, flags, header.seq, header.pid, &by_id(id.id));
        write_xfrm(&id.xfrm(), &mut self.writer);
        Ok(())
    }

    /// `pfkey_spdflush`: the answer first; a notification comes from the kernel if something was removed.
    pub(super) fn spd_flush(&mut self, header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.writer.message(message::FLUSHPOLICY, REQUEST | ACK, header.seq, header.pid, &[0_u8; 0]);
        let outcome = self.requests.order(&mut self.writer);
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        outcome
    }

    /// `pfkey_migrate`. The notification comes from the kernel.
    pub(super) fn migrate(&mut self, migration: &Migration) -> Result<(), Errno> {
        if migration.dir == PolicyDirection::ANY {
            return Err(Errno::EINVAL);
        }
        let id: UserpolicyId = by_selector(&migration.selector, 0, migration.dir);
        self.writer.message(message::MIGRATE, REQUEST | ACK, self.requests.number(), 0, &id);
        write_moves(migration, &mut self.writer);
        self.requests.order(&mut self.writer)
    }
}
