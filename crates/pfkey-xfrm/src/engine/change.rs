//! Changes: what a request asks of the kernel, from the message that is written for it to the notification that it causes.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::event::Origin;
use super::shadow::Unused;
use crate::attribute::REQUEST;
use pfkey_hub::{Context, Errno, Time};
use pfkey_model::request::{Request, is_change};
use pfkey_model::sa::SaId;
use pfkey_wire::{Header, Message, MessageType};

/// What the notification of an engine's own change to an SA leaves out.
pub struct OwnChange {
    /// The SA.
    pub id: SaId,
    /// An UPDATE found it in use, and changes its limits only.
    pub mature: bool,
    /// The algorithm that XFRM has no use for.
    pub unused: Option<Box<Unused>>,
}

/// The progress of a change.
enum State {
    /// Its message is written.
    Written,
    /// Its message could not be written, or the kernel refused it. There is no notification.
    Refused(Errno, Option<String>),
    /// The kernel made it. Its notification is in the inbox.
    Made,
    /// Its notification was applied. Changes to policies stay at [`State::Made`].
    Notified,
}

/// A change.
struct Change {
    /// The header of its request.
    header: Header,
    sa: Option<OwnChange>,
    state: State,
}

/// The changes that are under way: one, or those of a batch.
#[derive(Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// Adds a change whose message was written, or the error why it was not, which may have words.
    pub fn push(&mut self, header: Header, written: Result<Option<OwnChange>, Errno>, why: Option<String>) {
        let (sa, state) = match written {
            Ok(sa) => (sa, State::Written),
            Err(errno) => (None, State::Refused(errno, why)),
        };
        self.0.push(Change { header, sa, state });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A notification is applied. If it is that of one of these changes, returns what it leaves out.
    pub fn notified(&mut self, origin: Origin, id: &SaId) -> Option<OwnChange> {
        let own = |change: &&mut Change| {
            let Change { header, sa, state } = change;
            matches!(state, State::Made)
                && (header.seq, header.pid) == (origin.seq, origin.pid)
                && sa.as_ref().is_some_and(|sa| sa.id == *id)
        };
        let change = self.0.iter_mut().find(own)?;
        change.state = State::Notified;
        change.sa.take()
    }
}

/// Whether requests of a type become exactly one message to the kernel, and can be part of a batch. An UPDATE has to ask
/// for the SA first.
pub fn is_one_change(msg_type: MessageType) -> bool {
    is_change(msg_type) && msg_type != MessageType::UPDATE
}

impl XfrmEngine {
    /// Writes the change that a request asks for; no message is written if it fails.
    pub(super) fn write_change(
        &mut self,
        message: &Message<'_>,
        request: &Request,
        flags: u16,
        now: Time,
    ) -> Result<Option<OwnChange>, Errno> {
        let header = message.header();
        match request {
            Request::Add(sa) => return self.write_add(message, sa, flags).map(Some),
            Request::Update(sa) => return self.write_update(message, sa, flags, now).map(Some),
            Request::Delete(id) => self.write_delete(header, id, flags)?,
            Request::PolicyAdd(policy) => self.write_spd_add(message, policy, false, flags),
            Request::PolicyUpdate(policy) => self.write_spd_add(message, policy, true, flags),
            Request::PolicyDelete(name) => self.write_spd_delete(message, name, flags),
            Request::PolicyDeleteById(id) => self.write_spd_delete_by_id(header, *id, flags)?,
            // No change.
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(None)
    }

    /// Makes one change and takes all events, its notification among them. The kernel notifies every listener of a change,
    /// this engine too, before `send` returns. A notification is no proof of success, because another engine's change may
    /// have the same sequence number and process id. Only an error shows that the change failed.
    pub(super) fn change(
        &mut self,
        message: &Message<'_>,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        self.make_room(cx);
        let own = self.write_change(message, request, REQUEST, cx.now)?;
        self.requests.change(&mut self.writer)?;
        self.changes.push(message.header(), Ok(own), None);
        self.made(0);
        self.take_events(cx);
        self.changes.0.clear();
        Ok(())
    }

    /// Sends the changes of a batch, and reports the outcome of each in order.
    pub(super) fn settle_changes(&mut self, cx: &mut Context<'_>) {
        self.make_room(cx);
        let outcomes = match self.gathered.bytes() {
            [] => Ok(Vec::new()),
            _ => self.requests.change_all(&mut self.gathered),
        };
        // What is asked meanwhile has words of its own.
        let mut said = self.requests.take_said();
        let failed = outcomes.as_ref().err().copied().unwrap_or(Errno::ENOBUFS);
        let mut outcomes = outcomes.unwrap_or_default().into_iter().enumerate();
        for n in 0..self.changes.len() {
            let Some(Change { header, state, .. }) = self.changes.0.get_mut(n) else { break };
            if matches!(state, State::Written) {
                let (place, outcome) = outcomes.next().unwrap_or((usize::MAX, Err(failed)));
                if let Err(errno) = outcome {
                    *state = State::Refused(errno, said.remove(&place));
                }
            }
            let header = *header;
            if let State::Refused(errno, why) = state {
                cx.report(header, *errno, why.as_deref());
            } else {
                self.made(n);
                self.take_events_until(Some(Origin { seq: header.seq, pid: header.pid }), cx);
            }
        }
        self.take_events(cx);
        self.changes.0.clear();
    }

    /// The kernel made the n-th change. Its notification is in the inbox.
    fn made(&mut self, n: usize) {
        let Some(change) = self.changes.0.get_mut(n) else { return };
        change.state = State::Made;
        if let Some(own) = change.sa.as_ref().filter(|own| own.mature) {
            // With new limits an SA is mature again. If one of them is reached already, the kernel sends an EXPIRE.
            self.shadow.set_dying(&own.id, Some(false));
        }
    }
}
