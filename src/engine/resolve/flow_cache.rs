//! Remembering what a flow was resolved to (the kernel's `net/core/flow.c` up to 4.13).
//!
//! One cache serves one thread. A generation number makes every entry stale at once when a policy, an SA or a
//! route changes; a stale entry is resolved anew. "No policy" is remembered too; errors are not. Above the high
//! watermark the least recently inserted entries are dropped, down to the low one.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What a cache did.
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

    /// What the cache did so far.
    #[must_use]
    pub const fn statistics(&self) -> CacheStatistics {
        self.statistics
    }

    /// The value of a flow. A remembered one is taken if it is of this generation and `usable` agrees; otherwise
    /// `resolve` is asked and its answer remembered, unless it is an error.
    ///
    /// # Errors
    /// Those of `resolve`.
    pub fn get_or_resolve<E>(
        &mut self,
        key: K,
        usable: impl FnOnce(&V) -> bool,
        resolve: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<&V>, E> {
        let current = match self.entries.get(&key) {
            None => {
                self.statistics.misses += 1;
                false
            }
            Some(entry) if entry.generation != self.generation => {
                self.statistics.stale += 1;
                false
            }
            Some(Entry { value: None, .. }) => {
                self.statistics.negative_hits += 1;
                true
            }
            Some(Entry { value: Some(value), .. }) if usable(value) => {
                self.statistics.hits += 1;
                true
            }
            Some(_) => {
                self.statistics.stale += 1;
                false
            }
        };
        if !current {
            // An old value must not outlive a failed look-up.
            self.entries.remove(&key);
            let value = resolve()?;
            self.remember(key, value);
        }
        Ok(self.entries.get(&key).and_then(|entry| entry.value.as_ref()))
    }

    fn remember(&mut self, key: K, value: Option<V>) {
        if self.entries.len() >= self.high {
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

    fn get(cache: &mut FlowCache<u32, u32>, key: u32) -> Option<u32> {
        cache.get_or_resolve(key, |_| true, || Ok::<_, ()>(Some(key))).unwrap().copied()
    }

    #[test]
    fn the_high_watermark_shrinks_once() {
        let mut cache = FlowCache::new(2048, 4096);
        for key in 0..4096 {
            assert_eq!(get(&mut cache, key), Some(key));
        }
        assert_eq!((cache.statistics().shrinks, cache.len()), (0, 4096));
        get(&mut cache, 4096);
        assert_eq!((cache.statistics().shrinks, cache.len()), (1, 2049));
        get(&mut cache, 4095);
        assert_eq!(cache.statistics().hits, 1, "the youngest stay");
    }

    #[test]
    fn a_change_makes_every_entry_stale() {
        let mut cache = FlowCache::new(8, 16);
        get(&mut cache, 1);
        cache.invalidate();
        assert_eq!(cache.get_or_resolve(1, |_| true, || Ok::<_, ()>(Some(7))), Ok(Some(&7)));
        assert_eq!(cache.statistics().stale, 1);
    }

    #[test]
    fn no_policy_is_remembered_and_an_error_is_not() {
        let mut cache: FlowCache<u32, u32> = FlowCache::new(8, 16);
        assert_eq!(cache.get_or_resolve(1, |_| true, || Err("no")), Err("no"));
        assert!(cache.is_empty());
        assert_eq!(cache.get_or_resolve(1, |_| true, || Ok::<_, ()>(None)), Ok(None));
        assert_eq!(cache.get_or_resolve(1, |_| true, || Err("not asked")), Ok(None));
        assert_eq!(cache.statistics().negative_hits, 1);
    }

    #[test]
    fn the_same_flow_again_and_again_does_not_grow_the_cache() {
        let mut cache = FlowCache::new(8, 16);
        for _ in 0..1000 {
            cache.invalidate();
            get(&mut cache, 1);
        }
        assert!(cache.order.len() <= 33 && cache.len() == 1);
    }
}
