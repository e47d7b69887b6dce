//! Sessions in front of KLIPS's engine (`pfkey_sendmsg`, `pfkey_upmsg`): bytes and a time go in, messages come out.

use super::number::SATYPE_MAX;
use super::parse::check_framing;
use super::{Context, Engine, Sockets};
use pfkey_hub::{Errno, Service, SessionId, SessionStatistics, Sessions, Sink, Time};
use pfkey_wire::{Header, Profile, SaType, WireError, Writer};

/// The registered sessions of each SA type, as often as they registered, the first one first.
type Registered = [Vec<SessionId>; SATYPE_MAX as usize + 1];

/// Sessions in front of one engine. Unlike [`pfkey_hub::Hub`], KLIPS's tells everybody of errors, knows neither dumps
/// nor promiscuous sockets, and registers for one SA type at a time.
#[derive(Default)]
pub struct Hub {
    engine: Engine,
    sessions: Sessions<()>,
    registered: Registered,
}

/// The sockets as the engine sees them.
struct Delivery<'a, S> {
    sessions: &'a mut Sessions<()>,
    registered: &'a mut Registered,
    requester: Option<SessionId>,
    sink: &'a mut S,
}

impl<S: Sink> Sockets for Delivery<'_, S> {
    fn tell_all(&mut self, message: &[u8]) {
        for (id, session) in self.sessions.iter_mut() {
            session.deliver(id, message, self.sink);
        }
    }

    fn tell_requester(&mut self, message: &[u8]) {
        if let Some(id) = self.requester {
            self.sessions.deliver(id, message, self.sink);
        }
    }

    fn tell_registered(&mut self, satype: SaType, message: &[u8]) -> bool {
        let ids = self.registered.get(usize::from(satype.0)).map(Vec::as_slice).unwrap_or_default();
        for id in ids {
            self.sessions.deliver(*id, message, self.sink);
        }
        !ids.is_empty()
    }

    fn register(&mut self, satype: SaType) {
        if let (Some(list), Some(id)) = (self.registered.get_mut(usize::from(satype.0)), self.requester) {
            list.push(id);
        }
    }
}

impl Hub {
    /// A hub without sessions in front of an engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, ..Self::default() }
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to change its settings.
    pub const fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The sessions registered for an SA type, as often as they registered.
    #[must_use]
    pub fn registered(&self, satype: SaType) -> &[SessionId] {
        self.registered.get(usize::from(satype.0)).map(Vec::as_slice).unwrap_or_default()
    }

    /// KLIPS's `write`: takes one message from a session and delivers everything that it causes.
    ///
    /// # Errors
    /// Its errno. Of what is no message nobody else hears; of any other error every session does, by
    /// the request's header with the errno.
    pub fn write(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), Errno> {
        let header = check_framing(bytes).map_err(|error| error.rule.errno())?;
        self.handle(id, bytes, header, now, sink)
    }

    /// Handles a message whose framing is right.
    fn handle(
        &mut self,
        id: SessionId,
        bytes: &[u8],
        header: Header,
        now: Time,
        sink: &mut impl Sink,
    ) -> Result<(), Errno> {
        let mut delivery =
            Delivery { sessions: &mut self.sessions, registered: &mut self.registered, requester: Some(id), sink };
        let outcome = self.engine.request(bytes, header, &mut Context { now, sockets: &mut delivery });
        if let Err(errno) = outcome {
            let report = header.error_report(errno.to_wire());
            let mut bytes = [0; pfkey_wire::HEADER_LEN];
            if let Ok(message) = Writer::new(&mut bytes, report, Profile::Klips).finish() {
                delivery.tell_all(message);
            }
        }
        outcome
    }

    /// Calls the engine with the sessions at hand, for what a data plane asks and tells.
    pub fn with_engine<R>(
        &mut self,
        now: Time,
        sink: &mut impl Sink,
        call: impl FnOnce(&mut Engine, &mut Context<'_>) -> R,
    ) -> R {
        let mut delivery =
            Delivery { sessions: &mut self.sessions, registered: &mut self.registered, requester: None, sink };
        call(&mut self.engine, &mut Context { now, sockets: &mut delivery })
    }
}

impl Service for Hub {
    fn open(&mut self) -> SessionId {
        self.sessions.open(())
    }

    /// Its registrations end.
    fn close(&mut self, id: SessionId, _: Time) {
        self.sessions.close(id);
        for list in &mut self.registered {
            list.retain(|registered| *registered != id);
        }
    }

    fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        let header = check_framing(bytes)?;
        // What a socket's `write` cannot say, the report to everybody says.
        let _ = self.handle(id, bytes, header, now, sink);
        Ok(())
    }

    fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.sessions.statistics(id)
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        self.sessions.all_statistics()
    }

    fn engine_statistics(&self) -> Option<String> {
        let (sas, eroutes) = (self.engine.sadb().iter().count(), self.engine.eroutes().len());
        Some(format!("{sas} SAs, {eroutes} eroutes"))
    }
}
