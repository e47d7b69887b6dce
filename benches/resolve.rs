//! Which policy takes a packet, and with which SA, at 100 000 and a million policies and as many SAs: address pairs, a mix of prefix
//! lengths, and port-specific policies; beside looking at every policy. `cargo bench --bench resolve`
//!
//! With PFKEY_BENCH_KERNEL, inside a kernel that may be changed (`tests/kernel/bench`), the same policies are given to
//! that kernel too: what they add to the time that a packet takes to be sent stands beside.

#[path = "support/row.rs"]
mod row;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use pfkey_rs::batch::Batch;
use pfkey_rs::engine::resolve::lookup::{Outcome, Packet, Resolver};
use pfkey_rs::engine::resolve::path::Path;
use pfkey_rs::engine::{Engine, Flow, LINUX};
use pfkey_rs::hub::{Audience, Context, MessageBuffer, Outbox};
use pfkey_rs::model::message::write_policy;
use pfkey_rs::model::policy::{Policy, Template};
use pfkey_rs::model::sa::{Sa, Selector};
use pfkey_rs::socket::Backend;
use pfkey_rs::wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, Header, IpsecProtocol, MessageType, Mode, PolicyDirection, Prefix, Profile,
    SaType, Writer,
};
use row::{Goal, ROUNDS, Row};

/// This host.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// No key manager listens.
struct Nobody;

impl Outbox for Nobody {
    fn deliver(&mut self, _: Audience, _: &[u8]) -> usize {
        0
    }
}

const N: u32 = 100_000;
const LOOKUPS: u32 = 200_000;
const LINEAR: u32 = 200;

fn v4(address: u32) -> IpAddr {
    Ipv4Addr::from(address).into()
}

fn ends(dst: u32) -> Ends {
    Ends::new(OWN, v4(dst)).expect("one family")
}

/// Where the packets of policy `n` go; spread, so that neighbours are not alike.
fn peer(n: u32) -> u32 {
    0x0a00_0000 | (n.wrapping_mul(0x9e37_79b1) >> 8)
}

fn policy(n: u32, selector: Selector) -> Policy {
    let template = Template {
        proto: IpsecProtocol::ESP,
        mode: Mode::TRANSPORT,
        optional: false,
        reqid: 0,
        ends: Ends::unspecified(OWN),
    };
    let (dir, templates) = (PolicyDirection::OUTBOUND, vec![template]);
    Policy { id: 8 * n + 1, dir, priority: 0x8000_0000, selector, templates, ..Policy::any(OWN) }
}

struct Case {
    name: &'static str,
    selector: fn(u32) -> Selector,
    flow: fn(u32) -> Flow,
}

fn flow(n: u32) -> Flow {
    Flow::new(ends(peer(n)), 17, 1000, 2000)
}

const CASES: [Case; 3] = [
    Case { name: "address pairs", selector: |n| Selector::between(ends(peer(n))), flow },
    Case {
        name: "mixed prefix lengths",
        selector: |n| Selector {
            src: Prefix { address: v4(0xc000_0200 | (n.wrapping_mul(37) & 0xff)), len: 8 + (n % 25) as u8 },
            dst: Prefix { address: v4(peer(n)), len: 16 + (n / 25 % 17) as u8 },
            ..Selector::any(OWN)
        },
        flow,
    },
    Case {
        name: "ports",
        selector: |n| Selector { proto: 17, dport: 1 + (n % 100) as u16, ..Selector::between(ends(peer(n / 100))) },
        flow: |n| Flow { ends: ends(peer(n / 100)), dport: 1 + (n % 100) as u16, ..flow(n) },
    },
];

fn each(took: Duration, n: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(n)
}

/// What sending takes in this kernel: the time of `sendto` for these packets, without policies and with those of the case.
fn kernel(case: &Case, flows: &[Flow]) -> (f64, f64) {
    let sh = |script: &str| assert!(Command::new("sh").args(["-ec", script]).status().is_ok_and(|s| s.success()));
    sh("ip link show out0 >/dev/null 2>&1 || {
          ip link add name out0 type dummy && ip link set lo up && ip link set out0 up
          ip addr add 192.0.2.1/32 dev out0 && ip route add default dev out0; }
        ip xfrm policy flush");
    let socket = UdpSocket::bind(("192.0.2.1", 1000)).expect("a UDP socket");
    let send = || {
        let start = Instant::now();
        for flow in flows {
            socket.send_to(&[0], (flow.ends.dst(), flow.dport)).expect("a packet");
        }
        each(start.elapsed(), flows.len() as u32)
    };
    send();
    let without = send();
    let fd = pfkey_rs::socket::open_with(&Backend::AfKey).expect("AF_KEY");
    let mut batch = Batch::default();
    let mut buffer = vec![0; 4096];
    for n in 0..N {
        let header = Header::new(MessageType::X_SPDADD, SaType::UNSPEC, n + 1, std::process::id());
        let policy = Policy { templates: Vec::new(), ..policy(n, (case.selector)(n)) };
        let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
        write_policy(&mut writer, &policy);
        batch.push(writer.finish().expect("room")).expect("a message");
    }
    let mut refused = 0;
    batch.send(fd.as_fd(), |_, _, _| refused += 1).expect("AF_KEY");
    // Two policies of the same selector: the kernel keeps one.
    assert!(refused < N / 10, "{refused} policies refused");
    send();
    let with = send();
    sh("ip xfrm policy flush");
    (without, with)
}

