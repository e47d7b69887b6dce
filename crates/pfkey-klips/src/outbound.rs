//! What a data plane asks of the engine for outbound packets (`ipsec_tunnel_SAlookup`, `ipsec_xmit_encap_bundle`).

use std::net::Ipv4Addr;

use super::eroute::{Bits, Eroute, PacketId, Selector};
use super::layout::Comb;
use super::number::*;
use super::reply::Reply;
use super::request::Endpoint;
use super::said::Said;
use super::{Context, Engine};
use pfkey_wire::layout::SadbComb;
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, ExtensionType as Ext, Header, MessageType, SaType};

/// UDP and TCP have ports that eroutes look at.
const UDP: u8 = 17;
const TCP: u8 = 6;
/// IKE's ports.
const IKE: [u16; 2] = [500, 4500];

/// An outbound packet's addresses, protocol and ports (host byte order; 0 where there are none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Transport protocol.
    pub proto: u8,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Flow {
    /// What eroutes see of it: ports of UDP and TCP only.
    #[must_use]
    pub fn bits(&self) -> Bits {
        let ports = matches!(self.proto, UDP | TCP);
        Bits {
            src: self.src.into(),
            dst: self.dst.into(),
            proto: self.proto,
            sport: if ports { self.sport } else { 0 },
            dport: if ports { self.dport } else { 0 },
        }
    }
}

/// An outbound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its name.
    pub id: PacketId,
    /// Its length, as SAs count it.
    pub bytes: u64,
}

/// What becomes of an outbound packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it as it is.
    Clear,
    /// Throw it away.
    Drop,
    /// Throw it away and tell its sender: ICMP destination unreachable, packet filtered.
    Reject,
    /// Keep it until [`Engine::take_released`] names it.
    Hold,
    /// Apply these SAs in order, inner before outer, and send it.
    Apply(Vec<Said>),
}

/// What becomes of a packet that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Its flow has an SA now: ask for it again.
    Resend(PacketId),
    /// Throw it away.
    Drop(PacketId),
}

impl Engine {
    /// What becomes of an outbound packet. Counts it, where it is to go through SAs.
    pub fn outbound(&mut self, flow: &Flow, packet: Packet, cx: &mut Context<'_>) -> Outcome {
        let found = self.eroutes.lookup(flow.bits()).map(|(selector, eroute)| (selector, eroute.said));
        if self.is_own_ike(flow, found.map(|(_, said)| said)) {
            return Outcome::Clear;
        }
        let Some((selector, said)) = found else { return self.without_eroute(flow) };
        if let Some(eroute) = self.eroutes.get_mut(&selector) {
            eroute.count = eroute.count.saturating_add(1);
            eroute.last_time = cx.now;
        }
        match said.magic_spi() {
            Some(spi::HOLD) => self.hold_last(&selector, packet.id),
            Some(magic @ (spi::TRAP | spi::TRAPSUBNET)) => self.trap(flow, &selector, magic, packet.id, cx),
            Some(magic) => shunt(magic),
            None => self.apply(&said, packet, cx),
        }
    }

    /// What became of packets that were held, oldest first; each is named once.
    pub fn take_released(&mut self) -> Vec<Released> {
        std::mem::take(&mut self.released)
    }

    /// Whether it is IKE of this host to its peer, which no eroute stops.
    fn is_own_ike(&self, flow: &Flow, said: Option<Said>) -> bool {
        let to_peer = said.is_none_or(|said| said.dst == flow.dst || said.dst.is_unspecified());
        flow.proto == UDP && IKE.contains(&flow.sport) && to_peer && self.is_local(flow.src.into())
    }

    /// No eroute: the default, but for what this host has protected already.
    fn without_eroute(&self, flow: &Flow) -> Outcome {
        if matches!(flow.proto, proto::ESP | proto::AH) && self.is_local(flow.src.into()) {
            return Outcome::Clear;
        }
        shunt(self.default_shunt)
    }

    /// A hold keeps the last packet that met it.
    fn hold_last(&mut self, selector: &Selector, id: PacketId) -> Outcome {
        let Some(eroute) = self.eroutes.get_mut(selector) else { return Outcome::Drop };
        let older = eroute.last.replace(id);
        self.released.extend(older.map(Released::Drop));
        Outcome::Hold
    }

