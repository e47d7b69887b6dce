//! Where RFC 2367 and Linux contradict each other: each row of the table in docs/coverage.md, tried in both profiles.
#![forbid(unsafe_code)]

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::time::Duration;

use build::Msg;
use pfkey_rs::engine::Engine;
use pfkey_rs::keyd::{Errno, Hub, Queues, SessionId};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, Header, Message, MessageType as M, Profile, SaType as S};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const SPI: u32 = 0x1000;

/// Three sessions: who asks, who listens, and who is registered for ESP.
struct World {
    profile: Profile,
    hub: Hub<Engine>,
    queues: Queues,
    now: Duration,
    asker: SessionId,
    listener: SessionId,
    registered: SessionId,
}

impl World {
    fn new(profile: Profile) -> Self {
        let mut hub = Hub::new(Engine::with_seed(profile, 1), profile);
        let (asker, listener, registered) = (hub.open(), hub.open(), hub.open());
        let now = Duration::from_secs(1_000_000);
        let mut world = Self { profile, hub, queues: Queues::new(), now, asker, listener, registered };
        world.send(registered, &Msg::new(M::REGISTER, S::ESP, 1));
        world.heard(registered);
        world
    }

    fn send(&mut self, id: SessionId, message: &Msg) {
        self.hub.receive(id, &message.bytes(), self.now, &mut self.queues).expect("a message");
    }

    fn heard(&mut self, id: SessionId) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.queues.pop(id)).collect()
    }

    /// Sends from the asker; gives its first answer.
    fn ask(&mut self, message: &Msg) -> Vec<u8> {
        self.send(self.asker, message);
        let mut heard = self.heard(self.asker);
        assert!(!heard.is_empty());
        heard.remove(0)
    }

    fn parse<'m>(&self, message: &'m [u8]) -> Message<'m> {
        Message::parse(message, self.profile).expect("a message")
    }

    /// Who heard something: all, sender, registered, or nobody.
    fn audience(&mut self) -> String {
        let heard = [self.asker, self.listener, self.registered].map(|id| !self.heard(id).is_empty());
        match heard {
            [_, true, true] => "all",
            [true, false, false] => "sender",
            [_, false, true] => "registered",
            [false, false, false] => "nobody",
            other => panic!("{other:?}"),
        }
        .to_owned()
    }
}

/// `ok`, or the name of the errno in an answer.
fn outcome(answer: &[u8]) -> String {
    match Header::read(answer).expect("a header").errno {
        0 => "ok".to_owned(),
        errno => format!("{:?}", Errno::from_raw(errno.into())),
    }
}

/// ADD of ESP with null encryption: SA, source, destination, keys, and limits, which Linux wants both.
fn esp(state: u8) -> Msg {
    let sa = SadbSa { spi: SPI.into(), replay: 4, state, auth: 3, encrypt: 12, ..Default::default() };
    Msg::new(M::ADD, S::ESP, 7).sa_with(sa).pair(A, B).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16)
}

fn named(msg_type: M, src: &str) -> Msg {
    Msg::new(msg_type, S::ESP, 8).sa(SPI, 0, 0).pair(src, B)
}

fn getspi(min: u32, max: u32) -> Msg {
    Msg::new(M::GETSPI, S::ESP, 9).pair(A, B).range(min, max)
}

