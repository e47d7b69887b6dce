//! How long a client of a shared pfkeyd waits for its answer while another floods it: the worst, the 99th of a hundred and
//! the median of 2000 requests, for each kind of flood. `PFKEYD=FILE` measures another pfkeyd.

#[path = "support/daemon.rs"]
mod daemon;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemon::Daemon;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use pfkey_rs::socket;
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{BATCH, ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

/// Threads of the client that floods, each with a descriptor.
const THREADS: u32 = 4;
const REQUESTS: usize = 2000;
/// A measurement of less than all requests ends after this time.
const LONGEST: Duration = Duration::from_secs(30);

fn message(msg_type: MessageType, seq: u32, spi: u32, expires: u64) -> Vec<u8> {
    let mut buffer = [0; 256];
    let address = |n: u32| SockaddrBytes::new(std::net::Ipv4Addr::from(n).into(), 0);
    let mut w = Writer::new(&mut buffer, Header::new(msg_type, SaType::AH, seq, 1), Profile::Linux);
    w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 2, ..Default::default() });
    if expires != 0 {
        w.lifetime(Ext::LIFETIME_HARD, SadbLifetime { addtime: expires.into(), ..Default::default() });
        w.lifetime(Ext::LIFETIME_SOFT, SadbLifetime::default());
    }
    w.address(Ext::ADDRESS_SRC, 0, 32, address(0xc000_0201).as_bytes());
    w.address(Ext::ADDRESS_DST, 0, 32, address(0x0a00_0000 + spi % 65_536).as_bytes());
    if msg_type == MessageType::ADD {
        w.key(Ext::KEY_AUTH, 128, &[7; 16]);
    }
    w.finish().expect("it fits").to_vec()
}

fn plain(msg_type: MessageType) -> Vec<u8> {
    let mut buffer = [0; 16];
    Writer::new(&mut buffer, Header::new(msg_type, SaType::AH, 9, 1), Profile::Linux)
        .finish()
        .expect("it fits")
        .to_vec()
}

fn together(messages: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = BATCH.to_vec();
    messages.for_each(|one| bytes.extend(one));
    bytes
}

