//! The routes that a look-up needs; the program that embeds the engine knows them.

use std::net::IpAddr;

use pfkey_wire::Errno;
use pfkey_wire::address::in_family_of;

/// Where packets go without SAs: an ordinary route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The device's number; 0 = none, and nothing can be sent.
    pub device: u32,
    /// Bytes that fit, IP header included.
    pub mtu: u32,
    /// The address that this host has on it.
    pub source: IpAddr,
    /// The next hop; `None` = the destination itself.
    pub gateway: Option<IpAddr>,
    /// The device is a loopback: a default of blocking does not hold there.
    pub loopback: bool,
    /// Policies do not apply to packets on it (`DST_NOXFRM`, `disable_xfrm`).
    pub untransformed: bool,
}

/// A routing table.
pub trait Routes {
    /// The route to an address, from one if that is given.
    ///
    /// # Errors
    /// The sender's error: ENETUNREACH, EHOSTUNREACH, EACCES …
    fn route(&self, src: Option<IpAddr>, dst: IpAddr) -> Result<Path, Errno>;

    /// A number that grows whenever a route or its MTU changes, so that remembered results are not used any more.
    fn generation(&self) -> u64 {
        0
    }
}

/// One path for every packet.
impl Routes for Path {
    fn route(&self, _: Option<IpAddr>, dst: IpAddr) -> Result<Path, Errno> {
        Ok(Self { source: in_family_of(self.source, dst), ..*self })
    }
}
