//! What becomes of packets where no real kernel can be asked, or where more than its verdict is looked at. The verdicts
//! themselves are held against real kernels by `verdicts`.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use pfkey_rs::engine::resolve::bundle::Bundle;
use pfkey_rs::engine::resolve::lookup::{Outcome, Packet, Resolver};
use pfkey_rs::engine::resolve::packet_queue::PacketQueue;
use pfkey_rs::engine::resolve::path::{Path, Routes};
use pfkey_rs::engine::resolve::statistics::Counter;
use pfkey_rs::engine::{Engine, Flow, LINUX, RFC2367};
use pfkey_rs::hub::{Audience, Context, MessageBuffer, Outbox};
use pfkey_rs::model::policy::{Policy, Template};
use pfkey_rs::model::sa::{Key, Sa, Selector, State};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, Errno, ExtensionType as Ext, Header, IpsecProtocol, Message, MessageType,
    Mode, PolicyDirection, Prefix, Profile, SaType, SockaddrBytes, Writer,
};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const GATE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const TRANSPORT: Mode = Mode::TRANSPORT;
const TUNNEL: Mode = Mode::TUNNEL;
const ESP: IpsecProtocol = IpsecProtocol::ESP;
const AH: IpsecProtocol = IpsecProtocol::AH;
const NOW: Duration = Duration::from_secs(1000);

/// No key manager.
struct Nobody;

impl Outbox for Nobody {
    fn deliver(&mut self, _: Audience, _: &[u8]) -> usize {
        0
    }
}

fn path() -> Path {
    Path { device: 2, mtu: 1500, source: A, gateway: None, loopback: false, untransformed: false }
}

/// Routes that change.
struct Table {
    path: Path,
    generation: u64,
}

impl Routes for Table {
    fn route(&self, _: Option<IpAddr>, dst: IpAddr) -> Result<Path, Errno> {
        if Prefix::covers(&Prefix { address: FAR, len: 8 }, dst) {
            Err(Errno::EACCES)
        } else {
            Routes::route(&self.path, None, dst)
        }
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

struct World {
    engine: Engine,
    resolver: Resolver,
    routes: Table,
    now: Duration,
    buffer: MessageBuffer,
}

fn ends(src: IpAddr, dst: IpAddr) -> Ends {
    Ends::new(src, dst).expect("one family")
}

fn flow() -> Flow {
    Flow::new(ends(A, B), 17, 1000, 2000)
}

fn template(proto: IpsecProtocol, mode: Mode) -> Template {
    Template { proto, mode, optional: false, reqid: 0, ends: ends(A, GATE) }
}

fn policy(block: bool, templates: Vec<Template>) -> Policy {
    Policy { id: 9, dir: PolicyDirection::OUTBOUND, block, templates, ..Policy::any(A) }
}

/// 3DES or none, and HMAC-SHA1.
fn sa(proto: IpsecProtocol, spi: u32, mode: Mode) -> Sa {
    let dst = if mode == TUNNEL { GATE } else { B };
    let mut sa = Sa::new(ends(A, dst), spi, proto, 1);
    (sa.mode, sa.auth) = (mode, AuthAlgorithm::SHA1HMAC);
    sa.encrypt = if proto == ESP { EncryptAlgorithm::A3DESCBC } else { EncryptAlgorithm::NONE };
    sa
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::with_seed(&LINUX, 1),
            resolver: Resolver::default(),
            routes: Table { path: path(), generation: 0 },
            now: NOW,
            buffer: MessageBuffer::default(),
        }
    }

    fn with(policy: Policy) -> Self {
        let mut world = Self::new();
        world.engine.know_policy(policy);
        world
    }

