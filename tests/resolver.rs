//! What the resolver says of packets where real packets cannot show it: routes without a protocol, black holes, look-ups for
//! ICMP errors, bundles as they are put together, the flow cache from outside, and how long packets wait.
#![forbid(unsafe_code)]

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::time::Duration;

use build::{Msg, request};
use pfkey_rs::engine::resolve::flow_cache::CacheStatistics;
use pfkey_rs::engine::resolve::held::{Held, MOST_HELD};
use pfkey_rs::engine::resolve::lookup::{Outcome, Packet, Resolver};
use pfkey_rs::engine::resolve::path::Path;
use pfkey_rs::engine::resolve::statistics::Counter;
use pfkey_rs::engine::{Engine, Flow};
use pfkey_rs::keyd::{Errno, Hub, Queues};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, Profile, SaType as S};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const GATE: (&str, &str) = ("192.0.2.1", "198.51.100.2");
const DISCARD: u16 = 0;
const NONE: u16 = 1;
const IPSEC: u16 = 2;

const ROUTE: Path = Path {
    v6: false,
    device: 3,
    mtu: 1500,
    saddr: [10; 16],
    gateway: Some([9; 16]),
    loopback: false,
    untransformed: false,
};

struct World {
    hub: Hub<Engine>,
    queues: Queues,
    resolver: Resolver,
    now: Duration,
}

impl World {
    fn new() -> Self {
        let hub = Hub::new(Engine::with_seed(Profile::Linux, 1), Profile::Linux);
        Self { hub, queues: Queues::new(), resolver: Resolver::default(), now: Duration::from_secs(1_000_000) }
    }

    /// Sends requests that have to succeed.
    fn with(mut self, messages: &[Msg]) -> Self {
        messages.iter().for_each(|message| self.send(message));
        self
    }

    fn send(&mut self, message: &Msg) {
        let id = self.hub.open();
        self.hub.receive(id, &message.bytes(), self.now, &mut self.queues).expect("a message");
        assert_eq!(self.queues.pop(id).expect("an answer")[2], 0, "no errno");
        self.hub.close(id, self.now);
    }

    fn with_engine<R>(
        &mut self,
        call: impl FnOnce(&mut Resolver, &mut Engine, &mut pfkey_rs::keyd::Context<'_>) -> R,
    ) -> R {
        let Self { hub, queues, resolver, now } = self;
        hub.with_engine(*now, None, queues, |engine, cx| call(resolver, engine, cx))
    }

    fn route_output(&mut self, flow: &Flow) -> Result<Outcome, Errno> {
        self.with_engine(|resolver, engine, cx| resolver.route_output(engine, flow, None, &ROUTE, cx))
    }

    fn lookup(&mut self, flow: &Flow, queue: bool, icmp: bool) -> Result<Outcome, Errno> {
        let packet = Packet { flow, path: ROUTE, socket: None, queue, icmp };
        self.with_engine(|resolver, engine, cx| resolver.lookup(engine, &packet, &ROUTE, cx))
    }

    fn count(&self, counter: &str) -> u64 {
        let text = self.resolver.statistics().to_string();
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(counter)).expect("a counter");
        line.rsplit('\t').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

fn flow(sport: u16) -> Flow {
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, last]);
        bytes
    };
    Flow { v6: false, saddr: address(1), daddr: address(2), proto: 17, sport, dport: 2000 }
}

fn v6_flow() -> Flow {
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[15] = last;
        bytes
    };
    Flow { v6: true, saddr: address(1), daddr: address(2), ..flow(1000) }
}

fn policy(policy_type: u16, requests: &[u8]) -> Msg {
    Msg::new(M::X_SPDADD, S::UNSPEC, 1)
        .address(Ext::ADDRESS_SRC, "10.0.0.0", 0, 255, 24)
        .address(Ext::ADDRESS_DST, "10.0.0.0", 0, 255, 24)
        .policy(policy_type, 2, 0, 0, requests)
}

fn esp_wanted() -> Msg {
    policy(IPSEC, &request(50, 1, 2, 0, None))
}

/// ESP with 3DES and HMAC-SHA1.
fn esp(spi: u32, ends: (&str, &str)) -> Msg {
    Msg::new(M::ADD, S::ESP, 1).sa(spi, 3, 3).pair(ends.0, ends.1).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 24)
}

fn ah(spi: u32) -> Msg {
    Msg::new(M::ADD, S::AH, 1).sa(spi, 3, 0).pair(A, B).key(Ext::KEY_AUTH, 20)
}

#[test]
fn a_flow_without_a_protocol_meets_no_policy() {
    let mut world = World::new().with(&[policy(DISCARD, &[])]);
    let without = Flow { proto: 0, ..flow(1000) };
    assert!(matches!(world.route_output(&without), Ok(Outcome::Pass(path)) if path == ROUTE));
    assert_eq!(world.route_output(&flow(1000)).unwrap_err(), Errno::EPERM);
}

