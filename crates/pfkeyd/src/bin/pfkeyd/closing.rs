//! Ending clients' connections without waiting.
//!
//! A message can carry descriptors (SCM_RIGHTS, unix(7)). Whoever takes it away, or closes the connection in which it waits,
//! closes them too, and that can take as long as their sender likes: a TCP socket lingers (SO_LINGER). No socket lingers in a
//! process that ends (inet_release asks for PF_EXITING). So nobody here takes away a message that carries descriptors, and
//! where messages are left in a connection, its last copy belongs to a process that does nothing but end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recvmsg, setsockopt, shutdown, sockopt};
use nix::unistd::Pid;
use pfkeyd::limits::ATTEMPTS;

use super::child::{close_all_but, fork_with};
use super::link::{Kind, Link};

/// Processes that may be ending at once. Some files' close() waits for whoever serves them, even there.
const ENDING: usize = 8;

/// Connections that are to be closed.
#[derive(Default)]
pub struct Closing {
    waiting: Vec<OwnedFd>,
    ending: Vec<Pid>,
}

impl Closing {
    /// Closes a connection; if messages are left in it, as soon as [`Closing::go_on`] can.
    pub fn close(&mut self, connection: OwnedFd) {
        if holds_messages(&connection) {
            self.waiting.push(connection);
        }
    }

    /// Closes what waits for it. False: it must be called again.
    pub fn go_on(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        if self.ending.len() >= ENDING {
            return false;
        }
        let Ok((ours, theirs)) = Link::pair() else { return false };
        let forked = fork_with(|| {
            let kept: Vec<_> = self.waiting.iter().map(AsFd::as_fd).chain([theirs.as_fd()]).collect();
            close_all_but(&kept);
            let _ = theirs.say(Kind::Serving, 0, &[], true);
            // Until the copies here are the last.
            let _ = theirs.hear(true);
            0
        });
        let Ok(pid) = forked else { return false };
        // Its copies of other connections are gone before one here is closed: they must not be the last.
        drop(theirs);
        let _ = ours.hear(true);
        self.ending.push(pid);
        self.waiting.clear();
        drop(ours);
        true
    }

    /// A process of this one has ended.
    pub fn has_ended(&mut self, pid: Pid) {
        self.ending.retain(|other| *other != pid);
    }
}

/// Whether messages are left in a connection, to which none can be added from now on.
fn holds_messages(connection: &OwnedFd) -> bool {
    // With it each message says something beside its bytes, for which there is no room here (MSG_CTRUNC): also an empty one.
    let stamped = setsockopt(connection, sockopt::ReceiveTimestampns, &true).is_ok();
    let closed = shutdown(connection.as_raw_fd(), Shutdown::Read).is_ok();
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut looks = (0..ATTEMPTS).map(|_| recvmsg::<()>(connection.as_raw_fd(), &mut [], None, flags));
    // The second says that the client closed its end before it had read everything, and is said once.
    let look = looks.find(|look| !matches!(look, Err(Errno::EINTR | Errno::ECONNRESET)));
    let is_empty = |look: nix::Result<nix::sys::socket::RecvMsg<'_, '_, ()>>| {
        look.is_ok_and(|look| look.bytes == 0 && !look.flags.contains(MsgFlags::MSG_CTRUNC))
    };
    !(stamped && closed && look.is_some_and(is_empty))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn an_empty_message_is_one() {
        for message in [&b""[..], b"x"] {
            let (ours, theirs) = pair();
            send(theirs.as_raw_fd(), message, MsgFlags::empty()).unwrap();
            assert!(holds_messages(&ours));
        }
    }

    #[test]
    fn nothing_can_be_added_to_what_was_found_empty() {
        let (ours, theirs) = pair();
        assert!(!holds_messages(&ours));
        assert_eq!(send(theirs.as_raw_fd(), b"x", MsgFlags::MSG_NOSIGNAL), Err(Errno::EPIPE));
        drop(theirs);
        assert!(!holds_messages(&ours));
    }
}
