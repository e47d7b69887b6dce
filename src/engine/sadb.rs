//! The SADB: SAs by name, by the addresses that they connect, by what a larval is looked for, and in the order of
//! dumps.
//!
//! An SA lives in one slot while it lives. The indexes hold slot numbers only and read the keys from the slots, so that
//! a million SAs cost a few bytes each beside themselves.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use hashbrown::HashTable;

use super::sa::{Sa, SaId, State};
use super::spi_set::SpiSet;
use super::timer_wheel::TimerWheel;
use crate::wire::{Ends, IpsecProtocol, Mode};

type Hasher = foldhash::quality::RandomState;

/// Where an SA lives while it lives.
pub type Index = u32;

const NONE: Index = Index::MAX;

/// What a larval is found by (`__find_acq_core`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AcquireKey {
    /// Source and destination.
    pub ends: Ends,
    /// Protocol.
    pub proto: IpsecProtocol,
    /// Mode.
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
}

impl AcquireKey {
    /// The key of an SA.
    #[must_use]
    pub const fn of(sa: &Sa) -> Self {
        Self { ends: sa.ends, proto: sa.proto, mode: sa.mode, reqid: sa.reqid }
    }
}

/// The larvals of one key.
#[derive(Default)]
struct Larvals {
    /// How many there are; while there is one, nobody else is asked for an SA.
    count: u32,
    /// The one without an SPI.
    waiting: Option<Index>,
}

/// What SAs a template chooses from (the kernel's `bydst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Source and destination.
    pub ends: Ends,
    /// Request id.
    pub reqid: u32,
}

impl Route {
    const fn of(sa: &Sa) -> Self {
        Self { ends: sa.ends, reqid: sa.reqid }
    }
}

/// What an SA stands under in the indexes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    id: SaId,
    route: Route,
    acquire: AcquireKey,
    seq: u32,
    is_larval: bool,
    add_time: u64,
}

impl Place {
    fn of(sa: &Sa) -> Self {
        Self {
            id: sa.id(),
            route: Route::of(sa),
            acquire: AcquireKey::of(sa),
            seq: sa.seq,
            is_larval: sa.state == State::Larval,
            add_time: sa.usage.add_time,
        }
    }
}

/// Whether a template would still get the SA that it got: see [`Sadb::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    bucket: usize,
    count: u32,
}

/// How many destinations are told apart when changes are counted. Two that fall together only cost a look-up.
const CHANGE_BUCKETS: usize = 4096;

/// Neighbours in a list; `NONE` = no more.
#[derive(Clone, Copy)]
struct Links {
    newer: Index,
    older: Index,
}

struct Slot {
    sa: Sa,
    /// All SAs.
    all: Links,
    /// Those of the same route.
    route: Links,
}

/// Slots in pieces that never move: growing copies nothing and wastes at most a piece.
#[derive(Default)]
struct Slots {
    pieces: Vec<Vec<Option<Slot>>>,
    free: Vec<Index>,
    used: usize,
}

impl Slots {
    const PIECE: usize = 256;

    fn get(&self, index: Index) -> Option<&Slot> {
        let index = index as usize;
        self.pieces.get(index / Self::PIECE)?.get(index % Self::PIECE)?.as_ref()
    }

    fn get_mut(&mut self, index: Index) -> Option<&mut Slot> {
        let index = index as usize;
        self.pieces.get_mut(index / Self::PIECE)?.get_mut(index % Self::PIECE)?.as_mut()
    }

    fn insert(&mut self, slot: Slot) -> Index {
        self.used += 1;
        if let Some(index) = self.free.pop() {
            self.pieces[index as usize / Self::PIECE][index as usize % Self::PIECE] = Some(slot);
            return index;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == Self::PIECE) {
            self.pieces.push(Vec::with_capacity(Self::PIECE));
        }
        let piece = self.pieces.len() - 1;
        self.pieces[piece].push(Some(slot));
        (piece * Self::PIECE + self.pieces[piece].len() - 1) as Index
    }

