//! `socket(AF_KEY, …)`.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use pfkey_socket::{Backend, OpenError, goes_beyond_af_key, kernel_serves, open_with_cloexec};
use pfkeyd::log::log;

use super::rights::{become_user_of, join_network, may_administer, namespace};
use super::sys::{Listener, Notification};

/// `PF_KEY_V2`.
const PF_KEY_V2: i32 = 2;
/// `SOCK_TYPE_MASK`: what is left of a type without its flags.
const TYPE_MASK: i32 = 0xf;
/// `SOCK_MAX`: one more than the last type.
const TYPES: i32 = 11;

/// What becomes of the call.
pub enum Opened {
    Descriptor(OwnedFd),
    /// The kernel has AF_KEY.
    Kernel,
}

/// The flags that AF_KEY takes, checked as the kernel does before it looks for AF_KEY.
///
/// # Errors
/// EINVAL.
pub fn flags(kind: i32) -> Result<i32, Errno> {
    let flags = kind & !TYPE_MASK;
    if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 || kind & TYPE_MASK >= TYPES {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

/// Opens a descriptor as the library would in the program: for the network namespace that the thread is in, if it has the right
/// to. In a process of its own, which is in that namespace from then on. The order of the checks is the kernel's
/// (`__sock_create`, `pfkey_create`).
///
/// # Errors
/// AF_KEY's.
pub fn open(listener: &Listener, n: &Notification, kind: i32, protocol: i32) -> Result<Opened, Errno> {
    let flags = flags(kind)?;
    let backend = Backend::from_environment().map_err(|error| explain(&error))?;
    if !goes_beyond_af_key().map_err(|error| explain(&error))? && kernel_serves(&backend) {
        return Ok(Opened::Kernel);
    }
    let thread = n.thread().ok_or(Errno::EAFNOSUPPORT)?;
    let network = match &backend {
        Backend::Embedded => None,
        Backend::Unix(_) => {
            become_user_of(thread).map_err(errno)?;
            None
        }
        _ => {
            let network = namespace(thread, "net").map_err(errno)?;
            if !may_administer(thread, network.as_fd()).map_err(errno)? {
                return Err(Errno::EPERM);
            }
            Some(network)
        }
    };
    if kind & TYPE_MASK != libc::SOCK_RAW {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if protocol != PF_KEY_V2 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    if let Some(network) = network {
        join_network(thread, network.as_fd()).map_err(errno)?;
    }
    // All that was read was of the thread that waits.
    if !listener.is_valid(n.id) {
        return Err(Errno::ESRCH);
    }
    let fd = open_with_cloexec(&backend).map_err(|error| explain(&error))?;
    if flags & libc::SOCK_NONBLOCK != 0 {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    }
    Ok(Opened::Descriptor(fd))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAFNOSUPPORT))
}

/// An errno is all that `socket` can tell. With `PFKEY_DEBUG` in the environment the reason goes to standard error.
fn explain(error: &OpenError) -> Errno {
    if std::env::var_os("PFKEY_DEBUG").is_some() {
        log(&format!("pfkeyd --any: socket(PF_KEY): {error}"));
    }
    Errno::from_raw(error.errno())
}
