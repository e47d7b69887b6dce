//! Messages as people read them, on C's stdout.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::guard::{Failure, guard, keep_code};
use super::stdio::{CLibrary, Stream};
use super::{argument, error, sadb_msg};
use crate::error::Code;
use crate::print::{self, Sink, SocketPolicyFilter};

/// The filter of `pfkey_spdump`. Not behind a lock, which another thread could hold when this process is forked.
static HIDE: AtomicBool = AtomicBool::new(false);
static HIDDEN: AtomicU64 = AtomicU64::new(0);

fn show(message: Result<&[u8], Code>, print: impl FnOnce(&[u8], &mut Sink<'_>) -> Code) {
    keep_code(|| {
        let mut stream = Stream::stdout();
        match message {
            Ok(message) => error::set(print(message, &mut |text| stream.put(text))),
            Err(code) => {
                error::set(code);
                let _ = writeln!(stream, "{}", code.text());
            }
        }
        Ok(())
    });
}

fn show_policy(message: &[u8], with_ports: bool, sink: &mut Sink<'_>) -> Code {
    let before = HIDDEN.load(Relaxed);
    let mut filter = SocketPolicyFilter { hide: HIDE.load(Relaxed), hidden: before };
    let code = print::spdump_to(message, with_ports, &mut filter, &CLibrary, sink);
    if filter.hidden != before {
        HIDDEN.store(filter.hidden, Relaxed);
    }
    code
}

/// Prints an SA on stdout, as `setkey -D` shows it, keys included.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_sadump(m: *mut sadb_msg) {
    // SAFETY: the caller gives a whole message, or NULL.
    let message = unsafe { argument::message(m) };
    show(message, |message, sink| print::sadump_to(message, false, &CLibrary, sink));
}

/// `pfkey_sadump` with ports.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_sadump_withports(m: *mut sadb_msg) {
    // SAFETY: the caller gives a whole message, or NULL.
    let message = unsafe { argument::message(m) };
    show(message, |message, sink| print::sadump_to(message, true, &CLibrary, sink));
}

/// Prints a policy on stdout, as `setkey -DP` shows it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_spdump(m: *mut sadb_msg) {
    // SAFETY: the caller gives a whole message, or NULL.
    let message = unsafe { argument::message(m) };
    show(message, |message, sink| show_policy(message, false, sink));
}

/// `pfkey_spdump` with ports.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_spdump_withports(m: *mut sadb_msg) {
    // SAFETY: the caller gives a whole message, or NULL.
    let message = unsafe { argument::message(m) };
    show(message, |message, sink| show_policy(message, true, sink));
}

/// Leaves per-socket policies out of `pfkey_spdump` (`on` not 0), or no longer.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_spdump_filter_socket_policy(on: c_int) {
    HIDE.store(on != 0, Relaxed);
}

/// How many policies were left out since a dump's first message.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_spdump_filtered_count() -> c_ulong {
    HIDDEN.load(Relaxed) as c_ulong
}

/// Prints every field of a message on stdout, keys included. Unlike libipsec's it never ends the process.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kdebug_sadb(base: *mut sadb_msg) {
    keep_code(|| {
        let mut stream = Stream::stdout();
        // SAFETY: the caller gives a whole message, or NULL.
        match unsafe { argument::message(base) } {
            Ok(message) => {
                print::kdebug_sadb_to(message, &mut |text| stream.put(text));
            }
            Err(_) => stream.put(print::NULL_MESSAGE.as_bytes()),
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
pub unsafe extern "C-unwind" fn pfkey_print_sadb_msg(msg: *const sadb_msg, len: usize, as_printed: c_int) -> c_int {
    guard(|| {
        // SAFETY: the caller gives `len` bytes.
        let message = unsafe { argument::bytes(msg.cast(), len) }?;
        let style = if as_printed == 0 { print::Style::Corrected } else { print::Style::Book };
        let mut stream = Stream::stdout();
        match print::listing_to(message, style, &CLibrary, &mut |text| stream.put(text)) {
            Ok(()) => Ok(0),
            Err(error) => {
                let _ = writeln!(Stream::stderr(), "{error}");
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
pub unsafe extern "C-unwind" fn ipsec_hexdump(buf: *const c_void, len: c_int) {
    keep_code(|| {
        let len = usize::try_from(len).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives `len` bytes.
        let bytes = unsafe { argument::bytes(buf, len) }?;
        let mut stream = Stream::stdout();
        print::hexdump_to(bytes, &mut |text| stream.put(text));
        Ok(())
    });
}

/// Writes bytes to stdout as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_bindump(buf: *mut c_char, len: c_int) {
    keep_code(|| {
        let len = usize::try_from(len).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives `len` bytes.
        let bytes = unsafe { argument::bytes(buf.cast(), len) }?;
        Stream::stdout().put(bytes);
        Ok(())
    });
}
