//! The SPD: policies by id, by selector, in the order of dumps, and for packets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::policy::Policy;
use super::resolve::policy_index::{PolicyIndex, Rank};
use super::sa::{Context, Flow, Selector};
use crate::wire::PolicyDirection;

type Hasher = foldhash::quality::RandomState;

/// What tells policies apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    context: Option<Context>,
    dir: PolicyDirection,
    selector: Selector,
}

impl Identity {
    fn of(policy: &Policy) -> Self {
        Self { context: policy.context.clone(), dir: policy.dir, selector: policy.selector }
    }
}

/// All policies.
#[derive(Default)]
pub struct Spd {
    policies: HashMap<u32, Policy, Hasher>,
    by_identity: HashMap<Identity, u32, Hasher>,
    /// Ids by position; the newest is the last.
    order: BTreeMap<u64, u32>,
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
}

impl Spd {
    /// Number of policies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// A number that is another one after every change.
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
        self.policies.get(&id)
    }

    /// The id of the policy with this very selector and label.
    #[must_use]
    pub fn find(&self, dir: PolicyDirection, selector: &Selector, context: Option<&Context>) -> Option<u32> {
        self.by_identity.get(&Identity { context: context.cloned(), dir, selector: *selector }).copied()
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
            if !self.policies.contains_key(&id) {
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

    /// Adds a policy as the newest; its position is given here.
    pub fn insert(&mut self, mut policy: Policy) {
        self.position += 1;
        self.generation += 1;
        policy.position = self.position;
        let id = policy.id;
        self.by_identity.insert(Identity::of(&policy), id);
        self.order.insert(policy.position, id);
        if let Some(at) = policy.ends() {
            self.ends.insert((at, id));
        }
        if let Some(index) = self.index.get_mut(place(policy.dir)) {
            index.insert(&policy.selector, rank(&policy), id);
        }
        for template in &policy.templates {
            *self.reqids.entry(template.reqid).or_insert(0) += 1;
        }
        self.policies.insert(id, policy);
    }

    /// The templates of a policy; reqids must stay, they are counted.
    pub fn templates_mut(&mut self, id: u32) -> &mut [super::policy::Template] {
        self.generation += 1;
        self.policies.get_mut(&id).map_or(&mut [], |policy| &mut policy.templates)
    }

    /// Removes a policy.
    pub fn remove(&mut self, id: u32) -> Option<Policy> {
        let policy = self.policies.remove(&id)?;
        self.generation += 1;
        self.by_identity.remove(&Identity::of(&policy));
        self.order.remove(&policy.position);
        if let Some(at) = policy.ends() {
            self.ends.remove(&(at, id));
        }
        if let Some(index) = self.index.get_mut(place(policy.dir)) {
            index.remove(&policy.selector, rank(&policy));
        }
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

    /// Removes every policy; says whether there was one.
    pub fn flush(&mut self) -> bool {
        let any = !self.is_empty();
        let ids: Vec<u32> = self.policies.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        any
    }

    /// The policy that decides on a packet of a direction.
    #[must_use]
    pub fn lookup(&self, dir: PolicyDirection, flow: &Flow) -> Option<&Policy> {
        let (_, id) = self.index.get(place(dir))?.lookup(flow)?;
        self.policies.get(&id)
    }

    /// The newest policy below a position, for dumps: objects added since are above it, removed ones are gone.
    #[must_use]
    pub fn below(&self, position: u64) -> Option<&Policy> {
        let (_, id) = self.order.range(..position).next_back()?;
        self.policies.get(id)
    }

    /// When the next policy ends, Unix time in seconds.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|&(at, _)| at)
    }

    /// Removes the policies whose time is over; af_key tells nobody.
    pub fn expire(&mut self, now: u64) {
        while let Some(&(at, id)) = self.ends.first() {
            if at > now {
                break;
            }
            self.remove(id);
        }
    }

    /// Notes that a policy was used.
    pub fn touch(&mut self, id: u32, now: u64) {
        let Some(policy) = self.policies.get_mut(&id) else { return };
        let before = policy.ends();
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

/// Where the index of a direction stands.
fn place(dir: PolicyDirection) -> usize {
    usize::from(dir.0.wrapping_sub(1))
}

fn rank(policy: &Policy) -> Rank {
    Rank { priority: policy.priority, position: policy.position }
}