    fn lookup(&mut self, change: impl FnOnce(Packet<'_>) -> Packet<'_>) -> Result<Outcome, Errno> {
        let Self { engine, resolver, routes, now, buffer } = self;
        let mut cx = Context { now: *now, registered: false, out: &mut Nobody, buffer };
        let packet = Packet { flow: &flow(), path: routes.path, socket: None, queue: false, icmp: false };
        resolver.lookup(engine, &change(packet), routes, &mut cx)
    }

    fn output(&mut self, flow: Flow) -> Result<Outcome, Errno> {
        let Self { engine, resolver, routes, now, buffer } = self;
        let mut cx = Context { now: *now, registered: false, out: &mut Nobody, buffer };
        resolver.route_output(engine, &flow, None, routes, &mut cx)
    }

    fn bundle(&mut self) -> Arc<Bundle> {
        match self.lookup(|packet| packet) {
            Ok(Outcome::Bundle(bundle)) => bundle,
            other => panic!("{other:?}"),
        }
    }

    fn retry(&mut self, held: &mut PacketQueue<u32>) -> Vec<(u32, Result<(), Errno>)> {
        let Self { engine, resolver, routes, now, buffer } = self;
        let mut cx = Context { now: *now, registered: false, out: &mut Nobody, buffer };
        let mut sent = Vec::new();
        resolver.retry(engine, held, routes, &mut cx, |_, packet, outcome| sent.push((packet, outcome.map(|_| ()))));
        sent
    }
}

#[test]
fn lengths_add_up_from_the_last_sa_to_the_first() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT), template(AH, TRANSPORT)]));
    world.engine.know_sa(sa(ESP, 0x1000, TRANSPORT));
    world.engine.know_sa(sa(AH, 0x2000, TRANSPORT));
    let bundle = world.bundle();
    let lengths: Vec<(u32, u32)> = bundle.nodes().iter().map(|node| (node.header_len, node.trailer_len)).collect();
    // ESP: SPI, sequence number and IV in front, a block, the next header and the ICV behind. AH: 12 and the ICV.
    assert_eq!(lengths, [(16 + 24, 8 + 1 + 12), (24, 0)]);
    assert_eq!((bundle.header_len(), bundle.trailer_len(), bundle.mtu()), (40, 21, 1442));
    assert!(!bundle.is_tunnel() && *bundle.path() == path());
    assert_eq!(
        bundle.to_string(),
        "esp/transport to 10.0.0.2 spi 0x00001000 header 40 trailer 21 mtu 1442\n\
         └─ ah/transport to 10.0.0.2 spi 0x00002000 header 24 trailer 0 mtu 1476\n\
         \u{20}  └─ device 2 mtu 1500\n"
    );
}

#[test]
fn the_route_behind_a_tunnel_is_of_the_tunnels_family() {
    let any: IpAddr = "::".parse().unwrap();
    let selector = Selector::any(any);
    let mut world = World::with(Policy { selector, ..policy(false, vec![template(ESP, TUNNEL)]) });
    let mut tunnel = sa(ESP, 0x1000, TUNNEL);
    tunnel.selector = Some(Box::new(selector));
    world.engine.know_sa(tunnel);
    world.routes.path.source = any;
    let inner = Flow { ends: ends("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()), ..flow() };
    let Ok(Outcome::Bundle(bundle)) = world.output(inner) else { panic!("no bundle") };
    let node = bundle.nodes()[0];
    assert!(node.route.source.is_ipv6() && !bundle.path().source.is_ipv6());
    assert!(node.transform.inner_v6 && !node.transform.outer_v6);
    assert_eq!((bundle.header_len(), bundle.trailer_len()), (8 + 8 + 20, 8 + 1 + 12));
}

#[test]
fn a_path_that_becomes_narrower_is_measured_again() {
    let mut world = World::with(policy(false, vec![template(ESP, TUNNEL)]));
    world.engine.know_sa(sa(ESP, 0x1000, TUNNEL));
    let mut bundle = (*world.bundle()).clone();
    assert!(bundle.is_tunnel());
    assert_eq!(bundle.mtu(), 1446);
    bundle.set_path_mtu(1400);
    // Outer header, SPI, sequence number and IV in front, the ICV behind; whole blocks, of which two bytes tell the padding.
    let room = 1400 - 36 - 12;
    assert_eq!(bundle.mtu(), room - room % 8 - 2);
}

#[test]
fn a_route_without_a_device_cannot_be_used() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT)]));
    world.engine.know_sa(sa(ESP, 0x1000, TRANSPORT));
    world.routes.path.device = 0;
    assert_eq!(world.lookup(|packet| packet).err(), Some(Errno::ENODEV));
    assert_eq!(world.resolver.statistics().get(Counter::OutBundleGenError), 1);
}

