//! Two hosts, each with an engine, a data plane and a key manager, negotiate SAs with each other as chapter 19.5 of Unix
//! Network Programming describes: ACQUIRE, GETSPI, UPDATE and ADD, EXPIRE, DELETE, GET, FLUSH. The key managers talk
//! through a channel in this process; in both dialects.
#![forbid(unsafe_code)]

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use build::{Msg, request};
use libc::{ECONNREFUSED, ENOENT, ESRCH};
use pfkey_rs::engine::{Dialect, Engine, Flow, LINUX, Outbound, RFC2367, SaId};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{
    Ends, ExtensionType as Ext, IpsecProtocol, Message, MessageType as M, Profile, SaState, SaType as S,
};

const HOSTS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// An SA's limits: soft and hard ones of bytes and of seconds.
const BYTES: (u64, u64) = (1000, 5000);
const SECONDS: (u64, u64) = (3000, 3600);

/// What one key manager tells the other. The initiator makes the key.
enum Ike {
    /// Send to this SPI, with this key.
    Offer { spi: u32, key: u8 },
    /// And to this one here.
    Accept { spi: u32 },
    /// No.
    Refuse,
}

/// A negotiation at one end.
struct Negotiation {
    /// The number that ties it to an ACQUIRE, or the key manager's own.
    seq: u32,
    key: u8,
    /// Our inbound SPI, when GETSPI has told it.
    inbound: Option<u32>,
    /// The peer's, if it began.
    outbound: Option<u32>,
}

struct Host {
    me: usize,
    hub: Hub<Engine>,
    queues: Queues,
    manager: SessionId,
    now: Duration,
    negotiations: Vec<Negotiation>,
    /// Outbound SPIs with the inbound ones of the same negotiation.
    pairs: Vec<(u32, u32)>,
    next_seq: u32,
    next_key: u8,
    /// Whether it answers offers with a refusal.
    unwilling: bool,
    /// What the engine said by itself.
    told: Vec<M>,
}

impl Host {
    fn new(me: usize, dialect: &'static Dialect) -> Self {
        let mut hub = Hub::new(Engine::with_seed(dialect, me as u64));
        let manager = hub.open();
        let mut host = Self {
            me,
            hub,
            queues: Queues::new(),
            manager,
            now: Duration::from_secs(1_000_000),
            negotiations: Vec::new(),
            pairs: Vec::new(),
            next_seq: 5000,
            next_key: 1,
            unwilling: false,
            told: Vec::new(),
        };
        for satype in [S::AH, S::ESP] {
            host.send(&Msg::new(M::REGISTER, satype, 1));
        }
        let policy = Msg::new(M::X_SPDADD, S::UNSPEC, 2)
            .address(Ext::ADDRESS_SRC, HOSTS[me], 0, 255, 32)
            .address(Ext::ADDRESS_DST, HOSTS[1 - me], 0, 255, 32)
            .policy(2, 2, 0, 0, &request(50, 1, 2, 0, None));
        host.send(&policy);
        while host.queues.pop(host.manager).is_some() {}
        host
    }

    fn send(&mut self, message: &Msg) {
        self.hub.receive(self.manager, &message.bytes(), self.now, &mut self.queues).expect("a message");
    }

    /// Sends, and gives the answer's errno.
    fn ask(&mut self, message: &Msg) -> u8 {
        self.send(message);
        let answer = self.queues.pop(self.manager).expect("an answer");
        assert!(self.queues.pop(self.manager).is_none() || message.header.msg_type == M::FLUSH);
        answer[2]
    }

    /// GET, and what it showed.
    fn get(&mut self, spi: u32, to: usize) -> Result<(SaState, Vec<u8>), u8> {
        self.send(&Msg::new(M::GET, S::ESP, 9).sa(spi, 0, 0).pair(HOSTS[1 - to], HOSTS[to]));
        let answer = self.queues.pop(self.manager).expect("an answer");
        let message = Message::parse(&answer, Profile::Linux).expect("a message");
        match (message.header().errno, message.sa(), message.key(Ext::KEY_ENCRYPT)) {
            (0, Some(sa), Some((_, key))) => Ok((SaState(sa.state), key.to_vec())),
            (errno, ..) => Err(errno),
        }
    }

