//! Memory from `malloc`: what C frees, and what may be missing.

use std::ptr::NonNull;

use super::guard::Failure;
use crate::error::Code;

/// A block from `malloc`, freed when it is dropped.
pub(super) struct Block {
    start: NonNull<u8>,
    len: usize,
}

impl Block {
    /// `len` bytes of zeros.
    ///
    /// Code 21 if there is no memory.
    pub(super) fn zeroed(len: usize) -> Result<Self, Failure> {
        // SAFETY: any size may be asked for; 1 at least, so that NULL means failure.
        let block = unsafe { libc::calloc(1, len.max(1)) };
        match NonNull::new(block.cast()) {
            Some(start) => Ok(Self { start, len }),
            None => Err(Code::NoBuffers.into()),
        }
    }

    /// Two parts, one behind the other.
    pub(super) fn joined(first: &[u8], rest: &[u8]) -> Result<Self, Failure> {
        let mut block = Self::zeroed(first.len() + rest.len())?;
        let (start, end) = block.bytes().split_at_mut(first.len());
        start.copy_from_slice(first);
        end.copy_from_slice(rest);
        Ok(block)
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is this long and initialised, and borrowed through its owner.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The beginning of the block, in one of its own, and nothing is left in this. One that there is no memory for stays as it is.
    pub(super) fn cut(mut self, len: usize) -> Self {
        let first = self.bytes().get(..len).unwrap_or_default();
        // Not `realloc`, which leaves keys behind where it moves what it makes smaller.
        let Ok(cut) = Self::joined(first, &[]) else { return self };
        self.wipe();
        cut
    }

    /// Sets all of it to zeros, faster than byte for byte.
    fn wipe(&mut self) {
        // SAFETY: the block is this long.
        unsafe { libc::explicit_bzero(self.start.as_ptr().cast(), self.len) };
    }

    /// The block, which the caller frees with `free`.
    pub(super) fn into_c<T>(self) -> *mut T {
        std::mem::ManuallyDrop::new(self).start.as_ptr().cast()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block is malloc's, and nobody else's.
        unsafe { libc::free(self.start.as_ptr().cast()) };
    }
}
