//! Served descriptors that this process opened: it need not ask for their names each time. A hint only, a descriptor may have
//! been closed and its number given to another.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors below 1024, one bit each.
static SERVED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

fn place(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((SERVED.get(fd / 64)?, 1 << (fd % 64)))
}

/// Whether this descriptor was opened here as a served one, and not closed by [`forget`].
pub(super) fn is_served(fd: RawFd) -> bool {
    place(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// It was opened as a served one.
pub(super) fn remember(fd: RawFd) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

/// It was closed, or opened as something else.
pub(super) fn forget(fd: RawFd) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}
