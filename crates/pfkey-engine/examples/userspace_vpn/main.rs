//! A VPN without the kernel's IPsec: what the host sends into a TUN device goes out as ESP in tunnel mode, as the policies and
//! SAs say that any PF_KEY program gives to the embedded engine.
//!
//! `userspace_vpn DEVICE LOCAL-ADDRESS MTU SOCKET`, as root. The host routes networks to DEVICE; key managers and setkey-like
//! programs connect with `PFKEY_BACKEND=unix:SOCKET`. MTU is that of the route between the tunnel's ends.

mod clients;
mod esp;
mod sys;

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pfkey_engine::resolve::lookup::{Outcome, Resolver};
use pfkey_engine::resolve::packet_queue::PacketQueue;
use pfkey_engine::resolve::path::Path;
use pfkey_engine::{Engine, Flow, LINUX};
use pfkey_hub::{Hub, Queues, Service as _, Time};
use pfkey_model::sa::{Sa, SaId};
use pfkey_wire::{Ends, Errno, Extras, IpsecProtocol, Mode, SaType};

use clients::Clients;
use sys::EspSocket;

/// What this data plane keeps of an SA: the sequence number that it sent last, and of an inbound one those that came
/// (RFC 4303 section 3.4.3).
#[derive(Default)]
struct Sequence {
    last: u32,
    /// Bit n: `last - n` came.
    seen: u64,
}

impl Sequence {
    /// Whether a packet is new, which counts as having come. A window of 0 takes any.
    fn is_new(&mut self, seq: u32, window: u8) -> bool {
        if window == 0 {
            return true;
        }
        if seq > self.last {
            self.seen = self.seen.checked_shl(seq - self.last).unwrap_or(0) | 1;
            self.last = seq;
            return true;
        }
        let behind = self.last - seq;
        let is_new = seq != 0 && behind < u32::from(window) && self.seen & 1 << behind == 0;
        self.seen |= u64::from(is_new) << behind;
        is_new
    }
}

struct Vpn {
    hub: Hub<Engine>,
    queues: Queues,
    resolver: Resolver,
    waiting: PacketQueue<Vec<u8>>,
    sequences: HashMap<SaId, Sequence>,
    tun: File,
    socket: EspSocket,
    random: File,
    route: Path,
}

fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, local, mtu, path] = arguments.as_slice() else {
        return Err("usage: userspace_vpn DEVICE LOCAL-ADDRESS MTU SOCKET".into());
    };
    let local: Ipv4Addr = local.parse()?;
    let mut engine = Engine::new(&LINUX);
    engine.set_extras(Extras { aead: true, sha256_128: false });
    let mut vpn = Vpn {
        hub: Hub::new(engine),
        queues: Queues::new(),
        resolver: Resolver::default(),
        waiting: PacketQueue::default(),
        sequences: HashMap::new(),
        tun: sys::tun(device)?,
        socket: EspSocket::open(local)?,
        random: File::open("/dev/urandom")?,
        route: Path {
            device: 1,
            mtu: mtu.parse()?,
            source: local.into(),
            gateway: None,
            loopback: false,
            untransformed: false,
        },
    };
    // A packet whose SA is missing waits for it.
    vpn.resolver.set_larval_drop(false);
    let mut clients = Clients::listen(FilePath::new(path))?;
    println!("ready");
    loop {
        wait(&vpn, &clients)?;
        clients.serve(&mut vpn.hub, &mut vpn.queues, now());
        if vpn.hub.next_deadline().is_some_and(|deadline| deadline <= now()) {
            vpn.hub.advance(now(), &mut vpn.queues);
        }
        vpn.retry();
        vpn.take_outbound();
        vpn.take_inbound()?;
        clients.flush(&mut vpn.queues);
    }
}