    /// The state of an outbound SA, as the engine says it besides PF_KEY: what waits for the key manager stays.
    fn get_later(&self, spi: u32) -> SaState {
        let bytes = self.hub.engine().describe(&Self::sa_id(1 - self.me, spi)).expect("an SA");
        SaState(Message::parse(&bytes, Profile::Linux).expect("a message").sa().expect("an SA").state)
    }

    /// GET after everything that waits was thrown away.
    fn get_after_news(&mut self, spi: u32, to: usize) -> Result<(SaState, Vec<u8>), u8> {
        while self.queues.pop(self.manager).is_some() {}
        self.get(spi, to)
    }

    /// An SA as ADD and UPDATE have it, to host `to`.
    fn sa(&self, msg_type: M, seq: u32, spi: u32, to: usize, key: u8) -> Msg {
        let sa = SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 3, encrypt: 12, ..Default::default() };
        let mut message = Msg::new(msg_type, S::ESP, seq)
            .sa_with(sa)
            .lifetime(Ext::LIFETIME_HARD, 0, BYTES.1, SECONDS.1, 0)
            .lifetime(Ext::LIFETIME_SOFT, 0, BYTES.0, SECONDS.0, 0)
            .pair(HOSTS[1 - to], HOSTS[to])
            .key(Ext::KEY_AUTH, 20)
            .key(Ext::KEY_ENCRYPT, 16);
        let last = message.extensions.len() - 1;
        message.extensions[last][8] = key;
        message
    }

    fn getspi(&mut self, seq: u32, key: u8, outbound: Option<u32>) {
        self.negotiations.push(Negotiation { seq, key, inbound: None, outbound });
        let me = HOSTS[self.me];
        self.send(&Msg::new(M::GETSPI, S::ESP, seq).pair(HOSTS[1 - self.me], me).range(0x1000, 0x1fff));
    }

    fn begin(&mut self, seq: u32) {
        self.next_key += 1;
        self.getspi(seq, self.next_key, None);
    }

    /// Both SAs of a negotiation whose two SPIs are known.
    fn complete(&mut self, negotiation: &Negotiation, outbound: u32) {
        let Negotiation { seq, key, inbound, .. } = *negotiation;
        let inbound = inbound.expect("GETSPI was answered");
        self.send(&self.sa(M::UPDATE, seq, inbound, self.me, key));
        self.send(&self.sa(M::ADD, seq, outbound, 1 - self.me, key));
        self.pairs.push((outbound, inbound));
    }

    /// Handles what the engine said; gives what the other is to be told.
    fn listen(&mut self) -> Vec<Ike> {
        let mut out = Vec::new();
        while let Some(bytes) = self.queues.pop(self.manager) {
            let message = Message::parse(&bytes, Profile::Linux).expect("a message");
            let header = message.header();
            let spi = message.sa().map_or(0, |sa| sa.spi.get());
            if header.pid == 0 {
                self.told.push(header.msg_type);
            } else if header.msg_type != M::GET {
                assert!(header.errno == 0 || header.msg_type == M::ACQUIRE, "{header:?}");
            }
            match header.msg_type {
                M::ACQUIRE if header.errno == 0 => {
                    assert!(
                        message.has(Ext::PROPOSAL) && message.has(Ext::ADDRESS_SRC) && message.has(Ext::ADDRESS_DST)
                    );
                    assert_ne!(header.seq, 0);
                    self.begin(header.seq);
                }
                M::GETSPI => {
                    let at = self.negotiations.iter().position(|n| n.seq == header.seq).expect("it was asked for");
                    self.negotiations[at].inbound = Some(spi);
                    let Negotiation { key, outbound, .. } = self.negotiations[at];
                    match outbound {
                        None => out.push(Ike::Offer { spi, key }),
                        Some(outbound) => {
                            let negotiation = self.negotiations.remove(at);
                            self.complete(&negotiation, outbound);
                            out.push(Ike::Accept { spi });
                        }
                    }
                }
                // A limit of an outbound SA: whoever sends replaces the pair.
                M::EXPIRE if message.has(Ext::LIFETIME_SOFT) && self.pairs.iter().any(|p| p.0 == spi) => {
                    self.next_seq += 1;
                    self.begin(self.next_seq);
                }
                _ => {}
            }
        }
        out
    }

    /// Handles what the other key manager says.
    fn hear(&mut self, said: &Ike) -> Option<Ike> {
        match *said {
            Ike::Offer { .. } if self.unwilling => return Some(Ike::Refuse),
            Ike::Offer { spi, key } => {
                self.next_seq += 1;
                self.getspi(self.next_seq, key, Some(spi));
            }
            Ike::Accept { spi } => {
                let negotiation = self.negotiations.pop().expect("it was offered");
                self.complete(&negotiation, spi);
            }
            Ike::Refuse => {
                let negotiation = self.negotiations.pop().expect("it was offered");
                let mut failure = Msg::new(M::ACQUIRE, S::ESP, negotiation.seq);
                failure.header.errno = ECONNREFUSED as u8;
                self.send(&failure);
            }
        }
        None
    }

    fn address(of: usize) -> IpAddr {
        [10, 0, 0, of as u8 + 1].into()
    }

    fn sa_id(to: usize, spi: u32) -> SaId {
        SaId::new(Self::address(to), spi, IpsecProtocol::ESP)
    }

    /// What a packet to the other host is to meet: the SPI, or nothing yet.
    fn outbound(&mut self) -> Option<u32> {
        let ends = Ends::new(Self::address(self.me), Self::address(1 - self.me)).unwrap();
        let flow = Flow::new(ends, 17, 1111, 2222);
        match self.hub.with_engine(self.now, None, &mut self.queues, |engine, cx| engine.outbound(&flow, cx)) {
            Ok(Outbound::Wait) => None,
            Ok(Outbound::Apply(chain)) if chain.len() == 1 => Some(chain[0].0.spi),
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, to: usize, spi: u32, bytes: u64) {
        let id = Self::sa_id(to, spi);
        let counted = self
            .hub
            .with_engine(self.now, None, &mut self.queues, |engine, cx| engine.count_traffic(&id, 1, bytes, cx));
        assert_eq!(counted, Ok(()));
    }
}

