//! `socket(PF_KEY, ...)`.

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use libc::c_int;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::quiet::quiet;
use super::{AF_KEY, next};
use crate::socket::{Backend, OpenError, goes_beyond_af_key, open_with_cloexec};
use crate::wire::PF_KEY_V2;

/// `SOCK_TYPE_MASK`: what is left of a type without its flags.
const TYPE_MASK: c_int = 0xf;
/// `SOCK_MAX`: one more than the last type.
const TYPES: c_int = 11;

/// As AF_KEY's: a descriptor, or -1 and its errno.
pub(super) fn open(kind: c_int, protocol: c_int) -> c_int {
    match quiet(|| choose(kind, protocol)) {
        Some(Ok(fd)) => fd,
        Some(Err(errno)) => fail(errno),
        None => fail(libc::EAFNOSUPPORT),
    }
}

fn fail(errno: c_int) -> c_int {
    nix::errno::Errno::set_raw(errno);
    -1
}

fn choose(kind: c_int, protocol: c_int) -> Result<RawFd, c_int> {
    let asked = |asked: Result<bool, OpenError>| asked.map_err(|error| explain(&error));
    match Backend::from_environment().map_err(|error| explain(&error))? {
        backend if asked(goes_beyond_af_key())? => served(&backend, kind, protocol),
        Backend::AfKey => kernel(kind, protocol),
        // The kernel's own socket has all of the kernel's errors; only "no AF_KEY" is not the last word. With the
        // right protocol, "no such protocol" says that too.
        Backend::Auto => match kernel(kind, protocol) {
            Err(libc::EAFNOSUPPORT) => served(&Backend::Auto, kind, protocol),
            Err(libc::EPROTONOSUPPORT) if protocol == PF_KEY_V2.into() => served(&Backend::Auto, kind, protocol),
            other => other,
        },
        backend => served(&backend, kind, protocol),
    }
}

fn kernel(kind: c_int, protocol: c_int) -> Result<RawFd, c_int> {
    let fd = next::socket(AF_KEY, kind, protocol);
    if fd < 0 { Err(nix::errno::Errno::last_raw()) } else { Ok(fd) }
}

/// The order of the checks is the kernel's (`__sys_socket`, `__sock_create`, `pfkey_create`): flags and the range
/// of types first, then the right to open one, which opening shows, then the type and the protocol.
fn served(backend: &Backend, kind: c_int, protocol: c_int) -> Result<RawFd, c_int> {
    let base = kind & TYPE_MASK;
    let flags = kind & !TYPE_MASK;
    if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 || base >= TYPES {
        return Err(libc::EINVAL);
    }
    let fd = open_with_cloexec(backend).map_err(|error| explain(&error))?;
    if base != libc::SOCK_RAW {
        return Err(libc::ESOCKTNOSUPPORT);
    }
    if protocol != PF_KEY_V2.into() {
        return Err(libc::EPROTONOSUPPORT);
    }
    set_flags(&fd, flags).map_err(|errno| errno as c_int)?;
    Ok(fd.into_raw_fd())
}

fn set_flags(fd: &OwnedFd, flags: c_int) -> nix::Result<()> {
    if flags & libc::SOCK_CLOEXEC == 0 {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    if flags & libc::SOCK_NONBLOCK != 0 {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// An errno is all that `socket` can tell. With `PFKEY_DEBUG` in the environment the reason goes to standard error,
/// such as where pfkeyd was sought.
fn explain(error: &OpenError) -> c_int {
    if std::env::var_os("PFKEY_DEBUG").is_some() {
        use std::io::Write as _;
        let text = format!("libpfkey_preload: socket(PF_KEY): {error}\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    error.errno()
}
