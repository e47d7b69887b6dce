//! Where the sources contradict each other: the same questions to Linux's, RFC 2367's and KLIPS's profile, and the table of
//! docs/klips.md beside the answers. The table has bytes of little-endian machines.
#![cfg_attr(target_endian = "big", allow(dead_code, unused_imports))]

use std::time::Duration;

use pfkey_rs::engine::{Dialect, Engine, LINUX, RFC2367};
use pfkey_rs::hub::{self, Errno, Queues, Service as _, SessionId};
use pfkey_rs::klips::{self, Said};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, Profile, SaType as S};

use crate::c;
use crate::world::*;

enum Stack {
    Linux(Box<hub::Hub<Engine>>),
    Klips(Box<klips::Hub>),
}

/// Three sockets in front of an engine.
struct Asked {
    profile: Profile,
    stack: Stack,
    queues: Queues,
    ids: Vec<SessionId>,
    now: Duration,
}

/// KLIPS's message in the words of another dialect: shorter structures, prefix lengths, ranges turned around.
fn translated(message: &Msg, profile: Profile) -> Vec<u8> {
    let mut message = message.clone();
    if profile != Profile::Klips {
        for (ext, body) in &mut message.extensions {
            match Ext(*ext) {
                Ext::SA => body.truncate(12),
                Ext::LIFETIME_HARD | Ext::LIFETIME_SOFT => body.truncate(28),
                Ext::ADDRESS_SRC | Ext::ADDRESS_DST => body[1] = 32,
                Ext::SPIRANGE => {
                    let ends = [body[..4].to_vec(), body[4..8].to_vec()];
                    let host = ends.map(|end| u32::from_be_bytes(end.try_into().unwrap()).to_ne_bytes());
                    body[..8].copy_from_slice(&host.concat());
                }
                _ => {}
            }
        }
    }
    message.bytes()
}

impl Asked {
    /// A stack of a dialect; `None` is KLIPS.
    fn new(dialect: Option<&'static Dialect>) -> Self {
        let mut ids = Vec::new();
        let stack = if let Some(dialect) = dialect {
            let mut hub = hub::Hub::new(Engine::with_seed(dialect, 1));
            ids.extend((0..3).map(|_| hub.open()));
            Stack::Linux(Box::new(hub))
        } else {
            let mut hub = klips::Hub::new(klips::Engine::with_seed(1));
            ids.extend((0..3).map(|_| hub.open()));
            Stack::Klips(Box::new(hub))
        };
        let profile = if dialect.is_some() { Profile::Linux } else { Profile::Klips };
        Self { profile, stack, queues: Queues::new(), ids, now: Duration::from_secs(START) }
    }

    fn send_bytes(&mut self, socket: usize, bytes: &[u8]) {
        let id = self.ids[socket];
        match &mut self.stack {
            Stack::Linux(hub) => drop(hub.receive(id, bytes, self.now, &mut self.queues)),
            Stack::Klips(hub) => drop(hub.receive(id, bytes, self.now, &mut self.queues)),
        }
    }

    fn heard(&mut self, socket: usize) -> Vec<Vec<u8>> {
        let id = self.ids[socket];
        std::iter::from_fn(|| self.queues.pop(id)).collect()
    }

    /// What each socket hears after socket 0 asked.
    fn ask(&mut self, message: &Msg) -> [Vec<Vec<u8>>; 3] {
        let bytes = translated(message, self.profile);
        self.ask_bytes(&bytes)
    }

    /// As [`Asked::ask`], for what has to succeed.
    fn done(&mut self, message: &Msg) -> [Vec<Vec<u8>>; 3] {
        let heard = self.ask(message);
        assert_eq!(outcome(&heard[0], "done"), "done");
        heard
    }

    fn ask_bytes(&mut self, bytes: &[u8]) -> [Vec<Vec<u8>>; 3] {
        self.send_bytes(0, bytes);
        [0, 1, 2].map(|socket| self.heard(socket))
    }

    /// What became of a request: a word for success, or the errno.
    fn outcome(&mut self, message: &Msg, success: &str) -> String {
        let bytes = translated(message, self.profile);
        outcome(&self.ask_bytes(&bytes)[0], success)
    }

    /// Registers socket 1 for ESP.
    fn register(&mut self) {
        self.send_bytes(1, &Msg::new(M::REGISTER, S::ESP).bytes());
        (0..3).for_each(|socket| drop(self.heard(socket)));
    }

    /// Lets an SA of ten seconds end.
    fn wear_out(&mut self) {
        let end = self.now + Duration::from_secs(11);
        if let Stack::Linux(hub) = &mut self.stack {
            while let Some(at) = hub.next_deadline().filter(|at| *at <= end) {
                hub.advance(at, &mut self.queues);
            }
        }
        self.now = end;
        match &mut self.stack {
            Stack::Linux(_) => {}
            Stack::Klips(hub) => {
                let said = Said { dst: B.parse().unwrap(), spi: SPI, proto: 50 };
                hub.with_engine(self.now, &mut self.queues, |engine, cx| engine.inbound(&said, 1, cx));
            }
        }
    }
}

fn outcome(answers: &[Vec<u8>], success: &str) -> String {
    let errno = answers.first().expect("an answer")[2];
    if errno == 0 { success.into() } else { format!("{:?}", Errno::from_raw(errno.into())) }
}

