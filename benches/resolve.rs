//! Which policy takes a packet, and with which SA, at 100 000 policies and as many SAs: address pairs, a mix of prefix
//! lengths, and port-specific policies; against looking at every policy. `cargo bench --bench resolve`
//!
//! With PFKEY_BENCH_KERNEL, inside a kernel that may be changed (`tests/kernel/bench`), the same policies are given to
//! that kernel too: what they add to the time that a packet takes to be sent stands beside.

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

fn main() {
    let with_kernel = std::env::var_os("PFKEY_BENCH_KERNEL").is_some();
    println!("{N} policies, {N} SAs; nanoseconds for each packet");
    println!("{:<24} {:>12} {:>12} {:>12} {:>10}", "", "policy", "cache miss", "cache hit", "linear");
    for case in CASES {
        let mut engine = Engine::new(&LINUX);
        let mut selectors = Vec::new();
        for n in 0..N {
            let selector = (case.selector)(n);
            selectors.push(selector);
            engine.know_policy(policy(n, selector));
            let mut sa = Sa::new((case.flow)(n).ends, 0x1000 + n, IpsecProtocol::ESP, 1);
            (sa.auth, sa.encrypt) = (AuthAlgorithm::SHA1HMAC, EncryptAlgorithm::X_AESCBC);
            engine.know_sa(sa);
        }
        let flows: Vec<Flow> = (0..LOOKUPS).map(|n| (case.flow)(n.wrapping_mul(7919) % N)).collect();
        let start = Instant::now();
        let found = flows
            .iter()
            .filter(|flow| black_box(engine.spd().lookup(PolicyDirection::OUTBOUND, flow)).is_some())
            .count();
        let policy_only = start.elapsed();
        assert_eq!(found, flows.len(), "every packet has a policy");

        let path = Path { device: 1, mtu: 1500, source: OWN, gateway: None, loopback: false, untransformed: false };
        let mut out = Nobody;
        let mut buffer = MessageBuffer::default();
        let mut cx = Context { now: Duration::from_secs(2), registered: false, out: &mut out, buffer: &mut buffer };
        let mut look_up = |resolver: &mut Resolver, flow: &Flow| {
            let packet = Packet { flow, path, socket: None, queue: false, icmp: false };
            assert!(matches!(resolver.lookup(&mut engine, &packet, &path, &mut cx), Ok(Outcome::Bundle(_))));
        };
        let mut resolver = Resolver::without_cache();
        let start = Instant::now();
        for flow in &flows {
            look_up(&mut resolver, flow);
        }
        let miss = start.elapsed();

        let mut resolver = Resolver::default();
        let hot = &flows[..1000];
        for flow in hot {
            look_up(&mut resolver, flow);
        }
        let start = Instant::now();
        for n in 0..LOOKUPS as usize {
            look_up(&mut resolver, &hot[n % hot.len()]);
        }
        let hit = start.elapsed();
        assert_eq!(resolver.cache_statistics().hits, u64::from(LOOKUPS));

        let start = Instant::now();
        for flow in flows.iter().take(LINEAR as usize) {
            black_box(selectors.iter().position(|selector| selector.covers(flow)));
        }
        let linear = start.elapsed();
        println!(
            "{:<24} {:>12.0} {:>12.0} {:>12.0} {:>10.0}",
            case.name,
            each(policy_only, LOOKUPS),
            each(miss, LOOKUPS),
            each(hit, LOOKUPS),
            each(linear, LINEAR)
        );
        if with_kernel {
            let (without, with) = kernel(&case, &flows[..20_000]);
            println!("{:<24} sendto {without:.0} without policies, {with:.0} with them", "");
        }
    }
}
