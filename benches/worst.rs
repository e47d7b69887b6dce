//! What peers and operators can choose so that the embedded engine has the most to do: SPIs and addresses that are alike, the last free
//! SPI, policies of every shape, and a million SAs that end in one second. `PFKEYD=FILE` measures another pfkeyd.
//!
//! `cargo bench --locked --bench worst -- 24` takes 2^24 SPIs where 2^20 are taken otherwise: 8 GiB.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/row.rs"]
mod row;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemon::Daemon;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use pfkey_rs::batch::Batch;
use pfkey_rs::engine::{Engine, Flow, LINUX};
use pfkey_rs::hub::{Hub, Service as _, SessionId, Sink};
use pfkey_rs::model::policy::Policy;
use pfkey_rs::model::sa::{Sa, Selector};
use pfkey_rs::socket;
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, ExtensionType as Ext, Header, IpsecProtocol, MessageType, PolicyDirection,
    Prefix, Profile, SaType, SockaddrBytes, Writer,
};
use row::{Goal, ROUNDS, Row, in_turns, percentile};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// SAs that end in one second.
const ENDING: u32 = 1_000_000;

/// An SA by the address of its peer and its SPI.
type Name = (Ipv4Addr, u32);

/// Takes the SPI out of the last answer.
#[derive(Default)]
struct Last {
    errno: u8,
    spi: u32,
}

impl Sink for Last {
    fn deliver(&mut self, _: SessionId, message: &[u8]) -> bool {
        self.errno = message[2];
        self.spi = message.get(20..24).map_or(0, |spi| u32::from_be_bytes([spi[0], spi[1], spi[2], spi[3]]));
        true
    }
}

/// A request about an SA: GETSPI for any of a range, GET, ADD with keys, which ends after so many seconds if they are not 0.
fn message(buffer: &mut [u8; 512], msg_type: MessageType, (peer, spi): Name, range: (u32, u32), ends_in: u64) -> usize {
    let (src, dst) = (SockaddrBytes::new(OWN.into(), 0), SockaddrBytes::new(peer.into(), 0));
    let mut w = Writer::new(buffer, Header::new(msg_type, SaType::ESP, 1, 1), Profile::Linux);
    if msg_type != MessageType::GETSPI {
        let (auth, encrypt) = if msg_type == MessageType::ADD { (3, 12) } else { (0, 0) };
        w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth, encrypt, ..Default::default() });
    }
    if ends_in != 0 {
        w.lifetime(Ext::LIFETIME_HARD, SadbLifetime { addtime: ends_in.into(), ..Default::default() });
        w.lifetime(Ext::LIFETIME_SOFT, SadbLifetime::default());
    }
    w.address(Ext::ADDRESS_SRC, 0, 32, src.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, dst.as_bytes());
    match msg_type {
        MessageType::GETSPI => drop(w.spirange(range.0, range.1)),
        MessageType::ADD => drop(w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16])),
        _ => {}
    }
    w.finish().map_or(0, |m| m.len())
}

/// Nanoseconds of each ADD of these SAs, and then of each GET.
fn changes(name: fn(u32) -> Name) -> (f64, f64) {
    const SAS: u32 = 60_000;
    let mut hub = Hub::new(Engine::new(&LINUX));
    let id = hub.open();
    let mut all = |msg_type| {
        let (mut sink, mut buffer) = (Last::default(), [0; 512]);
        let start = Instant::now();
        for n in 0..SAS {
            let len = message(&mut buffer, msg_type, name(n), (0, 0), 0);
            hub.receive(id, &buffer[..len], NOW, &mut sink).expect("a message");
            assert_eq!(sink.errno, 0, "{:?}", name(n));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(SAS)
    };
    (all(MessageType::ADD), all(MessageType::GET))
}

/// SAs whose addresses and SPIs differ in few bits, beside such as differ in all.
fn alike() {
    let spread = |n: u32| {
        (Ipv4Addr::from(0x0a00_0000 | n.wrapping_mul(0x9e37_79b1) >> 8), 0x1000 + n.wrapping_mul(0x85eb_ca6b) / 2)
    };
    let high: fn(u32) -> Name = |n| (Ipv4Addr::from(n << 16 | 1), 0x1000 | (n << 16));
    let one_peer: fn(u32) -> Name = |n| (Ipv4Addr::new(10, 0, 0, 1), 0x1000 + 0x1_0000 * n);
    for (name, of) in [("in their upper halves alone", high), ("in the SPI's upper half alone", one_peer)] {
        let (mut ours, mut limit) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            let (add, get) = changes(of);
            let (even_add, even_get) = changes(spread);
            ours.0.push(add);
            ours.1.push(get);
            limit.0.push(even_add);
            limit.1.push(even_get);
        }
        for (what, ours, limit) in [("ADD", ours.0, limit.0), ("GET", ours.1, limit.1)] {
            let work = format!("{what}, 60000 SAs that differ {name}");
            Row {
                work: &work,
                unit: "ns",
                ours,
                limit: Some(("SAs that differ in all bits", limit)),
                goal: Goal::Ratio(1.5),
            }
            .show();
        }
    }
}

