//! The system calls of this crate that nix does not wrap, or not safely enough for borrowed numbers.
#![allow(unsafe_code)]

pub mod cancel;
mod capability;
mod headers;
mod interface;
pub(super) mod meet;
pub(super) mod spawn;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub(super) use capability::has_net_admin;
pub use capability::{become_unprivileged, drop_capabilities, thread_has_net_admin};
pub use headers::{Headers, REPORT_LEN};
pub use interface::{INTERFACE_NAME, interface_name};

unsafe extern "C" {
    /// glibc and musl; the libc crate lacks it.
    #[link_name = "secure_getenv"]
    fn secure_getenv_raw(name: *const libc::c_char) -> *const libc::c_char;
}

/// `AF_KEY`.
const AF_KEY: libc::c_int = 15;
/// `PF_KEY_V2`.
const PF_KEY_V2: libc::c_int = 2;

/// What a system call gave that returns a new descriptor, or -1 and errno.
///
/// # Safety
/// `returned` is such a result, and nobody else has taken it.
unsafe fn new_descriptor(returned: RawFd) -> io::Result<OwnedFd> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system call just made it for its caller.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

/// What has this number; EBADF if nothing. In numbers of 64 bits on every processor: those of 32 that nix has on some fail for a
/// file whose inode has more.
///
/// # Errors
/// Those of `fstat`.
pub(super) fn status(fd: RawFd) -> io::Result<libc::stat64> {
    // SAFETY: stat is plain data, valid when zeroed.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: a live buffer; a number that is not open gives EBADF.
    match unsafe { libc::fstat64(fd, &raw mut stat) } {
        0 => Ok(stat),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Device and inode of whatever has this number; `None` if nothing has. A socket's is its own.
#[must_use]
pub fn file_behind(fd: RawFd) -> Option<(u64, u64)> {
    status(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// A copy of whatever has this number, at the lowest that is free; closed over the next exec.
///
/// # Errors
/// Those of `fcntl`: EBADF if it is not open.
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    duplicate_from(fd, 0)
}

/// As [`duplicate`], at the lowest number that is free from `least` on.
///
/// # Errors
/// As [`duplicate`].
pub(super) fn duplicate_from(fd: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the copy is this caller's.
    unsafe { new_descriptor(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least)) }
}

/// Takes ownership of a descriptor that this process inherited by number; it is closed over the next exec.
///
/// # Errors
/// EBADF if it is not open.
///
/// # Safety
/// If it is open, nothing else in this process owns it.
pub unsafe fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and nobody's, as the caller says.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `socket(PF_KEY, SOCK_RAW, PF_KEY_V2)` with the caller's flags (`SOCK_CLOEXEC`, `SOCK_NONBLOCK`). It is the kernel
/// that is asked: the C library's `socket` may be the preload object's, which comes back here.
pub(super) fn af_key_socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the socket is this caller's.
    unsafe { new_descriptor(libc::syscall(libc::SYS_socket, AF_KEY, libc::SOCK_RAW | flags, PF_KEY_V2) as RawFd) }
}

/// Whether this process can open an AF_KEY socket.
///
/// # Errors
/// That of `socket`: EAFNOSUPPORT or EPROTONOSUPPORT where the kernel has no AF_KEY.
pub fn try_af_key() -> io::Result<()> {
    af_key_socket(libc::SOCK_CLOEXEC).map(drop)
}

/// Whether this process can open `NETLINK_XFRM`, which the `xfrm` backend speaks.
///
/// # Errors
/// That of `socket`: EPROTONOSUPPORT where the kernel is built without XFRM_USER. On x86 EOPNOTSUPP where a 64-bit kernel without
/// XFRM_USER_COMPAT has such sockets for 32-bit programs, too, and does nothing that they ask for; it says so to those who may ask.
pub fn try_xfrm() -> io::Result<()> {
    if cfg!(target_arch = "x86") {
        let fd = meet::primed_socket()?;
        let mut answer = [0_u8; 64];
        // SAFETY: the pointer and length are those of a live array.
        let len = unsafe { libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), libc::MSG_DONTWAIT) };
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        // Behind `struct nlmsghdr`: the errno, negative.
        let refused = answer[16..20] == (-libc::EOPNOTSUPP).to_ne_bytes();
        return if refused { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) } else { Ok(()) };
    }
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the socket is this caller's.
    unsafe { new_descriptor(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_XFRM)) }.map(drop)
}

