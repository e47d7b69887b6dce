//! The kernel's events, several with one system call.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use zeroize::Zeroize;

use super::netlink::Netlink;
use crate::keyd::Errno;

/// Events that one system call takes.
const EVENTS: usize = 16;
/// An SA's event names its keys up to three times, and each has 8 KiB at most. Pages that no event reached stay unused.
const EVENT: usize = 32 * 1024;

/// A socket that hears groups, and what it received that was not looked at.
pub struct Inbox {
    netlink: Netlink,
    buffers: Vec<Box<[u8]>>,
    /// Buffers that hold an event, and its length.
    waiting: VecDeque<(usize, usize)>,
    /// There was no more when the waiting events were received.
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
        let buffers = (0..EVENTS).map(|_| vec![0; EVENT].into()).collect();
        Self { netlink, buffers, waiting: VecDeque::new(), drained: false, truncated: false }
    }

    pub const fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Whether every event that was received was taken.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Hands the next event to `take` and wipes it; `None` if there is none.
    ///
    /// # Errors
    /// ENOBUFS once after events were lost; others of `recvmmsg`.
    pub fn next<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, Errno> {
        if self.waiting.is_empty() && !self.drained {
            self.receive()?;
        }
        if std::mem::take(&mut self.truncated) {
            return Err(Errno::ENOBUFS);
        }
        let Some((index, len)) = self.waiting.pop_front() else {
            self.drained = false;
            return Ok(None);
        };
        let Some(event) = self.buffers.get_mut(index).and_then(|buffer| buffer.get_mut(..len)) else { return Ok(None) };
        let taken = take(event);
        event.zeroize();
        Ok(Some(taken))
    }

    fn receive(&mut self) -> Result<(), Errno> {
        let received = self.netlink.receive_many(&mut self.buffers)?;
        self.drained = received.len() < EVENTS;
        self.truncated = received.iter().any(|one| one.truncated);
        let whole = received.into_iter().enumerate().filter(|(_, one)| !one.truncated);
        self.waiting = whole.map(|(index, one)| (index, one.len)).collect();
        Ok(())
    }
}
