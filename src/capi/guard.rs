//! What every entry of the C ABI is wrapped in: no panic leaves it, errors become codes and failure values, and the thread is
//! not cancelled in the middle.
//!
//! The thread cannot be cancelled while a body runs ([`cancel::uncancelled`]). What may be cancelled are the entries
//! themselves, which are `extern "C-unwind"` and own nothing that has to be dropped: before a body
//! ([`cancellation_point`]), or between two in which something is waited for.

use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error;
use crate::error::Code;
use crate::socket::cancel;
use crate::wire::Errno;

/// Why an entry failed.
pub(super) enum Failure {
    /// One of libipsec's codes.
    Code(Code),
    /// A system call failed: code 26 with `strerror` of this errno.
    Errno(i32),
    /// Code 26; its text is kept already.
    Told,
}

impl Failure {
    /// Code 26 with a text.
    pub(super) fn text(text: fmt::Arguments<'_>) -> Self {
        error::keep_text(text);
        Self::Told
    }

    /// Code 21 where memory is missing, otherwise code 26.
    pub(super) fn errno(errno: Errno) -> Self {
        match errno {
            Errno::ENOMEM => Code::NoBuffers.into(),
            errno => Self::Errno(errno.to_raw()),
        }
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// The value that a function returns when it failed. Nothing of it has to be dropped.
pub(super) trait FailureValue: Copy {
    /// That value.
    fn failed() -> Self;
}

impl FailureValue for c_int {
    fn failed() -> Self {
        -1
    }
}

impl FailureValue for u32 {
    fn failed() -> Self {
        u32::MAX
    }
}

impl FailureValue for () {
    fn failed() {}
}

impl<T> FailureValue for *mut T {
    fn failed() -> Self {
        std::ptr::null_mut()
    }
}

impl<T> FailureValue for *const T {
    fn failed() -> Self {
        std::ptr::null()
    }
}

/// Runs an entry's body; success sets the code 0.
#[inline(always)]
pub(super) fn guard<T: FailureValue>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    keep_code(|| {
        let value = body()?;
        error::set(Code::NoError);
        Ok(value)
    })
}

/// As [`guard`], for what is a cancellation point in libipsec, because it sends or receives: the thread may be cancelled
/// before anything is done.
#[inline(always)]
pub(super) fn cancellation_point<T: FailureValue>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    let body = ManuallyDrop::new(body);
    cancel::cancellation_point();
    guard(ManuallyDrop::into_inner(body))
}

/// Runs an entry's body; success leaves the code as it is, or as the body set it.
#[inline(always)]
pub(super) fn keep_code<T: FailureValue>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    attempt(body).unwrap_or_else(T::failed)
}

/// Runs a body; `None` if it failed, and the code is set then.
#[inline(always)]
pub(super) fn attempt<T: Copy>(body: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    // Nothing of a body has to be dropped, but a generic function does not know, and would catch to do it.
    let body = ManuallyDrop::new(body);
    cancel::uncancelled(|| caught(ManuallyDrop::into_inner(body)))
}

/// Not inlined: a frame that catches must not be one that a cancelled thread unwinds.
#[inline(never)]
fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(Failure::Code(code))) => error::set(code),
        Ok(Err(Failure::Errno(errno))) => error::set_errno(errno),
        Ok(Err(Failure::Told)) => error::set(Code::SystemError),
        Err(_) => error::set(Code::Max),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_failure_value_and_unknown_error() {
        let value: c_int = guard(|| panic!("a bug"));
        assert_eq!((value, error::get()), (-1, Code::Max));
        let pointer: *mut u8 = guard(|| panic!("a bug"));
        assert!(pointer.is_null());
    }
}
