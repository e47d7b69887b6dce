//! What a server waits for beside its clients: descriptors of an engine, where it has any.

use std::os::fd::BorrowedFd;

use super::{Hub, KeyEngine};

/// What may have news that no client caused.
pub trait Sources {
    /// Descriptors that become readable when there is news; [`super::Service::event`] takes it.
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

impl<E: KeyEngine + Sources> Sources for Hub<E> {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.engine().event_sources()
    }
}
