//! Every SA behind a PF_KEY descriptor, by the shortest way: where XFRM is behind it, straight from netlink; otherwise by
//! DUMP.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, recv};
use zeroize::Zeroizing;

use crate::afkey::policy::address;
use crate::afkey::read::limits;
use crate::afkey::sa::{Address, Encap, Limits, Usage};
use crate::keyd::{Errno, Time};
use crate::wire::{
    ExtensionType as Ext, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaState, SaType, Writer,
};
use crate::{socket, xfrm};

/// An SA, valid as long as it is looked at.
#[derive(Clone, Copy)]
pub struct SaView<'a> {
    /// AH, ESP or IPComp.
    pub satype: SaType,
    /// Larval, mature or dying.
    pub state: SaState,
    /// `sadb_sa_auth`.
    pub auth: u8,
    /// `sadb_sa_encrypt`.
    pub encrypt: u8,
    /// `sadb_x_sa2_mode`.
    pub mode: u8,
    /// Replay window in packets.
    pub replay: u8,
    /// `sadb_sa_flags`.
    pub flags: u32,
    /// SPI in host byte order.
    pub spi: u32,
    /// `sadb_x_sa2_reqid`.
    pub reqid: u32,
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Authentication key: bits, bytes.
    pub auth_key: (u16, &'a [u8]),
    /// Encryption key: bits, bytes.
    pub encrypt_key: (u16, &'a [u8]),
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
    /// Use so far.
    pub usage: Usage,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
}

impl std::fmt::Debug for SaView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaView({:?}, {:#x}, keys hidden)", self.satype, self.spi)
    }
}

/// Shows every SA of a type (UNSPEC: of all) to `visit`, newest first, until it breaks.
///
/// Where the descriptor is a private pfkeyd's over XFRM, or an AF_KEY socket, SAs are read from the kernel of its network
/// namespace by netlink, and nothing passes over the descriptor. "Dying" is then judged from limits and counters. Where
/// that cannot be (no CAP_NET_ADMIN, another namespace, another engine), a DUMP goes over the descriptor; what else
/// arrives there meanwhile is read and lost, so use a descriptor that hears nothing.
///
/// # Errors
/// ENOENT never: no SA, no visit. EINVAL for a type that has no SAs. What `send`, `recv` or the engine say.
pub fn for_each_sa(
    fd: BorrowedFd<'_>,
    satype: SaType,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let proto = satype.protocol().ok_or(Errno::EINVAL)?;
    if socket::is_xfrm(fd)
        && let Some(done) = xfrm::direct::for_each_sa(fd, proto, now(), visit)
    {
        return done;
    }
    by_dump(fd, satype, visit)
}

fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn by_dump(
    fd: BorrowedFd<'_>,
    satype: SaType,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let mut request = [0; crate::wire::HEADER_LEN];
    let pid = std::process::id();
    let header = Header::new(MessageType::DUMP, satype, 0, pid);
    Writer::new(&mut request, header, Profile::Linux).finish().map_err(|_| Errno::EINVAL)?;
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    socket::send(fd.as_raw_fd(), &request).map_err(failed)?;
    let mut buffer = Zeroizing::new(vec![0; MAX_MESSAGE_LEN]);
    let mut flow = ControlFlow::Continue(());
    loop {
        let len = match recv(fd.as_fd().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            // pfkeyd is gone.
            Ok(0) => return Err(Errno::EPIPE),
            other => other?,
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
            errno if i32::from(errno) == libc::ENOENT => return Ok(()),
            errno => return Err(Errno::from_raw(errno.into())),
        }
        // A dump cannot be stopped: its rest is read unseen.
        if flow.is_continue()
            && let Some(view) = view(&message)
        {
            flow = visit(&view);
        }
        if header.seq == 0 {
            return Ok(());
        }
    }
}

/// The SA of a message.
fn view<'a>(message: &Message<'a>) -> Option<SaView<'a>> {
    let sa = message.sa()?;
    let (src_v6, src) = message.address(Ext::ADDRESS_SRC).and_then(|(_, sockaddr)| address(sockaddr))?;
    let (_, dst) = message.address(Ext::ADDRESS_DST).and_then(|(_, sockaddr)| address(sockaddr))?;
    let current = message.lifetime(Ext::LIFETIME_CURRENT).unwrap_or_default();
    let sa2 = message.sa2().unwrap_or_default();
    Some(SaView {
        satype: message.header().satype,
        state: SaState(sa.state),
        auth: sa.auth,
        encrypt: sa.encrypt,
        mode: sa2.mode,
        replay: sa.replay,
        flags: sa.flags.get(),
        spi: sa.spi.get(),
        reqid: sa2.reqid.get(),
        v6: src_v6,
        src,
        dst,
        auth_key: message.key(Ext::KEY_AUTH).unwrap_or_default(),
        encrypt_key: message.key(Ext::KEY_ENCRYPT).unwrap_or_default(),
        hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
        soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
        usage: Usage {
            packets: current.allocations.get().into(),
            bytes: current.bytes.get(),
            add_time: current.addtime.get(),
            use_time: current.usetime.get(),
        },
        encap: message.nat_t_type().map(|encap_type| Encap {
            encap_type,
            sport: message.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
            dport: message.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
        }),
    })
}
