//! What a server serves, whatever the dialect.

use std::sync::Arc;

use super::sockets::registration;
use super::{Errno, SessionId, SessionStatistics, Sink, Time};
use pfkey_model::settings::Settings;
use pfkey_wire::xfrm::settings::{SETTINGS, TEXT};
use pfkey_wire::{Extras, Header, Message, MessageType, Profile, WireError, split_batch};

/// What is known of a session beside its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Bit n: registered for SA type n.
    pub registered: u16,
    /// It gets a copy of every message.
    pub promiscuous: bool,
    /// It is shown X_XFRM extensions.
    pub xfrm: bool,
    /// What it is offered beyond AF_KEY, where sessions differ in that.
    pub extras: Extras,
    /// What its SAs and policies have beyond what it says of them.
    pub settings: Option<Arc<Settings>>,
    /// `sadb_msg_pid` of what it sent last.
    pub pid: u32,
    /// The request of its running dump.
    pub dump: Option<Header>,
}

impl SessionState {
    /// The state after a request was done, which was answered without an error.
    #[must_use]
    pub fn after(mut self, request: &[u8]) -> Self {
        let Some(header) = Header::read(request) else { return self };
        self.pid = header.pid;
        match header.msg_type {
            MessageType::REGISTER => self.registered |= registration(header.satype),
            // The short form; the long one carries a message.
            MessageType::X_PROMISC if header.len == 2 => self.promiscuous = header.satype.0 == 1,
            MessageType::X_XFRM if header.satype == SETTINGS => {
                let message = Message::parse(request, Profile::Linux);
                self.settings = message.ok().and_then(|message| settings_of(&message).ok());
            }
            MessageType::X_XFRM => self.xfrm = header.satype.0 == 1,
            _ => {}
        }
        self
    }
}

/// The settings that a message X_XFRM carries.
///
/// # Errors
/// EINVAL.
pub(super) fn settings_of(message: &Message<'_>) -> Result<Arc<Settings>, Errno> {
    let text = message.xfrm().attributes.payload(TEXT).ok_or(Errno::EINVAL)?;
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    Settings::new(text).map(Arc::new).map_err(|_| Errno::EINVAL)
}

/// Sessions in front of an engine, without I/O and without a clock: [`super::Hub`], or a hub of another stack whose rules are
/// its own. What has a default is of no concern to stacks without dumps, timers, or news of their own.
pub trait Service {
    /// Opens a session.
    fn open(&mut self) -> SessionId;

    /// Opens a session that another process of this server had, or goes on with it where it is known. Its dump, if it had one,
    /// is over.
    fn resume(&mut self, id: SessionId, state: &SessionState, now: Time) -> SessionId {
        let _ = (state, now);
        if self.statistics(id).is_some() { id } else { self.open() }
    }

    /// What would have to be told to [`Service::resume`].
    fn state(&self, id: SessionId) -> SessionState {
        let _ = id;
        SessionState::default()
    }

    /// Saves what another process would need.
    fn checkpoint(&mut self) {}

    /// Closes a session.
    fn close(&mut self, id: SessionId, now: Time);

    /// Takes one message from a session and delivers everything that it causes.
    ///
    /// # Errors
    /// A framing error, which AF_KEY's `send` returns itself; nothing was done and nobody hears of it. Every other
    /// error is a message to the requester.
    fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError>;

    /// Takes several messages that came from a session together. Returns the number of those that were no messages.
    fn receive_all(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> u64 {
        split_batch(bytes).map(|one| u64::from(self.receive(id, one, now, sink).is_err())).sum()
    }

    /// Goes on with a session's dump after its queue has room again.
    fn writable(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        let _ = (id, now, sink);
    }

    /// Whether a session has a dump that waits for [`Service::writable`].
    fn is_dumping(&self, id: SessionId) -> bool {
        let _ = id;
        false
    }

    /// When [`Service::advance`] has to be called next.
    fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Does what is due, or a part of it; [`Service::next_deadline`] says whether there is more.
    fn advance(&mut self, now: Time, sink: &mut impl Sink) {
        let _ = (now, sink);
    }

    /// Takes news that the engine hears of by itself.
    fn event(&mut self, now: Time, sink: &mut impl Sink) {
        let _ = (now, sink);
    }

    /// What was delivered to a session and what it lost; `None` if it is not open.
    fn statistics(&self, id: SessionId) -> Option<SessionStatistics>;

    /// The open sessions, oldest first, with what was delivered to each and what it lost.
    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)>;

    /// The request that was refused last with words beside the errno, once: its type, who made it, and why.
    fn take_refusal(&mut self) -> Option<String> {
        None
    }

    /// A line about the engine itself, if there is something to say.
    fn engine_statistics(&self) -> Option<String> {
        None
    }
}
