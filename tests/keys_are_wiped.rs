//! No block of memory that the library gives back holds a key: every block is looked at when it is freed, while requests
//! with a key of eight known bytes and more are handled.

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

#[path = "klips/world.rs"]
#[allow(dead_code)]
mod klips_world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use build::Msg;
use pfkey_rs::engine::{Dialect, Engine, LINUX, RFC2367};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::print;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, Profile, SaType as S};

/// What keys consist of.
const KEY: &[u8; 8] = b"s3cr3t!\xf7";
/// Its beginning as printers show it.
const KEY_TEXT: &[u8; 8] = b"73336372";

const NOW: Duration = Duration::from_secs(1_000_000);

thread_local! {
    /// Whether this thread's blocks are looked at.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
    /// How many blocks with a key were freed, and the size of the last.
    static FOUND: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Looking;

// SAFETY: everything is the system allocator's; a block is read before it is given back.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // So that what is read of a block was written by its owner.
        // SAFETY: passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if LOOKING.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the block has that size, and all of it was initialised by `alloc`.
            let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            let (key, shown) = (block.windows(8).any(|w| w == KEY), block.windows(8).any(|w| w == KEY_TEXT));
            if key || shown {
                let _ = FOUND.try_with(|found| found.set((found.get().0 + 1, layout.size())));
            }
        }
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    // `realloc` is alloc, copy and dealloc: a block that grows leaves its old place.
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// Does something, and fails if a key was left in freed memory.
#[track_caller]
fn looking<T>(what: &str, act: impl FnOnce() -> T) -> T {
    FOUND.set((0, 0));
    LOOKING.set(true);
    let result = act();
    LOOKING.set(false);
    let (blocks, size) = FOUND.get();
    assert_eq!(blocks, 0, "{what}: a block of {size} bytes was freed with a key in it");
    result
}

#[test]
fn a_freed_key_is_found() {
    LOOKING.set(true);
    drop(KEY.repeat(4));
    drop(KEY_TEXT.repeat(2));
    LOOKING.set(false);
    assert_eq!(FOUND.get().0, 2);
}

/// An SA with keys that consist of the pattern.
fn sa(msg_type: M, spi: u32) -> Msg {
    let mut message = Msg::new(msg_type, S::ESP, 7)
        .sa(spi, 3, 12)
        .pair("10.0.0.1", "10.0.0.2")
        .key(Ext::KEY_AUTH, 20)
        .key(Ext::KEY_ENCRYPT, 16);
    for (at, len) in [(3, 20), (4, 16)] {
        for (byte, key) in message.extensions[at][8..8 + len].iter_mut().zip(KEY.iter().cycle()) {
            *byte = *key;
        }
    }
    message
}

struct World {
    hub: Hub<Engine>,
    queues: Queues,
    id: SessionId,
    listener: SessionId,
}

impl World {
    fn new(dialect: &'static Dialect) -> Self {
        let mut hub = Hub::new(Engine::with_seed(dialect, 1));
        let (id, listener) = (hub.open(), hub.open());
        let mut world = Self { hub, queues: Queues::with_limit(4096), id, listener };
        let promisc = Msg::new(M::X_PROMISC, S(1), 1).bytes();
        world.hub.receive(listener, &promisc, NOW, &mut world.queues).expect("a message");
        world
    }

    /// Handles a request while every block is looked at; answers stay in the queues.
    #[track_caller]
    fn handle(&mut self, what: &str, message: &Msg) {
        let bytes = message.bytes();
        looking(what, || self.hub.receive(self.id, &bytes, NOW, &mut self.queues)).expect("a message");
    }

    /// Takes what waits; the blocks are the caller's, who does not look at them.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for id in [self.id, self.listener] {
            while let Some(message) = looking("taking a message", || self.queues.pop(id)) {
                all.push(message);
                if self.queues.may_resume(id) {
                    looking("going on with a dump", || self.hub.writable(id, NOW, &mut self.queues));
                }
            }
        }
        all
    }
}

#[test]
fn requests_answers_and_dumps() {
    for dialect in [&LINUX, &RFC2367] {
        let mut world = World::new(dialect);
        world.handle("ADD", &sa(M::ADD, 0x1001));
        world.handle("ADD of what exists", &sa(M::ADD, 0x1001));
        world.handle("ADD with a wrong mode", &sa(M::ADD, 0x1002).sa2(9, 0));
        world.handle("ADD with a wrong key", &sa(M::ADD, 0x1002).without(3).key(Ext::KEY_AUTH, 3));
        assert!(world.take().iter().any(|m| m.windows(8).any(|w| w == KEY)), "the listener saw the key");
        world.handle("UPDATE", &sa(M::UPDATE, 0x1001));
        let spi = Msg::new(M::GETSPI, S::ESP, 8).pair("10.0.0.1", "10.0.0.2").range(0x2000, 0x2000);
        world.handle("GETSPI", &spi);
        world.handle("UPDATE of a larval", &sa(M::UPDATE, 0x2000));
        let named = |msg_type, spi| Msg::new(msg_type, S::ESP, 9).sa(spi, 0, 0).pair("10.0.0.1", "10.0.0.2");
        world.handle("GET", &named(M::GET, 0x2000));
        assert!(world.take().iter().any(|m| m.windows(8).any(|w| w == KEY)), "GET shows the key");
        for spi in 0x3000..0x3020 {
            world.handle("ADD", &sa(M::ADD, spi));
            world.take();
        }
        world.handle("DUMP", &Msg::new(M::DUMP, S::UNSPEC, 10));
        world.take();
        world.handle("DUMP", &Msg::new(M::DUMP, S::UNSPEC, 10));
        assert!(world.hub.is_dumping(world.id));
        looking("closing in the middle of a dump", || {
            world.hub.close(world.id, NOW);
            world.queues.close(world.id);
        });
        world.id = world.hub.open();
        world.handle("DELETE", &named(M::DELETE, 0x1001));
        world.take();
        let limited = sa(M::ADD, 0x4000).lifetime(Ext::LIFETIME_HARD, 0, 0, 10, 0);
        world.handle("ADD", &limited.lifetime(Ext::LIFETIME_SOFT, 0, 0, 5, 0));
        looking("expiry", || world.hub.advance(NOW + Duration::from_secs(20), &mut world.queues));
        world.take();
        world.handle("GET", &named(M::GET, 0x2000));
        world.handle("FLUSH", &Msg::new(M::FLUSH, S::UNSPEC, 11));
        world.handle("ADD", &sa(M::ADD, 0x1001));
        looking("the end", move || drop(world));
    }
}

