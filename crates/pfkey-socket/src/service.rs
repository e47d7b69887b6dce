//! The machine's pfkeyd: one for all programs, which systemd starts.
//!
//! It can do nothing for a program that the kernel would not let the program do: its requests go through NETLINK_XFRM sockets
//! that the program opened and hands over (`pfkey_wire::hello`).
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use pfkey_wire::Extras;
use pfkey_wire::hello::{
    ALL_SOCKETS, EVENT_BUFFER, Hello, LACKS_SOCKETS, MEETING_LEN, PROTOCOL, QUESTION, SOCKETS, Welcome,
};

use super::report::Report;
use super::sys::meet;
use super::{served, start};

/// Where it listens, in a directory that only root writes to.
pub const SERVICE_PATH: &str = "/run/pfkeyd/pfkeyd.sock";

/// Opens a session.
///
/// # Errors
/// EPERM without the right to open an AF_KEY socket; ECONNREFUSED or ENOENT if nobody listens; EACCES for one that neither root
/// nor this user made; ETIMEDOUT if nobody answers; what the service says: EPROTONOSUPPORT if it speaks another version,
/// ENOBUFS if it has too many clients.
pub(super) fn open(path: &Path, extras: Extras, name: &CStr) -> io::Result<OwnedFd> {
    let end = Instant::now() + start::START_LIMIT;
    let hello = Hello { protocol: PROTOCOL, extras };
    let brought = || Ok([meet::primed_socket()?, meet::primed_socket()?]);
    let is_first_elsewhere =
        |outcome: &io::Result<OwnedFd>| outcome.as_ref().is_err_and(|e| e.raw_os_error() == Some(LACKS_SOCKETS as i32));
    let outcome = meet_with::<SOCKETS>(path, hello, name, end, brought);
    if !is_first_elsewhere(&outcome) {
        return outcome;
    }
    meet_with::<ALL_SOCKETS>(path, hello, name, end, || {
        let [requests, dump] = brought()?;
        let events = meet::primed_socket()?;
        meet::set_receive_buffer(events.as_fd(), EVENT_BUFFER);
        Ok([requests, dump, events, meet::primed_socket()?])
    })
}

/// Says hello, with so many sockets.
fn meet_with<const N: usize>(
    path: &Path,
    hello: Hello,
    name: &CStr,
    end: Instant,
    sockets: impl FnOnce() -> io::Result<[OwnedFd; N]>,
) -> io::Result<OwnedFd> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let fd = begin_to(path)?;
    if !served::is_trusted(fd.as_raw_fd()) {
        return Err(Errno::EACCES.into());
    }
    let sockets = sockets()?;
    match meet::send_with(fd.as_fd(), &hello.to_bytes(), sockets.each_ref().map(AsFd::as_fd)) {
        // It said why before it closed its end.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {}
        sent => sent?,
    }
    // Nobody shall read what the kernel will answer there.
    drop(sockets);
    // What nobody waits for is done while the service looks at the hello.
    set_blocking(&fd)?;
    start::name(&fd, name, &COUNT)?;
    match welcome(&fd, end)?.errno {
        0 => Ok(fd),
        errno => Err(io::Error::from_raw_os_error(errno as i32)),
    }
}

/// A connection, which `connect` waits for no longer than for a pfkeyd's start.
pub(super) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let fd = begin_to(path)?;
    set_blocking(&fd)?;
    Ok(fd)
}

fn set_blocking(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}

/// A connection that does not block yet.
fn begin_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let address = UnixAddr::new(path)?;
    match connect(fd.as_raw_fd(), &address) {
        // A full queue of a pfkeyd that is busy, or stopped.
        Err(Errno::EAGAIN) => {
            set_blocking(&fd)?;
            wait_for_room(&fd, &address)?;
        }
        other => other?,
    }
    Ok(fd)
}

fn wait_for_room(fd: &OwnedFd, address: &UnixAddr) -> io::Result<()> {
    let wait = |seconds| setsockopt(fd, sockopt::SendTimeout, &TimeVal::seconds(seconds));
    wait(start::START_LIMIT.as_secs() as i64)?;
    loop {
        match connect(fd.as_raw_fd(), address) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(wait(0)?)
}

/// Bytes of an answer: a thousand sessions' lines.
const ANSWER: usize = 1 << 17;
/// How long an answer is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Asks the service about itself.
///
/// # Errors
/// As for a session: ECONNREFUSED or ENOENT if nobody listens, EACCES for a stranger, ETIMEDOUT. EPROTO for one that has no answer.
pub fn ask(path: &Path) -> io::Result<Report> {
    let end = Instant::now() + ANSWER_LIMIT;
    let fd = connect_to(path)?;
    if !served::is_trusted(fd.as_raw_fd()) {
        return Err(Errno::EACCES.into());
    }
    match send(fd.as_raw_fd(), &QUESTION, MsgFlags::MSG_NOSIGNAL) {
        // It said why before it closed its end.
        Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut bytes = vec![0; ANSWER];
    let len = receive(&fd, &mut bytes, end)?;
    let said = bytes.get(..len).unwrap_or_default();
    std::str::from_utf8(said).ok().and_then(Report::read).ok_or_else(|| Errno::EPROTO.into())
}

/// Waits for the service's word.
fn welcome(fd: &OwnedFd, end: Instant) -> io::Result<Welcome> {
    let mut bytes = [0; MEETING_LEN];
    let len = receive(fd, &mut bytes, end)?;
    // Too many clients are told with a PF_KEY message of type 0.
    let full = pfkey_wire::Header::read(&bytes).filter(|header| header.msg_type.0 == 0 && header.errno != 0);
    let said = Welcome::read(bytes.get(..len).unwrap_or_default());
    let refused = full.map(|header| Welcome { protocol: 0, errno: header.errno.into() });
    said.or(refused).ok_or_else(|| Errno::EPROTO.into())
}

/// Waits for a message.
fn receive(fd: &OwnedFd, bytes: &mut [u8], end: Instant) -> io::Result<usize> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() as i32).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(Errno::ETIMEDOUT.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        match recv(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(Errno::ECONNRESET.into()),
            Ok(len) => return Ok(len),
            // The last says that it did not read everything, once, and before what it had said.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;
    use crate::sys;

    /// Needs root, to be somebody else.
    #[test]
    fn a_strangers_service_is_not_taken() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: it needs root");
        }
        let path = std::env::temp_dir().join(format!("pfkey-stranger-{}", std::process::id()));
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        let listening = std::thread::spawn(move || {
            // Only this thread's, as the system call makes it.
            sys::become_in_this_thread(4242);
            listen(&fd, Backlog::new(1).unwrap()).unwrap();
            fd
        });
        let _fd = listening.join().unwrap();
        let error = open(&path, Extras::default(), c"service").unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
}
