//! What every entry of the C ABI is wrapped in: no panic leaves it, and errors become codes and failure values.

use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error;
use crate::error::Code;

/// Why an entry failed.
pub(super) enum Failure {
    /// One of libipsec's codes.
    Code(Code),
    /// A system call failed: code 26 with `strerror` of this errno.
    Errno(i32),
    /// Code 26 with a text.
    Text(CString),
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

/// The value that a function returns when it failed.
pub(super) trait FailureValue {
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
pub(super) fn guard<T: FailureValue>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    keep_code(|| {
        let value = body()?;
        error::set(Code::NoError);
        Ok(value)
    })
}

/// Runs an entry's body; success leaves the code as it is, or as the body set it.
pub(super) fn keep_code<T: FailureValue>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(Failure::Code(code))) => error::set(code),
        Ok(Err(Failure::Errno(errno))) => error::set_errno(errno),
        Ok(Err(Failure::Text(text))) => error::set_text(text),
        Err(_) => error::set(Code::Max),
    }
    T::failed()
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
