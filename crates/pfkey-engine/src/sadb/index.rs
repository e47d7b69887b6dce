//! The indexes of the SADB. They hold slot numbers only and read the keys from the slots, so that a million SAs cost a
//! few bytes each beside themselves.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;

use super::{Hasher, Index, Links, Slot};
use crate::sa::{Sa, SaId, State};
use crate::slots::{NONE, Slots};
use crate::spi_set::SpiSet;
use pfkey_wire::{Ends, IpsecProtocol, Mode};

/// What a larval is found by (`__find_acq_core`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireKey {
    /// Source and destination.
    pub ends: Ends,
    /// Protocol.
    pub proto: IpsecProtocol,
    /// Mode.
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
    /// The bits of the mark that count.
    pub mark: u32,
    /// XFRM interface, 0 = none.
    pub if_id: u32,
}

impl Hash for AcquireKey {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.ends.hash(state);
        state.write_u64(u64::from(self.reqid) << 16 | u64::from(self.proto.0) << 8 | u64::from(self.mode.0));
        state.write_u64(u64::from(self.mark) << 32 | u64::from(self.if_id));
    }
}

impl AcquireKey {
    /// The key of an SA.
    #[must_use]
    pub fn of(sa: &Sa) -> Self {
        let (mark, if_id) = (sa.attached.xfrm.mark().masked(), sa.attached.xfrm.if_id());
        Self { ends: sa.ends, proto: sa.proto, mode: sa.mode, reqid: sa.reqid, mark, if_id }
    }
}

/// The larvals of one key.
struct Larvals {
    /// How many there are. While there is one, no other SA is acquired.
    count: u32,
    /// The one without an SPI, or [`NONE`].
    waiting: Index,
}

impl Default for Larvals {
    fn default() -> Self {
        Self { count: 0, waiting: NONE }
    }
}

impl Larvals {
    fn no_longer_waits(&mut self, index: Index) {
        if self.waiting == index {
            self.waiting = NONE;
        }
    }
}

/// The SAs that a template chooses from (the kernel's `bydst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Source and destination.
    pub ends: Ends,
    /// Request id.
    pub reqid: u32,
}

impl Route {
    pub(super) const fn of(sa: &Sa) -> Self {
        Self { ends: sa.ends, reqid: sa.reqid }
    }
}

/// Everything that an SA is indexed by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    pub id: SaId,
    pub route: Route,
    mode: Mode,
    if_id: u32,
    seq: u32,
    is_larval: bool,
    add_time: u64,
}

impl Keys {
    /// Whether an SPI is all that these have more than `before`, as after a GETSPI.
    pub fn only_named(&self, before: &Self) -> bool {
        before.id.spi == 0 && self.id.spi != 0 && Self { id: before.id, ..*self } == *before
    }

    pub fn of(sa: &Sa) -> Self {
        Self {
            id: sa.id(),
            route: Route::of(sa),
            mode: sa.mode,
            if_id: sa.attached.xfrm.if_id(),
            seq: sa.seq,
            is_larval: sa.state == State::Larval,
            add_time: sa.usage.add_time,
        }
    }

    /// What a larval is found by.
    const fn acquire(&self) -> AcquireKey {
        let Self { id: SaId { proto, mark, .. }, route: Route { ends, reqid }, mode, if_id, .. } = *self;
        AcquireKey { ends, proto, mode, reqid, mark, if_id }
    }
}

/// The indexes. The slots are passed to each function that reads keys from them.
#[derive(Default)]
pub(super) struct Indexes {
    hasher: Hasher,
    by_id: HashTable<Index>,
    /// The newest SA of each route.
    by_route: HashTable<Index>,
    /// SPIs by protocol, whatever the addresses.
    pub spis: SpiSet,
    larvals: HashMap<AcquireKey, Larvals, Hasher>,
    by_seq: HashMap<u32, Vec<Index>, Hasher>,
}

/// A key that is read from the slots. A slot that is indexed is in use; if it were not, it would match nothing.
fn key_of<K>(slots: &Slots<Slot>, index: Index, key: impl Fn(&Sa) -> K) -> Option<K> {
    slots.get(index).map(|slot| key(&slot.sa))
}

fn hash_of<K: Hash>(hasher: &Hasher, slots: &Slots<Slot>, index: Index, key: impl Fn(&Sa) -> K) -> u64 {
    key_of(slots, index, key).map_or(0, |key| hasher.hash_one(key))
}

