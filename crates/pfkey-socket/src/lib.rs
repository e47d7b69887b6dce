//! Opening a PF_KEY descriptor and moving messages over it.
//!
//! [`open`] gives one real descriptor: an AF_KEY socket where the kernel has PF_KEY, otherwise one end of a
//! `SOCK_SEQPACKET` connection that a `pfkeyd` serves. Nothing is remembered about a descriptor: what it is can be
//! asked of the descriptor itself, in whatever process it ended up.
//!
//! What takes over or closes a descriptor by its number is an `unsafe fn`.
//!
//! ```
//! use pfkey_socket::{Backend, check_framing};
//!
//! assert_eq!(Backend::parse(b"embedded").unwrap(), Backend::Embedded);
//! assert_eq!(Backend::parse(b"").unwrap(), Backend::Auto);
//! println!("{}", Backend::parse(b"kernel").unwrap_err());
//!
//! // What AF_KEY's send refuses is refused before it is sent.
//! assert!(check_framing(&[2, 9, 0, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_ok());
//! assert!(check_framing(&[2, 9, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
//! ```
#![deny(unsafe_code)]

mod choose;
mod error;
mod opened;
mod place;
mod remembered;
pub mod report;
mod served;
mod service;
mod settings;
mod start;
mod sys;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

pub use choose::{Backend, extras, goes_beyond_af_key, kernel_serves, open, open_with, open_with_cloexec, set_extras};
pub use error::{OpenError, Step, lacks_xfrm};
pub use place::find_pfkeyd;
pub use remembered::{forget_pfkeyd, remember_pfkeyd};
pub use service::{SERVICE_PATH, ask};
pub use settings::{XfrmText, set_xfrm, xfrm};
pub use sys::cancel;
pub use sys::meet::{Seen, peek_with_descriptors};
pub use sys::{
    Headers, INTERFACE_NAME, REPORT_LEN, accept, become_unprivileged, close, drop_capabilities, file_behind,
    has_file_capabilities, inherited, interface_name, same_namespace, thread_has_net_admin, try_af_key, try_xfrm,
    unread_output,
};

use pfkey_wire::{Header, Profile};

/// Names of descriptors that a pfkeyd serves begin so, in the abstract namespace of AF_UNIX.
const NAME_PREFIX: &[u8] = b"\0pfkey/";

/// The names of those among them whose private pfkeyd speaks XFRM.
const XFRM_PREFIX: &[u8] = b"\0pfkey/xfrm/";

/// Of those that the machine's pfkeyd serves.
const SERVICE_PREFIX: &[u8] = b"\0pfkey/service/";

/// And of those with an embedded engine.
const EMBEDDED_PREFIX: &[u8] = b"\0pfkey/embedded/";

/// Whether a pfkeyd serves this descriptor (it was made by [`open`], here or in another process).
#[must_use]
pub fn is_served(fd: RawFd) -> bool {
    served::is_named(fd, NAME_PREFIX)
}

/// Whether what is behind a descriptor is the kernel's XFRM: an AF_KEY socket, the machine's pfkeyd, or a private one over XFRM.
#[must_use]
pub fn is_xfrm(fd: BorrowedFd<'_>) -> bool {
    let is = |prefix| served::is_named(fd.as_raw_fd(), prefix);
    is(XFRM_PREFIX) || is_service(fd) || sys::is_af_key(fd.as_raw_fd())
}

/// Whether it is a socket of the kernel's AF_KEY.
#[must_use]
pub fn is_af_key(fd: RawFd) -> bool {
    sys::is_af_key(fd)
}

/// Whether the machine's pfkeyd serves it.
#[must_use]
pub fn is_service(fd: BorrowedFd<'_>) -> bool {
    served::is_named(fd.as_raw_fd(), SERVICE_PREFIX)
}

/// Sends one message with one `send`. On a served descriptor it returns when every answer waits there, as
/// AF_KEY's `send` does, and refuses what AF_KEY's `send` refuses; other descriptors get a plain `send` without
/// SIGPIPE.
///
/// # Errors
/// That of `send`; EMSGSIZE or EINVAL for a message with broken framing on a served descriptor.
pub fn send(fd: RawFd, message: &[u8]) -> io::Result<usize> {
    let mut served = opened::is_served(fd) || is_served(fd);
    if served {
        if let Err(error) = check_framing(message) {
            // A number that is remembered may be another's since its descriptor was closed.
            if is_served(fd) {
                return Err(error);
            }
            served = false;
        }
    }
    let sent = sys::send(fd, message)?;
    if served {
        settle(fd);
    }
    Ok(sent)
}

/// Whether a pfkeyd that takes several messages at once serves it: a private one, or the machine's.
#[must_use]
pub fn takes_batches(fd: BorrowedFd<'_>) -> bool {
    let is = |prefix| served::is_named(fd.as_raw_fd(), prefix);
    is(XFRM_PREFIX) || is(EMBEDDED_PREFIX) || is(SERVICE_PREFIX)
}

/// Sends several messages behind [`pfkey_wire::BATCH`], and returns when every answer waits.
///
/// # Errors
/// That of `send`.
pub fn send_batch(fd: RawFd, messages: &[u8]) -> io::Result<()> {
    sys::send(fd, messages)?;
    settle(fd);
    Ok(())
}

/// What AF_KEY's `send` itself would refuse.
///
/// # Errors
/// EMSGSIZE or EINVAL.
pub fn check_framing(message: &[u8]) -> io::Result<()> {
    check_framing_start(message, message.len())
}

/// As [`check_framing`], for a message of `len` bytes of which `start` are at hand; its header is enough.
///
/// # Errors
/// As [`check_framing`].
pub fn check_framing_start(start: &[u8], len: usize) -> io::Result<()> {
    match Header::check_start(start, len, Profile::Linux) {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::from_raw_os_error(error.rule.errno().to_raw())),
    }
}

/// How long a sender waits for a pfkeyd that does not come to its requests, because it or its control group is stopped.
/// What was sent is done when it goes on, and its answers come then. A non-blocking descriptor makes no difference, as
/// it makes none to AF_KEY's `send`: a key manager looks for its answer once, and ends without it. On a busy host a first
/// REGISTER, which loads modules, has taken more than ten seconds.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How long a sender gives its processor away before it sleeps: the answer usually comes within microseconds.
pub const SPIN: Duration = Duration::from_micros(40);

/// Whether the pfkeyd behind a served descriptor has consumed what was sent, or is gone.
#[must_use]
pub fn is_settled(fd: BorrowedFd<'_>) -> bool {
    !sys::has_unread_output(fd.as_raw_fd())
}

/// Waits until the pfkeyd behind a served descriptor has consumed what was sent, which it does after it has
/// queued the answers. Returns at once when it is gone, and in the end when it does not come to it.
pub fn settle(fd: RawFd) {
    let is_consumed = || {
        std::thread::yield_now();
        !sys::has_unread_output(fd)
    };
    // Most often it is so at once, on one processor or on two, and no clock has to be read.
    if is_consumed() {
        return;
    }
    let began = Instant::now();
    while began.elapsed() <= SPIN {
        if is_consumed() {
            return;
        }
    }
    // Asked of the descriptor itself: a number that is remembered may be another's since its descriptor was closed.
    if is_served(fd) {
        sys::wait_consumed(fd, SETTLE_LIMIT);
    }
}

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
