//! Policies as text and as bytes.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write as _;

use super::guard::{Failure, guard, keep_code};
use super::memory::Block;
use super::stdio::Stream;
use super::{argument, error};
use crate::error::Code;
use crate::policy;

/// Makes a policy (`struct sadb_x_policy` with its requests) from text; `len` is not used, the text ends at its NUL.
///
/// Returns a block from `malloc`, which the caller frees with `free`; its length is `ipsec_get_policylen` of it.
/// NULL with a code otherwise; a syntax error or a bad address is also reported on stderr. As in libipsec, a
/// syntax error sets code 2 only if the code was 0.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_set_policy(msg: *const c_char, len: c_int) -> *mut c_char {
    let _ = len;
    keep_code(|| {
        if msg.is_null() {
            return Err(Code::InvalidArgument.into());
        }
        // SAFETY: the caller gives a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(msg) }.to_bytes();
        let mut echo = None;
        let parsed = policy::parse_with(text, &mut |byte| echo.get_or_insert_with(Stream::stdout).put(&[byte]));
        drop(echo);
        if let Some(line) = &parsed.diagnostic {
            let _ = write!(Stream::stderr(), "{line}");
        }
        let code = Code::after_policy(&parsed.result, parsed.sets_code, error::get());
        match parsed.result {
            Ok(spec) => {
                let mut block = Block::zeroed(spec.byte_len().map_err(Code::from)?)?;
                spec.write(block.bytes());
                error::set(Code::NoError);
                Ok(block.into_c())
            }
            Err(_) => Err(match parsed.system_text {
                Some(text) => Failure::text(format_args!("{text}")),
                None => Failure::Code(code),
            }),
        }
    })
}

/// The length in bytes of a policy that `ipsec_set_policy` made; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_get_policylen(policy: *mut c_char) -> c_int {
    keep_code(|| {
        if policy.is_null() {
            return Ok(-1);
        }
        // SAFETY: a policy begins with its length in units of 8 bytes.
        Ok(c_int::from(unsafe { policy.cast::<u16>().read_unaligned() }) * 8)
    })
}

unsafe fn dump(policy: *const c_char, delimiter: *const c_char, with_ports: bool) -> *mut c_char {
    if policy.is_null() {
        return std::ptr::null_mut();
    }
    guard(|| {
        // SAFETY: a policy begins with its length.
        let bytes = unsafe { argument::extension(policy, 16) };
        let delimiter = if delimiter.is_null() {
            c" "
        } else {
            // SAFETY: the caller gives a NUL-terminated string.
            unsafe { CStr::from_ptr(delimiter) }
        };
        let mut len = 0;
        policy::dump_to(bytes, delimiter.to_bytes(), with_ports, &mut |piece| len += piece.len())
            .map_err(Code::from)?;
        // With a NUL behind it.
        let mut block = Block::zeroed(len + 1)?;
        let mut room = block.bytes().get_mut(..len).unwrap_or_default();
        policy::dump_to(bytes, delimiter.to_bytes(), with_ports, &mut |piece| {
            // An interface can have got a longer name meanwhile.
            let len = piece.len().min(room.len());
            let (to, rest) = std::mem::take(&mut room).split_at_mut(len);
            to.copy_from_slice(&piece[..len]);
            room = rest;
        })
        .map_err(Code::from)?;
        Ok(block.into_c())
    })
}

/// A policy as text that `ipsec_set_policy` reads, its requests set off by `delimiter` (NULL = one space).
///
/// Returns a string from `malloc`, which the caller frees with `free`; NULL with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_dump_policy(policy: *mut c_char, delimiter: *mut c_char) -> *mut c_char {
    // SAFETY: passed on from the caller.
    unsafe { dump(policy, delimiter, false) }
}

/// `ipsec_dump_policy` with the ports of tunnel addresses.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_dump_policy_withports(
    policy: *mut c_void,
    delimiter: *const c_char,
) -> *mut c_char {
    // SAFETY: passed on from the caller.
    unsafe { dump(policy.cast(), delimiter, true) }
}
