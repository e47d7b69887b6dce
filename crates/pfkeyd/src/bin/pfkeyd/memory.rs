//! Memory that this process and the processes it forks share.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// A shared mapping, zero at first: some 64-bit words, and bytes behind them. It is never unmapped.
///
/// Of the processes that have it only one at a time writes bytes; what the words say tells the others which of them are
/// whole.
pub struct Memory {
    words: &'static [AtomicU64],
    bytes: *mut u8,
    len: usize,
}

impl Memory {
    /// Maps so many words and bytes. Pages that nobody writes to are not there.
    pub fn new(words: usize, bytes: usize) -> io::Result<Self> {
        let size = words.checked_mul(8).and_then(|size| size.checked_add(bytes)).and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, size, protection, flags) }?.as_ptr().cast::<u8>();
        // SAFETY: the mapping begins at a page, has room for the words, is never unmapped, and is all zeros, which are
        // valid words; other processes change them by atomic operations only.
        let slice = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), words) };
        // SAFETY: the bytes begin inside the mapping or at its end.
        Ok(Self { words: slice, bytes: unsafe { start.add(words * 8) }, len: bytes })
    }

    /// A word; 0 beyond the last.
    pub fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets a word; nothing beyond the last.
    pub fn set_word(&self, index: usize, value: u64) {
        if let Some(word) = self.words.get(index) {
            word.store(value, Ordering::Release);
        }
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Writes bytes; false, and none are, if they do not fit there.
    pub fn write(&self, at: usize, bytes: &[u8]) -> bool {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.len);
        if fits {
            // SAFETY: inside the mapping, which no reference points into; the source is other memory.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.bytes.add(at), bytes.len()) };
        }
        fits
    }

    /// Copies bytes into `to`; false if so many are not there.
    pub fn read(&self, at: usize, to: &mut [u8]) -> bool {
        let there = at.checked_add(to.len()).is_some_and(|end| end <= self.len);
        if there {
            // SAFETY: inside the mapping; the destination is other memory.
            unsafe { std::ptr::copy_nonoverlapping(self.bytes.add(at), to.as_mut_ptr(), to.len()) };
        }
        there
    }

    /// Overwrites the first bytes with zeros.
    pub fn wipe(&self, bytes: usize) {
        for at in 0..bytes.min(self.len) {
            // SAFETY: inside the mapping. Volatile, so that it is done though nothing here reads it again.
            unsafe { std::ptr::write_volatile(self.bytes.add(at), 0) };
        }
    }
}
