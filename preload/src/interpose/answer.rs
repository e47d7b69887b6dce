//! What follows a sending call: on a descriptor that a pfkeyd serves, the answers have to be there when it returns.
//!
//! The message is looked at after the kernel has read it, so a bad pointer gives EFAULT as ever. Only what begins
//! with PF_KEY's version is looked at, and only then the descriptor is asked for its name.

use libc::{c_int, c_void, iovec, ssize_t};

use super::quiet::quiet;
use crate::socket;
use crate::wire::{HEADER_LEN, PF_KEY_V2};

/// After a call sent `sent` bytes of `buffer`. Gives what the call shall return.
///
/// # Safety
/// If `sent` is positive, that many bytes of `buffer` are readable.
#[inline]
pub(super) unsafe fn after(fd: c_int, sent: ssize_t, buffer: *const c_void) -> ssize_t {
    // SAFETY: at least one byte is readable.
    if sent <= 0 || unsafe { *buffer.cast::<u8>() } != PF_KEY_V2 {
        return sent;
    }
    let len = sent as usize;
    // SAFETY: so many are readable.
    finish(fd, sent, unsafe { std::slice::from_raw_parts(buffer.cast(), len.min(HEADER_LEN)) })
}

/// As [`after`], for `count` parts.
///
/// # Safety
/// `sent` is positive, the parts are readable, and so are their first `sent` bytes.
pub(super) unsafe fn after_parts(fd: c_int, sent: ssize_t, parts: *const iovec, count: usize) -> ssize_t {
    let mut start = [0; HEADER_LEN];
    let wanted = HEADER_LEN.min(sent as usize);
    let mut have = 0;
    for index in 0..count {
        if have == wanted {
            break;
        }
        // SAFETY: index < count.
        let part = unsafe { &*parts.add(index) };
        let len = part.iov_len.min(wanted - have);
        // SAFETY: have + len <= wanted <= the array's length, and the kernel has read these bytes. A part of length
        // 0 may have any pointer; nothing is copied then.
        unsafe { std::ptr::copy_nonoverlapping(part.iov_base.cast::<u8>(), start[have..].as_mut_ptr(), len) };
        have += len;
    }
    if start[0] != PF_KEY_V2 { sent } else { finish(fd, sent, &start[..have]) }
}

/// Refuses what AF_KEY would have refused (pfkeyd has dropped it), and waits for the answers of everything else.
#[cold]
fn finish(fd: c_int, sent: ssize_t, start: &[u8]) -> ssize_t {
    let refused = quiet(|| {
        if !socket::is_served(fd) {
            return None;
        }
        match socket::check_framing_start(start, sent as usize) {
            Ok(()) => {
                socket::settle(fd);
                None
            }
            Err(error) => Some(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    });
    match refused.flatten() {
        Some(errno) => {
            nix::errno::Errno::set_raw(errno);
            -1
        }
        None => sent,
    }
}