    fn remove(&mut self, index: Index) -> Option<Slot> {
        let place = index as usize;
        let slot = self.pieces.get_mut(place / Self::PIECE)?.get_mut(place % Self::PIECE)?.take()?;
        self.used -= 1;
        self.free.push(index);
        Some(slot)
    }
}

/// Where a dump stands: before the SA that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Walker(u32);

/// All SAs.
pub struct Sadb {
    slots: Slots,
    newest: Index,
    hasher: Hasher,
    by_id: HashTable<Index>,
    /// The newest of each route.
    by_route: HashTable<Index>,
    /// SPIs by protocol, whatever the addresses.
    spis: SpiSet,
    larvals: HashMap<AcquireKey, Larvals, Hasher>,
    by_seq: HashMap<u32, Vec<Index>, Hasher>,
    timers: TimerWheel,
    /// How often SAs changed, by destination and reqid (the kernel's `genid`, without a field in each SA).
    changes: Box<[u32]>,
    /// What each parked dump looks at next.
    walkers: HashMap<u32, Index>,
    next_walker: u32,
    inserted: u64,
}

impl Default for Sadb {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            newest: NONE,
            hasher: Hasher::default(),
            by_id: HashTable::new(),
            by_route: HashTable::new(),
            spis: SpiSet::default(),
            larvals: HashMap::default(),
            by_seq: HashMap::default(),
            timers: TimerWheel::default(),
            changes: vec![0; CHANGE_BUCKETS].into(),
            walkers: HashMap::new(),
            next_walker: 0,
            inserted: 0,
        }
    }
}

/// A key that is read from the slots. A slot that is indexed is in use; if it were not, it would match nothing.
fn key_of<K>(slots: &Slots, index: Index, key: impl Fn(&Sa) -> K) -> Option<K> {
    slots.get(index).map(|slot| key(&slot.sa))
}

fn hash_of<K: Hash>(hasher: &Hasher, slots: &Slots, index: Index, key: impl Fn(&Sa) -> K) -> u64 {
    key_of(slots, index, key).map_or(0, |key| hasher.hash_one(key))
}

impl Sadb {
    /// Number of SAs, larvals included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.used
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

    /// Changes an SA, whatever of it. Its indexes and its timer follow, and who remembers a choice among SAs looks again.
    /// `now` is Unix time in seconds.
    pub fn edit<R>(&mut self, index: Index, now: u64, change: impl FnOnce(&mut Sa) -> R) -> Option<R> {
        let slot = self.slots.get_mut(index)?;
        let before = Place::of(&slot.sa);
        let done = change(&mut slot.sa);
        let (after, timer) = (Place::of(&slot.sa), slot.sa.next_check(now));
        if after == before {
            self.note_change(&after.route);
        } else {
            self.unindex(index, &before);
            self.index(index);
        }
        self.timers.set(index, timer);
        Some(done)
    }

