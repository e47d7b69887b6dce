//! What systemd passes to a service, and what it wants to hear (`sd_listen_fds(3)`, `sd_notify(3)`).
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

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

/// How often it wants to hear that this process lives (`sd_watchdog_enabled(3)`); `None`: not at all.
pub fn watchdog() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    interval(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

/// The same from the two variables, in the process with this number.
fn interval(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let micros: u64 = micros?.parse().ok().filter(|micros| !matches!(*micros, 0 | u64::MAX))?;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then(|| Duration::from_micros(micros))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_of_the_process_that_it_names() {
        let second = Some(Duration::from_secs(1));
        let second_of = |pid| interval(Some("1000000"), pid, 7);
        assert_eq!([second_of(None), second_of(Some("7")), second_of(Some("8"))], [second, second, None]);
    }

    #[test]
    fn what_is_no_number_is_no_watchdog() {
        for micros in [None, Some(""), Some("0"), Some("1s"), Some("-1"), Some("18446744073709551615")] {
            assert_eq!(interval(micros, None, 7), None, "{micros:?}");
        }
        assert_eq!(interval(Some("1000000"), Some("x"), 7), None);
    }
}
