//! Every SA behind a PF_KEY descriptor, by the shortest way: where XFRM is behind it, straight from netlink; otherwise by
//! DUMP.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, recv};
use zeroize::Zeroizing;

pub use crate::model::view::SaView;
use crate::wire::Errno;
use crate::wire::{Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType, Writer};
use crate::{socket, xfrm};

/// Shows every SA of a type (UNSPEC: of all) to `visit`, newest first, until it breaks.
///
/// Where the descriptor is a private pfkeyd's over XFRM, or an AF_KEY socket, SAs are read from the kernel of its network
/// namespace by netlink, and nothing passes over the descriptor. "Dying" is then judged from limits and counters. Where
/// that cannot be (no CAP_NET_ADMIN, another namespace, another engine), a DUMP goes over the descriptor; what else
/// arrives there meanwhile is read and lost, so use a descriptor that hears nothing.
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
    let mut buffer = Zeroizing::new(Vec::new());
    buffer.try_reserve_exact(MAX_MESSAGE_LEN).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(MAX_MESSAGE_LEN, 0);
    let mut request = [0; crate::wire::HEADER_LEN];
    let pid = std::process::id();
    let header = Header::new(MessageType::DUMP, satype, 0, pid);
    Writer::new(&mut request, header, Profile::Linux).finish().map_err(|_| Errno::EINVAL)?;
    socket::send(fd.as_raw_fd(), &request)?;
    let mut flow = ControlFlow::Continue(());
    loop {
        let len = match recv(fd.as_fd().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => continue,
            // pfkeyd is gone.
            Ok(0) => return Err(Errno::EPIPE),
            other => other.map_err(std::io::Error::from)?,
        };
        let Some(message) = buffer.get(..len).and_then(|bytes| Message::parse(bytes, Profile::Linux).ok()) else {
            continue;
        };
        let header = message.header();
        if header.msg_type != MessageType::DUMP || header.pid != pid {
            continue;
        }
        match header.errno {
            0 => {}
            errno => match Errno::from_raw(errno.into()) {
                Errno::ENOENT => return Ok(()),
                errno => return Err(errno),
            },
        }
        // A dump cannot be stopped: its rest is read unseen.
        if flow.is_continue() {
            flow = SaView::of_message(&message).map_or(flow, |view| visit(&view));
        }
        if header.seq == 0 {
            return Ok(());
        }
    }
}
