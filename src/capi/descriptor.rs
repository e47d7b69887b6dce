//! Opening, closing and tuning a PF_KEY descriptor.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::argument;
use super::guard::{Failure, cancellation_point, guard, keep_code};
use super::sadb_msg;
use crate::error::Code;
use crate::socket::{OpenError, XfrmText};
use crate::wire::Extras;

/// What the library supports beyond RFC 2367: 1 = NAT traversal. A variable, because racoon reads it as one.
#[unsafe(no_mangle)]
pub static libipsec_opt: c_int = 1;

/// libipsec asks for a send buffer of this many bytes at least.
const SEND_BUFFER: usize = 128 * 1024;
/// libipsec asks for a receive buffer of this many bytes, or half, or a quarter … of it.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;

/// Runs when the library is loaded, before the program can have changed its root.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    // Miri has none of these system calls.
    if cfg!(not(miri)) {
        crate::socket::remember_pfkeyd();
    }
}

/// Runs when the library is unloaded, and at the process's end.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_UNLOAD: extern "C" fn() = at_unload;

extern "C" fn at_unload() {
    if cfg!(not(miri)) {
        crate::socket::forget_pfkeyd();
    }
}

/// Opens a PF_KEY socket and enlarges its buffers.
///
/// Which backend serves it is chosen by the environment variable PFKEY_BACKEND: auto (the default: the kernel's
/// AF_KEY, or XFRM where the kernel has none), afkey, service (XFRM by the machine's pfkeyd; service:PATH if it listens
/// elsewhere), private or xfrm (XFRM by a pfkeyd of the descriptor's own), embedded, or unix:PATH for a running pfkeyd.
///
/// The thread cannot be cancelled in it, nor in `pfkey_close`.
///
/// Returns the descriptor, which the caller closes; -1 with errno as `socket` would have left it, and code 26
/// whose text says why, or code 21 if there is no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_open() -> c_int {
    guard(|| {
        let fd = crate::socket::open().map_err(|error| {
            let errno = error.errno();
            let failure = match &error {
                OpenError::NoMemory => Code::NoBuffers.into(),
                OpenError::System(_) => Failure::Errno(errno),
                other => Failure::text(format_args!("{other}")),
            };
            nix::errno::Errno::set_raw(errno);
            failure
        })?;
        if getsockopt(&fd, sockopt::SndBuf).unwrap_or(0) < SEND_BUFFER {
            let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER);
        }
        let current = getsockopt(&fd, sockopt::RcvBuf).unwrap_or(SEND_BUFFER);
        let mut wanted = RECEIVE_BUFFER;
        while wanted > current && setsockopt(&fd, sockopt::RcvBuf, &wanted).is_err() {
            wanted /= 2;
        }
        Ok(fd.into_raw_fd())
    })
}

/// Chooses what descriptors that this process opens from now on offer beyond AF_KEY, instead of what the environment
/// variable PFKEY_ALGORITHMS names.
///
/// `list`: NUL-terminated, the caller's; words with commas between. "aead": AES-CCM, AES-GCM, AES-GMAC and
/// ChaCha20-Poly1305 are listed by REGISTER and can be used; the salt stands behind the key, and counts in its length.
/// "sha256-128": SAs with SHA2-256 have the 128 bits of RFC 4868; AF_KEY's have 96, and the peer has to have as many.
/// "": nothing. NULL: what PFKEY_ALGORITHMS names, again.
///
/// With a list that is not empty, backend auto means XFRM, backend afkey does not open (EPROTONOSUPPORT), and a pfkeyd
/// that listens on a path offers what it was started with.
///
/// Returns 0; -1 for a word that means nothing, and code 26 whose text names it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_set_algorithms(list: *const c_char) -> c_int {
    guard(|| {
        let extras = if list.is_null() {
            None
        } else {
            // SAFETY: not null; the caller gives a NUL-terminated string.
            let list = unsafe { CStr::from_ptr(list) };
            let list = list.to_str().map_err(|_| unknown(&list.to_bytes().escape_ascii()))?;
            Some(Extras::from_list(list).map_err(|word| unknown(&word.escape_debug()))?)
        };
        crate::socket::set_extras(extras);
        Ok(0)
    })
}

