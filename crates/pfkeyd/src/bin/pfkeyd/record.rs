//! The embedded engine's state survives its process: what sessions did is recorded in shared memory, and done again by
//! the next worker on a copy of the process of before.
//!
//! The engine depends on nothing but what it is told and when, so that doing the same again gives the same state, to the
//! drawn numbers. The copy is a fork that waits, the standby; a new one is made when the record is [`FULL`], and the
//! record begins anew. Saving SAs and policies as messages instead would need each field in a second form, and lose what
//! no message says: larvals, timers, use, what numbers come next.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use pfkey_hub::{Service, SessionId, SessionState, SessionStatistics, Sink, Time};
use pfkey_wire::{HEADER_LEN, Header, MessageType, WireError};
use pfkeyd::Sources;
use pfkeyd::log::log;

use super::child::{close_all_but, fork_with};
use super::link::{Heard, Kind, Link};
use super::memory::Memory;
use super::notes::{LOG, Notes, REPLAYED, SUSPECT, WORDS};

/// Bytes of the record's memory; pages that were never written to are not there.
pub const BYTES: usize = 24 << 20;
/// The words before it: those of the notes, and [`WRITTEN`].
pub const RECORD_WORDS: usize = WORDS + 1;
/// Bytes that may have been written to since they were wiped; the last entry does not count in [`LOG`] yet.
const WRITTEN: usize = WORDS;
/// Bytes after which a standby is made: some ten thousand requests. Making one copies page tables, about 10 ms for a
/// million SAs, and doing them again takes less than a tenth of a second.
const FULL: usize = 16 << 20;

/// What was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum What {
    Open = 1,
    Close = 2,
    Receive = 3,
    Batch = 4,
    Advance = 5,
    /// Killed two workers; not done again.
    Poison = 6,
}

/// Bytes before an entry's own: what, session, length, seconds, nanoseconds.
const ENTRY: usize = 40;

/// Overwrites what may have keys in it.
pub fn wipe(memory: &Memory) {
    memory.wipe(memory.word(WRITTEN) as usize);
    memory.set_word(WRITTEN, 0);
}

/// A service whose sessions' deeds are recorded.
pub struct Recorded<S> {
    service: S,
    link: Rc<Link>,
    memory: Rc<Memory>,
    /// Counts the times that the record began anew.
    generation: u32,
    /// Where the next entry is written.
    end: usize,
    /// An entry did not fit: without it nothing that comes after is worth recording.
    is_full: bool,
}

/// Hands messages on, and sees to it that what caused the first of them counts as done before anybody hears of it.
struct Committing<'a, K> {
    sink: &'a mut K,
    memory: &'a Memory,
    state: u64,
}

impl<K: Sink> Sink for Committing<'_, K> {
    fn deliver(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.memory.set_word(LOG, self.state);
        self.sink.deliver(to, message)
    }

    fn deliver_dumped(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.memory.set_word(LOG, self.state);
        self.sink.deliver_dumped(to, message)
    }

    fn deliver_copy(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.memory.set_word(LOG, self.state);
        self.sink.deliver_copy(to, message)
    }

    fn may_dump(&mut self, to: SessionId) -> bool {
        self.sink.may_dump(to)
    }
}

/// Nobody hears what is done again.
struct Silence;

impl Sink for Silence {
    fn deliver(&mut self, _: SessionId, _: &[u8]) -> bool {
        true
    }
}

fn state(generation: u32, end: usize) -> u64 {
    u64::from(generation) << 32 | end as u64
}

/// A request that leaves the engine and the session as they are, unless something is due.
fn only_asks(bytes: &[u8]) -> bool {
    let header = bytes.get(..HEADER_LEN).and_then(Header::read);
    header.is_some_and(|header| {
        matches!(header.msg_type, MessageType::GET | MessageType::DUMP | MessageType::X_SPDGET | MessageType::X_SPDDUMP)
    })
}

impl<S: Service + Sources> Recorded<S> {
    /// Records from where the record's memory stands; what is in it is done again first.
    pub fn new(service: S, link: Rc<Link>, memory: Rc<Memory>) -> Self {
        let mut recorded = Self { service, link, memory, generation: 0, end: 0, is_full: false };
        recorded.do_again();
        recorded
    }

