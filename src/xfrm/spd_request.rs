//! Requests about policies: af_key's checks, then XFRM's messages.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::attribute::{ACK, REQUEST};
use super::layout::{UserpolicyId, UserpolicyInfo, message};
use super::policy::{self, Wanted, by_id, by_selector, userpolicy_info, write_moves, write_templates};
use super::value::write_label;
use crate::afkey::message::write_policy;
use crate::afkey::migrate::read_migration;
use crate::afkey::policy::{Policy, parse_requests};
use crate::afkey::read::{PolicyHead, limits, policy_head, policy_id, selector, spd_answer};
use crate::keyd::{Audience, Context, Errno};
use crate::wire::{Ends, ExtensionType as Ext, Header, Message, MessageType, PolicyDirection, PolicyType};

impl XfrmEngine {
    /// Writes the change of [`Self::spd_add`].
    pub(super) fn write_spd_add(&mut self, request: &Message<'_>, flags: u16) -> Result<(), Errno> {
        let header = request.header();
        let PolicyHead { selector, dir, policy_type, ext, requests } = policy_head(request)?;
        let like = selector.src.address;
        let templates = if policy_type == PolicyType::IPSEC {
            parse_requests(requests, dir, Ends::unspecified(like), || self.new_reqid())?
        } else {
            Vec::new()
        };
        let wanted = Wanted {
            selector: &selector,
            dir,
            priority: ext.priority.get(),
            block: policy_type == PolicyType::DISCARD,
            hard: limits(request.lifetime(Ext::LIFETIME_HARD)),
            soft: limits(request.lifetime(Ext::LIFETIME_SOFT)),
        };
        let update = header.msg_type == MessageType::X_SPDUPDATE;
        let msg_type = if update { message::UPDPOLICY } else { message::NEWPOLICY };
        self.writer.message(msg_type, flags, header.seq, header.pid, &userpolicy_info(&wanted));
        write_templates(&templates, like, &mut self.writer);
        self.labelled |= request.has(Ext::X_SEC_CTX);
        write_label(request, &mut self.writer);
        Ok(())
    }

    /// `pfkey_spdadd`: SPDADD, SPDUPDATE and SPDSETIDX. The notification comes from the kernel.
    pub(super) fn spd_add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.write_spd_add(request, REQUEST)?;
        self.change(None, cx)
    }

    /// A reqid that no policy and no SA has.
    fn new_reqid(&mut self) -> Option<u32> {
        if !self.reqids.is_known() {
            let taken = self.taken_reqids().ok()?;
            self.reqids.know(taken);
        }
        self.reqids.next()
    }

    /// Writes the change of [`Self::spd_delete`].
    pub(super) fn write_spd_delete(&mut self, request: &Message<'_>, flags: u16) -> Result<(), Errno> {
        let header = request.header();
        let selector = selector(request)?;
        let dir = PolicyDirection(request.policy().ok_or(Errno::EINVAL)?.0.dir);
        if !dir.is_in_spd() {
            return Err(Errno::EINVAL);
        }
        let id: UserpolicyId = by_selector(&selector, dir);
        self.writer.message(message::DELPOLICY, flags, header.seq, header.pid, &id);
        write_label(request, &mut self.writer);
        Ok(())
    }

    /// `pfkey_spddelete`. The notification comes from the kernel.
    pub(super) fn spd_delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.write_spd_delete(request, REQUEST)?;
        self.change(None, cx)
    }

    /// Asks for one policy.
    pub(super) fn ask_policy(&mut self, id: u32) -> Result<Policy, Errno> {
        self.writer.message(message::GETPOLICY, REQUEST, self.requests.number(), 0, &by_id(id));
        self.requests.ask(&mut self.writer)?;
        let (info, attributes) =
            self.requests.answer().and_then(|m| m.fixed::<UserpolicyInfo>()).ok_or(Errno::ENOBUFS)?;
        policy::read(&info, attributes).ok_or(Errno::EINVAL)
    }

    /// `pfkey_spdget` for SPDGET.
    pub(super) fn spd_get(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let id = existing_id(request)?;
        let policy = self.ask_policy(id)?;
        let held = self.references(&policy, cx.now) + 1;
        let reply = spd_answer(request.header(), MessageType::X_SPDGET, held);
        cx.send(Audience::One, reply, |writer| write_policy(writer, &policy))
    }

    /// Writes the change of [`Self::spd_delete_by_id`].
    pub(super) fn write_spd_delete_by_id(&mut self, request: &Message<'_>, flags: u16) -> Result<(), Errno> {
        let header = request.header();
        let id = existing_id(request)?;
        self.writer.message(message::DELPOLICY, flags, header.seq, header.pid, &by_id(id));
        Ok(())
    }

    /// `pfkey_spdget` for SPDDELETE2. The notification comes from the kernel.
    pub(super) fn spd_delete_by_id(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.write_spd_delete_by_id(request, REQUEST)?;
        self.change(None, cx)
    }

    /// `pfkey_spdflush`: the answer first; a notification comes from the kernel if something was removed.
    pub(super) fn spd_flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        self.writer.message(message::FLUSHPOLICY, REQUEST | ACK, header.seq, header.pid, &[0_u8; 0]);
        let outcome = self.requests.order(&mut self.writer);
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        outcome
    }

    /// `pfkey_migrate`. The notification comes from the kernel.
    pub(super) fn migrate(&mut self, request: &Message<'_>) -> Result<(), Errno> {
        let migration = read_migration(request)?;
        if migration.dir == PolicyDirection::ANY {
            return Err(Errno::EINVAL);
        }
        let id: UserpolicyId = by_selector(&migration.selector, migration.dir);
        self.writer.message(message::MIGRATE, REQUEST | ACK, self.requests.number(), 0, &id);
        write_moves(&migration, &mut self.writer);
        self.requests.order(&mut self.writer)
    }
}

/// The id of a request. XFRM takes 0 for "by selector".
fn existing_id(request: &Message<'_>) -> Result<u32, Errno> {
    policy_id(request).and_then(|id| if id == 0 { Err(Errno::ENOENT) } else { Ok(id) })
}
