//! Several changes at once: many messages for the kernel with one system call, answered as if each had come alone.
#![forbid(unsafe_code)]

use super::XfrmEngine;
use super::change::is_one_change;
use crate::attribute::{ACK, REQUEST};
use pfkey_hub::Context;
use pfkey_model::request::Request;
use pfkey_wire::Message;

/// The most changes of a batch.
const CHANGES: usize = 64;
/// Bytes after which no more are added.
pub(super) const BYTES: usize = 96 * 1024;

impl XfrmEngine {
    /// `KeyEngine::request_all`.
    pub(super) fn apply_batch(&mut self, requests: &[Message<'_>], cx: &mut Context<'_>) {
        for message in requests {
            let header = message.header();
            self.why = None;
            let written = match Request::read(message, cx.now.as_secs(), self) {
                Ok(request) if !is_one_change(header.msg_type) => {
                    // It asks the kernel before it changes something, and has to see the changes before it.
                    self.settle_changes(cx);
                    if let Err(errno) = self.handle(message, request, cx) {
                        cx.report(header, errno, self.why.take().as_deref());
                    }
                    continue;
                }
                Ok(request) => self.write_change(message, &request, REQUEST | ACK, cx.now),
                Err(errno) => Err(errno),
            };
            if written.is_ok() {
                self.gathered.append(&mut self.writer);
            }
            self.writer.clear();
            self.changes.push(header, written, self.why.take());
            if self.changes.len() == CHANGES || self.gathered.bytes().len() > BYTES {
                self.settle_changes(cx);
            }
        }
        self.settle_changes(cx);
    }
}