fn drain(fd: &OwnedFd) {
    while recv(fd.as_raw_fd(), &mut [0; 512], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// Loads SAs from the SPI 0x1000 on, which end at a second of Unix time (0: never).
fn load(daemon: &Daemon, sas: u32, end: u64) {
    let loader = daemon.open();
    for n in 0..sas {
        let left = end.saturating_sub(now().as_secs());
        send(loader.as_raw_fd(), &message(MessageType::ADD, 1, 0x1000 + n, left), MsgFlags::empty()).expect("an ADD");
        if n % 64 == 0 {
            drain(&loader);
        }
    }
    socket::settle(loader.as_raw_fd());
}

type Flood = fn(&OwnedFd, u32, u64);

/// An ADD and a DELETE, or a GET, as a program does them.
fn one_by_one(fd: &OwnedFd, thread: u32, turn: u64) {
    let msg_type = [MessageType::ADD, MessageType::GET, MessageType::DELETE][(turn % 3) as usize];
    let _ = socket::send(fd.as_raw_fd(), &message(msg_type, 1, 0x10_0000 * (thread + 2), 0));
    drain(fd);
}

fn unanswered(fd: &OwnedFd, thread: u32, turn: u64) {
    let msg_type = if turn % 2 == 0 { MessageType::ADD } else { MessageType::DELETE };
    let _ = send(fd.as_raw_fd(), &message(msg_type, 1, 0x10_0000 * (thread + 2), 0), MsgFlags::MSG_NOSIGNAL);
}

fn batches(fd: &OwnedFd, thread: u32, turn: u64) {
    let msg_type = if turn % 2 == 0 { MessageType::ADD } else { MessageType::DELETE };
    let all = together((0..64).map(|n| message(msg_type, 1, 0x10_0000 * (thread + 2) + n, 0)));
    let _ = socket::send_batch(fd.as_raw_fd(), &all);
    drain(fd);
}

fn largest_batches(fd: &OwnedFd, thread: u32, turn: u64) {
    let msg_type = if turn % 2 == 0 { MessageType::ADD } else { MessageType::DELETE };
    let all = together((0..3000).map(|n| message(msg_type, 1, 0x10_0000 * (thread + 2) + n, 0)));
    let _ = setsockopt(fd, sockopt::SndBufForce, &(4 << 20)).or_else(|_| setsockopt(fd, sockopt::SndBuf, &(4 << 20)));
    let _ = socket::send_batch(fd.as_raw_fd(), &all);
    drain(fd);
}

fn flush_batches(fd: &OwnedFd, _: u32, _: u64) {
    let all = together((0..30_000).map(|_| plain(MessageType::FLUSH)));
    let _ = setsockopt(fd, sockopt::SndBufForce, &(4 << 20)).or_else(|_| setsockopt(fd, sockopt::SndBuf, &(4 << 20)));
    let _ = socket::send_batch(fd.as_raw_fd(), &all);
    drain(fd);
}

fn dumps(fd: &OwnedFd, _: u32, _: u64) {
    let _ = socket::send(fd.as_raw_fd(), &plain(MessageType::DUMP));
    for _ in 0..1000 {
        if recv(fd.as_raw_fd(), &mut [0; 512], MsgFlags::MSG_DONTWAIT).is_err() {
            break;
        }
    }
}

/// Measures the requests of a polite client; gives what the flood did meanwhile.
fn measure(daemon: &Daemon, name: &str, spi: u32, flood: Option<Flood>) {
    let polite = daemon.open();
    // An answer that does not come was lost among the broadcasts of the flood.
    setsockopt(&polite, sockopt::ReceiveTimeout, &TimeVal::new(2, 0)).expect("a timeout");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut waits, mut lost) = (Vec::with_capacity(REQUESTS), 0);
    std::thread::scope(|scope| {
        for thread in 0..if flood.is_some() { THREADS } else { 0 } {
            let (fd, stop, done) = (daemon.open(), &stop, &done);
            scope.spawn(move || {
                let Some(flood) = flood else { return };
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    flood(&fd, thread, turn);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        for n in 0..REQUESTS {
            if began.elapsed() > LONGEST {
                break;
            }
            let seq = 1_000_000 + n as u32;
            let start = Instant::now();
            // Not the library's send, which gives its processor away to the flood while it waits.
            send(polite.as_raw_fd(), &message(MessageType::GET, seq, spi, 0), MsgFlags::empty()).expect("a request");
            let mut answer = [0; 512];
            loop {
                let Ok(len) = recv(polite.as_raw_fd(), &mut answer, MsgFlags::empty()) else {
                    lost += 1;
                    break;
                };
                if Header::read(&answer[..len]).is_some_and(|h| h.seq == seq) {
                    break;
                }
            }
            waits.push(start.elapsed());
            std::thread::sleep(Duration::from_micros(300));
        }
        stop.store(true, Ordering::Relaxed);
    });
    waits.sort_unstable();
    let ms = |wait: Duration| wait.as_secs_f64() * 1000.0;
    println!(
        "{name:36} worst {:8.2} ms  99th {:8.2} ms  median {:7.3} ms  of {}, {lost} lost  ({} turns of the flood)",
        ms(waits[waits.len() - 1]),
        ms(waits[waits.len() * 99 / 100]),
        ms(waits[waits.len() / 2]),
        waits.len(),
        done.load(Ordering::Relaxed)
    );
}

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let run = |name: &str, sas: u32, idle: usize, flood: Option<Flood>| {
        if only.as_deref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let daemon = Daemon::start();
        load(&daemon, sas, 0);
        let sessions: Vec<OwnedFd> = (0..idle).map(|_| daemon.open()).collect();
        measure(&daemon, name, 0x1000, flood);
        drop(sessions);
    };
    run("alone", 10, 0, None);
    run("one by one", 10, 0, Some(one_by_one));
    run("without reading answers", 10, 0, Some(unanswered));
    run("batches of 64", 10, 0, Some(batches));
    run("batches of 3000", 10, 0, Some(largest_batches));
    run("batches of 30000 FLUSHes", 10, 0, Some(flush_batches));
    run("dumps of 100000 SAs", 100_000, 0, Some(dumps));
    run("one by one, 1000 idle sessions", 10, 1000, Some(one_by_one));
    run("batches of 3000, 1000 idle sessions", 10, 1000, Some(largest_batches));

    let name = "100 dumps that nobody reads";
    if only.as_deref().is_none_or(|only| name.contains(only)) {
        let daemon = Daemon::start();
        load(&daemon, 100_000, 0);
        let dumping: Vec<OwnedFd> = (0..100).map(|_| daemon.open()).collect();
        for fd in &dumping {
            let _ = send(fd.as_raw_fd(), &plain(MessageType::DUMP), MsgFlags::empty());
        }
        measure(&daemon, name, 0x1000, Some(one_by_one));
    }

    let name = "half a million SAs end at once";
    if only.as_deref().is_none_or(|only| name.contains(only)) {
        let daemon = Daemon::start();
        let end = now().as_secs() + 60;
        load(&daemon, 500_000, end);
        let manager = daemon.open();
        socket::send(manager.as_raw_fd(), &plain(MessageType::REGISTER)).expect("a registration");
        let start = Duration::from_secs(end) - Duration::from_millis(500);
        std::thread::sleep(start.checked_sub(now()).expect("it was loaded in time"));
        measure(&daemon, name, 0x1000, None);
    }
}
