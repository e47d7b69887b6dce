//! The hub between sessions and an engine: af_key's `pfkey_process` and `pfkey_broadcast` without I/O.

use std::collections::BTreeMap;

use super::dump::{DumpRun, Progress};
use super::limits::MAX_OBJECTS;
use super::{
    Audience, Context, Dialect, Errno, KeyEngine, MessageBuffer, Outbox, PromiscuousCopy, SessionId, SessionState,
    Sink, Supported, Time,
};
use zerocopy::IntoBytes as _;
use zeroize::Zeroizing;

use crate::afkey::request::is_change;
use crate::wire::{ExtensionType, Header, Message, MessageType, Profile, Rule, SaType, WireError, Writer, several};

/// `SADB_SATYPE_MAX`.
const MAX_SATYPE: u8 = 9;

/// What a hub counted for a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStatistics {
    /// Messages that its queue took.
    pub delivered: u64,
    /// Messages that were lost because its queue was full.
    pub dropped: u64,
    /// Times that a dump of its went on after it had waited for room, or for others' turns.
    pub resumed: u64,
    /// Requests that a limit refused: a second dump at once (EBUSY), one SA or policy too many (ENOBUFS).
    pub refused: u64,
}

/// An open PF_KEY socket as the hub knows it.
struct Session<D> {
    /// Bit n: registered for SA type n.
    registered: u16,
    promiscuous: bool,
    /// `sadb_msg_pid` of what it sent last.
    pid: u32,
    dump: Option<Box<DumpRun<D>>>,
    statistics: SessionStatistics,
}

type Sessions<D> = BTreeMap<SessionId, Session<D>>;

/// Sessions in front of one engine. Bytes and a time go in; messages come out through the caller's [`Sink`]
/// before the call returns.
pub struct Hub<E: KeyEngine> {
    engine: E,
    dialect: &'static Dialect,
    /// By id; ids grow, so that the newest session is the last.
    sessions: Sessions<E::Dump>,
    next_id: u32,
    /// Number of sessions with a registration.
    registered: usize,
    /// Number of promiscuous sessions.
    promiscuous: usize,
    /// SAs and policies that the engine may hold.
    max_objects: usize,
    /// Where every message is built, the engine's and the hub's own.
    buffer: MessageBuffer,
}

/// Hands messages to their audience.
struct Delivery<'a, D, S> {
    sessions: &'a mut Sessions<D>,
    /// Whether a session is promiscuous; if not, an answer to one session concerns no other.
    promiscuous: bool,
    dialect: &'static Dialect,
    requester: Option<SessionId>,
    sink: &'a mut S,
}

impl<D, S: Sink> Delivery<'_, D, S> {
    fn to(&mut self, id: SessionId, message: &[u8]) -> bool {
        let taken = self.sink.deliver(id, message);
        if let Some(session) = self.sessions.get_mut(&id) {
            count(&mut session.statistics, taken);
        }
        taken
    }

    /// `pfkey_broadcast`: promiscuous copies and everyone in the audience but `one`, newest session first; `one`
    /// last.
    fn broadcast(&mut self, audience: Audience, one: Option<SessionId>, message: &[u8]) -> usize {
        let mut takers = 0;
        let nobody_else = matches!(audience, Audience::One | Audience::Promiscuous) && !self.promiscuous;
        let others = if nobody_else { None } else { Some(self.sessions.iter_mut().rev()) };
        let wraps = self.promiscuous && self.dialect.promiscuous_copy == PromiscuousCopy::Wrapped;
        let wrapped = if wraps { wrap(message) } else { None };
        for (&id, session) in others.into_iter().flatten() {
            if session.promiscuous {
                count(
                    &mut session.statistics,
                    self.sink.deliver(id, wrapped.as_ref().map_or(message, |wrapped| wrapped.as_slice())),
                );
            }
            let hears = match audience {
                Audience::All => true,
                Audience::Registered => session.registered != 0,
                Audience::RegisteredFor(satype) => session.registered & registration(satype) != 0,
                Audience::One | Audience::Promiscuous => false,
            };
            if hears && one != Some(id) {
                let taken = self.sink.deliver(id, message);
                count(&mut session.statistics, taken);
                takers += usize::from(taken);
            }
        }
        if let Some(id) = one {
            takers += usize::from(self.to(id, message));
        }
        takers
    }
}

