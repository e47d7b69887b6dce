//! The hello of a client of the machine's pfkeyd.

use std::os::fd::{AsFd, OwnedFd};

use pfkey_wire::hello::SOCKETS;

use super::Server;
use super::receive::{Peeked, peek};
use crate::keeper::Keeper;
use crate::{Service, SessionId, Sink, Sources};

impl<H: Service + Sources, K: Keeper> Server<H, K> {
    /// Takes a client's hello, which waits, and the netlink sockets that came with it. Only those are in it, so that to take it
    /// away takes no time.
    pub(super) fn meet(&mut self, id: SessionId, sockets: Vec<OwnedFd>) {
        let Some(connection) = self.connections.by_session.get(&id) else { return };
        let slot = connection.slot;
        let Ok(Peeked { len, sent, .. }) = peek(connection.fd.as_fd(), &mut self.buffer, &mut self.control) else {
            return self.close(id);
        };
        if let Some(slot) = slot {
            self.connections.keeper.begin(slot, sent, 0);
        }
        let brought = sockets.len();
        let welcome = self.hub.meet(id, self.buffer.get(..len).unwrap_or_default(), sockets);
        if let Some(slot) = slot.filter(|_| welcome.errno == 0) {
            self.note(id);
            if brought > SOCKETS {
                self.connections.keeper.has_met(slot);
            }
        }
        let told = self.connections.deliver(id, &welcome.to_bytes());
        if let Some(slot) = slot.filter(|_| told) {
            self.connections.keeper.answered(slot, welcome.errno as u8);
        }
        // What is left unread when a socket closes is told to its peer before the answer.
        self.consume(id);
        if welcome.errno != 0 || !told {
            return self.close(id);
        }
        // The welcome has room without it, and does not wait for it.
        self.connections.give_buffer(id);
    }
}
