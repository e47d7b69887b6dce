//! The open sessions of a hub, whatever its dialect, and what was delivered to each.

use std::collections::BTreeMap;

use super::{SessionId, Sink};

/// What was delivered to a session, and what it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStatistics {
    /// Messages that its queue took.
    pub delivered: u64,
    /// Messages that were lost because its queue was full.
    pub dropped: u64,
    /// How often its dump went on after it had waited for room, or for others' turns.
    pub resumed: u64,
    /// Requests that a limit refused: a second dump at once (EBUSY), one SA or policy too many (ENOBUFS).
    pub refused: u64,
}

/// An open session.
#[derive(Debug)]
pub struct Session<X> {
    /// What its hub keeps of it.
    pub state: X,
    /// What was delivered to it.
    pub statistics: SessionStatistics,
}

impl<X> Session<X> {
    /// Hands it a message. False: it was lost.
    pub fn deliver(&mut self, id: SessionId, message: &[u8], sink: &mut impl Sink) -> bool {
        let taken = sink.deliver(id, message);
        self.count(taken)
    }

    /// Hands it the copy of a message that a promiscuous session receives. False: it was lost.
    pub(crate) fn deliver_copy(&mut self, id: SessionId, message: &[u8], sink: &mut impl Sink) -> bool {
        let taken = sink.deliver_copy(id, message);
        self.count(taken)
    }

    const fn count(&mut self, taken: bool) -> bool {
        self.statistics.delivered += taken as u64;
        self.statistics.dropped += !taken as u64;
        taken
    }
}

/// Sessions by id. Ids grow, so that the newest is the last.
#[derive(Debug)]
pub struct Sessions<X> {
    by_id: BTreeMap<SessionId, Session<X>>,
    next_id: u32,
}

impl<X> Default for Sessions<X> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), next_id: 0 }
    }
}

impl<X> Sessions<X> {
    /// Opens one.
    pub fn open(&mut self, state: X) -> SessionId {
        let id = SessionId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.by_id.insert(id, Session { state, statistics: SessionStatistics::default() });
        id
    }

    /// Opens one with an id of the caller's choice, which is above those of all that were opened before.
    pub fn open_as(&mut self, id: SessionId, state: X) {
        self.by_id.insert(id, Session { state, statistics: SessionStatistics::default() });
    }

    /// Closes one, and returns what its hub kept of it.
    pub fn close(&mut self, id: SessionId) -> Option<X> {
        self.by_id.remove(&id).map(|session| session.state)
    }

    /// What its hub keeps of an open one.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&X> {
        self.by_id.get(&id).map(|session| &session.state)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut X> {
        self.by_id.get_mut(&id).map(|session| &mut session.state)
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &X)> {
        self.by_id.iter().map(|(id, session)| (*id, &session.state))
    }

    /// The oldest first.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (SessionId, &mut Session<X>)> {
        self.by_id.iter_mut().map(|(id, session)| (*id, session))
    }

    /// Hands a session a message. False: it was lost.
    pub fn deliver(&mut self, id: SessionId, message: &[u8], sink: &mut impl Sink) -> bool {
        self.by_id.get_mut(&id).is_some_and(|session| session.deliver(id, message, sink))
    }

    /// Counts something of a session.
    pub fn count(&mut self, id: SessionId, count: impl FnOnce(&mut SessionStatistics)) {
        if let Some(session) = self.by_id.get_mut(&id) {
            count(&mut session.statistics);
        }
    }

    /// What was delivered to an open one.
    #[must_use]
    pub fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.by_id.get(&id).map(|session| session.statistics)
    }

    /// What was delivered to each, the oldest first.
    #[must_use]
    pub fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        self.by_id.iter().map(|(id, session)| (*id, session.statistics)).collect()
    }
}
