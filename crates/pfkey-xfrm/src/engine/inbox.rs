//! The kernel's events, several with one system call.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use zeroize::Zeroize;

use crate::attribute::{Received, split};
use crate::netlink::Netlink;
use pfkey_hub::Errno;

/// Events that one system call takes.
const EVENTS: usize = 16;
/// An SA's event contains its keys up to three times, and each has 8 KiB at most.
const EVENT: usize = 32 * 1024;

/// The rest of a datagram that was not decoded yet.
struct Waiting {
    /// Where it is among the buffers.
    read: usize,
    end: usize,
}

/// A socket that joined groups, and the events that it received.
pub struct Inbox {
    netlink: Netlink,
    /// One allocation: so large a one is new pages, which take no memory before an event reaches them. A small one may be memory
    /// that was used before, and is filled with zeroes.
    buffers: Box<[u8]>,
    waiting: VecDeque<Waiting>,
    /// No more events waited when these were received.
    drained: bool,
    /// An event did not fit.
    truncated: bool,
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

impl Inbox {
    pub fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            buffers: vec![0; EVENTS * EVENT].into(),
            waiting: VecDeque::new(),
            drained: false,
            truncated: false,
        }
    }

    pub const fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Whether all received events were taken.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Receives again before it reports the end.
    pub const fn look_again(&mut self) {
        self.drained = false;
    }

    /// Decodes the next event and wipes it; `None` if there is none.
    ///
    /// # Errors
    /// ENOBUFS once after events were lost; EPROTO for what is no netlink message of the kernel's; others of `recvmmsg`.
    pub fn next<R>(&mut self, decode: impl FnOnce(&Received<'_>) -> R) -> Result<Option<R>, Errno> {
        if self.waiting.is_empty() && !self.drained {
            self.receive()?;
        }
        if std::mem::take(&mut self.truncated) {
            return Err(Errno::ENOBUFS);
        }
        let Some(one) = self.waiting.front_mut() else {
            self.drained = false;
            return Ok(None);
        };
        let bytes = self.buffers.get_mut(one.read..one.end).unwrap_or_default();
        let (decoded, left) = match split(bytes) {
            Some((received, rest)) => (Ok(Some(decode(&received))), rest.len()),
            None => (Err(Errno::EPROTO), 0),
        };
        let read = bytes.len() - left;
        bytes.get_mut(..read).unwrap_or_default().zeroize();
        one.read += read;
        if left == 0 {
            self.waiting.pop_front();
        }
        decoded
    }

    fn receive(&mut self) -> Result<(), Errno> {
        let received = self.netlink.receive_many(&mut self.buffers, EVENT)?;
        self.drained = received.len() < EVENTS;
        for (one, start) in received.into_iter().zip((0..).step_by(EVENT)) {
            if one.truncated {
                // Nobody reads it, and it may have keys in it.
                self.truncated = true;
                self.buffers.get_mut(start..start + EVENT).unwrap_or_default().zeroize();
            } else {
                self.waiting.push_back(Waiting { read: start, end: start + one.len });
            }
        }
        Ok(())
    }
}
