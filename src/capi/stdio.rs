//! Text through C's stdio, so that it stands where the program's own `printf` would put it.

use std::ffi::c_int;

use crate::print::Environment;

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
}

/// Writes to the C stream `stdout`.
pub(super) fn out(text: &[u8]) {
    // SAFETY: stdout is a valid stream in a running C program; the slice is live.
    unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stdout) };
}

/// Writes to the C stream `stderr`.
pub(super) fn err(text: &[u8]) {
    // SAFETY: as above.
    unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stderr) };
}

/// The C library's clock, time zone and protocol names.
pub(super) struct CLibrary;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Environment for CLibrary {
    fn now(&self) -> i64 {
        // SAFETY: a null pointer is allowed.
        unsafe { libc::time(std::ptr::null_mut()) }
    }

    fn local_time(&self, time: i64) -> Option<String> {
        // SAFETY: struct tm is plain data, valid when zeroed.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables.
        if unsafe { libc::localtime_r(&raw const time, &raw mut tm) }.is_null() {
            return None;
        }
        let month = MONTHS.get(usize::try_from(tm.tm_mon).ok()?)?;
        let year = i64::from(tm.tm_year) + 1900;
        Some(format!("{month}{:3} {:02}:{:02}:{:02} {year}", tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec))
    }

    fn protocol_name(&self, protocol: u8) -> Option<String> {
        use std::sync::{Mutex, PoisonError};
        static LOCK: Mutex<()> = Mutex::new(());
        let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the result is read before the lock is given up; libipsec calls it without one.
        let entry = unsafe { libc::getprotobynumber(c_int::from(protocol)) };
        if entry.is_null() {
            return None;
        }
        // SAFETY: not null; the name is NUL-terminated.
        Some(unsafe { std::ffi::CStr::from_ptr((*entry).p_name) }.to_string_lossy().into_owned())
    }
}
