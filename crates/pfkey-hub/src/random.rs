//! Numbers that need not be secret: SPIs and reqids, which are visible on the wire.

use std::hash::{BuildHasher, Hasher};

/// A generator that can be repeated: SplitMix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub const fn with_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A seed of this process: the standard library's hasher keys are the random numbers that every process has.
#[must_use]
pub fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
