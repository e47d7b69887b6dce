//! The SPD: policies by id, by selector, in the order of dumps, and for packets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::policy::Policy;
use super::resolve::policy_index::{PolicyIndex, Rank};
use super::sa::Flow;
use super::slots::{Index, Slots};
use pfkey_model::request::PolicyName;
use pfkey_wire::PolicyDirection;
use pfkey_wire::xfrm::Mark;

type Hasher = foldhash::quality::RandomState;

/// All policies.
#[derive(Default)]
pub struct Spd {
    policies: Slots<Policy>,
    by_id: HashMap<u32, Index, Hasher>,
    /// No two policies have the same name.
    by_name: HashMap<PolicyName, u32, Hasher>,
    /// By position; the newest is the last.
    order: BTreeMap<u64, Index>,
    /// (Unix time in seconds, id) of every policy that ends.
    ends: BTreeSet<(u64, u32)>,
    /// Policies by direction - 1.
    index: [PolicyIndex; 3],
    /// How many policies use a reqid.
    reqids: HashMap<u32, u32, Hasher>,
    id_counter: u32,
    last_reqid: u32,
    position: u64,
    /// Grows with every change.
    generation: u64,
    /// How many policies have a mark, an XFRM interface or a network interface.
    scoped: usize,
}

impl Spd {
    /// Number of policies.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.policies.used()
    }

    /// Whether there is no policy.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another number after every change.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is a policy for a direction.
    #[must_use]
    pub fn has(&self, dir: PolicyDirection) -> bool {
        self.index.get(place(dir)).is_some_and(|index| !index.is_empty())
    }

    /// A policy by its id.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Policy> {
        self.policies.get(*self.by_id.get(&id)?)
    }

    /// The id of the policy with this name.
    #[must_use]
    pub fn find(&self, name: &PolicyName) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// An id for a new policy of a direction (`xfrm_gen_index`): the kernel's direction in the low bits, a counter
    /// in steps of 8 above; 0 is left out.
    pub fn new_id(&mut self, dir: PolicyDirection) -> u32 {
        loop {
            let mut id = self.id_counter | u32::from(dir.0.wrapping_sub(1) & 7);
            self.id_counter = self.id_counter.wrapping_add(8);
            if id == 0 {
                id = 8;
            }
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// A reqid above the manual ones that no policy uses (`gen_reqid`).
    pub fn new_reqid(&mut self) -> Option<u32> {
        const FIRST: u32 = super::policy::MANUAL_REQID_MAX + 1;
        let start = self.last_reqid.max(FIRST - 1);
        let mut reqid = start;
        loop {
            reqid = reqid.checked_add(1).unwrap_or(FIRST);
            if !self.reqids.contains_key(&reqid) {
                self.last_reqid = reqid;
                return Some(reqid);
            }
            if reqid == start {
                return None;
            }
        }
    }

    /// Adds a policy as the newest, and sets its position.
    pub fn insert(&mut self, mut policy: Policy) {
        self.position += 1;
        policy.position = self.position;
        self.put(policy);
    }

    /// Changes any field of a policy but its id and its position. Its indexes follow, and choices among policies that were
    /// remembered are made again.
    pub fn edit<R>(&mut self, id: u32, change: impl FnOnce(&mut Policy) -> R) -> Option<R> {
        let mut policy = self.remove(id)?;
        let kept = (policy.id, policy.position);
        let done = change(&mut policy);
        (policy.id, policy.position) = kept;
        self.put(policy);
        Some(done)
    }

    /// Adds a policy to the indexes.
    fn put(&mut self, policy: Policy) {
        self.generation += 1;
        let (id, dir, rank, selector) = (policy.id, policy.dir, rank(&policy), policy.selector);
        self.by_name.insert(PolicyName::of(&policy), id);
        if let Some(at) = policy.ends() {
            self.ends.insert((at, id));
        }
        self.scoped += usize::from(is_scoped(&policy));
        for template in &policy.templates {
            *self.reqids.entry(template.reqid).or_insert(0) += 1;
        }
        let slot = self.policies.insert(policy);
        self.by_id.insert(id, slot);
        self.order.insert(rank.position, slot);
        if let Some(index) = self.index.get_mut(place(dir)) {
            index.insert(&selector, rank, slot);
        }
    }

    /// Removes a policy.
    pub fn remove(&mut self, id: u32) -> Option<Policy> {
        let policy = self.policies.remove(self.by_id.remove(&id)?)?;
        self.generation += 1;
        self.by_name.remove(&PolicyName::of(&policy));
        self.order.remove(&policy.position);
        if let Some(at) = policy.ends() {
            self.ends.remove(&(at, id));
        }
        if let Some(index) = self.index.get_mut(place(policy.dir)) {
            index.remove(&policy.selector, rank(&policy));
        }
        self.scoped -= usize::from(is_scoped(&policy));
        for template in &policy.templates {
            if let Some(count) = self.reqids.get_mut(&template.reqid) {
                *count -= 1;
                if *count == 0 {
                    self.reqids.remove(&template.reqid);
                }
            }
        }
        Some(policy)
    }

    /// Removes every policy. Returns whether there was one.
    pub fn flush(&mut self) -> bool {
        let any = !self.is_empty();
        let ids: Vec<u32> = self.by_id.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        any
    }

    /// The policy that decides on a packet of a direction.
    #[must_use]
    pub fn lookup(&self, dir: PolicyDirection, flow: &Flow) -> Option<&Policy> {
        self.lookup_slot(dir, flow).map(|(_, policy)| policy)
    }

    /// The same, with its slot, which is its own while the [generation](Spd::generation) is the same.
    pub(crate) fn lookup_slot(&self, dir: PolicyDirection, flow: &Flow) -> Option<(Index, &Policy)> {
        let index = self.index.get(place(dir))?;
        let (_, slot) = if self.scoped == 0 {
            // The policies of the packets of no XFRM interface.
            index.lookup(flow).filter(|_| flow.if_id == 0)?
        } else {
            index.lookup_where(flow, |slot| self.policies.get(slot).is_some_and(|policy| is_in_scope(policy, flow)))?
        };
        Some((slot, self.policies.get(slot)?))
    }

    /// The newest policy below a position, for dumps: policies that were added later are above it.
    #[must_use]
    pub fn below(&self, position: u64) -> Option<&Policy> {
        let (_, slot) = self.order.range(..position).next_back()?;
        self.policies.get(*slot)
    }

    /// When the next policy ends, Unix time in seconds.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|&(at, _)| at)
    }

    /// Removes the policies that reached a limit. af_key sends no message.
    pub fn expire(&mut self, now: u64) {
        while let Some(&(at, id)) = self.ends.first() {
            if at > now {
                break;
            }
            self.remove(id);
        }
    }

    /// Marks the policy of a slot as used. Choices that were remembered stay valid.
    pub(crate) fn touch(&mut self, slot: Index, now: u64) {
        let Some(policy) = self.policies.get_mut(slot) else { return };
        let (id, before) = (policy.id, policy.ends());
        policy.usage.use_time = now;
        let after = policy.ends();
        if before != after {
            if let Some(at) = before {
                self.ends.remove(&(at, id));
            }
            if let Some(at) = after {
                self.ends.insert((at, id));
            }
        }
    }
}

