//! What a worker notes in shared memory for the next one: the sessions, and the request that it acts on.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;
use pfkey_hub::{SessionId, SessionState};
use pfkey_model::settings::Settings;
use pfkey_wire::xfrm::settings::MAX_TEXT;
use pfkey_wire::{Extras, Header};
use pfkeyd::keeper::{Keeper, Slot, Unfinished, Word};
use pfkeyd::limits;
use pfkeyd::log::log;
use zerocopy::IntoBytes;

use super::child::end;
use super::counters::Counters;
use super::link::{Heard, Kind, Link, SHORTAGE};
use super::memory::Memory;

/// Clients at once.
pub const SLOTS: usize = limits::MAX_CLIENTS;

/// The words before those of the slots.
pub const LOG: usize = 0;
pub const REPLAYED: usize = 1;
pub const SUSPECT: usize = 2;
/// Clients that the guardian did not let in.
pub const REFUSED: usize = 3;
/// 1: the last worker ended between two turns.
const WAS_LEFT: usize = 4;
const FIRST_SLOT: usize = 5;
/// Words of a slot: the session plus one; its registrations, promiscuity, whether it is shown X_XFRM extensions, extras,
/// and pid; the header of its dump, in two.
pub const SLOT: usize = 7;
/// And of its request in hand: the bytes of a batch that are done, plus one (0 = there is no request in hand); when it was
/// sent; the errno of its answer, plus one (0 = it has none).
const DONE: usize = 4;
const SENT: usize = 5;
const ANSWERED: usize = 6;
/// Behind all slots, for each: the bytes of its settings' text, and the text. Pages of it that nobody needs are not there.
const SETTINGS: usize = FIRST_SLOT + SLOT * SLOTS;
/// Words of one.
const SETTINGS_LEN: usize = 1 + MAX_TEXT / 8;
/// How many words there are.
pub const WORDS: usize = SETTINGS + SETTINGS_LEN * SLOTS;

/// Whether a session is noted there.
pub fn is_noted(memory: &Memory, slot: Slot) -> bool {
    place(slot).is_some_and(|at| memory.word(at) != 0)
}

/// Forgets what is noted there.
pub fn forget(memory: &Memory, slot: Slot) {
    // Settings without their length are none. Where no session is noted their page is not there, and stays so.
    let settings = place_of_settings(slot).filter(|at| is_noted(memory, slot) && memory.word(*at) != 0);
    let words = place(slot).into_iter().flat_map(|at| at..at + SLOT);
    words.chain(settings).for_each(|word| memory.set_word(word, 0));
}

/// Whether the last worker ended as it was asked to.
pub fn was_left(memory: &Memory) -> bool {
    memory.word(WAS_LEFT) != 0
}

/// A worker's side of the guardian.
pub struct Notes {
    pub link: Rc<Link>,
    pub memory: Rc<Memory>,
    /// Where somebody can ask for them.
    pub counters: Option<Counters>,
}

/// The guardian lives, and the two would wait for each other in vain. It starts another worker.
fn give_up(what: &str, errno: Errno) -> ! {
    log(&format!("pfkeyd: the worker cannot {what} its guardian: {errno}"));
    end(1)
}

fn place(slot: Slot) -> Option<usize> {
    ((slot as usize) < SLOTS).then(|| FIRST_SLOT + SLOT * slot as usize)
}

fn place_of_settings(slot: Slot) -> Option<usize> {
    ((slot as usize) < SLOTS).then(|| SETTINGS + SETTINGS_LEN * slot as usize)
}

impl Notes {
    /// The text of a slot's settings; empty without any.
    fn settings(&self, slot: Slot) -> String {
        let Some(at) = place_of_settings(slot) else { return String::new() };
        let len = (self.memory.word(at) as usize).min(MAX_TEXT);
        let words: Vec<u64> = (1..=len.div_ceil(8)).map(|word| self.memory.word(at + word)).collect();
        String::from_utf8_lossy(words.as_bytes().get(..len).unwrap_or_default()).into_owned()
    }

