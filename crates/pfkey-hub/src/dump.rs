//! One running dump: messages numbered 1, 2, …, the last one 0, one held back so that the last is known
//! (af_key's `pfkey_do_dump` and `dump_sa`).

use zeroize::Zeroizing;

use super::{DumpMessage, DumpStep, Errno, KeyEngine, MessageBuffer, Time};
use pfkey_model::settings::{is_sub_policy, scope};
use pfkey_wire::xfrm::settings::World;
use pfkey_wire::{Header, MessageType};

/// How far a dump came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The queue is full; call again when it has room.
    Suspended,
    /// The last message was delivered.
    Done,
    /// There was nothing to deliver; the requester is to be told.
    Failed(Errno),
}

/// A message; it may hold keys.
type Bytes = Zeroizing<Vec<u8>>;

/// The messages that were taken from the engine and not delivered.
enum Undelivered {
    /// None was taken yet.
    Empty,
    /// The newest is held back: it may be the last.
    Held(Bytes),
    /// A newer one is there, so that the one held back can go: it waits for room.
    Next { held: Bytes, newer: Bytes },
    /// The engine has no more. The last one waits for room.
    Last(Bytes),
}

/// A dump between its first and its last message.
pub(super) struct DumpRun<D> {
    cursor: D,
    header: Header,
    /// What it is confined to.
    world: World,
    /// Whether policies of type sub are shown.
    shows_sub: bool,
    /// Messages taken from the engine so far.
    seq: u32,
    undelivered: Undelivered,
    /// A buffer to write the next message into.
    spare: Bytes,
}

impl<D> DumpRun<D> {
    pub(super) fn new(cursor: D, header: Header, world: World, shows_sub: bool) -> Self {
        Self { cursor, header, world, shows_sub, seq: 0, undelivered: Undelivered::Empty, spare: Zeroizing::default() }
    }

    pub(super) const fn header(&self) -> Header {
        self.header
    }

    pub(super) const fn taken(&self) -> u32 {
        self.seq
    }

    pub(super) fn into_cursor(self) -> D {
        self.cursor
    }

    /// Runs until the engine has no more or the queue is full. `gate` says whether the queue may be
    /// filled further, `deliver` hands over a message and says whether it was taken.
    pub(super) fn pump<E, Q>(
        &mut self,
        engine: &mut E,
        now: Time,
        buffer: &mut MessageBuffer,
        queue: &mut Q,
        gate: impl Fn(&mut Q) -> bool,
        deliver: impl Fn(&mut Q, &[u8]) -> bool,
    ) -> Progress
    where
        E: KeyEngine<Dump = D>,
    {
        loop {
            self.undelivered = match std::mem::replace(&mut self.undelivered, Undelivered::Empty) {
                // Even the closing message obeys the gate.
                Undelivered::Last(last) if gate(queue) && deliver(queue, &last) => return Progress::Done,
                Undelivered::Next { held, newer } if deliver(queue, &held) => {
                    self.spare = held;
                    Undelivered::Held(newer)
                }
                // The gate is tested before a message is built.
                before @ (Undelivered::Empty | Undelivered::Held(_)) if gate(queue) => {
                    match (self.take(engine, now, buffer), before) {
                        (Ok(Some(newer)), Undelivered::Held(held)) => Undelivered::Next { held, newer },
                        (Ok(Some(first)), _) => Undelivered::Held(first),
                        (Ok(None), Undelivered::Held(last)) => self.closing(last, None),
                        (Err(errno), Undelivered::Held(last)) => self.closing(last, Some(errno)),
                        (ended, _) => return Progress::Failed(ended.err().unwrap_or(Errno::ENOENT)),
                    }
                }
                full => {
                    self.undelivered = full;
                    return Progress::Suspended;
                }
            };
        }
    }

    /// The engine's next message, numbered.
    fn take<E>(&mut self, engine: &mut E, now: Time, buffer: &mut MessageBuffer) -> Result<Option<Bytes>, Errno>
    where
        E: KeyEngine<Dump = D>,
    {
        let mut message = std::mem::take(&mut self.spare);
        loop {
            match engine.dump_next(&mut self.cursor, now, &mut DumpMessage::new(buffer, &mut message))? {
                DumpStep::End => return Ok(None),
                DumpStep::Entry if !self.shows(&message) => {}
                DumpStep::Entry => break,
            }
        }
        self.seq = self.seq.wrapping_add(1);
        patch(&mut message, self.seq, self.header.pid, None);
        Ok(Some(message))
    }

    fn shows(&self, message: &[u8]) -> bool {
        let is_hidden = !self.shows_sub && self.header.msg_type == MessageType::X_SPDDUMP && is_sub_policy(message);
        !is_hidden && self.is_in_world(message)
    }

    fn is_in_world(&self, message: &[u8]) -> bool {
        self.world.is_all() || scope(message).is_none_or(|(mark, if_id)| self.world.has(mark, if_id))
    }

    /// The last message, which says so and how the dump ended.
    fn closing(&self, mut last: Bytes, errno: Option<Errno>) -> Undelivered {
        patch(&mut last, 0, self.header.pid, errno);
        Undelivered::Last(last)
    }
}

/// Fills in what only the hub knows: `sadb_msg_errno`, `sadb_msg_seq`, `sadb_msg_pid`.
fn patch(message: &mut [u8], seq: u32, pid: u32, errno: Option<Errno>) {
    if let Some(errno_field) = message.get_mut(2) {
        *errno_field = errno.map_or(0, Errno::to_wire);
    }
    if let Some(field) = message.get_mut(8..12) {
        field.copy_from_slice(&seq.to_ne_bytes());
    }
    if let Some(field) = message.get_mut(12..16) {
        field.copy_from_slice(&pid.to_ne_bytes());
    }
}