#[test]
fn a_packet_without_a_protocol_meets_no_policy() {
    let mut world = World::with(policy(true, Vec::new()));
    assert!(matches!(world.output(Flow { proto: 0, ..flow() }), Ok(Outcome::Pass(p)) if p == path()));
    assert_eq!(world.output(flow()).err(), Some(Errno::EPERM));
}

#[test]
fn an_error_of_the_route_is_the_packets() {
    let mut world = World::new();
    let far = Flow { ends: ends(A, FAR), ..flow() };
    assert_eq!(world.output(far).err(), Some(Errno::EACCES));
}

#[test]
fn a_missing_sa_is_told_apart_by_who_asks() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT)]));
    assert_eq!(world.lookup(|packet| packet).err(), Some(Errno::EREMOTE), "the plain look-up");
    // The black hole has all of the route.
    world.routes.path.gateway = Some(GATE);
    world.routes.path.mtu = 1300;
    let route = world.routes.path;
    assert!(matches!(world.output(flow()), Ok(Outcome::Blackhole(p)) if p == route));
    world.resolver.set_larval_drop(false);
    assert_eq!(world.lookup(|packet| packet).err(), Some(Errno::EAGAIN), "nowhere to wait");
    assert!(matches!(world.lookup(|packet| Packet { queue: true, ..packet }), Ok(Outcome::Queued(9))));
    assert_eq!(world.resolver.statistics().get(Counter::OutNoStates), 3);
}

#[test]
fn icmp_errors_pass_by_policies_that_take_them() {
    fn icmp(packet: Packet<'_>) -> Packet<'_> {
        Packet { icmp: true, ..packet }
    }
    let mut world = World::new();
    assert_eq!(world.lookup(icmp).err(), Some(Errno::ENOENT), "no policy at all");
    let mut world = World::with(policy(false, Vec::new()));
    assert_eq!(world.lookup(icmp).err(), Some(Errno::ENOENT), "a policy that does not take them");
    let mut world = World::with(Policy { icmp: true, ..policy(false, Vec::new()) });
    assert!(matches!(world.lookup(icmp), Ok(Outcome::Pass(_))));
    let mut world = World::with(Policy { icmp: true, ..policy(true, Vec::new()) });
    assert_eq!(world.lookup(icmp).err(), Some(Errno::EPERM));
}

#[test]
fn an_error_is_not_remembered_and_no_policy_is() {
    let mut world = World::new();
    world.engine.know_policy(Policy { selector: Selector { sport: 9, ..Selector::any(A) }, ..policy(true, vec![]) });
    for _ in 0..3 {
        assert!(matches!(world.lookup(|packet| packet), Ok(Outcome::Pass(_))));
    }
    assert_eq!(world.resolver.cache_statistics().negative_hits, 2);
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT); 6]));
    for _ in 0..3 {
        assert_eq!(world.lookup(|packet| packet).err(), Some(Errno::ENOBUFS));
    }
    assert_eq!(
        (world.resolver.cache_statistics().misses, world.resolver.statistics().get(Counter::OutPolError)),
        (3, 3)
    );
}

#[test]
fn what_was_remembered_ends_with_a_policy_a_route_an_sa_and_ten_minutes() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT)]));
    world.engine.know_sa(sa(ESP, 0x1000, TRANSPORT));
    let mut spi = || world.bundle().nodes()[0].id.spi;
    assert_eq!((spi(), spi()), (0x1000, 0x1000));
    world.engine.know_sa(sa(ESP, 0x2000, TRANSPORT));
    assert_eq!(world.bundle().nodes()[0].id.spi, 0x2000, "the newest at once");
    world.routes.path.mtu = 1400;
    world.routes.generation += 1;
    assert_eq!(world.bundle().path().mtu, 1400);
    world.engine.know_policy(Policy { id: 17, ..policy(false, vec![]) });
    assert_eq!(world.bundle().nodes().len(), 1, "the older policy still decides");
    let stale = world.resolver.cache_statistics().stale;
    assert_eq!(stale, 3, "an SA, a route, a policy");
    world.now += Duration::from_secs(600);
    let misses = world.resolver.cache_statistics().misses;
    world.bundle();
    assert_eq!(world.resolver.cache_statistics().misses, misses + 1, "another seed");
}