    fn note_settings(&self, slot: Slot, settings: Option<&Settings>) {
        let Some(at) = place_of_settings(slot) else { return };
        let text = settings.map_or("", Settings::text).as_bytes();
        let mut words = vec![0_u64; text.len().div_ceil(8)];
        if let Some(bytes) = words.as_mut_bytes().get_mut(..text.len()) {
            bytes.copy_from_slice(text);
        }
        // The length last: with it the others count.
        for (offset, word) in words.into_iter().enumerate() {
            self.memory.set_word(at + 1 + offset, word);
        }
        self.memory.set_word(at, text.len() as u64);
    }

    fn set(&self, slot: Slot, word: usize, value: u64) {
        if let Some(at) = place(slot) {
            self.memory.set_word(at + word, value);
        }
    }

    /// Tells the guardian, if there is one: without it nobody needs to know.
    fn tell(&self, kind: Kind, slot: Slot) {
        self.tell_with(kind, slot, &[]);
    }

    /// The guardian has an engine's sockets; without any it has them no more.
    pub fn keep_engine(&self, number: u32, sockets: &[BorrowedFd<'_>]) {
        self.tell_with(Kind::Engine, number, sockets);
    }

    fn tell_with(&self, kind: Kind, number: u32, fds: &[BorrowedFd<'_>]) {
        match self.link.say(kind, number, fds, true) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {}
            Err(errno) => give_up("tell", errno),
        }
    }
}

impl Keeper for Notes {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some((*self.link).as_fd())
    }

    fn hear(&mut self) -> Word {
        match self.link.hear(false) {
            Ok(Some(Heard { kind: Kind::Client, value, fds })) => {
                let mut fds = fds.into_iter();
                if let Some(fd) = fds.next() {
                    return Word::Client(value, fd, fds.collect());
                }
                // There was no number for it. The guardian still has it.
                std::thread::sleep(SHORTAGE);
                self.tell(Kind::Client, value);
                Word::Nothing
            }
            Ok(Some(Heard { kind: Kind::Engine, value, fds })) => Word::Engine(value, fds),
            Ok(Some(Heard { kind: Kind::All, .. })) => Word::All,
            Ok(Some(Heard { kind: Kind::Statistics, .. })) => Word::Statistics,
            Ok(Some(Heard { kind: Kind::Standby, .. })) => Word::Checkpoint,
            Ok(Some(Heard { kind: Kind::Leave, .. })) => Word::Leave,
            Ok(Some(Heard { kind: Kind::Alive, .. })) => {
                self.tell(Kind::Alive, 0);
                Word::Nothing
            }
            Ok(Some(_)) | Err(Errno::EAGAIN) => Word::Nothing,
            Ok(None) => Word::Ended,
            Err(errno) => give_up("hear", errno),
        }
    }

    fn noted(&self, slot: Slot) -> Option<(SessionId, SessionState)> {
        let at = place(slot)?;
        let session = u32::try_from(self.memory.word(at).checked_sub(1)?).ok()?;
        let state = self.memory.word(at + 1);
        let dump = [self.memory.word(at + 2), self.memory.word(at + 3)];
        let dump = Header::read(dump.as_bytes()).filter(|_| dump != [0, 0]);
        let (registered, promiscuous, xfrm) = (state as u16, state >> 16 & 1 != 0, state >> 17 & 1 != 0);
        let extras = Extras::from_bits((state >> 18) as u8);
        Some((
            SessionId(session),
            SessionState {
                registered,
                promiscuous,
                xfrm,
                extras,
                settings: Settings::new(&self.settings(slot)).ok().filter(|all| !all.is_empty()).map(Arc::new),
                pid: (state >> 32) as u32,
                dump,
            },
        ))
    }

    fn note(&mut self, slot: Slot, id: SessionId, state: &SessionState) {
        let Some(at) = place(slot) else { return };
        let dump = state.dump.map(|header| header.to_layout());
        let mut words = [0_u64; 2];
        if let Some(dump) = &dump {
            words.as_mut_bytes().copy_from_slice(dump.as_bytes());
        }
        let bits =
            u64::from(state.promiscuous) << 16 | u64::from(state.xfrm) << 17 | u64::from(state.extras.bits()) << 18;
        let (settings, noted) = (state.settings.as_deref(), place_of_settings(slot));
        if (settings.is_some() || noted.is_some_and(|at| self.memory.word(at) != 0))
            && settings.map_or("", Settings::text) != self.settings(slot)
        {
            self.note_settings(slot, settings);
        }
        let flags = u64::from(state.registered) | bits | u64::from(state.pid) << 32;
        for (offset, word) in [flags, words[0], words[1], u64::from(id.0) + 1].into_iter().enumerate() {
            // The session last: with it the others count.
            let index = if offset == 3 { at } else { at + 1 + offset };
            if self.memory.word(index) != word {
                self.memory.set_word(index, word);
            }
        }
    }

