//! Every SA behind a PF_KEY descriptor, by the shortest way: where XFRM is behind it, straight from netlink; otherwise by
//! DUMP.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, recv};
use zeroize::Zeroizing;

use crate::calls::{Call, Reply};
pub use crate::model::view::{Failures, SaView};
use crate::transport::{self, Transport, reply_to};
use crate::wire::{Errno, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType, Writer};
use crate::{socket, xfrm};

/// Shows every SA of a type (UNSPEC: of all) to `visit`, newest first, until it breaks.
///
/// Where the descriptor is a private pfkeyd's over XFRM, or an AF_KEY socket, SAs are read from the kernel of its network
/// namespace by netlink, and nothing passes over the descriptor. "Dying" is then judged from limits and counters. Where
/// that cannot be (no CAP_NET_ADMIN, another namespace, another engine), a DUMP goes over the descriptor; what else
/// arrives there meanwhile is read and lost, so use a descriptor that hears nothing, and is not promiscuous: it would receive copies.
///
/// # Errors
/// ENOENT never: no SA, no visit. EINVAL for a type that has no SAs. ENOMEM: nothing was asked. What `send`, `recv` or the
/// engine say.
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
    entries.send(&request, &[call])?;
    let mut flow = ControlFlow::Continue(());
    loop {
        let reply = reply_to(&call, &mut entries)?;
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

/// A descriptor of a C program's, waited for as its own `recv` would: O_NONBLOCK and SO_RCVTIMEO are the program's. What
/// answers something else is lost, because there may be no memory in which to keep it.
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
