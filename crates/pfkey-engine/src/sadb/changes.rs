//! How often the SAs to a destination changed (the kernel's `genid`, without a field in each SA).

use std::hash::BuildHasher;
use std::net::IpAddr;

use super::Hasher;

/// Destinations that are counted apart. Two that share a counter only cost a look-up.
const BUCKETS: usize = 4096;

/// The state of the SAs to a destination when a template chose among them: see [`super::Sadb::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    bucket: usize,
    count: u32,
}

/// Counters of changes, by destination and reqid.
pub(super) struct Changes {
    hasher: Hasher,
    counts: Box<[u32]>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { hasher: Hasher::default(), counts: vec![0; BUCKETS].into() }
    }
}

impl Changes {
    pub fn now(&self, dst: IpAddr, reqid: u32) -> Change {
        let bucket = self.hasher.hash_one((dst, reqid)) as usize % BUCKETS;
        Change { bucket, count: self.counts.get(bucket).copied().unwrap_or(0) }
    }

    pub fn is_unchanged(&self, since: &Change) -> bool {
        self.counts.get(since.bucket) == Some(&since.count)
    }

    pub fn note(&mut self, dst: IpAddr, reqid: u32) {
        let Change { bucket, count } = self.now(dst, reqid);
        if let Some(counter) = self.counts.get_mut(bucket) {
            *counter = count.wrapping_add(1);
        }
    }
}
