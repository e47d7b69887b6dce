//! Which of the backends serves a new descriptor.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::error::OpenError;
use super::service::{self, SERVICE_PATH};
use super::{opened, place, settings, start, sys};
use pfkey_wire::Extras;

/// What stands behind a PF_KEY descriptor; the values of the environment variable `PFKEY_BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// The kernel's AF_KEY where it exists; otherwise, and where [`extras`] beyond AF_KEY are asked for, the machine's pfkeyd
    /// where there is one; otherwise a private pfkeyd that speaks XFRM.
    #[default]
    Auto,
    /// The kernel's AF_KEY only.
    AfKey,
    /// A private pfkeyd that speaks XFRM netlink.
    Xfrm,
    /// A private pfkeyd with an embedded key engine. It protects no packet.
    Embedded,
    /// The same, and it takes what only a kernel does (offload, IP-TFS, …), about which it does nothing: to try a configuration.
    /// `PFKEY_BACKEND` has no value for it.
    Copy,
    /// The machine's pfkeyd, which listens on this path (`service` alone: [`super::SERVICE_PATH`]).
    Service(PathBuf),
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
            b"xfrm" | b"private" => Ok(Self::Xfrm),
            b"service" => Ok(Self::Service(place::try_owned(Path::new(SERVICE_PATH))?)),
            b"embedded" => Ok(Self::Embedded),
            _ => {
                let path = |prefix: &[u8]| value.strip_prefix(prefix).filter(|path| !path.is_empty());
                let owned = |path| place::try_owned(Path::new(OsStr::from_bytes(path)));
                match (path(b"unix:"), path(b"service:")) {
                    (Some(path), _) => Ok(Self::Unix(owned(path)?)),
                    (_, Some(path)) => Ok(Self::Service(owned(path)?)),
                    _ => Err(OpenError::UnknownBackend { value: text(value)? }),
                }
            }
        }
    }

    /// The backend that `PFKEY_BACKEND` names. The variable is ignored in a program that runs with more rights
    /// than its caller.
    ///
    /// # Errors
    /// [`OpenError::UnknownBackend`].
    pub fn from_environment() -> Result<Self, OpenError> {
        sys::with_secure_env(c"PFKEY_BACKEND", |value| Self::parse(value.unwrap_or_default()))
    }
}

/// A value for an error's text, unless memory is missing.
pub(super) fn text(value: &[u8]) -> Result<String, OpenError> {
    let mut text = String::new();
    for chunk in value.utf8_chunks() {
        let replacement = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
        text.try_reserve(chunk.valid().len() + replacement.len()).map_err(|_| OpenError::NoMemory)?;
        text.push_str(chunk.valid());
        text.push_str(replacement);
    }
    Ok(text)
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
        0 => sys::with_secure_env(c"PFKEY_ALGORITHMS", |value| {
            let value = value.unwrap_or_default();
            if value.is_empty() {
                return Ok(Extras::default());
            }
            let value = text(value)?;
            value.parse().map_err(|why| OpenError::UnknownAlgorithms { value, why })
        }),
        bits => Ok(Extras { aead: bits & 1 != 0, sha256_128: bits & 2 != 0 }),
    }
}

/// Whether something is asked for that AF_KEY does not have.
///
/// # Errors
/// As [`extras`] and [`super::xfrm`].
pub fn goes_beyond_af_key() -> Result<bool, OpenError> {
    Ok(!extras()?.is_none() || settings::xfrm()?.is_some())
}

/// Whether the kernel's own AF_KEY is what a backend means, if nothing is asked for that it does not have.
#[must_use]
pub fn kernel_serves(backend: &Backend) -> bool {
    match backend {
        Backend::AfKey => true,
        Backend::Auto => sys::try_af_key().map_or_else(
            |error| !matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)),
            |()| true,
        ),
        _ => false,
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
    let (extras, settings) = (extras()?, settings::xfrm()?);
    // What AF_KEY does not have.
    let beyond = !extras.is_none() || settings.is_some();
    let algorithms = match (extras.aead, extras.sha256_128) {
        (false, false) => None,
        (true, false) => Some(c"aead"),
        (false, true) => Some(c"sha256-128"),
        (true, true) => Some(c"aead,sha256-128"),
    };
    // Who reads the kernel's SAs himself would see those of other worlds.
    let own_name = |name: &'static CStr| if settings.is_some() { c"settings" } else { name };
    let private = |engine: &'static CStr| {
        // pfkeyd's netlink sockets would say so, too, but a private pfkeyd of uid 0 need not be started for that.
        if engine == c"xfrm" && !sys::has_net_admin() {
            return match sys::try_xfrm() {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)) => {
                    Err(OpenError::NoXfrm)
                }
                _ => Err(OpenError::System(io::Error::from_raw_os_error(libc::EPERM))),
            };
        }
        start::open(engine, algorithms, own_name(engine))
    };
    // The service, wherever it does not serve, is no reason to have no descriptor; but it says what the kernel says.
    let not_af_key = || match service(Path::new(SERVICE_PATH), extras, own_name(c"service")) {
        Ok(fd) => Ok(fd),
        Err(OpenError::System(error)) if error.raw_os_error() == Some(libc::EPERM) && sys::has_net_admin() => {
            Err(OpenError::System(error))
        }
        Err(_) => private(c"xfrm"),
    };
    let fd = match backend {
        Backend::Auto if beyond => not_af_key(),
        Backend::AfKey if settings.is_some() => Err(OpenError::AfKeyLacksXfrm),
        Backend::AfKey if beyond => Err(OpenError::AfKeyLacks { extras }),
        Backend::Auto => match sys::af_key_socket(libc::SOCK_CLOEXEC) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)) => {
                not_af_key()
            }
            other => other.map_err(OpenError::System),
        },
        Backend::AfKey => sys::af_key_socket(libc::SOCK_CLOEXEC).map_err(OpenError::System),
        Backend::Xfrm => private(c"xfrm"),
        Backend::Embedded => private(c"embedded"),
        Backend::Copy => private(c"copy"),
        Backend::Service(path) => service(path, extras, own_name(c"service")),
        Backend::Unix(path) => connect_to(path),
    }?;
    if let Some(settings) = &settings {
        settings::tell(&fd, settings)?;
    }
    Ok(fd)
}

/// An error with the path of the socket that it is about.
fn failed(path: &Path, source: io::Error) -> OpenError {
    match place::try_owned(path) {
        Ok(path) => OpenError::Connect { path, source },
        Err(no_memory) => no_memory,
    }
}

/// A session of the machine's pfkeyd.
fn service(path: &Path, extras: Extras, name: &CStr) -> Result<OwnedFd, OpenError> {
    // The service would say so, too.
    if !sys::has_net_admin() {
        return Err(OpenError::System(io::Error::from_raw_os_error(libc::EPERM)));
    }
    service::open(path, extras, name).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => OpenError::System(error),
        _ => failed(path, error),
    })
}

fn connect_to(path: &Path) -> Result<OwnedFd, OpenError> {
    static COUNT: AtomicU32 = AtomicU32::new(1 << 31);
    let fd = service::connect_to(path).map_err(|error| failed(path, error))?;
    start::name(&fd, c"unix", &COUNT).map_err(|error| failed(path, error))?;
    // connect returns before the server knows of it, and what others did until then would not be heard. An empty message
    // is none to the server, and consumed when the session is there.
    if sys::send(fd.as_raw_fd(), &[]).is_ok() {
        super::settle(fd.as_raw_fd());
    }
    Ok(fd)
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
