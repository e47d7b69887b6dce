//! Numbers from the fuzzer's bytes, with the names of `tests/support/splitmix.rs`, which draws them from a seed. After the
//! last byte every number is 0.

/// Where the numbers come from.
pub struct Random<'a>(pub &'a [u8]);

impl<'a> Random<'a> {
    /// Whether all bytes were used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// The next four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_ne_bytes([(); 4].map(|()| self.byte()))
    }

    /// The next eight bytes.
    pub fn long(&mut self) -> u64 {
        u64::from_ne_bytes([(); 8].map(|()| self.byte()))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 | 1 => 0,
            2..=256 => usize::from(self.byte()) % n,
            _ => self.word() as usize % n,
        }
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The next `len` bytes, or what is left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
