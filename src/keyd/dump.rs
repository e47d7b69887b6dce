//! One running dump: messages numbered 1, 2, …, the last one 0, one held back so that the last is known
//! (af_key's `pfkey_do_dump` and `dump_sa`).

use zeroize::{Zeroize as _, Zeroizing};

use super::{DumpMessage, DumpStep, Errno, KeyEngine, MessageBuffer, Time};
use crate::wire::Header;

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

/// A dump between its first and its last message.
pub(super) struct DumpRun<D> {
    cursor: D,
    header: Header,
    /// Messages taken from the engine so far.
    seq: u32,
    /// The message held back.
    pending: Option<Zeroizing<Vec<u8>>>,
    /// The engine has no more; with the errno that ended it.
    ended: Option<Option<Errno>>,
    /// A message taken from the engine that waits for `pending` to be delivered.
    next: Option<Zeroizing<Vec<u8>>>,
    /// A buffer to write the next message into.
    spare: Zeroizing<Vec<u8>>,
}

impl<D> DumpRun<D> {
    pub(super) fn new(cursor: D, header: Header) -> Self {
        Self { cursor, header, seq: 0, pending: None, ended: None, next: None, spare: Zeroizing::default() }
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

    /// Runs until the engine has no more or the queue is full. `gate` says whether the queue may be filled
    /// further, `deliver` hands over a message and says whether it was taken.
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
            if self.next.is_some() {
                if self.pending.as_ref().is_some_and(|pending| !deliver(queue, pending)) {
                    return Progress::Suspended;
                }
                self.spare = self.pending.take().unwrap_or_default();
                self.pending = self.next.take();
            }
            if let Some(errno) = self.ended {
                let Some(pending) = self.pending.as_mut() else {
                    return Progress::Failed(errno.unwrap_or(Errno::ENOENT));
                };
                // Even the closing message obeys the gate.
                patch(pending, 0, self.header.pid, errno);
                if !gate(queue) || !deliver(queue, pending) {
                    return Progress::Suspended;
                }
                self.pending = None;
                return Progress::Done;
            }
            // The gate is tested before a message is built.
            if !gate(queue) {
                return Progress::Suspended;
            }
            let mut message = std::mem::take(&mut self.spare);
            // Also what is beyond its length: a buffer that grows leaves its old place as it is.
            message.zeroize();
            match engine.dump_next(&mut self.cursor, now, &mut DumpMessage::new(buffer, &mut message)) {
                Ok(DumpStep::Entry) => {
                    self.seq = self.seq.wrapping_add(1);
                    patch(&mut message, self.seq, self.header.pid, None);
                    self.next = Some(message);
                }
                Ok(DumpStep::End) => self.ended = Some(None),
                Err(errno) => self.ended = Some(Some(errno)),
            }
        }
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
