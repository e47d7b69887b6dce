//! The supervisor's system calls that nix does not wrap: seccomp's notifications (`linux/seccomp.h`), another process's
//! descriptors and namespaces (`linux/nsfs.h`), a socket option as bytes.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

/// `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemCall {
    pub number: i32,
    pub architecture: u32,
    instruction_pointer: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Notification {
    pub id: u64,
    /// The thread that waits, in this process's pid namespace; 0 if it is not there.
    pid: u32,
    flags: u32,
    pub call: SystemCall,
}

impl Notification {
    /// The thread that waits; none if this process cannot see it.
    pub fn thread(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw)
    }
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// An `ioctl`'s number: direction (1 written, 2 read), size of what the argument points to.
const fn ioctl_number(direction: c_ulong, kind: u8, number: c_ulong, size: usize) -> c_ulong {
    direction << 30 | (size as c_ulong) << 16 | (kind as c_ulong) << 8 | number
}

const RECEIVE: c_ulong = ioctl_number(3, b'!', 0, size_of::<Notification>());
const SEND: c_ulong = ioctl_number(3, b'!', 1, size_of::<Response>());
const ID_VALID: c_ulong = ioctl_number(1, b'!', 2, size_of::<u64>());
const ADD_FD: c_ulong = ioctl_number(1, b'!', 3, size_of::<AddFd>());
const SET_FLAGS: c_ulong = ioctl_number(1, b'!', 4, size_of::<u64>());
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, Linux 6.6.
const SYNC_WAKE_UP: c_ulong = 1;
/// `NS_GET_USERNS`, `NS_GET_PARENT`.
const GET_USER_NAMESPACE: c_ulong = ioctl_number(0, 0xb7, 1, 0);
const GET_PARENT: c_ulong = ioctl_number(0, 0xb7, 2, 0);
/// `SIOCGSKNS`.
const GET_SOCKETS_NAMESPACE: c_ulong = 0x894c;
/// `PIDFD_THREAD`, Linux 6.9.
const PIDFD_THREAD: c_int = libc::O_EXCL;
/// `PR_SET_PTRACER`.
const SET_PTRACER: c_int = 0x5961_6d61;

/// What a system call gave that returns a new descriptor, or -1 and errno.
fn new_descriptor(returned: c_long) -> nix::Result<OwnedFd> {
    let raw = RawFd::try_from(Errno::result(returned)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn ioctl(fd: BorrowedFd<'_>, number: c_ulong, argument: *mut c_void) -> nix::Result<c_int> {
    // SAFETY: private to this file, whose callers pass what the number says: a live structure of its size, or null.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), number as _, argument) })
}

/// Where the kernel tells of the system calls that a filter picks.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Installs a filter for this thread and what it executes.
    ///
    /// # Errors
    /// EACCES without no_new_privs and without CAP_SYS_ADMIN in the user namespace; EBUSY under another listener.
    pub fn install(filter: &[libc::sock_filter]) -> nix::Result<Self> {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?,
            filter: filter.as_ptr().cast_mut(),
        };
        let install = |flags: c_ulong| {
            // SAFETY: the program names live statements, which the kernel copies and does not change.
            new_descriptor(unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
            })
        };
        // A signal would make the call begin anew, and a request be done twice. Before Linux 5.19 that cannot be helped.
        let once = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        match install(once) {
            Err(Errno::EINVAL) => install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
            other => other,
        }
        .map(Self)
    }

    /// A descriptor that came from elsewhere.
    ///
    /// # Errors
    /// EINVAL if it is no listener; EOPNOTSUPP if descriptors cannot be given over it (before Linux 5.14).
    pub fn new(fd: OwnedFd) -> nix::Result<Self> {
        let listener = Self(fd);
        // No notification has this number, so a listener knows none; anything else does not know the request.
        if listener.check(0) != Err(Errno::ENOENT) {
            return Err(Errno::EINVAL);
        }
        if listener.give(0, listener.as_fd(), None, 0) != Err(Errno::ENOENT) {
            return Err(Errno::EOPNOTSUPP);
        }
        // The waiting thread is woken on this processor. It works without.
        let _ = ioctl(listener.as_fd(), SET_FLAGS, SYNC_WAKE_UP as *mut c_void);
        Ok(listener)
    }

    /// The next notification.
    ///
    /// # Errors
    /// ENOENT if who made the call ended meanwhile.
    pub fn receive(&self) -> nix::Result<Notification> {
        // The kernel wants it zeroed.
        let mut notification = Notification::default();
        ioctl(self.as_fd(), RECEIVE, (&raw mut notification).cast())?;
        Ok(notification)
    }

    fn check(&self, mut id: u64) -> nix::Result<()> {
        ioctl(self.as_fd(), ID_VALID, (&raw mut id).cast()).map(drop)
    }

    /// Whether the thread that a notification names still waits: what was read of it before was its own.
    pub fn is_valid(&self, id: u64) -> bool {
        self.check(id).is_ok()
    }

    /// The system call's result. Nobody waits for it any more if this fails.
    pub fn respond(&self, id: u64, result: Result<i64, Errno>) {
        let (value, error) = match result {
            Ok(value) => (value, 0),
            Err(errno) => (0, -(errno as i32)),
        };
        let mut response = Response { id, value, error, flags: 0 };
        let _ = ioctl(self.as_fd(), SEND, (&raw mut response).cast());
    }

    /// The kernel does what was asked of it.
    pub fn go_on(&self, id: u64) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let mut response = Response { id, value: 0, error: 0, flags };
        let _ = ioctl(self.as_fd(), SEND, (&raw mut response).cast());
    }

    /// Gives the thread that waits a copy of a descriptor, which is its call's result: at this number, whatever was there, or
    /// at the lowest that is free.
    ///
    /// # Errors
    /// EBADF for a number beyond the limit; EMFILE; ENOENT if nobody waits any more.
    pub fn give(&self, id: u64, fd: BorrowedFd<'_>, number: Option<RawFd>, flags: c_int) -> nix::Result<()> {
        let set = if number.is_some() { libc::SECCOMP_ADDFD_FLAG_SETFD } else { 0 };
        let mut add = AddFd {
            id,
            flags: (set | libc::SECCOMP_ADDFD_FLAG_SEND) as u32,
            source: fd.as_raw_fd() as u32,
            number: number.unwrap_or(0) as u32,
            number_flags: flags as u32,
        };
        ioctl(self.as_fd(), ADD_FD, (&raw mut add).cast()).map(drop)
    }
}

