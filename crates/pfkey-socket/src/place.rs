//! Where pfkeyd's program is, and whether it may be executed. Nothing here allocates unless an error is told; and a path, which
//! is a page of the caller's stack, is filled where it is: a thread may have few.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::error::OpenError;
use super::remembered;
use super::sys;

/// Where `make install` puts pfkeyd.
const INSTALLED: Option<&str> = option_env!("PFKEYD_PATH");

/// Bytes of a path, `PATH_MAX`.
const PATH_LEN: usize = 4096;

/// Places in a directory that the library's file is in, or in one of the two above it: beside the library, in cargo's
/// output directory, and in sbin or libexec of the installation that has the library in lib.
const BESIDE: [(usize, &str); 6] = [
    (0, "pfkeyd"),
    (1, "pfkeyd"),
    (1, "sbin/pfkeyd"),
    (1, "libexec/pfkeyd"),
    (2, "sbin/pfkeyd"),
    (2, "libexec/pfkeyd"),
];

/// A path that was put together without allocating.
pub(super) struct PathBuffer {
    bytes: [u8; PATH_LEN],
    len: usize,
}

impl PathBuffer {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; PATH_LEN], len: 0 }
    }

    /// Appends; false, and nothing is appended, if a NUL would not fit behind it.
    fn push(&mut self, part: &[u8]) -> bool {
        let end = self.len + part.len();
        let room = end < PATH_LEN;
        if let (true, Some(place)) = (room, self.bytes.get_mut(self.len..end)) {
            place.copy_from_slice(part);
            self.len = end;
        }
        room
    }

    fn set(&mut self, parts: &[&[u8]]) -> bool {
        self.len = 0;
        let whole = parts.iter().all(|part| self.push(part));
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = 0;
        }
        whole
    }

    /// Becomes a copy of another.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.bytes.copy_from_slice(&other.bytes);
        self.len = other.len;
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.bytes.get(..self.len).unwrap_or_default()))
    }

    /// With its NUL; empty if it holds another.
    pub(super) fn c_str(&self) -> &CStr {
        self.bytes.get(..=self.len).and_then(|bytes| CStr::from_bytes_with_nul(bytes).ok()).unwrap_or_default()
    }
}