impl<D, S: Sink> Outbox for Delivery<'_, D, S> {
    fn deliver(&mut self, audience: Audience, message: &[u8]) -> usize {
        let one = if audience == Audience::One { self.requester } else { None };
        self.broadcast(audience, one, message)
    }
}

/// The bit of a registration.
fn registration(satype: SaType) -> u16 {
    if satype == SaType::UNSPEC { 0 } else { 1_u16.checked_shl(satype.0.into()).unwrap_or(0) }
}

/// A request that may add an SA or a policy.
const fn adds(msg_type: MessageType) -> bool {
    matches!(
        msg_type,
        MessageType::GETSPI
            | MessageType::ADD
            | MessageType::X_SPDADD
            | MessageType::X_SPDUPDATE
            | MessageType::X_SPDSETIDX
    )
}

/// A message behind a PROMISC header.
fn wrap(message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let inner = Header::read(message)?;
    let len = u16::try_from(2 + message.len() / 8).ok()?;
    let header = Header { len, ..Header::new(MessageType::X_PROMISC, inner.satype, 0, inner.pid) };
    Some(Zeroizing::new([header.to_layout().as_bytes(), message].concat()))
}

fn count(statistics: &mut SessionStatistics, taken: bool) {
    if taken {
        statistics.delivered += 1;
    } else {
        statistics.dropped += 1;
    }
}

impl<E: KeyEngine> Hub<E> {
    /// A hub without sessions in front of an engine.
    pub fn new(engine: E) -> Self {
        Self {
            dialect: engine.dialect(),
            engine,
            sessions: BTreeMap::new(),
            next_id: 0,
            registered: 0,
            promiscuous: 0,
            max_objects: MAX_OBJECTS,
            buffer: MessageBuffer::default(),
        }
    }

    /// Changes how many SAs and policies the engine may hold together (2 097 152) before requests for more get ENOBUFS. An
    /// engine that does not count them ([`KeyEngine::objects`]) has no limit.
    pub const fn set_max_objects(&mut self, objects: usize) {
        self.max_objects = objects;
    }

    /// The engine.
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, to drive it besides PF_KEY (traffic, settings).
    pub const fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Opens a session.
    pub fn open(&mut self) -> SessionId {
        let id = SessionId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.sessions.insert(
            id,
            Session { registered: 0, promiscuous: false, pid: 0, dump: None, statistics: SessionStatistics::default() },
        );
        id
    }

