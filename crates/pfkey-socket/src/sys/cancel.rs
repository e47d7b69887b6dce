//! Keeping a thread from being cancelled in the middle.
//!
//! A cancelled thread of glibc unwinds its stack through all frames: it would run the destructors of half-done work, and end
//! the process where Rust catches panics. So the thread cannot be cancelled while a body runs.

use std::ffi::c_int;
use std::mem::ManuallyDrop;

/// Miri has no cancellation.
#[cfg(miri)]
mod c {
    use std::ffi::c_int;

    pub(super) const fn pthread_testcancel() {}

    pub(super) const unsafe fn pthread_setcancelstate(_: c_int, _: *mut c_int) -> c_int {
        0
    }

    pub(super) const unsafe fn pthread_setcanceltype(_: c_int, _: *mut c_int) -> c_int {
        0
    }

    pub(super) const unsafe fn poll(_: *mut libc::pollfd, _: libc::nfds_t, _: c_int) -> c_int {
        0
    }
}

/// glibc and musl; the libc crate lacks them, or takes them for functions that cannot unwind.
#[cfg(not(miri))]
mod c {
    use std::ffi::c_int;

    unsafe extern "C-unwind" {
        pub(super) safe fn pthread_testcancel();
        pub(super) fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
        pub(super) fn pthread_setcanceltype(kind: c_int, before: *mut c_int) -> c_int;
        pub(super) fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    }
}

/// `PTHREAD_CANCEL_DISABLE`.
const DISABLE: c_int = 1;
/// `PTHREAD_CANCEL_DEFERRED`.
const DEFERRED: c_int = 0;

/// A cancellation point. The thread may end in it: its frames own nothing that has to be dropped.
#[inline(always)]
pub fn cancellation_point() {
    c::pthread_testcancel();
}

/// Runs `body`, in which the thread is not cancelled. It may be cancelled before and behind it, so that neither the body nor
/// what it gives has anything to drop, and the caller's frames have not either; nor do they catch panics. A frame that does
/// is one of the body's, and not inlined.
#[inline(always)]
pub fn uncancelled<T: Copy>(body: impl FnOnce() -> T) -> T {
    // A generic function does not know that, and would catch to drop the body.
    let body = ManuallyDrop::new(body);
    let (mut state, mut kind) = (DISABLE, DEFERRED);
    // SAFETY: a live variable takes the type of before.
    let deferred = unsafe { c::pthread_setcanceltype(DEFERRED, &raw mut kind) } == 0;
    let asynchronous = deferred && kind != DEFERRED;
    if asynchronous {
        // glibc cancels such a thread by a signal. One that is under way already would still end it when the body makes a
        // system call that is a cancellation point: up to 2.36 `sigcancel_handler` looks at the type, which such a call
        // sets, and not at the state. And such a call does not return before the signal has come
        // (`__pthread_disable_asynccancel`).
        // SAFETY: no descriptors.
        unsafe { c::poll(std::ptr::null_mut(), 0, 0) };
    }
    // SAFETY: a live variable takes the state of before.
    let disabled = unsafe { c::pthread_setcancelstate(DISABLE, &raw mut state) } == 0;
    let value = ManuallyDrop::into_inner(body)();
    if disabled {
        // SAFETY: the state of before; a null pointer is allowed, but not by every old C library.
        unsafe { c::pthread_setcancelstate(state, &raw mut state) };
    }
    if asynchronous {
        // SAFETY: the type of before.
        unsafe { c::pthread_setcanceltype(kind, &raw mut kind) };
    }
    value
}
