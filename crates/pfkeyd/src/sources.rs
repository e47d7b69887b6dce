//! What a server waits for beside its clients: descriptors of an engine, where it has any.

use std::os::fd::{AsFd, BorrowedFd};

use pfkey_engine::Engine;
use pfkey_hub::{Hub, KeyEngine};
use pfkey_xfrm::XfrmEngine;

/// What may have news that no client caused.
pub trait Sources {
    /// Descriptors that become readable when there is news; [`pfkey_hub::Service::event`] takes it.
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

impl<E: KeyEngine + Sources> Sources for Hub<E> {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.engine().event_sources()
    }
}

impl Sources for Engine {}

impl Sources for pfkey_klips::Hub {}

impl Sources for XfrmEngine {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.as_fd()]
    }
}
