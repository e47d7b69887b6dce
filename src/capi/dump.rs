//! Messages as people read them, on C's stdout.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::sync::{Mutex, PoisonError};

use super::guard::{Failure, guard, keep_code};
use super::stdio::{self, CLibrary};
use super::{argument, error, sadb_msg};
use crate::error::Code;
use crate::print::{self, Dumped, SocketPolicyFilter};

static FILTER: Mutex<SocketPolicyFilter> = Mutex::new(SocketPolicyFilter { hide: false, hidden: 0 });

fn with_filter<T>(use_filter: impl FnOnce(&mut SocketPolicyFilter) -> T) -> T {
    use_filter(&mut FILTER.lock().unwrap_or_else(PoisonError::into_inner))
}

unsafe fn show(msg: *const sadb_msg, print: impl FnOnce(&[u8]) -> Dumped) {
    keep_code(|| {
        // SAFETY: the caller gives a whole message, or NULL.
        match unsafe { argument::message(msg) } {
            Ok(message) => {
                let dumped = print(message);
                error::set(dumped.code);
                stdio::out(&dumped.text);
            }
            Err(code) => {
                error::set(code);
                stdio::out(format!("{}\n", code.text()).as_bytes());
            }
        }
        Ok(())
    });
}

/// Prints an SA on stdout, as `setkey -D` shows it, keys included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_sadump(m: *mut sadb_msg) {
    // SAFETY: passed on from the caller.
    unsafe { show(m, |message| print::sadump(message, false, &CLibrary)) }
}

/// `pfkey_sadump` with ports.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_sadump_withports(m: *mut sadb_msg) {
    // SAFETY: passed on from the caller.
    unsafe { show(m, |message| print::sadump(message, true, &CLibrary)) }
}

/// Prints a policy on stdout, as `setkey -DP` shows it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_spdump(m: *mut sadb_msg) {
    // SAFETY: passed on from the caller.
    unsafe { show(m, |message| with_filter(|filter| print::spdump(message, false, filter, &CLibrary))) }
}

/// `pfkey_spdump` with ports.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_spdump_withports(m: *mut sadb_msg) {
    // SAFETY: passed on from the caller.
    unsafe { show(m, |message| with_filter(|filter| print::spdump(message, true, filter, &CLibrary))) }
}

/// Leaves per-socket policies out of `pfkey_spdump` (`on` not 0), or no longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_spdump_filter_socket_policy(on: c_int) {
    keep_code(|| {
        with_filter(|filter| filter.hide = on != 0);
        Ok(())
    });
}

/// How many policies were left out since a dump's first message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_spdump_filtered_count() -> c_ulong {
    let mut count = 0;
    keep_code(|| {
        count = with_filter(|filter| filter.hidden);
        Ok(())
    });
    count
}

/// Prints every field of a message on stdout, keys included. Unlike libipsec's it never ends the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kdebug_sadb(base: *mut sadb_msg) {
    keep_code(|| {
        // SAFETY: the caller gives a whole message, or NULL.
        match unsafe { argument::message(base) } {
            Ok(message) => stdio::out(&print::kdebug_sadb(message).text),
            Err(_) => stdio::out(print::NULL_MESSAGE.as_bytes()),
        }
        Ok(())
    });
}

/// Prints a message of `len` bytes on stdout as `print_sadb_msg` of "Unix Network Programming", chapter 19, does, keys
/// included. With `as_printed` not 0 it keeps that program's slips: the SPI is the number that its bytes are in memory,
/// and no separator stands between a limit's bytes and its times.
///
/// Returns 0; -1 with the reason as code, and on stderr, if `len` is not the message's length or the version is not
/// PF_KEY_V2. Extensions that are malformed are named and end the listing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_print_sadb_msg(msg: *const sadb_msg, len: usize, as_printed: c_int) -> c_int {
    guard(|| {
        // SAFETY: the caller gives `len` bytes.
        let message = unsafe { argument::bytes(msg.cast(), len) }?;
        let style = if as_printed == 0 { print::Style::Corrected } else { print::Style::Book };
        match print::listing(message, style, &CLibrary) {
            Ok(text) => {
                stdio::out(&text);
                Ok(0)
            }
            Err(error) => {
                stdio::err(format!("{error}\n").as_bytes());
                Err(Failure::Code(match error {
                    print::ListingError::Length { .. } => Code::InvalidMessage,
                    print::ListingError::Version => Code::InvalidVersion,
                }))
            }
        }
    })
}

/// Prints bytes in hexadecimal on stdout: a space before every four, a new line before every further 32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipsec_hexdump(buf: *const c_void, len: c_int) {
    keep_code(|| {
        let len = usize::try_from(len).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives `len` bytes.
        stdio::out(&print::hexdump(unsafe { argument::bytes(buf, len) }?));
        Ok(())
    });
}

/// Writes bytes to stdout as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipsec_bindump(buf: *mut c_char, len: c_int) {
    keep_code(|| {
        let len = usize::try_from(len).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives `len` bytes.
        let bytes = unsafe { argument::bytes(buf.cast(), len) }?;
        stdio::out(bytes);
        Ok(())
    });
}