/// Two hosts and the channel between their key managers.
struct Net([Host; 2]);

impl Net {
    fn new(dialect: &'static Dialect) -> Self {
        Self([Host::new(0, dialect), Host::new(1, dialect)])
    }

    /// Lets the key managers talk until nobody has more to say.
    fn settle(&mut self) {
        let mut channel: VecDeque<(usize, Ike)> = VecDeque::new();
        loop {
            for host in &mut self.0 {
                let to = 1 - host.me;
                channel.extend(host.listen().into_iter().map(|said| (to, said)));
            }
            let Some((to, said)) = channel.pop_front() else { return };
            channel.extend(self.0[to].hear(&said).map(|answer| (1 - to, answer)));
        }
    }

    /// A packet from a host to the other: through which SPI it went, if it went.
    fn packet(&mut self, from: usize, bytes: u64) -> Option<u32> {
        let spi = self.0[from].outbound()?;
        self.0[from].count(1 - from, spi, bytes);
        self.0[1 - from].count(1 - from, spi, bytes);
        Some(spi)
    }

    fn pass(&mut self, seconds: u64) {
        for host in &mut self.0 {
            let end = host.now + Duration::from_secs(seconds);
            while let Some(at) = host.hub.next_deadline().filter(|at| *at <= end) {
                host.now = at.max(host.now);
                host.hub.advance(host.now, &mut host.queues);
            }
            host.now = end;
        }
    }
}