/// Whether a policy is for the packets of a mark, of an XFRM interface, or of a network interface.
fn is_scoped(policy: &Policy) -> bool {
    let xfrm = &policy.attached.xfrm;
    (xfrm.mark(), xfrm.if_id(), xfrm.device()) != (Mark::NONE, 0, 0)
}

/// Whether a policy is for a packet's mark and interfaces (`xfrm_policy_match`).
fn is_in_scope(policy: &Policy, flow: &Flow) -> bool {
    let xfrm = &policy.attached.xfrm;
    xfrm.if_id() == flow.if_id && xfrm.mark().covers(flow.mark) && xfrm.is_for(flow.device, flow.cpu)
}

/// The place of a direction's index.
fn place(dir: PolicyDirection) -> usize {
    usize::from(dir.0.wrapping_sub(1))
}

fn rank(policy: &Policy) -> Rank {
    Rank { priority: policy.priority, position: policy.position }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use pfkey_model::sa::Selector;
    use pfkey_wire::{Ends, Prefix};

    #[test]
    fn what_changes_in_a_policy_is_found_again() {
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let flow = |dst| Flow::new(Ends::new(a, dst).unwrap(), 17, 1, 2);
        let to = |dst| Selector { dst: Prefix::host(dst), ..Selector::any(a) };
        let policy = |id, dst| Policy { id, dir: PolicyDirection::OUTBOUND, selector: to(dst), ..Policy::any(a) };
        let mut spd = Spd::default();
        spd.insert(policy(1, a));
        spd.insert(policy(9, b));
        let found = |spd: &Spd, dst| spd.lookup(PolicyDirection::OUTBOUND, &flow(dst)).map(|policy| policy.id);
        let generation = spd.generation();
        // To the other policy's address. It is still the older of the two.
        spd.edit(1, |policy| (policy.id, policy.position, policy.selector) = (7, 7, to(b)));
        assert_eq!((found(&spd, a), found(&spd, b)), (None, Some(1)));
        assert_eq!((spd.find(&PolicyName::of(&policy(1, a))), spd.next_end()), (None, None));
        assert_ne!(spd.generation(), generation);
        // A weaker priority, and a limit.
        spd.edit(1, |policy| (policy.priority, policy.hard.add_seconds) = (5, 30));
        assert_eq!((found(&spd, b), spd.next_end()), (Some(9), Some(30)));
        spd.expire(30);
        assert_eq!((spd.len(), spd.below(u64::MAX).map(|policy| policy.id)), (1, Some(9)));
        assert!(spd.flush() && spd.by_name.is_empty() && spd.order.is_empty() && spd.reqids.is_empty());
    }
}
