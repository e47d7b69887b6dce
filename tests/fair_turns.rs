//! Clients of one server take turns, whatever one of them does: how much of a flood is done before another's request, counted
//! in an engine that does almost nothing. And no request is lost or done twice when its client goes away.

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use build::Msg;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};
use pfkey_rs::engine::{Engine, LINUX};
use pfkey_rs::hub::{
    Audience, Context, DumpMessage, DumpStep, Errno, Hub, KeyEngine, Queues, Service as _, Supported, Time,
};
use pfkey_rs::wire::{BATCH, ExtensionType as Ext, Header, Message, MessageType, Profile, SaType, Writer};
use pfkeyd::Sources;
use pfkeyd::limits::{TURN_DELIVERIES, TURN_DUMPED, TURN_MESSAGES};
use pfkeyd::server::Server;

/// What the engine did, seen from outside.
#[derive(Clone, Default)]
struct Seen {
    /// The sequence number of each request, in order.
    requests: Arc<Mutex<Vec<u32>>>,
    /// Messages that dumps took.
    dumped: Arc<AtomicUsize>,
    /// What it took when a request was done, for each.
    dumped_before: Arc<Mutex<Vec<usize>>>,
    /// A descriptor that is closed while a request with the number 2 is done.
    closes: Arc<Mutex<Option<OwnedFd>>>,
}

impl Seen {
    fn requests(&self) -> Vec<u32> {
        self.requests.lock().expect("no test panicked there").clone()
    }
}

/// Echoes requests: ADD to everybody, others to who asked. Its dumps have no end.
struct Fake(Seen);

impl Sources for Fake {}

impl KeyEngine for Fake {
    type Dump = ();

    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        self.0.requests.lock().expect("a list").push(header.seq);
        self.0.dumped_before.lock().expect("a list").push(self.0.dumped.load(Ordering::SeqCst));
        let audience = if header.msg_type == MessageType::ADD { Audience::All } else { Audience::One };
        cx.out.deliver(audience, request.bytes());
        if header.seq == 2 {
            drop(self.0.closes.lock().expect("a place").take());
        }
        Ok(())
    }

    fn dump(&mut self, _: &Message<'_>, _: Time) -> Result<(), Errno> {
        Ok(())
    }

    fn dump_next(&mut self, _: &mut (), _: Time, message: &mut DumpMessage<'_>) -> Result<DumpStep, Errno> {
        self.0.dumped.fetch_add(1, Ordering::SeqCst);
        message.write(Header::new(MessageType::DUMP, SaType::ESP, 0, 1), |_| ())?;
        Ok(DumpStep::Entry)
    }

    fn dump_end(&mut self, (): ()) {}

    fn supported(&mut self) -> Result<Supported, Errno> {
        Ok(Supported::default())
    }
}

fn bytes(msg_type: MessageType, seq: u32) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, SaType::ESP, seq, 1);
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

/// Requests in one datagram, each with the number 1000.
fn batch(msg_type: MessageType, messages: usize) -> Vec<u8> {
    let mut all = BATCH.to_vec();
    (0..messages).for_each(|_| all.extend(bytes(msg_type, 1000)));
    all
}

struct World {
    server: Server<Hub<Fake>>,
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let seen = Seen::default();
        Self { server: Server::new(Hub::new(Fake(seen.clone()))).expect("a server"), seen }
    }

    fn client(&mut self) -> OwnedFd {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("two sockets");
        self.server.add(ours).expect("a session");
        theirs
    }

    /// Serves while `meanwhile` runs, and until it has closed every client.
    fn serve(mut self, meanwhile: impl FnOnce(&Seen)) {
        let thread = std::thread::spawn(move || self.server.run().expect("it serves"));
        meanwhile(&self.seen);
        thread.join().expect("no panic");
    }
}

fn ask(fd: &OwnedFd, message: &[u8]) {
    assert_eq!(send(fd.as_raw_fd(), message, MsgFlags::empty()), Ok(message.len()));
}

/// Waits for the message with a sequence number.
fn answer(fd: &OwnedFd, seq: u32) {
    let mut buffer = [0; 64];
    loop {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        assert_ne!(len, 0, "the server closed the session");
        if Header::read(&buffer[..len]).expect("a message").seq == seq {
            return;
        }
    }
}

/// How many requests of a flood were done before the one with the number 1.
fn done_before(seen: &Seen) -> usize {
    seen.requests().iter().position(|&seq| seq == 1).expect("it was done")
}

#[test]
fn a_batch_lets_others_have_their_turn() {
    let mut world = World::new();
    let (flooder, polite) = (world.client(), world.client());
    setsockopt(&flooder, sockopt::SndBuf, &(1 << 20)).expect("a buffer");
    ask(&flooder, &batch(MessageType::GET, 10_000));
    ask(&polite, &bytes(MessageType::GET, 1));
    world.serve(|seen| {
        answer(&polite, 1);
        drop(polite);
        // Each has its answer, and the datagram is consumed after the last.
        (0..10_000).for_each(|_| answer(&flooder, 1000));
        ask(&flooder, &bytes(MessageType::GET, 3));
        answer(&flooder, 3);
        drop(flooder);
        assert!(done_before(seen) <= TURN_MESSAGES, "{} requests came first", done_before(seen));
        assert_eq!(seen.requests().len(), 10_002);
    });
}

