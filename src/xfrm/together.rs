//! Several changes at once: many messages for the kernel with one system call, answered as if each had come alone.
#![forbid(unsafe_code)]

use super::attribute::{ACK, REQUEST};
use super::{Own, XfrmEngine};
use crate::afkey::request::Request;
use crate::keyd::{Context, Errno};
use crate::wire::{Header, Message};

/// Changes that travel together at most.
const CHANGES: usize = 64;
/// Bytes after which no more are added.
pub(super) const BYTES: usize = 96 * 1024;

/// A request whose change was written, or why it was not.
pub(super) struct Pending {
    header: Header,
    outcome: Result<Option<Own>, Errno>,
}

impl XfrmEngine {
    /// `KeyEngine::request_all`.
    pub(super) fn change_together(&mut self, requests: &[Message<'_>], cx: &mut Context<'_>) {
        let mut pending = Vec::new();
        for message in requests {
            let header = message.header();
            let flags = REQUEST | ACK;
            let outcome = match Request::read(message, cx.now.as_secs(), self) {
                Err(errno) => Err(errno),
                Ok(Request::Add(sa)) => self.write_add(message, &sa, flags).map(Some),
                Ok(Request::Delete(id)) => self.write_delete(header, &id, flags).map(|()| None),
                Ok(Request::PolicyAdd(policy)) => {
                    self.write_spd_add(message, &policy, false, flags);
                    Ok(None)
                }
                Ok(Request::PolicyUpdate(policy)) => {
                    self.write_spd_add(message, &policy, true, flags);
                    Ok(None)
                }
                Ok(Request::PolicyDelete(name)) => {
                    self.write_spd_delete(message, &name, flags);
                    Ok(None)
                }
                Ok(Request::PolicyDeleteById(id)) => self.write_spd_delete_by_id(header, id, flags).map(|()| None),
                // What asks before it changes has to see what was changed before.
                Ok(request) => {
                    self.change_pending(&mut pending, cx);
                    self.take_events(cx);
                    if let Err(errno) = self.handle(message, request, cx) {
                        cx.report(header, errno);
                    }
                    continue;
                }
            };
            if outcome.is_ok() {
                self.gathered.append(&mut self.writer);
            }
            self.writer.clear();
            pending.push(Pending { header, outcome });
            if pending.len() == CHANGES || self.gathered.bytes().len() > BYTES {
                self.change_pending(&mut pending, cx);
            }
        }
        self.change_pending(&mut pending, cx);
    }

    /// Sends what was gathered and tells what came of it, in order.
    fn change_pending(&mut self, pending: &mut Vec<Pending>, cx: &mut Context<'_>) {
        let outcomes = match self.gathered.bytes() {
            [] => Ok(Vec::new()),
            _ => self.requests.change_all(&mut self.gathered),
        };
        let failed = outcomes.as_ref().err().copied();
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        for Pending { header, outcome } in pending.drain(..) {
            let outcome = outcome.and_then(|own| {
                let made = outcomes.next().unwrap_or(Err(failed.unwrap_or(Errno::ENOBUFS)));
                made.map(|()| own)
            });
            match outcome {
                Ok(own) => {
                    self.expect(own);
                    self.take_events_until(Some((header.seq, header.pid)), cx);
                }
                Err(errno) => cx.report(header, errno),
            }
        }
        self.take_events(cx);
        self.own.clear();
    }
}
