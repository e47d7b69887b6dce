//! What a server waits for beside its clients: descriptors of an engine, where it has any.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pfkey_engine::Engine;
use pfkey_hub::{Hub, KeyEngine, SessionId, Time};
use pfkey_wire::Extras;
use pfkey_wire::hello::{PROTOCOL, Welcome};
use pfkey_xfrm::XfrmEngine;

/// What may have news that no client caused; and what clients bring who have to say who they are.
pub trait Sources {
    /// Descriptors that become readable when there is news; [`pfkey_hub::Service::event`] takes it.
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Takes what a client said first, and its netlink sockets, which are the kernel's own and were shown to be of somebody who
    /// may use them. With the errno 0 it has a session.
    fn meet(&mut self, id: SessionId, hello: &[u8], sockets: Vec<OwnedFd>) -> Welcome {
        let _ = (id, hello, sockets);
        Welcome { protocol: PROTOCOL, errno: libc::EOPNOTSUPP as u32 }
    }

    /// Opens a session that another server had, with its sockets; it is resumed next. `None`: it cannot go on.
    fn come_back(&mut self, sockets: Vec<OwnedFd>, extras: Extras) -> Option<SessionId> {
        let _ = (sockets, extras);
        None
    }

    /// Takes the sockets of an engine that another server had.
    fn engine_left(&mut self, number: u32, sockets: Vec<OwnedFd>) {
        let _ = (number, sockets);
    }

    /// All sessions that another server had have come back.
    fn all_are_back(&mut self, now: Time) {
        let _ = now;
    }
}

impl<E: KeyEngine + Sources> Sources for Hub<E> {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.engine().event_sources()
    }

    fn all_are_back(&mut self, now: Time) {
        self.all_are_restored(now);
    }
}

impl Sources for Engine {}

impl Sources for pfkey_klips::Hub {}

impl Sources for XfrmEngine {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.as_fd()]
    }
}