#[test]
fn an_update_that_revives_a_dying_sa_ends_what_was_remembered() {
    use pfkey_rs::hub::KeyEngine as _;
    for dialect in [&LINUX, &RFC2367] {
        let mut world = World::new();
        world.engine = Engine::with_seed(dialect, 1);
        world.engine.know_policy(policy(false, vec![template(ESP, TRANSPORT)]));
        let key = |len: u8| Key { bits: u16::from(len) * 8, bytes: zeroize::Zeroizing::new((1..=len).collect()) };
        for (spi, state) in [(0x1000, State::Mature), (0x2000, State::Dying)] {
            let keyed = Sa { auth_key: key(20), encrypt_key: key(24), ..sa(ESP, spi, TRANSPORT) };
            world.engine.know_sa(Sa { state, ..keyed });
        }
        assert_eq!(world.bundle().nodes()[0].id.spi, 0x1000, "what is dying is the last choice");

        let mut buffer = [0; 256];
        let mut request = Writer::new(&mut buffer, Header::new(MessageType::UPDATE, SaType::ESP, 1, 1), Profile::Linux);
        request.sa(SadbSa { spi: 0x2000.into(), state: 1, auth: 3, encrypt: 3, ..Default::default() });
        for (ext, end) in [(Ext::ADDRESS_SRC, A), (Ext::ADDRESS_DST, B)] {
            request.address(ext, 0, 32, SockaddrBytes::new(end, 0).as_bytes());
        }
        request.key(Ext::KEY_AUTH, 160, &key(20).bytes).key(Ext::KEY_ENCRYPT, 192, &key(24).bytes);
        let message = Message::parse(request.finish().unwrap(), Profile::Linux).unwrap();
        let mut cx = Context { now: world.now, registered: false, out: &mut Nobody, buffer: &mut world.buffer };
        assert_eq!(world.engine.request(&message, &mut cx), Ok(()));

        assert_eq!(world.bundle().nodes()[0].id.spi, 0x2000, "{dialect:?}: the newest of two that live");
        world.resolver = Resolver::default();
        assert_eq!(world.bundle().nodes()[0].id.spi, 0x2000, "{dialect:?}: nor without what was remembered");
    }
}

#[test]
fn held_packets_are_tried_again_after_twice_the_time_and_given_up_in_the_end() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT)]));
    world.resolver.set_larval_drop(false);
    let mut held = PacketQueue::default();
    for packet in 0..2 {
        assert_eq!(held.hold(9, flow(), packet, world.now), Ok(()));
    }
    let mut waits = Vec::new();
    let given_up = loop {
        let at = held.next_retry().expect("packets wait");
        waits.push((at - world.now).as_millis());
        world.now = at;
        let sent = world.retry(&mut held);
        if held.is_empty() {
            break sent;
        }
        assert_eq!((sent, held.len()), (Vec::new(), 2));
    };
    // XFRM_QUEUE_TMO_MIN, doubled until it was at least XFRM_QUEUE_TMO_MAX.
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102_400]);
    assert_eq!(given_up, [(0, Err(Errno::EAGAIN)), (1, Err(Errno::EAGAIN))]);
}

#[test]
fn held_packets_go_with_their_policy() {
    let mut world = World::with(policy(false, vec![template(ESP, TRANSPORT)]));
    let mut held = PacketQueue::default();
    assert_eq!(held.hold(9, flow(), 1, world.now), Ok(()));
    world.engine = World::with(policy(true, Vec::new())).engine;
    world.now = held.next_retry().expect("a packet waits");
    assert_eq!(world.retry(&mut held), [(1, Err(Errno::EPERM))]);
}
