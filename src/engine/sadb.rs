//! The SADB: SAs by name, by what a larval is looked for, and in the order of dumps.

use std::collections::{BTreeSet, HashMap};

use super::sa::{Address, Sa, Said, State};

type Hasher = foldhash::quality::RandomState;

/// Where an SA lives while it lives.
pub type Index = u32;

/// What a larval without an SPI is found by (`__find_acq_core`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AcquireKey {
    /// Destination address.
    pub daddr: Address,
    /// Source address.
    pub saddr: Address,
    /// Protocol.
    pub proto: u8,
    /// IPv6.
    pub v6: bool,
    /// Mode.
    pub mode: u8,
    /// Request id.
    pub reqid: u32,
}

impl AcquireKey {
    fn of(sa: &Sa) -> Self {
        Self {
            daddr: sa.said.daddr,
            saddr: sa.saddr,
            proto: sa.said.proto,
            v6: sa.said.v6,
            mode: sa.mode,
            reqid: sa.reqid,
        }
    }
}

struct Slot {
    sa: Sa,
    /// Towards newer SAs.
    newer: Option<Index>,
    /// Towards older SAs.
    older: Option<Index>,
}

/// Where a dump stands: before the SA that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Walker(u32);

/// All SAs.
#[derive(Default)]
pub struct Sadb {
    slots: Vec<Option<Slot>>,
    free: Vec<Index>,
    newest: Option<Index>,
    by_said: HashMap<Said, Index, Hasher>,
    /// Number of SAs with an SPI of a protocol, whatever their addresses.
    spis: HashMap<(u32, u8), u32, Hasher>,
    larvals: HashMap<AcquireKey, Vec<Index>, Hasher>,
    by_seq: HashMap<u32, Vec<Index>, Hasher>,
    /// (Unix time in seconds, SA) of every armed timer.
    timers: BTreeSet<(u64, Index)>,
    /// What each parked dump looks at next.
    walkers: HashMap<u32, Option<Index>>,
    next_walker: u32,
}

impl Sadb {
    /// Number of SAs, larvals included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no SA.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An SA by its place.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Sa> {
        self.slots.get(index as usize)?.as_ref().map(|slot| &slot.sa)
    }

    /// Changes an SA; what it is indexed by (name, source, mode, reqid, seq, state) must stay, see
    /// [`Sadb::reindex`].
    pub fn get_mut(&mut self, index: Index) -> Option<&mut Sa> {
        self.slots.get_mut(index as usize)?.as_mut().map(|slot| &mut slot.sa)
    }

    /// An SA by its name. SAs without an SPI have none.
    #[must_use]
    pub fn find(&self, said: &Said) -> Option<Index> {
        self.by_said.get(said).copied()
    }

    /// Whether an SPI is in use with a protocol.
    #[must_use]
    pub fn has_spi(&self, spi: u32, proto: u8) -> bool {
        self.spis.contains_key(&(spi, proto))
    }

    /// A larval that waits for an SPI (`__find_acq_core`).
    #[must_use]
    pub fn find_larval(&self, key: &AcquireKey) -> Option<Index> {
        let candidates = self.larvals.get(key)?;
        candidates.iter().rev().copied().find(|&i| self.get(i).is_some_and(|sa| sa.state == State::Acquire))
    }

    /// A larval by its sequence number (`__xfrm_find_acq_byseq`).
    #[must_use]
    pub fn find_by_seq(&self, seq: u32) -> Option<Index> {
        if seq == 0 {
            return None;
        }
        let candidates = self.by_seq.get(&seq)?;
        candidates.iter().rev().copied().find(|&i| self.get(i).is_some_and(|sa| sa.state == State::Acquire))
    }

    /// Adds an SA as the newest.
    pub fn insert(&mut self, sa: Sa) -> Index {
        let timer = sa.timer;
        let older = self.newest;
        let slot = Slot { sa, newer: None, older };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as Index
            }
        };
        if let Some(Some(before)) = older.map(|i| self.slots[i as usize].as_mut()) {
            before.newer = Some(index);
        }
        self.newest = Some(index);
        self.index(index);
        if let Some(at) = timer {
            self.timers.insert((at, index));
        }
        index
    }

    /// Removes an SA. Dumps that stood before it stand before the next one.
    pub fn remove(&mut self, index: Index) -> Option<Sa> {
        self.unindex(index);
        let slot = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        if let Some(at) = slot.sa.timer {
            self.timers.remove(&(at, index));
        }
        match slot.newer.map(|i| self.slots[i as usize].as_mut()) {
            Some(Some(newer)) => newer.older = slot.older,
            _ => self.newest = slot.older,
        }
        if let Some(Some(older)) = slot.older.map(|i| self.slots[i as usize].as_mut()) {
            older.newer = slot.newer;
        }
        for next in self.walkers.values_mut() {
            if *next == Some(index) {
                *next = slot.older;
            }
        }
        Some(slot.sa)
    }

    /// Changes what an SA is indexed by.
    pub fn reindex(&mut self, index: Index, change: impl FnOnce(&mut Sa)) {
        self.unindex(index);
        if let Some(sa) = self.get_mut(index) {
            change(sa);
        }
        self.index(index);
    }

    /// Arms, moves or stops an SA's timer.
    pub fn set_timer(&mut self, index: Index, at: Option<u64>) {
        let Some(sa) = self.slots.get_mut(index as usize).and_then(Option::as_mut).map(|s| &mut s.sa) else { return };
        if let Some(old) = std::mem::replace(&mut sa.timer, at) {
            self.timers.remove(&(old, index));
        }
        if let Some(at) = at {
            self.timers.insert((at, index));
        }
    }

    /// When the next timer is due, Unix time in seconds.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Takes one timer that is due at `now`.
    pub fn pop_timer(&mut self, now: u64) -> Option<Index> {
        let &(at, index) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.set_timer(index, None);
        Some(index)
    }

    /// The SAs, newest first, with what `keep` says yes to.
    #[must_use]
    pub fn select(&self, keep: impl Fn(&Sa) -> bool) -> Vec<Index> {
        let mut found = Vec::new();
        let mut next = self.newest;
        while let Some(index) = next {
            let Some(Some(slot)) = self.slots.get(index as usize) else { break };
            if keep(&slot.sa) {
                found.push(index);
            }
            next = slot.older;
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
        while let Some(index) = *next {
            let Some(Some(slot)) = self.slots.get(index as usize) else { break };
            *next = slot.older;
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
        let Some(sa) = self.slots.get(index as usize).and_then(Option::as_ref).map(|s| &s.sa) else { return };
        if sa.said.spi != 0 {
            self.by_said.insert(sa.said, index);
            *self.spis.entry((sa.said.spi, sa.said.proto)).or_insert(0) += 1;
        } else {
            self.larvals.entry(AcquireKey::of(sa)).or_default().push(index);
        }
        if sa.seq != 0 && sa.state == State::Acquire {
            self.by_seq.entry(sa.seq).or_default().push(index);
        }
    }

    fn unindex(&mut self, index: Index) {
        let Some(sa) = self.slots.get(index as usize).and_then(Option::as_ref).map(|s| &s.sa) else { return };
        if sa.said.spi != 0 {
            if self.by_said.get(&sa.said) == Some(&index) {
                self.by_said.remove(&sa.said);
            }
            let key = (sa.said.spi, sa.said.proto);
            if let Some(count) = self.spis.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.spis.remove(&key);
                }
            }
        } else {
            drop_from(&mut self.larvals, &AcquireKey::of(sa), index);
        }
        if sa.seq != 0 {
            drop_from(&mut self.by_seq, &sa.seq, index);
        }
    }
}