    /// Writes an entry, which counts from [`Recorded::commit`] on.
    fn append(&mut self, what: What, id: SessionId, now: Time, bytes: &[u8]) -> u64 {
        let words = [what as u64, id.0.into(), bytes.len() as u64, now.as_secs(), now.subsec_nanos().into()];
        let mut head = [0; ENTRY];
        for (place, word) in head.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let len = ENTRY + bytes.len().next_multiple_of(8);
        let end = self.end + len;
        if end > self.memory.len() && !std::mem::replace(&mut self.is_full, true) {
            log(
                "pfkeyd: no standby can be made, and the record is full: with the worker what is done from now on would be lost",
            );
        }
        if !self.is_full {
            self.memory.set_word(WRITTEN, self.memory.word(WRITTEN).max(end as u64));
            self.memory.write(self.end, &head);
            self.memory.write(self.end + ENTRY, bytes);
            self.end = end;
        }
        state(self.generation, self.end)
    }

    fn commit(&self, state: u64) {
        self.memory.set_word(LOG, state);
    }

    /// Does all that is recorded again.
    fn do_again(&mut self) {
        let recorded = self.memory.word(LOG);
        if (recorded >> 32) as u32 != self.generation {
            if self.generation == 0 {
                // What began the record anew is gone, and this is a new process.
                log("pfkeyd: worker and standby died at once: the SAs and policies are lost");
            }
            // Otherwise the worker died between making this standby and beginning the record anew.
            self.end = 0;
            self.commit(state(self.generation, 0));
            return;
        }
        let end = (recorded as u32) as usize;
        // Where a worker died that did all this again. Anything may have killed it once.
        if let Some(at) = self.memory.word(REPLAYED).checked_sub(1) {
            if self.memory.word(SUSPECT) == at + 1 {
                log("pfkeyd: a recorded request killed two workers and is left out");
                self.memory.write(at as usize, &(What::Poison as u64).to_ne_bytes());
            }
            self.memory.set_word(SUSPECT, at + 1);
        }
        let mut bytes = Vec::new();
        while self.end < end {
            let mut head = [0_u8; ENTRY];
            self.memory.read(self.end, &mut head);
            let mut words = [0_u64; ENTRY / 8];
            for (word, from) in words.iter_mut().zip(head.chunks_exact(8)) {
                *word = from.try_into().map_or(0, u64::from_ne_bytes);
            }
            let [what, session, len, secs, nanos] = words;
            let len = (len as usize).min(end - self.end);
            bytes.resize(len, 0);
            self.memory.read(self.end + ENTRY, &mut bytes);
            self.memory.set_word(REPLAYED, self.end as u64 + 1);
            let (id, now) = (SessionId(session as u32), Duration::new(secs, nanos as u32));
            match what {
                1 => drop(self.service.open()),
                2 => self.service.close(id, now),
                3 => drop(self.service.receive(id, &bytes, now, &mut Silence)),
                4 => drop(self.service.receive_all(id, &bytes, now, &mut Silence)),
                5 => self.service.advance(now, &mut Silence),
                _ => {}
            }
            zeroize::Zeroize::zeroize(&mut bytes);
            self.end += ENTRY + len.next_multiple_of(8);
        }
        self.memory.set_word(REPLAYED, 0);
        self.memory.set_word(SUSPECT, 0);
    }

    /// Makes a standby where the record is full.
    fn make_room(&mut self) {
        if self.end > FULL {
            self.make_standby(self.generation.wrapping_add(1));
        }
    }

    /// Forks a standby. It goes on from a record of this generation.
    fn make_standby(&mut self, generation: u32) {
        let Ok((ours, theirs)) = Link::pair() else { return };
        let before = self.generation;
        let forked = fork_with(|| {
            // What is done by now is in the copy.
            (self.generation, self.end, self.is_full) = (generation, 0, false);
            self.stand_by(theirs)
        });
        // Its copies of clients' connections are gone before one here is closed: they must not be the last.
        if forked.is_ok() {
            let _ = ours.hear(true);
        }
        // Only a standby that the guardian knows of can take over.
        let told =
            forked.is_ok_and(|pid| self.link.say(Kind::Standby, pid.as_raw() as u32, &[ours.as_fd()], true).is_ok());
        if told && generation != before {
            (self.generation, self.end, self.is_full) = (generation, 0, false);
            self.commit(state(generation, 0));
            wipe(&self.memory);
        }
    }

