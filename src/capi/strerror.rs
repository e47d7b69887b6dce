//! The text of the last error.

use std::ffi::{CStr, c_char};

use super::error;
use super::guard::keep_code;

/// The text of this thread's last error. A signal handler may ask for it.
///
/// The pointer is valid until the next failing call on the same thread; it is never NULL and must not be freed.
/// A code outside 0..30 counts as 30, "Unknown error", and is stored as such.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_strerror() -> *const c_char {
    let text = keep_code(|| Ok(error::text()));
    if text.is_null() { c"Unknown error".as_ptr() } else { text }
}

/// Sets the text that goes with code 26 on this thread; the code stays. The string is copied, 1023 bytes of it at most;
/// NULL forgets it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __ipsec_set_strerror(text: *const c_char) {
    keep_code(|| {
        // SAFETY: the caller gives NULL or a NUL-terminated string.
        error::keep_bytes((!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes()));
        Ok(())
    });
}
