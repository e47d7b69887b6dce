//! Every SA behind a PF_KEY descriptor, by the shortest way: where XFRM is behind it, straight from netlink; otherwise by
//! DUMP.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use zeroize::Zeroizing;

use crate::calls::{Call, Reply};
pub use crate::model::view::{Failures, SaView};
use crate::transport::{self, Forgotten, Transport, reply_to};
use crate::wire::{Errno, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType, Writer};
use crate::{socket, xfrm};

/// Shows every SA of a type (UNSPEC: of all) to `visit`, newest first, until it breaks.
///
/// Where the descriptor is a private pfkeyd's over XFRM, or an AF_KEY socket, SAs are read from the kernel of its network
/// namespace by netlink, and nothing passes over the descriptor. "Dying" is then judged from limits and counters. Where
/// that cannot be (no CAP_NET_ADMIN, another namespace, another engine), a DUMP goes over the descriptor; what waits there
/// before, the rest of another dump among it, and what else arrives meanwhile is read and lost, so use a descriptor that hears
/// nothing, and is not promiscuous: it would receive copies. Its entries are waited for on a non-blocking descriptor, too.
///
/// # Errors
/// ENOENT never: no SA, no visit. EINVAL for a type that has no SAs. ENOMEM: nothing was asked. EAGAIN after SO_RCVTIMEO, or
/// if a non-blocking descriptor has heard nothing for 30 seconds. What `send`, `recv` or the engine say.
pub fn for_each_sa(
    fd: BorrowedFd<'_>,
    satype: SaType,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let proto = satype.protocol().ok_or(Errno::EINVAL)?;
    if socket::is_xfrm(fd) {
        let netlink = xfrm::Netlink::open().ok().filter(|netlink| socket::same_namespace(fd, netlink.as_fd()));
        if let Some(done) = netlink.and_then(|netlink| xfrm::direct::for_each_sa(netlink, proto, now(), visit)) {
            return done;
        }
    }
    by_dump(fd, satype, visit)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn by_dump(
    fd: BorrowedFd<'_>,
    satype: SaType,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Result<(), Errno> {
    // Before the request: its answers have to be read.
    let mut entries = Entries::of(fd)?;
    let mut request = [0; crate::wire::HEADER_LEN];
    let header = Header::new(MessageType::DUMP, satype, 0, std::process::id());
    Writer::new(&mut request, header, Profile::Linux).finish().map_err(|_| Errno::EINVAL)?;
    let call = Call::of(header);
    let mut start = Start::NotSeen { older: older_dump(fd)? };
    entries.send(&request, &[call])?;
    let mut flow = ControlFlow::Continue(());
    loop {
        let reply = reply_to(&call, &mut entries)?;
        match start.place(reply, Header::read(entries.message()).map_or(0, |header| header.seq)) {
            Place::Own => {}
            Place::Older => continue,
            Place::Again => {
                entries.send(&request, &[call])?;
                continue;
            }
        }
        match reply {
            Reply::Refused(Errno::ENOENT) => return Ok(()),
            Reply::Refused(errno) => return Err(errno),
            // A dump cannot be stopped: its rest is read unseen.
            Reply::Entry | Reply::Last if flow.is_continue() => {
                let message = Message::parse(entries.message(), Profile::Linux).ok();
                flow = message.as_ref().and_then(SaView::of_message).map_or(flow, |view| visit(&view));
            }
            Reply::Entry | Reply::Last => {}
        }
        if reply == Reply::Last {
            return Ok(());
        }
    }
}

/// Forgets what waits, and says whether the rest of a dump that the program began will come.
fn older_dump(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let own = |header: &Header| header.msg_type == MessageType::DUMP && header.pid == std::process::id();
    let mut runs = false;
    transport::empty(fd, |forgotten| match forgotten {
        Forgotten::Message(header) if own(&header) => {
            runs = matches!(Call::of(header).reply(&header), Some(Reply::Entry))
        }
        Forgotten::Message(_) => {}
        Forgotten::Unknown => runs = false,
    })?;
    Ok(runs)
}

/// Where a dump begins, among what may be left of one before it, of which there is no more than that at a time. Entries are numbered
/// from 1; the last is 0.
#[derive(Clone, Copy)]
enum Start {
    /// Whether something of an older one is left.
    NotSeen {
        older: bool,
    },
    /// The request was refused, because an older one runs.
    Refused,
    Seen,
}

/// Of which dump a message is.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    Own,
    Older,
    /// The end of an older one, for which the request was refused.
    Again,
}

impl Start {
    fn place(&mut self, reply: Reply, seq: u32) -> Place {
        let (place, after) = match (*self, reply) {
            (Self::Seen, _) | (Self::NotSeen { older: false }, Reply::Last) => (Place::Own, Self::Seen),
            (Self::NotSeen { .. }, Reply::Entry) if seq == 1 => (Place::Own, Self::Seen),
            (Self::NotSeen { .. }, Reply::Entry) => (Place::Older, Self::NotSeen { older: true }),
            (Self::NotSeen { older: true }, Reply::Last) => (Place::Older, Self::NotSeen { older: false }),
            (Self::NotSeen { .. }, Reply::Refused(Errno::EBUSY)) => (Place::Older, Self::Refused),
            (Self::NotSeen { .. }, Reply::Refused(_)) => (Place::Own, Self::Seen),
            (Self::Refused, Reply::Entry) => (Place::Older, Self::Refused),
            (Self::Refused, Reply::Last | Reply::Refused(_)) => (Place::Again, Self::NotSeen { older: false }),
        };
        *self = after;
        place
    }
}

/// How long an entry is waited for on a non-blocking descriptor.
const LIMIT: Duration = socket::SETTLE_LIMIT;

/// Whether a message can be received in time, on a descriptor that does not wait.
fn wait(fd: BorrowedFd<'_>) -> Result<(), nix::errno::Errno> {
    use nix::errno::Errno;
    // Without O_NONBLOCK it has waited as long as the program's SO_RCVTIMEO says.
    if !OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK) {
        return Err(Errno::EAGAIN);
    }
    let limit = PollTimeout::try_from(LIMIT).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], limit) {
        Ok(0) => Err(Errno::EAGAIN),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A descriptor of a C program's. What answers something else is lost, because there may be no memory in which to keep it.
struct Entries<'fd> {
    fd: BorrowedFd<'fd>,
    buffer: Zeroizing<Vec<u8>>,
    len: usize,
}

