//! Processes of this program that are forked and never execute anything else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::{ForkResult, Pid, fork};

/// Forks. `child` runs in the new process and gives its exit status.
pub fn fork_with(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: this program has one thread. A test's process has others; what its children do is system calls and
    // allocations, and the C library gives a fork's child an allocator that no lost thread holds.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => end(child()),
    }
}

/// Ends a forked process: nothing that its parent prepared for its own end is run or written twice.
pub fn end(status: u8) -> ! {
    // SAFETY: no pointers.
    unsafe { libc::_exit(status.into()) }
}

/// LeakSanitizer asks. Its look at the end of a process needs calls that the filter does not allow, and it would wait for ever;
/// no environment reaches a private pfkeyd that could say so.
#[cfg(sanitized)]
#[unsafe(no_mangle)]
pub extern "C" fn __lsan_is_turned_off() -> i32 {
    1
}

/// The ends of this process's children interest nobody.
pub fn forget_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Closes what a new process inherited, but for standard streams and `kept`. Whatever still owns one of the others must
/// never be dropped.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3).chain([u32::MAX]) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd.saturating_add(1);
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: no pointers; nobody uses these any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Linux before 5.9.
    let limit =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    for fd in first..=last.min(u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 20)) {
        // SAFETY: as above.
        unsafe { libc::close(fd as i32) };
    }
}

/// Ignores every signal that can be: what ends a daemon and everything of its unit at once must not end the daemon's
/// PF_KEY socket before the daemon has used it to delete its SAs; a kernel's cannot be ended. A fault of this process's
/// own kills it all the same.
pub fn ignore_signals() {
    // 32 and 33 are the C library's.
    for signal in (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // A child that is not waited for must not vanish before its status was read.
        if signal != libc::SIGCHLD {
            // SAFETY: no handler is installed. SIGKILL and SIGSTOP give EINVAL.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}
