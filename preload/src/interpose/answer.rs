//! What follows a sending call: on a descriptor that a pfkeyd serves, the answers have to be there when it returns.
//!
//! The message is looked at after the kernel has read it, so a bad pointer gives EFAULT as ever. A socket reads what it
//! sends; a file may not (/dev/null), so what was written is looked at only once the descriptor is known to be served. A
//! packet socket with a ring (PACKET_TX_RING) sends what is there, and says so: whoever sends there has no bytes, or none
//! at NULL.

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, ssize_t};
use nix::errno::Errno;

use super::quiet::quiet;
use crate::socket::{check_framing_start, is_served, settle};
use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN, PF_KEY_V2};

/// After a socket call sent `sent` of the `len` bytes of `buffer`. Gives what the call shall return. Only bytes that
/// begin with PF_KEY's version lead to a look at the descriptor.
///
/// # Safety
/// If `sent` is positive and at most `len`, and `buffer` is not null, that many bytes of it are readable.
#[inline]
pub(super) unsafe fn after_send(fd: c_int, sent: ssize_t, buffer: *const c_void, len: size_t) -> ssize_t {
    // The last two: a ring's bytes.
    if sent <= 0 || sent as usize > len || buffer.is_null() {
        return sent;
    }
    // SAFETY: at least one byte is readable.
    if unsafe { *buffer.cast::<u8>() } != PF_KEY_V2 || !is_served(fd) {
        return sent;
    }
    // SAFETY: so many are readable.
    finish(fd, sent, unsafe { start_of(buffer, sent as usize) })
}

/// After `write`. Only a number of bytes that a message can have leads to a look at the descriptor.
///
/// # Safety
/// If the descriptor is a served one, `sent` bytes of `buffer` are readable.
#[inline]
pub(super) unsafe fn after_write(fd: c_int, sent: ssize_t, buffer: *const c_void) -> ssize_t {
    if !is_message_len(sent) || !is_served(fd) {
        return sent;
    }
    // SAFETY: the descriptor is served, and a message has more than one byte.
    finish(fd, sent, unsafe { start_of(buffer, sent as usize) })
}

/// After `sendmsg`.
///
/// # Safety
/// If `sent` is positive, the header and its parts are readable, and so are their first `sent` bytes, but for parts at NULL.
pub(super) unsafe fn after_sendmsg(fd: c_int, sent: ssize_t, message: *const msghdr) -> ssize_t {
    if sent <= 0 {
        return sent;
    }
    let mut start = [0; HEADER_LEN];
    // SAFETY: as this function's.
    let have = unsafe { gather_message(&mut start, sent as usize, message) };
    if start[0] != PF_KEY_V2 || !is_served(fd) { sent } else { finish(fd, sent, &start[..have]) }
}

/// `UIO_MAXIOV`: so many messages are sent by one `sendmmsg` at most.
const MOST_MESSAGES: c_uint = 1024;

/// `sendmmsg`, by the next function of that name. On a served descriptor message by message: AF_KEY has done one when it
/// comes to the next, and does not come to those behind one that it refuses.
///
/// # Safety
/// As `sendmmsg`, which `next` is.
pub(super) unsafe fn send_each(
    next: unsafe fn(c_int, *mut mmsghdr, c_uint, c_int) -> c_int,
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if !is_served(fd) {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { next(fd, messages, count, flags) };
    }
    let errno = Errno::last_raw();
    let count = count.min(MOST_MESSAGES);
    for done in 0..count {
        let message = messages.wrapping_add(done as usize);
        // SAFETY: one of the caller's messages.
        let sent = match unsafe { next(fd, message, 1, flags) } {
            1 => {
                let mut start = [0; HEADER_LEN];
                // SAFETY: the kernel has read the header and the bytes, and written how many.
                let (len, have) = unsafe {
                    let len = (*message).msg_len;
                    (len, gather_message(&mut start, len as usize, &raw const (*message).msg_hdr))
                };
                finish(fd, len as ssize_t, &start[..have])
            }
            _ => -1,
        };
        if sent < 0 {
            if done == 0 {
                return -1;
            }
            Errno::set_raw(errno);
            return done as c_int;
        }
    }
    count as c_int
}

/// As [`after_write`], for `count` parts.
///
/// # Safety
/// If the descriptor is a served one, the parts are readable, and so are their first `sent` bytes.
pub(super) unsafe fn after_write_parts(fd: c_int, sent: ssize_t, parts: *const iovec, count: usize) -> ssize_t {
    if !is_message_len(sent) || !is_served(fd) {
        return sent;
    }
    let mut start = [0; HEADER_LEN];
    // SAFETY: the descriptor is served.
    let have = unsafe { gather(&mut start, sent as usize, parts, count) };
    finish(fd, sent, &start[..have])
}

/// Whether a whole message can have so many bytes.
fn is_message_len(sent: ssize_t) -> bool {
    sent % 8 == 0 && usize::try_from(sent).is_ok_and(|sent| (HEADER_LEN..=MAX_MESSAGE_LEN).contains(&sent))
}

/// The header, or what there is of it.
///
/// # Safety
/// `len` bytes of `buffer` are readable, as long as the result is used.
unsafe fn start_of<'a>(buffer: *const c_void, len: usize) -> &'a [u8] {
    // SAFETY: so many are readable.
    unsafe { std::slice::from_raw_parts(buffer.cast(), len.min(HEADER_LEN)) }
}

/// As [`gather`], out of a message's parts.
///
/// # Safety
/// As [`gather`], and the message's header is readable.
unsafe fn gather_message(start: &mut [u8; HEADER_LEN], sent: usize, message: *const msghdr) -> usize {
    // SAFETY: the header is readable.
    let (parts, count) = unsafe { ((*message).msg_iov, (*message).msg_iovlen) };
    // The count is an int on musl.
    #[allow(clippy::unnecessary_cast)]
    let count = count as usize;
    // SAFETY: as this function's.
    unsafe { gather(start, sent, parts, count) }
}

/// Copies the header, or what there is of it, out of parts; gives its length.
///
/// # Safety
/// The parts are readable, and so are their first `sent` bytes, but for parts at NULL.
unsafe fn gather(start: &mut [u8; HEADER_LEN], sent: usize, parts: *const iovec, count: usize) -> usize {
    let wanted = HEADER_LEN.min(sent);
    let mut have = 0;
    for index in 0..count {
        if have == wanted {
            break;
        }
        // SAFETY: index < count.
        let part = unsafe { &*parts.add(index) };
        let len = part.iov_len.min(wanted - have);
        if len == 0 {
            // Such a part may have any pointer.
            continue;
        }
        if part.iov_base.is_null() {
            // A ring's bytes.
            break;
        }
        // SAFETY: have + len <= wanted <= the array's length, and these bytes are readable.
        unsafe { std::ptr::copy_nonoverlapping(part.iov_base.cast::<u8>(), start[have..].as_mut_ptr(), len) };
        have += len;
    }
    have
}

/// Refuses what AF_KEY would have refused (pfkeyd has dropped it), and waits for the answers of everything else.
#[cold]
fn finish(fd: c_int, sent: ssize_t, start: &[u8]) -> ssize_t {
    let refused = quiet(|| match check_framing_start(start, sent as usize) {
        Ok(()) => {
            settle(fd);
            None
        }
        Err(error) => Some(error.raw_os_error().unwrap_or(libc::EINVAL)),
    });
    match refused.flatten() {
        Some(errno) => {
            Errno::set_raw(errno);
            -1
        }
        None => sent,
    }
}
