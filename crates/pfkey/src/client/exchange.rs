//! How a client's requests are sent, their answers received, and other messages kept.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno as System;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use zeroize::{Zeroize, Zeroizing};

use super::Client;
use crate::calls::{Call, Reply};
use crate::error::Error;
use crate::received::Received;
use crate::transport::{self, Transport, reply_to};
use crate::wire::{Errno, Header, MAX_MESSAGE_LEN, MessageType};

/// More messages than wait on a descriptor, whatever its queue's size is; they may arrive as fast as they are read.
const MOST_WAITING: usize = 1 << 20;

impl Client {
    /// Reads the next answer to a call, and says which it is; keeps what else arrives.
    pub(crate) fn answer<T>(&mut self, call: Call, read: impl FnOnce(&Received<'_>) -> T) -> Result<(Reply, T), Error> {
        let reply = reply_to(&call, self)?;
        // Before it is read, which may panic.
        if reply != Reply::Entry && self.unread == Some(call) {
            self.unread = None;
        }
        self.copied.retain(|other| *other != call);
        if self.promiscuous {
            self.dumped = Header::read(self.message()).filter(|_| call.is_dump());
        }
        let outcome = match (reply, Received::read(self.message())) {
            (Reply::Refused(errno), answer) => Err(call.refused(errno, answer.and_then(|answer| answer.why()))),
            (reply, Some(answer)) => Ok((reply, read(&answer))),
            (_, None) => Err(Error::Incomplete { request: call.request(), missing: "header" }),
        };
        self.wipe();
        outcome
    }

    /// Whether the message received last is of a dump that nobody reads any more.
    pub(super) fn is_unread(&mut self) -> bool {
        let reply = self.unread.zip(Header::read(self.message())).and_then(|(call, header)| call.reply(&header));
        if matches!(reply, Some(Reply::Last | Reply::Refused(_))) {
            self.unread = None;
        }
        reply.is_some()
    }

    /// Whether the message received last is a copy that this descriptor receives because it is promiscuous: of its own request,
    /// or of the entry of a dump that it has read. Each comes once.
    pub(super) fn is_own_copy(&mut self) -> bool {
        let bytes = self.buffer.get(..self.len).unwrap_or_default();
        if let Some(place) = self.copied.iter().position(|call| call.is_copied_by(bytes)) {
            self.copied.swap_remove(place);
            return true;
        }
        // An entry has a number of its own, and its copy comes before the next.
        let again = self.dumped.is_some() && self.dumped == Header::read(bytes);
        if again {
            self.dumped = None;
        }
        again
    }

    /// Receives a message that waits. False: none does.
    fn receive_waiting(&mut self) -> Result<bool, Error> {
        self.wipe();
        self.buffer.resize(MAX_MESSAGE_LEN, 0);
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(System::ECONNRESET) => return Err(Error::Closed),
                Ok(len) => {
                    self.len = len;
                    return Ok(true);
                }
                Err(System::EAGAIN) => return Ok(false),
                Err(System::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Reads what waits before something is asked for: in a queue that is full there is no room for its answer, and what was told
    /// before is no answer to it, whatever its numbers are.
    pub(super) fn make_room(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_WAITING {
            match self.receive_waiting() {
                Ok(true) if self.is_own_copy() => self.keep(),
                Ok(true) => self.set_aside(),
                Ok(false) => break,
                // For whoever wants events.
                Err(Error::Io(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => self.has_lost = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives the next message. False: the deadline passed first.
    pub(super) fn receive_until(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        loop {
            if self.receive_waiting()? {
                return Ok(true);
            }
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(false),
                // Rounded up, so that the last millisecond is slept through.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(System::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Requests were sent: a promiscuous descriptor receives copies of them.
    pub(super) fn expect_copies(&mut self, calls: &[Call]) {
        if self.promiscuous {
            self.copied.extend_from_slice(calls);
        }
    }

    /// Keeps the message received last for whoever wants events.
    fn keep(&mut self) {
        let message = Zeroizing::new(self.message().to_vec());
        self.wipe();
        self.kept.push_back(message);
    }

    /// Makes a message that was kept the last one.
    pub(super) fn hold(&mut self, kept: &[u8]) {
        self.wipe();
        if let Some(place) = self.buffer.get_mut(..kept.len()) {
            place.copy_from_slice(kept);
            self.len = kept.len();
        }
    }

    pub(super) fn wipe(&mut self) {
        self.message().zeroize();
        self.len = 0;
    }
}

impl Transport for Client {
    type Error = Error;

    fn send(&mut self, bytes: &[u8], calls: &[Call]) -> Result<(), Error> {
        self.make_room()?;
        let request = calls.first().map_or(MessageType::default(), Call::request);
        transmit(self.fd.as_fd(), bytes, request)?;
        self.expect_copies(calls);
        Ok(())
    }

    fn begin(&mut self) {
        self.deadline = Instant::now().checked_add(self.limit);
    }

    fn receive(&mut self, call: &Call) -> Result<(), Error> {
        while self.receive_until(self.deadline)? {
            if !self.is_own_copy() {
                return Ok(());
            }
            self.keep();
        }
        Err(Error::NoAnswer { request: call.request(), limit: self.limit })
    }

    fn message(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.len).unwrap_or_default()
    }

    fn set_aside(&mut self) {
        if !self.is_unread() {
            self.keep();
        } else if self.promiscuous {
            self.dumped = Header::read(self.message());
        }
    }
}

/// A client that waits for the answer to X_MIGRATE. Refused, it is answered. Otherwise there is only the notification that
/// everybody receives, and that may be of another's: what else waits is read first.
pub(super) struct Moving<'c> {
    pub(super) client: &'c mut Client,
    pub(super) has_moved: bool,
}

impl Transport for Moving<'_> {
    type Error = Error;

    fn send(&mut self, bytes: &[u8], calls: &[Call]) -> Result<(), Error> {
        Transport::send(self.client, bytes, calls)
    }

    fn begin(&mut self) {
        self.client.begin();
    }

    fn receive(&mut self, call: &Call) -> Result<(), Error> {
        self.client.receive(call)
    }

    fn message(&mut self) -> &mut [u8] {
        self.client.message()
    }

    fn set_aside(&mut self) {
        let header = Header::read(self.client.message());
        if header.is_some_and(|header| (header.msg_type, header.seq) == (MessageType::X_MIGRATE, 0)) {
            self.has_moved = true;
            self.client.deadline = Some(Instant::now());
        }
        self.client.set_aside();
    }
}

/// Sends a request, or the datagram of a batch.
pub(super) fn transmit(fd: BorrowedFd<'_>, bytes: &[u8], request: MessageType) -> Result<(), Error> {
    transport::send(fd, bytes).map_err(|error| match error.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Error::Closed,
        Some(errno @ (libc::EINVAL | libc::EMSGSIZE)) => {
            Error::Refused { request, errno: Errno::from_raw(errno), why: None }
        }
        _ => Error::Io(error),
    })
}
