//! The embedded engine with its resolver, and a data plane that only measures packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::build::Msg;
use crate::world::{DEVICE, Datagram, Setting, World};
use pfkey_rs::engine::resolve::bundle::Bundle;
use pfkey_rs::engine::resolve::lookup::{Outcome, Resolver};
use pfkey_rs::engine::resolve::packet_queue::PacketQueue;
use pfkey_rs::engine::resolve::path::{Path, Routes};
use pfkey_rs::engine::{Engine, Flow, LINUX};
use pfkey_rs::hub::{Context, Hub, Queues, Service as _, SessionId};
use pfkey_rs::model::policy::{Policy, Template};
use pfkey_rs::model::sa::Selector;
use pfkey_rs::wire::{
    Ends, Errno, Header, IpsecProtocol, MessageType as M, Mode, PolicyDirection, Prefix, SaType as S,
};

/// The number of the loopback.
const LOOPBACK: u32 = 1;

/// The routes of a host with one device; `kernel.rs` sets up the same.
struct Host {
    mtu: u32,
    default_route: bool,
    untransformed: bool,
    generation: u64,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix { address: ip(text), len }
}

impl Routes for Host {
    fn route(&self, _: Option<IpAddr>, dst: IpAddr) -> Result<Path, Errno> {
        let loopback = ["10.0.0.1", "192.0.2.1", "2001:db8::1"].iter().any(|own| ip(own) == dst);
        let source = match dst {
            IpAddr::V6(_) => "2001:db8::1",
            IpAddr::V4(v4) if v4.octets()[0] == 192 => "192.0.2.1",
            IpAddr::V4(_) => "10.0.0.1",
        };
        let nets = [prefix("2001:db8::", 64), prefix("10.0.0.0", 24), prefix("192.0.2.0", 24)];
        if !(nets.iter().any(|net| net.covers(dst)) || loopback || self.default_route) {
            return Err(Errno::ENETUNREACH);
        }
        Ok(Path {
            device: if loopback { LOOPBACK } else { DEVICE },
            mtu: if loopback { 65536 } else { self.mtu },
            source: ip(source),
            gateway: None,
            loopback,
            untransformed: loopback || (self.untransformed && dst.is_ipv4()),
        })
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

pub struct Embedded {
    hub: Hub<Engine>,
    queues: Queues,
    resolver: Resolver,
    held: PacketQueue<usize>,
    host: Host,
    now: Duration,
    asker: SessionId,
    manager: Option<SessionId>,
    left: Vec<(u8, usize)>,
}

impl Embedded {
    pub fn new(resolver: Resolver) -> Self {
        let mut engine = Engine::with_seed(&LINUX, 1);
        engine.set_acq_expires(2);
        let mut hub = Hub::new(engine);
        let asker = hub.open();
        Self {
            hub,
            queues: Queues::new(),
            resolver,
            held: PacketQueue::default(),
            host: Host { mtu: 1500, default_route: true, untransformed: false, generation: 0 },
            now: Duration::from_secs(1_700_000_000),
            asker,
            manager: None,
            left: Vec::new(),
        }
    }

    /// For random sequences: larvals live as long as a test.
    pub fn settle(&mut self) {
        self.hub.with_engine(self.now, None, &mut self.queues, |engine, _| engine.set_acq_expires(600));
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.hub.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.hub.advance(self.now, &mut self.queues);
        }
        self.now = end;
    }

    /// What a packet would go through, drawn.
    pub fn bundle(&mut self, datagram: &Datagram) -> String {
        let flow = flow(datagram);
        let Self { hub, queues, resolver, host, now, .. } = self;
        match hub.with_engine(*now, None, queues, |engine, cx| resolver.route_output(engine, &flow, None, host, cx)) {
            Ok(Outcome::Bundle(bundle)) => bundle.to_string(),
            other => format!("{other:?}"),
        }
    }

    pub fn cache_hits(&self) -> u64 {
        self.resolver.cache_statistics().hits
    }

    fn drain(&mut self, id: SessionId) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.queues.pop(id)).collect()
    }

    fn answered(&mut self, id: SessionId, message: &Msg) -> u8 {
        self.hub.receive(id, &message.bytes(), self.now, &mut self.queues).expect("a message that is taken");
        let answers = self.drain(id);
        Header::read(answers.first().expect("an answer")).expect("a header").errno
    }
}

fn flow(datagram: &Datagram) -> Flow {
    let ends = Ends::new(ip(datagram.src.0), ip(datagram.dst.0)).expect("one family");
    let device = if datagram.src.0 == datagram.dst.0 { LOOPBACK } else { DEVICE };
    Flow { mark: datagram.mark, device, ..Flow::new(ends, 17, datagram.src.1, datagram.dst.1) }
}

/// The length of a datagram's packet.
fn packet_len(v6: bool, len: usize) -> usize {
    len + if v6 { 48 } else { 28 }
}

