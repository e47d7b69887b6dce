//! The hub between sessions and an engine: af_key's `pfkey_process` without I/O.

use super::dump::{DumpRun, Progress};
use super::sockets::{Socket, Sockets, registration};
use super::{
    Audience, Context, Errno, KeyEngine, MessageBuffer, PromiscuousCopy, Service, SessionId, SessionState,
    SessionStatistics, Sink, Supported, Time,
};
use pfkey_model::request::is_change;
use pfkey_wire::xfrm::settings::SETTINGS;
use pfkey_wire::{
    ExtensionType, Extras, HEADER_LEN, Header, Message, MessageType, Profile, Rule, SaType, WireError, Writer,
    split_batch,
};

/// SAs and policies in memory, unless [`Hub::set_max_objects`] is told otherwise: about a gigabyte.
pub const MAX_OBJECTS: usize = 2 << 20;

/// `SADB_SATYPE_MAX`.
const MAX_SATYPE: u8 = 9;

/// Sessions in front of one engine. Bytes and a time go in; messages come out through the caller's [`Sink`]
/// before the call returns.
pub struct Hub<E: KeyEngine> {
    pub(super) engine: E,
    pub(super) sockets: Sockets<E::Dump>,
    /// SAs and policies that the engine may hold.
    max_objects: usize,
    /// Where every message is built, the engine's and the hub's own.
    pub(super) buffer: MessageBuffer,
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

impl<E: KeyEngine> Service for Hub<E> {
    fn open(&mut self) -> SessionId {
        let id = self.sockets.open();
        self.buffer.show_xfrm(self.sockets.shows_xfrm());
        id
    }

    fn resume(&mut self, id: SessionId, state: &SessionState, now: Time) -> SessionId {
        if let Some(socket) = self.sockets.sessions.get_mut(id) {
            if let Some(run) = socket.dump.take() {
                self.engine.dump_end(run.into_cursor());
            }
            return id;
        }
        let id = self.open();
        self.restore(id, state, now);
        id
    }

    fn state(&self, id: SessionId) -> SessionState {
        self.sockets.sessions.get(id).map_or_else(SessionState::default, |socket| SessionState {
            registered: socket.registered,
            promiscuous: socket.promiscuous,
            xfrm: socket.xfrm,
            extras: Extras::default(),
            settings: socket.settings.clone(),
            pid: socket.pid,
            dump: socket.dump.as_ref().map(|run| run.header()),
        })
    }

    /// Its registrations, promiscuity and dump end.
    fn close(&mut self, id: SessionId, now: Time) {
        let Some(socket) = self.sockets.close(id) else { return };
        self.buffer.show_xfrm(self.sockets.shows_xfrm());
        if let Some(run) = socket.dump {
            self.engine.dump_end(run.into_cursor());
        }
        if socket.registered != 0 && !self.sockets.is_registered() {
            // Nobody is left to tell of an error.
            let _ = self.engine.set_registered(false, now);
        }
    }

    fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        let header = self.check(bytes)?;
        // X_XFRM is between a session and this hub, as an option of a socket is.
        if header.msg_type != MessageType::X_XFRM {
            self.sockets.delivery(Some(id), sink).broadcast(Audience::Promiscuous, None, bytes);
        }
        self.note_pid(id, header.pid);
        let wraps = self.sockets.dialect.promiscuous_copy == PromiscuousCopy::Wrapped;
        let wrapper = wraps && header.msg_type == MessageType::X_PROMISC && header.len > 2;
        // Words of an earlier request say nothing of this one.
        drop(self.engine.why());
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