/// A request that looks at every SA is a turn.
#[test]
fn a_batch_of_flushes_has_one_each_turn() {
    let mut world = World::new();
    let (flooder, polite) = (world.client(), world.client());
    ask(&flooder, &batch(MessageType::FLUSH, 1000));
    ask(&polite, &bytes(MessageType::GET, 1));
    world.serve(|seen| {
        answer(&polite, 1);
        drop((polite, flooder));
        assert!(done_before(seen) <= 1, "{} requests came first", done_before(seen));
    });
}

/// What goes to everybody costs as much as there are sessions.
#[test]
fn a_batch_that_many_hear_has_shorter_turns() {
    const IDLE: usize = 100;
    let mut world = World::new();
    let (flooder, polite) = (world.client(), world.client());
    let idle: Vec<OwnedFd> = (0..IDLE).map(|_| world.client()).collect();
    ask(&flooder, &batch(MessageType::ADD, 500));
    ask(&polite, &bytes(MessageType::GET, 1));
    world.serve(|seen| {
        answer(&polite, 1);
        drop((polite, flooder, idle));
        let messages = done_before(seen) * IDLE;
        assert!(messages <= TURN_DELIVERIES, "{messages} messages were delivered first");
    });
}

#[test]
fn dumps_let_others_have_their_turn() {
    const DUMPS: usize = 50;
    let mut world = World::new();
    let dumping: Vec<OwnedFd> = (0..DUMPS).map(|_| world.client()).collect();
    dumping.iter().for_each(|fd| ask(fd, &bytes(MessageType::DUMP, 9)));
    let polite = world.client();
    ask(&polite, &bytes(MessageType::GET, 1));
    world.serve(|seen| {
        answer(&polite, 1);
        drop((polite, dumping));
        let before = seen.dumped_before.lock().expect("a list")[0];
        // Each holds one back.
        assert!(before <= DUMPS * (TURN_DUMPED + 2), "{before} messages were dumped first");
    });
}

#[test]
fn dumps_that_nobody_reads_cost_others_nothing() {
    let mut world = World::new();
    let dumping: Vec<OwnedFd> = (0..100).map(|_| world.client()).collect();
    dumping.iter().for_each(|fd| ask(fd, &bytes(MessageType::DUMP, 9)));
    let polite = world.client();
    world.serve(|seen| {
        let request = || {
            ask(&polite, &bytes(MessageType::GET, 1));
            answer(&polite, 1);
            seen.dumped.load(Ordering::SeqCst)
        };
        // Until every queue is full.
        let mut quiet = 0;
        let mut dumped = 0;
        while quiet < 10 {
            let now = request();
            quiet = if now == dumped { quiet + 1 } else { 0 };
            dumped = now;
        }
        (0..100).for_each(|_| assert_eq!(request(), dumped));
        // A reader gets its dump all the same.
        (0..100_000)
            .for_each(|n| assert_ne!(recv(dumping[50].as_raw_fd(), &mut [0; 64], MsgFlags::empty()), Ok(0), "{n}"));
        drop((polite, dumping));
    });
}

/// What a peer has not consumed of what was sent to it.
fn unread(fd: &OwnedFd) -> libc::c_int {
    let mut unread = 0;
    // SAFETY: TIOCOUTQ writes one int.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    unread
}

/// As with AF_KEY, where a dump takes two thirds of the queue.
#[test]
fn a_dump_that_nobody_reads_leaves_room_for_an_answer() {
    const ANSWER: u32 = 0x7777_7777;
    let mut world = World::new();
    let (reader, other) = (world.client(), world.client());
    world.serve(|_| {
        for request in [bytes(MessageType::DUMP, 9), bytes(MessageType::GET, ANSWER)] {
            ask(&reader, &request);
            while unread(&reader) > 0 {
                ask(&other, &bytes(MessageType::GET, 1));
                answer(&other, 1);
            }
        }
        // The dump goes on meanwhile, and has no end. Twice as many as wait at most.
        let mut received = (0..20_000).map(|_| {
            let mut buffer = [0; 64];
            let len = recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a message");
            Header::read(&buffer[..len]).expect("a message").seq
        });
        assert!(received.any(|seq| seq == ANSWER), "the answer is lost");
        drop((reader, other));
    });
}

