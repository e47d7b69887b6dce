//! A dump's messages on their way to a socket: many with one system call.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, UnixAddr, sendmmsg};
use zeroize::Zeroize;

/// Messages that one system call takes.
const MESSAGES: usize = 64;
/// Bytes after which no more are queued.
const BYTES: usize = 64 * 1024;

/// Messages that wait to be sent, in order. They may hold keys, and are wiped.
#[derive(Default)]
pub(super) struct SendQueue {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a message may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.ends.len() < MESSAGES && self.bytes.len() < BYTES
    }

    /// Gives the memory back, if nothing waits.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() != 0 {
            *self = Self::default();
        }
    }

    pub(super) fn push(&mut self, message: &[u8]) {
        // Growing would leave a copy of keys behind.
        if self.bytes.capacity() - self.bytes.len() < message.len() {
            let mut bytes = Vec::with_capacity((self.bytes.len() + message.len()).max(BYTES + 1024));
            bytes.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = bytes;
        }
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }

    /// Sends what the socket takes; the rest stays.
    ///
    /// # Errors
    /// ENOBUFS or ENOMEM: the kernel has no memory now. Any other: the peer is gone.
    pub(super) fn flush(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        while !self.ends.is_empty() {
            let starts = std::iter::once(0).chain(self.ends.iter().copied());
            let parts: Vec<[IoSlice<'_>; 1]> = starts
                .zip(&self.ends)
                .map(|(start, end)| [IoSlice::new(self.bytes.get(start..*end).unwrap_or_default())])
                .collect();
            let mut headers = MultiHeaders::<UnixAddr>::preallocate(parts.len(), None);
            let nowhere = vec![None; parts.len()];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let sent = match sendmmsg(fd.as_raw_fd(), &mut headers, &parts, nowhere, [], flags) {
                Ok(sent) => sent.count(),
                Err(Errno::EINTR) => 0,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            };
            self.remove(sent);
        }
        Ok(())
    }

    /// Removes the first messages.
    fn remove(&mut self, messages: usize) {
        let Some(end) = messages.checked_sub(1).and_then(|last| self.ends.get(last)).copied() else { return };
        self.bytes.copy_within(end.., 0);
        let left = self.bytes.len() - end;
        if let Some(gone) = self.bytes.get_mut(left..) {
            gone.zeroize();
        }
        self.bytes.truncate(left);
        self.ends.drain(..messages);
        self.ends.iter_mut().for_each(|at| *at -= end);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, recv, socketpair};

    use super::*;

    #[test]
    fn what_the_socket_does_not_take_stays_in_order() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
        let mut queue = SendQueue::default();
        let (mut pushed, mut received) = (0_u16, 0_u16);
        while received < 5000 {
            while queue.has_room() && pushed < 5000 {
                let mut message = [0; 300];
                message[..2].copy_from_slice(&pushed.to_ne_bytes());
                queue.push(&message[..20 + usize::from(pushed) % 280]);
                pushed += 1;
            }
            queue.flush(ours.as_fd()).expect("the peer is there");
            let mut buffer = [0; 400];
            while let Ok(len) = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                assert_eq!(u16::from_ne_bytes([buffer[0], buffer[1]]), received);
                assert_eq!(len, 20 + usize::from(received) % 280);
                received += 1;
            }
        }
        assert!(queue.is_empty());
        drop(theirs);
        queue.push(&[0; 16]);
        assert!(queue.flush(ours.as_fd()).is_err());
    }
}
