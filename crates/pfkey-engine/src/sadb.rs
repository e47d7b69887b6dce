//! The SADB. It keeps its own indexes, timers and counters of changes: an SA changes through [`Sadb::edit`] only.
//!
//! An SA is found by its name, on the route that it serves, as a larval, and in the order of dumps.

mod changes;
mod index;

use std::collections::HashMap;
use std::net::IpAddr;

use super::sa::{Sa, SaId};
use super::slots::{NONE, Slots};
use super::spi_set::SpiSet;
use super::timer_wheel::TimerWheel;
use changes::Changes;
use index::{Indexes, Keys};

pub use crate::slots::Index;
pub use changes::Change;
pub use index::{AcquireKey, Route};

type Hasher = foldhash::quality::RandomState;

/// The neighbours of an SA in a list; [`NONE`] at its ends.
#[derive(Clone, Copy)]
struct Links {
    newer: Index,
    older: Index,
}

/// An SA and its place in two lists.
struct Slot {
    sa: Sa,
    /// Neighbours among all SAs.
    all: Links,
    /// Neighbours among the SAs of the same route.
    route: Links,
}

/// A dump's place in the list of SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Walker(u32);

/// All SAs.
pub struct Sadb {
    slots: Slots<Slot>,
    newest: Index,
    indexes: Indexes,
    timers: TimerWheel,
    changes: Changes,
    /// The SA that each dump shows next.
    walkers: HashMap<u32, Index>,
    next_walker: u32,
    inserted: u64,
}

impl Default for Sadb {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            newest: NONE,
            indexes: Indexes::default(),
            timers: TimerWheel::default(),
            changes: Changes::default(),
            walkers: HashMap::new(),
            next_walker: 0,
            inserted: 0,
        }
    }
}

