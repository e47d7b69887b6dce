//! Clients' descriptors as a hub's sink.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, send, setsockopt, sockopt};

use super::keeper::{Keeper, Slot};
use super::limits::{ALL_SEND_BUFFERS, ATTEMPTS, SEND_BUFFER, SMALL_SEND_BUFFER};
use super::outgoing::SendQueue;
use super::{SessionId, Sink};
use pfkey_wire::Header;

/// What became of the first message that waits at a client's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InHand {
    /// Nothing yet.
    Untouched,
    /// So many bytes of a batch are done.
    Batch(usize),
    /// Done, but the dump that it started is still filling the client's queue.
    Dumping,
    /// Done and answered. It has to be taken away, and that failed.
    Done,
}

/// A connected client.
pub(super) struct Connection {
    pub fd: OwnedFd,
    /// Its place with the keeper, if it has one.
    pub slot: Option<Slot>,
    pub in_hand: InHand,
    /// The kernel refused something for want of memory: until the server tries again, no request is looked at.
    pub rests: bool,
    /// Whether epoll is asked for requests, and for room.
    pub asked: (bool, bool),
    /// Messages of a dump or of a batch that are to be sent.
    pub outgoing: SendQueue,
    /// The dump that began last, while it may have to be noted.
    pub dump: Option<Header>,
    /// Turns that ended before their request did.
    pub interrupted: u64,
    /// What the kernel may charge for its buffer, if that counts towards [`ALL_SEND_BUFFERS`].
    reserved: usize,
    /// The same, whether it counts or not.
    buffer: usize,
    /// A dump has filled so much of it that the rest is for answers and news.
    crowded: bool,
}

impl Connection {
    /// Whether a dump has to wait: as with AF_KEY a third of the buffer is for what cannot. Looked at when a part of the dump was
    /// sent.
    fn is_crowded(&mut self) -> bool {
        if self.outgoing.is_empty() {
            self.crowded = pfkey_socket::unread_output(self.fd.as_fd()) > self.buffer / 3 * 2;
        }
        self.crowded
    }
}

/// Whose request is acted on.
pub(super) struct Requester {
    pub id: SessionId,
    pub slot: Slot,
    pub request: Header,
}

impl Requester {
    /// Whether a message answers the request, and is no news that the requester receives as others do.
    fn is_answered_by(&self, answer: &Header) -> bool {
        let name = |header: &Header| (header.msg_type, header.seq, header.pid);
        name(answer) == name(&self.request)
    }
}

/// The clients' descriptors as a hub's sink.
pub(super) struct Connections<K> {
    pub keeper: K,
    /// Whose request is acted on, if its answer has to be noted.
    pub requester: Option<Requester>,
    pub by_session: HashMap<SessionId, Connection>,
    /// Sessions that a send found gone.
    pub gone: Vec<SessionId>,
    /// Sessions that rest from now on.
    pub tired: Vec<SessionId>,
    /// The session whose answers are queued, because many follow each other.
    pub together: Option<SessionId>,
    /// Messages that dumps may still send in this turn.
    left: usize,
    /// The sum of what connections reserved.
    reserved: usize,
}

impl<K: Keeper> Sink for Connections<K> {
    fn deliver(&mut self, to: SessionId, message: &[u8]) -> bool {
        let sent = self.send_or_count(to, message);
        let answers = self.requester.as_ref().filter(|requester| sent && requester.id == to);
        if let Some((requester, answer)) = answers.zip(Header::read(message)) {
            if requester.is_answered_by(&answer) {
                self.keeper.answered(requester.slot, answer.errno);
            }
        }
        sent
    }

    fn deliver_copy(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.send_or_count(to, message)
    }

    fn may_dump(&mut self, to: SessionId) -> bool {
        self.left > 0 && self.has_room(to) && !self.by_session.get_mut(&to).is_some_and(Connection::is_crowded)
    }

    fn deliver_dumped(&mut self, to: SessionId, message: &[u8]) -> bool {
        if !self.has_room(to) {
            return false;
        }
        let Some(connection) = self.by_session.get_mut(&to) else { return false };
        connection.outgoing.push(message);
        self.left = self.left.saturating_sub(1);
        true
    }
}

impl<K: Keeper> Connections<K> {
    /// The same as [`Self::send`]; what is lost of a client that is there is counted.
    fn send_or_count(&mut self, to: SessionId, message: &[u8]) -> bool {
        let sent = self.send(to, message);
        if !sent && self.by_session.contains_key(&to) && !self.gone.contains(&to) {
            self.keeper.lost();
        }
        sent
    }

