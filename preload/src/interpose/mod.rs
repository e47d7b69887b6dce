//! The functions of the C library that this object stands in front of.
//!
//! Each calls the next function of its name; what is added is added for PF_KEY alone:
//! - `socket(PF_KEY, ...)` opens a descriptor as `pfkey_open` does;
//! - `send`, `sendto`, `sendmsg`, `sendmmsg`, `write` and `writev` return, on a descriptor that a pfkeyd serves, when the
//!   answers wait there, as AF_KEY's do;
//! - `setsockopt` of IP_IPSEC_POLICY and IPV6_IPSEC_POLICY is translated for a kernel without AF_KEY.
//!
//! Where glibc has times of 32 bits, its headers give some of these other names in a program that is built with times of
//! 64 bits (`time64`); all of Debian 13's armhf is.
//!
//! Nothing is remembered: a descriptor is known by its name (`getsockname`), in whatever process it ended up. Nothing
//! is allocated but in opening. No Rust value with a destructor lives while a next function runs, and the functions
//! are "C-unwind": a thread may be cancelled in them, as in the C library's.
#![allow(unsafe_code)]
// The contract of each is that of the function it stands for.
#![allow(clippy::missing_safety_doc)]

mod answer;
mod next;
mod open;
mod quiet;
mod socket_policy;
#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
mod time64;

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// `AF_KEY`.
const AF_KEY: c_int = 15;

/// `socket(2)`, with PF_KEY wherever the library has a backend for it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if domain == AF_KEY { open::open(kind, protocol) } else { next::socket(domain, kind, protocol) }
}

/// `send(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn send(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::send(fd, buffer, len, flags) };
    // SAFETY: the kernel has read what it sent.
    unsafe { answer::after_send(fd, sent, buffer, len) }
}

/// `sendto(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::sendto(fd, buffer, len, flags, address, address_len) };
    // SAFETY: the kernel has read what it sent.
    unsafe { answer::after_send(fd, sent, buffer, len) }
}

/// `write(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::write(fd, buffer, len) };
    // SAFETY: a socket has read what it sent.
    unsafe { answer::after_write(fd, sent, buffer) }
}

/// `sendmsg(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::sendmsg(fd, message, flags) };
    // SAFETY: the kernel has read the header if it sent something.
    unsafe { answer::after_sendmsg(fd, sent, message) }
}

/// `sendmmsg(2)`; on a served descriptor each message is sent, and its answers waited for, before the next one is.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { answer::send_each(next::sendmmsg, fd, messages, count, flags) }
}

/// `writev(2)`; on a served descriptor it returns when the answers wait there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, unchanged.
    let sent = unsafe { next::writev(fd, parts, count) };
    // SAFETY: a socket has read the parts, and what it sent of them.
    unsafe { answer::after_write_parts(fd, sent, parts, usize::try_from(count).unwrap_or(0)) }
}

/// `setsockopt(2)`, with a socket's own IPsec policy in AF_KEY's form on a kernel without AF_KEY too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setsockopt(
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
        unsafe { next::setsockopt(fd, level, name, value, len) }
    }
}