fn drop_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Index>, Hasher>, key: &K, index: Index) {
    if let Some(list) = map.get_mut(key) {
        list.retain(|&i| i != index);
        if list.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sa(spi: u32) -> Sa {
        Sa::new(Said { daddr: [1; 16], spi, proto: 50, v6: false }, [2; 16], 0)
    }

    #[test]
    fn a_dump_neither_repeats_nor_misses_what_lives_through_it() {
        let mut sadb = Sadb::default();
        let indexes: Vec<Index> = (1..=5).map(|spi| sadb.insert(sa(spi))).collect();
        let walker = sadb.start_walk();
        let mut spis = Vec::new();
        let mut step = |sadb: &mut Sadb| {
            let found = sadb.walk(walker, |_| true);
            spis.extend(found.and_then(|i| sadb.get(i)).map(|sa| sa.said.spi));
            found
        };
        step(&mut sadb);
        sadb.remove(indexes[3]);
        sadb.insert(sa(6));
        sadb.remove(indexes[4]);
        step(&mut sadb);
        sadb.remove(indexes[1]);
        while step(&mut sadb).is_some() {}
        assert_eq!(spis, [5, 3, 1]);
    }

    #[test]
    fn nothing_is_left_of_removed_sas() {
        let mut sadb = Sadb::default();
        let mut larval = Sa::larval(Said { daddr: [1; 16], spi: 0, proto: 50, v6: false }, [2; 16], 1, 0, 0, 30);
        larval.seq = 9;
        larval.timer = Some(30);
        let index = sadb.insert(larval);
        assert_eq!(sadb.find_by_seq(9), Some(index));
        sadb.reindex(index, |sa| sa.said.spi = 77);
        assert!(sadb.has_spi(77, 50));
        sadb.remove(index);
        assert!(sadb.is_empty() && !sadb.has_spi(77, 50) && sadb.find_by_seq(9).is_none());
        assert!(sadb.larvals.is_empty() && sadb.by_seq.is_empty() && sadb.next_timer().is_none());
    }
}