    /// Opens a session that another process had; one that is known stays, but for its dump, whose rest is lost.
    pub fn resume(&mut self, id: SessionId, state: &SessionState, now: Time) -> SessionId {
        if let Some(session) = self.sessions.get_mut(&id) {
            if let Some(run) = session.dump.take() {
                self.engine.dump_end(run.into_cursor());
            }
            return id;
        }
        let id = self.open();
        let registered =
            state.registered != 0 && (self.registered != 0 || self.engine.set_registered(true, now).is_ok());
        self.registered += usize::from(registered);
        self.promiscuous += usize::from(state.promiscuous);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.registered = if registered { state.registered } else { 0 };
            session.promiscuous = state.promiscuous;
            session.pid = state.pid;
        }
        id
    }

    /// What is known of a session.
    pub fn state(&self, id: SessionId) -> SessionState {
        self.sessions.get(&id).map_or_else(SessionState::default, |session| SessionState {
            registered: session.registered,
            promiscuous: session.promiscuous,
            pid: session.pid,
            dump: session.dump.as_ref().map(|run| run.header()),
        })
    }

    /// Closes a session: its registrations, promiscuity and dump end.
    pub fn close(&mut self, id: SessionId, now: Time) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.promiscuous -= usize::from(session.promiscuous);
        if let Some(run) = session.dump {
            self.engine.dump_end(run.into_cursor());
        }
        if session.registered != 0 {
            self.registered -= 1;
            if self.registered == 0 {
                // Nobody is left to tell of an error.
                let _ = self.engine.set_registered(false, now);
            }
        }
    }

    /// The ids of the open sessions, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }

    /// What was delivered to a session and what it lost.
    pub fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.sessions.get(&id).map(|s| s.statistics)
    }

    /// Whether a session has a dump that waits for [`Hub::writable`].
    pub fn is_dumping(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| s.dump.is_some())
    }

    /// Where a session's dump stands: how many messages it has taken from the engine, the one that it holds back
    /// included. `None` when no dump is running.
    pub fn dump_position(&self, id: SessionId) -> Option<u32> {
        self.sessions.get(&id)?.dump.as_ref().map(|run| run.taken())
    }

    /// Takes one message from a session and delivers everything that it causes.
    ///
    /// # Errors
    /// A framing error, which AF_KEY's `send` returns itself; nothing was done and nobody hears of it. Every other
    /// error is a message to the requester.
    pub fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        let header = self.check(bytes)?;
        self.delivery(Some(id), sink).broadcast(Audience::Promiscuous, None, bytes);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.pid = header.pid;
        }
        let wraps = self.dialect.promiscuous_copy == PromiscuousCopy::Wrapped;
        let wrapper = wraps && header.msg_type == MessageType::X_PROMISC && header.len > 2;
        let (outcome, malformed) = match Message::parse(bytes, Profile::Linux) {
            // What is wrapped is no extension of the wrapper.
            _ if wrapper => (self.unwrap(header.seq, bytes, sink), false),
            Ok(message) => (self.dispatch(id, &message, now, sink), false),
            Err(_) => (Err(Errno::EINVAL), true),
        };
        if let Err(errno) = outcome {
            self.report(id, header, errno, malformed, sink);
        }
        Ok(())
    }

    /// What makes `send` itself fail.
    fn check(&self, bytes: &[u8]) -> Result<Header, WireError> {
        let header = Header::check(bytes, Profile::Linux)?;
        if bytes.len() % 8 != 0 && !self.dialect.stray_bytes {
            let rule = Rule::Length { header: usize::from(header.len) * 8, actual: bytes.len() };
            return Err(WireError { offset: 4, rule });
        }
        Ok(header)
    }

    /// Takes several messages that came from a session together. Gives the number of those that were no messages.
    pub fn receive_all(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> u64 {
        let mut malformed = 0;
        let mut together: Vec<Message<'_>> = Vec::new();
        for one in several(bytes) {
            let full = self.engine.objects() + together.len() >= self.max_objects;
            let plain =
                self.check(one).is_ok_and(|header| is_change(header.msg_type) && !(full && adds(header.msg_type)));
            match Message::parse(one, Profile::Linux) {
                // An engine reports errors to the requester only.
                Ok(message) if plain && self.dialect.errors == Audience::One => {
                    self.delivery(Some(id), sink).broadcast(Audience::Promiscuous, None, one);
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.pid = message.header().pid;
                    }
                    together.push(message);
                }
                _ => {
                    self.with_engine(now, Some(id), sink, |engine, cx| engine.request_all(&together, cx));
                    together.clear();
                    malformed += u64::from(self.receive(id, one, now, sink).is_err());
                }
            }
        }
        self.with_engine(now, Some(id), sink, |engine, cx| engine.request_all(&together, cx));
        malformed
    }

    /// Goes on with a session's dump after its queue has room again.
    pub fn writable(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.statistics.resumed += u64::from(session.dump.is_some());
        }
        self.pump(id, now, sink);
    }

    /// When [`Hub::advance`] has to be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.engine.next_deadline()
    }

    /// Lets the engine do what is due, or a part of it: call again while [`Hub::next_deadline`] has passed.
    pub fn advance(&mut self, now: Time, sink: &mut impl Sink) {
        self.with_engine(now, None, sink, |engine, cx| engine.advance(cx));
    }

    /// Lets the engine take the news of its event sources.
    pub fn event(&mut self, now: Time, sink: &mut impl Sink) {
        self.with_engine(now, None, sink, |engine, cx| engine.event(cx));
    }

    /// Calls the engine with a context that delivers to this hub's sessions; for calls that PF_KEY does not have.
    pub fn with_engine<R>(
        &mut self,
        now: Time,
        requester: Option<SessionId>,
        sink: &mut impl Sink,
        call: impl FnOnce(&mut E, &mut Context<'_>) -> R,
    ) -> R {
        let mut out = Delivery {
            sessions: &mut self.sessions,
            promiscuous: self.promiscuous != 0,
            dialect: self.dialect,
            requester,
            sink,
        };
        let registered = self.registered != 0;
        call(&mut self.engine, &mut Context { now, registered, out: &mut out, buffer: &mut self.buffer })
    }

    fn delivery<'a, S: Sink>(&'a mut self, requester: Option<SessionId>, sink: &'a mut S) -> Delivery<'a, E::Dump, S> {
        Delivery {
            sessions: &mut self.sessions,
            promiscuous: self.promiscuous != 0,
            dialect: self.dialect,
            requester,
            sink,
        }
    }

    /// RFC 2367 section 3.1.11: hands a wrapped message to the sockets of a process, or to all, as it is.
    fn unwrap(&mut self, pid: u32, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Errno> {
        let inner = bytes.get(crate::wire::HEADER_LEN..).unwrap_or_default();
        self.check(inner).map_err(|_| Errno::EINVAL)?;
        let targets: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| pid == 0 || s.pid == pid).map(|(&id, _)| id).collect();
        if targets.is_empty() {
            return Err(Errno::ESRCH);
        }
        for target in targets {
            self.delivery(None, sink).to(target, inner);
        }
        Ok(())
    }

    /// Tells the registered sessions that the engine's algorithms have changed, each for its SA types (RFC 2367
    /// section 3.1.7).
    ///
    /// # Errors
    /// The engine cannot say what it has.
    pub fn algorithms_changed(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        let supported = self.engine.supported()?;
        for satype in 1..=MAX_SATYPE {
            let header = Header::new(MessageType::REGISTER, SaType(satype), 0, 0);
            if self.sessions.values().any(|s| s.registered & registration(header.satype) != 0) {
                self.send_supported(None, header, &supported, Audience::RegisteredFor(header.satype), sink)?;
            }
        }
        Ok(())
    }

    /// Sends a message of the hub's own to an audience; `one` of it comes last.
    fn send(
        &mut self,
        audience: Audience,
        one: Option<SessionId>,
        header: Header,
        sink: &mut impl Sink,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Errno> {
        let mut delivery = Delivery {
            sessions: &mut self.sessions,
            promiscuous: self.promiscuous != 0,
            dialect: self.dialect,
            requester: None,
            sink,
        };
        self.buffer.write(header, write, |message| delivery.broadcast(audience, one, message)).map(drop)
    }

    /// `pfkey_error`: the request's header with an errno.
    fn report(&mut self, id: SessionId, header: Header, errno: Errno, malformed: bool, sink: &mut impl Sink) {
        let audience = if malformed { Audience::One } else { self.dialect.errors };
        // A header always fits.
        let _ = self.send(audience, Some(id), header.error_report(errno.to_wire()), sink, |_| ());
    }

    fn dispatch(&mut self, id: SessionId, message: &Message<'_>, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        match message.header().msg_type {
            MessageType::REGISTER => self.register(id, message.header(), now, sink),
            MessageType::X_PROMISC => self.promisc(id, message, sink),
            MessageType::DUMP | MessageType::X_SPDDUMP => self.dump(id, message, now, sink),
            msg_type if self.dialect.unhandled.contains(&msg_type) => Err(Errno::EOPNOTSUPP),
            msg_type if adds(msg_type) && self.is_full() => Err(self.refuse(id, Errno::ENOBUFS)),
            _ => self.with_engine(now, Some(id), sink, |engine, cx| engine.request(message, cx)),
        }
    }

    /// Whether the engine holds as many SAs and policies as it may.
    fn is_full(&self) -> bool {
        self.engine.objects() >= self.max_objects
    }

    /// Counts a request that a limit refuses.
    fn refuse(&mut self, id: SessionId, errno: Errno) -> Errno {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.statistics.refused += 1;
        }
        errno
    }

    /// `pfkey_register`.
    fn register(&mut self, id: SessionId, header: Header, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        let dialect = self.dialect;
        if header.satype.0 > MAX_SATYPE || header.satype == SaType::UNSPEC && !dialect.register_unspec {
            return Err(Errno::EINVAL);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Err(Errno::EINVAL) };
        let bit = registration(header.satype);
        if session.registered & bit != 0 && !dialect.register_again {
            return Err(Errno::EEXIST);
        }
        let first = session.registered == 0 && bit != 0;
        session.registered |= bit;
        let supported = if first && self.registered == 0 {
            self.engine.set_registered(true, now).and_then(|()| self.engine.supported())
        } else {
            self.engine.supported()
        };
        let supported = match supported {
            Ok(supported) => supported,
            Err(errno) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.registered &= !bit;
                }
                return Err(errno);
            }
        };
        self.registered += usize::from(first);
        let reply = Header { errno: 0, reserved: 0, ..header };
        let audience = (dialect.listeners)(MessageType::REGISTER, header.satype);
        self.send_supported(Some(id), reply, &supported, audience, sink)
    }

    /// A REGISTER message.
    fn send_supported(
        &mut self,
        requester: Option<SessionId>,
        header: Header,
        supported: &Supported,
        audience: Audience,
        sink: &mut impl Sink,
    ) -> Result<(), Errno> {
        let lists = self.dialect.lists;
        self.send(audience, requester, header, sink, |writer| {
            for (ext, algorithms) in [
                (ExtensionType::SUPPORTED_AUTH, &supported.auth),
                (ExtensionType::SUPPORTED_ENCRYPT, &supported.encrypt),
            ] {
                if !algorithms.is_empty() && lists(header.satype, ext) {
                    writer.supported(ext, algorithms);
                }
            }
        })
    }

    /// `pfkey_promisc`: the short form sets the flag; both forms go to everybody.
    fn promisc(&mut self, id: SessionId, message: &Message<'_>, sink: &mut impl Sink) -> Result<(), Errno> {
        let header = message.header();
        if header.len != 2 {
            self.delivery(Some(id), sink).broadcast(Audience::All, None, message.bytes());
            return Ok(());
        }
        if header.satype.0 > 1 {
            return Err(Errno::EINVAL);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            self.promiscuous -= usize::from(session.promiscuous);
            session.promiscuous = header.satype.0 == 1;
            self.promiscuous += usize::from(session.promiscuous);
        }
        self.send(Audience::All, None, Header { errno: 0, ..header }, sink, |_| ())
    }

    /// `pfkey_dump`, `pfkey_spddump`.
    fn dump(&mut self, id: SessionId, message: &Message<'_>, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.is_dumping(id) {
            return Err(self.refuse(id, Errno::EBUSY));
        }
        let cursor = self.engine.dump(message, now)?;
        match self.sessions.get_mut(&id) {
            Some(session) => session.dump = Some(Box::new(DumpRun::new(cursor, message.header()))),
            None => self.engine.dump_end(cursor),
        }
        self.pump(id, now, sink);
        Ok(())
    }

    /// Lets a session's dump run until it is done or its queue is full.
    fn pump(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        let Some(mut run) = self.sessions.get_mut(&id).and_then(|s| s.dump.take()) else { return };
        let mut delivery = Delivery {
            sessions: &mut self.sessions,
            promiscuous: self.promiscuous != 0,
            dialect: self.dialect,
            requester: Some(id),
            sink,
        };
        // A dump's messages are of class ONE: promiscuous sessions hear them too. Only the requester's own queue
        // holds the dump back.
        let progress = run.pump(
            &mut self.engine,
            now,
            &mut self.buffer,
            &mut delivery,
            |delivery| delivery.sink.may_dump(id),
            |delivery, message| {
                if !delivery.sink.deliver_dumped(id, message) {
                    return false;
                }
                if let Some(session) = delivery.sessions.get_mut(&id) {
                    session.statistics.delivered += 1;
                }
                delivery.broadcast(Audience::Promiscuous, None, message);
                true
            },
        );
        match progress {
            Progress::Suspended => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.dump = Some(run);
                }
            }
            Progress::Done => self.engine.dump_end(run.into_cursor()),
            Progress::Failed(errno) => {
                let header = run.header();
                self.engine.dump_end(run.into_cursor());
                self.report(id, header, errno, true, sink);
            }
        }
    }
}
