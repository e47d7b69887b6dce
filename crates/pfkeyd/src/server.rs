//! Serving a hub over `SOCK_SEQPACKET` sockets: one epoll loop, the only I/O of this module.
//!
//! A request is peeked, acted on, its answers queued, and only then consumed: a client whose output queue
//! (`SIOCOUTQ`) is empty knows that every answer waits for it, as after AF_KEY's `send`.
//!
//! Clients take turns. In each round of the loop everyone who asked for something gets one turn: a request, or a part of a
//! batch; then the dumps share what a round has for them. A request that needs more turns stays unconsumed meanwhile.
//!
//! A message that carries descriptors ends its sender's connection. With a [`Keeper`] nothing waits for their close(); without,
//! whoever lets strangers in has to see to that (`SO_PASSRIGHTS`, since Linux 6.16).

mod meet;
mod receive;
mod take_over;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use zeroize::Zeroize;

use super::connection::{Connections, InHand, Requester};
use super::keeper::{Keeper, Nobody};
use super::limits::{self, ATTEMPTS, LEAST_DUMPED, ROUND_DUMPED, TURN_DUMPED};
use super::log::{Seldom, log};
use super::{Service, SessionId, Sources, Time};
use pfkey_wire::{BATCH, HEADER_LEN, Header, split_batch};
use receive::{Consume, Peeked, consume, has_request, peek};
use take_over::is_dump;

/// The first size of the receive buffer; larger requests make it grow.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Clients of a round. Who finds no place in it comes first in the next.
const EVENTS: usize = 256;
/// When something is tried again that the kernel refused for want of memory or descriptors.
const RETRY: Duration = Duration::from_millis(100);
/// Deadlines are the wall clock's, which may be put forward and goes on while the machine sleeps; `epoll_wait`'s clock is not.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

const LISTENER: u64 = u64::MAX;
const KEEPER: u64 = u64::MAX - 1;
/// Marks the engine's event sources; below are sessions.
const ENGINE: u64 = 1 << 32;

/// Serves the sessions of one hub.
pub struct Server<H: Service + Sources, K: Keeper = Nobody> {
    hub: H,
    epoll: Epoll,
    connections: Connections<K>,
    listener: Option<OwnedFd>,
    /// Descriptors or memory ran out: no client is accepted until one goes, or until it is time to try again.
    deaf: bool,
    /// Sessions that rest.
    resting: Vec<SessionId>,
    /// When to try again what `deaf` and `resting` speak of.
    retry: Option<Instant>,
    /// Its keeper may have more clients for it.
    kept: bool,
    /// It has taken over all clients that another server had.
    complete: bool,
    /// Its keeper wants it to end.
    leaves: bool,
    buffer: Vec<u8>,
    /// Room for what the kernel says beside a message.
    control: Vec<u8>,
    malformed: u64,
    max_clients: usize,
    refused: u64,
    /// What is said of requests that were refused with words.
    refusals: Seldom,
    /// The last client was refused or could not be accepted, and that was said.
    full: bool,
    consume: Consume,
}

/// What is done of a batch after a turn.
#[derive(Clone, Copy)]
struct Part {
    /// Bytes.
    done: usize,
    is_all: bool,
}

fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

impl<H: Service + Sources> Server<H> {
    /// A server without sessions.
    ///
    /// # Errors
    /// That of `epoll_create1`, or of adding the engine's event sources.
    pub fn new(hub: H) -> io::Result<Self> {
        Self::with_keeper(hub, Nobody)
    }
}

