//! Running our own code inside somebody else's call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::c_int;

unsafe extern "C" {
    /// glibc and musl; the libc crate lacks it.
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`.
const DISABLE: c_int = 1;

/// Runs `body` so that the caller notices nothing of it: errno is kept, the thread is not cancelled in the middle,
/// and a panic ends here and gives `None`.
pub(super) fn quiet<T>(body: impl FnOnce() -> T) -> Option<T> {
    let errno = nix::errno::Errno::last_raw();
    let mut before = DISABLE;
    // SAFETY: a live variable takes the state of before.
    let disabled = unsafe { pthread_setcancelstate(DISABLE, &raw mut before) } == 0;
    let value = catch_unwind(AssertUnwindSafe(body)).ok();
    if disabled {
        // SAFETY: the state of before; a null pointer is allowed, but not by every old C library.
        unsafe { pthread_setcancelstate(before, &raw mut before) };
    }
    nix::errno::Errno::set_raw(errno);
    value
}