impl<'fd> Entries<'fd> {
    fn of(fd: BorrowedFd<'fd>) -> Result<Self, Errno> {
        let mut buffer = Zeroizing::new(Vec::new());
        buffer.try_reserve_exact(MAX_MESSAGE_LEN).map_err(|_| Errno::ENOMEM)?;
        buffer.resize(MAX_MESSAGE_LEN, 0);
        Ok(Self { fd, buffer, len: 0 })
    }
}

impl Transport for Entries<'_> {
    type Error = Errno;

    fn send(&mut self, bytes: &[u8], _: &[Call]) -> Result<(), Errno> {
        Ok(transport::send(self.fd, bytes)?)
    }

    fn receive(&mut self, _: &Call) -> Result<(), Errno> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => {}
                // The request was sent: without its answers the next would be taken for an answer to it.
                Err(nix::errno::Errno::EAGAIN) => wait(self.fd).map_err(std::io::Error::from)?,
                // pfkeyd is gone.
                Ok(0) => return Err(Errno::EPIPE),
                other => {
                    self.len = other.map_err(std::io::Error::from)?;
                    return Ok(());
                }
            }
        }
    }

    fn message(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn places(older: bool, messages: &[(Reply, u32)], expected: &[Place]) {
        let mut start = Start::NotSeen { older };
        let places: Vec<Place> = messages.iter().map(|(reply, seq)| start.place(*reply, *seq)).collect();
        assert_eq!(places, expected);
    }

    #[test]
    fn what_is_left_of_an_older_dump_is_told_from_the_one_after_it() {
        use Place::{Again, Older, Own};
        use Reply::{Entry, Last, Refused};
        places(false, &[(Entry, 1), (Entry, 2), (Last, 0)], &[Own, Own, Own]);
        places(false, &[(Last, 0)], &[Own]);
        places(false, &[(Refused(Errno::ENOENT), 0)], &[Own]);
        places(true, &[(Entry, 7), (Last, 0), (Last, 0)], &[Older, Older, Own]);
        places(true, &[(Last, 0), (Entry, 1), (Last, 0)], &[Older, Own, Own]);
        places(false, &[(Entry, 7), (Last, 0), (Refused(Errno::ENOENT), 0)], &[Older, Older, Own]);
        let busy = (Refused(Errno::EBUSY), 0);
        places(false, &[busy, (Entry, 7), (Last, 0), (Entry, 1)], &[Older, Older, Again, Own]);
        places(true, &[(Entry, 7), busy, (Refused(Errno::ENOMEM), 0), (Last, 0)], &[Older, Older, Again, Own]);
    }
}
