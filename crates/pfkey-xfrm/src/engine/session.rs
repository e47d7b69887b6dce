//! Acting for a session through the netlink sockets that it brought, so that the kernel decides what it may do.
//!
//! The session's program may have kept copies. It can then take answers away, leave others there, or stop a dump: its own
//! requests fail. What the engine asks for everybody goes through sockets of the engine's.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use crate::netlink::Netlink;

/// The sockets of a session: for requests, and for its dump.
#[derive(Debug)]
pub struct SessionSockets {
    requests: Netlink,
    /// `None` while a dump has it.
    dump: Option<Netlink>,
}

impl SessionSockets {
    /// From sockets of the same network namespace.
    #[must_use]
    pub const fn new(requests: Netlink, dump: Netlink) -> Self {
        Self { requests, dump: Some(dump) }
    }
}

/// The engine's own, while a session's are in their place.
pub(super) struct OwnSockets {
    requests: Netlink,
    spare: Option<Netlink>,
}

impl XfrmEngine {
    /// Acts through a session's sockets from now on.
    pub fn lend(&mut self, session: SessionSockets) {
        let requests = self.requests.replace(session.requests);
        let spare = std::mem::replace(&mut self.spare, session.dump);
        self.lent = Some(OwnSockets { requests, spare });
    }

    /// Acts through its own sockets again, and gives the session's back.
    pub fn give_back(&mut self) -> Option<SessionSockets> {
        let own = self.lent.take()?;
        let requests = self.requests.replace(own.requests);
        Some(SessionSockets { requests, dump: std::mem::replace(&mut self.spare, own.spare) })
    }

    /// Does what concerns all sessions through its own sockets.
    pub(super) fn as_itself<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let session = self.give_back();
        let done = act(self);
        // A dump of all SAs takes seconds, an algorithm's module as long as it likes.
        self.looked = None;
        if let Some(session) = session {
            self.lend(session);
        }
        done
    }
}
