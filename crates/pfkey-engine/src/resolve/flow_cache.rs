//! The flow cache: what flows were resolved to (the kernel's `net/core/flow.c` up to 4.13).
//!
//! One cache serves one thread. A generation number makes every entry stale at once when a policy, an SA or a
//! route changes; a stale entry is resolved anew. "No policy" is remembered too; errors are not. Above the high
//! watermark the least recently inserted entries are dropped, down to the low one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Counters of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Found and current, with a value.
    pub hits: u64,
    /// Found and current: no policy.
    pub negative_hits: u64,
    /// Not found.
    pub misses: u64,
    /// Found, but of an older generation or no longer usable.
    pub stale: u64,
    /// How often the cache was shrunk to its low watermark.
    pub shrinks: u64,
}

#[derive(Debug)]
struct Entry<V> {
    generation: u64,
    inserted: u64,
    value: Option<V>,
}

/// A cache's answer for a flow.
#[derive(Debug, PartialEq, Eq)]
pub enum Cached<'c, V> {
    /// It was resolved to this; `None` = no policy.
    Known(Option<&'c V>),
    /// It is not in the cache, or its entry is stale.
    Unknown,
}

/// A cache from flows to what they resolve to.
#[derive(Debug)]
pub struct FlowCache<K, V> {
    entries: HashMap<K, Entry<V>, foldhash::quality::RandomState>,
    /// Keys by insertion, oldest first; an entry inserted anew leaves a dead one behind.
    order: VecDeque<(u64, K)>,
    clock: u64,
    generation: u64,
    low: usize,
    high: usize,
    statistics: CacheStatistics,
}

impl<K: Copy + Eq + Hash, V> FlowCache<K, V> {
    /// A cache that shrinks to `low` entries when it holds more than `high`; the kernel's values are 2048 and
    /// 4096.
    #[must_use]
    pub fn new(low: usize, high: usize) -> Self {
        Self {
            entries: HashMap::default(),
            order: VecDeque::new(),
            clock: 0,
            generation: 0,
            low: low.min(high),
            high,
            statistics: CacheStatistics::default(),
        }
    }

    /// Makes every entry stale.
    pub fn invalidate(&mut self) {
        self.generation += 1;
    }

    /// Number of entries, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The counters.
    #[must_use]
    pub const fn statistics(&self) -> CacheStatistics {
        self.statistics
    }

    /// The entry of a flow, if it is of this generation and `usable` accepts it.
    pub fn find(&mut self, key: &K, usable: impl FnOnce(&V) -> bool) -> Cached<'_, V> {
        let Some(entry) = self.entries.get(key) else {
            self.statistics.misses += 1;
            return Cached::Unknown;
        };
        match &entry.value {
            _ if entry.generation != self.generation => {}
            None => {
                self.statistics.negative_hits += 1;
                return Cached::Known(None);
            }
            Some(value) if usable(value) => {
                self.statistics.hits += 1;
                return Cached::Known(Some(value));
            }
            Some(_) => {}
        }
        self.statistics.stale += 1;
        Cached::Unknown
    }

    /// Remembers what a flow was resolved to; `None` = no policy. Errors must not be remembered.
    pub fn remember(&mut self, key: K, value: Option<V>) {
        if self.entries.len() > self.high && !self.entries.contains_key(&key) {
            self.shrink();
        }
        self.clock += 1;
        self.entries.insert(key, Entry { generation: self.generation, inserted: self.clock, value });
        self.order.push_back((self.clock, key));
        // Dead keys must not pile up when few flows are resolved again and again.
        if self.order.len() > 2 * self.high.max(1) {
            let entries = &self.entries;
            self.order.retain(|(inserted, key)| entries.get(key).is_some_and(|e| e.inserted == *inserted));
        }
    }

    /// Forgets everything and hashes with another seed, so that nobody can find out which flows collide.
    pub fn reseed(&mut self) {
        self.entries = HashMap::default();
        self.order.clear();
    }

    fn shrink(&mut self) {
        self.statistics.shrinks += 1;
        while self.entries.len() > self.low {
            let Some((inserted, key)) = self.order.pop_front() else { break };
            if self.entries.get(&key).is_some_and(|entry| entry.inserted == inserted) {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(cache: &mut FlowCache<u32, u32>, keys: std::ops::Range<u32>) {
        for key in keys {
            assert_eq!(cache.find(&key, |_| true), Cached::Unknown);
            cache.remember(key, Some(key));
        }
    }

    #[test]
    fn above_the_high_watermark_it_shrinks_once() {
        let mut cache = FlowCache::new(2048, 4096);
        fill(&mut cache, 0..4097);
        assert_eq!((cache.statistics().shrinks, cache.len()), (0, 4097));
        fill(&mut cache, 4097..4098);
        assert_eq!((cache.statistics().shrinks, cache.len()), (1, 2049));
        assert_eq!(cache.find(&4096, |_| true), Cached::Known(Some(&4096)), "the youngest stay");
        assert_eq!(cache.find(&0, |_| true), Cached::Unknown, "the oldest go");
    }

    #[test]
    fn a_change_makes_every_entry_stale() {
        let mut cache = FlowCache::new(8, 16);
        fill(&mut cache, 1..2);
        cache.invalidate();
        assert_eq!(cache.find(&1, |_| true), Cached::Unknown);
        cache.remember(1, Some(7));
        assert_eq!(cache.find(&1, |_| true), Cached::Known(Some(&7)));
        assert_eq!(cache.find(&1, |_| false), Cached::Unknown, "no longer usable");
        assert_eq!(cache.statistics(), CacheStatistics { hits: 1, misses: 1, stale: 2, ..Default::default() });
    }

    #[test]
    fn that_there_is_nothing_is_remembered() {
        let mut cache: FlowCache<u32, u32> = FlowCache::new(8, 16);
        cache.remember(1, None);
        assert_eq!(cache.find(&1, |_| false), Cached::Known(None));
        assert_eq!(cache.statistics().negative_hits, 1);
    }

    #[test]
    fn another_seed_empties_it() {
        let mut cache = FlowCache::new(8, 16);
        fill(&mut cache, 0..9);
        cache.reseed();
        assert!(cache.is_empty());
    }

    #[test]
    fn the_same_flow_again_and_again_does_not_grow_the_cache() {
        let mut cache = FlowCache::new(8, 16);
        for _ in 0..1000 {
            cache.invalidate();
            cache.remember(1, Some(1));
        }
        assert!(cache.order.len() <= 33 && cache.len() == 1);
    }
}