#[test]
fn a_packet_gets_its_sas_and_they_are_replaced_in_time() {
    for dialect in [&LINUX, &RFC2367] {
        let mut net = Net::new(dialect);
        // A packet has to wait; the key manager is asked once, and negotiates.
        assert_eq!((net.packet(0, 100), net.packet(0, 100)), (None, None));
        net.settle();
        assert_eq!(net.0[0].told, [M::ACQUIRE]);
        let (outbound, inbound) = net.0[0].pairs[0];
        assert_eq!(net.0[1].pairs, [(inbound, outbound)], "the two hosts agree");
        for (spi, to) in [(outbound, 1), (inbound, 0)] {
            let (here, there) = (net.0[0].get(spi, to).expect("an SA"), net.0[1].get(spi, to).expect("an SA"));
            assert_eq!((here.0, &here), (SaState::MATURE, &there), "the same key at both ends");
        }
        // What waited goes; the answers find their way without asking.
        assert_eq!(net.packet(0, 100), Some(outbound));
        assert_eq!(net.packet(1, 100), Some(inbound));
        net.settle();
        assert_eq!(net.0[1].told, []);

        // Past the soft limit packets go on through the dying SA, until the new one is there.
        assert_eq!(net.packet(0, BYTES.0), Some(outbound));
        assert_eq!(net.packet(0, 100), Some(outbound));
        assert_eq!(net.0[0].get_later(outbound), SaState::DYING);
        assert_eq!(net.packet(0, 100), Some(outbound));
        net.settle();
        assert!(net.0[0].told.contains(&M::EXPIRE));
        let (newer, newer_inbound) = *net.0[0].pairs.last().expect("a new pair");
        assert_ne!(newer, outbound);
        assert_eq!(net.packet(0, 100), Some(newer));
        assert_ne!(net.0[0].get(newer, 1).expect("an SA").1, net.0[0].get(outbound, 1).expect("an SA").1, "a new key");

        // Superseded SAs are deleted; the new ones reach their hard limit and are gone.
        for (spi, to) in [(outbound, 1), (inbound, 0)] {
            for host in &mut net.0 {
                let delete = Msg::new(M::DELETE, S::ESP, 7).sa(spi, 0, 0).pair(HOSTS[1 - to], HOSTS[to]);
                assert_eq!((host.ask(&delete), host.get(spi, to)), (0, Err(ESRCH as u8)));
            }
        }
        net.0.iter_mut().for_each(|host| host.told.clear());
        net.pass(SECONDS.1);
        assert_eq!(net.0[0].get_after_news(newer, 1), Err(ESRCH as u8));
        assert_eq!(net.0[1].get_after_news(newer_inbound, 0), Err(ESRCH as u8));

        // A key manager that starts anew begins with an empty SADB.
        for host in &mut net.0 {
            assert_eq!(host.ask(&Msg::new(M::FLUSH, S::UNSPEC, 8)), 0);
            while host.queues.pop(host.manager).is_some() {}
            assert_eq!(host.ask(&Msg::new(M::DUMP, S::UNSPEC, 9)), ENOENT as u8);
        }
    }
}

#[test]
fn a_peer_that_refuses_ends_the_waiting() {
    for dialect in [&LINUX, &RFC2367] {
        let mut net = Net::new(dialect);
        net.0[1].unwilling = true;
        assert_eq!(net.packet(0, 100), None);
        net.settle();
        assert_eq!(net.0[0].told, [M::ACQUIRE]);
        assert!(net.0[0].pairs.is_empty() && net.0[1].pairs.is_empty());
        // Nobody is asked again for this flow while the larval is remembered as refused.
        assert_eq!(net.packet(0, 100), None);
        net.settle();
        assert_eq!(net.0[0].told, [M::ACQUIRE]);
        // Later the peer is willing.
        net.pass(31);
        net.0[1].unwilling = false;
        net.settle();
        net.0[0].told.clear();
        assert_eq!(net.packet(0, 100), None);
        net.settle();
        assert_eq!(net.0[0].told, [M::ACQUIRE]);
        assert!(net.packet(0, 100).is_some());
    }
}
