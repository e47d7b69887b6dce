//! Which of the backends serves a new descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::error::OpenError;
use super::{helper, opened, sys};
use crate::wire::Extras;

/// What stands behind a PF_KEY descriptor; the values of the environment variable `PFKEY_BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// The kernel's AF_KEY where it exists, otherwise XFRM. XFRM where [`extras`] beyond AF_KEY are asked for.
    #[default]
    Auto,
    /// The kernel's AF_KEY only.
    AfKey,
    /// A private pfkeyd that speaks XFRM netlink.
    Xfrm,
    /// A private pfkeyd with an embedded key engine. It protects no packet.
    Embedded,
    /// A pfkeyd that listens on this path.
    Unix(PathBuf),
}

impl Backend {
    /// Reads a value of `PFKEY_BACKEND`.
    ///
    /// # Errors
    /// [`OpenError::UnknownBackend`].
    pub fn parse(value: &[u8]) -> Result<Self, OpenError> {
        match value {
            b"" | b"auto" => Ok(Self::Auto),
            b"afkey" => Ok(Self::AfKey),
            b"xfrm" => Ok(Self::Xfrm),
            b"embedded" => Ok(Self::Embedded),
            _ => match value.strip_prefix(b"unix:") {
                Some(path) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(OsStr::from_bytes(path)))),
                _ => Err(OpenError::UnknownBackend { value: String::from_utf8_lossy(value).into_owned() }),
            },
        }
    }

    /// The backend that `PFKEY_BACKEND` names. The variable is ignored in a program that runs with more rights
    /// than its caller.
    ///
    /// # Errors
    /// [`OpenError::UnknownBackend`].
    pub fn from_environment() -> Result<Self, OpenError> {
        Self::parse(&sys::secure_getenv(c"PFKEY_BACKEND").unwrap_or_default())
    }
}

/// What [`set_extras`] said: 0 nothing, otherwise 4 and the extras as bits.
static EXTRAS: AtomicU8 = AtomicU8::new(0);

/// Sets what descriptors that this process opens from now on shall offer beyond AF_KEY, instead of what
/// `PFKEY_ALGORITHMS` names; `None` goes back to that.
pub fn set_extras(extras: Option<Extras>) {
    let bits = extras.map_or(0, |extras| 4 | u8::from(extras.aead) | u8::from(extras.sha256_128) << 1);
    EXTRAS.store(bits, Ordering::Relaxed);
}

/// What descriptors that this process opens shall offer beyond AF_KEY: what [`set_extras`] said, or the list in the
/// environment variable `PFKEY_ALGORITHMS`, which is ignored in a program that runs with more rights than its caller.
///
/// # Errors
/// [`OpenError::UnknownAlgorithms`].
pub fn extras() -> Result<Extras, OpenError> {
    match EXTRAS.load(Ordering::Relaxed) {
        0 => {
            let value = sys::secure_getenv(c"PFKEY_ALGORITHMS").unwrap_or_default();
            let value = String::from_utf8_lossy(&value);
            value.parse().map_err(|why| OpenError::UnknownAlgorithms { value: value.into_owned(), why })
        }
        bits => Ok(Extras { aead: bits & 1 != 0, sha256_128: bits & 2 != 0 }),
    }
}

/// Opens a PF_KEY descriptor on the backend that `PFKEY_BACKEND` names. Like libipsec's it stays open over exec.
///
/// # Errors
/// [`OpenError`]; its errno is the one that AF_KEY's `socket` would set.
pub fn open() -> Result<OwnedFd, OpenError> {
    open_with(&Backend::from_environment()?)
}

/// Opens a PF_KEY descriptor on a given backend, with the [`extras`] that are asked for; a pfkeyd that listens on a
/// path offers what it was started with.
///
/// # Errors
/// As [`open`].
pub fn open_with(backend: &Backend) -> Result<OwnedFd, OpenError> {
    let fd = open_with_cloexec(backend)?;
    // libipsec's socket has no CLOEXEC: daemons hand it to programs they start.
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .map_err(|e| OpenError::System(e.into()))?;
    Ok(fd)
}

/// As [`open_with`], but the descriptor is closed over exec.
///
/// # Errors
/// As [`open`].
pub fn open_with_cloexec(backend: &Backend) -> Result<OwnedFd, OpenError> {
    let fd = open_backend(backend)?;
    match backend {
        Backend::AfKey => opened::forget(fd.as_raw_fd()),
        Backend::Auto if !super::is_served(fd.as_raw_fd()) => opened::forget(fd.as_raw_fd()),
        _ => opened::remember(fd.as_raw_fd()),
    }
    Ok(fd)
}

fn open_backend(backend: &Backend) -> Result<OwnedFd, OpenError> {
    let extras = extras()?;
    let private = |engine| {
        let algorithms = extras.to_string();
        let offered: &[&str] = if extras.is_none() { &[] } else { &["--algorithms", &algorithms] };
        helper::open(engine, offered)
    };
    match backend {
        // AF_KEY could not offer them.
        Backend::Auto if !extras.is_none() => private("xfrm"),
        Backend::AfKey if !extras.is_none() => Err(OpenError::AfKeyLacks { extras }),
        Backend::Auto => match sys::af_key_socket(libc::SOCK_CLOEXEC) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)) => {
                private("xfrm")
            }
            other => other.map_err(OpenError::System),
        },
        Backend::AfKey => sys::af_key_socket(libc::SOCK_CLOEXEC).map_err(OpenError::System),
        Backend::Xfrm => private("xfrm"),
        Backend::Embedded => private("embedded"),
        Backend::Unix(path) => connect_to(path),
    }
}

fn connect_to(path: &std::path::Path) -> Result<OwnedFd, OpenError> {
    static COUNT: AtomicU32 = AtomicU32::new(1 << 31);
    let failed = |source: io::Error| OpenError::Connect { path: path.to_owned(), source };
    let fd =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(|e| failed(e.into()))?;
    helper::name(&fd, "unix", &COUNT).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(|e| failed(e.into()))?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_pfkey_backend() {
        assert_eq!(Backend::parse(b"").unwrap(), Backend::Auto);
        assert_eq!(Backend::parse(b"unix:/run/k").unwrap(), Backend::Unix("/run/k".into()));
        for bad in [&b"Embedded"[..], b"unix:", b"auto ", b"\xff"] {
            let error = Backend::parse(bad).unwrap_err();
            assert_eq!(error.errno(), libc::EINVAL);
            assert!(error.to_string().contains("expected auto"));
        }
    }
}