    fn has_met(&mut self, slot: Slot) {
        self.tell(Kind::Sockets, slot);
    }

    fn release(&mut self, slot: Slot) {
        forget(&self.memory, slot);
        self.tell(Kind::Released, slot);
    }

    fn begin(&mut self, slot: Slot, sent: u64, done: usize) {
        self.set(slot, DONE, 0);
        self.set(slot, ANSWERED, 0);
        self.set(slot, SENT, sent);
        self.set(slot, DONE, done as u64 + 1);
    }

    fn done(&mut self, slot: Slot, bytes: usize) {
        self.set(slot, DONE, bytes as u64 + 1);
    }

    fn refused(&self) -> u64 {
        self.memory.word(REFUSED)
    }

    fn lost(&mut self) {
        if let Some(counters) = &self.counters {
            counters.dropped();
        }
    }

    fn leave(&mut self) {
        self.memory.set_word(WAS_LEFT, 1);
    }

    fn was_left(&self) -> bool {
        was_left(&self.memory)
    }

    fn go_on(&mut self) {
        self.memory.set_word(WAS_LEFT, 0);
    }

    fn answered(&mut self, slot: Slot, errno: u8) {
        self.set(slot, ANSWERED, u64::from(errno) + 1);
    }

    fn end(&mut self, slot: Slot) {
        self.set(slot, DONE, 0);
    }

    fn unfinished(&self, slot: Slot) -> Option<Unfinished> {
        let at = place(slot)?;
        let done = self.memory.word(at + DONE).checked_sub(1)?;
        Some(Unfinished {
            sent: self.memory.word(at + SENT),
            done: done as usize,
            answered: self.memory.word(at + ANSWERED).checked_sub(1).map(|errno| errno as u8),
        })
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::child::{close_all_but, fork_with};

    #[test]
    fn a_client_that_there_was_no_descriptor_for_is_asked_for_again() {
        let (guardian, worker) = Link::pair().unwrap();
        guardian.say(Kind::Client, 7, &[guardian.as_fd()], false).unwrap();
        let pid = fork_with(|| {
            close_all_but(&[worker.as_fd()]);
            let Ok(memory) = Memory::new(WORDS, 0) else { return 1 };
            if setrlimit(Resource::RLIMIT_NOFILE, 3, 3).is_err() {
                return 2;
            }
            let mut notes = Notes { link: Rc::new(worker), memory: Rc::new(memory), counters: None };
            u8::from(!matches!(notes.hear(), Word::Nothing))
        });
        assert!(matches!(waitpid(pid.unwrap(), None), Ok(WaitStatus::Exited(_, 0))));
        assert!(matches!(guardian.hear(false), Ok(Some(Heard { kind: Kind::Client, value: 7, .. }))));
    }

    #[test]
    fn what_is_noted_of_a_session_is_read_again_and_gone_with_it() {
        let (_guardian, link) = Link::pair().unwrap();
        let memory = Rc::new(Memory::new(WORDS, 0).unwrap());
        let mut notes = Notes { link: Rc::new(link), memory, counters: None };
        let last = SLOTS as Slot - 1;
        for text in ["if_id=42 out:set-mark=0x10", "mark=1/0xff", ""] {
            let settings = Settings::new(text).ok().filter(|all| !all.is_empty()).map(Arc::new);
            let state = SessionState { registered: 8, settings, pid: 7, ..SessionState::default() };
            notes.note(last, SessionId(3), &state);
            assert_eq!(notes.noted(last), Some((SessionId(3), state)), "{text}");
        }
        let longest = format!("999=0x{}", "0".repeat(MAX_TEXT - 6));
        let settings = Some(Arc::new(Settings::new(&longest).unwrap()));
        notes.note(0, SessionId(1), &SessionState { settings, ..SessionState::default() });
        assert_eq!(notes.noted(0).unwrap().1.settings.unwrap().text(), longest);
        notes.release(0);
        assert_eq!((notes.noted(0), notes.settings(0)), (None, String::new()));
    }
}
