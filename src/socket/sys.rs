//! The system calls of this room that nix does not wrap, or not safely enough for borrowed numbers.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

unsafe extern "C" {
    /// glibc and musl; the libc crate lacks it.
    #[link_name = "secure_getenv"]
    fn secure_getenv_raw(name: *const libc::c_char) -> *const libc::c_char;
}

/// `AF_KEY`.
const AF_KEY: libc::c_int = 15;
/// `PF_KEY_V2`.
const PF_KEY_V2: libc::c_int = 2;

/// Takes ownership of a descriptor that a system call just gave.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the result of accept or socket, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes ownership of a descriptor that this process inherited by number; it is closed over the next exec.
///
/// # Errors
/// EBADF if it is not open.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(own(fd))
}

/// `socket(PF_KEY, SOCK_RAW, PF_KEY_V2)` with the caller's flags (`SOCK_CLOEXEC`, `SOCK_NONBLOCK`). It is the kernel
/// that is asked: the C library's `socket` may be the preload object's, which comes back here.
pub(super) fn af_key_socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_socket, AF_KEY, libc::SOCK_RAW | flags, PF_KEY_V2) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(own(fd as RawFd)) }
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
/// That of `socket`: EPROTONOSUPPORT where the kernel is built without XFRM_USER.
pub fn try_xfrm() -> io::Result<()> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_XFRM) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(own(fd));
    Ok(())
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

/// Whether it is an AF_KEY socket; errno is kept.
pub(super) fn is_af_key(fd: RawFd) -> bool {
    let mut domain: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the pointer is that of a live integer of the length that is passed.
    let status =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len) };
    nix::errno::Errno::set_raw(errno);
    status == 0 && domain == AF_KEY
}

/// Whether two sockets are of the same network namespace (`SO_NETNS_COOKIE`, Linux 5.14); false if that is not known.
pub(crate) fn same_namespace(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
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

/// Whether something that was sent has not been consumed by the peer (`SIOCOUTQ`); false when that cannot be
/// asked. errno is kept.
pub(super) fn has_unread_output(fd: RawFd) -> bool {
    let mut unread: libc::c_int = 0;
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int.
    let status = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut unread) };
    nix::errno::Errno::set_raw(errno);
    status == 0 && unread > 0
}

/// Sleeps up to `nap`, or until the peer hangs up; says whether it did. errno is kept.
pub(super) fn wait_hangup(fd: RawFd, nap: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    let time = libc::timespec { tv_sec: 0, tv_nsec: nap.subsec_nanos().into() };
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: one pollfd, a live timespec, no signal mask.
    let n = unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) };
    nix::errno::Errno::set_raw(errno);
    n > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// An environment variable, unless the program runs with more rights than its caller.
pub(crate) fn secure_getenv(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: a NUL-terminated name; the value is copied at once.
    let value = unsafe { secure_getenv_raw(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: not null, NUL-terminated.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
}

/// The file that contains this code: the shared object, or the program it is linked into.
pub(super) fn own_object() -> Option<PathBuf> {
    // SAFETY: Dl_info is plain data, valid when zeroed.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let here: fn() -> Option<PathBuf> = own_object;
    // SAFETY: any address may be asked for.
    let found = unsafe { libc::dladdr(here as *const libc::c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: not null, NUL-terminated, valid as long as the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    // A program's name is what it was called by; the kernel knows better.
    if path.is_absolute() { Some(path) } else { std::fs::read_link("/proc/self/exe").ok().or(Some(path)) }
}

/// Starts `program` with `argv` in a process that is not the caller's child: it gives no SIGCHLD and leaves no
/// zombie. It has `socket` as descriptor 3 and `status` as 4, /dev/null as 0 to 2, and nothing else open; all
/// signals are at their defaults and unblocked. If `program` cannot be executed, the errno is written to
/// `status` as a native i32.
pub(super) fn spawn_detached(program: &CStr, argv: &[CString], socket: RawFd, status: RawFd) -> io::Result<()> {
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: signal sets are plain data; sigprocmask gets valid pointers.
    let (all, mut before) = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        (all, std::mem::zeroed::<libc::sigset_t>())
    };
    // A handler of the caller's must not run in the new processes.
    // SAFETY: valid sets.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) };
    // SAFETY: clone without CLONE_VM copies the address space as fork does; the child calls only functions that are
    // safe after fork in a threaded process, on memory prepared above, and never returns.
    let middle = unsafe { clone_process() };
    if middle == 0 {
        // SAFETY: as above. The middle process ends at once, so that its child belongs to init.
        unsafe {
            let inner = clone_process();
            if inner == 0 {
                exec_helper(program, &pointers, &envp, socket, status);
            }
            if inner < 0 {
                report_errno(status);
            }
            libc::_exit(0);
        }
    }
    let result = if middle < 0 {
        Err(io::Error::last_os_error())
    } else {
        let pid = middle as libc::pid_t;
        // SAFETY: a null status pointer is allowed. __WALL: a process without an exit signal is waited for only so.
        while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
            && nix::errno::Errno::last() == nix::errno::Errno::EINTR
        {}
        Ok(())
    };
    // SAFETY: the mask of before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

/// fork without an exit signal and without atfork handlers.
unsafe fn clone_process() -> libc::c_long {
    // SAFETY: flags 0 and null pointers: the stack is copied, nothing is shared.
    unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) }
}

unsafe fn report_errno(status: RawFd) {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: four bytes of a live variable.
    unsafe { libc::write(status, (&raw const errno).cast(), size_of_val(&errno)) };
}

/// The new process up to its exec.
unsafe fn exec_helper(
    program: &CStr,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    socket: RawFd,
    status: RawFd,
) -> ! {
    // SAFETY: plain system calls on numbers and on memory that the parent prepared; all async-signal-safe.
    unsafe {
        libc::setsid();
        for signal in 1..65 {
            libc::signal(signal, libc::SIG_DFL);
        }
        // First out of the way of the numbers they are to have.
        let socket = libc::fcntl(socket, libc::F_DUPFD, 10);
        let status = libc::fcntl(status, libc::F_DUPFD, 10);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        libc::dup2(socket, 3);
        libc::dup2(status, 4);
        libc::syscall(libc::SYS_close_range, 5, libc::c_uint::MAX, 0);
        // A directory of the caller's must not stay busy.
        libc::chdir(c"/".as_ptr());
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        report_errno(4);
        libc::_exit(127)
    }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`: 32 capabilities each.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two `CapData`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// `1 << CAP_NET_ADMIN`.
const NET_ADMIN: u32 = 1 << 12;

/// Gives up every capability of the calling thread but CAP_NET_ADMIN, which it keeps if it has it.
///
/// # Errors
/// Those of `capget` and `capset`.
pub fn keep_only_net_admin() -> io::Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: the header names the version of which `data` is the form; both are live.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = data[0].permitted & NET_ADMIN;
    let data = [CapData { effective: kept, permitted: kept, inheritable: 0 }, CapData::default()];
    // SAFETY: as above; capset only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
