//! What systemd passes to a service, and what it wants to hear (`sd_listen_fds(3)`, `sd_notify(3)`).
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, getsockname, getsockopt,
    sendto, socket, sockopt,
};
use pfkey_socket::inherited;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// More are not looked at.
const MOST: i32 = 16;

/// The listening socket among what was passed to this process.
pub fn listener() -> Option<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    if number("LISTEN_PID") != Some(std::process::id() as i32) {
        return None;
    }
    let passed = number("LISTEN_FDS")?.clamp(0, MOST);
    // SAFETY: systemd passes them to this process; nothing here has taken them yet.
    let passed = (FIRST..FIRST + passed).filter_map(|raw| unsafe { inherited(raw) }.ok());
    let listener = passed.into_iter().find(listens)?;
    let flags = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).ok()?);
    fcntl(&listener, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).ok()?;
    Some(listener)
}

fn listens(fd: &OwnedFd) -> bool {
    let name = getsockname::<SockaddrStorage>(fd.as_raw_fd());
    name.is_ok_and(|name| name.family() == Some(AddressFamily::Unix))
        && getsockopt(fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket)
        && getsockopt(fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Where to tell it, known before the environment's process confines itself.
#[derive(Clone)]
pub struct Notify(UnixAddr);

impl Notify {
    /// `None` if nobody wants to hear.
    pub fn from_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        let name = name.as_encoded_bytes();
        let address = match name.strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name),
            None => UnixAddr::new(name),
        };
        address.ok().map(Self)
    }

    /// Tells it. What does not arrive is a start that takes too long, which systemd reports.
    pub fn say(&self, words: &str) {
        let flags = SockFlag::SOCK_CLOEXEC;
        if let Ok(fd) = socket(AddressFamily::Unix, SockType::Datagram, flags, None) {
            let _ = sendto(fd.as_raw_fd(), words.as_bytes(), &self.0, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
        }
    }
}
