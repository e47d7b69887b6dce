//! Who hears what, and how dumps run: the hub in front of an engine that does almost nothing.
//! Expectations are af_key's (RFC 2367 section 3.1, `pfkey_broadcast`, `pfkey_do_dump`).
#![forbid(unsafe_code)]

use pfkey_rs::hub::{
    Audience, Context, DumpMessage, DumpStep, Errno, Hub, KeyEngine, Queues, Service as _, SessionId, Sink, Supported,
    Time,
};
use pfkey_rs::wire::layout::SadbAlg;
use pfkey_rs::wire::message_type::MESSAGES;
use pfkey_rs::wire::{Header, Message, MessageType, Profile, SaType, Writer};

const NOW: Time = Time::from_secs(1);

/// Echoes requests to everybody; dumps `entries` messages of header size.
#[derive(Default)]
struct Fake {
    entries: u32,
    dumps_open: i32,
    registered: Vec<bool>,
    requests: Vec<MessageType>,
    objects: usize,
}

impl KeyEngine for Fake {
    type Dump = u32;

    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.requests.push(request.header().msg_type);
        match request.header().msg_type {
            MessageType::FLUSH => cx.out.deliver(Audience::All, request.bytes()),
            MessageType::GET => cx.out.deliver(Audience::One, request.bytes()),
            MessageType::ACQUIRE => cx.out.deliver(Audience::Registered, request.bytes()),
            _ => return Err(Errno::ESRCH),
        };
        Ok(())
    }

    fn dump(&mut self, _: &Message<'_>, _: Time) -> Result<u32, Errno> {
        self.dumps_open += 1;
        Ok(0)
    }

    fn dump_next(&mut self, dump: &mut u32, _: Time, message: &mut DumpMessage<'_>) -> Result<DumpStep, Errno> {
        if *dump == self.entries {
            return Ok(DumpStep::End);
        }
        *dump += 1;
        message.write(Header::new(MessageType::DUMP, SaType::ESP, 0, 0), |_| ())?;
        Ok(DumpStep::Entry)
    }

    fn dump_end(&mut self, _: u32) {
        self.dumps_open -= 1;
    }

    fn objects(&self) -> usize {
        self.objects
    }

    fn supported(&mut self) -> Result<Supported, Errno> {
        let alg = SadbAlg { id: 3, ..SadbAlg::default() };
        Ok(Supported { auth: vec![alg], encrypt: Vec::new() })
    }

    fn set_registered(&mut self, registered: bool, _: Time) -> Result<(), Errno> {
        self.registered.push(registered);
        Ok(())
    }
}

fn bytes(msg_type: MessageType, satype: u8, seq: u32, pid: u32) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, SaType(satype), seq, pid);
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

struct World {
    hub: Hub<Fake>,
    queues: Queues,
}

impl World {
    fn new(entries: u32, limit: usize) -> Self {
        let fake = Fake { entries, ..Fake::default() };
        Self { hub: Hub::new(fake), queues: Queues::with_limit(limit) }
    }

    fn send(&mut self, id: SessionId, message: &[u8]) {
        self.hub.receive(id, message, NOW, &mut self.queues).expect("framing is right");
    }

    /// (type, errno, seq, pid) of every waiting message.
    fn drain(&mut self, id: SessionId) -> Vec<(MessageType, u8, u32, u32)> {
        let mut all = Vec::new();
        while let Some(message) = self.queues.pop(id) {
            let h = Header::read(&message).expect("a header");
            all.push((h.msg_type, h.errno, h.seq, h.pid));
            if self.queues.may_resume(id) {
                self.hub.writable(id, NOW, &mut self.queues);
            }
        }
        all
    }
}

#[test]
fn all_one_and_registered_reach_whom_they_name() {
    let mut w = World::new(0, 1 << 20);
    let (a, b, c) = (w.hub.open(), w.hub.open(), w.hub.open());
    w.send(b, &bytes(MessageType::REGISTER, 3, 1, 9));
    assert_eq!(w.drain(b).len(), 1);
    w.send(a, &bytes(MessageType::FLUSH, 0, 2, 9));
    w.send(a, &bytes(MessageType::GET, 3, 3, 9));
    w.send(a, &bytes(MessageType::ACQUIRE, 3, 4, 9));
    let seqs = |v: Vec<(MessageType, u8, u32, u32)>| v.into_iter().map(|m| m.2).collect::<Vec<_>>();
    assert_eq!(seqs(w.drain(a)), [2, 3]);
    assert_eq!(seqs(w.drain(b)), [2, 4]);
    assert_eq!(seqs(w.drain(c)), [2]);
}