/// What leaves for an outcome, `None` where nothing does.
fn apply(
    outcome: &Outcome,
    v6: bool,
    len: usize,
    resolver: &mut Resolver,
    engine: &mut Engine,
    cx: &mut Context<'_>,
) -> Result<Option<(u8, usize)>, Errno> {
    let bundle: &Bundle = match outcome {
        Outcome::Pass(path) => return Ok((!path.loopback).then_some((17, len))),
        Outcome::Bundle(bundle) => bundle,
        Outcome::Queued(_) | Outcome::Blackhole(_) => return Ok(None),
    };
    let (mut proto, mut len, mut v6) = (17, len as u32, v6);
    for node in bundle.nodes() {
        // What Linux counts is what the transform gets: in transport mode without the IP header.
        let header = if node.transform.mode != Mode::TRANSPORT {
            0
        } else if v6 {
            40
        } else {
            20
        };
        resolver.output(engine, &node.id, u64::from(len - header), cx)?;
        len = node.transform.output_len(len);
        proto = if node.transform.udp_encap { 17 } else { node.id.proto.0 };
        v6 = node.id.dst.is_ipv6();
    }
    Ok(Some((proto, len as usize)))
}

/// The policy of a socket's option (`pfkey_compile_policy`).
fn socket_policy(bytes: &[u8], flow: &Flow) -> Policy {
    Policy::of_socket(bytes, flow.ends.dst()).expect("a policy")
}

impl World for Embedded {
    fn send(&mut self, message: &Msg) -> u8 {
        self.answered(self.asker, message)
    }

    fn register(&mut self) {
        let manager = self.hub.open();
        assert_eq!(self.answered(manager, &Msg::new(M::REGISTER, S::ESP, 1)), 0);
        self.manager = Some(manager);
    }

    fn acquires(&mut self) -> usize {
        let is_acquire = |message: &Vec<u8>| Header::read(message).is_some_and(|h| h.msg_type == M::ACQUIRE);
        self.manager.map_or(0, |manager| self.drain(manager).iter().filter(|m| is_acquire(m)).count())
    }

    fn udp(&mut self, datagram: &Datagram, policy: Option<&[u8]>) -> i32 {
        let flow = flow(datagram);
        let policy = policy.map(|bytes| socket_policy(bytes, &flow));
        let Self { hub, queues, resolver, held, host, now, left, .. } = self;
        let done = hub.with_engine(*now, None, queues, |engine, cx| {
            let outcome = resolver.route_output(engine, &flow, policy.as_ref(), host, cx)?;
            if let Outcome::Queued(policy) = outcome {
                return held.hold(policy, flow, datagram.len, *now).map_err(|_| Errno::EAGAIN);
            }
            let len = packet_len(flow.ends.is_ipv6(), datagram.len);
            left.extend(apply(&outcome, flow.ends.is_ipv6(), len, resolver, engine, cx)?);
            Ok(())
        });
        done.err().map_or(0, |errno| errno.to_raw())
    }

    fn left(&mut self) -> Vec<(u8, usize)> {
        std::mem::take(&mut self.left)
    }

    fn path_mtu(&mut self, datagram: &Datagram) -> Result<u32, i32> {
        let flow = flow(datagram);
        let Self { hub, queues, resolver, host, now, .. } = self;
        let outcome =
            hub.with_engine(*now, None, queues, |engine, cx| resolver.route_output(engine, &flow, None, host, cx));
        match outcome.map_err(|errno| errno.to_raw())? {
            Outcome::Bundle(bundle) => Ok(bundle.mtu()),
            Outcome::Pass(path) | Outcome::Blackhole(path) => Ok(path.mtu),
            Outcome::Queued(_) => Ok(host.mtu),
        }
    }

    fn set(&mut self, setting: Setting) {
        self.host.generation += 1;
        match setting {
            Setting::LarvalDrop(drop) => self.resolver.set_larval_drop(drop),
            Setting::DefaultBlock => self.resolver.set_default_block(true),
            Setting::Untransformed => self.host.untransformed = true,
            Setting::NoDefaultRoute => self.host.default_route = false,
            Setting::Mtu(mtu) => self.host.mtu = mtu,
            Setting::SubPolicy { v6, block, proto } => {
                let net = if v6 { prefix("2001:db8::", 64) } else { prefix("10.0.0.0", 24) };
                let template = |proto| Template {
                    proto: IpsecProtocol(proto),
                    mode: Mode::TRANSPORT,
                    optional: false,
                    reqid: 0,
                    ends: Ends::unspecified(net.address),
                };
                let policy = Policy {
                    id: 801,
                    dir: PolicyDirection::OUTBOUND,
                    block,
                    selector: Selector { dst: net, ..Selector::from(net) },
                    templates: proto.map(template).into_iter().collect(),
                    ..Policy::any(net.address)
                };
                let Self { hub, queues, now, .. } = self;
                hub.with_engine(*now, None, queues, |engine, _| engine.sub_policies().insert(policy));
            }
        }
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        let text = self.resolver.statistics().to_string();
        let line = |line: &str| {
            let (name, value) = line.split_once('\t').expect("a name and a value");
            (name.trim_end().to_owned(), value.parse().expect("a number"))
        };
        text.lines().map(line).collect()
    }

    fn released(&mut self, _: usize) {
        let Self { hub, queues, resolver, held, host, now, left, .. } = self;
        let due = held.next_retry().expect("packets that wait");
        *now = due;
        hub.advance(due, queues);
        hub.with_engine(due, None, queues, |engine, cx| {
            let mut released = Vec::new();
            resolver.retry(engine, held, host, cx, |flow, len, outcome| released.push((flow, len, outcome)));
            for (flow, len, outcome) in released {
                let outcome = outcome.expect("an SA");
                left.extend(
                    apply(&outcome, flow.ends.is_ipv6(), packet_len(flow.ends.is_ipv6(), len), resolver, engine, cx)
                        .expect("an SA"),
                );
            }
        });
    }
}
