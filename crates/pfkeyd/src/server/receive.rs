//! Looking at a request, and taking it away.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg};
use zeroize::Zeroize;

use crate::limits::ATTEMPTS;
use pfkey_wire::MAX_MESSAGE_LEN;

/// Takes the first message away from a descriptor.
pub(super) type Consume = fn(BorrowedFd<'_>) -> nix::Result<usize>;

pub(super) fn consume(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    recv(fd.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)
}

/// Whether a message waits.
pub(super) fn has_request(fd: BorrowedFd<'_>) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut looks = (0..ATTEMPTS).map(|_| recv(fd.as_raw_fd(), &mut [], flags));
    looks
        .find(|look| !matches!(look, Err(Errno::EINTR | Errno::ECONNRESET)))
        .is_some_and(|look| look.is_ok_and(|len| len > 0))
}

/// What waits at a descriptor.
pub(super) struct Peeked {
    /// The message's whole length, which may be more than the buffer has.
    pub len: usize,
    /// When it was sent, in nanoseconds.
    pub sent: u64,
    /// It carries descriptors: whoever takes it away has to close them, and may have to wait.
    pub carries: bool,
}

/// Looks at the first message that waits. `control` is room for its time.
pub(super) fn peek(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, control: &mut Vec<u8>) -> nix::Result<Peeked> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut last = Errno::EINTR;
    for _ in 0..ATTEMPTS {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut *control), flags);
        let received = received.map(|message| {
            let times = message.cmsgs().into_iter().flatten();
            let time = times.filter_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            });
            let sent = time.map(|time| time.as_nanos() as u64).next().unwrap_or(0);
            // There is room for a time and for nothing else.
            Peeked { len: message.bytes, sent, carries: message.flags.contains(MsgFlags::MSG_CTRUNC) }
        });
        match received {
            Ok(Peeked { len, .. }) if len > buffer.len() && buffer.len() < MAX_MESSAGE_LEN + 8 => {
                // Only what a message can be; the rest of anything longer is refused unread. The old memory is given back,
                // so what was peeked is wiped first.
                buffer.zeroize();
                buffer.resize(len.min(MAX_MESSAGE_LEN + 8), 0);
            }
            // The client closed its end before it had read everything; what it had asked for is still there.
            Err(errno @ (Errno::EINTR | Errno::ECONNRESET)) => last = errno,
            other => return other,
        }
    }
    Err(last)
}
