//! `__ipsec_errcode` and its text.
//!
//! libipsec has one code for the whole process. Here each thread has its own, mirrored into the exported variable;
//! a program that writes the variable itself is heard.
//!
//! Nothing here locks or allocates: a signal handler may ask for the text while its thread is in the middle of a call, and so
//! may the child of a program with threads, in which a lock would stay locked. Threads whose calls cross may take
//! each other's code for the program's.

use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::fmt::{self, Write as _};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicU8};

use crate::error::Code;

/// The code of the last call on any thread. Writing it changes what the next `ipsec_strerror` on any thread says.
#[unsafe(no_mangle)]
pub static __ipsec_errcode: AtomicI32 = AtomicI32::new(0);

/// What the library itself stored last; anything else in `__ipsec_errcode` came from the program.
static MIRRORED: AtomicI32 = AtomicI32::new(0);

/// Bytes of a text with its NUL; longer ones are cut.
const TEXT: usize = 1024;

thread_local! {
    // None of these has a destructor: a thread's first use would have to register it, which allocates.
    static CODE: Cell<i32> = const { Cell::new(0) };
    /// The text of code 26, if one is kept. The last byte is always NUL, so that it ends whenever it is looked at.
    static KEPT: Cell<bool> = const { Cell::new(false) };
    static BYTES: [AtomicU8; TEXT] = const { [const { AtomicU8::new(0) }; TEXT] };
}

/// Sets this thread's code.
pub(super) fn set(code: Code) {
    let number = code as i32;
    CODE.set(number);
    MIRRORED.store(number, SeqCst);
    let mut stored = number;
    loop {
        __ipsec_errcode.store(stored, SeqCst);
        let mirrored = MIRRORED.load(SeqCst);
        if mirrored == stored {
            return;
        }
        // Another thread's call came in between. Who stores last leaves the two alike.
        stored = mirrored;
    }
}

/// This thread's code, or what the program wrote since any call. A program that writes the very code of the last
/// call is not noticed.
pub(super) fn get() -> Code {
    let mut exported = 0;
    // Another thread may be between its two stores.
    for _ in 0..64 {
        exported = __ipsec_errcode.load(SeqCst);
        if exported == MIRRORED.load(SeqCst) {
            return Code::from_number(CODE.get());
        }
        std::hint::spin_loop();
    }
    Code::from_number(exported)
}

/// Writes into the thread's buffer.
struct Text<'b> {
    bytes: &'b [AtomicU8; TEXT],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes[..TEXT - 1].iter().skip(self.len).zip(bytes) {
            to.store(*from, Relaxed);
            self.len += 1;
        }
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

fn keep(write: impl FnOnce(&mut Text<'_>)) {
    BYTES.with(|bytes| {
        let mut text = Text { bytes, len: 0 };
        write(&mut text);
        if let Some(end) = bytes.get(text.len) {
            end.store(0, Relaxed);
        }
    });
    KEPT.set(true);
}

/// Keeps a text for code 26.
pub(super) fn keep_text(text: fmt::Arguments<'_>) {
    keep(|kept| {
        let _ = kept.write_fmt(text);
    });
}

/// Keeps bytes as the text for code 26; `None` forgets what was kept.
pub(super) fn keep_bytes(bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => keep(|kept| kept.push(bytes)),
        None => KEPT.set(false),
    }
}

/// The system's text of an errno, with a NUL.
pub(super) fn system_text(errno: i32) -> [u8; 256] {
    let mut text = [0_u8; 256];
    // The text of Rust's Display carries a number behind it that strerror does not have.
    // SAFETY: the buffer has the length that is passed, less one byte, which stays NUL.
    unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len() - 1) };
    text
}

/// Code 26 with the system's text of an errno, which is also left in errno.
pub(super) fn set_errno(errno: i32) {
    let text = system_text(errno);
    keep_bytes(text.split(|&byte| byte == 0).next());
    set(Code::SystemError);
    nix::errno::Errno::set_raw(errno);
}

/// The text of this thread's code; never null, valid until the next failing call on this thread.
pub(super) fn text() -> *const c_char {
    let code = get();
    if code == Code::Max {
        set(code);
    }
    if code == Code::SystemError && KEPT.get() {
        return BYTES.with(|bytes| bytes.as_ptr().cast());
    }
    code.c_text().as_ptr()
}

const _: () = assert!(size_of::<AtomicI32>() == size_of::<c_int>());

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<u8> {
        BYTES.with(|bytes| bytes.iter().map(|byte| byte.load(Relaxed)).take_while(|byte| *byte != 0).collect())
    }

    #[test]
    fn a_long_text_is_cut_and_ends() {
        keep_text(format_args!("{}", "x".repeat(5000)));
        assert_eq!(kept(), [b'x'; TEXT - 1]);
        keep_text(format_args!("short"));
        assert_eq!(kept(), b"short");
    }

    /// Each thread goes on only when the other has made a call too, so that what one sees is its own.
    #[test]
    fn crossing_calls_leave_the_two_variables_alike() {
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for code in [Code::InvalidSpi, Code::InvalidMode] {
                let barrier = &barrier;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        barrier.wait();
                        set(code);
                        barrier.wait();
                        assert_eq!(get(), code);
                    }
                });
            }
        });
    }
}
