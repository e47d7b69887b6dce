//! Serving a hub over `SOCK_SEQPACKET` sockets: one epoll loop, the only I/O of this room.
//!
//! A request is peeked, acted on, its answers queued, and only then consumed: a client whose output queue
//! (`SIOCOUTQ`) is empty knows that every answer waits for it, as after AF_KEY's `send`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, accept4, recv, send, setsockopt, sockopt};
use zeroize::Zeroize;

use super::stage::Stage;
use super::{Service, SessionId, Sink, Time};
use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN, SEVERAL};

/// Bytes of answers that may wait for one client; its own `SO_RCVBUF` does not matter on such a socket.
const SEND_BUFFER: usize = 4 << 20;
/// The first size of the receive buffer; larger requests make it grow.
const RECEIVE_BUFFER: usize = 64 * 1024;

const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
/// Marks the engine's event sources; below are sessions.
const ENGINE: u64 = 1 << 32;

/// What ends [`Server::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The last session closed and nobody can open another.
    NoSessions,
    /// SIGTERM or SIGINT.
    Signal(Signal),
    /// A child process of the server changed its state.
    Child,
}

/// A connected client.
struct Connection {
    fd: OwnedFd,
    /// Whether epoll is asked for writability.
    waits_for_room: bool,
    /// Messages of a dump that are to be sent.
    stage: Stage,
}

/// The clients' descriptors as a hub's sink.
struct Connections {
    by_session: HashMap<SessionId, Connection>,
    /// Sessions that a send found gone.
    gone: Vec<SessionId>,
    /// The session whose answers are staged, because many follow each other.
    together: Option<SessionId>,
}

impl Sink for Connections {
    fn deliver(&mut self, to: SessionId, message: &[u8]) -> bool {
        if self.together == Some(to) {
            return self.deliver_dumped(to, message);
        }
        // What was staged comes first.
        self.flush(to);
        let Some(connection) = self.by_session.get_mut(&to).filter(|connection| connection.stage.is_empty()) else {
            return false;
        };
        loop {
            match send(connection.fd.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(_) => {
                    self.gone.push(to);
                    return false;
                }
            }
        }
    }

    fn may_dump(&mut self, to: SessionId) -> bool {
        self.has_room(to)
    }

    fn deliver_dumped(&mut self, to: SessionId, message: &[u8]) -> bool {
        if !self.has_room(to) {
            return false;
        }
        let Some(connection) = self.by_session.get_mut(&to) else { return false };
        connection.stage.push(message);
        true
    }
}

impl Connections {
    /// Whether a message can be staged for a session, where necessary after what is staged was sent.
    fn has_room(&mut self, id: SessionId) -> bool {
        let has = |connections: &Self| connections.by_session.get(&id).is_some_and(|c| c.stage.has_room());
        has(self) || {
            self.flush(id);
            has(self)
        }
    }

    /// Sends what is staged for a session, as far as its socket takes it.
    fn flush(&mut self, id: SessionId) {
        let Some(connection) = self.by_session.get_mut(&id).filter(|c| !c.stage.is_empty()) else { return };
        if connection.stage.flush(connection.fd.as_fd()).is_err() {
            self.gone.push(id);
        }
    }
}

/// Serves the sessions of one hub.
pub struct Server<H: Service> {
    hub: H,
    epoll: Epoll,
    connections: Connections,
    listener: Option<OwnedFd>,
    /// Descriptors ran out: no client is accepted until one goes.
    full: bool,
    signals: Option<SignalFd>,
    buffer: Vec<u8>,
    malformed: u64,
}

fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

