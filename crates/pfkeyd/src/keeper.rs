//! Who outlives a server: another process that holds the clients' descriptors, and what a server has to tell it so that
//! the next one can go on.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{SessionId, SessionState};

/// A client's place with its keeper, for as long as it is connected.
pub type Slot = u32;

/// What a keeper says to the server.
#[derive(Debug)]
pub enum Word {
    /// A client: it has just connected, or it was another server's, who had these sockets of its; or it brought them,
    /// and its hello waits.
    Client(Slot, OwnedFd, Vec<OwnedFd>),
    /// The sockets of an engine that another server had, which has this number.
    Engine(u32, Vec<OwnedFd>),
    /// Those were all clients that another server had.
    All,
    /// Statistics are wanted.
    Statistics,
    /// What was saved for another process is lost.
    Checkpoint,
    /// Nothing now.
    Nothing,
    /// The server is to end when its round is over.
    Leave,
    /// The keeper has ended. The server goes on with the clients that it has.
    Ended,
}

/// A request that a server began to act on and did not consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// When it was sent, in nanoseconds: no two messages of a socket have the same.
    pub sent: u64,
    /// Bytes of a batch that were done before.
    pub done: usize,
    /// The errno of the answer that its sender has, if it has one.
    pub answered: Option<u8>,
}

/// Keeps what a server needs to go on after another. Each of its methods is a few stores: they are called for each request.
pub trait Keeper {
    /// Becomes readable when [`Keeper::hear`] has a word. Who has one says [`Word::All`] once, before any client is served.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The next word.
    fn hear(&mut self) -> Word {
        Word::Nothing
    }

    /// What was noted of a client; `None` for a new one.
    fn noted(&self, slot: Slot) -> Option<(SessionId, SessionState)> {
        let _ = slot;
        None
    }

    /// Notes what a session is.
    fn note(&mut self, slot: Slot, id: SessionId, state: &SessionState) {
        let _ = (slot, id, state);
    }

    /// A client's session needs no more of the sockets that it brought than the first two, and it brought more.
    fn has_met(&mut self, slot: Slot) {
        let _ = slot;
    }

    /// A client's session was closed.
    fn release(&mut self, slot: Slot) {
        let _ = slot;
    }

    /// A client's request, sent at this time, is acted on from now on; of a batch so many bytes are done.
    fn begin(&mut self, slot: Slot, sent: u64, done: usize) {
        let _ = (slot, sent, done);
    }

    /// The server ends between two turns: of the batches that are in hand all is done that was begun.
    fn leave(&mut self) {}

    /// Whether another server said [`Keeper::leave`].
    fn was_left(&self) -> bool {
        false
    }

    /// All clients that another server had are there, and are served from now on.
    fn go_on(&mut self) {}

    /// Clients that were not let in.
    fn refused(&self) -> u64 {
        0
    }

    /// A session lost a message, because its queue was full.
    fn lost(&mut self) {}

    /// Of a client's batch so many bytes are done.
    fn done(&mut self, slot: Slot, bytes: usize) {
        let _ = (slot, bytes);
    }

    /// The request of this client that is acted on has an answer, with this errno.
    fn answered(&mut self, slot: Slot, errno: u8) {
        let _ = (slot, errno);
    }

    /// This client's request was consumed.
    fn end(&mut self, slot: Slot) {
        let _ = slot;
    }

    /// The request of this client that another server left.
    fn unfinished(&self, slot: Slot) -> Option<Unfinished> {
        let _ = slot;
        None
    }
}

/// Nobody: the server's end is that of its sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Keeper for Nobody {}
