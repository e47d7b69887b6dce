//! Names of interfaces, which nix does not give without allocating.

use std::ffi::{CStr, c_char};

/// `IF_NAMESIZE`: bytes of an interface's name with its NUL.
pub const INTERFACE_NAME: usize = libc::IF_NAMESIZE;

/// The name of the interface with this number, in the caller's buffer.
pub fn interface_name(index: u32, buffer: &mut [u8; INTERFACE_NAME]) -> Option<&[u8]> {
    // SAFETY: the buffer has the bytes that the call may write.
    let name = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr().cast::<c_char>()) };
    if name.is_null() {
        return None;
    }
    CStr::from_bytes_until_nul(buffer).ok().map(CStr::to_bytes)
}