    fn receive_all(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> u64 {
        let mut malformed = 0;
        let has_settings = self.sockets.sessions.get(id).is_some_and(|socket| socket.settings.is_some());
        let mut together: Vec<Message<'_>> = Vec::new();
        for one in split_batch(bytes) {
            let full = self.engine.objects() + together.len() >= self.max_objects;
            let plain =
                self.check(one).is_ok_and(|header| is_change(header.msg_type) && !(full && adds(header.msg_type)));
            match Message::parse(one, Profile::Linux) {
                // An engine reports errors to the requester only.
                Ok(message) if plain && !has_settings && self.sockets.dialect.errors == Audience::One => {
                    self.sockets.delivery(Some(id), sink).broadcast(Audience::Promiscuous, None, one);
                    self.note_pid(id, message.header().pid);
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

    fn writable(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        let dumps = self.is_dumping(id);
        self.sockets.sessions.count(id, |statistics| statistics.resumed += u64::from(dumps));
        self.pump(id, now, sink);
    }

    fn is_dumping(&self, id: SessionId) -> bool {
        self.sockets.sessions.get(id).is_some_and(|socket| socket.dump.is_some())
    }

    fn next_deadline(&self) -> Option<Time> {
        self.engine.next_deadline()
    }

    fn advance(&mut self, now: Time, sink: &mut impl Sink) {
        self.with_engine(now, None, sink, |engine, cx| engine.advance(cx));
    }

    fn event(&mut self, now: Time, sink: &mut impl Sink) {
        self.with_engine(now, None, sink, |engine, cx| engine.event(cx));
    }

    fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.sockets.sessions.statistics(id)
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        self.sockets.sessions.all_statistics()
    }

    fn take_refusal(&mut self) -> Option<String> {
        self.buffer.take_refusal()
    }

    fn engine_statistics(&self) -> Option<String> {
        self.engine.statistics()
    }
}

impl<E: KeyEngine> Hub<E> {
    /// A hub without sessions in front of an engine.
    pub fn new(engine: E) -> Self {
        Self {
            sockets: Sockets::new(engine.dialect()),
            engine,
            max_objects: MAX_OBJECTS,
            buffer: MessageBuffer::default(),
        }
    }

    /// Changes how many SAs and policies the engine may hold together (2 097 152) before requests for more get ENOBUFS. An
    /// engine that does not count them ([`KeyEngine::objects`]) has no limit.
    pub const fn set_max_objects(&mut self, objects: usize) {
        self.max_objects = objects;
    }

    /// Opens a session with an id of the caller's, who has several hubs: above those of all that were opened here before.
    pub fn open_as(&mut self, id: SessionId) {
        self.sockets.sessions.open_as(id, Socket::default());
    }

    /// Makes a new session what it was in another process.
    pub fn restore(&mut self, id: SessionId, state: &SessionState, now: Time) {
        let wants = state.registered != 0;
        if wants && (self.sockets.is_registered() || self.engine.set_registered(true, now).is_ok()) {
            self.sockets.register(id, state.registered);
            // An engine that asks another for its algorithms offers in an ACQUIRE what it has asked for.
            let _ = self.engine.supported();
        }
        self.sockets.set_promiscuous(id, state.promiscuous);
        self.show_xfrm(id, state.xfrm);
        self.restore_settings(id, state.settings.clone());
        self.note_pid(id, state.pid);
    }

    /// All sessions that another process had are what they were. An engine that goes on with what another left may still listen for
    /// one that was registered and has gone.
    pub fn all_are_restored(&mut self, now: Time) {
        if !self.sockets.is_registered() {
            // Nobody is there to tell of an error.
            let _ = self.engine.set_registered(false, now);
        }
    }

    /// The engine.
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, to drive it besides PF_KEY (traffic, settings).
    pub const fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Where a session's dump stands: how many messages it has taken from the engine, the one that it holds back
    /// included. `None` when no dump is running.
    pub fn dump_position(&self, id: SessionId) -> Option<u32> {
        self.sockets.sessions.get(id)?.dump.as_ref().map(|run| run.taken())
    }

    /// Calls the engine with a context that delivers to this hub's sessions; for calls that PF_KEY does not have.
    pub fn with_engine<R>(
        &mut self,
        now: Time,
        requester: Option<SessionId>,
        sink: &mut impl Sink,
        call: impl FnOnce(&mut E, &mut Context<'_>) -> R,
    ) -> R {
        let registered = self.sockets.is_registered();
        let mut out = self.sockets.delivery(requester, sink);
        call(&mut self.engine, &mut Context { now, registered, out: &mut out, buffer: &mut self.buffer })
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
            if self.sockets.sessions.iter().any(|(_, socket)| socket.registered & registration(header.satype) != 0) {
                self.send_supported(None, header, &supported, Audience::RegisteredFor(header.satype), sink)?;
            }
        }
        Ok(())
    }

    /// What makes `send` itself fail.
    fn check(&self, bytes: &[u8]) -> Result<Header, WireError> {
        let header = Header::check(bytes, Profile::Linux)?;
        if bytes.len() % 8 != 0 && !self.sockets.dialect.stray_bytes {
            let rule = Rule::Length { header: usize::from(header.len) * 8, actual: bytes.len() };
            return Err(WireError { offset: 4, rule });
        }
        Ok(header)
    }

    fn note_pid(&mut self, id: SessionId, pid: u32) {
        if let Some(socket) = self.sockets.sessions.get_mut(id) {
            socket.pid = pid;
        }
    }

    /// RFC 2367 section 3.1.11: hands a wrapped message to the sockets of a process, or to all, as it is.
    fn unwrap(&mut self, pid: u32, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Errno> {
        let inner = bytes.get(HEADER_LEN..).unwrap_or_default();
        self.check(inner).map_err(|_| Errno::EINVAL)?;
        let named = self.sockets.sessions.iter_mut().filter(|(_, session)| pid == 0 || session.state.pid == pid);
        let mut outcome = Err(Errno::ESRCH);
        for (id, session) in named {
            session.deliver(id, inner, sink);
            outcome = Ok(());
        }
        outcome
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
        let mut delivery = self.sockets.delivery(None, sink);
        self.buffer.write(header, write, |message| delivery.broadcast(audience, one, message)).map(drop)
    }

    /// `pfkey_error`: the request's header with an errno.
    fn report(&mut self, id: SessionId, header: Header, errno: Errno, malformed: bool, sink: &mut impl Sink) {
        let audience = if malformed { Audience::One } else { self.sockets.dialect.errors };
        let why = self.engine.why().filter(|_| !malformed);
        let mut delivery = self.sockets.delivery(None, sink);
        self.buffer.report(header, errno, why.as_deref(), |message| delivery.broadcast(audience, Some(id), message));
    }

    fn dispatch(&mut self, id: SessionId, message: &Message<'_>, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        // What happened before a request is reported before its answer. The hub's own begin with that; engines see to it for
        // theirs.
        match message.header().msg_type {
            MessageType::REGISTER => self.register(id, message.header(), now, sink),
            MessageType::X_PROMISC => self.promisc(id, message, now, sink),
            MessageType::X_XFRM if message.header().satype == SETTINGS => self.take_settings(id, message, now, sink),
            MessageType::X_XFRM => self.xfrm(id, message.header(), now, sink),
            MessageType::DUMP | MessageType::X_SPDDUMP => self.dump(id, message, now, sink),
            msg_type if self.sockets.dialect.unhandled.contains(&msg_type) => Err(Errno::EOPNOTSUPP),
            msg_type if adds(msg_type) && self.is_full() => Err(self.refuse(id, Errno::ENOBUFS)),
            _ => self.handle(id, message, now, sink),
        }
    }

    /// Whether the engine holds as many SAs and policies as it may.
    fn is_full(&self) -> bool {
        self.engine.objects() >= self.max_objects
    }

    /// Counts a request that a limit refuses.
    fn refuse(&mut self, id: SessionId, errno: Errno) -> Errno {
        self.sockets.sessions.count(id, |statistics| statistics.refused += 1);
        errno
    }

    /// `pfkey_register`.
    fn register(&mut self, id: SessionId, header: Header, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        self.event(now, sink);
        let dialect = self.sockets.dialect;
        if header.satype.0 > MAX_SATYPE || header.satype == SaType::UNSPEC && !dialect.register_unspec {
            return Err(Errno::EINVAL);
        }
        let bit = registration(header.satype);
        let socket = self.sockets.sessions.get(id).ok_or(Errno::EINVAL)?;
        if socket.registered & bit != 0 && !dialect.register_again {
            return Err(Errno::EEXIST);
        }
        let is_first = bit != 0 && !self.sockets.is_registered();
        if is_first {
            self.engine.set_registered(true, now)?;
        }
        let supported = self.engine.supported().inspect_err(|_| {
            if is_first {
                // Nobody is registered, and nobody answers an ACQUIRE.
                let _ = self.engine.set_registered(false, now);
            }
        })?;
        self.sockets.register(id, bit);
        // It receives what the engine reports from now on, as `pfkey_register` sets the bit before it makes the answer.
        self.event(now, sink);
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
        let lists = self.sockets.dialect.lists;
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
    fn promisc(&mut self, id: SessionId, message: &Message<'_>, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        self.event(now, sink);
        let header = message.header();
        if header.len != 2 {
            self.sockets.delivery(Some(id), sink).broadcast(Audience::All, None, message.bytes());
            return Ok(());
        }
        if header.satype.0 > 1 {
            return Err(Errno::EINVAL);
        }
        self.sockets.set_promiscuous(id, header.satype.0 == 1);
        self.send(Audience::All, None, Header { errno: 0, ..header }, sink, |_| ())
    }

    /// X_XFRM: the SA type is 1 for a session that wants to be shown X_XFRM extensions, 0 for one that does not.
    fn xfrm(&mut self, id: SessionId, header: Header, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        self.event(now, sink);
        if header.len != 2 || header.satype.0 > 1 {
            return Err(Errno::EINVAL);
        }
        self.show_xfrm(id, header.satype.0 == 1);
        let sessions = &mut self.sockets.sessions;
        self.buffer.write(Header { errno: 0, ..header }, |_| (), |answer| sessions.deliver(id, answer, sink)).map(drop)
    }

    fn show_xfrm(&mut self, id: SessionId, shown: bool) {
        self.sockets.show_xfrm(id, shown);
        self.buffer.show_xfrm(self.sockets.shows_xfrm());
    }

    /// `pfkey_dump`, `pfkey_spddump`.
    fn dump(&mut self, id: SessionId, message: &Message<'_>, now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        self.event(now, sink);
        if self.is_dumping(id) {
            return Err(self.refuse(id, Errno::EBUSY));
        }
        let world = self.sockets.world(id);
        let cursor = self.engine.dump(message, now)?;
        match self.sockets.sessions.get_mut(id) {
            Some(socket) => {
                socket.dump = Some(Box::new(DumpRun::new(cursor, message.header(), world, socket.xfrm)));
            }
            None => self.engine.dump_end(cursor),
        }
        self.pump(id, now, sink);
        Ok(())
    }

    /// Lets a session's dump run until it is done or its queue is full.
    fn pump(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        let Some(mut run) = self.sockets.sessions.get_mut(id).and_then(|socket| socket.dump.take()) else { return };
        // A dump's messages are of class ONE: promiscuous sessions receive them too. Only the requester's own queue
        // holds the dump back.
        let progress = run.pump(
            &mut self.engine,
            now,
            &mut self.buffer,
            &mut self.sockets.delivery(Some(id), sink),
            |delivery| delivery.sink.may_dump(id),
            |delivery, message| {
                let plain = delivery.sockets.plain(id, message);
                if !delivery.sink.deliver_dumped(id, plain.as_ref().map_or(message, |plain| plain.as_slice())) {
                    return false;
                }
                delivery.sockets.sessions.count(id, |statistics| statistics.delivered += 1);
                delivery.broadcast(Audience::Promiscuous, None, message);
                true
            },
        );
        match progress {
            Progress::Suspended => {
                if let Some(socket) = self.sockets.sessions.get_mut(id) {
                    socket.dump = Some(run);
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