type Topic = (&'static str, fn(&mut World) -> String);

/// What is tried for each row, by its name.
const TOPICS: [Topic; 16] = [
    ("keys in ADD's broadcast", |w| {
        let asker = w.asker;
        w.send(asker, &esp(1));
        let heard = w.heard(w.listener);
        if w.parse(&heard[0]).has(Ext::KEY_ENCRYPT) { "yes" } else { "no" }.to_owned()
    }),
    ("unknown extension", |w| {
        let unknown = [2_u16.to_ne_bytes(), 99_u16.to_ne_bytes(), [0; 2], [0; 2]].concat();
        let unknown = [unknown, vec![0; 8]].concat();
        if outcome(&w.ask(&esp(1).raw(unknown))) == "ok" { "ignored" } else { "refused" }.to_owned()
    }),
    ("who hears GETSPI's answer", |w| {
        let asker = w.asker;
        w.send(asker, &getspi(SPI, SPI));
        w.audience()
    }),
    ("no free SPI", |w| {
        w.ask(&esp(1));
        outcome(&w.ask(&getspi(SPI, SPI)))
    }),
    ("who hears of an error", |w| {
        let asker = w.asker;
        w.send(asker, &named(M::DELETE, A));
        w.audience()
    }),
    ("who hears EXPIRE", |w| {
        w.ask(&esp(1).lifetimes(2, 1));
        for id in [w.asker, w.listener, w.registered] {
            w.heard(id);
        }
        w.hub.advance(w.now + Duration::from_secs(5), &mut w.queues);
        w.audience()
    }),
    ("DUMP", |w| {
        w.ask(&esp(1));
        outcome(&w.ask(&Msg::new(M::DUMP, S::UNSPEC, 1)))
    }),
    ("who hears that a key manager gave up", |w| {
        let mut failure = Msg::new(M::ACQUIRE, S::ESP, 3);
        failure.header.errno = libc::ETIMEDOUT as u8;
        let asker = w.asker;
        w.send(asker, &failure);
        w.audience()
    }),
    ("an SA's name has the source", |w| {
        w.ask(&esp(1));
        if outcome(&w.ask(&named(M::GET, "10.0.0.9"))) == "ok" { "no" } else { "yes" }.to_owned()
    }),
    ("what a promiscuous listener gets", |w| {
        let listener = w.listener;
        w.send(listener, &Msg::new(M::X_PROMISC, S(1), 1));
        w.heard(listener);
        w.ask(&named(M::GET, A));
        let heard = w.heard(listener);
        let first = Header::read(&heard[0]).expect("a header").msg_type;
        if first == M::X_PROMISC { "wrapped" } else { "as it is" }.to_owned()
    }),
    ("a state other than MATURE in ADD", |w| outcome(&w.ask(&esp(0)))),
    ("a prefix of 33 bits", |w| {
        let message = esp(1).without(1).address(Ext::ADDRESS_SRC, A, 0, 0, 33);
        outcome(&w.ask(&message))
    }),
    ("DELETE of what is not there", |w| outcome(&w.ask(&named(M::DELETE, A)))),
    ("UPDATE of what is not there", |w| {
        let mut message = esp(1);
        message.header.msg_type = M::UPDATE;
        outcome(&w.ask(&message))
    }),
    ("byte order of SPIRANGE", |w| {
        let answer = w.ask(&getspi(0x1234, 0x1234));
        let spi = w.parse(&answer).sa().expect("an SA").spi.get();
        if spi == 0x1234 { "host" } else { "network" }.to_owned()
    }),
    ("unit of ivlen", |w| {
        let answer = w.ask(&Msg::new(M::REGISTER, S::ESP, 2));
        let des = w.parse(&answer).supported(Ext::SUPPORTED_ENCRYPT).expect("a list").find(|alg| alg.id == 2);
        match des.expect("DES").ivlen {
            8 => "bytes",
            64 => "bits",
            other => panic!("{other}"),
        }
        .to_owned()
    }),
];

#[test]
fn each_row_of_the_table() {
    let text = include_str!("../docs/coverage.md");
    let section = text.split("## Contradictions between the sources").nth(1).expect("the section");
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), TOPICS.map(|(name, _)| name));
    for (row, (name, tried)) in rows.iter().zip(TOPICS) {
        for (profile, column) in [(Profile::Rfc2367, 1), (Profile::Linux, 2)] {
            assert_eq!(tried(&mut World::new(profile)), row[column], "{name}, {profile:?}");
        }
    }
}
