//! Memory that this process and the processes it forks share.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::unistd::ftruncate;

/// Nobody can make a file shorter, so that no access to the mapping fails, nor take that back.
const SIZE_STAYS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

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
        Self::map(words, bytes, None)
    }

    /// Maps so many words of a file that has no name, and gives the file too: who has it can map them when all processes of this
    /// program are gone.
    pub fn with_file(words: usize) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create(c"pfkeyd", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, libc::off_t::try_from(words * 8).map_err(|_| io::ErrorKind::InvalidInput)?)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SIZE_STAYS))?;
        Ok((Self::map(words, 0, Some(&file))?, file))
    }

    /// Maps the words of such a file.
    ///
    /// # Errors
    /// EINVAL for any other file; those of `mmap`.
    pub fn of_file(words: usize, file: &OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?);
        let size = nix::sys::stat::fstat(file)?.st_size;
        if !seals.contains(SIZE_STAYS) || usize::try_from(size) != Ok(words * 8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map(words, 0, Some(file))
    }

    /// A file has to be of that size, and stay so.
    fn map(words: usize, bytes: usize, file: Option<&OwnedFd>) -> io::Result<Self> {
        let size = words.checked_mul(8).and_then(|size| size.checked_add(bytes)).and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        let start = match file {
            // SAFETY: a new mapping at an address of the kernel's choice.
            None => unsafe { mmap_anonymous(None, size, protection, flags) },
            // SAFETY: the same; the file has all of these bytes for ever.
            Some(file) => unsafe { mmap(None, size, protection, flags, file.as_fd(), 0) },
        };
        let start = start?.as_ptr().cast::<u8>();
        // SAFETY: the mapping begins at a page, has room for the words, is never unmapped, and any bytes are valid words; other
        // processes change them by atomic operations only.
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
        // SAFETY: inside the mapping, which no reference points into. It is never unmapped and other processes have it, so that the
        // compiler cannot leave this out because nothing here reads it again.
        unsafe { std::ptr::write_bytes(self.bytes, 0, bytes.min(self.len)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_has_is_there_when_it_is_mapped_again() {
        let (memory, file) = Memory::with_file(600).unwrap();
        memory.set_word(599, 7);
        let again = Memory::of_file(600, &file).unwrap();
        assert_eq!((again.word(599), again.word(0), again.len()), (7, 0, 0));
    }

    #[test]
    fn no_other_file_is_mapped() {
        let (_memory, shorter) = Memory::with_file(599).unwrap();
        assert!(Memory::of_file(600, &shorter).is_err());
        let unsealed = memfd_create(c"x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4800).unwrap();
        assert!(Memory::of_file(600, &unsealed).is_err());
        assert!(Memory::of_file(600, &OwnedFd::from(std::fs::File::open("/dev/zero").unwrap())).is_err());
    }
}