/// The sender's route is copied whole, for whoever asks the black hole for its MTU or its gateway.
#[test]
fn a_black_hole_has_the_fields_of_the_route() {
    let mut world = World::new().with(&[esp_wanted()]);
    assert!(matches!(world.route_output(&flow(1000)), Ok(Outcome::Blackhole(path)) if path == ROUTE));
    assert_eq!(world.lookup(&flow(1000), true, false).unwrap_err(), Errno::EREMOTE);
    assert_eq!(world.count("XfrmOutNoStates"), 2);
}

#[test]
fn without_an_sa_a_packet_waits_or_is_refused() {
    let mut world = World::new().with(&[esp_wanted()]);
    world.resolver.set_larval_drop(false);
    let id = match world.lookup(&flow(1000), true, false) {
        Ok(Outcome::Queued(id)) => id,
        other => panic!("{other:?}"),
    };
    assert!(world.hub.engine().spd().get(id).is_some());
    assert_eq!(world.count("XfrmOutNoStates"), 0);
    assert_eq!(world.lookup(&flow(1000), false, false).unwrap_err(), Errno::EAGAIN);
    assert_eq!(world.count("XfrmOutNoStates"), 1);
}

/// An ICMP error about another packet passes where a policy with the flag takes that packet, and nowhere else.
#[test]
fn look_ups_for_icmp_errors() {
    let mut world = World::new();
    assert_eq!(world.lookup(&flow(1000), true, true).unwrap_err(), Errno::ENOENT, "no policy");
    world.send(&policy(NONE, &[]));
    assert_eq!(world.lookup(&flow(1000), true, true).unwrap_err(), Errno::ENOENT, "a policy without the flag");
    assert!(matches!(world.lookup(&flow(1000), true, false), Ok(Outcome::Pass(_))));
    let mut flagged = world.hub.engine().spd().get(1).expect("the policy").clone();
    (flagged.icmp, flagged.id, flagged.priority) = (true, 9, 0);
    let mut world = World::new();
    world.hub.engine_mut().know_policy(flagged);
    assert!(matches!(world.lookup(&flow(1000), true, true), Ok(Outcome::Pass(_))));
}

fn bundle(world: &mut World, flow: &Flow) -> std::sync::Arc<pfkey_rs::engine::resolve::bundle::Bundle> {
    match world.route_output(flow) {
        Ok(Outcome::Bundle(bundle)) => bundle,
        other => panic!("{other:?}"),
    }
}

/// ESP: 8 and an initialisation vector of 8 in front; 8 of block, its length, 12 of ICV behind. AH: 24 in front. Each counts
/// what comes after it. 1442 is what Linux leaves of 1500.
#[test]
fn a_bundle_is_drawn() {
    let both = [request(50, 1, 2, 0, None), request(51, 1, 2, 0, None)].concat();
    let mut world = World::new().with(&[policy(IPSEC, &both), esp(0x1000, (A, B)), ah(0x2000)]);
    let mut bundle = (*bundle(&mut world, &flow(1000))).clone();
    let expected = "\
esp/transport to 10.0.0.2 spi 0x00001000 header 40 trailer 21 mtu 1442
└─ ah/transport to 10.0.0.2 spi 0x00002000 header 24 trailer 0 mtu 1476
   └─ device 3 mtu 1500
";
    assert_eq!(bundle.to_string(), expected);
    assert_eq!((bundle.header_len(), bundle.trailer_len(), bundle.mtu(), bundle.is_tunnel()), (40, 21, 1442, false));
    // The path gets narrower: from the route outward everything is measured again.
    bundle.set_path_mtu(1400);
    assert_eq!(bundle.nodes().iter().map(|node| node.mtu).collect::<Vec<_>>(), [1346, 1376]);
}

/// IPv6 inside IPv4: 8, an initialisation vector of 8, and 20 of the outer header.
#[test]
fn a_bundle_across_families() {
    let policy = Msg::new(M::X_SPDADD, S::UNSPEC, 1)
        .address(Ext::ADDRESS_SRC, "2001:db8::", 0, 255, 64)
        .address(Ext::ADDRESS_DST, "2001:db8::", 0, 255, 64)
        .policy(IPSEC, 2, 0, 0, &request(50, 2, 2, 0, Some(GATE)));
    let sa = esp(0x1000, GATE).sa2(2, 0).address(Ext::ADDRESS_PROXY, "::", 0, 0, 0);
    let mut world = World::new().with(&[policy, sa]);
    let bundle = bundle(&mut world, &v6_flow());
    assert_eq!((bundle.header_len(), bundle.trailer_len(), bundle.is_tunnel()), (36, 21, true));
    assert!(bundle.nodes()[0].route.v6 && !bundle.path().v6, "the route behind the tunnel is IPv4's");
    assert_eq!(bundle.nodes()[0].transform.overhead().0, 8 + 8 + 20 + 2 + 12);
}