/// GETSPI in a range of which one SPI is free.
fn last_spi(bits: u32) {
    let (low, high) = (0x100, 0xff + (1 << bits));
    let mut engine = Engine::new(&LINUX);
    for spi in low..=high {
        let ends = Ends::new(OWN.into(), Ipv4Addr::from(0x0a00_0000 + spi).into()).expect("one family");
        let mut sa = Sa::new(ends, spi, IpsecProtocol::ESP, 1);
        (sa.auth, sa.encrypt) = (AuthAlgorithm::SHA1HMAC, EncryptAlgorithm::X_AESCBC);
        engine.know_sa(sa);
    }
    let mut hub = Hub::new(engine);
    hub.set_max_objects(usize::MAX);
    let id = hub.open();
    let peer = |spi: u32| Ipv4Addr::from(0x0a00_0000 + spi);
    let mut round = |range: (u32, u32), freed: Option<u32>| {
        const TIMES: u32 = 2000;
        let (mut sink, mut buffer, mut took) = (Last::default(), [0; 512], Duration::ZERO);
        for n in 0..TIMES {
            let spi = freed.map(|seed| low + seed.wrapping_add(n).wrapping_mul(0x9e37_79b1) % (high - low));
            if let Some(spi) = spi {
                let len = message(&mut buffer, MessageType::DELETE, (peer(spi), spi), range, 0);
                hub.receive(id, &buffer[..len], NOW, &mut sink).expect("a message");
                assert_eq!(sink.errno, 0, "{spi:#x}");
            }
            let asks = spi.unwrap_or(1 << 25 | n);
            let len = message(&mut buffer, MessageType::GETSPI, (peer(asks), 0), range, 0);
            let start = Instant::now();
            hub.receive(id, &buffer[..len], NOW, &mut sink).expect("a message");
            took += start.elapsed();
            assert_eq!(sink.errno, 0);
            assert!(spi.is_none_or(|spi| spi == sink.spi));
        }
        took.as_secs_f64() * 1e9 / f64::from(TIMES)
    };
    let (mut seed, mut base) = (0, 0x1000_0000);
    let (ours, limit) = (0..ROUNDS)
        .map(|_| {
            (seed, base) = (seed + 0x10_0000, base + 0x0100_0000);
            (round((low, high), Some(seed)), round((base, base + 0x00ff_ffff), None))
        })
        .unzip();
    let work = format!("GETSPI, one of {} SPIs is free", 1_u32 << bits);
    Row { work: &work, unit: "ns", ours, limit: Some(("all are free", limit)), goal: Goal::Ratio(2.0) }.show();
}

/// Policies of every shape, all around a flow's addresses, none of which takes it but the last.
fn every_shape() {
    let (src, dst) = (OWN, Ipv4Addr::new(10, 1, 2, 3));
    let flow = Flow::new(Ends::new(src.into(), dst.into()).expect("one family"), 17, 1000, 2000);
    let mut engine = Engine::new(&LINUX);
    let mut selectors = Vec::new();
    for (slen, dlen) in (0..=32).flat_map(|slen| (0..=32).map(move |dlen| (slen, dlen))) {
        // What is left open: the protocol, the source port, the destination port. Another that is said refuses the flow.
        for upper in 1..8 {
            let said = |bit: u8, right: u16, wrong: u16| match upper & bit {
                0 => 0,
                // The highest bit that is said is wrong, so that all before it have to be looked at.
                _ if upper >> bit.trailing_zeros() == 1 => wrong,
                _ => right,
            };
            let prefix = |address: Ipv4Addr, len| Prefix { address: address.into(), len };
            selectors.push(Selector {
                src: prefix(src, slen),
                dst: prefix(dst, dlen),
                proto: said(1, 17, 6) as u8,
                sport: said(2, 1000, 1001),
                dport: said(4, 2000, 2001),
            });
        }
    }
    let dir = PolicyDirection::OUTBOUND;
    selectors.push(Selector::any(src.into()));
    for (n, selector) in selectors.iter().enumerate() {
        // The weakest of all is the one that takes it.
        let priority = 0x8000_0000 + n as u32;
        engine.know_policy(Policy {
            id: 8 * n as u32 + 1,
            dir,
            priority,
            selector: *selector,
            ..Policy::any(src.into())
        });
    }
    const TIMES: u32 = 200;
    let each = |start: Instant| start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES);
    let search = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            assert!(black_box(engine.spd().lookup(dir, black_box(&flow))).is_some());
        }
        each(start)
    };
    let one_by_one = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            let found = selectors.iter().position(|selector| black_box(selector).covers(black_box(&flow)));
            assert_eq!(found, Some(selectors.len() - 1));
        }
        each(start)
    };
    let (ours, limit) = in_turns(search, one_by_one);
    let work = format!("look-up of a policy, {} of all shapes that miss", selectors.len() - 1);
    Row { work: &work, unit: "ns", ours, limit: Some(("each looked at", limit)), goal: Goal::None }.show();
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// Loads SAs that end in the second `end`.
fn load(fd: &OwnedFd, end: u64) {
    let (mut batch, mut buffer) = (Batch::default(), [0; 512]);
    let send =
        |batch: Batch| batch.send(fd.as_fd(), |_, errno, why| panic!("refused: {errno:?} {why:?}")).expect("a batch");
    for n in 0..ENDING {
        let name = (Ipv4Addr::from(0x0a00_0000 + n), 0x1000 + n);
        let len =
            message(&mut buffer, MessageType::ADD, name, (0, 0), end.saturating_sub(unix_time().as_secs()).max(1));
        batch.push(&buffer[..len]).expect("a message");
        if n % 10_000 == 9_999 {
            send(std::mem::take(&mut batch));
        }
    }
}

