//! Finding and checking the extensions of a message.

use std::ffi::{c_char, c_int};
use std::ptr;

use super::guard::guard;
use super::{argument, sadb_msg};
use crate::align;
use crate::error::Code;
use crate::wire::{ExtensionType, HEADER_LEN, Header};

/// Finds the extensions of a message: `mhp[n]` points at the extension of type n inside the message, or is NULL; `mhp[0]`
/// points at the header. `mhp` is the caller's and has SADB_EXT_MAX + 1 = 27 elements.
///
/// Returns 0; -1 with code 2 for NULL, 3 for lengths that do not add up, 12 for an extension that is unknown or
/// there twice. What was found before the error stays.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_align(msg: *mut sadb_msg, mhp: *mut *mut c_char) -> c_int {
    guard(|| {
        if mhp.is_null() {
            return Err(Code::InvalidArgument.into());
        }
        // SAFETY: the caller gives a whole message, or NULL.
        let bytes = unsafe { argument::message(msg) }?;
        let mut slots = [None; align::SLOTS];
        let outcome = align::align(bytes, &mut slots);
        for (index, slot) in slots.iter().enumerate() {
            let pointer = slot.map_or(ptr::null_mut(), |offset| msg.cast::<c_char>().wrapping_add(offset));
            // SAFETY: the caller's array has 27 elements.
            unsafe { mhp.wrapping_add(index).write(pointer) };
        }
        outcome.map_err(Code::from)?;
        Ok(0)
    })
}

/// Checks the header and the two addresses of a message whose extensions `pfkey_align` found.
///
/// Returns 0; -1 with code 2 for NULL, 4 for another version, 11 for an unknown message type, 10 for an SA type that does not go
/// with the message, 1 for an SA type that is not IPsec's, 23 for addresses of two protocols, 24 for two address families, 15
/// for an unknown family.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_check(mhp: *mut *mut c_char) -> c_int {
    guard(|| {
        if mhp.is_null() {
            return Err(Code::InvalidArgument.into());
        }
        // SAFETY: the caller's array has 27 elements.
        let at = |ext: ExtensionType| unsafe { mhp.wrapping_add(ext.0.into()).read() };
        let base = at(ExtensionType::RESERVED);
        // SAFETY: the first element points at a header, or is NULL.
        let head = unsafe { argument::bytes(base.cast(), if base.is_null() { 1 } else { HEADER_LEN }) }?;
        let header = Header::read(head).ok_or(Code::InvalidArgument)?;
        align::check_header(header).map_err(Code::from)?;
        let (src, dst) = (at(ExtensionType::ADDRESS_SRC), at(ExtensionType::ADDRESS_DST));
        if !src.is_null() && !dst.is_null() {
            // SAFETY: the element points at an extension.
            let src = unsafe { argument::extension(src, 8) };
            // SAFETY: as above.
            let dst = unsafe { argument::extension(dst, 8) };
            align::check_addresses(src, dst).map_err(Code::from)?;
        }
        Ok(0)
    })
}
