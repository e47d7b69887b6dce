//! Messages of several sessions to a hub with the embedded engine, while time passes and a data plane asks.
#![no_main]
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pfkey_fuzz::splitmix::Random;
use pfkey_fuzz::{drawn_message, told};
use pfkey_rs::engine::resolve::explain::Verdict;
use pfkey_rs::engine::resolve::lookup::{Outcome, Packet, Resolver};
use pfkey_rs::engine::resolve::packet_queue::PacketQueue;
use pfkey_rs::engine::resolve::path::Path;
use pfkey_rs::engine::{Engine, Flow, LINUX, RFC2367};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId, Time};
use pfkey_rs::model::sa::SaId;
use pfkey_rs::wire::{Ends, Errno, Extras, Message, MessageType, Profile};

const START: Time = Duration::from_secs(1_700_000_000);

struct World {
    hub: Hub<Engine>,
    queues: Queues,
    ids: Vec<SessionId>,
    now: Time,
    /// One remembers what it found, the other looks each time.
    resolvers: [Resolver; 2],
    held: PacketQueue<u8>,
    /// Something else than requests was sent, so that sessions may hear anything.
    promiscuous: bool,
}

fn v4(n: usize) -> IpAddr {
    [[10, 0, 0, 1], [10, 0, 0, 2], [192, 0, 2, 9], [198, 51, 100, 1]][n].into()
}

fn v6(n: usize) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16].into()
}

fn flow(r: &mut Random<'_>) -> Flow {
    let v6_too = r.below(8) == 0;
    let address = |r: &mut Random<'_>| if v6_too { v6(r.below(3)) } else { v4(r.below(4)) };
    let ends = Ends::new(address(r), address(r)).expect("one family");
    let proto = r.of(&[6, 6, 17, 1, 58, 47, 135, 255, 0]);
    Flow::new(ends, proto, r.of(&[0, 80, 4500]), r.of(&[0, 80, 53, 65535]))
}

fn path(r: &mut Random<'_>, flow: &Flow) -> Path {
    let mtu = r.of(&[1500, 1500, 0, 68, 1280, u32::MAX]);
    let device = r.of(&[2, 2, 2, 0]);
    Path { device, mtu, source: flow.ends.src(), gateway: None, loopback: false, untransformed: false }
}

fn kind(outcome: &Result<Outcome, Errno>) -> (u8, i32, Vec<SaId>) {
    match outcome {
        Ok(Outcome::Pass(_)) => (0, 0, Vec::new()),
        Ok(Outcome::Bundle(bundle)) => (1, 0, bundle.nodes().iter().map(|node| node.id).collect()),
        Ok(Outcome::Queued(policy)) => (2, *policy as i32, Vec::new()),
        Ok(Outcome::Blackhole(_)) => (3, 0, Vec::new()),
        Err(errno) => (4, errno.to_raw(), Vec::new()),
    }
}

impl World {
    fn new(r: &mut Random<'_>) -> Self {
        let flags = r.byte();
        let dialect = if flags & 1 == 0 { &LINUX } else { &RFC2367 };
        let mut engine = Engine::with_seed(dialect, 1);
        engine.set_extras(Extras { aead: flags & 2 != 0, sha256_128: flags & 4 != 0 });
        if flags & 64 != 0 {
            engine.set_copy();
        }
        let mut resolvers = [Resolver::default(), Resolver::without_cache()];
        for resolver in &mut resolvers {
            resolver.set_larval_drop(flags & 8 == 0);
            resolver.set_default_block(flags & 16 != 0);
        }
        let mut hub = Hub::new(engine);
        let ids = (0..3).map(|_| hub.open()).collect();
        let queues = if flags & 32 == 0 { Queues::new() } else { Queues::with_limit(4096) };
        Self { hub, queues, ids, now: START, resolvers, held: PacketQueue::default(), promiscuous: false }
    }

    /// What waits for a session is a message of its dialect.
    fn hear(&mut self, id: SessionId) {
        while let Some(mut message) = self.queues.pop(id) {
            assert!(self.promiscuous || told(&mut message, Profile::Linux).is_ok(), "{message:02x?}");
            if self.queues.may_resume(id) {
                self.hub.writable(id, self.now, &mut self.queues);
            }
        }
        assert!(!self.hub.is_dumping(id), "a dump stands still although there is room");
    }

    fn pass(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
        self.hub.advance(self.now, &mut self.queues);
        // Whoever waits until then would not wait.
        let next = self.hub.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is due at {:?}", self.now);
    }

