//! Text through C's stdio, so that it stands where the program's own `printf` would put it.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::print::{Environment, Short};

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
    /// The libc crate lacks them.
    fn flockfile(stream: *mut libc::FILE);
    fn funlockfile(stream: *mut libc::FILE);
}

/// Text on its way to a C stream. Other threads' text stands before or behind all of it. What it held is wiped.
pub(super) struct Stream {
    stream: *mut libc::FILE,
    buffer: Zeroizing<[u8; 512]>,
    len: usize,
}

impl Stream {
    fn new(stream: *mut libc::FILE) -> Self {
        // SAFETY: a valid stream in a running C program.
        unsafe { flockfile(stream) };
        Self { stream, buffer: Zeroizing::new([0; 512]), len: 0 }
    }

    /// To `stdout`.
    pub(super) fn stdout() -> Self {
        // SAFETY: a variable of the C library.
        Self::new(unsafe { stdout })
    }

    /// To `stderr`.
    pub(super) fn stderr() -> Self {
        // SAFETY: as above.
        Self::new(unsafe { stderr })
    }

    /// Adds bytes as they are.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if self.buffer.len() - self.len < bytes.len() {
            self.flush();
        }
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => write(self.stream, bytes),
        }
    }

    fn flush(&mut self) {
        write(self.stream, self.buffer.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

fn write(stream: *mut libc::FILE, bytes: &[u8]) {
    // SAFETY: a valid stream, and a live slice.
    unsafe { libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), stream) };
}

impl fmt::Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flush();
        // SAFETY: locked when this was made.
        unsafe { funlockfile(self.stream) };
    }
}

/// The C library's clock and time zone, and the system's protocol names.
pub(super) struct CLibrary;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Environment for CLibrary {
    fn now(&self) -> i64 {
        // Not `time()`, whose seconds end in 2038 where they have 32 bits.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn local_time(&self, time: i64) -> Option<Short> {
        let time = libc::time_t::try_from(time).ok()?;
        // SAFETY: struct tm is plain data, valid when zeroed.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables.
        if unsafe { libc::localtime_r(&raw const time, &raw mut tm) }.is_null() {
            return None;
        }
        let month = MONTHS.get(usize::try_from(tm.tm_mon).ok()?)?;
        let year = i64::from(tm.tm_year) + 1900;
        let mut text = Short::default();
        let _ = write!(text, "{month}{:3} {:02}:{:02}:{:02} {year}", tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        Some(text)
    }

    fn protocol_name(&self, protocol: u8) -> Option<Short> {
        crate::print::protocols::name(protocol)
    }
}
