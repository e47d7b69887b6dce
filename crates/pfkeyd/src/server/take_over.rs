//! A server with a keeper: its clients, and what another server left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use zeroize::Zeroizing;

use super::receive::{Peeked, peek};
use super::{Server, now};
use crate::connection::InHand;
use crate::keeper::{Keeper, Slot, Unfinished, Word};
use crate::limits::ATTEMPTS;
use crate::log::log;
use crate::{Service, SessionId, Sink, Sources};
use pfkey_wire::{BATCH, HEADER_LEN, Header, MessageType, Profile, Writer, split_batch};

/// How long is waited for memory before the next attempt.
const SHORTAGE: Duration = Duration::from_millis(10);

/// A request for a dump.
pub(super) const fn is_dump(request: &Header) -> bool {
    matches!(request.msg_type, MessageType::DUMP | MessageType::X_SPDDUMP)
}

/// The request at which another server ended.
struct Left {
    /// What it was, if it was answered without an error.
    done: Option<Zeroizing<Vec<u8>>>,
    /// Its messages that have no answer.
    unanswered: Vec<Header>,
    /// The bytes of a batch that were done.
    batch: Option<usize>,
}

impl<H: Service + Sources, K: Keeper> Server<H, K> {
    /// Takes over what another server had. Nobody is served before all its clients are there: whoever came later would miss
    /// what the engine reports.
    pub(super) fn take_all_over(&mut self) -> std::io::Result<()> {
        while self.kept && !self.complete && !self.leaves {
            let Some(source) = self.connections.keeper.source() else { break };
            match poll(&mut [PollFd::new(source, PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => self.hear_keeper(),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    pub(super) fn hear_keeper(&mut self) {
        match self.connections.keeper.hear() {
            Word::Client(slot, fd, sockets) => self.take_over(slot, fd, sockets),
            Word::Engine(number, sockets) => self.hub.engine_left(number, sockets),
            Word::All => {
                self.complete = true;
                self.connections.keeper.go_on();
                self.hub.all_are_back(now());
            }
            Word::Statistics => log(&self.statistics()),
            Word::Checkpoint => self.hub.checkpoint(),
            Word::Leave => self.leaves = true,
            Word::Nothing => {}
            Word::Ended => {
                if let Some(source) = self.connections.keeper.source() {
                    let _ = self.epoll.delete(source);
                }
                self.kept = false;
            }
        }
    }

    /// Serves a client of the keeper's; goes on where another server ended.
    fn take_over(&mut self, slot: Slot, fd: OwnedFd, sockets: Vec<OwnedFd>) {
        let unfinished = self.connections.keeper.unfinished(slot);
        let left = unfinished.and_then(|unfinished| self.look(fd.as_fd(), unfinished));
        if left.is_none() {
            // What was in hand was consumed, and that could not be noted any more.
            self.connections.keeper.end(slot);
        }
        let noted = self.connections.keeper.noted(slot);
        let (brought, sockets) = if noted.is_some() { (Vec::new(), sockets) } else { (sockets, Vec::new()) };
        let id = match &noted {
            Some((id, state)) => {
                // The other may have ended before it noted what it had done.
                let done = left.as_ref().and_then(|left| left.done.as_ref());
                let state = done.map_or_else(|| state.clone(), |done| state.clone().after(done));
                let back = if sockets.is_empty() { None } else { self.hub.come_back(sockets, state.extras) };
                self.hub.resume(back.unwrap_or(*id), &state, now())
            }
            None => self.hub.open(),
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, u64::from(id.0));
        if let Err(errno) = self.epoll.add(&fd, event) {
            log(&format!("pfkeyd: a client could not be served: {errno}"));
            self.hub.close(id, now());
            return self.connections.keeper.release(slot);
        }
        self.connections.insert(id, fd, Some(slot));
        if !brought.is_empty() {
            // A hello at which another ended is given up.
            return if left.is_some() { self.close(id) } else { self.meet(id, brought) };
        }
        self.connections.give_buffer(id);
        // What is in hand is not done again: nobody knows how far it was done, and it may be what ended the server; but of a batch
        // the next part is done if nobody had begun it. What was left of a dump is not known any more.
        let was_left = self.connections.keeper.was_left();
        let batch = left.as_ref().and_then(|left| left.batch).filter(|_| was_left);
        let is_in_hand = left.is_some() && batch.is_none();
        let unanswered = left.filter(|_| is_in_hand).map(|left| left.unanswered).unwrap_or_default();
        let dump = noted.and_then(|(_, state)| state.dump).filter(|dump| !unanswered.contains(dump));
        let interrupted: Vec<Header> = dump.into_iter().chain(unanswered).collect();
        if let Some(connection) = self.connections.by_session.get_mut(&id) {
            connection.dump = interrupted.iter().copied().find(is_dump);
            connection.in_hand = batch.map_or(connection.in_hand, InHand::Batch);
        }
        interrupted.into_iter().for_each(|request| self.report(id, request));
        self.connections.flush(id);
        self.note(id);
        if is_in_hand {
            self.consume(id);
        }
        self.update_interest(id);
    }

    /// Looks at the request at which another server ended; `None` if it is not there any more.
    fn look(&mut self, fd: BorrowedFd<'_>, unfinished: Unfinished) -> Option<Left> {
        let mut looks = (0..ATTEMPTS).map(|_| peek(fd, &mut self.buffer, &mut self.control));
        let is_told = |look: &nix::Result<Peeked>| {
            let is_told = !matches!(look, Err(Errno::ENOMEM | Errno::ENOBUFS | Errno::EINTR));
            if !is_told {
                // Taken for consumed it would be done twice.
                std::thread::sleep(SHORTAGE);
            }
            is_told
        };
        let peeked = looks.find(is_told)?.ok()?;
        let bytes = self.buffer.get(..peeked.len.min(self.buffer.len()))?;
        if peeked.sent != unfinished.sent || bytes.is_empty() {
            return None;
        }
        let mut left = Left { done: None, unanswered: Vec::new(), batch: None };
        match (bytes.split_at_checked(HEADER_LEN), unfinished.answered) {
            (Some((head, messages)), _) if head == BATCH => {
                let rest = messages.get(unfinished.done..).unwrap_or_default();
                left.unanswered = split_batch(rest).filter_map(Header::read).collect();
                left.batch = Some(unfinished.done).filter(|_| !left.unanswered.is_empty());
            }
            (_, Some(errno)) => left.done = (errno == 0).then(|| Zeroizing::new(bytes.to_vec())),
            (_, None) => left.unanswered.extend(Header::read(bytes)),
        }
        Some(left)
    }

    /// Tells a client that its request was interrupted by the server's end, as soon as its queue has room.
    fn report(&mut self, id: SessionId, request: Header) {
        let report = request.error_report(libc::EIO as u8);
        let mut bytes = [0; HEADER_LEN];
        if let Ok(message) = Writer::new(&mut bytes, report, Profile::Linux).finish() {
            self.connections.deliver_dumped(id, message);
        }
    }

    /// Notes what a session is, for another server.
    pub(super) fn note(&mut self, id: SessionId) {
        let Some(connection) = self.connections.by_session.get_mut(&id) else { return };
        let Some(slot) = connection.slot else { return };
        let mut state = self.hub.state(id);
        // A dump is over when its last message was sent.
        connection.dump = state.dump.or(connection.dump.filter(|_| !connection.outgoing.is_empty()));
        state.dump = connection.dump;
        self.connections.keeper.note(slot, id, &state);
    }
}
