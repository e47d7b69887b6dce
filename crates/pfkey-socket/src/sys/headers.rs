//! What messages that wait on a descriptor begin with, many with one system call and without allocating, as nix would.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use pfkey_wire::{HEADER_LEN, xfrm::MAX_WHY};
use zeroize::Zeroize as _;

/// Messages that are received at once. They are on the stack, and threads have small ones.
const MOST: usize = 16;

/// Bytes of the longest error report: a header, and an extension with an attribute that says why.
pub const REPORT_LEN: usize = HEADER_LEN + 8 + 4 + MAX_WHY + 4;

/// Messages that were received, as far as an error report goes; the rests of longer ones are gone. What is kept may be of keys, and
/// is wiped.
pub struct Headers {
    bytes: [[u8; REPORT_LEN]; MOST],
    lens: [usize; MOST],
    count: usize,
    next: usize,
}

impl Default for Headers {
    /// None yet.
    fn default() -> Self {
        Self { bytes: [[0; REPORT_LEN]; MOST], lens: [0; MOST], count: 0, next: 0 }
    }
}

impl Headers {
    /// The next message that was received: as much of its beginning as there was, which is nothing at end of file.
    pub fn take(&mut self) -> Option<&[u8]> {
        let place = self.next;
        if place >= self.count {
            return None;
        }
        self.next += 1;
        self.bytes.get(place)?.get(..*self.lens.get(place)?)
    }

    /// Receives what waits, in place of what was received before.
    ///
    /// # Errors
    /// Those of `recvmmsg`; EAGAIN if nothing waits.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        (self.count, self.next) = (0, 0);
        self.bytes.zeroize();
        let mut parts = self
            .bytes
            .each_mut()
            .map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: mmsghdr is plain data, valid when zeroed.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        // The flags are unsigned on musl.
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: as many messages as the array has; each names a part, which names live bytes.
        let received = unsafe {
            libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), MOST as libc::c_uint, flags, std::ptr::null_mut())
        };
        self.count = usize::try_from(Errno::result(received)?).unwrap_or(0).min(MOST);
        for (len, message) in self.lens.iter_mut().zip(&messages) {
            *len = (message.msg_len as usize).min(REPORT_LEN);
        }
        Ok(())
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