/// Whether a program file gives capabilities to who executes it (capabilities(7)). False where that cannot be asked.
#[must_use]
pub fn has_file_capabilities(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the name ends with a NUL; no value is written where its length is 0.
    let len = unsafe { libc::fgetxattr(file.as_raw_fd(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) };
    len > 0
}

/// Takes the next connection of a listening socket; it is closed over the next exec.
///
/// # Errors
/// Those of `accept4`.
pub fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let raw = nix::sys::socket::accept4(listener.as_raw_fd(), nix::sys::socket::SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `send` without SIGPIPE.
pub(super) fn send(fd: RawFd, message: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live slice.
    let n = unsafe { libc::send(fd, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Whether `getsockname` of an AF_UNIX socket begins with `prefix`. False for anything else; errno is kept.
pub(super) fn has_name_prefix(fd: RawFd, prefix: &[u8]) -> bool {
    // SAFETY: sockaddr_un is plain data, valid when zeroed.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the address buffer has the length that is passed.
    let status = unsafe { libc::getsockname(fd, (&raw mut name).cast(), &raw mut len) };
    nix::errno::Errno::set_raw(errno);
    status == 0
        && libc::c_int::from(name.sun_family) == libc::AF_UNIX
        && len as usize >= size_of::<libc::sa_family_t>() + prefix.len()
        && name.sun_path.iter().zip(prefix).all(|(a, b)| *a as u8 == *b)
}

/// An option of a socket that is an integer; errno is kept.
fn integer_option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the pointer is that of a live integer of the length that is passed.
    let status = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    nix::errno::Errno::set_raw(errno);
    (status == 0).then_some(value)
}

/// Whether it is an AF_KEY socket; errno is kept.
pub(super) fn is_af_key(fd: RawFd) -> bool {
    integer_option(fd, libc::SO_DOMAIN) == Some(AF_KEY)
}

/// Whether it is a socket of whole messages in order; errno is kept.
pub(super) fn is_seqpacket(fd: RawFd) -> bool {
    integer_option(fd, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)
}

/// The uid of who made a socket's peer (`SO_PEERCRED`: of a pair, who made it; of a connection, who listens); errno is kept.
pub(super) fn peer_uid(fd: RawFd) -> Option<libc::uid_t> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the pointer is that of a live value of the length that is passed.
    let status =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len) };
    nix::errno::Errno::set_raw(errno);
    (status == 0).then_some(peer.uid)
}

/// Closes a descriptor. A number that is not open is no error, as it is none to libipsec.
///
/// # Safety
/// If it is open, nothing else in this process owns it.
pub unsafe fn close(fd: RawFd) {
    super::opened::forget(fd);
    let _ = nix::unistd::close(fd);
}

/// Whether two sockets are of the same network namespace (`SO_NETNS_COOKIE`, Linux 5.14); false if that is not known.
pub fn same_namespace(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let cookie = |fd: BorrowedFd<'_>| {
        let mut cookie = 0_u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the pointer is that of a live integer of the length that is passed.
        let status = unsafe {
            let name = libc::SO_NETNS_COOKIE;
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut cookie).cast(), &raw mut len)
        };
        (status == 0).then_some(cookie)
    };
    cookie(a).is_some_and(|a| cookie(b) == Some(a))
}

