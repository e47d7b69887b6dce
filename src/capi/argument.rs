//! C pointers as borrowed Rust values, bounds first.

use std::ffi::{c_char, c_void};
use std::slice;

use crate::error::Code;
use crate::wire::sockaddr::{Sockaddr, sockaddr_len};
use crate::wire::{HEADER_LEN, Header};

/// The bytes at a pointer; NULL is allowed for no bytes.
pub(super) unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Result<&'a [u8], Code> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() || len > isize::MAX as usize {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: not null; the caller says that `len` bytes are there.
    Ok(unsafe { slice::from_raw_parts(pointer.cast(), len) })
}

/// A sockaddr: its family says how many bytes there are.
pub(super) unsafe fn sockaddr<'a>(pointer: *const libc::sockaddr) -> Result<Sockaddr<'a>, Code> {
    if pointer.is_null() {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: a sockaddr begins with its family; read unaligned, it may lie in a message.
    let family = unsafe { pointer.cast::<u16>().read_unaligned() };
    // SAFETY: not null; a sockaddr of this family has so many bytes (libipsec's sysdep_sa_len).
    Ok(Sockaddr(unsafe { slice::from_raw_parts(pointer.cast(), sockaddr_len(family)) }))
}

/// Two sockaddrs, as [`sockaddr`] reads each.
pub(super) unsafe fn sockaddrs<'a>(
    first: *const libc::sockaddr,
    second: *const libc::sockaddr,
) -> Result<(Sockaddr<'a>, Sockaddr<'a>), Code> {
    // SAFETY: passed on from the caller.
    let first = unsafe { sockaddr(first) }?;
    // SAFETY: passed on from the caller.
    let second = unsafe { sockaddr(second) }?;
    Ok((first, second))
}

/// A message: its header says how many bytes there are; never fewer than the header.
pub(super) unsafe fn message<'a>(pointer: *const super::sadb_msg) -> Result<&'a [u8], Code> {
    if pointer.is_null() {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: the caller gives at least a header.
    let head = unsafe { slice::from_raw_parts(pointer.cast::<u8>(), HEADER_LEN) };
    let len = Header::read(head).map_or(0, |h| usize::from(h.len) * 8);
    // SAFETY: the header's length says how many bytes there are.
    Ok(unsafe { slice::from_raw_parts(pointer.cast(), len.max(HEADER_LEN)) })
}

/// An extension-like object whose first 16 bits are its length in units of 8 bytes.
pub(super) unsafe fn extension<'a>(pointer: *const c_char, min: usize) -> &'a [u8] {
    // SAFETY: the caller gives a pointer to an extension, which begins with its length.
    let len = usize::from(unsafe { pointer.cast::<u16>().read_unaligned() }) * 8;
    // SAFETY: as above; never fewer than its fixed part.
    unsafe { slice::from_raw_parts(pointer.cast(), len.max(min)) }
}