/// What is found out once is found out again when a policy or an SA changed, and only then.
#[test]
fn the_flow_cache_from_outside() {
    let mut world = World::new().with(&[policy(NONE, &[])]);
    let mut expected = CacheStatistics::default();
    let look = |world: &mut World, what: &str, expected: &CacheStatistics| {
        let outcome = world.route_output(&flow(1000)).map(|_| ());
        assert_eq!(world.resolver.cache_statistics(), *expected, "{what}");
        outcome
    };
    expected.misses += 1;
    look(&mut world, "never seen", &expected).unwrap();
    expected.hits += 1;
    look(&mut world, "seen", &expected).unwrap();
    world.send(&policy(DISCARD, &[]).update());
    expected.stale += 1;
    assert_eq!(look(&mut world, "another policy", &expected), Err(Errno::EPERM));
    expected.hits += 1;
    assert_eq!(look(&mut world, "a verdict to block is remembered", &expected), Err(Errno::EPERM));
    world.send(&esp_wanted().update());
    world.send(&esp(0x1000, (A, B)));
    expected.stale += 1;
    look(&mut world, "an SA is wanted", &expected).unwrap();
    expected.hits += 1;
    look(&mut world, "and remembered", &expected).unwrap();
    world.send(&Msg::new(M::DELETE, S::ESP, 1).sa(0x1000, 0, 0).pair(A, B));
    expected.stale += 1;
    look(&mut world, "it is gone", &expected).unwrap();
    world.send(&Msg::new(M::X_SPDFLUSH, S::UNSPEC, 1));
    let nobody = world.resolver.cache_statistics();
    look(&mut world, "without any policy nothing is looked for", &nobody).unwrap();
    // A policy for others: that there is none for this flow is remembered too.
    world.send(
        &Msg::new(M::X_SPDADD, S::UNSPEC, 1)
            .address(Ext::ADDRESS_SRC, "10.1.0.0", 0, 255, 24)
            .address(Ext::ADDRESS_DST, "10.1.0.0", 0, 255, 24)
            .policy(NONE, 2, 0, 0, &[]),
    );
    expected = world.resolver.cache_statistics();
    world.route_output(&flow(1000)).unwrap();
    let after = world.resolver.cache_statistics();
    assert_eq!((after.hits, after.negative_hits), (expected.hits, expected.negative_hits));
    world.route_output(&flow(1000)).unwrap();
    assert_eq!(world.resolver.cache_statistics().negative_hits, expected.negative_hits + 1);
}

/// Too many templates: an error is not remembered, and counted each time.
#[test]
fn an_error_is_found_anew_each_time() {
    let mut world = World::new().with(&[policy(IPSEC, &request(50, 1, 2, 0, None).repeat(6))]);
    for n in 1..=3 {
        assert_eq!(world.route_output(&flow(1000)).unwrap_err(), Errno::ENOBUFS);
        assert_eq!(world.count("XfrmOutPolError"), n);
        assert_eq!(world.resolver.cache_statistics().hits, 0);
    }
    world.resolver.statistics_mut().count(Counter::OutStateSeqError);
    assert_eq!(world.count("XfrmOutStateSeqError"), 1, "what a data plane counts itself");
}

/// The first try comes after 100 ms, each next after twice the time; the one after more than a minute is the last
/// (`xfrm_policy_queue_process`).
#[test]
fn packets_wait_ever_longer_and_then_no_more() {
    let mut world = World::new().with(&[esp_wanted()]);
    world.resolver.set_larval_drop(false);
    let start = world.now;
    let mut held = Held::default();
    for n in 0..=MOST_HELD {
        let id = match world.route_output(&flow(1000)) {
            Ok(Outcome::Queued(id)) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(held.hold(id, flow(1000), n, start).is_ok(), n < MOST_HELD, "packet {n}");
    }
    let (mut tries, mut given_up) = (Vec::new(), Vec::new());
    while let Some(at) = held.next_retry() {
        tries.push((at - world.now).as_millis());
        world.now = at;
        world.with_engine(|resolver, engine, cx| {
            resolver
                .retry(engine, &mut held, &ROUTE, cx, |_, packet, outcome| given_up.push((packet, outcome.is_ok())));
        });
    }
    assert_eq!(tries, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400]);
    assert_eq!(given_up, (0..MOST_HELD).map(|n| (n, false)).collect::<Vec<_>>(), "all, in order, with an error");
    assert!(held.is_empty());
}
