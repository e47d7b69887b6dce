//! `setsockopt` of a socket's own policy, on the program's own socket.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use pfkey_model::socket_policy::{IP_IPSEC_POLICY, IPV6_IPSEC_POLICY, MAX_VALUE, XFRM_AFTER_IPSEC, translate};

use super::program::Program;
use super::rights::may_administer;
use super::sys::{self, Listener};

/// Sets it as XFRM's option; none if the kernel is to decide, as it would without us.
///
/// # Errors
/// Those of AF_KEY's option.
pub fn set(
    listener: &Listener,
    id: u64,
    program: &Program,
    (fd, v6): (RawFd, bool),
    (at, len): (u64, i32),
) -> Result<Option<()>, Errno> {
    let Some(len) = usize::try_from(len).ok().filter(|len| (1..=MAX_VALUE).contains(len)) else { return Ok(None) };
    let Ok(socket) = program.socket(fd) else { return Ok(None) };
    // Other families do not look at the value.
    let is_internet = getsockname::<SockaddrStorage>(socket.as_raw_fd())
        .is_ok_and(|name| matches!(name.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)));
    let Ok(network) = sys::namespace_of_socket(socket.as_fd()) else { return Ok(None) };
    // The kernel would ask this process, which may more than the program.
    if !is_internet || !may_administer(program.thread, network.as_fd()).unwrap_or(false) {
        return Ok(None);
    }
    let mut value = vec![0; len];
    match program.read(at, &mut value) {
        Err(Errno::EFAULT) => return Err(Errno::EFAULT),
        Err(_) => return Ok(None),
        Ok(()) => {}
    }
    if !listener.is_valid(id) {
        return Ok(None);
    }
    let (level, name) = if v6 { (libc::IPPROTO_IPV6, IPV6_IPSEC_POLICY) } else { (libc::IPPROTO_IP, IP_IPSEC_POLICY) };
    // The kernel asks everyone who can compile policies. Without AF_KEY nobody knows this option (EOPNOTSUPP), and
    // before XFRM's module is there, nobody is there (EINVAL). What AF_KEY refuses is refused below too.
    match sys::set_option(socket.as_fd(), level, name, &value) {
        Err(Errno::EOPNOTSUPP | Errno::EINVAL) => {}
        other => return other.map(Some),
    }
    let policy = translate(&value, v6, new_reqid).map_err(|errno| Errno::from_raw(errno.to_raw()))?;
    // A socket of XFRM's loads its module.
    let _ = pfkey_socket::try_xfrm();
    sys::set_option(socket.as_fd(), level, name + XFRM_AFTER_IPSEC, policy.as_bytes()).map(Some)
}

/// A reqid for level unique. The kernel counts up and skips those in use; from here, drawing one of two thousand
/// million is as good and needs no list.
fn new_reqid() -> Option<u32> {
    // Above IPSEC_MANUAL_REQID_MAX, and positive as an int.
    sys::random().map(|number| (number & 0x7fff_ffff) | 0x4000)
}