/// How long a request takes while they end, and another program hears of each end as fast as it can.
fn all_end() {
    let daemon = Daemon::start();
    let loader = daemon.open();
    let end = unix_time().as_secs() + 40;
    load(&loader, end);
    drop(loader);
    // Whoever was there before has heard of all.
    let asker = daemon.open();
    let stays = (Ipv4Addr::new(172, 16, 0, 1), 0x0200_0000);
    let mut buffer = [0; 512];
    let mut ask = |msg_type: MessageType| {
        let len = message(&mut buffer, msg_type, stays, (0, 0), 0);
        let start = Instant::now();
        socket::send(asker.as_raw_fd(), &buffer[..len]).expect("a request");
        let mut answer = [0; 512];
        let len = recv(asker.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("its answer");
        assert_eq!(Header::read(&answer[..len]).map(|header| (header.msg_type, header.errno)), Some((msg_type, 0)));
        start.elapsed().as_secs_f64() * 1e3
    };
    ask(MessageType::ADD);
    let manager = daemon.open();
    let mut register = [0; 16];
    let len = Writer::new(&mut register, Header::new(MessageType::REGISTER, SaType::ESP, 1, 1), Profile::Linux)
        .finish()
        .map_or(0, |m| m.len());
    socket::send(manager.as_raw_fd(), &register[..len]).expect("a registration");
    setsockopt(&manager, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).expect("a timeout");
    assert!(unix_time().as_secs() < end, "loading took too long");
    let hears = std::thread::spawn(move || {
        let (mut heard, mut message) = (0_u32, [0; 1024]);
        let mut began = None;
        loop {
            match recv(manager.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(len) if Header::read(&message[..len]).is_some_and(|h| h.msg_type == MessageType::EXPIRE) => {
                    heard += 1;
                    began.get_or_insert_with(Instant::now);
                }
                Ok(_) => {}
                Err(_) if began.is_some() => break,
                Err(_) => {}
            }
        }
        (heard, began.map_or(0.0, |began: Instant| began.elapsed().as_secs_f64() - 1.0))
    });
    std::thread::sleep((Duration::from_secs(end) - Duration::from_millis(200)).saturating_sub(unix_time()));
    let mut took = Vec::new();
    while !hears.is_finished() {
        took.push(ask(MessageType::GET));
    }
    let (heard, seconds) = hears.join().expect("what it heard");
    took.sort_by(f64::total_cmp);
    let at = |part: f64| percentile(&took, part);
    let show = |work: &str, unit: &str, figure: f64, goal| {
        let work = format!("{work}, while {ENDING} SAs end");
        Row { work: &work, unit, ours: vec![figure], limit: None, goal }.show();
    };
    show("a request, median", "ms", at(0.5), Goal::None);
    show("a request, 99 of 100", "ms", at(0.99), Goal::None);
    show("a request, 999 of 1000", "ms", at(0.999), Goal::Most(5.0));
    show("a request, longest", "ms", at(1.0), Goal::None);
    show("EXPIREs that a program heard", "", f64::from(heard), Goal::None);
    show("seconds from the first to the last", "s", seconds, Goal::None);
}

fn main() {
    let bits = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(20);
    row::heading();
    alike();
    last_spi(bits);
    every_shape();
    all_end();
}
