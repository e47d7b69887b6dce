//! Requests about policies, with af_key's checks in af_key's order.

use super::Engine;
use super::message::write_policy;
use super::policy::{Policy, parse_requests};
use super::sa::{Context as SecurityContext, Limits, Selector, Usage};
use super::sa_request::address_pair;
use crate::keyd::{Audience, Context, Errno, Time};
use crate::wire::{ExtensionType as Ext, Header, Message, MessageType, PolicyType, SaType};

/// The reference count that Linux shows in `sadb_msg_reserved` of a dump: one more while a timer is armed, which
/// it is in the first second and for policies that end.
pub(super) fn references(policy: &Policy, now: Time) -> u16 {
    let young = now.as_nanos() < policy.inserted + 1_000_000_000;
    if young || policy.ends().is_some() { 2 } else { 1 }
}

/// The selector of an SPD request: prefixes and ports as given, the destination's protocol.
pub(super) fn selector(message: &Message<'_>) -> Result<(bool, Selector), Errno> {
    let (v6, saddr, daddr) = address_pair(message)?;
    let side = |ext| message.address(ext).ok_or(Errno::EINVAL);
    let ((src, src_addr), (dst, dst_addr)) = (side(Ext::ADDRESS_SRC)?, side(Ext::ADDRESS_DST)?);
    let selector = Selector {
        saddr,
        daddr,
        splen: src.prefixlen,
        dplen: dst.prefixlen,
        proto: if dst.proto == 255 { 0 } else { dst.proto },
        sport: src_addr.port(),
        dport: dst_addr.port(),
        v6: Some(v6),
    };
    Ok((v6, selector))
}

fn limits(message: &Message<'_>, ext: Ext) -> Limits {
    message.lifetime(ext).map_or(Limits::default(), |l| Limits {
        packets: l.allocations.get().into(),
        bytes: l.bytes.get(),
        add_seconds: l.addtime.get(),
        use_seconds: l.usetime.get(),
    })
}

fn notice(request: Header, msg_type: MessageType, references: u16) -> Header {
    Header { reserved: references, ..Header::new(msg_type, SaType::UNSPEC, request.seq, request.pid) }
}

impl Engine {
    /// `pfkey_spdadd`: SPDADD, SPDUPDATE and SPDSETIDX.
    pub(super) fn spd_add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let (v6, selector) = selector(request)?;
        let (ext, requests) = request.policy().ok_or(Errno::EINVAL)?;
        let policy_type = PolicyType(ext.policy_type.get());
        if policy_type.0 > PolicyType::IPSEC.0 || !(1..=3).contains(&ext.dir) {
            return Err(Errno::EINVAL);
        }
        let context = SecurityContext::of(request)?;
        let spd = &mut self.spd;
        let templates = if policy_type == PolicyType::IPSEC {
            parse_requests(requests, ext.dir, v6, || spd.new_reqid())?
        } else {
            Vec::new()
        };
        let existing = self.spd.find(ext.dir, v6, &selector, context.as_ref());
        let id = match existing {
            Some(_) if header.msg_type != MessageType::X_SPDUPDATE => return Err(Errno::EEXIST),
            // The new policy takes the old one's id, and is the newest.
            Some(id) => id,
            None => self.spd.new_id(ext.dir),
        };
        self.spd.remove(id);
        self.spd.insert(Policy {
            id,
            dir: ext.dir,
            v6,
            priority: ext.priority.get(),
            block: policy_type == PolicyType::DISCARD,
            selector,
            context,
            templates,
            hard: limits(request, Ext::LIFETIME_HARD),
            soft: limits(request, Ext::LIFETIME_SOFT),
            usage: Usage { add_time: cx.now.as_secs(), ..Usage::default() },
            position: 0,
            inserted: cx.now.as_nanos(),
        });
        let msg_type = match header.msg_type {
            MessageType::X_SPDUPDATE => MessageType::X_SPDUPDATE,
            _ => MessageType::X_SPDADD,
        };
        self.show_policy(id, notice(header, msg_type, 3), Audience::All, cx)
    }

    fn show_policy(&mut self, id: u32, header: Header, audience: Audience, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.send(cx, audience, |engine, buffer| match engine.spd.get(id) {
            Some(policy) => write_policy(buffer, header, policy),
            None => crate::wire::Writer::new(buffer, header, engine.profile).finish(),
        })
        .map(|_| ())
    }

    /// Removes a policy and says so.
    fn drop_policy(&mut self, id: u32, header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        let policy = self.spd.remove(id).ok_or(Errno::ENOENT)?;
        self.send(cx, Audience::All, |_, buffer| write_policy(buffer, header, &policy)).map(|_| ())
    }

    /// `pfkey_spddelete`.
    pub(super) fn spd_delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let (v6, selector) = selector(request)?;
        let (ext, _) = request.policy().ok_or(Errno::EINVAL)?;
        if !(1..=3).contains(&ext.dir) {
            return Err(Errno::EINVAL);
        }
        let context = SecurityContext::of(request)?;
        let id = self.spd.find(ext.dir, v6, &selector, context.as_ref()).ok_or(Errno::ENOENT)?;
        self.drop_policy(id, notice(request.header(), MessageType::X_SPDDELETE, 1), cx)
    }

    /// `pfkey_spdget`: SPDGET and SPDDELETE2.
    pub(super) fn spd_by_id(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let (ext, _) = request.policy().ok_or(Errno::EINVAL)?;
        let id = ext.id.get();
        if id & 7 >= 3 {
            return Err(Errno::EINVAL);
        }
        let policy = self.spd.get(id).ok_or(Errno::ENOENT)?;
        if header.msg_type == MessageType::X_SPDDELETE2 {
            return self.drop_policy(id, notice(header, MessageType::X_SPDDELETE2, 1), cx);
        }
        let held = references(policy, cx.now) + 1;
        self.show_policy(id, notice(header, MessageType::X_SPDGET, held), Audience::One, cx)
    }

    /// `pfkey_spdflush`: the answer first, then, if something was removed, a notification.
    pub(super) fn spd_flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let any = self.spd.flush();
        self.send_header(cx, Audience::One, Header { errno: 0, len: 2, ..header })?;
        if any {
            self.send_header(cx, Audience::All, notice(header, MessageType::X_SPDFLUSH, 0))?;
        }
        Ok(())
    }
}
