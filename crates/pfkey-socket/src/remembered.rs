//! The pfkeyd that was there when the library was loaded: after a chroot its name leads nowhere, and AF_KEY opens all the
//! same.

use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t};

use super::place::{self, PathBuffer};
use super::sys;

/// Above the descriptors that a program counts on, and low enough that the kernel's table of them hardly grows for it.
const NUMBER: RawFd = 100;

struct Remembered {
    /// Programs close descriptors that they do not know, and the number may be another file's by then: see `file`.
    fd: RawFd,
    /// Device and inode.
    file: (u64, u64),
    path: PathBuffer,
    /// `PFKEYD` named it.
    named: bool,
}

static REMEMBERED: OnceLock<Remembered> = OnceLock::new();

/// Looks pfkeyd up now, and holds its file with one descriptor (`O_PATH`, close-on-exec, 100 or the next that is free) for a
/// program that changes its root before it opens. Without effect where descriptors are few, and where there is no pfkeyd.
pub fn remember_pfkeyd() {
    if getrlimit(Resource::RLIMIT_NOFILE).map_or(true, |(soft, _)| soft <= 2 * NUMBER as rlim_t) {
        return;
    }
    let mut path = PathBuffer::new();
    let Ok((fd, named)) = place::look_up(&mut path) else { return };
    let Some(file) = sys::file_behind(fd.as_raw_fd()) else { return };
    // pfkeyd itself, which contains this too, starts none.
    if fs::metadata("/proc/self/exe").is_ok_and(|this| (this.dev(), this.ino()) == file) {
        return;
    }
    let Ok(copy) = sys::duplicate_from(fd.as_raw_fd(), NUMBER) else { return };
    if REMEMBERED.set(Remembered { fd: copy.as_raw_fd(), file, path, named }).is_ok() {
        // It stays open.
        let _ = copy.into_raw_fd();
    }
}

/// Closes that descriptor, if the program has not closed it and given its number to another file: what is loaded again would
/// hold one more. For who is unloaded; nothing is remembered any more.
pub fn forget_pfkeyd() {
    if let Some(known) = REMEMBERED.get() {
        if sys::file_behind(known.fd) == Some(known.file) {
            let _ = nix::unistd::close(known.fd);
        }
    }
}

/// What was remembered, if it is still open and was looked for as now: by the same name in `PFKEYD`, which `path` is if it is
/// `named` there, or by none. `path` becomes its name.
pub(super) fn program(named: bool, path: &mut PathBuffer) -> Option<OwnedFd> {
    let known = REMEMBERED.get()?;
    if named != known.named || (named && path.path() != known.path.path()) {
        return None;
    }
    // Looked at before it is duplicated: closing a copy of another file gives up the program's POSIX locks on that file.
    (sys::file_behind(known.fd)? == known.file).then_some(())?;
    let fd = sys::duplicate(known.fd).ok()?;
    path.copy_from(&known.path);
    (sys::file_behind(fd.as_raw_fd())? == known.file).then_some(fd)
}