impl Indexes {
    pub fn find(&self, slots: &Slots<Slot>, id: &SaId) -> Option<Index> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&i| slots.get(i).is_some_and(|slot| slot.sa.is_named(id))).copied()
    }

    /// The larval without an SPI.
    pub fn find_larval(&self, key: &AcquireKey) -> Option<Index> {
        self.larvals.get(key).map(|larvals| larvals.waiting).filter(|&waiting| waiting != NONE)
    }

    pub fn is_acquiring(&self, key: &AcquireKey) -> bool {
        self.larvals.contains_key(key)
    }

    /// The larval with a sequence number that came last.
    pub fn find_by_seq(&self, seq: u32) -> Option<Index> {
        self.by_seq.get(&seq)?.last().copied()
    }

    /// The first SA of a route; [`Links`] lead to the others.
    pub fn first_on_route(&self, slots: &Slots<Slot>, route: &Route) -> Option<Index> {
        let hash = self.hasher.hash_one(route);
        self.by_route.find(hash, |&i| key_of(slots, i, Route::of) == Some(*route)).copied()
    }

    /// Adds the name of an SA that had none, and is in the other indexes.
    pub fn add_name(&mut self, slots: &Slots<Slot>, index: Index, keys: &Keys) {
        let Self { hasher, by_id, .. } = self;
        let Keys { id, is_larval, .. } = *keys;
        by_id.insert_unique(hasher.hash_one(id), index, |&i| hash_of(hasher, slots, i, Sa::id));
        self.spis.insert(id.spi, id.proto);
        if is_larval {
            if let Some(larvals) = self.larvals.get_mut(&keys.acquire()) {
                larvals.no_longer_waits(index);
            }
        }
    }

    /// Adds an SA to the indexes.
    pub fn add(&mut self, slots: &mut Slots<Slot>, index: Index, keys: &Keys) {
        let Self { hasher, by_id, .. } = self;
        let Keys { id, seq, is_larval, .. } = *keys;
        if id.spi != 0 {
            by_id.insert_unique(hasher.hash_one(id), index, |&i| hash_of(hasher, slots, i, Sa::id));
            self.spis.insert(id.spi, id.proto);
        }
        self.add_to_route(slots, index, keys);
        if is_larval {
            let larvals = self.larvals.entry(keys.acquire()).or_default();
            larvals.count += 1;
            if id.spi == 0 {
                larvals.waiting = index;
            }
            if seq != 0 {
                self.by_seq.entry(seq).or_default().push(index);
            }
        }
    }

    /// Removes an SA from the indexes. `keys` are those that it was added with.
    pub fn remove(&mut self, slots: &mut Slots<Slot>, index: Index, keys: &Keys) {
        let Self { hasher, by_id, .. } = self;
        let Keys { id, seq, is_larval, .. } = *keys;
        if id.spi != 0 {
            if let Ok(entry) = by_id.find_entry(hasher.hash_one(id), |&i| i == index) {
                entry.remove();
            }
            self.spis.remove(id.spi, id.proto);
        }
        self.remove_from_route(slots, index, &keys.route);
        if is_larval {
            let acquire = keys.acquire();
            if let Some(larvals) = self.larvals.get_mut(&acquire) {
                larvals.count -= 1;
                larvals.no_longer_waits(index);
                if larvals.count == 0 {
                    self.larvals.remove(&acquire);
                }
            }
            if let Some(list) = self.by_seq.get_mut(&seq) {
                list.retain(|&i| i != index);
                if list.is_empty() {
                    self.by_seq.remove(&seq);
                }
            }
        }
    }

    /// A route's list is sorted by the time of adding, the latest first, because a template takes the first SA that fits.
    /// A new SA is the latest. An SA that moves to this route may be older than others there.
    fn add_to_route(&mut self, slots: &mut Slots<Slot>, index: Index, keys: &Keys) {
        let Self { hasher, by_route, .. } = self;
        let Keys { route, add_time, .. } = *keys;
        let hash = hasher.hash_one(route);
        let (mut newer, mut older) = (NONE, NONE);
        match by_route.find_mut(hash, |&i| key_of(slots, i, Route::of) == Some(route)) {
            Some(head) => {
                older = *head;
                while let Some(slot) = slots.get(older).filter(|slot| slot.sa.usage.add_time > add_time) {
                    (newer, older) = (older, slot.route.older);
                }
                if newer == NONE {
                    *head = index;
                }
            }
            None => {
                by_route.insert_unique(hash, index, |&i| hash_of(hasher, slots, i, Route::of));
            }
        }
        if let Some(slot) = slots.get_mut(index) {
            slot.route = Links { newer, older };
        }
        if let Some(slot) = slots.get_mut(newer) {
            slot.route.older = index;
        }
        if let Some(slot) = slots.get_mut(older) {
            slot.route.newer = index;
        }
    }

    fn remove_from_route(&mut self, slots: &mut Slots<Slot>, index: Index, route: &Route) {
        let Some(links) = slots.get(index).map(|slot| slot.route) else { return };
        if links.newer == NONE {
            match self.by_route.find_entry(self.hasher.hash_one(route), |&i| i == index) {
                Ok(head) if links.older == NONE => drop(head.remove()),
                Ok(mut head) => *head.get_mut() = links.older,
                Err(_) => {}
            }
        }
        if let Some(newer) = slots.get_mut(links.newer) {
            newer.route.older = links.older;
        }
        if let Some(older) = slots.get_mut(links.older) {
            older.route.newer = links.newer;
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let tables = self.by_id.is_empty() && self.by_route.is_empty() && self.spis.is_empty();
        tables && self.larvals.is_empty() && self.by_seq.is_empty()
    }
}