/// A pfkeyd's loop over a real socket: requests of all sizes, several at once, dumps that wait for their reader.
#[test]
fn a_served_descriptor() {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use std::os::fd::AsRawFd as _;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("two sockets");
    let server = std::thread::spawn(move || {
        let hub = Hub::new(Engine::with_seed(&LINUX, 1));
        looking("serving", || {
            let mut server = pfkeyd::server::Server::new(hub).expect("a server");
            server.add(theirs).expect("a session");
            server.run().expect("it ends with its session");
        });
    });
    let mut answers = vec![0; 1 << 20];
    let mut ask = |bytes: &[u8], wanted: usize| {
        send(ours.as_raw_fd(), bytes, MsgFlags::empty()).expect("it takes a message");
        for _ in 0..wanted {
            recv(ours.as_raw_fd(), &mut answers, MsgFlags::empty()).expect("an answer");
        }
    };
    for spi in 0x1000..0x1040 {
        ask(&sa(M::ADD, spi).bytes(), 1);
    }
    // A request that no first buffer holds: extensions of no type that is known make it long.
    let mut long = sa(M::ADD, 0x2000).bytes();
    for _ in 0..40 {
        let mut extension = vec![0; 4096];
        extension[..2].copy_from_slice(&512_u16.to_ne_bytes());
        extension[2..4].copy_from_slice(&200_u16.to_ne_bytes());
        long.extend(extension);
    }
    let words = (long.len() / 8) as u16;
    long[4..6].copy_from_slice(&words.to_ne_bytes());
    ask(&long, 1);
    // Several at once.
    let mut batch = pfkey_rs::wire::BATCH.to_vec();
    for spi in 0x3000..0x3020 {
        batch.extend(sa(M::ADD, spi).bytes());
    }
    ask(&batch, 32);
    ask(&Msg::new(M::DUMP, S::UNSPEC, 1).bytes(), 64 + 1 + 32);
    // A reader that goes away in the middle.
    ask(&Msg::new(M::DUMP, S::UNSPEC, 1).bytes(), 3);
    drop(ours);
    server.join().expect("no key was freed");
}

#[test]
fn klips() {
    use klips_world::{esp, named};
    let mut world = klips_world::World::new(2);
    let keyed = |spi| {
        let mut message = esp(spi);
        for (_, body) in message.extensions.iter_mut().filter(|(ext, _)| matches!(ext, 8 | 9)) {
            body[4..].iter_mut().zip(KEY.iter().cycle()).for_each(|(byte, key)| *byte = *key);
        }
        message
    };
    let mut handle = |what: &str, message: klips_world::Msg| {
        let (bytes, id) = (message.bytes(), world.ids[0]);
        let outcome = looking(what, || world.hub.write(id, &bytes, NOW, &mut world.queues));
        (0..2).for_each(|socket| drop(world.heard(socket)));
        outcome
    };
    assert_eq!(handle("ADD", keyed(0x1001)), Ok(()));
    assert!(handle("ADD of what exists", keyed(0x1001)).is_err());
    let mut update = keyed(0x1001);
    update.head[1] = M::UPDATE.0;
    assert_eq!(handle("UPDATE", update), Ok(()));
    assert_eq!(handle("GET", named(M::GET, S::ESP, 0x1001)), Ok(()));
    assert_eq!(handle("DELETE", named(M::DELETE, S::ESP, 0x1001)), Ok(()));
    assert_eq!(handle("ADD", keyed(0x1002)), Ok(()));
    looking("the end", move || drop(world));
}

#[test]
fn several_requests_at_once() {
    let mut world = World::new(&LINUX);
    let bytes: Vec<u8> = (0..50).flat_map(|n| sa(M::ADD, 0x1000 + n).bytes()).collect();
    looking("a batch", || world.hub.receive_all(world.id, &bytes, NOW, &mut world.queues));
    looking("the end", move || drop(world));
}

#[test]
fn printing() {
    let mut world = World::new(&LINUX);
    world.handle("ADD", &sa(M::ADD, 0x1001));
    let bytes = world.take().pop().expect("the SA as the engine shows it");
    let environment = print::Utc { now: 0 };
    let whole = |text: &[u8]| text.windows(8).any(|w| w == KEY_TEXT);
    looking("kdebug_sadb", || assert!(whole(&print::kdebug_sadb(&bytes).text)));
    looking("sadump", || assert!(whole(&print::sadump(&bytes, true, &environment).text)));
    looking("the book's listing", || {
        assert!(whole(&print::listing(&bytes, print::Style::Corrected, &environment).expect("a message")));
    });
    let message = pfkey_rs::wire::Message::parse(&bytes, Profile::Linux).expect("a message");
    looking("Debug", || drop(format!("{message:?}")));
}
