//! A process that becomes pfkeyd: cloned twice, so that it is nobody's child, then executed by descriptor.
//!
//! Between clone and exec there are raw system calls only, each checked, on memory that was prepared before: another
//! thread of the caller may hold any lock of the C library at that moment, and nothing there would ever release it.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::capability::{self, CapData, CapHeader};
use crate::error::Step;

/// Arguments that a pfkeyd is started with at most, and the null pointer behind them.
const ARGUMENTS: usize = 12;
/// Where pfkeyd finds the socket it serves, and the one that it answers on.
const SERVED: RawFd = 3;
const STATUS: RawFd = 4;
/// The kernel's signal set (`sigset_t` of 64 signals), all of them.
const ALL_SIGNALS: u64 = u64::MAX;

/// Starts the program behind `program` in a process that is not the caller's child: it gives no SIGCHLD and leaves no
/// zombie. It has descriptor 3, a new socket whose other end it sends over `handover`, and 4, the hand-over; /dev/null,
/// or a closed socket where there is none, as 0 to 2; and nothing else open. All signals are blocked. It has CAP_NET_ADMIN if
/// the caller has, and for uid 0 the right to give that up; it can gain no more.
///
/// What goes wrong in the new process is told on `handover`.
///
/// # Errors
/// Those of `clone`.
pub(crate) fn spawn_detached<'a>(
    program: BorrowedFd<'_>,
    arguments: impl Iterator<Item = &'a CStr>,
    handover: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut argv = [std::ptr::null(); ARGUMENTS];
    for (place, argument) in argv.iter_mut().take(ARGUMENTS - 1).zip(arguments) {
        *place = argument.as_ptr();
    }
    let start = Start { program: program.as_raw_fd(), handover: handover.as_raw_fd(), argv: &argv };
    let mut before = 0;
    // A handler of the caller's must not run in the new processes. Not by the C library, which spares its own signals.
    set_signal_mask(&ALL_SIGNALS, Some(&mut before))?;
    let middle = clone_process();
    if middle == 0 {
        // The middle process ends at once, so that its child belongs to init.
        match clone_process() {
            0 => start.become_pfkeyd(),
            inner if inner < 0 => start.tell(Step::Clone, errno_of(inner)),
            _ => {}
        }
        exit();
    }
    if middle > 0 {
        // Without an exit signal, and not of this thread only: __WALL. Another thread may have been first.
        while call(libc::SYS_wait4, [middle, 0, libc::__WALL as c_long, 0, 0, 0]) == -(libc::EINTR as c_long) {}
    }
    set_signal_mask(&before, None)?;
    if middle < 0 { Err(io::Error::from_raw_os_error(errno_of(middle))) } else { Ok(()) }
}

/// What came over the hand-over.
pub(crate) enum Handed {
    /// The client's end of the served socket.
    Descriptor(OwnedFd),
    /// The new process could not become pfkeyd.
    Failed(Step, i32),
    /// pfkeyd's word: 0, or why it does not serve.
    Serves(i32),
    /// It ended without a word.
    Ended,
    /// A signal interrupted.
    Nothing,
}

/// Space for one descriptor in a control message, aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// Receives what waits on the hand-over.
///
/// # Errors
/// Those of `recvmsg`.
pub(crate) fn receive_handed(fd: BorrowedFd<'_>) -> io::Result<Handed> {
    let mut bytes = [0_u8; 8];
    let mut control = Control([0; 32]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data, valid when zeroed.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the header names live buffers of these lengths.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) };
    // SAFETY: the kernel filled the control buffer as msg_controllen says; the macros stay inside it, and a header of
    // one descriptor has its four bytes: it was made for this receiver.
    let descriptor = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (n >= 0
            && !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize == libc::CMSG_LEN(4) as usize)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    };
    let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    Ok(match (n, descriptor) {
        (_, Some(fd)) => Handed::Descriptor(fd),
        (0, None) => Handed::Ended,
        (4, None) => Handed::Serves(number(0)),
        (8, None) => Handed::Failed(Step::from_number(number(0)), number(4)),
        (1.., None) => Handed::Failed(Step::HandOver, libc::EPROTO),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Handed::Nothing,
            error if error.raw_os_error() == Some(libc::ECONNRESET) => Handed::Ended,
            error => return Err(error),
        },
    })
}

/// A system call as the kernel answers it: a negated errno below 0. Nothing of the C library is involved but its
/// instruction, so that it is safe in any process, and errno is that of the caller.
fn call(number: c_long, a: [c_long; 6]) -> c_long {
    // SAFETY: `syscall` sets errno, a variable of this thread, and does nothing else but the call. Callers pass numbers, or
    // pointers to live memory of the lengths that the call reads or writes.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 { -c_long::from(nix::errno::Errno::last_raw()) } else { result }
}

fn errno_of(result: c_long) -> c_int {
    c_int::try_from(-result).unwrap_or(libc::EIO)
}

fn address<T>(value: &T) -> c_long {
    std::ptr::from_ref(value) as c_long
}

fn address_mut<T>(value: &mut T) -> c_long {
    std::ptr::from_mut(value) as c_long
}

