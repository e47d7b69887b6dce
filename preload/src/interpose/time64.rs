//! The functions that have other names in programs with times of 64 bits (`_TIME_BITS`, glibc 2.34), where glibc has times of
//! 32 bits. What is done is the same.

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, socklen_t, ssize_t};

use super::{answer, next, socket_policy};

/// `sendmsg(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __sendmsg64(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::sendmsg64(fd, message, flags) };
    // SAFETY: the kernel has read the header if it sent something.
    unsafe { answer::after_sendmsg(fd, sent, message) }
}

/// `sendmmsg(2)`; on a served descriptor each message is sent, and its answers waited for, before the next one is.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __sendmmsg64(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { answer::send_each(next::sendmmsg64, fd, messages, count, flags) }
}

/// `setsockopt(2)`, with a socket's own IPsec policy in AF_KEY's form on a kernel without AF_KEY too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __setsockopt64(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if socket_policy::is_policy(level, name) {
        // SAFETY: the caller's arguments.
        unsafe { socket_policy::set(fd, level, name, value, len) }
    } else {
        // SAFETY: the caller's arguments, unchanged.
        unsafe { next::setsockopt64(fd, level, name, value, len) }
    }
}
