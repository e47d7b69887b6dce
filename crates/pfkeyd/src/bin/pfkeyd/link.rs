//! What processes of this program say to each other: messages of two numbers, some with a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg,
    shutdown, socketpair,
};

/// How long a process waits when the kernel has no memory for what it asks.
pub const SHORTAGE: Duration = Duration::from_millis(10);

/// Waits until something can be read, or the other side is gone, or the end; false: not in time.
pub fn is_readable_before(fd: BorrowedFd<'_>, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            readable => return readable.is_ok_and(|n| n > 0),
        }
    }
}

/// Descriptors that come with a message at most.
const MOST: usize = 1 + pfkey_wire::hello::ALL_SOCKETS;

/// A message's meaning, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// To the worker and the door: a client's slot, descriptor, and sockets that it brought. Back to the guardian: it came
    /// without them.
    Client = 1,
    /// To the worker: statistics, please.
    Statistics = 2,
    /// To a standby: a worker is wanted, whose end of its link comes with it.
    Activate = 3,
    /// To the guardian: it serves.
    Serving = 4,
    /// To the guardian: a slot is free.
    Released = 5,
    /// To the guardian: a standby's link. To the worker: there is none any more.
    Standby = 6,
    /// To the worker: those were all clients that another had.
    All = 7,
    /// To a supervisor: where the kernel tells of a program's system calls.
    Listener = 8,
    /// To a supervisor: a descriptor that was opened for a program, or the errno, or 0 if the kernel is to open it.
    Opened = 9,
    /// To the guardian: the sockets that a client brought. From a worker, without any: it needs no more than the first two.
    Sockets = 10,
    /// The sockets of an engine, by its number. To the guardian without any: it is gone.
    Engine = 11,
    /// To the worker: does its loop go round? And back: it does.
    Alive = 12,
    /// To the guardian: a client asks about pfkeyd.
    Question = 13,
    /// To the worker: it is to end when the round is over.
    Leave = 14,
}

/// One message.
#[derive(Debug)]
pub struct Heard {
    pub kind: Kind,
    pub value: u32,
    pub fds: Vec<OwnedFd>,
}

/// One end of the connection.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Link> for OwnedFd {
    fn from(link: Link) -> Self {
        link.0
    }
}

impl From<OwnedFd> for Link {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Link {
    /// Both ends.
    pub fn pair() -> nix::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// The other side hears the end, now.
    pub fn end(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }

    /// The other side hears the end; what it says is heard.
    pub fn stop_saying(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// Sends a message; waits for room, and for memory, if `wait`: as long as there is another side.
    ///
    /// # Errors
    /// Those of `sendmsg`; EAGAIN without room.
    pub fn say(&self, kind: Kind, value: u32, fds: &[BorrowedFd<'_>], wait: bool) -> nix::Result<()> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&(kind as u32).to_ne_bytes());
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[] } else { &rights[..] };
        let flags = if wait { MsgFlags::MSG_NOSIGNAL } else { MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT };
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None) {
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN) if wait => std::thread::sleep(SHORTAGE),
                other => return other.map(|_| ()),
            }
        }
    }

    /// Receives a message; `None` at the end of the other side.
    ///
    /// # Errors
    /// Those of `recvmsg`; EAGAIN if none waits and `wait` is false; EPROTO for what is none.
    #[allow(unsafe_code)]
    pub fn hear(&self, wait: bool) -> nix::Result<Option<Heard>> {
        let mut bytes = [0; 8];
        let mut space = nix::cmsg_space!([RawFd; MOST]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let (len, fds) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                // The other side ended without having read everything. Told once, before what it had sent.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                // The other side lives, and what it said still waits.
                Err(Errno::ENOBUFS | Errno::ENOMEM) => {
                    std::thread::sleep(SHORTAGE);
                    if !wait {
                        return Err(Errno::EAGAIN);
                    }
                }
                Err(errno) => return Err(errno),
                Ok(message) => {
                    let raw = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
                        ControlMessageOwned::ScmRights(fds) => Some(fds),
                        _ => None,
                    });
                    // SAFETY: the kernel has just made them for this process.
                    let own = |raw| unsafe { OwnedFd::from_raw_fd(raw) };
                    let mut fds: Vec<OwnedFd> = raw.into_iter().flatten().map(own).collect();
                    // There were no numbers for all of them.
                    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
                        fds.clear();
                    }
                    break (message.bytes, fds);
                }
            }
        };
        let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let kinds = [
            Kind::Client,
            Kind::Statistics,
            Kind::Activate,
            Kind::Serving,
            Kind::Released,
            Kind::Standby,
            Kind::All,
            Kind::Listener,
            Kind::Opened,
            Kind::Sockets,
            Kind::Engine,
            Kind::Alive,
            Kind::Question,
            Kind::Leave,
        ];
        match (len, kinds.into_iter().find(|kind| *kind as u32 == number(0))) {
            (0, _) => Ok(None),
            (8, Some(kind)) => Ok(Some(Heard { kind, value: number(4), fds })),
            _ => Err(Errno::EPROTO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_the_end_is_heard() {
        let (guardian, worker) = Link::pair().unwrap();
        guardian.say(Kind::Client, 3, &[guardian.as_fd()], false).unwrap();
        worker.say(Kind::Serving, 1, &[], false).unwrap();
        drop(guardian);
        assert!(matches!(worker.hear(false), Ok(Some(Heard { kind: Kind::Client, value: 3, fds })) if fds.len() == 1));
        // Waits: a process that another test forked may have a copy for a moment.
        assert!(matches!(worker.hear(true), Ok(None)));
    }
}