/// Linux's table of handlers, `pfkey_funcs`: what the engine handles, what the hub does itself, and what nobody may send.
#[test]
fn every_type_goes_to_its_handler() {
    use MessageType as M;
    let engines = [
        [M::GETSPI, M::UPDATE, M::ADD, M::DELETE, M::GET, M::ACQUIRE, M::FLUSH],
        [M::X_SPDUPDATE, M::X_SPDADD, M::X_SPDDELETE, M::X_SPDGET, M::X_SPDFLUSH, M::X_SPDSETIDX, M::X_SPDDELETE2],
    ];
    let hubs = [M::REGISTER, M::DUMP, M::X_PROMISC, M::X_SPDDUMP, M::X_XFRM];
    let nobodys = [M::EXPIRE, M::X_PCHANGE, M::X_SPDACQUIRE, M::X_SPDEXPIRE, M::X_NAT_T_NEW_MAPPING];
    for msg_type in MESSAGES.iter().map(|row| row.msg_type) {
        let mut w = World::new(1, 1 << 20);
        let a = w.hub.open();
        w.send(a, &bytes(msg_type, 0, 1, 1));
        let asked = w.hub.engine().requests.clone();
        let errno = w.drain(a).first().map(|answer| i32::from(answer.1));
        if engines.concat().contains(&msg_type) || msg_type == M::X_MIGRATE {
            assert_eq!(asked, [msg_type]);
        } else if hubs.contains(&msg_type) {
            assert_eq!((asked, errno), (vec![], Some(0)), "{msg_type:?}");
        } else {
            assert!(nobodys.contains(&msg_type), "{msg_type:?}");
            assert_eq!((asked, errno), (vec![], Some(libc::EOPNOTSUPP)), "{msg_type:?}");
        }
    }
}

#[test]
fn errors_go_to_the_requester_only() {
    let mut w = World::new(0, 1 << 20);
    let (a, b) = (w.hub.open(), w.hub.open());
    w.send(a, &bytes(MessageType::DELETE, 3, 5, 77));
    w.send(a, &bytes(MessageType::EXPIRE, 3, 6, 77));
    let mut broken = bytes(MessageType::GET, 3, 7, 77);
    broken.extend([0; 8]); // an extension of length 0
    broken[4..6].copy_from_slice(&3u16.to_ne_bytes());
    w.send(a, &broken);
    assert_eq!(
        w.drain(a),
        [
            (MessageType::DELETE, libc::ESRCH as u8, 5, 77),
            (MessageType::EXPIRE, libc::EOPNOTSUPP as u8, 6, 77),
            (MessageType::GET, libc::EINVAL as u8, 7, 77),
        ]
    );
    assert!(w.queues.is_empty(b));
}

#[test]
fn broken_framing_is_the_senders_error_and_nobody_hears_it() {
    let mut w = World::new(0, 1 << 20);
    let (a, b) = (w.hub.open(), w.hub.open());
    w.send(b, &bytes(MessageType::X_PROMISC, 1, 0, 0));
    w.drain(a);
    w.drain(b);
    let message = bytes(MessageType::GET, 3, 1, 1);
    for bad in [&message[..15], &[message.as_slice(), &[0; 8]].concat()] {
        assert!(w.hub.receive(a, bad, NOW, &mut w.queues).is_err());
    }
    assert!(w.queues.is_empty(a) && w.queues.is_empty(b));
}

#[test]
fn register_twice_is_eexist_and_a_large_satype_is_einval() {
    let mut w = World::new(0, 1 << 20);
    let (a, b) = (w.hub.open(), w.hub.open());
    for (satype, errno) in [(3, 0), (3, libc::EEXIST), (10, libc::EINVAL), (2, 0)] {
        w.send(a, &bytes(MessageType::REGISTER, satype, 1, 1));
        assert_eq!(w.drain(a), [(MessageType::REGISTER, errno as u8, 1, 1)], "satype {satype}");
    }
    assert!(w.queues.is_empty(b), "b is not registered");
    w.send(b, &bytes(MessageType::REGISTER, 3, 2, 2));
    assert_eq!((w.drain(a).len(), w.drain(b).len()), (1, 1), "both are registered; the requester hears it once");
    w.hub.close(a, NOW);
    w.hub.close(b, NOW);
    assert_eq!(w.hub.engine().registered, [true, false]);
}

#[test]
fn a_promiscuous_session_hears_the_request_and_its_own_copy_of_the_answer() {
    let mut w = World::new(0, 1 << 20);
    let (a, p) = (w.hub.open(), w.hub.open());
    w.send(p, &bytes(MessageType::X_PROMISC, 1, 0, 0));
    w.drain(a);
    w.drain(p);
    w.send(a, &bytes(MessageType::GET, 3, 1, 1));
    assert_eq!(w.drain(p).len(), 2, "the raw request, then the answer to a");
    w.send(a, &bytes(MessageType::FLUSH, 3, 1, 1));
    assert_eq!(w.drain(p).len(), 3, "the raw request, the promiscuous copy, its own");
    w.send(p, &bytes(MessageType::X_PROMISC, 0, 0, 0));
    w.drain(p);
    w.send(a, &bytes(MessageType::GET, 3, 1, 1));
    assert!(w.queues.is_empty(p));
}