/// Makes the calling thread another user's, and no other thread.
#[cfg(test)]
pub(super) fn become_in_this_thread(uid: libc::uid_t) {
    // SAFETY: no pointers. The C library's function would change every thread.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, 0);
}

/// What is charged for that which was sent and not yet consumed by the peer (`SIOCOUTQ`); 0 when that cannot be asked. errno
/// is kept.
fn unread_output_of(fd: RawFd) -> usize {
    let mut unread: libc::c_int = 0;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int.
    let status = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut unread) };
    nix::errno::Errno::set_raw(errno);
    if status == 0 { usize::try_from(unread).unwrap_or(0) } else { 0 }
}

/// What is charged (`SO_SNDBUF` is the most) for messages that the peer has not received; 0 when that cannot be asked.
#[must_use]
pub fn unread_output(fd: BorrowedFd<'_>) -> usize {
    unread_output_of(fd.as_raw_fd())
}

/// Whether something that was sent has not been consumed by the peer; false when that cannot be asked. errno is kept.
pub(super) fn has_unread_output(fd: RawFd) -> bool {
    // A buffer is charged hundreds of bytes. While the peer frees one, the kernel wakes its sender with one byte of the
    // charge left (`sock_wfree`), and wakes nobody when that goes.
    unread_output_of(fd) > 1
}

/// Sleeps until the peer has consumed everything or is gone, `limit` at most. errno is kept.
///
/// A socket tells its waiters each time that a buffer of its was consumed (`unix_write_space`), though it was writable
/// all the time: epoll, edge-triggered, hears it.
pub(super) fn wait_consumed(fd: RawFd, limit: Duration) {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the descriptor is not negative, as SIOCOUTQ worked on it; it is used within this call, and one that is
    // closed meanwhile gives EBADF.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let end = Instant::now() + limit;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        .ok()
        .filter(|epoll| epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, 0)).is_ok());
    while has_unread_output(fd) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let gone = match &epoll {
            Some(epoll) => {
                let mut events = [EpollEvent::empty()];
                let timeout = EpollTimeout::try_from(left.as_millis().max(1) as i32).unwrap_or(EpollTimeout::ZERO);
                let woken = epoll.wait(&mut events, timeout).is_ok_and(|n| n > 0);
                woken && events[0].events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
            }
            // No descriptor is left for it.
            None => nap_or_hangup(fd, left.min(Duration::from_millis(1))),
        };
        if gone {
            break;
        }
    }
    nix::errno::Errno::set_raw(errno);
}

/// Sleeps up to `nap`, or until the peer hangs up; says whether it did.
fn nap_or_hangup(fd: RawFd, nap: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    let time = libc::timespec { tv_sec: 0, tv_nsec: nap.subsec_nanos() as _ };
    // SAFETY: one pollfd, a live timespec, no signal mask.
    let n = unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) };
    n > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// Hands `look` an environment variable's value; none in a program that runs with more rights than its caller.
pub(super) fn with_secure_env<R>(name: &CStr, look: impl FnOnce(Option<&[u8]>) -> R) -> R {
    // SAFETY: a NUL-terminated name; the value is looked at at once.
    let value = unsafe { secure_getenv_raw(name.as_ptr()) };
    // SAFETY: NUL-terminated where it is not null.
    look((!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes()))
}

/// Whether this program runs with more rights than its caller (`AT_SECURE`).
pub(super) fn is_at_secure() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the next process that this thread starts is the first of a pid namespace: it has asked for a new one, and
/// nobody is in it yet. Its end would be the end of the namespace.
pub(super) fn next_child_is_init() -> bool {
    let inode = |path: &CStr| nix::sys::stat::stat(path).map(|stat| stat.st_ino);
    // The kernel does not open a namespace that nobody is in (`pidns_for_children_get`).
    inode(c"/proc/thread-self/ns/pid").is_ok() && inode(c"/proc/thread-self/ns/pid_for_children").is_err()
}
