//! The one loop that waits for answers, whatever messages travel over.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::calls::{Call, Reply};
use crate::socket::{self, Headers};
use crate::wire::{BATCH, Header};

/// A descriptor, and the message that it received last.
pub(crate) trait Transport {
    /// Why nothing can be sent or received.
    type Error: From<io::Error>;

    /// Sends the requests of these calls: one, or the datagram of a batch.
    fn send(&mut self, bytes: &[u8], calls: &[Call]) -> Result<(), Self::Error>;

    /// An answer to a call is waited for from now on.
    fn begin(&mut self) {}

    /// Receives the next message, in place of the last one. An error if none comes that could answer the call.
    fn receive(&mut self, call: &Call) -> Result<(), Self::Error>;

    /// The message that was received last, or as much of it as is received at all.
    fn message(&mut self) -> &mut [u8];

    /// Does with the message what is to be done with those that answer something else: it is lost, if nothing.
    fn set_aside(&mut self) {}
}

/// Receives until a message answers the call. It is the transport's last one then.
pub(crate) fn reply_to<T: Transport>(call: &Call, transport: &mut T) -> Result<Reply, T::Error> {
    transport.begin();
    loop {
        transport.receive(call)?;
        match Header::read(transport.message()).and_then(|header| call.reply(&header)) {
            None => transport.set_aside(),
            Some(reply) => return Ok(reply),
        }
    }
}

/// What was read and forgotten.
#[derive(Clone, Copy)]
pub(crate) enum Forgotten {
    /// A message.
    Message(Header),
    /// There is no telling what: messages were lost.
    Unknown,
}

/// Reads and forgets what waits on a descriptor: an answer that a program has left unread could be taken for one to a request with
/// the same name.
#[inline(never)]
pub(crate) fn empty(fd: BorrowedFd<'_>, mut forgotten: impl FnMut(Forgotten)) -> io::Result<()> {
    let mut waiting = Headers::default();
    loop {
        match waiting.receive(fd) {
            Ok(()) => {
                while let Some(bytes) = waiting.take() {
                    if bytes.is_empty() {
                        // The end of file, which who sends next is told.
                        return Ok(());
                    }
                    forgotten(Header::read(bytes).map_or(Forgotten::Unknown, Forgotten::Message));
                }
            }
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            // Said once: the descriptor was full (AF_KEY), or the peer has left before it had read everything.
            Err(Errno::ENOBUFS | Errno::ECONNRESET) => forgotten(Forgotten::Unknown),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends a request, or the datagram of a batch.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    if bytes.starts_with(&BATCH) { socket::send_batch(fd, bytes) } else { socket::send(fd, bytes).map(drop) }
}
