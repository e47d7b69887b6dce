//! A listening socket in the file system.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, umask};

/// A socket's file, removed when dropped if it is still this socket's.
pub struct Listening {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Listening {
    /// Listens on a path. The file has this mode, whatever the umask. A socket there on which nobody listens is replaced;
    /// anything else there stays, and is an error.
    pub fn start(path: &Path, kind: SockType, mode: u32) -> io::Result<(Self, OwnedFd)> {
        let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        let address = UnixAddr::new(path)?;
        let bound = bind_with_mode(&fd, &address, mode);
        if bound == Err(Errno::EADDRINUSE) && is_stale(path) {
            std::fs::remove_file(path)?;
            bind_with_mode(&fd, &address, mode)?;
        } else {
            bound?;
        }
        let file = identity(path)?;
        let listening = Self { path: path.to_owned(), file };
        // musl allows 128 only; what Linux allows is another number (net.core.somaxconn).
        listen(&fd, Backlog::new(1024).unwrap_or(Backlog::MAXALLOWABLE))?;
        // Before this it looked like the socket of one that has ended, and another may have taken the place.
        if !listening.is_there() {
            return Err(Errno::EADDRINUSE.into());
        }
        Ok((listening, fd))
    }

    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

/// Makes the directory of the machine's socket, if it is missing, and looks at it: who can write to it could put another socket
/// into the place of this one.
pub fn prepare_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    match std::fs::DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = std::fs::metadata(directory)?;
    let ours = found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw();
    if ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("{}: owned or writable by others than root and this user", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// The file's mode is right from its first moment.
fn bind_with_mode(fd: &OwnedFd, address: &UnixAddr, mode: u32) -> nix::Result<()> {
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = bind(fd.as_raw_fd(), address);
    umask(before);
    bound
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket, not what a link names, on which nobody listens any more. (A regular file refuses connections, too.)
fn is_stale(path: &Path) -> bool {
    let probe = || -> nix::Result<()> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
    };
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && probe() == Err(Errno::ECONNREFUSED)
}