/// Chooses what the SAs and policies of descriptors that this process opens from now on have beyond what the program says of
/// them, instead of what the environment variable PFKEY_XFRM says.
///
/// `list`: NUL-terminated, the caller's; words with spaces or commas between, such as "if_id=42 out:set-mark=0x10"; libpfkey_rs(3)
/// has them all. Names of network interfaces are looked up now, in the thread's network namespace. "": nothing. NULL: what
/// PFKEY_XFRM says, again.
///
/// With "if_id" or "mark" such a descriptor is apart from others: DUMP, GET, DELETE, FLUSH, their likes for policies, ACQUIRE
/// and EXPIRE are of SAs and policies with this if_id or this mark.
///
/// With a list that is not empty, backend auto means XFRM, and backend afkey does not open (EPROTONOSUPPORT). What a key engine
/// does not have makes `pfkey_open` fail (EOPNOTSUPP), with code 26 whose text names it.
///
/// Returns 0; -1 for a word that means nothing, and code 26 whose text names it and its place.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_set_xfrm(list: *const c_char) -> c_int {
    guard(|| {
        if list.is_null() {
            crate::socket::set_xfrm(None);
            return Ok(0);
        }
        // SAFETY: not null; the caller gives a NUL-terminated string.
        let list = unsafe { CStr::from_ptr(list) };
        let list =
            list.to_str().map_err(|_| Failure::text(format_args!("{}: no text", list.to_bytes().escape_ascii())))?;
        let text = XfrmText::new(list).map_err(|why| Failure::text(format_args!("{}", why.about(list))))?;
        crate::socket::set_xfrm(Some(&text));
        Ok(0)
    })
}

fn unknown(word: &dyn std::fmt::Display) -> Failure {
    Failure::text(format_args!("\"{word}\": expected aead or sha256-128"))
}

/// Closes a PF_KEY descriptor. A batch that this thread has begun on it (pfkey_batch_begin) is thrown away.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_close(so: c_int) {
    guard(|| {
        super::batch::closing(so);
        // SAFETY: the caller gives up what it calls its descriptor.
        unsafe { crate::socket::close(so) };
        Ok(())
    });
}

/// Makes a descriptor's receive buffer at least `size_kb` KiB large, if that is positive.
///
/// Returns the buffer's size in KiB as the kernel reports it, 0 if it cannot be read; -1 with code 26 if it could
/// not be set.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_set_buffer_size(so: c_int, size_kb: c_int) -> c_int {
    keep_code(|| {
        // SAFETY: borrowed for this call only; a closed descriptor gives EBADF.
        let fd = unsafe { borrow(so) };
        let current = fd.and_then(|fd| getsockopt(&fd, sockopt::RcvBuf).ok());
        if size_kb > 0 {
            // What does not fit an int is asked for as the largest that does.
            let wanted = usize::try_from(size_kb).unwrap_or(0).saturating_mul(1024).min(i32::MAX as usize);
            if current.is_none_or(|current| current < wanted) {
                match fd {
                    Some(fd) => setsockopt(&fd, sockopt::RcvBuf, &wanted).map_err(|e| Failure::Errno(e as i32))?,
                    None => return Err(Failure::Errno(libc::EBADF)),
                }
            }
        }
        let size = fd.and_then(|fd| getsockopt(&fd, sockopt::RcvBuf).ok()).unwrap_or(0);
        Ok(c_int::try_from(size / 1024).unwrap_or(c_int::MAX))
    })
}

unsafe fn borrow(so: c_int) -> Option<std::os::fd::BorrowedFd<'static>> {
    // SAFETY: -1 is excluded, as borrow_raw demands; the caller uses it within one call.
    (so >= 0).then(|| unsafe { std::os::fd::BorrowedFd::borrow_raw(so) })
}

/// Sends a message as it is. In a batch (pfkey_batch_begin) what is a whole message is kept, as those of the other functions
/// are; what is none is sent at once.
///
/// On a descriptor that AF_KEY or a pfkeyd serves, its answers can be read when this returns.
///
/// Returns the number of bytes sent; -1 with errno and code 26 otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send(so: c_int, msg: *mut sadb_msg, len: c_int) -> c_int {
    cancellation_point(|| {
        // What `send` itself would say.
        let refused = |errno| match crate::socket::file_behind(so) {
            Some(_) => Failure::Errno(errno),
            None => Failure::Errno(libc::EBADF),
        };
        let len = usize::try_from(len).map_err(|_| refused(libc::EMSGSIZE))?;
        // SAFETY: the caller gives `len` bytes.
        let message = unsafe { argument::bytes(msg.cast::<c_void>(), len) }.map_err(|_| refused(libc::EFAULT))?;
        let kept = if crate::socket::check_framing(message).is_ok() { super::batch::keep(so, message) } else { None };
        kept.unwrap_or_else(|| Ok(crate::socket::send(so, message)? as c_int))
    })
}
