//! A dump under back-pressure, looked at from inside: both gates to the byte, where the cursor stands, what late
//! resumption saves, and what a receiver's flags do. What a reader sees of it is in `tests/scenarios/backpressure.rs`,
//! recorded on real kernels.
#![forbid(unsafe_code)]

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::fmt::Write as _;
use std::time::Duration;

use build::Msg;
use pfkey_rs::engine::{Engine, LINUX};
use pfkey_rs::hub::{Errno, Hub, Queues, Service as _, SessionId, Sink, truesize};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType as M, SaType as S};

const NOW: Duration = Duration::from_secs(1_000_000);

/// An engine with a session that dumps.
struct World {
    hub: Hub<Engine>,
    queues: Queues,
    reader: SessionId,
}

impl World {
    /// AH SAs with the SPIs 0x1001 and up, and a reader whose queue has `limit` bytes.
    fn new(sas: u32, limit: usize) -> Self {
        let mut hub = Hub::new(Engine::with_seed(&LINUX, 1));
        let mut queues = Queues::with_limit(limit);
        let writer = hub.open();
        for spi in 1..=sas {
            let add = Msg::new(M::ADD, S::AH, 1).sa(0x1000 + spi, 3, 0).pair("10.0.0.1", "10.0.0.2");
            hub.receive(writer, &add.key(Ext::KEY_AUTH, 20).bytes(), NOW, &mut queues).expect("a message");
        }
        hub.close(writer, NOW);
        queues.close(writer);
        let reader = hub.open();
        Self { hub, queues, reader }
    }

    fn send(&mut self, message: &Msg) {
        self.hub.receive(self.reader, &message.bytes(), NOW, &mut self.queues).expect("a message");
    }

    fn dump(&mut self) {
        self.send(&Msg::new(M::DUMP, S::UNSPEC, 1));
    }

    /// Takes one message; gives its sequence number. `always`: goes on with the dump whatever room there is.
    fn read(&mut self, always: bool) -> Option<u32> {
        let message = self.queues.pop(self.reader)?;
        if self.hub.is_dumping(self.reader) && (always || self.queues.may_resume(self.reader)) {
            self.hub.writable(self.reader, NOW, &mut self.queues);
        }
        Some(Header::read(&message)?.seq)
    }
}

/// Queueing goes on up to two thirds of the queue, resumption waits for one third; both are decided by one byte.
#[test]
fn both_gates_to_the_byte() {
    let id = SessionId(0);
    let charged = truesize(100);
    for messages in 1..50 {
        let used = messages * charged;
        // The largest limits of which `used` is still too much.
        let (for_dump, for_resumption) = ((3 * used - 1) / 2, 3 * used - 1);
        let mut queues = Queues::new();
        (0..messages).for_each(|_| assert!(queues.deliver(id, &[0; 100])));
        let mut gates = |limit| {
            queues.set_limit(id, limit);
            (queues.may_dump(id), queues.may_resume(id))
        };
        assert_eq!(gates(for_dump), (false, false), "{messages} messages");
        assert_eq!(gates(for_dump + 1), (true, false), "{messages} messages");
        assert_eq!(gates(for_resumption), (true, false), "{messages} messages");
        assert_eq!(gates(for_resumption + 1), (true, true), "{messages} messages");
    }
}

/// Each SA by its SPI's last digit, newest first: those that were taken stand left of the cursor; the message held back is in
/// brackets, those that the reader has are dots.
fn picture(world: &World, sas: u32, read: u32) -> String {
    let mut line = String::new();
    let taken = world.hub.dump_position(world.reader);
    for nth in 1..=sas {
        let spi = sas + 1 - nth;
        let _ = match nth {
            _ if nth <= read => write!(line, " . "),
            _ if Some(nth) == taken => write!(line, "[{spi}]"),
            _ => write!(line, " {spi} "),
        };
        if Some(nth) == taken {
            line += "|";
        }
    }
    let _ = writeln!(line, "  queued {}", world.queues.len(world.reader));
    line
}