impl<H: Service + Sources, K: Keeper> Server<H, K> {
    /// A server whose clients come from a keeper, and go on after it.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_keeper(hub: H, keeper: K) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, source) in hub.event_sources().into_iter().enumerate() {
            epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, ENGINE + index as u64))?;
        }
        let kept = match keeper.source() {
            Some(source) => epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, KEEPER)).map(|()| true)?,
            None => false,
        };
        Ok(Self {
            hub,
            epoll,
            connections: Connections::new(keeper),
            listener: None,
            deaf: false,
            resting: Vec::new(),
            retry: None,
            kept,
            complete: !kept,
            leaves: false,
            buffer: vec![0; RECEIVE_BUFFER],
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
            malformed: 0,
            max_clients: limits::clients(),
            refused: 0,
            refusals: Seldom::default(),
            full: false,
            consume,
        })
    }

    /// Changes how many clients [`Server::admit`] takes: 1024, or fewer where this process may not have so many descriptors
    /// (`RLIMIT_NOFILE` when the server was made).
    pub const fn set_max_clients(&mut self, clients: usize) {
        self.max_clients = clients;
    }

    /// Accepts clients from a listening `SOCK_SEQPACKET` socket.
    ///
    /// # Errors
    /// That of `epoll_ctl`.
    pub fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Serves a connected `SOCK_SEQPACKET` socket as a session, however many there are.
    ///
    /// # Errors
    /// That of `epoll_ctl`.
    pub fn add(&mut self, fd: OwnedFd) -> io::Result<SessionId> {
        let id = self.open(&fd)?;
        self.connections.insert(id, fd, None);
        self.connections.give_buffer(id);
        Ok(id)
    }

    fn open(&mut self, fd: &OwnedFd) -> nix::Result<SessionId> {
        let id = self.hub.open();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, u64::from(id.0));
        self.epoll.add(fd, event).inspect_err(|_| self.hub.close(id, now()))?;
        Ok(id)
    }

    /// Serves a client that has just connected, unless there are too many: then it gets a message of type 0 with the errno
    /// ENOBUFS, and the end of the connection.
    pub fn admit(&mut self, fd: OwnedFd) -> Option<SessionId> {
        let clients = self.connections.by_session.len();
        if clients < self.max_clients {
            self.full = false;
            match self.open(&fd) {
                Ok(id) => {
                    self.connections.insert(id, fd, None);
                    self.connections.give_buffer(id);
                    return Some(id);
                }
                Err(errno) => log(&format!("pfkeyd: a client could not be served: {errno}")),
            }
        } else if !std::mem::replace(&mut self.full, true) {
            log(&format!("pfkeyd: there are {clients} clients; others are refused"));
        }
        self.refused += 1;
        limits::refuse(fd.as_fd());
        None
    }

    /// Serves until the last session has closed and nobody can open another, or until the keeper wants it to end. May be called
    /// again.
    ///
    /// # Errors
    /// That of `epoll_wait`.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut dumping = Vec::new();
        self.take_all_over()?;
        loop {
            if self.leaves {
                // Else what the one before left is as it was.
                if self.complete {
                    self.connections.keeper.leave();
                }
                return Ok(());
            }
            if self.listener.is_none() && !self.kept && self.connections.by_session.is_empty() {
                return Ok(());
            }
            let n = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
            if self.retry.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
            if self.hub.next_deadline().is_some_and(|deadline| deadline <= now()) {
                self.hub.advance(now(), &mut self.connections);
            }
            for event in events.iter().take(n) {
                match event.data() {
                    LISTENER => self.accept(),
                    KEEPER => self.hear_keeper(),
                    session if session < ENGINE => {
                        let id = SessionId(session as u32);
                        if self.session_event(id, event.events()) {
                            dumping.push(id);
                        }
                    }
                    _ => self.hub.event(now(), &mut self.connections),
                }
            }
            let share = (ROUND_DUMPED / dumping.len().max(1)).max(LEAST_DUMPED);
            for id in dumping.drain(..) {
                self.go_on(id, share);
            }
            self.reap();
        }
    }

    /// Until the engine's next deadline, rounded up so that it has passed when epoll returns, or until something is tried
    /// again.
    fn timeout(&self) -> EpollTimeout {
        let deadline = self.hub.next_deadline().map(|deadline| deadline.saturating_sub(now()).min(LONGEST_SLEEP));
        let retry = self.retry.map(|at| at.saturating_duration_since(Instant::now()));
        let Some(wait) = deadline.into_iter().chain(retry).min() else { return EpollTimeout::NONE };
        let millis = wait.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO)
    }

    fn accept(&mut self) {
        let Some(listener) = self.listener.as_ref() else { return };
        match pfkey_socket::accept(listener.as_fd()) {
            Ok(client) => {
                self.admit(client);
            }
            // The client went away again: the others go on.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => {
                // Out of descriptors or memory. The listener would stay readable: look away for a while.
                if !std::mem::replace(&mut self.full, true) {
                    log(&format!("pfkeyd: accept: {errno}"));
                }
                self.deaf = self.epoll.delete(listener).is_ok();
                self.retry_soon();
            }
        }
    }

    fn listen_again(&mut self) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.deaf) else { return };
        self.deaf = self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).is_err();
        if self.deaf {
            self.retry_soon();
        }
    }

    fn retry_soon(&mut self) {
        self.retry.get_or_insert_with(|| Instant::now() + RETRY);
    }

    /// Tries what the kernel refused.
    fn try_again(&mut self) {
        self.retry = None;
        self.listen_again();
        for id in std::mem::take(&mut self.resting) {
            let Some(connection) = self.connections.by_session.get_mut(&id) else { continue };
            connection.rests = false;
            self.connections.flush(id);
            self.update_interest(id);
        }
    }

    /// What each session received and lost, and what was refused, as text.
    pub fn statistics(&self) -> String {
        let mut text = String::new();
        for (id, s) in self.hub.all_statistics() {
            let (delivered, dropped, resumed, refused) = (s.delivered, s.dropped, s.resumed, s.refused);
            let interrupted = self.connections.by_session.get(&id).map_or(0, |connection| connection.interrupted);
            let _ = writeln!(
                text,
                "session {}: {delivered} delivered, {dropped} dropped, {resumed} dumps resumed, {refused} refused, \
                 {interrupted} interrupted",
                id.0
            );
        }
        let _ = writeln!(text, "malformed requests: {}", self.malformed);
        let (clients, most, refused) = (
            self.connections.by_session.len(),
            self.max_clients,
            self.refused.saturating_add(self.connections.keeper.refused()),
        );
        let _ = writeln!(text, "clients: {clients} of {most}, {refused} refused");
        if let Some(line) = self.hub.engine_statistics() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// A client's turn. True: its dump wants to go on.
    fn session_event(&mut self, id: SessionId, flags: EpollFlags) -> bool {
        let Some(connection) = self.connections.by_session.get(&id) else { return false };
        let mut dumps = flags.contains(EpollFlags::EPOLLOUT);
        if connection.rests {
            // Who hangs up is reported unasked, again and again.
            if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                self.close(id);
            }
            return false;
        }
        if connection.in_hand == InHand::Dumping {
            dumps = true;
        } else if flags.contains(EpollFlags::EPOLLIN) {
            self.request(id, flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP));
            dumps |= self.connections.by_session.get(&id).is_some_and(|c| c.in_hand == InHand::Dumping);
        } else if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR) {
            self.close(id);
        }
        if !dumps {
            self.update_interest(id);
        }
        dumps
    }

    /// Goes on with a dump, for so many messages.
    fn go_on(&mut self, id: SessionId, messages: usize) {
        self.connections.begin_turn(messages);
        self.hub.writable(id, now(), &mut self.connections);
        self.connections.flush(id);
        self.note(id);
        if self.connections.by_session.get(&id).is_some_and(|c| c.in_hand == InHand::Dumping) {
            self.end_turn(id, None);
        }
        self.update_interest(id);
    }

    /// Peeks one request, acts, and consumes it if it is done.
    fn request(&mut self, id: SessionId, hung_up: bool) {
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        if connection.in_hand == InHand::Done {
            return self.consume(id);
        }
        let done = if let InHand::Batch(done) = connection.in_hand { done } else { 0 };
        let Peeked { len, sent, carries } = match peek(connection.fd.as_fd(), &mut self.buffer, &mut self.control) {
            Ok(peeked) => peeked,
            Err(Errno::EAGAIN) => return,
            Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => return self.connections.rest(id),
            Err(_) => return self.close(id),
        };
        // No request of PF_KEY does, and taking it away could take for ever.
        if carries {
            self.malformed += 1;
            return self.close(id);
        }
        // Empty: a client that waits until its session is there, or the end.
        if len == 0 {
            return if hung_up { self.close(id) } else { self.consume(id) };
        }
        let request = self.buffer.get(..HEADER_LEN.min(len)).and_then(Header::read);
        if let Some(slot) = connection.slot {
            self.connections.keeper.begin(slot, sent, done);
            self.connections.requester = request.map(|request| Requester { id, slot, request });
            connection.dump = request.filter(is_dump).or(connection.dump);
        }
        self.connections.begin_turn(TURN_DUMPED);
        let mut batch = None;
        self.malformed += match self.buffer.get(..len) {
            None => 1,
            Some(bytes) => match bytes.split_at_checked(HEADER_LEN) {
                Some((head, messages)) if head == BATCH => {
                    let rest = messages.get(done..).unwrap_or_default();
                    let turn = limits::turn(rest, self.connections.by_session.len());
                    self.connections.together = Some(id);
                    let (these, others) = rest.split_at_checked(turn).unwrap_or_default();
                    let malformed = self.hub.receive_all(id, these, now(), &mut self.connections);
                    self.connections.together = None;
                    let is_all = split_batch(others).next().is_none();
                    batch = Some(Part { done: done + turn, is_all });
                    malformed
                }
                _ => u64::from(self.hub.receive(id, bytes, now(), &mut self.connections).is_err()),
            },
        };
        let refusal = self.hub.take_refusal();
        if let Some(line) = refusal.and_then(|refusal| self.refusals.line(&refusal, Instant::now())) {
            log(&line);
        }
        self.connections.flush(id);
        self.connections.requester = None;
        let used = len.min(self.buffer.len());
        self.buffer[..used].zeroize();
        // Before the request is consumed: a server that ends in between is told of it by the request.
        self.note(id);
        self.end_turn(id, batch);
    }

    /// Consumes the request in hand, unless something of it is left: the rest of a batch, or the beginning of a dump, which
    /// goes on until the client's queue is full.
    fn end_turn(&mut self, id: SessionId, batch: Option<Part>) {
        let dumps = self.hub.is_dumping(id) && self.connections.turn_is_over();
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        if let Some((slot, part)) = connection.slot.zip(batch) {
            self.connections.keeper.done(slot, part.done);
        }
        connection.in_hand = match batch {
            Some(Part { done, is_all: false }) => InHand::Batch(done),
            None if dumps => InHand::Dumping,
            _ => return self.consume(id),
        };
        connection.interrupted += 1;
    }

    /// Takes away the message that was acted on. If that fails it is remembered: no request is done twice.
    fn consume(&mut self, id: SessionId) {
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        connection.in_hand = InHand::Done;
        for _ in 0..ATTEMPTS {
            match (self.consume)(connection.fd.as_fd()) {
                Ok(_) => {
                    connection.in_hand = InHand::Untouched;
                    if let Some(slot) = connection.slot {
                        self.connections.keeper.end(slot);
                    }
                    return;
                }
                // The second says that the client closed its end before it had read everything, and is said once.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(_) => break,
            }
        }
        self.connections.rest(id);
    }

    /// Asks epoll for requests unless the session rests, and for writability exactly while a dump waits for room.
    fn update_interest(&mut self, id: SessionId) {
        let dumps = self.hub.is_dumping(id);
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        if !dumps {
            connection.outgoing.release();
        }
        let wanted = (!connection.rests, !connection.rests && (dumps || !connection.outgoing.is_empty()));
        if connection.asked != wanted {
            let mut flags = EpollFlags::empty();
            flags.set(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, wanted.0);
            flags.set(EpollFlags::EPOLLOUT, wanted.1);
            let mut event = EpollEvent::new(flags, u64::from(id.0));
            match self.epoll.modify(&connection.fd, &mut event) {
                Ok(()) => connection.asked = wanted,
                Err(_) => self.connections.rest(id),
            }
        }
    }

    /// Closes the sessions that a send found gone, once everything is done that they had asked for, and lets those rest that
    /// have to.
    fn reap(&mut self) {
        for id in std::mem::take(&mut self.connections.tired) {
            self.update_interest(id);
            self.resting.push(id);
            self.retry_soon();
        }
        while let Some(id) = self.connections.gone.pop() {
            if !self.connections.by_session.get(&id).is_some_and(|connection| has_request(connection.fd.as_fd())) {
                self.close(id);
            }
        }
    }

    fn close(&mut self, id: SessionId) {
        let removed = self.connections.remove(id);
        if let Some((fd, _)) = &removed {
            let _ = self.epoll.delete(fd);
        }
        self.hub.close(id, now());
        if let Some(slot) = removed.and_then(|(_, slot)| slot) {
            self.connections.keeper.release(slot);
        }
        self.listen_again();
    }
}
