//! What a server waits for beside its clients: descriptors of an engine. Hubs and engines know nothing of them but XFRM's.

use std::os::fd::BorrowedFd;

use super::{Hub, KeyEngine};
use crate::engine::Engine;
use crate::klips;
use crate::xfrm::XfrmEngine;

/// What may have news that no client caused.
pub trait Sources {
    /// Descriptors that become readable when there is news; [`super::Service::event`] takes it.
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

impl Sources for Engine {}

impl Sources for klips::Hub {}

impl Sources for XfrmEngine {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.event_source().into_iter().collect()
    }
}

impl<E: KeyEngine + Sources> Sources for Hub<E> {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.engine().event_sources()
    }
}