    /// Sends a message, or queues it behind others; false: it is lost.
    fn send(&mut self, to: SessionId, message: &[u8]) -> bool {
        if self.together == Some(to) {
            return self.deliver_dumped(to, message);
        }
        self.left = self.left.saturating_sub(1);
        // What is queued comes first.
        self.flush(to);
        let Some(connection) = self.by_session.get_mut(&to).filter(|connection| connection.outgoing.is_empty()) else {
            return false;
        };
        for _ in 0..ATTEMPTS {
            match send(connection.fd.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => {
                    return true;
                }
                Err(Errno::EINTR) => {}
                // No room, no memory, or more than the queue could ever hold: it is lost, as AF_KEY loses it.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EMSGSIZE) => return false,
                Err(_) => {
                    self.gone.push(to);
                    return false;
                }
            }
        }
        false
    }
}

impl<K> Connections<K> {
    pub fn new(keeper: K) -> Self {
        Self {
            keeper,
            requester: None,
            by_session: HashMap::new(),
            gone: Vec::new(),
            tired: Vec::new(),
            together: None,
            left: 0,
            reserved: 0,
        }
    }

    /// Begins a turn, in which dumps may send so many messages.
    pub const fn begin_turn(&mut self, dumped: usize) {
        self.left = dumped;
    }

    /// Whether a dump that stopped did so because the turn is over, and not for want of room.
    pub const fn turn_is_over(&self) -> bool {
        self.left == 0
    }

    /// A client, whose descriptor has the buffer that it came with.
    pub fn insert(&mut self, id: SessionId, fd: OwnedFd, slot: Option<Slot>) {
        // Two requests of the same bytes are told apart by it; without it, by nothing.
        let _ = setsockopt(&fd, sockopt::ReceiveTimestampns, &true);
        let connection = Connection {
            fd,
            slot,
            in_hand: InHand::Untouched,
            rests: false,
            asked: (true, false),
            outgoing: SendQueue::default(),
            dump: None,
            interrupted: 0,
            reserved: 0,
            buffer: usize::MAX,
            crowded: false,
        };
        self.by_session.insert(id, connection);
    }

    /// Gives a client's descriptor its buffer: a large one while there are some.
    pub fn give_buffer(&mut self, id: SessionId) {
        let Some(connection) = self.by_session.get_mut(&id) else { return };
        let large = self.reserved + 2 * SEND_BUFFER <= ALL_SEND_BUFFERS;
        let size = if large { SEND_BUFFER } else { SMALL_SEND_BUFFER };
        let fd = &connection.fd;
        // Where the privilege is missing, net.core.wmem_max is the most that can be had.
        if setsockopt(fd, sockopt::SndBufForce, &size).is_err() {
            let _ = setsockopt(fd, sockopt::SndBuf, &size);
        }
        connection.buffer = getsockopt(fd, sockopt::SndBuf).unwrap_or(2 * size);
        connection.reserved = if large { connection.buffer } else { 0 };
        self.reserved += connection.reserved;
    }

    pub fn remove(&mut self, id: SessionId) -> Option<(OwnedFd, Option<Slot>)> {
        let connection = self.by_session.remove(&id)?;
        self.reserved -= connection.reserved;
        Some((connection.fd, connection.slot))
    }

    /// Lets a session rest until the server tries again.
    pub fn rest(&mut self, id: SessionId) {
        let Some(connection) = self.by_session.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.rests, true) {
            self.tired.push(id);
        }
    }

    /// Whether a message can be queued for a session, where necessary after what is queued was sent.
    fn has_room(&mut self, id: SessionId) -> bool {
        let has = |connections: &Self| connections.by_session.get(&id).is_some_and(|c| c.outgoing.has_room());
        has(self) || {
            self.flush(id);
            has(self)
        }
    }

    /// Sends what is queued for a session, as far as its socket takes it.
    pub fn flush(&mut self, id: SessionId) {
        let Some(connection) = self.by_session.get_mut(&id).filter(|c| !c.outgoing.is_empty()) else { return };
        match connection.outgoing.flush(connection.fd.as_fd()) {
            Ok(()) => {}
            Err(Errno::ENOBUFS | Errno::ENOMEM) => self.rest(id),
            Err(_) => self.gone.push(id),
        }
    }
}
