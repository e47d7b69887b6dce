//! What systemd passes to a service, and what it wants to hear (`sd_listen_fds(3)`, `sd_notify(3)`).
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, getsockname,
    getsockopt, sendmsg, sendto, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use pfkey_socket::inherited;

use super::link::is_readable_before;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// More are not looked at.
const MOST: i32 = 1 << 16;
/// How long it may take systemd to hear something that must not be lost: less than it gives a service to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was passed to this process.
#[derive(Default)]
pub struct Passed {
    pub listener: Option<OwnedFd>,
    /// All else, by names that are not unique: what this service had given systemd to keep.
    pub kept: Vec<(String, OwnedFd)>,
}

/// Takes what was passed to this process.
pub fn passed() -> Passed {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    if number("LISTEN_PID") != Some(std::process::id() as i32) {
        return Passed::default();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let mut passed = Passed::default();
    for (raw, name) in (FIRST..FIRST + count).zip(names) {
        // SAFETY: systemd passes them to this process; nothing here has taken them yet.
        let Ok(fd) = (unsafe { inherited(raw) }) else { continue };
        if passed.listener.is_none() && listens(&fd) && does_not_block(&fd) {
            passed.listener = Some(fd);
        } else {
            passed.kept.push((name, fd));
        }
    }
    passed
}

fn does_not_block(fd: &OwnedFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).is_ok())
}

/// How many descriptors it keeps for this service. systemd before 254 does not say.
pub fn room() -> Option<usize> {
    std::env::var("FDSTORE").ok()?.parse().ok()
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

    /// Tells it something with descriptors, which arrives.
    ///
    /// # Errors
    /// Those of `sendmsg`; EAGAIN if systemd takes nothing for [`PATIENCE`].
    pub fn say_with(&self, words: &str, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64))?;
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[] } else { &rights[..] };
        let words = [IoSlice::new(words.as_bytes())];
        loop {
            match sendmsg(fd.as_raw_fd(), &words, rights, MsgFlags::MSG_NOSIGNAL, Some(&self.0)) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Waits until it has heard everything (`sd_notify_barrier(3)`); false if it does not within [`PATIENCE`].
    pub fn is_heard(&self) -> bool {
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let Ok((ours, theirs)) = pair else { return false };
        if self.say_with("BARRIER=1", &[theirs.as_fd()]).is_err() {
            return false;
        }
        // It closes the other end then.
        drop(theirs);
        is_readable_before(ours.as_fd(), Instant::now() + PATIENCE)
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