/// A process, or a thread where the kernel can name one (Linux 6.9): elsewhere the process that it is of.
///
/// # Errors
/// Those of `pidfd_open`; ESRCH.
pub fn process(thread: Pid) -> nix::Result<OwnedFd> {
    let open = |pid: Pid, flags: c_int| {
        // SAFETY: no pointers.
        new_descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) })
    };
    open(thread, PIDFD_THREAD).or_else(|_| open(thread, 0)).or_else(|_| {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).map_err(|_| Errno::ESRCH)?;
        let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        open(Pid::from_raw(leader.ok_or(Errno::ESRCH)?), 0)
    })
}

/// Ends a process.
pub fn kill(process: BorrowedFd<'_>) {
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: no pointers but that one, which may be null.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, nothing, 0) };
}

/// A copy of a process's descriptor, close-on-exec.
///
/// # Errors
/// EBADF if it has none of this number; EPERM.
pub fn descriptor_of(process: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: no pointers.
    new_descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// The user namespace that a namespace belongs to.
///
/// # Errors
/// EPERM if this process has no right to know.
pub fn user_namespace_of(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    new_descriptor(ioctl(namespace, GET_USER_NAMESPACE, std::ptr::null_mut())?.into())
}

/// The namespace that a user namespace was made in.
///
/// # Errors
/// EPERM for the first, and if this process has no right to know.
pub fn parent_of(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    new_descriptor(ioctl(namespace, GET_PARENT, std::ptr::null_mut())?.into())
}

/// The network namespace of a socket.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over it.
pub fn namespace_of_socket(socket: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    new_descriptor(ioctl(socket, GET_SOCKETS_NAMESPACE, std::ptr::null_mut())?.into())
}

/// `setsockopt` with a value as it is.
///
/// # Errors
/// Those of `setsockopt`.
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> nix::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length are those of a live slice.
    let status = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    Errno::result(status).map(drop)
}

/// Writes into another process's memory.
///
/// # Errors
/// EFAULT if not all of it can be written; EPERM.
pub fn write_memory(thread: Pid, at: u64, bytes: &[u8]) -> nix::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let at = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
    let remote = libc::iovec { iov_base: at as *mut c_void, iov_len: bytes.len() };
    // SAFETY: the local part names a live slice, which is read; the other part is not of this process.
    let written = unsafe { libc::process_vm_writev(thread.as_raw(), &raw const local, 1, &raw const remote, 1, 0) };
    if Errno::result(written)? as usize == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Lets a process that is no ancestor read this one's memory, where Yama asks for that.
pub fn allow_reader(reader: Pid) {
    // SAFETY: no pointers. EINVAL without Yama.
    unsafe { libc::prctl(SET_PTRACER, reader.as_raw() as c_ulong, 0, 0, 0) };
}

/// A number that nobody can foresee.
pub fn random() -> Option<u32> {
    let mut bytes = [0; 4];
    // SAFETY: four bytes of a live array.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    (n == 4).then(|| u32::from_ne_bytes(bytes))
}

/// `socket(AF_KEY, …)` as programs call it.
///
/// # Errors
/// Those of `socket`.
pub fn af_key_socket() -> nix::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    new_descriptor(unsafe { libc::syscall(libc::SYS_socket, super::filter::AF_KEY, kind, 2) })
}

/// SIGPIPE as a program expects it; Rust's start has ignored it.
pub fn default_sigpipe() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Receives bytes, and descriptors that come with them; false at the end.
///
/// # Errors
/// Those of `recvmsg`.
pub fn receive(from: BorrowedFd<'_>, bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> nix::Result<bool> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 16]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made them for this process.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    let len = message.bytes;
    bytes.extend_from_slice(buffer.get(..len).unwrap_or_default());
    Ok(len > 0)
}
