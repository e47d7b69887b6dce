//! Sessions' receive queues in memory, charged as Linux charges a socket's: for embedding a hub, and for tests.

use std::collections::{HashMap, VecDeque};

use zeroize::{Zeroize as _, Zeroizing};

use super::{Errno, SessionId, Sink};

/// One session's queue.
#[derive(Debug)]
struct Queue {
    /// They may hold keys.
    messages: VecDeque<Zeroizing<Vec<u8>>>,
    charged: usize,
    most_charged: usize,
    limit: usize,
    dropped: u64,
}

/// The flags that `recv` on an AF_KEY socket takes; any other is EINVAL (`pfkey_recvmsg`; `MSG_CMSG_COMPAT` is set by the
/// kernel itself for 32-bit callers).
const RECV_FLAGS: i32 = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC;

/// A receive queue for each session; a [`Sink`].
#[derive(Debug)]
pub struct Queues {
    queues: HashMap<SessionId, Queue>,
    default_limit: usize,
}

impl Default for Queues {
    fn default() -> Self {
        Self::new()
    }
}

impl Queues {
    /// Queues of 212 992 bytes each, Linux's default receive buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(212_992)
    }

    /// Queues of `limit` bytes each (`SO_RCVBUF` as it reads back).
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { queues: HashMap::new(), default_limit: limit }
    }

    /// Changes one session's limit in bytes.
    pub fn set_limit(&mut self, id: SessionId, limit: usize) {
        self.queue(id).limit = limit;
    }

    /// The oldest message of a session; it may hold keys. After taking one, call the hub's `writable` if [`Queues::may_resume`].
    pub fn pop(&mut self, id: SessionId) -> Option<Vec<u8>> {
        let queue = self.queues.get_mut(&id)?;
        let message = std::mem::take(&mut *queue.messages.pop_front()?);
        queue.charged = queue.charged.saturating_sub(truesize(message.len()));
        Some(message)
    }

    /// `recv` on an AF_KEY socket that does not wait: copies the oldest message into `buffer`, and gives its length and
    /// whether it was cut (`MSG_TRUNC` of `recvmsg`). What does not fit is lost. With `MSG_TRUNC` the length is the whole
    /// message's, otherwise what was copied; with `MSG_PEEK` the message stays. Afterwards, also after a peek, call the
    /// hub's `writable` if [`Queues::may_resume`].
    ///
    /// # Errors
    /// EINVAL for any flag but `MSG_PEEK`, `MSG_DONTWAIT` and `MSG_TRUNC`; EAGAIN without a message.
    pub fn recv(&mut self, id: SessionId, buffer: &mut [u8], flags: i32) -> Result<(usize, bool), Errno> {
        if flags & !RECV_FLAGS != 0 {
            return Err(Errno::EINVAL);
        }
        let message = self.first(id).ok_or(Errno::EAGAIN)?;
        let (whole, copied) = (message.len(), message.len().min(buffer.len()));
        if let (Some(to), Some(from)) = (buffer.get_mut(..copied), message.get(..copied)) {
            to.copy_from_slice(from);
        }
        if flags & libc::MSG_PEEK == 0 {
            self.pop(id).zeroize();
        }
        Ok((if flags & libc::MSG_TRUNC == 0 { copied } else { whole }, copied < whole))
    }

    /// The oldest message of a session, which stays.
    #[must_use]
    pub fn first(&self, id: SessionId) -> Option<&[u8]> {
        self.queues.get(&id)?.messages.front().map(|message| message.as_slice())
    }

    /// Whether a paused dump of this session goes on: at most one third of the queue is used
    /// (`pfkey_recvmsg`).
    #[must_use]
    pub fn may_resume(&self, id: SessionId) -> bool {
        self.queues.get(&id).is_none_or(|q| 3 * q.charged <= q.limit)
    }

    /// Messages waiting for a session.
    #[must_use]
    pub fn len(&self, id: SessionId) -> usize {
        self.queues.get(&id).map_or(0, |q| q.messages.len())
    }

    /// Whether nothing waits for a session.
    #[must_use]
    pub fn is_empty(&self, id: SessionId) -> bool {
        self.len(id) == 0
    }

    /// Messages that a session lost.
    #[must_use]
    pub fn dropped(&self, id: SessionId) -> u64 {
        self.queues.get(&id).map_or(0, |q| q.dropped)
    }

    /// The most bytes that were ever charged to a session's queue at once.
    #[must_use]
    pub fn most_charged(&self, id: SessionId) -> usize {
        self.queues.get(&id).map_or(0, |q| q.most_charged)
    }

    /// Forgets a closed session's queue.
    pub fn close(&mut self, id: SessionId) {
        self.queues.remove(&id);
    }

    fn queue(&mut self, id: SessionId) -> &mut Queue {
        let limit = self.default_limit;
        self.queues.entry(id).or_insert_with(|| Queue {
            messages: VecDeque::new(),
            charged: 0,
            most_charged: 0,
            limit,
            dropped: 0,
        })
    }
}

/// The bytes that a message of `len` bytes is charged, `skb->truesize`, on Linux 7.2 for x86-64: af_key allocates 16 bytes more than the message; small ones
/// come from a cache of their own, others from kmalloc, whose sizes are powers of two; both hold the 320 bytes of
/// `struct skb_shared_info`, and 256 are those of `struct sk_buff`.
#[must_use]
pub const fn truesize(len: usize) -> usize {
    let data = (len + 16).next_multiple_of(64);
    if data <= 320 { 320 + 320 + 256 } else { (data + 320).next_power_of_two() + 256 }
}

impl Sink for Queues {
    /// A message is dropped when the bytes charged already exceed the limit, so that one may overshoot
    /// (`pfkey_broadcast_one`).
    fn deliver(&mut self, to: SessionId, message: &[u8]) -> bool {
        let queue = self.queue(to);
        if queue.charged > queue.limit {
            queue.dropped += 1;
            return false;
        }
        queue.charged += truesize(message.len());
        queue.most_charged = queue.most_charged.max(queue.charged);
        queue.messages.push_back(Zeroizing::new(message.to_vec()));
        true
    }

    fn may_dump(&mut self, to: SessionId) -> bool {
        let queue = self.queue(to);
        3 * queue.charged <= 2 * queue.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_notifications_fit_as_on_linux() {
        let mut queues = Queues::new();
        let message = [0; 272];
        let taken = (0..1000).filter(|_| queues.deliver(SessionId(1), &message)).count();
        assert_eq!((taken, queues.dropped(SessionId(1))), (238, 762));
    }
}
