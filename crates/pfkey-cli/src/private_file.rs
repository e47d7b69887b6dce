//! A file that holds keys: only its owner reads it, and an old one stays until the new one is whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;
use nix::unistd::{geteuid, mkstemp};

use crate::failure::Failure;

/// A file under a name of its own until it is kept.
pub struct PrivateFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl PrivateFile {
    /// Begins a file that will stand at `path`, of mode 0600 whatever the umask.
    ///
    /// # Errors
    /// If something stands there that is no regular file: a device is not to be replaced, and a symbolic link leads to
    /// a file of somebody else's choice. Otherwise those of mkstemp(3).
    pub fn create(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if !there.is_file() => {
                return Err(io::Error::other("there is something that is no regular file"));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Beside it, because a file is renamed within one file system only.
        let mut template = path.as_os_str().to_owned();
        template.push(".XXXXXX");
        let (descriptor, temporary) = mkstemp(Path::new(&template))?;
        Ok(Self { file: File::from(descriptor), temporary, path: path.to_owned() })
    }

    /// A descriptor to write to.
    ///
    /// # Errors
    /// That of dup(2).
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts it in its place, whole and on the disk.
    ///
    /// # Errors
    /// Those of fsync(2) and rename(2).
    pub fn keep(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)
    }
}

/// Writes a file without secrets, which everybody can read and which is whole whenever somebody does.
///
/// # Errors
/// Those of a [`PrivateFile`], with its name.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let file = PrivateFile::create(path)?;
        file.file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.handle()?.write_all(bytes)?;
        file.keep()
    };
    write().map_err(|error| Failure::Told(format!("{}: {error}", path.display())))
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // Gone already if it was kept: nobody else chose this name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The permission bits of a regular file that somebody but its owner, or an owner who is neither root nor this process's
/// user, can read.
pub fn readers(descriptor: impl AsFd) -> Option<u32> {
    let stat = File::from(descriptor.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    let mode = stat.mode();
    let theirs = stat.uid() != 0 && stat.uid() != geteuid().as_raw();
    let regular = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    (regular && (mode & 0o044 != 0 || theirs)).then_some(mode & 0o7777)
}