impl Sadb {
    /// Number of SAs, larvals included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.used()
    }

    /// Whether there is no SA.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of SAs that were ever inserted.
    #[must_use]
    pub const fn inserted(&self) -> u64 {
        self.inserted
    }

    /// An SA by its place.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Sa> {
        self.slots.get(index).map(|slot| &slot.sa)
    }

    /// Changes any field of an SA. Its indexes and its timer follow, and choices among SAs that were remembered are made
    /// again. `now` is Unix time in seconds.
    pub fn edit<R>(&mut self, index: Index, now: u64, change: impl FnOnce(&mut Sa) -> R) -> Option<R> {
        let slot = self.slots.get_mut(index)?;
        let before = Keys::of(&slot.sa);
        let done = change(&mut slot.sa);
        let (after, timer) = (Keys::of(&slot.sa), slot.sa.next_check(now));
        if after == before {
            self.note_change(&after.route);
        } else if after.only_named(&before) {
            self.indexes.add_name(&self.slots, index, &after);
            self.note_change(&after.route);
        } else {
            self.unindex(index, &before);
            self.index(index, &after);
        }
        self.timers.set(index, timer);
        Some(done)
    }

    /// An SA is used for a packet at `now`, Unix time in seconds: limits may count from its first use. Choices that were
    /// remembered stay valid.
    pub fn touch(&mut self, index: Index, now: u64) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.sa.usage.use_time == 0) else { return };
        slot.sa.usage.use_time = now;
        let timer = slot.sa.next_check(now);
        self.timers.set(index, timer);
    }

    /// Counts what an SA carried.
    pub fn count(&mut self, index: Index, packets: u64, bytes: u64) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let usage = &mut slot.sa.usage;
        usage.bytes = usage.bytes.saturating_add(bytes);
        usage.packets = usage.packets.saturating_add(packets);
    }

    /// An SA by its name. SAs without an SPI have none.
    #[must_use]
    pub fn find(&self, id: &SaId) -> Option<Index> {
        self.indexes.find(&self.slots, id)
    }

    /// The SPIs that are in use.
    #[must_use]
    pub const fn spis(&self) -> &SpiSet {
        &self.indexes.spis
    }

    /// The present state of the SAs to a destination with a reqid. What a template chose stays right while it
    /// [is unchanged](Sadb::is_unchanged).
    #[must_use]
    pub fn change(&self, dst: IpAddr, reqid: u32) -> Change {
        self.changes.now(dst, reqid)
    }

    /// Whether no SA was added, changed or removed there since.
    #[must_use]
    pub fn is_unchanged(&self, since: &Change) -> bool {
        self.changes.is_unchanged(since)
    }

    /// An SA of a route was added, changed or removed.
    fn note_change(&mut self, route: &Route) {
        self.changes.note(route.ends.dst(), route.reqid);
    }

    fn index(&mut self, index: Index, keys: &Keys) {
        self.note_change(&keys.route);
        self.indexes.add(&mut self.slots, index, keys);
    }

    fn unindex(&mut self, index: Index, keys: &Keys) {
        self.note_change(&keys.route);
        self.indexes.remove(&mut self.slots, index, keys);
    }

    /// A larval that waits for an SPI (`__find_acq_core`).
    #[must_use]
    pub fn find_larval(&self, key: &AcquireKey) -> Option<Index> {
        self.indexes.find_larval(key)
    }

    /// Whether there is a larval, with an SPI or without, so that key managers have been asked.
    #[must_use]
    pub fn is_acquiring(&self, key: &AcquireKey) -> bool {
        self.indexes.is_acquiring(key)
    }

    /// A larval by its sequence number (`__xfrm_find_acq_byseq`).
    #[must_use]
    pub fn find_by_seq(&self, seq: u32) -> Option<Index> {
        self.indexes.find_by_seq(seq)
    }

    /// The SAs of a route: those added in the latest second first, and within a second the last one first.
    pub fn on_route(&self, route: Route) -> impl Iterator<Item = (Index, &Sa)> {
        let mut next = self.indexes.first_on_route(&self.slots, &route).unwrap_or(NONE);
        std::iter::from_fn(move || {
            let slot = self.slots.get(next)?;
            let index = std::mem::replace(&mut next, slot.route.older);
            Some((index, &slot.sa))
        })
    }

    /// Adds an SA as the newest. `now` is Unix time in seconds.
    pub fn insert(&mut self, sa: Sa, now: u64) -> Index {
        let timer = sa.next_check(now);
        let index = self.insert_copy(sa);
        self.timers.set(index, timer);
        index
    }

    /// Adds a copy of another engine's SA as the newest. That engine ends it: it has no timer here.
    pub fn insert_copy(&mut self, sa: Sa) -> Index {
        let (keys, older) = (Keys::of(&sa), self.newest);
        let nowhere = Links { newer: NONE, older: NONE };
        let index = self.slots.insert(Slot { sa, all: Links { newer: NONE, older }, route: nowhere });
        if let Some(before) = self.slots.get_mut(older) {
            before.all.newer = index;
        }
        self.newest = index;
        self.inserted += 1;
        self.index(index, &keys);
        index
    }

    /// Removes an SA. Dumps that would show it next go on with the one after it.
    pub fn remove(&mut self, index: Index) {
        self.remove_with(index, |_| ());
    }

    /// The same; `last` gets what was removed.
    pub fn remove_with<R>(&mut self, index: Index, last: impl FnOnce(&mut Sa) -> R) -> Option<R> {
        let slot = self.slots.get(index)?;
        let (keys, Links { newer, older }) = (Keys::of(&slot.sa), slot.all);
        self.unindex(index, &keys);
        self.timers.set(index, None);
        match self.slots.get_mut(newer) {
            Some(newer) => newer.all.older = older,
            None => self.newest = older,
        }
        if let Some(older) = self.slots.get_mut(older) {
            older.all.newer = newer;
        }
        for next in self.walkers.values_mut() {
            if *next == index {
                *next = older;
            }
        }
        self.slots.remove_with(index, |slot| last(&mut slot.sa))
    }

    /// Sets the timer of an SA whose timer went off to its next limit after `now`, Unix time in seconds.
    pub fn rearm(&mut self, index: Index, now: u64) {
        if let Some(slot) = self.slots.get(index) {
            self.timers.set(index, slot.sa.next_check(now));
        }
    }

    /// When [`Sadb::pop_timer`] is due next, Unix time in seconds.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Removes one timer that is due at `now`, and returns its SA.
    pub fn pop_timer(&mut self, now: u64) -> Option<Index> {
        self.timers.pop(now)
    }

    /// The SAs that `keep` accepts, newest first.
    #[must_use]
    pub fn select(&self, keep: impl Fn(&Sa) -> bool) -> Vec<Index> {
        let mut found = Vec::new();
        let mut next = self.newest;
        while let Some(slot) = self.slots.get(next) {
            if keep(&slot.sa) {
                found.push(next);
            }
            next = slot.all.older;
        }
        found
    }

    /// Starts a dump at the newest SA.
    pub fn start_walk(&mut self) -> Walker {
        let id = self.next_walker;
        self.next_walker = self.next_walker.wrapping_add(1);
        self.walkers.insert(id, self.newest);
        Walker(id)
    }

    /// The next SA of a dump that `keep` accepts.
    pub fn walk(&mut self, walker: Walker, keep: impl Fn(&Sa) -> bool) -> Option<Index> {
        let next = self.walkers.get_mut(&walker.0)?;
        while let Some(slot) = self.slots.get(*next) {
            let index = std::mem::replace(next, slot.all.older);
            if keep(&slot.sa) {
                return Some(index);
            }
        }
        None
    }

    /// Ends a dump.
    pub fn end_walk(&mut self, walker: Walker) {
        self.walkers.remove(&walker.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::State;
    use pfkey_wire::{Ends, IpsecProtocol, Mode};

    fn ends() -> Ends {
        Ends::new([10, 0, 0, 2].into(), [10, 0, 0, 1].into()).unwrap()
    }

    fn sa(spi: u32) -> Sa {
        Sa::new(ends(), spi, IpsecProtocol::ESP, 0)
    }

    fn larval(spi: u32) -> Sa {
        let sa = Sa::larval(ends(), spi, IpsecProtocol::ESP, Mode::TRANSPORT, 0, 0, 30);
        Sa { seq: 9, ..sa }
    }

    #[test]
    fn a_dump_neither_repeats_nor_misses_what_lives_through_it() {
        let mut sadb = Sadb::default();
        let indexes: Vec<Index> = (1..=5).map(|spi| sadb.insert(sa(spi), 0)).collect();
        let walker = sadb.start_walk();
        let mut spis = Vec::new();
        let mut step = |sadb: &mut Sadb| {
            let found = sadb.walk(walker, |_| true);
            spis.extend(found.and_then(|i| sadb.get(i)).map(|sa| sa.spi));
            found
        };
        step(&mut sadb);
        sadb.remove(indexes[3]);
        sadb.insert(sa(6), 0);
        sadb.remove(indexes[4]);
        step(&mut sadb);
        sadb.remove(indexes[1]);
        while step(&mut sadb).is_some() {}
        assert_eq!(spis, [5, 3, 1]);
    }

    #[test]
    fn nothing_is_left_of_removed_sas() {
        let mut sadb = Sadb::default();
        let index = sadb.insert(larval(0), 0);
        assert_eq!(sadb.find_by_seq(9), Some(index));
        sadb.edit(index, 0, |sa| sa.spi = 77);
        assert!(sadb.spis().contains(77, IpsecProtocol::ESP));
        sadb.remove(index);
        assert!(sadb.is_empty() && !sadb.spis().contains(77, IpsecProtocol::ESP) && sadb.find_by_seq(9).is_none());
        assert!(sadb.indexes.is_empty() && sadb.next_timer().is_none());
    }

    #[test]
    fn a_route_lists_its_sas_newest_first() {
        let mut sadb = Sadb::default();
        let indexes: Vec<Index> = (1..=4).map(|spi| sadb.insert(sa(spi), 0)).collect();
        let route = Route::of(&sa(1));
        let spis = |sadb: &Sadb| sadb.on_route(route).map(|(_, sa)| sa.spi).collect::<Vec<_>>();
        assert_eq!(spis(&sadb), [4, 3, 2, 1]);
        sadb.remove(indexes[3]);
        sadb.remove(indexes[1]);
        assert_eq!(spis(&sadb), [3, 1]);
        sadb.remove(indexes[0]);
        sadb.remove(indexes[2]);
        assert!(spis(&sadb).is_empty());
    }

    #[test]
    fn what_changes_in_an_sa_is_found_again() {
        let mut sadb = Sadb::default();
        let (first, second) = (sadb.insert(sa(1), 0), sadb.insert(sa(2), 0));
        let (dst, route) = (ends().dst(), Route::of(&sa(1)));
        let spis = |sadb: &Sadb, route| sadb.on_route(route).map(|(_, sa)| sa.spi).collect::<Vec<_>>();
        // Another reqid is another route: both change.
        let (old, new) = (sadb.change(dst, 0), sadb.change(dst, 9));
        sadb.edit(first, 0, |sa| (sa.reqid, sa.spi) = (9, 3));
        assert!(!sadb.is_unchanged(&old) && !sadb.is_unchanged(&new));
        assert_eq!((spis(&sadb, route), spis(&sadb, Route { reqid: 9, ..route })), (vec![2], vec![3]));
        assert_eq!(sadb.find(&sa(3).id()), Some(first));
        assert_eq!(sadb.find(&sa(1).id()), None);
        // A route is sorted by the time of adding.
        sadb.edit(first, 0, |sa| (sa.reqid, sa.usage.add_time) = (0, 7));
        assert_eq!(spis(&sadb, route), [3, 2]);
        sadb.edit(second, 0, |sa| sa.usage.add_time = 8);
        assert_eq!(spis(&sadb, route), [2, 3]);
        // Limits and state are in no index.
        let same = sadb.change(dst, 0);
        sadb.edit(second, 8, |sa| (sa.soft.add_seconds, sa.state) = (5, State::Mature));
        assert_eq!((sadb.next_timer(), sadb.is_unchanged(&same)), (Some(13), false));
        sadb.edit(second, 13, |sa| sa.state = State::Dying);
        assert_eq!(sadb.next_timer(), None);
        // A refused larval is a larval no longer.
        let key = AcquireKey::of(&larval(4));
        let larval = sadb.insert(larval(4), 0);
        assert!(sadb.is_acquiring(&key));
        sadb.edit(larval, 0, |sa| sa.state = State::Refused);
        assert_eq!((sadb.is_acquiring(&key), sadb.find_by_seq(9), sadb.next_timer()), (false, None, Some(30)));
        // Traffic is no change.
        let same = sadb.change(dst, 0);
        sadb.edit(second, 8, |sa| sa.hard.use_seconds = 4);
        let after = sadb.change(dst, 0);
        sadb.touch(second, 10);
        sadb.count(second, 1, 100);
        assert_eq!((sadb.next_timer(), sadb.is_unchanged(&after), same == after), (Some(14), true, false));
    }
}