    /// A standby: each time that a worker is wanted, it forks one that goes on from here. It ends when there is a newer
    /// standby.
    fn stand_by(&mut self, link: Link) -> u8 {
        close_all_but(&[link.as_fd()]);
        let _ = link.say(Kind::Standby, 0, &[], true);
        // Nobody else waits for its workers.
        super::child::forget_children();
        while let Ok(Some(Heard { kind, fds, .. })) = link.hear(true) {
            let (Kind::Activate, Some(fd)) = (kind, fds.into_iter().next()) else { continue };
            let mut workers = Some(Link::from(fd));
            let forked = fork_with(|| {
                let Some(workers) = workers.take() else { return 1 };
                close_all_but(&[workers.as_fd()]);
                // The links of before are closed already, and must not be again.
                std::mem::forget(std::mem::replace(&mut self.link, Rc::new(workers)));
                self.do_again();
                // Whoever asked was told by the first.
                self.serve(|_| false)
            });
            if let Err(error) = forked {
                // The end of its link says that there is no worker.
                log(&format!("pfkeyd: {error}"));
            }
        }
        0
    }

    /// Serves until there is nobody left.
    pub fn serve(&mut self, ready: impl FnOnce(i32) -> bool) -> u8 {
        // A standby ends when the guardian knows a newer one. Nobody else would take its end.
        super::child::forget_children();
        let notes = Notes { link: Rc::clone(&self.link), memory: Rc::clone(&self.memory), counters: None };
        super::worker::serve(self, notes, ready)
    }
}

impl<S: Sources> Sources for &mut Recorded<S> {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.service.event_sources()
    }
}

impl<S: Service + Sources> Service for &mut Recorded<S> {
    fn open(&mut self) -> SessionId {
        let state = self.append(What::Open, SessionId(0), Duration::ZERO, &[]);
        let id = self.service.open();
        self.commit(state);
        id
    }

    fn resume(&mut self, id: SessionId, state: &SessionState, now: Time) -> SessionId {
        // It is there: it was opened again with all that came after.
        self.service.resume(id, state, now)
    }

    fn state(&self, id: SessionId) -> SessionState {
        self.service.state(id)
    }

    fn checkpoint(&mut self) {
        self.make_standby(self.generation.wrapping_add(1));
    }

    fn close(&mut self, id: SessionId, now: Time) {
        let state = self.append(What::Close, id, now, &[]);
        self.service.close(id, now);
        self.commit(state);
    }

    fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        // Whoever asks sees what time has done to the engine: then this is more than a question.
        let is_due = || self.service.next_deadline().is_some_and(|deadline| deadline <= now);
        if only_asks(bytes) && !is_due() {
            return self.service.receive(id, bytes, now, sink);
        }
        self.make_room();
        let state = self.append(What::Receive, id, now, bytes);
        let mut sink = Committing { sink, memory: &self.memory, state };
        let done = self.service.receive(id, bytes, now, &mut sink);
        self.commit(state);
        done
    }

    fn receive_all(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> u64 {
        self.make_room();
        let state = self.append(What::Batch, id, now, bytes);
        let mut sink = Committing { sink, memory: &self.memory, state };
        let malformed = self.service.receive_all(id, bytes, now, &mut sink);
        self.commit(state);
        malformed
    }

    fn writable(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        self.service.writable(id, now, sink);
    }

    fn is_dumping(&self, id: SessionId) -> bool {
        self.service.is_dumping(id)
    }

    fn next_deadline(&self) -> Option<Time> {
        self.service.next_deadline()
    }

    fn advance(&mut self, now: Time, sink: &mut impl Sink) {
        self.make_room();
        let state = self.append(What::Advance, SessionId(0), now, &[]);
        self.commit(state);
        self.service.advance(now, sink);
    }

    fn event(&mut self, now: Time, sink: &mut impl Sink) {
        self.service.event(now, sink);
    }

    fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.service.statistics(id)
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        self.service.all_statistics()
    }

    fn take_refusal(&mut self) -> Option<String> {
        self.service.take_refusal()
    }

    fn engine_statistics(&self) -> Option<String> {
        self.service.engine_statistics()
    }
}