/// Nanoseconds of a read that no cache has, each of an address that the one before gave.
fn memory() -> f64 {
    const WORDS: usize = 1 << 25;
    const READS: usize = 1 << 20;
    // A walk over all of it in no order that a processor foresees: a linear congruential generator of full period.
    let next: Vec<u32> =
        (0..WORDS as u32).map(|n| n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % WORDS as u32).collect();
    let start = Instant::now();
    let end = (0..READS).fold(0, |at, _| next[at as usize]);
    black_box(end);
    each(start.elapsed(), READS as u32)
}

/// What a look-up of each kind takes.
#[derive(Default)]
struct Figures {
    policy: Vec<f64>,
    miss: Vec<f64>,
    hit: Vec<f64>,
}

fn measure(case: &Case, n: u32, with_kernel: bool) -> Figures {
    let mut engine = Engine::new(&LINUX);
    let mut selectors = Vec::new();
    for i in 0..n {
        let selector = (case.selector)(i);
        selectors.push(selector);
        engine.know_policy(policy(i, selector));
        let mut sa = Sa::new((case.flow)(i).ends, 0x1000 + i, IpsecProtocol::ESP, 1);
        (sa.auth, sa.encrypt) = (AuthAlgorithm::SHA1HMAC, EncryptAlgorithm::X_AESCBC);
        engine.know_sa(sa);
    }
    let flows: Vec<Flow> = (0..LOOKUPS).map(|i| (case.flow)(i.wrapping_mul(7919) % n)).collect();
    let path = Path { device: 1, mtu: 1500, source: OWN, gateway: None, loopback: false, untransformed: false };
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let found = flows
            .iter()
            .filter(|flow| black_box(engine.spd().lookup(PolicyDirection::OUTBOUND, flow)).is_some())
            .count();
        figures.policy.push(each(start.elapsed(), LOOKUPS));
        assert_eq!(found, flows.len(), "every packet has a policy");

        let mut out = Nobody;
        let mut buffer = MessageBuffer::default();
        let mut cx = Context { now: Duration::from_secs(2), registered: false, out: &mut out, buffer: &mut buffer };
        let mut look_up = |resolver: &mut Resolver, flow: &Flow| {
            let packet = Packet { flow, path, socket: None, queue: false, icmp: false };
            assert!(matches!(resolver.lookup(&mut engine, &packet, &path, &mut cx), Ok(Outcome::Bundle(_))));
        };
        let mut resolver = Resolver::without_cache();
        let start = Instant::now();
        flows.iter().for_each(|flow| look_up(&mut resolver, flow));
        figures.miss.push(each(start.elapsed(), LOOKUPS));

        let mut resolver = Resolver::default();
        let hot = &flows[..1000];
        hot.iter().for_each(|flow| look_up(&mut resolver, flow));
        let start = Instant::now();
        (0..LOOKUPS as usize).for_each(|i| look_up(&mut resolver, &hot[i % hot.len()]));
        figures.hit.push(each(start.elapsed(), LOOKUPS));
        assert_eq!(resolver.cache_statistics().hits, u64::from(LOOKUPS));
    }
    let start = Instant::now();
    for flow in flows.iter().take(LINEAR as usize) {
        black_box(selectors.iter().position(|selector| selector.covers(flow)));
    }
    let linear = vec![each(start.elapsed(), LINEAR)];
    let work = format!("{}: each policy looked at, {n} policies", case.name);
    Row { work: &work, unit: "ns", ours: linear, limit: None, goal: Goal::None }.show();
    if with_kernel {
        let (without, with) = kernel(case, &flows[..20_000]);
        let work = format!("{}: sendto in this kernel, {n} policies", case.name);
        Row {
            work: &work,
            unit: "ns",
            ours: vec![with],
            limit: Some(("without policies", vec![without])),
            goal: Goal::None,
        }
        .show();
    }
    figures
}

fn main() {
    let with_kernel = std::env::var_os("PFKEY_BENCH_KERNEL").is_some();
    row::heading();
    for case in CASES {
        let some = measure(&case, N, with_kernel);
        let show = |what: &str, n: u32, ours: &[f64], limit, goal| {
            let work = format!("{}: {what}, {n} policies", case.name);
            Row { work: &work, unit: "ns", ours: ours.to_vec(), limit, goal }.show();
        };
        let reads: Vec<f64> = (0..ROUNDS).map(|_| memory()).collect();
        show("policy", N, &some.policy, None, Goal::None);
        show("remembered", N, &some.hit, Some(("a read from memory", reads)), Goal::Most(30.0));
        show("whole look-up", N, &some.miss, None, Goal::Most(800.0));
        if !with_kernel {
            let many = measure(&case, 10 * N, false);
            let beside = |of: &[f64]| Some(("with 100000 policies", of.to_vec()));
            show("policy", 10 * N, &many.policy, beside(&some.policy), Goal::None);
            show("remembered", 10 * N, &many.hit, beside(&some.hit), Goal::Ratio(1.5));
            show("whole look-up", 10 * N, &many.miss, beside(&some.miss), Goal::Ratio(1.5));
        }
    }
}
