//! What this process may still do: an unprivileged uid, CAP_NET_ADMIN at most, and the system calls of its loop.
#![allow(unsafe_code)]

use std::io;

use pfkey_socket::become_unprivileged;

use super::bpf::{ARCHITECTURE, ARCHITECTURE_AT, NUMBER_AT, give, jump_if_equal, load};

/// The uid and gid of a pfkeyd that was started by root. Debian's policy reserves it and nobody has it (65534, nobody, is
/// shared by many who could signal each other).
const UNPRIVILEGED: u32 = 65533;

/// What holds for the process.
#[derive(Clone, Copy, Debug)]
pub struct Confined {
    pub uid: u32,
    /// Only the system calls in [`ALLOWED`].
    pub filtered: bool,
}

impl std::fmt::Display for Confined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filter = if self.filtered { "a filter of system calls" } else { "no filter of system calls" };
        write!(f, "confined: uid {}, no capability but CAP_NET_ADMIN, no new privileges, {filter}", self.uid)
    }
}

/// Gives up what the loop does not need. With `filter` false system calls stay.
pub fn confine(filter: bool) -> io::Result<Confined> {
    nix::sys::prctl::set_no_new_privs()?;
    let uid = become_unprivileged(UNPRIVILEGED)?;
    // Keys are in this process's memory: no core dumps, no ptrace by others. Changing the uid sets it, too, or not.
    nix::sys::prctl::set_dumpable(false)?;
    Ok(Confined { uid, filtered: filter && install_filter()? })
}

/// The system calls of guardian, worker and standby: memory, their descriptors, sockets, time, processes like
/// themselves. Not among them: to open or execute anything, to trace, to mount, to change namespaces, keys, users.
const ALLOWED: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    #[cfg(target_pointer_width = "64")]
    libc::SYS_mmap,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_mmap2,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_fcntl64,
    libc::SYS_ioctl,
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    // Sockets. On x86 and s390x older C libraries call all of them by socketcall.
    #[cfg(any(target_arch = "x86", target_arch = "s390x"))]
    libc::SYS_socketcall,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    #[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // Signals and processes.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_getuid32,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_geteuid32,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_sigreturn,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_clone,
    // As musl does it where there is such a call; its raise() is tkill.
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    libc::SYS_fork,
    libc::SYS_tkill,
    libc::SYS_wait4,
    libc::SYS_prctl,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Those that take times, with 64 bits for them where C's `long` has 32: clock_gettime64, clock_nanosleep_time64, ppoll_time64,
/// recvmmsg_time64, futex_time64. Such processors share these numbers, which the crate libc lacks.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const WITH_TIMES: &[libc::c_long] = &[403, 407, 414, 417, 422];
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const WITH_TIMES: &[libc::c_long] = &[];

/// Everything else gets EPERM: a call that a future C library makes instead of one of these then fails and kills nobody.
fn program(architecture: u32) -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        jump_if_equal(architecture, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
    ];
    for number in ALLOWED.iter().chain(WITH_TIMES) {
        program.extend([jump_if_equal(*number as u32, 0, 1), give(libc::SECCOMP_RET_ALLOW)]);
    }
    program.push(give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    program
}

/// False where the kernel has no filters, or we do not know its name of this machine.
fn install_filter() -> io::Result<bool> {
    let Some(architecture) = ARCHITECTURE else { return Ok(false) };
    let mut program = program(architecture);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter names live statements, which the kernel copies.
    let status = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) };
    match io::Error::last_os_error() {
        _ if status == 0 => Ok(true),
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::child::fork_with;

    fn errno(result: libc::c_long) -> i32 {
        if result < 0 { nix::errno::Errno::last_raw() } else { 0 }
    }

    #[test]
    fn nothing_can_be_opened_or_executed() {
        let pid = fork_with(|| {
            let _ = nix::sys::prctl::set_no_new_privs();
            if !install_filter().unwrap_or(false) {
                return 77;
            }
            let path = c"/bin/sh".as_ptr();
            // SAFETY: calls that the filter refuses before the kernel looks at their arguments.
            let refused = unsafe {
                [
                    errno(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_RDONLY)),
                    errno(libc::syscall(libc::SYS_execve, path, 0, 0)),
                    errno(libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0)),
                    errno(libc::syscall(libc::SYS_unshare, 0)),
                    errno(libc::syscall(libc::SYS_setresuid, 0, 0, 0)),
                ]
            };
            u8::from(refused != [libc::EPERM; 5] || std::process::id() == 0)
        });
        match waitpid(pid.expect("fork"), None).expect("wait") {
            WaitStatus::Exited(_, 77) => println!("skipped: no filters of system calls here"),
            status => assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}"),
        }
    }
}