    /// An SA meets a packet at `now`, Unix time in seconds: limits may count from its first use. A choice stays a choice.
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
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&i| key_of(&self.slots, i, Sa::id) == Some(*id)).copied()
    }

    /// The SPIs that are in use.
    #[must_use]
    pub const fn spis(&self) -> &SpiSet {
        &self.spis
    }

    /// How the SAs to a destination with a reqid are now. What a template got stays right while they
    /// [are unchanged](Sadb::is_unchanged).
    #[must_use]
    pub fn change(&self, dst: IpAddr, reqid: u32) -> Change {
        let bucket = self.hasher.hash_one((dst, reqid)) as usize % CHANGE_BUCKETS;
        Change { bucket, count: self.changes.get(bucket).copied().unwrap_or(0) }
    }

    /// Whether no SA came, went or began to die there since.
    #[must_use]
    pub fn is_unchanged(&self, change: &Change) -> bool {
        self.changes.get(change.bucket) == Some(&change.count)
    }

    /// An SA of a route came, went or changed.
    fn note_change(&mut self, route: &Route) {
        let Change { bucket, count } = self.change(route.ends.dst(), route.reqid);
        if let Some(changes) = self.changes.get_mut(bucket) {
            *changes = count.wrapping_add(1);
        }
    }

    /// A larval that waits for an SPI (`__find_acq_core`).
    #[must_use]
    pub fn find_larval(&self, key: &AcquireKey) -> Option<Index> {
        self.larvals.get(key)?.waiting
    }

    /// Whether there is a larval, with an SPI or without, so that key managers know already.
    #[must_use]
    pub fn is_acquiring(&self, key: &AcquireKey) -> bool {
        self.larvals.contains_key(key)
    }

    /// A larval by its sequence number (`__xfrm_find_acq_byseq`).
    #[must_use]
    pub fn find_by_seq(&self, seq: u32) -> Option<Index> {
        self.by_seq.get(&seq)?.last().copied()
    }

    /// The SAs of a route: those added in the latest second first, and of one second the one that came last.
    pub fn on_route(&self, route: Route) -> impl Iterator<Item = (Index, &Sa)> {
        let hash = self.hasher.hash_one(route);
        let mut next =
            self.by_route.find(hash, |&i| key_of(&self.slots, i, Route::of) == Some(route)).copied().unwrap_or(NONE);
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

    /// Adds an SA of another engine's as the newest. It ends when that one says so: it has no timer here.
    pub fn insert_copy(&mut self, sa: Sa) -> Index {
        let nowhere = Links { newer: NONE, older: NONE };
        let older = self.newest;
        let index = self.slots.insert(Slot { sa, all: Links { newer: NONE, older }, route: nowhere });
        if let Some(before) = self.slots.get_mut(older) {
            before.all.newer = index;
        }
        self.newest = index;
        self.inserted += 1;
        self.index(index);
        index
    }

    /// Removes an SA. Dumps that stood before it stand before the next one.
    pub fn remove(&mut self, index: Index) -> Option<Sa> {
        let place = Place::of(self.get(index)?);
        self.unindex(index, &place);
        let slot = self.slots.remove(index)?;
        self.timers.set(index, None);
        match self.slots.get_mut(slot.all.newer) {
            Some(newer) => newer.all.older = slot.all.older,
            None => self.newest = slot.all.older,
        }
        if let Some(older) = self.slots.get_mut(slot.all.older) {
            older.all.newer = slot.all.newer;
        }
        for next in self.walkers.values_mut() {
            if *next == index {
                *next = slot.all.older;
            }
        }
        Some(slot.sa)
    }

    /// Sets the timer of an SA, whose own went off, for the limit that comes next after `now`, Unix time in seconds.
    pub fn rearm(&mut self, index: Index, now: u64) {
        if let Some(slot) = self.slots.get(index) {
            self.timers.set(index, slot.sa.next_check(now));
        }
    }

    /// When timers are to be looked at next, Unix time in seconds.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Takes one timer that is due at `now`.
    pub fn pop_timer(&mut self, now: u64) -> Option<Index> {
        self.timers.pop(now)
    }

    /// The SAs, newest first, with what `keep` says yes to.
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

    /// Parks a dump before the newest SA.
    pub fn start_walk(&mut self) -> Walker {
        let id = self.next_walker;
        self.next_walker = self.next_walker.wrapping_add(1);
        self.walkers.insert(id, self.newest);
        Walker(id)
    }

    /// The next SA of a dump that `keep` says yes to; the dump then stands behind it.
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

    /// Forgets a dump.
    pub fn end_walk(&mut self, walker: Walker) {
        self.walkers.remove(&walker.0);
    }

    fn index(&mut self, index: Index) {
        let Some(place) = self.get(index).map(Place::of) else { return };
        self.note_change(&place.route);
        let Self { slots, hasher, by_id, by_route, .. } = self;
        let Place { id, route, acquire, seq, is_larval, add_time } = place;
        if id.spi != 0 {
            by_id.insert_unique(hasher.hash_one(id), index, |&i| hash_of(hasher, slots, i, Sa::id));
            self.spis.insert(id.spi, id.proto.0);
        }
        let hash = hasher.hash_one(route);
        // Sorted by the time of adding, so that the first that will do is the one to take. That of a new SA is the latest;
        // one that takes another's place may be older than those that came meanwhile.
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
        if is_larval {
            let larvals = self.larvals.entry(acquire).or_default();
            larvals.count += 1;
            if id.spi == 0 {
                larvals.waiting = Some(index);
            }
            if seq != 0 {
                self.by_seq.entry(seq).or_default().push(index);
            }
        }
    }

    /// Takes an SA out of the indexes, where it stands under what it was.
    fn unindex(&mut self, index: Index, place: &Place) {
        self.note_change(&place.route);
        let Self { slots, hasher, by_id, by_route, .. } = self;
        let Some(links) = slots.get(index).map(|slot| slot.route) else { return };
        let Place { id, route, acquire, seq, is_larval, .. } = *place;
        if id.spi != 0 {
            if let Ok(entry) = by_id.find_entry(hasher.hash_one(id), |&i| i == index) {
                entry.remove();
            }
            self.spis.remove(id.spi, id.proto.0);
        }
        if links.newer == NONE {
            match by_route.find_entry(hasher.hash_one(route), |&i| i == index) {
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
        if is_larval {
            if let Some(larvals) = self.larvals.get_mut(&acquire) {
                larvals.count -= 1;
                larvals.waiting = larvals.waiting.filter(|&waiting| waiting != index);
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(sadb.spis().contains(77, 50));
        sadb.remove(index);
        assert!(sadb.is_empty() && !sadb.spis().contains(77, 50) && sadb.find_by_seq(9).is_none());
        assert!(sadb.larvals.is_empty() && sadb.by_seq.is_empty() && sadb.next_timer().is_none());
        assert!(sadb.by_id.is_empty() && sadb.by_route.is_empty() && sadb.spis.is_empty());
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
        // Another reqid: another route, and both are told.
        let (old, new) = (sadb.change(dst, 0), sadb.change(dst, 9));
        sadb.edit(first, 0, |sa| (sa.reqid, sa.spi) = (9, 3));
        assert!(!sadb.is_unchanged(&old) && !sadb.is_unchanged(&new));
        assert_eq!((spis(&sadb, route), spis(&sadb, Route { reqid: 9, ..route })), (vec![2], vec![3]));
        assert_eq!(sadb.find(&sa(3).id()), Some(first));
        assert_eq!(sadb.find(&sa(1).id()), None);
        // Older than it was: behind those that are not.
        sadb.edit(first, 0, |sa| (sa.reqid, sa.usage.add_time) = (0, 7));
        assert_eq!(spis(&sadb, route), [3, 2]);
        sadb.edit(second, 0, |sa| sa.usage.add_time = 8);
        assert_eq!(spis(&sadb, route), [2, 3]);
        // What no index shows: a limit, and the beginning of its end.
        let same = sadb.change(dst, 0);
        sadb.edit(second, 8, |sa| (sa.soft.add_seconds, sa.state) = (5, State::Mature));
        assert_eq!((sadb.next_timer(), sadb.is_unchanged(&same)), (Some(13), false));
        sadb.edit(second, 13, |sa| sa.state = State::Dying);
        assert_eq!(sadb.next_timer(), None);
        // A larval that was given up is none any more.
        let key = AcquireKey::of(&larval(4));
        let larval = sadb.insert(larval(4), 0);
        assert!(sadb.is_acquiring(&key));
        sadb.edit(larval, 0, |sa| sa.state = State::Refused);
        assert_eq!((sadb.is_acquiring(&key), sadb.find_by_seq(9), sadb.next_timer()), (false, None, Some(30)));
        // A packet is no change.
        let same = sadb.change(dst, 0);
        sadb.edit(second, 8, |sa| sa.hard.use_seconds = 4);
        let after = sadb.change(dst, 0);
        sadb.touch(second, 10);
        sadb.count(second, 1, 100);
        assert_eq!((sadb.next_timer(), sadb.is_unchanged(&after), same == after), (Some(14), true, false));
    }
}
