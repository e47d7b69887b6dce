//! Requests about policies, with af_key's checks in af_key's order.

use super::Engine;
use super::message::write_policy;
use super::policy::{Policy, parse_requests};
use super::sa::{Context as SecurityContext, Usage};
use crate::afkey::read::{PolicyHead, limits, policy_head, policy_id, selector, spd_answer};
use crate::keyd::{Audience, Context, Errno, Time};
use crate::wire::{Ends, ExtensionType as Ext, Header, Message, MessageType, PolicyDirection, PolicyType};

/// The reference count that Linux shows in `sadb_msg_reserved` of a dump: one more while a timer is armed, which
/// it is in the first second and for policies that end.
pub(super) fn references(policy: &Policy, now: Time) -> u16 {
    let young = now.as_nanos() < policy.inserted + 1_000_000_000;
    if young || policy.ends().is_some() { 2 } else { 1 }
}

impl Engine {
    /// `pfkey_spdadd`: SPDADD, SPDUPDATE and SPDSETIDX.
    pub(super) fn spd_add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let PolicyHead { selector, dir, policy_type, ext, requests } = policy_head(request)?;
        let context = SecurityContext::of(request)?;
        let spd = &mut self.spd;
        let templates = if policy_type == PolicyType::IPSEC {
            parse_requests(requests, dir, Ends::unspecified(selector.src.address), || spd.new_reqid())?
        } else {
            Vec::new()
        };
        let existing = self.spd.find(dir, &selector, context.as_ref());
        let id = match existing {
            Some(_) if header.msg_type != MessageType::X_SPDUPDATE => return Err(Errno::EEXIST),
            // The new policy takes the old one's id, and is the newest.
            Some(id) => id,
            None => self.spd.new_id(dir),
        };
        self.spd.remove(id);
        self.spd.insert(Policy {
            id,
            dir,
            priority: ext.priority.get(),
            icmp: false,
            block: policy_type == PolicyType::DISCARD,
            selector,
            context,
            templates,
            hard: limits(request.lifetime(Ext::LIFETIME_HARD)),
            soft: limits(request.lifetime(Ext::LIFETIME_SOFT)),
            usage: Usage { add_time: cx.now.as_secs(), ..Usage::default() },
            position: 0,
            inserted: cx.now.as_nanos(),
        });
        let msg_type = match header.msg_type {
            MessageType::X_SPDUPDATE => MessageType::X_SPDUPDATE,
            _ => MessageType::X_SPDADD,
        };
        self.show_policy(id, spd_answer(header, msg_type, 3), Audience::All, cx)
    }

    fn show_policy(&self, id: u32, header: Header, audience: Audience, cx: &mut Context<'_>) -> Result<(), Errno> {
        let policy = self.spd.get(id).ok_or(Errno::ENOENT)?;
        cx.send(audience, header, |writer| write_policy(writer, policy))
    }

    /// Removes a policy and says so.
    fn drop_policy(&mut self, id: u32, header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        let policy = self.spd.remove(id).ok_or(Errno::ENOENT)?;
        cx.send(Audience::All, header, |writer| write_policy(writer, &policy))
    }

    /// `pfkey_spddelete`.
    pub(super) fn spd_delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let selector = selector(request)?;
        let dir = PolicyDirection(request.policy().ok_or(Errno::EINVAL)?.0.dir);
        if !dir.is_in_spd() {
            return Err(Errno::EINVAL);
        }
        let context = SecurityContext::of(request)?;
        let id = self.spd.find(dir, &selector, context.as_ref()).ok_or(Errno::ENOENT)?;
        self.drop_policy(id, spd_answer(request.header(), MessageType::X_SPDDELETE, 1), cx)
    }

    /// `pfkey_spdget`: SPDGET and SPDDELETE2.
    pub(super) fn spd_by_id(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let id = policy_id(request)?;
        let policy = self.spd.get(id).ok_or(Errno::ENOENT)?;
        if header.msg_type == MessageType::X_SPDDELETE2 {
            return self.drop_policy(id, spd_answer(header, MessageType::X_SPDDELETE2, 1), cx);
        }
        let held = references(policy, cx.now) + 1;
        self.show_policy(id, spd_answer(header, MessageType::X_SPDGET, held), Audience::One, cx)
    }

    /// `pfkey_spdflush`: the answer first, then, if something was removed, a notification.
    pub(super) fn spd_flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let any = self.spd.flush();
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        if any {
            cx.send_header(Audience::All, spd_answer(header, MessageType::X_SPDFLUSH, 0));
        }
        Ok(())
    }
}
