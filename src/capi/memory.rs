//! Memory that C frees.

use std::ffi::c_void;

use super::guard::Failure;
use crate::error::Code;

/// A copy of `bytes` in one block from `malloc`, which the caller frees with `free`.
pub(super) fn copy<T>(bytes: &[u8]) -> Result<*mut T, Failure> {
    // SAFETY: any size may be asked for; 1 at least, so that NULL means failure.
    let block: *mut c_void = unsafe { libc::malloc(bytes.len().max(1)) };
    if block.is_null() {
        return Err(Code::NoBuffers.into());
    }
    // SAFETY: the new block has room for the bytes and overlaps nothing.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.cast(), bytes.len()) };
    Ok(block.cast())
}

/// The same with a NUL behind it.
pub(super) fn copy_text(text: &[u8]) -> Result<*mut libc::c_char, Failure> {
    let mut bytes = text.to_vec();
    bytes.push(0);
    copy(&bytes)
}