/// `send` of a DUMP returns when the dump waits, as far as the queue takes it: a reader that never waits gets it whole.
#[test]
fn a_dump_is_consumed_when_it_is_there() {
    let mut world = World::new();
    let (reader, other) = (world.client(), world.client());
    ask(&reader, &bytes(MessageType::DUMP, 9));
    world.serve(|_| {
        // The first request after it is done when the DUMP is consumed.
        ask(&reader, &bytes(MessageType::X_SPDDUMP, 9));
        while unread(&reader) > 0 {
            ask(&other, &bytes(MessageType::GET, 1));
            answer(&other, 1);
        }
        let mut waiting = 0;
        while recv(reader.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok() && waiting < 4000 {
            waiting += 1;
        }
        assert_eq!(waiting, 4000);
        drop((reader, other));
    });
}

/// A client beyond the limit gets a message with ENOBUFS and the end of the connection; when another goes, there is a place.
#[test]
fn one_client_too_many_is_refused() {
    let mut world = World::new();
    world.server.set_max_clients(2);
    let connect = |world: &mut World| {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("two sockets");
        (world.server.admit(ours), theirs)
    };
    let served = [connect(&mut world), connect(&mut world)];
    assert!(served.iter().all(|(id, _)| id.is_some()));
    let (id, refused) = connect(&mut world);
    assert_eq!(id, None);
    let mut report = [0; 64];
    assert_eq!(recv(refused.as_raw_fd(), &mut report, MsgFlags::MSG_DONTWAIT), Ok(16));
    assert_eq!(
        Header::read(&report).map(|h| (h.msg_type, h.errno)),
        Some((MessageType::RESERVED, libc::ENOBUFS as u8))
    );
    assert_eq!(recv(refused.as_raw_fd(), &mut report, MsgFlags::MSG_DONTWAIT), Ok(0));
    assert!(world.server.statistics().contains("\nclients: 2 of 2, 1 refused\n"));
    drop(served);
    world.server.run().expect("it serves");
    assert!(connect(&mut world).0.is_some());
}

/// A message that is more than a client's queue could ever hold is lost for this client, which is served all the same.
#[test]
fn a_message_that_fits_no_queue_closes_nobody() {
    let mut world = World::new();
    let sender = world.client();
    // The first clients have the larger queues.
    let others: Vec<OwnedFd> = (0..40).map(|_| world.client()).collect();
    setsockopt(&sender, sockopt::SndBuf, &(1 << 20)).expect("a buffer");
    let mut long = bytes(MessageType::X_PROMISC, 9);
    long.resize(240_000, 0);
    long[4..6].copy_from_slice(&30_000_u16.to_ne_bytes());
    // An extension of no type that is known, as long as it can be, and so on.
    for at in (16..240_000).step_by(8) {
        long[at..at + 4].copy_from_slice(&[1, 0, 200, 0]);
    }
    ask(&sender, &long);
    world.serve(|_| {
        ask(&sender, &bytes(MessageType::GET, 1));
        answer(&sender, 1);
        let last = others.last().expect("forty");
        ask(last, &bytes(MessageType::GET, 1));
        answer(last, 1);
        drop((sender, others));
    });
}

/// SAs that end in the same second end a few at a time, and all of them.
#[test]
fn expiry_lets_others_have_their_turn() {
    const SAS: u32 = 2000;
    let start = Time::from_secs(1_000_000);
    let mut hub = Hub::new(Engine::with_seed(&LINUX, 1));
    let mut queues = Queues::with_limit(usize::MAX / 4);
    let id = hub.open();
    for spi in 1..=SAS {
        let add = Msg::new(MessageType::ADD, SaType::AH, 1).sa(0x1000 + spi, 3, 0).pair("10.0.0.1", "10.0.0.2");
        let add = add.lifetimes(10, 0).key(Ext::KEY_AUTH, 20);
        hub.receive(id, &add.bytes(), start, &mut queues).expect("a message");
    }
    assert_eq!(hub.engine().sadb().len(), SAS as usize);
    let end = start + Time::from_secs(10);
    let mut left = SAS as usize;
    while hub.next_deadline().is_some_and(|at| at <= end) {
        hub.advance(end, &mut queues);
        let ended = left - hub.engine().sadb().len();
        assert!((1..=500).contains(&ended), "{ended} SAs ended at once");
        left -= ended;
    }
    assert_eq!(left, 0);
}

/// A client that closes its end with unread answers makes the server's next receive fail (ECONNRESET): the one that consumes
/// the request …
#[test]
fn a_client_that_closes_meanwhile_is_not_served_twice() {
    let mut world = World::new();
    let client = world.client();
    ask(&client, &bytes(MessageType::GET, 1));
    ask(&client, &bytes(MessageType::GET, 2));
    *world.seen.closes.lock().expect("a place") = Some(client);
    let seen = world.seen.clone();
    world.serve(|_| {});
    assert_eq!(seen.requests(), [1, 2]);
}

/// … or the one that looks at it.
#[test]
fn what_was_asked_before_the_end_is_done() {
    let mut world = World::new();
    let client = world.client();
    let seen = world.seen.clone();
    for seq in [1, 2, 3, 4] {
        ask(&client, &bytes(MessageType::GET, seq));
    }
    *seen.closes.lock().expect("a place") = Some(client);
    world.serve(|_| {});
    assert_eq!(seen.requests(), [1, 2, 3, 4]);
}
