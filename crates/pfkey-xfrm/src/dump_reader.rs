//! A netlink dump, message by message.
#![forbid(unsafe_code)]

use zeroize::Zeroizing;

use super::attribute::{Acknowledgement, Received, split};
use super::layout::message;
use super::netlink::{Netlink, RECEIVE_BUFFER};
use pfkey_wire::Errno;
use pfkey_wire::hello::{PRIMER, PRIMER_SEQ};

/// Datagrams without a message of the dump, after which it is given up.
const MOST_REFILLS: usize = 256;

/// A dump between its request and its end. What was received may hold keys, and is wiped in the end.
pub struct DumpReader {
    netlink: Netlink,
    /// `nlmsg_seq` of the request and of all of its answers.
    seq: u32,
    buffer: Zeroizing<Vec<u8>>,
    /// How far the buffer is filled, and how far it was read.
    filled: usize,
    read: usize,
    /// The kernel reported the end.
    ended: bool,
}

/// Has the kernel write datagrams of a dump as large as the buffer: as large as the largest that was asked for when something was
/// received. Otherwise the first is a page, and an SA or a policy that finds no place in an empty one ends the dump without an
/// error (`xfrm_dump_sa`), whatever follows.
fn make_room(netlink: &Netlink, buffer: &mut [u8]) -> Result<(), Errno> {
    netlink.send(&PRIMER)?;
    for _ in 0..MOST_REFILLS {
        let received = netlink.receive(buffer)?.ok_or(Errno::ENOBUFS)?;
        // Whether it may ask at all, the dump is told.
        if Acknowledgement::read(received).is_some_and(|answer| answer.of.seq == PRIMER_SEQ) {
            return Ok(());
        }
    }
    Err(Errno::ENOBUFS)
}

impl DumpReader {
    /// Sends the request of a dump.
    ///
    /// # Errors
    /// ENOMEM; that of `send`; ENOBUFS where no answer comes; and the socket. The kernel's own error comes with the first message.
    pub fn start(netlink: Netlink, request: &[u8]) -> Result<Self, (Errno, Netlink)> {
        let seq = split(request).map_or(0, |(one, _)| one.seq);
        let mut buffer = Zeroizing::new(Vec::new());
        if buffer.try_reserve_exact(RECEIVE_BUFFER).is_err() {
            return Err((Errno::ENOMEM, netlink));
        }
        buffer.resize(RECEIVE_BUFFER, 0);
        if let Err(errno) = make_room(&netlink, &mut buffer).and_then(|()| netlink.send(request)) {
            return Err((errno, netlink));
        }
        Ok(Self { netlink, seq, buffer, filled: 0, read: 0, ended: false })
    }

    /// Passes the next message to `take`; `None` at the end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next<R>(&mut self, take: impl FnOnce(&Received<'_>) -> R) -> Result<Option<R>, Errno> {
        let mut refills = 0;
        loop {
            if self.ended {
                return Ok(None);
            }
            let waiting = self.buffer.get(self.read..self.filled).unwrap_or_default();
            let Some((received, rest)) = split(waiting) else {
                // Nothing of this dump comes any more, only what another who has the socket causes.
                if refills > MOST_REFILLS {
                    return Err(Errno::ENOBUFS);
                }
                refills += 1;
                self.refill()?;
                continue;
            };
            self.read = self.filled - rest.len();
            match received.msg_type {
                // Of another dump.
                _ if received.seq != self.seq => {}
                message::DONE | message::ERROR => {
                    self.ended = true;
                    match received.error() {
                        0 => {}
                        errno => return Err(Errno::from_raw(errno)),
                    }
                }
                _ => return Ok(Some(take(&received))),
            }
        }
    }

    fn refill(&mut self) -> Result<(), Errno> {
        (self.filled, self.read) = (0, 0);
        // The kernel puts the next part into the queue when this one is taken out.
        self.filled = self.netlink.receive(&mut self.buffer)?.ok_or(Errno::ENOBUFS)?.len();
        Ok(())
    }

    /// The socket, and whether the dump was read to its end: otherwise the rest of it may still come.
    pub fn into_netlink(self) -> (Netlink, bool) {
        (self.netlink, self.ended)
    }
}
