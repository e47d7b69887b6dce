//! Running our own code inside somebody else's call.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pfkey_socket::cancel::uncancelled;

/// Runs `body` so that the caller notices nothing of it: errno is kept, the thread is not cancelled in the middle,
/// and a panic ends here and gives `None`. Neither the body nor what it gives has
/// anything to drop: a cancelled thread unwinds this frame.
pub(super) fn quiet<T: Copy>(body: impl FnOnce() -> T) -> Option<T> {
    // A generic function does not know that, and would catch to drop the body.
    let body = ManuallyDrop::new(body);
    let errno = nix::errno::Errno::last_raw();
    let value = uncancelled(|| caught(ManuallyDrop::into_inner(body)));
    nix::errno::Errno::set_raw(errno);
    value
}

/// Not inlined: a frame that catches must not be one that a cancelled thread unwinds.
#[inline(never)]
fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}