/// Who hears, when socket 0 asks, socket 1 is registered and socket 2 is not.
fn audience(heard: &[Vec<Vec<u8>>; 3]) -> String {
    match (heard[1].is_empty(), heard[2].is_empty()) {
        (_, false) => "all",
        (false, true) => "registered",
        (true, true) if heard[0].is_empty() => "nobody",
        (true, true) => "asker",
    }
    .into()
}

/// The answer of a dialect to a topic.
fn answer(topic: &str, dialect: Option<&'static Dialect>) -> String {
    let mut w = Asked::new(dialect);
    let getspi = |at: u32| Msg::new(M::GETSPI, S::ESP).ends().range(at, at);
    let of_state = |state: u8| esp(SPI).without(Ext::SA).sa(Sa { state, auth: 2, encrypt: 3, ..Sa::spi(SPI) });
    match topic {
        "keys in the answer to ADD" => {
            let heard = w.done(&esp(SPI));
            if types(&heard[0][0]).contains(&8) { "yes" } else { "no" }.into()
        }
        "unknown extension" => w.outcome(&esp(SPI).ext(Ext(31), &[0; 4]), "ignored"),
        "GETSPI is heard by" => audience(&w.done(&getspi(0x300))),
        "no free SPI" => {
            w.done(&getspi(0x300));
            w.outcome(&getspi(0x300), "given")
        }
        "an error is heard by" => audience(&w.ask(&named(M::DELETE, S::ESP, SPI))),
        "EXPIRE is heard by" => {
            w.register();
            // Linux wants both limits or none.
            let limited = [Ext::LIFETIME_HARD, Ext::LIFETIME_SOFT];
            w.done(&limited.into_iter().fold(esp(SPI), |add, ext| add.lifetime(ext, 0, 10, 0, 0)));
            w.wear_out();
            let heard = [0, 1, 2].map(|socket| w.heard(socket));
            assert_eq!(heard[1][0][1], M::EXPIRE.0);
            audience(&heard)
        }
        "DUMP" => {
            w.done(&esp(SPI));
            w.outcome(&Msg::new(M::DUMP, S::ESP), "yes")
        }
        "ACQUIRE with an errno is heard by" => {
            w.register();
            w.done(&getspi(0x300));
            audience(&w.ask(&Msg::new(M::ACQUIRE, S::ESP).with_errno(111)))
        }
        "an SA of another source" => {
            w.done(&esp(SPI));
            let other = esp(SPI).without(Ext::ADDRESS_SRC).address(Ext::ADDRESS_SRC, "10.0.0.77");
            w.outcome(&other, "added")
        }
        "promiscuous copy" => {
            let asked = w.ask_bytes(&Msg::new(M::X_PROMISC, S(1)).bytes());
            let flush = Msg::new(M::FLUSH, S::ESP).bytes();
            w.send_bytes(1, &flush);
            let copies = w.heard(0);
            let wrapped = copies.iter().any(|copy| copy[1] == M::X_PROMISC.0 && copy.ends_with(&flush));
            outcome(&asked[0], if wrapped { "wrapped" } else { "raw" })
        }
        "ADD of a larval" => w.outcome(&of_state(0), "added"),
        "prefix length 32" => {
            let mut add = esp(SPI);
            for (ext, body) in &mut add.extensions {
                if [Ext::ADDRESS_SRC.0, Ext::ADDRESS_DST.0].contains(ext) {
                    body[1] = 32;
                }
            }
            w.outcome(&add, "taken")
        }
        "DELETE of an unknown SA" => w.outcome(&named(M::DELETE, S::ESP, SPI), "deleted"),
        "UPDATE of an unknown SA" => {
            let mut update = esp(SPI);
            update.head[1] = M::UPDATE.0;
            w.outcome(&update, "updated")
        }
        "SPIRANGE" => {
            let range = [[1, 2, 3, 4], [1, 2, 3, 4], [0; 4]].concat();
            let ask = translated(&Msg::new(M::GETSPI, S::ESP).ends(), w.profile);
            let ask = [ask, vec![2, 0, 16, 0], range].concat();
            let ask = [&ask[..4], &((ask.len() / 8) as u16).to_ne_bytes(), &ask[6..]].concat();
            let heard = w.ask_bytes(&ask);
            if body(&heard[0][0], Ext::SA)[..4] == [1, 2, 3, 4] { "network order" } else { "host order" }.into()
        }
        "3DES's initialisation vector" => {
            let heard = w.done(&Msg::new(M::REGISTER, S::ESP));
            let list = body(&heard[0][0], Ext::SUPPORTED_ENCRYPT);
            let triple_des = list[4..].chunks(8).find(|algorithm| algorithm[0] == 3).expect("3DES");
            triple_des[1].to_string()
        }
        other => panic!("no question for {other:?}"),
    }
}

#[test]
#[cfg(target_endian = "little")]
fn the_table_of_contradictions_is_what_the_profiles_do() {
    let text = std::fs::read_to_string(c::root().join("docs/klips.md")).unwrap();
    let (_, section) = text.split_once("\n## Where the sources contradict each other\n").unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Topic"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 16);
    for row in rows {
        let answers = [Some(&LINUX), Some(&RFC2367), None].map(|dialect| answer(row[0], dialect));
        assert_eq!(row[1..], answers, "{}", row[0]);
    }
}