/// A queue of 4096 bytes takes four messages (each is charged 896): three are less than two thirds, the fourth ends it, a
/// fifth is held back. The dump goes on when one message is left, which is less than a third.
#[test]
fn the_cursor_stands_behind_what_was_taken() {
    let mut world = World::new(9, 4096);
    world.dump();
    let mut trace = picture(&world, 9, 0);
    let mut seqs = Vec::new();
    while let Some(seq) = world.read(false) {
        seqs.push(seq);
        trace += &picture(&world, 9, seqs.len() as u32);
    }
    let expected = "
 9  8  7  6 [5]| 4  3  2  1   queued 4
 .  8  7  6 [5]| 4  3  2  1   queued 3
 .  .  7  6 [5]| 4  3  2  1   queued 2
 .  .  .  6  5  4  3 [2]| 1   queued 4
 .  .  .  .  5  4  3 [2]| 1   queued 3
 .  .  .  .  .  4  3 [2]| 1   queued 2
 .  .  .  .  .  .  3  2  1   queued 3
 .  .  .  .  .  .  .  2  1   queued 2
 .  .  .  .  .  .  .  .  1   queued 1
 .  .  .  .  .  .  .  .  .   queued 0
";
    assert_eq!(trace, expected.trim_start_matches('\n'));
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 0]);
    assert_eq!(world.queues.most_charged(world.reader), 4 * truesize(200), "the queue was never fuller");
}

/// With Linux's default queue 159 messages fill two thirds (158 × 896 ≤ 141 994 < 159 × 896), and 79 are a third. So the
/// dump goes on with 80 messages at a time; if every receive resumed it, with one.
#[test]
fn late_resumption_saves_walks() {
    let run = |always| {
        let mut world = World::new(1000, 212_992);
        world.dump();
        assert_eq!(world.queues.len(world.reader), 159);
        let seqs: Vec<u32> = std::iter::from_fn(|| world.read(always)).collect();
        (seqs, world.hub.statistics(world.reader).expect("a session").resumed)
    };
    let ((late, few), (always, many)) = (run(false), run(true));
    let complete: Vec<u32> = (1..1000).chain([0]).collect();
    assert_eq!((&late, &always), (&complete, &complete));
    println!("1000 messages: the dump went on {few} times, and {many} times if every receive resumed it");
    assert_eq!((few, many), (u64::div_ceil(1000 - 159, 80), 1000 - 159));
}

/// `recv` in memory does what AF_KEY of 6.1, 6.12 and 7.2 did (`c-tests/preload/receive.c`).
#[test]
fn a_receivers_flags() {
    let recorded = include_str!("../c-tests/preload/receive.txt");
    let flag = |name: &str| match name {
        "none" => 0,
        "PEEK" => libc::MSG_PEEK,
        "DONTWAIT" => libc::MSG_DONTWAIT,
        "TRUNC" => libc::MSG_TRUNC,
        "OOB" => libc::MSG_OOB,
        "DONTROUTE" => libc::MSG_DONTROUTE,
        "CTRUNC" => libc::MSG_CTRUNC,
        "EOR" => libc::MSG_EOR,
        "WAITALL" => libc::MSG_WAITALL,
        "ERRQUEUE" => libc::MSG_ERRQUEUE,
        "NOSIGNAL" => libc::MSG_NOSIGNAL,
        "CMSG_CLOEXEC" => libc::MSG_CMSG_CLOEXEC,
        name => panic!("flag {name}"),
    };
    assert_eq!(recorded.lines().count(), 30);
    for line in recorded.lines() {
        let (tried, outcome) = line.split_once(": ").expect("FLAGS, room for N: OUTCOME");
        let (names, room) = tried.rsplit_once(", room for ").expect("FLAGS, room for N");
        let flags = names.split(", ").flat_map(|n| n.split(" and ")).map(flag).fold(0, |a, b| a | b);
        let room: usize = room.parse().expect("a number");
        let mut world = World::new(0, 4096);
        world.send(&Msg::new(M::FLUSH, S::UNSPEC, 1));
        let mut buffer = [0; 64];
        let got = match world.queues.recv(world.reader, &mut buffer[..room], flags) {
            Ok((len, cut)) => {
                assert_eq!(cut, room < 16, "{line}");
                format!("{len} bytes")
            }
            Err(errno) => nix::errno::Errno::from_raw(errno.to_raw()).desc().to_owned(),
        };
        let stays = if world.queues.is_empty(world.reader) { "gone" } else { "stays" };
        assert_eq!(format!("{got}, {stays}"), outcome, "{tried}");
    }
    let mut world = World::new(0, 4096);
    assert_eq!(world.queues.recv(world.reader, &mut [], 0), Err(Errno::EAGAIN));
}

/// A peek takes no message, but the dump goes on all the same if there is room.
#[test]
fn a_peek_resumes_a_dump() {
    let mut world = World::new(9, 4096);
    world.dump();
    // Another buffer size is all that makes room.
    world.queues.set_limit(world.reader, 4 * 3 * truesize(200));
    let len = world.queues.recv(world.reader, &mut [], libc::MSG_PEEK | libc::MSG_TRUNC).expect("a message").0;
    assert!(len > 16 && world.queues.may_resume(world.reader));
    world.hub.writable(world.reader, NOW, &mut world.queues);
    assert_eq!(world.queues.len(world.reader), 9);
}