    /// Asks key managers for an SA. If one hears it: a trap gets a hold for this packet's addresses beside it, the trap
    /// of a subnet becomes a hold itself.
    fn trap(&mut self, flow: &Flow, selector: &Selector, magic: u32, id: PacketId, cx: &mut Context<'_>) -> Outcome {
        if !self.acquire(flow, selector, cx) {
            return Outcome::Drop;
        }
        let hold = Said::magic(spi::HOLD);
        if magic == spi::TRAPSUBNET {
            let Some(eroute) = self.eroutes.get_mut(selector) else { return Outcome::Drop };
            eroute.said = Said { spi: spi::HOLD, ..eroute.said };
            let older = eroute.first.replace(id);
            self.released.extend(older.map(Released::Drop));
            return Outcome::Hold;
        }
        let narrow = held_selector(flow, selector);
        let pid = self.eroutes.get(selector).map_or(0, |trap| trap.pid);
        if let Ok(old) = self.eroutes.remove(&narrow) {
            self.released.extend([old.first, old.last].into_iter().flatten().map(Released::Drop));
        }
        let eroute = Eroute { first: Some(id), ..Eroute::new(hold, pid, cx.now) };
        match self.eroutes.insert(narrow, eroute) {
            Ok(()) => Outcome::Hold,
            Err(_) => Outcome::Drop,
        }
    }

    /// Sends ACQUIRE to those registered for ESP (`pfkey_acquire`); false if there are none.
    fn acquire(&mut self, flow: &Flow, trap: &Selector, cx: &mut Context<'_>) -> bool {
        let narrow = held_selector(flow, trap).key();
        let header = Header::new(MessageType::ACQUIRE, SaType::ESP, self.next_seq(), 0);
        let end = |ip: Ipv4Addr, port| Some(Endpoint { ip: ip.into(), port });
        let (src, dst) = self
            .eroutes
            .get(trap)
            .map(|eroute| (eroute.identity_src.as_ref(), eroute.identity_dst.as_ref()))
            .unwrap_or_default();
        let reply = Reply::new(header)
            .address_of(Ext::ADDRESS_SRC, narrow.proto, end(flow.src, narrow.sport))
            .address_of(Ext::ADDRESS_DST, narrow.proto, end(flow.dst, narrow.dport))
            .identity(Ext::IDENTITY_SRC, src)
            .identity(Ext::IDENTITY_DST, dst)
            .proposal(64, &[comb(AuthAlgorithm::MD5HMAC, 128), comb(AuthAlgorithm::SHA1HMAC, 160)]);
        reply.finish().is_ok_and(|message| cx.sockets.tell_registered(SaType::ESP, &message))
    }

    /// The SA and those outwards of it: all must be able to take the packet.
    fn apply(&mut self, said: &Said, packet: Packet, cx: &mut Context<'_>) -> Outcome {
        let chain: Vec<Said> = self.sadb.outwards(said).map(|sa| sa.said).collect();
        if chain.is_empty() {
            return Outcome::Drop;
        }
        if !chain.iter().all(|member| self.is_usable(member, cx)) {
            return Outcome::Drop;
        }
        for member in &chain {
            self.count(member, packet.bytes, cx);
        }
        Outcome::Apply(chain)
    }
}

/// What a magic SPI says, where nothing is held.
const fn shunt(magic: u32) -> Outcome {
    match magic {
        spi::PASS => Outcome::Clear,
        spi::REJECT => Outcome::Reject,
        _ => Outcome::Drop,
    }
}

/// The flow that a trap's hold is for: the packet's two addresses, and its protocol and ports as far as the trap looks at
/// them.
fn held_selector(flow: &Flow, trap: &Selector) -> Selector {
    let (bits, trap) = (flow.bits(), trap.key());
    let with = |wanted: bool, value: u16| if wanted && trap.proto != 0 { value } else { 0 };
    let mask = Bits {
        src: u32::MAX,
        dst: u32::MAX,
        proto: if trap.proto == 0 { 0 } else { u8::MAX },
        sport: with(trap.sport != 0, u16::MAX),
        dport: with(trap.dport != 0, u16::MAX),
    };
    Selector::new(bits, mask)
}

/// One of the two combinations that KLIPS proposes: 3DES with an HMAC, for a day.
fn comb(auth: AuthAlgorithm, auth_bits: u16) -> Comb {
    /// 3DES's key without parity bits.
    const ENCRYPT_BITS: u16 = 168;
    /// Perfect forward secrecy.
    const PFS: u16 = 1;
    let (soft, hard) = (57_600, 86_400);
    Comb {
        rfc: SadbComb {
            auth: auth.0,
            encrypt: EncryptAlgorithm::A3DESCBC.0,
            flags: PFS.into(),
            auth_minbits: auth_bits.into(),
            auth_maxbits: auth_bits.into(),
            encrypt_minbits: ENCRYPT_BITS.into(),
            encrypt_maxbits: ENCRYPT_BITS.into(),
            soft_addtime: soft.into(),
            hard_addtime: hard.into(),
            soft_usetime: soft.into(),
            hard_usetime: hard.into(),
            ..Default::default()
        },
        ..Default::default()
    }
}