#[test]
fn a_dump_is_numbered_from_one_and_its_last_is_zero() {
    let mut w = World::new(3, 1 << 20);
    let a = w.hub.open();
    w.send(a, &bytes(MessageType::DUMP, 0, 99, 42));
    let got: Vec<_> = w.drain(a).into_iter().map(|m| (m.1, m.2, m.3)).collect();
    assert_eq!(got, [(0, 1, 42), (0, 2, 42), (0, 0, 42)]);
    assert_eq!(w.hub.engine().dumps_open, 0);
}

#[test]
fn an_empty_dump_is_enoent() {
    let mut w = World::new(0, 1 << 20);
    let a = w.hub.open();
    w.send(a, &bytes(MessageType::DUMP, 0, 99, 42));
    assert_eq!(w.drain(a), [(MessageType::DUMP, libc::ENOENT as u8, 99, 42)]);
    assert_eq!(w.hub.engine().dumps_open, 0);
}

#[test]
fn a_dump_larger_than_the_queue_waits_and_is_complete() {
    let mut w = World::new(1000, 8192);
    let a = w.hub.open();
    w.send(a, &bytes(MessageType::DUMP, 0, 1, 42));
    assert!(w.hub.is_dumping(a));
    let waiting = w.queues.len(a);
    w.send(a, &bytes(MessageType::DUMP, 0, 2, 42));
    assert_eq!(w.queues.len(a), waiting + 1, "EBUSY while a dump runs");
    let got = w.drain(a);
    let busy: Vec<_> = got.iter().filter(|m| m.1 == libc::EBUSY as u8).collect();
    assert_eq!(busy, [&(MessageType::DUMP, libc::EBUSY as u8, 2, 42)]);
    let seqs: Vec<u32> = got.iter().filter(|m| m.1 == 0).map(|m| m.2).collect();
    let expected: Vec<u32> = (1..1000).chain([0]).collect();
    assert_eq!(seqs, expected);
    assert!(!w.hub.is_dumping(a));
}

#[test]
fn closing_in_the_middle_of_a_dump_gives_the_cursor_back() {
    let mut w = World::new(1000, 8192);
    let a = w.hub.open();
    w.send(a, &bytes(MessageType::DUMP, 0, 1, 42));
    w.hub.close(a, NOW);
    assert_eq!(w.hub.engine().dumps_open, 0);
}

/// Takes nothing until told to, without a gate: a socket that says EAGAIN.
struct Valve {
    room: usize,
    got: Vec<u32>,
}

impl Sink for Valve {
    fn deliver(&mut self, _: SessionId, message: &[u8]) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.got.push(Header::read(message).expect("a header").seq);
        true
    }
}

#[test]
fn a_message_that_a_socket_refuses_is_kept() {
    let mut hub = Hub::new(Fake { entries: 4, ..Fake::default() });
    let a = hub.open();
    let mut valve = Valve { room: 0, got: Vec::new() };
    hub.receive(a, &bytes(MessageType::DUMP, 0, 1, 1), NOW, &mut valve).expect("framing is right");
    while hub.is_dumping(a) {
        valve.room = 1;
        hub.writable(a, NOW, &mut valve);
    }
    assert_eq!(valve.got, [1, 2, 3, 0]);
    assert_eq!(hub.statistics(a).expect("open").dropped, 0, "a dump loses nothing");
}

#[test]
fn a_full_queue_loses_its_own_broadcasts_only() {
    let mut w = World::new(0, 1 << 20);
    let (a, b) = (w.hub.open(), w.hub.open());
    w.queues.set_limit(b, 0);
    for seq in 0..10 {
        w.send(a, &bytes(MessageType::FLUSH, 0, seq, 1));
    }
    assert_eq!(w.drain(a).len(), 10);
    let lost = w.hub.statistics(b).expect("open");
    assert_eq!((lost.delivered, lost.dropped), (1, 9));
}

/// An engine may hold so many SAs and policies; a request for more gets ENOBUFS, alone or in a batch, and is counted.
#[test]
fn one_too_many_is_refused() {
    let mut w = World::new(0, 1 << 20);
    w.hub.engine_mut().objects = 3;
    let id = w.hub.open();
    let refused = |msg_type, seq| (msg_type, libc::ENOBUFS as u8, seq, 9);
    w.hub.set_max_objects(3);
    w.send(id, &bytes(MessageType::GETSPI, 3, 1, 9));
    w.hub.receive_all(id, &bytes(MessageType::ADD, 3, 2, 9), NOW, &mut w.queues);
    assert_eq!(w.drain(id), [refused(MessageType::GETSPI, 1), refused(MessageType::ADD, 2)]);
    assert_eq!(w.hub.statistics(id).map(|s| s.refused), Some(2));
    // What adds nothing goes on, and so does what there is room for.
    w.send(id, &bytes(MessageType::DELETE, 3, 3, 9));
    w.hub.set_max_objects(4);
    w.send(id, &bytes(MessageType::ADD, 3, 4, 9));
    assert_eq!(w.hub.engine().requests, [MessageType::DELETE, MessageType::ADD]);
}