/// Waits until there is something to do.
fn wait(vpn: &Vpn, clients: &Clients) -> nix::Result<()> {
    let own = [vpn.tun.as_fd(), vpn.socket.0.as_fd()];
    let mut polled: Vec<PollFd<'_>> =
        own.into_iter().chain(clients.descriptors()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let next = vpn.hub.next_deadline().into_iter().chain(vpn.waiting.next_retry()).min();
    let timeout = next.map_or(PollTimeout::NONE, |at| {
        let millis = at.saturating_sub(now()).as_millis() + 1;
        PollTimeout::try_from(millis.min(60_000) as i32).unwrap_or(PollTimeout::ZERO)
    });
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl Vpn {
    /// Takes what the host sends.
    fn take_outbound(&mut self) {
        let mut buffer = vec![0; 65536];
        // A few at a time: PF_KEY programs have their turn in between.
        for _ in 0..64 {
            let Ok(len) = self.tun.read(&mut buffer) else { return };
            let packet = buffer.get(..len).unwrap_or_default().to_vec();
            let Some(flow) = flow(&packet) else { continue };
            let (resolver, route) = (&mut self.resolver, self.route);
            let outcome = self.hub.with_engine(now(), None, &mut self.queues, |engine, cx| {
                resolver.route_output(engine, &flow, None, &route, cx)
            });
            self.send(flow, packet, outcome);
        }
    }

    /// Tries again for packets that wait for an SA.
    fn retry(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut ready = Vec::new();
        let (resolver, waiting, route) = (&mut self.resolver, &mut self.waiting, self.route);
        self.hub.with_engine(now(), None, &mut self.queues, |engine, cx| {
            resolver.retry(engine, waiting, &route, cx, |flow, packet, outcome| ready.push((flow, packet, outcome)));
        });
        for (flow, packet, outcome) in ready {
            self.send(flow, packet, outcome);
        }
    }

    /// Does with a packet what was found out. Nothing leaves in clear: there is no way past the policies.
    fn send(&mut self, flow: Flow, packet: Vec<u8>, outcome: Result<Outcome, Errno>) {
        match outcome {
            // If too many wait already it is dropped.
            Ok(Outcome::Queued(policy)) => drop(self.waiting.hold(policy, flow, packet, now())),
            Ok(Outcome::Bundle(bundle)) => match bundle.nodes() {
                [node] if node.mode == Mode::TUNNEL && packet.len() <= bundle.mtu() as usize => {
                    self.protect(&node.id, &packet);
                }
                [_] => self.too_big(&packet, bundle.mtu()),
                // One SA is all that this example applies.
                _ => {}
            },
            Ok(Outcome::Pass(_) | Outcome::Blackhole(_)) | Err(_) => {}
        }
    }

    fn sa(&self, id: &SaId) -> Option<&Sa> {
        let sadb = self.hub.engine().sadb();
        sadb.get(sadb.find(id)?).filter(|sa| sa.state.is_valid())
    }

    /// Sends a packet through an SA; `None`: it is dropped.
    fn protect(&mut self, id: &SaId, packet: &[u8]) -> Option<()> {
        let (resolver, bytes) = (&mut self.resolver, packet.len() as u64);
        let counted =
            self.hub.with_engine(now(), None, &mut self.queues, |engine, cx| resolver.output(engine, id, bytes, cx));
        counted.ok()?;
        let sequence = self.sequences.entry(*id).or_default();
        // A sequence number never comes twice (RFC 4303 section 3.3.3).
        let seq = sequence.last.checked_add(1)?;
        sequence.last = seq;
        let mut iv = [0; 16];
        self.random.read_exact(&mut iv).ok()?;
        let IpAddr::V4(to) = id.dst else { return None };
        let esp = esp::seal(self.sa(id)?, seq, &iv, packet).ok()?;
        self.socket.send(to, &esp).ok()
    }

    /// Takes what the peer sends.
    fn take_inbound(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 65536];
        for _ in 0..64 {
            let Some(packet) = self.socket.receive(&mut buffer)? else { break };
            self.accept(packet);
        }
        Ok(())
    }

    /// An ESP packet with its IP header, from SPI to inner packet; `None`: it is dropped.
    fn accept(&mut self, packet: &[u8]) -> Option<()> {
        let outer = flow(packet)?;
        let esp = packet.get(header_len(packet)?..)?;
        let spi = esp.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)?;
        let id = SaId::new(outer.ends.dst(), spi, IpsecProtocol::ESP);
        let sa = self.sa(&id).filter(|sa| sa.satype() == SaType::ESP && sa.ends == outer.ends)?;
        let (window, (seq, inner)) = (sa.replay, esp::open(sa, esp).ok()?);
        let sequence = self.sequences.entry(id).or_default();
        if !sequence.is_new(seq, window) {
            return None;
        }
        let bytes = inner.len() as u64;
        let counted =
            self.hub.with_engine(now(), None, &mut self.queues, |engine, cx| engine.count_traffic(&id, 1, bytes, cx));
        counted.ok()?;
        self.tun.write_all(&inner).ok()
    }

    /// Tells the sender of a packet what fits (RFC 792, RFC 1191).
    fn too_big(&mut self, packet: &[u8], mtu: u32) {
        if let Some(answer) = fragmentation_needed(packet, mtu) {
            // The sender may be told again.
            let _ = self.tun.write_all(&answer);
        }
    }
}

/// Bytes of an IPv4 header.
fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let len = usize::from(first & 15) * 4;
    (first >> 4 == 4 && len >= 20 && packet.len() >= len).then_some(len)
}

/// What policies look at.
fn flow(packet: &[u8]) -> Option<Flow> {
    let len = header_len(packet)?;
    let address = |at: usize| packet.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from);
    let ends = Ends::new(address(12)?, address(16)?)?;
    let proto = *packet.get(9)?;
    let word = |at| packet.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
    let has_ports = matches!(i32::from(proto), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
    let (sport, dport) = if has_ports { (word(len), word(len + 2)) } else { (0, 0) };
    Some(Flow::new(ends, proto, sport, dport))
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// ICMP "fragmentation needed" from a packet's destination.
fn fragmentation_needed(packet: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let quoted = packet.get(..(header_len(packet)? + 8).min(packet.len()))?;
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &(mtu as u16).to_be_bytes(), quoted].concat();
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let total = (20 + icmp.len()) as u16;
    let mut header = [&[0x45, 0][..], &total.to_be_bytes(), &[0, 0, 0, 0, 64, 1, 0, 0]].concat();
    header.extend_from_slice(packet.get(16..20)?);
    header.extend_from_slice(packet.get(12..16)?);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(icmp);
    Some(header)
}