impl<H: Service> Server<H> {
    /// A server without sessions.
    ///
    /// # Errors
    /// That of `epoll_create1`, or of adding the engine's event sources.
    pub fn new(hub: H) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, source) in hub.event_sources().into_iter().enumerate() {
            epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, ENGINE + index as u64))?;
        }
        Ok(Self {
            hub,
            epoll,
            connections: Connections { by_session: HashMap::new(), gone: Vec::new(), together: None },
            listener: None,
            full: false,
            signals: None,
            buffer: vec![0; RECEIVE_BUFFER],
            malformed: 0,
        })
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

    /// Serves a connected `SOCK_SEQPACKET` socket as a session.
    ///
    /// # Errors
    /// That of `epoll_ctl`.
    pub fn add(&mut self, fd: OwnedFd) -> io::Result<SessionId> {
        // Where the privilege is missing, net.core.wmem_max is the most that can be had.
        if setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER);
        }
        let id = self.hub.open();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, u64::from(id.0));
        if let Err(errno) = self.epoll.add(&fd, event) {
            self.hub.close(id, now());
            return Err(errno.into());
        }
        self.connections.by_session.insert(id, Connection { fd, waits_for_room: false, stage: Stage::default() });
        Ok(id)
    }

    /// Takes SIGTERM, SIGINT, SIGCHLD and SIGUSR1 (statistics on stderr) from a signalfd; the caller has blocked
    /// them.
    ///
    /// # Errors
    /// That of `epoll_ctl`.
    pub fn signals(&mut self, signals: SignalFd) -> io::Result<()> {
        self.epoll.add(signals.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Serves until there is nothing left to serve, or a signal says so. May be called again.
    ///
    /// # Errors
    /// That of `epoll_wait`.
    pub fn run(&mut self) -> io::Result<Ended> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            if self.listener.is_none() && self.connections.by_session.is_empty() {
                return Ok(Ended::NoSessions);
            }
            let n = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
            if self.hub.next_deadline().is_some_and(|deadline| deadline <= now()) {
                self.hub.advance(now(), &mut self.connections);
            }
            for event in events.iter().take(n) {
                match event.data() {
                    LISTENER => self.accept(),
                    SIGNALS => {
                        if let Some(ended) = self.take_signal() {
                            return Ok(ended);
                        }
                    }
                    session if session < ENGINE => self.session_event(SessionId(session as u32), event.events()),
                    _ => self.hub.event(now(), &mut self.connections),
                }
            }
            self.reap();
        }
    }

    /// Until the engine's next deadline, rounded up so that it has passed when epoll returns.
    fn timeout(&self) -> EpollTimeout {
        let Some(deadline) = self.hub.next_deadline() else { return EpollTimeout::NONE };
        let millis = deadline.saturating_sub(now()).as_nanos().div_ceil(1_000_000).min(3_600_000);
        EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO)
    }

    fn accept(&mut self) {
        use nix::sys::socket::SockFlag;
        let Some(listener) = self.listener.as_ref() else { return };
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => {
                let fd = crate::socket::own(raw);
                if let Err(error) = self.add(fd) {
                    eprintln!("pfkeyd: a client could not be served: {error}");
                }
            }
            // The client went away again, or there are no descriptors left: the others go on.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => {
                // Out of descriptors or memory. The listener would stay readable: look away until a client goes.
                eprintln!("pfkeyd: accept: {errno}");
                self.full = self.epoll.delete(listener).is_ok();
            }
        }
    }

    fn take_signal(&mut self) -> Option<Ended> {
        let info = self.signals.as_ref()?.read_signal().ok()??;
        match Signal::try_from(info.ssi_signo as i32).ok()? {
            Signal::SIGUSR1 => {
                eprint!("{}", self.statistics());
                None
            }
            Signal::SIGCHLD => Some(Ended::Child),
            signal => Some(Ended::Signal(signal)),
        }
    }

    /// What each session received and lost, as text.
    pub fn statistics(&self) -> String {
        let mut text = String::new();
        for (id, s) in self.hub.all_statistics() {
            let (delivered, dropped, resumed) = (s.delivered, s.dropped, s.resumed);
            let _ =
                writeln!(text, "session {}: {delivered} delivered, {dropped} dropped, {resumed} dumps resumed", id.0);
        }
        let _ = writeln!(text, "malformed requests: {}", self.malformed);
        if let Some(line) = self.hub.engine_statistics() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn session_event(&mut self, id: SessionId, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.hub.writable(id, now(), &mut self.connections);
            self.connections.flush(id);
        }
        if flags.contains(EpollFlags::EPOLLIN) {
            self.request(id, flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP));
        } else if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR) {
            self.close(id);
        }
        self.update_interest(id);
    }

    /// Peeks one request, acts, and consumes it.
    fn request(&mut self, id: SessionId, hung_up: bool) {
        let Some(fd) = self.connections.by_session.get(&id).map(|c| c.fd.as_raw_fd()) else { return };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        let len = loop {
            match recv(fd, &mut self.buffer, flags) {
                Ok(len) if len > self.buffer.len() && self.buffer.len() < MAX_MESSAGE_LEN + 8 => {
                    // Only what a message can be; the rest of anything longer is refused unread. The old memory
                    // is given back, so what was peeked is wiped first.
                    self.buffer.zeroize();
                    self.buffer.resize(len.min(MAX_MESSAGE_LEN + 8), 0);
                }
                Ok(len) => break len,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.close(id),
            }
        };
        if len == 0 && hung_up {
            return self.close(id);
        }
        self.malformed += match self.buffer.get(..len) {
            None => 1,
            Some(bytes) => match bytes.split_at_checked(HEADER_LEN) {
                Some((head, messages)) if head == SEVERAL => {
                    self.connections.together = Some(id);
                    let malformed = self.hub.receive_all(id, messages, now(), &mut self.connections);
                    self.connections.together = None;
                    malformed
                }
                _ => u64::from(!self.hub.receive(id, bytes, now(), &mut self.connections)),
            },
        };
        self.connections.flush(id);
        let used = len.min(self.buffer.len());
        self.buffer[..used].zeroize();
        let _ = recv(fd, &mut [], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC);
    }

    /// Asks epoll for writability exactly while a dump waits for room.
    fn update_interest(&mut self, id: SessionId) {
        let dumps = self.hub.is_dumping(id);
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        let waits = dumps || !connection.stage.is_empty();
        if connection.waits_for_room != waits {
            let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            flags.set(EpollFlags::EPOLLOUT, waits);
            let mut event = EpollEvent::new(flags, u64::from(id.0));
            if self.epoll.modify(&connection.fd, &mut event).is_ok() {
                connection.waits_for_room = waits;
            }
        }
    }

    /// Closes the sessions that a send found gone and that epoll will not speak of again.
    fn reap(&mut self) {
        while let Some(id) = self.connections.gone.pop() {
            self.close(id);
        }
    }

    fn close(&mut self, id: SessionId) {
        if let Some(connection) = self.connections.by_session.remove(&id) {
            let _ = self.epoll.delete(&connection.fd);
        }
        self.hub.close(id, now());
        if let (true, Some(listener)) = (self.full, self.listener.as_ref()) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            self.full = self.epoll.add(listener, event).is_err();
        }
    }
}
