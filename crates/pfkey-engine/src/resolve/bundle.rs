//! Bundles: the SAs that a packet goes through, and the route of the packet that comes out (`xfrm_bundle_create`).

use std::fmt;

use super::mtu::Transform;
use super::path::{Path, Routes};
use super::template::Link;
use crate::Engine;
use pfkey_model::sa::SaId;
use pfkey_wire::{Errno, IpsecProtocol, Mode};

/// One SA of a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The SA.
    pub id: SaId,
    /// The mode in which it is applied.
    pub mode: Mode,
    /// The route that the packet would take before this SA.
    pub route: Path,
    /// What the SA does to a packet's length.
    pub transform: Transform,
    /// Bytes that this SA and those behind it put in front.
    pub header_len: u32,
    /// The most bytes that this SA and those behind it put behind.
    pub trailer_len: u32,
    /// The MTU for a packet that reaches this SA, IP header included.
    pub mtu: u32,
    pub(super) link: Link,
}

/// SAs in the order of their application; the first ends up closest to the payload. `Display` draws it.
#[derive(Clone, Debug)]
pub struct Bundle {
    nodes: Vec<Node>,
    path: Path,
}

impl Bundle {
    /// Makes a bundle of SAs for a packet on a route.
    ///
    /// # Errors
    /// No route to a tunnel's other end, ENODEV: a route without a device; EINVAL: an SA is gone.
    pub(super) fn create(engine: &Engine, links: &[Link], original: &Path, routes: &dyn Routes) -> Result<Self, Errno> {
        let mut path = *original;
        let mut nodes = Vec::with_capacity(links.len());
        for link in links {
            let sa = engine.sadb().get(link.index).ok_or(Errno::EINVAL)?;
            let transform = Transform::of(sa, engine.extras());
            let route = path;
            let mode = sa.mode;
            if mode != Mode::TRANSPORT {
                path = routes.route(Some(sa.ends.src()), sa.ends.dst())?;
            }
            nodes.push(Node {
                id: sa.id(),
                mode,
                route,
                transform,
                header_len: 0,
                trailer_len: 0,
                mtu: 0,
                link: *link,
            });
        }
        if path.device == 0 {
            return Err(Errno::ENODEV);
        }
        let (mut header_len, mut trailer_len) = (0, 0);
        for node in nodes.iter_mut().rev() {
            header_len += node.transform.header_len();
            trailer_len += node.transform.trailer_len();
            (node.header_len, node.trailer_len) = (header_len, trailer_len);
        }
        let mut bundle = Self { nodes, path };
        bundle.measure();
        Ok(bundle)
    }

    /// Computes the MTUs again after that of the route changed (`xfrm_init_pmtu`).
    pub fn set_path_mtu(&mut self, mtu: u32) {
        self.path.mtu = mtu;
        self.measure();
    }

    fn measure(&mut self) {
        let mut mtu = self.path.mtu;
        for node in self.nodes.iter_mut().rev() {
            mtu = node.transform.mtu(mtu).min(node.route.mtu);
            node.mtu = mtu;
        }
    }

    /// Its SAs, in the order of their application; at least one.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The route of the packet that comes out.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are put in front of a packet.
    #[must_use]
    pub fn header_len(&self) -> u32 {
        self.nodes.first().map_or(0, |node| node.header_len)
    }

    /// The most bytes that are put behind a packet.
    #[must_use]
    pub fn trailer_len(&self) -> u32 {
        self.nodes.first().map_or(0, |node| node.trailer_len)
    }

    /// The MTU for a packet, IP header included.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.nodes.first().map_or(self.path.mtu, |node| node.mtu)
    }

    /// Whether it begins with a tunnel (`DST_XFRM_TUNNEL`).
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.nodes.first().is_some_and(|node| node.mode == Mode::TUNNEL)
    }

    /// Whether a look-up would still find the same SAs (`xfrm_bundle_ok`).
    #[must_use]
    pub fn is_current(&self, engine: &Engine) -> bool {
        self.nodes.iter().all(|node| engine.sadb().is_unchanged(&node.link.change))
    }
}

/// A node a line, each further in than the one before, the route last.
impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, node) in self.nodes.iter().enumerate() {
            let Node { id, mode, header_len, trailer_len, mtu, .. } = node;
            let protocol = match id.proto {
                IpsecProtocol::ESP => "esp",
                IpsecProtocol::AH => "ah",
                IpsecProtocol::IPCOMP => "ipcomp",
                _ => "sa",
            };
            let mode = match *mode {
                Mode::TUNNEL => "tunnel",
                Mode::BEET => "beet",
                _ => "transport",
            };
            let indent = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
            writeln!(
                f,
                "{indent}{protocol}/{mode} to {} spi {:#010x} header {header_len} trailer {trailer_len} mtu {mtu}",
                id.dst, id.spi
            )?;
        }
        let indent = "   ".repeat(self.nodes.len().saturating_sub(1));
        writeln!(f, "{indent}└─ device {} mtu {}", self.path.device, self.path.mtu)
    }
}