/// Finds pfkeyd, looked at and open, so that what is executed is what was looked at; `path` becomes its name. It is the file that `PFKEYD` names; otherwise where it was installed; otherwise beside the library. A program
/// that runs with more rights than its caller takes the installed one only: neither the environment nor the name that
/// it was started by may choose. Where there is none any more, the one that was there when the library was loaded.
///
/// # Errors
/// [`OpenError::NoPfkeyd`]; [`OpenError::Unfit`] for a file that somebody else may have written.
pub(super) fn find(path: &mut PathBuffer) -> Result<OwnedFd, OpenError> {
    match look_up(path) {
        Ok((program, _)) => Ok(program),
        Err(error @ OpenError::NoPfkeyd { .. }) => {
            let named = name_in_environment(path);
            remembered::program(named, path).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// As [`find`], by names only. Says whether `PFKEYD` named it.
pub(super) fn look_up(path: &mut PathBuffer) -> Result<(OwnedFd, bool), OpenError> {
    if name_in_environment(path) {
        return match open(AT_FDCWD, path.path(), false)? {
            Some(fd) => Ok((fd, true)),
            None => Err(no_pfkeyd(Some(path.path()), None)),
        };
    }
    installed_or_beside(INSTALLED, own_object, path).map(|program| (program, false))
}

/// Whether the environment names one, which `path` becomes.
fn name_in_environment(path: &mut PathBuffer) -> bool {
    sys::with_secure_env(c"PFKEYD", |value| value.is_some_and(|value| path.set(&[value])))
}

/// `library` says what file this code is in.
fn installed_or_beside(
    installed: Option<&str>,
    library: impl FnOnce(&mut PathBuffer) -> bool,
    path: &mut PathBuffer,
) -> Result<OwnedFd, OpenError> {
    if installed.is_some_and(|installed| path.set(&[installed.as_bytes()])) {
        if let Some(fd) = open(AT_FDCWD, path.path(), false)? {
            return Ok(fd);
        }
    }
    let mut object = PathBuffer::new();
    if sys::is_at_secure() || !library(&mut object) {
        return Err(no_pfkeyd(installed.map(Path::new), None));
    }
    for (above, name) in BESIDE {
        let Some(directory) = object.path().ancestors().nth(above + 1) else { continue };
        let name = Path::new(name);
        let (inner, file) = (name.parent().unwrap_or(Path::new("")), name.file_name().unwrap_or_default());
        if !path.set(&[directory.as_os_str().as_bytes(), b"/", inner.as_os_str().as_bytes()]) {
            continue;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(opened) = openat(AT_FDCWD, path.path(), flags, Mode::empty()) else { continue };
        let separator: &[u8] = if path.path().as_os_str().as_bytes().ends_with(b"/") { b"" } else { b"/" };
        // Whoever can write to the directory can put any program of root's there.
        let named = path.push(separator) && path.push(file.as_bytes());
        if !named || !sys::status(opened.as_raw_fd()).is_ok_and(|stat| is_ours(&stat, true)) {
            continue;
        }
        if let Some(end) = path.bytes.get_mut(path.len) {
            *end = 0;
        }
        if let Some(fd) = open(opened.as_fd(), Path::new(file), true)? {
            return Ok(fd);
        }
    }
    Err(no_pfkeyd(installed.map(Path::new), Some(object.path())))
}

#[cfg(test)]
pub(super) fn program_at(file: &Path, path: &mut PathBuffer) -> Option<OwnedFd> {
    path.set(&[file.as_os_str().as_bytes()]).then_some(())?;
    open(AT_FDCWD, file, false).ok()?
}

/// The pfkeyd that would be started.
///
/// # Errors
/// Why there is none: see [`OpenError`].
pub fn find_pfkeyd() -> Result<PathBuf, OpenError> {
    let mut path = PathBuffer::new();
    find(&mut path)?;
    Ok(path.path().to_owned())
}

fn no_pfkeyd(installed: Option<&Path>, beside: Option<&Path>) -> OpenError {
    match (installed.map(try_owned).transpose(), beside.map(try_owned).transpose()) {
        (Ok(installed), Ok(beside)) => OpenError::NoPfkeyd { installed, beside },
        _ => OpenError::NoMemory,
    }
}

/// A copy of a path, unless memory is missing.
pub(super) fn try_owned(path: &Path) -> Result<PathBuf, OpenError> {
    let mut copy = PathBuf::new();
    copy.try_reserve_exact(path.as_os_str().len()).map_err(|_| OpenError::NoMemory)?;
    copy.push(path);
    Ok(copy)
}

/// Opens a program file that nobody but root and this process's user can have written; `None` if it is no program.
fn open(directory: impl AsFd, path: &Path, skip_unfit: bool) -> Result<Option<OwnedFd>, OpenError> {
    let fd = match openat(directory, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(OpenError::System(errno.into())),
        Err(_) => return Ok(None),
    };
    let stat = sys::status(fd.as_raw_fd()).map_err(OpenError::System)?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let is_program =
        stat.st_mode & libc::S_IFMT == libc::S_IFREG && mode.intersects(Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH);
    match is_program {
        true if is_ours(&stat, false) => Ok(Some(fd)),
        true if !skip_unfit => Err(OpenError::Unfit { program: try_owned(path)? }),
        _ => Ok(None),
    }
}

/// Whether nobody but root and this process's user may write it. A directory with the sticky bit keeps files of others
/// from being replaced.
fn is_ours(stat: &libc::stat64, directory: bool) -> bool {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let own_group = stat.st_gid == nix::unistd::getegid().as_raw();
    (stat.st_uid == 0 || stat.st_uid == nix::unistd::geteuid().as_raw())
        && (!mode.contains(Mode::S_IWOTH) || directory && mode.contains(Mode::S_ISVTX))
        && (!mode.contains(Mode::S_IWGRP) || own_group || directory && mode.contains(Mode::S_ISVTX))
}

/// The file that contains this code, the shared object or the program it is linked into, as the kernel knows it: what
/// `dladdr` says of a program is its argv[0], which is whatever its caller likes.
///
/// Not inlined: its buffer is nobody else's.
#[inline(never)]
fn own_object(object: &mut PathBuffer) -> bool {
    let here = own_object as *const () as u64;
    let Ok(mut maps) = File::open("/proc/self/maps") else { return false };
    let mut buffer = [0; PATH_LEN + 256];
    let mut filled = 0;
    loop {
        let read = match maps.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        filled += read;
        let mut start = 0;
        while let Some(line) = line_at(buffer.get(start..filled).unwrap_or_default()) {
            start += line.len() + 1;
            if let Some(path) = mapped_path(line, here) {
                return object.set(&[path]);
            }
        }
        // A line that does not fit has no path that could be opened.
        if start == 0 && filled == buffer.len() {
            return false;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

fn line_at(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == b'\n')?)
}

/// The path of a line of `/proc/PID/maps`, if its addresses contain `address`.
fn mapped_path(line: &[u8], address: u64) -> Option<&[u8]> {
    let text_len = line.iter().position(|byte| *byte == b' ')?;
    let range = std::str::from_utf8(line.get(..text_len)?).ok()?;
    let (from, to) = range.split_once('-')?;
    let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    if !(from..to).contains(&address) {
        return None;
    }
    let path = line.iter().position(|byte| *byte == b'/')?;
    line.get(path..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_found_as_the_kernel_knows_it() {
        let mut object = PathBuffer::new();
        assert!(own_object(&mut object));
        assert_eq!(object.path(), std::env::current_exe().unwrap());
        assert_eq!(object.c_str().to_bytes(), object.path().as_os_str().as_bytes());
    }

    #[test]
    fn an_installed_pfkeyd_comes_before_one_beside_the_library() {
        let directory = std::env::temp_dir().join(format!("pfkey-place-{}", std::process::id()));
        let lib = directory.join("lib");
        std::fs::create_dir_all(&lib).unwrap();
        let (installed, beside) = (directory.join("installed"), lib.join("pfkeyd"));
        std::fs::copy("/bin/true", &beside).unwrap();
        let library = |object: &mut PathBuffer| object.set(&[lib.join("library.so").as_os_str().as_bytes()]);
        let found = |installed| {
            let mut path = PathBuffer::new();
            installed_or_beside(installed, library, &mut path).unwrap();
            path.path().to_owned()
        };
        let name = installed.to_str().unwrap();
        assert_eq!(found(None), beside);
        assert_eq!(found(Some(name)), beside, "nothing is installed yet");
        std::fs::copy("/bin/true", &installed).unwrap();
        assert_eq!(found(Some(name)), installed);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn lines_of_maps() {
        let line = b"7f00-7f10 r-xp 00000000 08:01 42                 /usr/lib/a b.so";
        assert_eq!(mapped_path(line, 0x7f0f), Some(&b"/usr/lib/a b.so"[..]));
        assert_eq!(mapped_path(line, 0x7f10), None);
        assert_eq!(mapped_path(b"7f00-7f10 r-xp 00000000 00:00 0 ", 0x7f00), None);
        assert_eq!(mapped_path(b"", 0), None);
    }
}
