//! `__ipsec_errcode` and its text.
//!
//! libipsec has one code for the whole process. Here each thread has its own, mirrored into the exported variable;
//! a program that writes the variable itself is heard.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::error::Code;

/// The code of the last call on any thread. Writing it changes what the next `ipsec_strerror` on any thread says.
#[unsafe(no_mangle)]
pub static __ipsec_errcode: AtomicI32 = AtomicI32::new(0);

/// What the library itself stored last; anything else in `__ipsec_errcode` came from the program. The lock keeps
/// the two together.
static MIRRORED: Mutex<i32> = Mutex::new(0);

thread_local! {
    static CODE: Cell<i32> = const { Cell::new(0) };
    static TEXT: RefCell<Option<CString>> = const { RefCell::new(None) };
}

static TEXTS: LazyLock<Vec<CString>> =
    LazyLock::new(|| (0..=30).map(|n| CString::new(Code::from_number(n).text()).unwrap_or_default()).collect());

/// Sets this thread's code.
pub(super) fn set(code: Code) {
    let number = code as i32;
    // A thread that is ending has no cell any more; the mirror still tells.
    let _ = CODE.try_with(|cell| cell.set(number));
    let mut mirrored = MIRRORED.lock().unwrap_or_else(PoisonError::into_inner);
    *mirrored = number;
    __ipsec_errcode.store(number, Ordering::Relaxed);
}

/// This thread's code, or what the program wrote since any call. A program that writes the very code of the last
/// call is not noticed.
pub(super) fn get() -> Code {
    let mirrored = MIRRORED.lock().unwrap_or_else(PoisonError::into_inner);
    let global = __ipsec_errcode.load(Ordering::Relaxed);
    let own = if global == *mirrored { CODE.try_with(Cell::get).unwrap_or(global) } else { global };
    Code::from_number(own)
}

/// Code 26 with the system's text of an errno, which is also left in errno.
pub(super) fn set_errno(errno: i32) {
    // The text of Rust's Display carries a number behind it that strerror does not have.
    // SAFETY: strerror_l would need a locale; strerror's result is copied before anything else can change it.
    let text = unsafe { CStr::from_ptr(libc::strerror(errno)) }.to_owned();
    set_text(text);
    nix::errno::Errno::set_raw(errno);
}

/// Code 26 with a text.
pub(super) fn set_text(text: CString) {
    keep_text(Some(text));
    set(Code::SystemError);
}

/// Keeps a text for code 26, or forgets it.
pub(super) fn keep_text(text: Option<CString>) {
    let _ = TEXT.try_with(|cell| cell.replace(text));
}

/// The text of this thread's code; never null, valid until the next failing call on this thread.
pub(super) fn text() -> *const c_char {
    let code = get();
    if code == Code::Max {
        set(code);
    }
    if code == Code::SystemError {
        let kept = TEXT.try_with(|cell| cell.borrow().as_ref().map(|text| text.as_ptr())).ok().flatten();
        if let Some(text) = kept {
            return text;
        }
    }
    TEXTS.get(code as usize).map_or(c"Unknown error".as_ptr(), |text| text.as_ptr())
}

const _: () = assert!(size_of::<AtomicI32>() == size_of::<c_int>());
