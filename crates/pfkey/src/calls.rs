//! Requests and which message answers which, without I/O.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Invalid};
use crate::received::Received;
use crate::request::Request;
use crate::wire::{Errno, HEADER_LEN, Header, MessageType};

/// The next sequence number, of all clients of this process: another's answer is broadcast to this one, too, and has the
/// same pid. The first is a random one: processes of two pid namespaces can have the same pid, and the answers to each are
/// broadcast to both. 0, which ends a dump: there was none yet.
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn next_seq() -> u32 {
    next_of(&NEXT)
}

fn next_of(next: &AtomicU32) -> u32 {
    loop {
        if next.load(Ordering::Relaxed) == 0 {
            // The keys of the standard library's hasher are random in each process. Whoever comes second takes the first's.
            let first = RandomState::new().hash_one(()) as u32;
            let _ = next.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
        }
        match next.fetch_add(1, Ordering::Relaxed) {
            0 => {}
            seq => return seq,
        }
    }
}

/// Makes requests and tells which message answers which. For programs that do I/O themselves; [`crate::Client`] does it.
///
/// ```
/// use pfkey::{Calls, Received, Request, SaType};
/// let (mut calls, mut buffer) = (Calls::new(), Vec::new());
/// let (call, message) = calls.begin(&Request::Flush(SaType::ESP), &mut buffer).unwrap();
/// assert_eq!(message.len(), 16);
/// // … send it, and for each message that arrives:
/// let mut arrived = message.to_vec();
/// let received = Received::read(&mut arrived).unwrap();
/// assert!(call.is_answered_by(&received) && call.outcome(&received).is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls(());

/// A request that was sent and awaits its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    header: Header,
    /// The sequence number of an answer says nothing.
    any_seq: bool,
}

/// What a message is to the call that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An entry of its dump; more follow.
    Entry,
    /// Its answer, or the last entry of its dump.
    Last,
    /// The request was refused, or its dump could not be finished.
    Refused(Errno),
}

impl Calls {
    /// Those of this process.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }

    /// Writes a request into the buffer, which may have held anything, and returns the message. It may hold keys: wipe it.
    ///
    /// # Errors
    /// The field that makes no sense.
    pub fn begin<'b>(
        &mut self,
        request: &Request<'_>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<(Call, &'b mut [u8]), Invalid> {
        // Asked each time: the process may have forked.
        let (header, len) = request.write(next_seq(), std::process::id(), buffer)?;
        Ok((Call::of(header), buffer.get_mut(..len).unwrap_or_default()))
    }
}

impl Call {
    /// The call of a request with this header, which was made otherwise.
    #[must_use]
    pub const fn of(header: Header) -> Self {
        Self { any_seq: is_dump(header.msg_type), header }
    }

    /// The same, answered by a message with any sequence number.
    #[must_use]
    pub const fn with_any_seq(self) -> Self {
        Self { any_seq: true, ..self }
    }

    /// The type of the request.
    #[must_use]
    pub const fn request(&self) -> MessageType {
        self.header.msg_type
    }

    /// Whether many messages answer it.
    pub(crate) const fn is_dump(&self) -> bool {
        is_dump(self.request())
    }

    /// Whether a message answers it. Of a dump each entry does; the last has the sequence number 0, or an errno.
    #[must_use]
    pub fn is_answered_by(&self, received: &Received<'_>) -> bool {
        !received.is_copy && self.reply(&received.header).is_some()
    }

    /// What a message with this header, which no other header is before, is to it; `None`: it answers something else.
    #[must_use]
    pub fn reply(&self, header: &Header) -> Option<Reply> {
        let is_its = (header.msg_type, header.pid) == (self.header.msg_type, self.header.pid)
            && (self.any_seq || header.seq == self.header.seq);
        is_its.then(|| match header.errno {
            0 if is_dump(header.msg_type) && header.seq != 0 => Reply::Entry,
            0 => Reply::Last,
            errno => Reply::Refused(Errno::from_raw(errno.into())),
        })
    }

    /// Whether a message is the copy of the request that a promiscuous session receives before the answer: behind a header
    /// of PROMISC (RFC 2367 section 3.1.11), or bare, as Linux sends it.
    pub(crate) fn is_copied_by(&self, message: &[u8]) -> bool {
        let is_request = |bytes: &[u8]| {
            let name = |header: &Header| (header.msg_type, header.seq, header.pid);
            Header::read(bytes).is_some_and(|header| name(&header) == name(&self.header))
        };
        let wrapped = Header::read(message).is_some_and(|outer| outer.msg_type == MessageType::X_PROMISC);
        is_request(message) || wrapped && message.get(HEADER_LEN..).is_some_and(is_request)
    }

    /// The error of its answer, if it has one.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn outcome(&self, answer: &Received<'_>) -> Result<(), Error> {
        match answer.header.errno {
            0 => Ok(()),
            errno => Err(self.refused(Errno::from_raw(errno.into()), answer.why())),
        }
    }

    pub(crate) const fn refused(&self, errno: Errno, why: Option<Box<str>>) -> Error {
        Error::Refused { request: self.request(), errno, why }
    }
}

/// Whether the answer has many messages, with sequence numbers of their own.
pub(crate) const fn is_dump(msg_type: MessageType) -> bool {
    matches!(msg_type, MessageType::DUMP | MessageType::X_SPDDUMP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_begin_anywhere_and_are_never_0() {
        let starts = [(); 4].map(|()| next_of(&AtomicU32::new(0)));
        // That three are the first's happens once in 2^96 times.
        assert!(starts.iter().any(|start| *start != starts[0]), "{starts:x?}");
        let next = AtomicU32::new(u32::MAX - 1);
        assert_eq!((next_of(&next), next_of(&next)), (u32::MAX - 1, u32::MAX));
        assert_ne!(next_of(&next), 0);
        let first = next_of(&next);
        assert_eq!(next_of(&next), first.wrapping_add(1));
    }
}