#[cfg(test)]
mod tests {
    use pfkey_engine::{Engine, LINUX};
    use pfkey_hub::Hub;

    use super::*;

    #[test]
    fn keys_in_the_record_are_wiped_when_it_begins_anew() {
        let memory = Rc::new(Memory::new(RECORD_WORDS, BYTES).unwrap());
        let (guardian, link) = Link::pair().unwrap();
        let hub = Hub::new(Engine::new(&LINUX));
        let mut recorded = Recorded::new(hub, Rc::new(link), Rc::clone(&memory));
        let mut service = &mut recorded;
        let id = service.open();
        // An ADD that is refused is recorded too.
        let mut message = [0xa5; 256];
        message[..4].copy_from_slice(&[2, MessageType::ADD.0, 0, 3]);
        let _ = service.receive(id, &message, Duration::ZERO, &mut Silence);
        let keys = || {
            let mut bytes = vec![0; 4096];
            memory.read(0, &mut bytes);
            bytes.windows(64).filter(|window| **window == [0xa5; 64]).count()
        };
        assert_ne!(keys(), 0);
        service.checkpoint();
        assert_eq!(keys(), 0);
        // It ends with its link, which came with its word.
        let Ok(Some(Heard { kind: Kind::Standby, value, fds: standby })) = guardian.hear(false) else {
            panic!("no standby");
        };
        drop(standby);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(value as i32), None).unwrap();
    }

    /// A request of ESP's between two addresses.
    fn request(kind: MessageType, rest: &[u8]) -> Vec<u8> {
        let address =
            |kind: u8, last: u8| [&[3, 0, kind, 0, 0, 32, 0, 0, 2, 0, 0, 0, 192, 0, 2, last][..], &[0; 8]].concat();
        let mut message = [&[2, kind.0, 0, 3][..], &[0; 12], &address(5, 1), &address(6, 2), rest].concat();
        message[4] = (message.len() / 8) as u8;
        message
    }

    /// Time passes for an engine whenever it is asked.
    #[test]
    #[cfg(target_endian = "little")]
    fn what_ends_in_a_question_has_ended_for_whoever_goes_on() {
        let memory = Rc::new(Memory::new(RECORD_WORDS, BYTES).unwrap());
        let start = || {
            let (guardian, link) = Link::pair().unwrap();
            (guardian, Recorded::new(Hub::new(Engine::new(&LINUX)), Rc::new(link), Rc::clone(&memory)))
        };
        let (_guardian, mut recorded) = start();
        let mut service = &mut recorded;
        let id = service.open();
        let spis = [2, 0, 16, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let got = service.receive(id, &request(MessageType::GETSPI, &spis), Duration::ZERO, &mut Silence);
        assert_eq!(got, Ok(()));
        // A larval SA, of half a minute.
        let ends = service.next_deadline().unwrap();
        let sa = [2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = service.receive(id, &request(MessageType::GET, &sa), ends, &mut Silence);
        assert_eq!(service.next_deadline(), None);
        let (_guardian, again) = start();
        assert_eq!(again.service.next_deadline(), None);
    }

    #[test]
    fn nothing_is_recorded_after_what_found_no_room() {
        let memory = Rc::new(Memory::new(RECORD_WORDS, 2 * ENTRY + 8).unwrap());
        let (_guardian, link) = Link::pair().unwrap();
        let mut recorded = Recorded::new(Hub::new(Engine::new(&LINUX)), Rc::new(link), Rc::clone(&memory));
        let id = SessionId(0);
        let first = recorded.append(What::Receive, id, Duration::ZERO, &[1; 8]);
        assert_eq!(recorded.append(What::Receive, id, Duration::ZERO, &[2; 16]), first);
        assert_eq!(recorded.append(What::Close, id, Duration::ZERO, &[]), first, "the record has no hole");
    }
}