/// fork without an exit signal, without atfork handlers, nothing shared.
fn clone_process() -> c_long {
    match call(libc::SYS_clone, [0; 6]) {
        // qemu's emulation of another processor's programs has the exit signal of fork only.
        error if error == -c_long::from(libc::EINVAL) => {
            // The stack comes first on s390x (CONFIG_CLONE_BACKWARDS2).
            let mut arguments = [0; 6];
            arguments[usize::from(cfg!(target_arch = "s390x"))] = libc::SIGCHLD.into();
            call(libc::SYS_clone, arguments)
        }
        done => done,
    }
}

fn exit() -> ! {
    loop {
        call(libc::SYS_exit_group, [0; 6]);
    }
}

fn set_signal_mask(mask: &u64, before: Option<&mut u64>) -> io::Result<()> {
    let before = before.map_or(0, address_mut);
    match call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK.into(), address(mask), before, 8, 0, 0]) {
        error if error < 0 => Err(io::Error::from_raw_os_error(errno_of(error))),
        _ => Ok(()),
    }
}

/// What failed, and its errno.
type Outcome<T> = Result<T, (Step, c_int)>;

fn checked(step: Step, result: c_long) -> Outcome<c_long> {
    if result < 0 { Err((step, errno_of(result))) } else { Ok(result) }
}

/// What the new process needs, all of it prepared.
struct Start<'a> {
    program: RawFd,
    handover: RawFd,
    argv: &'a [*const c_char; ARGUMENTS],
}

impl Start<'_> {
    /// The new process up to its exec.
    fn become_pfkeyd(&self) -> ! {
        if let Err((step, errno)) = self.try_become() {
            self.tell(step, errno);
        }
        exit()
    }

    /// Tells the caller what failed. The hand-over has this number, or 4 after it was moved.
    fn tell(&self, step: Step, errno: c_int) {
        let message = [step as c_int, errno];
        let flags = c_long::from(libc::MSG_NOSIGNAL);
        for fd in [self.handover, STATUS] {
            if call(libc::SYS_sendto, [fd.into(), address(&message), 8, flags, 0, 0]) == 8 {
                return;
            }
        }
    }

    fn try_become(&self) -> Outcome<()> {
        // Of no terminal and no session of the caller's.
        checked(Step::Session, call(libc::SYS_setsid, [0; 6]))?;
        let open_below = raise_limits();
        // Out of the way of the numbers that pfkeyd is to have.
        let above = |fd: RawFd| {
            let args = [fd.into(), libc::F_DUPFD_CLOEXEC.into(), c_long::from(STATUS) + 1, 0, 0, 0];
            checked(Step::Descriptors, call(libc::SYS_fcntl, args))
        };
        let (program, handover) = (above(self.program)?, above(self.handover)?);
        close_all_but(program.min(handover), program.max(handover), open_below);
        standard_streams()?;
        let mut pair = [0 as c_int; 2];
        let kind = libc::SOCK_SEQPACKET.into();
        let args = [libc::AF_UNIX.into(), kind, 0, address_mut(&mut pair), 0, 0];
        checked(Step::Descriptors, call(libc::SYS_socketpair, args))?;
        if pair != [SERVED, STATUS] {
            return Err((Step::Descriptors, libc::EBADF));
        }
        send_descriptor(handover, pair[1])?;
        checked(Step::Descriptors, call(libc::SYS_dup3, [handover, STATUS.into(), 0, 0, 0, 0]))?;
        // Which only its owner may lower, and it says nothing if it may not.
        spare_from_oom_killer();
        hand_on_rights()?;
        // A directory of the caller's must not stay busy.
        checked(Step::Directory, call(libc::SYS_chdir, [c"/".as_ptr() as c_long, 0, 0, 0, 0, 0]))?;
        let envp: [*const c_char; 1] = [std::ptr::null()];
        let args = [
            program,
            c"".as_ptr() as c_long,
            self.argv.as_ptr() as c_long,
            envp.as_ptr() as c_long,
            libc::AT_EMPTY_PATH.into(),
            0,
        ];
        let mut executed = call(libc::SYS_execveat, args);
        // A program of another processor is run by an interpreter (binfmt_misc), which needs the descriptor.
        if executed == -c_long::from(libc::ENOENT) {
            checked(Step::Exec, call(libc::SYS_fcntl, [program, libc::F_SETFD.into(), 0, 0, 0, 0]))?;
            executed = call(libc::SYS_execveat, args);
        }
        checked(Step::Exec, executed).map(|_| ())
    }
}

