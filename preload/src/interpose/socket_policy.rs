//! `setsockopt` of a socket's own IPsec policy, which is part of AF_KEY, by XFRM's option.

use libc::{c_int, c_void, socklen_t};
use nix::errno::Errno;

use super::next;
use super::quiet::quiet;
use crate::model::socket_policy::{IP_IPSEC_POLICY, IPV6_IPSEC_POLICY, MAX_VALUE, XFRM_AFTER_IPSEC, translate};

/// `NETLINK_XFRM`.
const NETLINK_XFRM: c_int = 6;

/// Whether this is the option.
#[inline]
pub(super) fn is_policy(level: c_int, name: c_int) -> bool {
    (level == libc::IPPROTO_IP && name == IP_IPSEC_POLICY) || (level == libc::IPPROTO_IPV6 && name == IPV6_IPSEC_POLICY)
}

/// Sets the option: by the kernel's AF_KEY where there is one, as XFRM's option otherwise.
///
/// # Safety
/// As `setsockopt`.
pub(super) unsafe fn set(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
    let errno = Errno::last_raw();
    // SAFETY: the caller's arguments.
    let status = unsafe { next::setsockopt(fd, level, name, value, len) };
    // The kernel asks everyone who can compile policies. Without AF_KEY nobody knows this option (EOPNOTSUPP), and
    // before XFRM's module is there, nobody is there (EINVAL). What AF_KEY refuses is refused below too.
    if status == 0 || !matches!(Errno::last_raw(), libc::EOPNOTSUPP | libc::EINVAL) {
        return status;
    }
    let len = len as usize;
    if value.is_null() || !(1..=MAX_VALUE).contains(&len) || !is_internet(fd) {
        return status;
    }
    // SAFETY: the sockets of these families copy the value before they give either of these errors.
    let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) };
    let v6 = level == libc::IPPROTO_IPV6;
    match quiet(|| translate(bytes, v6, new_reqid)) {
        Some(Ok(policy)) => {
            quiet(load_xfrm);
            let value = policy.as_bytes();
            // SAFETY: the pointer and the length are those of a live slice.
            let status = unsafe {
                next::setsockopt(fd, level, name + XFRM_AFTER_IPSEC, value.as_ptr().cast(), value.len() as socklen_t)
            };
            if status == 0 {
                Errno::set_raw(errno);
            }
            status
        }
        Some(Err(refused)) => {
            Errno::set_raw(refused.to_raw());
            -1
        }
        None => status,
    }
}

/// Whether it is an AF_INET or AF_INET6 socket; others do not look at the value. errno is kept.
fn is_internet(fd: c_int) -> bool {
    let errno = Errno::last_raw();
    let mut domain: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer is that of a live integer of the length that is passed.
    let status =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len) };
    Errno::set_raw(errno);
    status == 0 && matches!(domain, libc::AF_INET | libc::AF_INET6)
}

/// A socket of XFRM's loads its module.
fn load_xfrm() {
    let fd = next::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_XFRM);
    if fd >= 0 {
        // SAFETY: just opened, nobody else's.
        unsafe { libc::close(fd) };
    }
}

/// A reqid for level unique. The kernel counts up and skips those in use; from here, drawing one of two thousand
/// million is as good and needs no list.
fn new_reqid() -> Option<u32> {
    let mut bytes = [0; 4];
    // SAFETY: four bytes of a live array.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Above IPSEC_MANUAL_REQID_MAX, and positive as an int.
    (n == 4).then(|| (u32::from_ne_bytes(bytes) & 0x7fff_ffff) | 0x4000)
}
