//! The private pfkeyd behind a descriptor: where it is found, how it is started.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socketpair};
use nix::sys::stat::{Mode, stat};

use super::error::OpenError;
use super::sys;

/// Where `make install` puts pfkeyd.
const INSTALLED: Option<&str> = option_env!("PFKEYD_PATH");

/// The places where pfkeyd is sought, in order.
fn candidates() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(path) = sys::secure_getenv(c"PFKEYD") {
        // Whoever names one wants that one.
        return vec![PathBuf::from(OsStr::from_bytes(&path))];
    }
    // Links such as libpfkey_rs.so.0 may stand elsewhere than what they name.
    if let Some(object) = sys::own_object().map(|path| std::fs::canonicalize(&path).unwrap_or(path)) {
        let mut dirs = object.ancestors().skip(1);
        if let Some(dir) = dirs.next() {
            places.push(dir.join("pfkeyd"));
            // A program in cargo's deps directory.
            places.extend(dirs.clone().next().map(|parent| parent.join("pfkeyd")));
            // A library in lib, or in a directory below it, beside sbin and libexec.
            for parent in dirs.take(2) {
                places.extend(["sbin/pfkeyd", "libexec/pfkeyd"].map(|name| parent.join(name)));
            }
        }
    }
    places.extend(INSTALLED.map(PathBuf::from));
    places
}

fn is_program(path: &Path) -> bool {
    stat(path).is_ok_and(|s| {
        let mode = Mode::from_bits_truncate(s.st_mode);
        s.st_mode & libc::S_IFMT == libc::S_IFREG && mode.intersects(Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH)
    })
}

/// The pfkeyd that would be started, or the places where none was found.
///
/// # Errors
/// Where it was sought.
pub fn find_pfkeyd() -> Result<PathBuf, Vec<PathBuf>> {
    let places = candidates();
    places.iter().find(|p| is_program(p)).cloned().ok_or(places)
}

/// Makes a pair of connected sockets, the first named so that any process recognises it as served.
fn pair(engine: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    name(&ours, engine, &COUNT)?;
    Ok((ours, theirs))
}

/// Gives a socket a name with the prefix that [`super::is_served`] knows.
pub(super) fn name(fd: &OwnedFd, engine: &str, count: &AtomicU32) -> io::Result<()> {
    loop {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let name = format!("pfkey/{engine}/{}/{n}", std::process::id());
        match bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?) {
            Ok(()) => return Ok(()),
            // A process of another pid namespace may have taken it.
            Err(nix::errno::Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Starts a pfkeyd that serves one descriptor, and gives that descriptor. It ends when the last copy of the
/// descriptor is closed.
pub(super) fn open(engine: &str, arguments: &[&str]) -> Result<OwnedFd, OpenError> {
    let program = find_pfkeyd().map_err(|sought| OpenError::NoPfkeyd { sought })?;
    let failed = |source| OpenError::Helper { program: program.clone(), source };
    let (ours, theirs) = pair(engine).map_err(OpenError::System)?;
    let (status_read, status_write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| OpenError::System(e.into()))?;
    let path = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let mut argv = vec![path.clone(), c"--fd".into(), c"3".into(), c"--status".into(), c"4".into()];
    for argument in ["--engine", engine].iter().chain(arguments) {
        argv.push(CString::new(*argument).map_err(|_| failed(io::Error::from(io::ErrorKind::InvalidInput)))?);
    }
    sys::spawn_detached(&path, &argv, theirs.as_raw_fd(), status_write.as_raw_fd()).map_err(failed)?;
    drop((theirs, status_write));
    // pfkeyd says 0 when it serves, or the errno that kept it from serving; nothing if it died.
    let mut errno = [0; 4];
    match File::from(status_read).read_exact(&mut errno) {
        Ok(()) => match i32::from_ne_bytes(errno) {
            0 => Ok(ours),
            libc::EAFNOSUPPORT => Err(OpenError::NoXfrm),
            errno => Err(failed(io::Error::from_raw_os_error(errno))),
        },
        Err(_) => Err(failed(io::Error::from_raw_os_error(libc::ECHILD))),
    }
}