/// Sets the soft limits to the hard ones: those of the caller were not meant for pfkeyd. Gives a number above that of
/// any open descriptor.
fn raise_limits() -> c_long {
    let mut open_below = 1024;
    for resource in 0..16 {
        let mut limit = [0_u64; 2];
        if call(libc::SYS_prlimit64, [0, resource, 0, address_mut(&mut limit), 0, 0]) < 0 {
            continue;
        }
        if resource == libc::RLIMIT_NOFILE as c_long {
            open_below = c_long::try_from(limit[0]).unwrap_or(c_long::MAX).clamp(1024, 1 << 20);
            raise_above(resource, limit[1].max(1024));
        }
        // Of the user that pfkeyd becomes; the caller's processes do not count there, other pfkeyds do.
        if resource == libc::RLIMIT_NPROC as c_long {
            raise_above(resource, u64::MAX);
        }
        if call(libc::SYS_prlimit64, [0, resource, 0, address_mut(&mut limit), 0, 0]) == 0 {
            let raised = [limit[1]; 2];
            // May fail: then it stays.
            call(libc::SYS_prlimit64, [0, resource, address(&raised), 0, 0, 0]);
        }
    }
    open_below
}

/// Sets both limits, which takes CAP_SYS_RESOURCE and is no loss without.
fn raise_above(resource: c_long, limit: u64) {
    call(libc::SYS_prlimit64, [0, resource, address(&[limit; 2]), 0, 0, 0]);
}

/// Closes every descriptor but two.
fn close_all_but(low: c_long, high: c_long, open_below: c_long) {
    let ranges = [(0, low - 1), (low + 1, high - 1), (high + 1, c_long::from(c_int::MAX))];
    for (first, last) in ranges {
        if first > last || call(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) == 0 {
            continue;
        }
        // Linux before 5.9, or a seccomp filter that does not know the call.
        for fd in first..last.min(open_below) {
            call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
        }
        if last < open_below {
            call(libc::SYS_close, [last, 0, 0, 0, 0, 0]);
        }
    }
}

/// Descriptors 0 to 2 where nothing is open below 5. In a chroot there may be no /dev/null: a socket whose peer is
/// closed reads as empty and takes nothing, too.
fn standard_streams() -> Outcome<()> {
    let path = c"/dev/null".as_ptr() as c_long;
    let opened = call(libc::SYS_openat, [libc::AT_FDCWD.into(), path, libc::O_RDWR.into(), 0, 0, 0]);
    if opened < 0 {
        let mut pair = [0 as c_int; 2];
        let args = [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, address_mut(&mut pair), 0, 0];
        checked(Step::Descriptors, call(libc::SYS_socketpair, args))?;
        call(libc::SYS_close, [pair[1].into(), 0, 0, 0, 0, 0]);
    }
    for fd in 1..3 {
        checked(Step::Descriptors, call(libc::SYS_dup3, [0, fd, 0, 0, 0, 0]))?;
    }
    Ok(())
}

/// Sends a descriptor with one byte.
fn send_descriptor(to: c_long, fd: RawFd) -> Outcome<()> {
    let byte = 0_u8;
    let mut control = Control([0; 32]);
    let mut part = libc::iovec { iov_base: std::ptr::from_ref(&byte).cast_mut().cast::<c_void>(), iov_len: 1 };
    // SAFETY: msghdr is plain data, valid when zeroed; the macros stay inside the control buffer, which has room for
    // one descriptor and is aligned for the header.
    let message = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        message
    };
    let args = [to, address(&message), libc::MSG_NOSIGNAL.into(), 0, 0, 0];
    checked(Step::HandOver, call(libc::SYS_sendmsg, args)).map(|_| ())
}

/// AF_KEY cannot die, and a daemon without its descriptor can do nothing: other processes first. Where it may not be
/// lowered it stays the caller's.
fn spare_from_oom_killer() {
    let path = c"/proc/self/oom_score_adj".as_ptr() as c_long;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD.into(), path, libc::O_WRONLY.into(), 0, 0, 0]);
    if fd >= 0 {
        let score = b"-900";
        call(libc::SYS_write, [fd, score.as_ptr() as c_long, score.len() as c_long, 0, 0, 0]);
        call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
    }
}

/// What pfkeyd may do: no more than the caller, and of that the least. With no_new_privs an exec by uid 0 does not give
/// back what was dropped (`cap_bprm_creds_from_file`).
fn hand_on_rights() -> Outcome<()> {
    checked(Step::Rights, call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS.into(), 1, 0, 0, 0, 0]))?;
    let mut header = CapHeader::own();
    let mut data = [CapData::default(); 2];
    checked(Step::Rights, call(libc::SYS_capget, [address_mut(&mut header), address_mut(&mut data), 0, 0, 0, 0]))?;
    let kept = data[0].permitted & (capability::NET_ADMIN | capability::SETUID | capability::SETGID);
    let inheritable = kept & capability::NET_ADMIN;
    data = [CapData { effective: kept, permitted: kept, inheritable }, CapData::default()];
    checked(Step::Rights, call(libc::SYS_capset, [address_mut(&mut header), address(&data), 0, 0, 0, 0]))?;
    // Before Linux 4.3 there are no ambient capabilities, and a seccomp filter may not know of them: uid 0 needs none.
    let ambient = |operation: c_int, capability: c_long| {
        call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT.into(), operation.into(), capability, 0, 0, 0])
    };
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0);
    if inheritable != 0 {
        ambient(libc::PR_CAP_AMBIENT_RAISE, capability::NET_ADMIN_NUMBER as c_long);
    }
    Ok(())
}