    fn look_up(&mut self, r: &mut Random<'_>) {
        let flow = flow(r);
        let packet =
            Packet { flow: &flow, path: path(r, &flow), socket: None, queue: r.below(2) == 0, icmp: r.below(8) == 1 };
        let Self { hub, queues, resolvers, held, now, .. } = self;
        hub.advance(*now, queues);
        let verdict = hub.engine().explain(&flow, packet.path.mtu).verdict;
        let mut kinds = Vec::new();
        for resolver in resolvers {
            let outcome =
                hub.with_engine(*now, None, queues, |engine, cx| resolver.lookup(engine, &packet, &packet.path, cx));
            kinds.push(kind(&outcome));
            match &outcome {
                Ok(Outcome::Queued(policy)) => drop(held.hold(*policy, flow, 0, *now)),
                Ok(Outcome::Bundle(bundle)) => {
                    assert!(!bundle.nodes().is_empty());
                    let _ = (bundle.to_string(), bundle.mtu(), bundle.header_len(), bundle.trailer_len());
                }
                _ => {}
            }
        }
        assert_eq!(kinds[0], kinds[1], "what is remembered of {flow:?} is not what is found");
        let (outcome, errno, _) = kinds[0];
        let agrees = match verdict {
            Verdict::Pass => outcome != 1 && outcome != 2,
            Verdict::Transform => outcome == 1 || outcome == 4,
            Verdict::Wait => outcome == 2 || outcome == 3 || outcome == 4,
            Verdict::Discard => {
                (outcome, errno) == (4, Errno::EPERM.to_raw()) || (outcome, errno) == (4, Errno::ENOENT.to_raw())
            }
            Verdict::TooManyTemplates => (outcome, errno) == (4, Errno::ENOBUFS.to_raw()),
        };
        assert!(agrees, "{verdict:?} is explained, but {:?} happens to {packet:?}", kinds[0]);
    }

    fn step(&mut self, r: &mut Random<'_>) {
        let which = r.below(self.ids.len());
        let id = self.ids[which];
        match r.below(24) {
            0..=11 => {
                let message = drawn_message(r);
                self.promiscuous |= message.get(1) == Some(&MessageType::X_PROMISC.0);
                let _ = self.hub.receive(id, &message, self.now, &mut self.queues);
            }
            12 => {
                let messages: Vec<Vec<u8>> = (0..1 + r.below(4)).map(|_| drawn_message(r)).collect();
                self.promiscuous |= messages.concat().contains(&MessageType::X_PROMISC.0);
                self.hub.receive_all(id, &messages.concat(), self.now, &mut self.queues);
            }
            13 => self.pass(Duration::from_secs(r.below(40) as u64)),
            14 => self.pass(Duration::from_nanos(r.long())),
            15 => {
                if let Some(next) = self.hub.next_deadline() {
                    self.pass(next.saturating_sub(self.now));
                }
            }
            16 => {
                self.hear(id);
                self.hub.close(id, self.now);
                self.queues.close(id);
                self.ids[which] = self.hub.open();
            }
            17 | 18 => self.hear(id),
            19 | 20 => self.look_up(r),
            21 => {
                let flow = flow(r);
                let _ = self.hub.with_engine(self.now, None, &mut self.queues, |engine, cx| engine.outbound(&flow, cx));
            }
            22 => {
                let sadb = self.hub.engine().sadb();
                let all: Vec<SaId> = sadb.select(|_| true).iter().filter_map(|i| Some(sadb.get(*i)?.id())).collect();
                if !all.is_empty() {
                    let id = r.of(&all);
                    let (packets, bytes) = (r.long(), r.long());
                    let to = v4(r.below(4));
                    self.hub.with_engine(self.now, None, &mut self.queues, |engine, cx| {
                        let _ = engine.count_traffic(&id, packets, bytes, cx);
                        let _ = engine.new_mapping(&id, to, 4500, cx);
                        engine.describe(&id).map(|text| assert!(Message::parse(&text, Profile::Linux).is_ok()))
                    });
                }
            }
            _ => {
                let flow = flow(r);
                let path = path(r, &flow);
                let Self { hub, queues, resolvers: [resolver, _], held, now, .. } = self;
                hub.with_engine(*now, None, queues, |engine, cx| resolver.retry(engine, held, &path, cx, |_, _, _| ()));
            }
        }
    }

    /// Every session hears what waits and leaves; what has a limit ends.
    fn end(mut self) {
        for id in std::mem::take(&mut self.ids) {
            self.hear(id);
            self.hub.close(id, self.now);
        }
        for _ in 0..100 {
            let Some(next) = self.hub.next_deadline() else { break };
            self.pass(next.saturating_sub(self.now));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut r = Random(bytes);
    let mut world = World::new(&mut r);
    for _ in 0..64 {
        if r.is_empty() {
            break;
        }
        world.step(&mut r);
    }
    world.end();
});
