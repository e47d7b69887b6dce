//! Running our own code inside somebody else's call.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::c_int;

unsafe extern "C-unwind" {
    /// glibc and musl; the libc crate lacks it. A thread whose cancellation is asynchronous may end in it.
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`.
const DISABLE: c_int = 1;

/// Runs `body` so that the caller notices nothing of it: errno is kept, the thread is not cancelled in the middle,
/// and a panic ends here and gives `None`. Neither the body nor what it gives has
/// anything to drop: a cancelled thread unwinds this frame.
pub(super) fn quiet<T: Copy>(body: impl FnOnce() -> T) -> Option<T> {
    // A generic function does not know that, and would catch to drop the body.
    let body = ManuallyDrop::new(body);
    let errno = nix::errno::Errno::last_raw();
    let mut before = DISABLE;
    // SAFETY: a live variable takes the state of before.
    let disabled = unsafe { pthread_setcancelstate(DISABLE, &raw mut before) } == 0;
    let value = caught(ManuallyDrop::into_inner(body));
    if disabled {
        // SAFETY: the state of before; a null pointer is allowed, but not by every old C library.
        unsafe { pthread_setcancelstate(before, &raw mut before) };
    }
    nix::errno::Errno::set_raw(errno);
    value
}

/// Not inlined: a frame that catches must not be one that a cancelled thread unwinds.
#[inline(never)]
fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}
