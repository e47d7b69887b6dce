//! Requests about policies.

use super::Engine;
use super::message::write_policy;
use super::policy::Policy;
use super::sa::Usage;
use super::spd::Spd;
use pfkey_hub::{Audience, Context, Errno, Time};
use pfkey_model::read::spd_answer;
use pfkey_model::request::{PolicyId, PolicyName};
use pfkey_wire::{Header, MessageType};

/// The reference count of a policy that Linux shows in `sadb_msg_reserved` of a dump: one more while its timer is armed,
/// which it is in the first second, and for policies with a limit.
pub(super) fn references(policy: &Policy, now: Time) -> u16 {
    let young = now.as_nanos() < policy.inserted + 1_000_000_000;
    if young || policy.ends().is_some() { 2 } else { 1 }
}

impl Engine {
    /// The policies of a type.
    const fn policies(&self, sub: bool) -> &Spd {
        if sub { &self.sub_policies } else { &self.spd }
    }

    /// The policies of a type.
    const fn policies_mut(&mut self, sub: bool) -> &mut Spd {
        if sub { &mut self.sub_policies } else { &mut self.spd }
    }

    /// An id that no policy of either type has.
    fn new_policy_id(&mut self, policy: &Policy) -> u32 {
        let sub = policy.attached.xfrm.is_sub();
        loop {
            let id = self.policies_mut(sub).new_id(policy.dir);
            if self.policies(!sub).get(id).is_none() {
                return id;
            }
        }
    }

    /// `pfkey_spdadd`.
    pub(super) fn spd_add(&mut self, header: Header, policy: Policy, cx: &mut Context<'_>) -> Result<(), Errno> {
        let name = PolicyName::of(&policy);
        if self.policies(name.sub).find(&name).is_some() {
            return Err(Errno::EEXIST);
        }
        let id = self.new_policy_id(&policy);
        self.insert_policy(id, policy, spd_answer(header, MessageType::X_SPDADD, 3), cx)
    }

    /// `pfkey_spdadd` of an SPDUPDATE: the new policy takes the old one's id, and is the newest.
    pub(super) fn spd_update(&mut self, header: Header, policy: Policy, cx: &mut Context<'_>) -> Result<(), Errno> {
        let name = PolicyName::of(&policy);
        let existing = self.policies(name.sub).find(&name);
        let id = existing.unwrap_or_else(|| self.new_policy_id(&policy));
        self.policies_mut(name.sub).remove(id);
        self.insert_policy(id, policy, spd_answer(header, MessageType::X_SPDUPDATE, 3), cx)
    }

    fn insert_policy(&mut self, id: u32, policy: Policy, notice: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        let usage = Usage { add_time: cx.now.as_secs(), ..Usage::NONE };
        let policies = self.policies_mut(policy.attached.xfrm.is_sub());
        policies.insert(Policy { id, usage, inserted: cx.now.as_nanos(), ..policy });
        let policy = policies.get(id).ok_or(Errno::ENOENT)?;
        cx.send(Audience::All, notice, |writer| write_policy(writer, policy))
    }

    /// Removes a policy and sends the notification.
    fn drop_policy(&mut self, sub: bool, id: u32, header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        let policy = self.policies_mut(sub).remove(id).ok_or(Errno::ENOENT)?;
        cx.send(Audience::All, header, |writer| write_policy(writer, &policy))
    }

    /// `pfkey_spddelete`.
    pub(super) fn spd_delete(&mut self, header: Header, name: &PolicyName, cx: &mut Context<'_>) -> Result<(), Errno> {
        let id = self.policies(name.sub).find(name).ok_or(Errno::ENOENT)?;
        self.drop_policy(name.sub, id, spd_answer(header, MessageType::X_SPDDELETE, 1), cx)
    }

    /// `xfrm_policy_byid`.
    fn by_id(&self, id: &PolicyId) -> Result<&Policy, Errno> {
        self.policies(id.sub).get(id.id).filter(|policy| id.is_of(policy)).ok_or(Errno::ENOENT)
    }

    /// `pfkey_spdget` of an SPDDELETE2.
    pub(super) fn spd_delete_by_id(
        &mut self,
        header: Header,
        id: &PolicyId,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        self.by_id(id)?;
        self.drop_policy(id.sub, id.id, spd_answer(header, MessageType::X_SPDDELETE2, 1), cx)
    }

    /// `pfkey_spdget`.
    pub(super) fn spd_get(&self, header: Header, id: &PolicyId, cx: &mut Context<'_>) -> Result<(), Errno> {
        let policy = self.by_id(id)?;
        // The answer itself holds one.
        let references = references(policy, cx.now) + 1;
        let answer = spd_answer(header, MessageType::X_SPDGET, references);
        cx.send(Audience::One, answer, |writer| write_policy(writer, policy))
    }

    /// `pfkey_spdflush`, of type MAIN alone: the answer first, then, if something was removed, a notification.
    pub(super) fn spd_flush(&mut self, header: Header, cx: &mut Context<'_>) {
        let any = self.spd.flush();
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        if any {
            cx.send_header(Audience::All, spd_answer(header, MessageType::X_SPDFLUSH, 0));
        }
    }
}
