//! A request and its answer through a pfkeyd with the embedded engine, beside the same bytes answered by a process that does nothing
//! else, both on one processor and on two; and the processor time of both sides. `PFKEYD=FILE` measures another pfkeyd.

#[path = "support/echo.rs"]
mod echo;
#[path = "support/process.rs"]
mod process;
#[path = "support/row.rs"]
mod row;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use echo::Echo;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};
use process::{processor_time, processor_time_of_all, server_of};
use row::{Goal, Row, in_turns};

const REQUESTS: u32 = 10_000;

fn message(msg_type: MessageType, n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let peer = SockaddrBytes::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 0);
    let host = SockaddrBytes::new([192, 0, 2, 1].into(), 0);
    let mut w = Writer::new(&mut buffer, Header::new(msg_type, SaType::ESP, n, std::process::id()), Profile::Linux);
    w.sa(SadbSa { spi: (0x1000 + n).into(), replay: 4, state: 1, auth: 3, encrypt: 12, ..Default::default() });
    if msg_type == MessageType::ADD {
        let lifetime = |add: u64| SadbLifetime { addtime: add.into(), ..Default::default() };
        w.lifetime(Ext::LIFETIME_HARD, lifetime(36_000)).lifetime(Ext::LIFETIME_SOFT, lifetime(30_000));
    }
    w.address(Ext::ADDRESS_SRC, 0, 32, host.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, peer.as_bytes());
    if msg_type == MessageType::ADD {
        w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    }
    w.finish().expect("it fits").to_vec()
}

/// A request; the bytes of its answer.
fn ask(fd: &OwnedFd, request: &[u8], buffer: &mut [u8]) -> usize {
    socket::send(fd.as_raw_fd(), request).expect("a request");
    let len = recv(fd.as_raw_fd(), buffer, MsgFlags::empty()).expect("an answer");
    assert_eq!(Header::read(&buffer[..len]).map(|header| header.errno), Some(0));
    len
}

/// Microseconds of each of the requests, and of processor time that this process and the other spent for it.
fn time(server: Pid, requests: &[Vec<u8>], mut ask: impl FnMut(&[u8])) -> (f64, f64) {
    let used = || processor_time_of_all(server) + processor_time(Pid::this());
    let (before, start) = (used(), Instant::now());
    requests.iter().for_each(|request| ask(request));
    let each = |seconds: f64| seconds * 1e6 / requests.len() as f64;
    (each(start.elapsed().as_secs_f64()), each(used() - before))
}

fn measure(place: &str, wall_goal: Goal, processor_goal: Goal) {
    let fd = socket::open_with(&Backend::Embedded).expect("a pfkeyd");
    let server = server_of(&fd);
    let mut buffer = [0; 2048];
    let flush = message_without_body(MessageType::FLUSH);
    for (name, msg_type) in [("GET", MessageType::GET), ("ADD", MessageType::ADD)] {
        let requests: Vec<_> = (0..REQUESTS).map(|n| message(msg_type, n)).collect();
        ask(&fd, &flush, &mut buffer);
        let answer = match msg_type {
            MessageType::GET => {
                (0..REQUESTS).for_each(|n| _ = ask(&fd, &message(MessageType::ADD, n), &mut buffer));
                ask(&fd, &requests[0], &mut buffer)
            }
            _ => ask(&fd, &requests[0], &mut buffer),
        };
        for (waiting, with_epoll) in [("an echo behind epoll", true), ("an echo that blocks", false)] {
            let echo = Echo::start(answer, with_epoll);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let ours_each = || {
                if msg_type == MessageType::ADD {
                    ask(&fd, &flush, &mut [0; 2048]);
                }
                let (wall, processor) = time(server, &requests, |request| _ = ask(&fd, request, &mut buffer));
                ours.push(processor);
                wall
            };
            let limit_each = || {
                let mut buffer = [0; 2048];
                let (wall, processor) = time(echo.pid, &requests, |request| echo.ask(request, &mut buffer));
                theirs.push(processor);
                wall
            };
            let (wall, limit) = in_turns(ours_each, limit_each);
            let goal = |goal| if with_epoll { goal } else { Goal::None };
            let work = format!("{name} and its answer, embedded, {place}");
            Row { work: &work, unit: "us", ours: wall, limit: Some((waiting, limit)), goal: goal(wall_goal) }.show();
            let work = format!("{name}, processor time of both sides, {place}");
            let limit = Some((waiting, theirs));
            Row { work: &work, unit: "us", ours, limit, goal: goal(processor_goal) }.show();
        }
    }
}

fn message_without_body(msg_type: MessageType) -> Vec<u8> {
    let mut buffer = [0; 16];
    Writer::new(&mut buffer, Header::new(msg_type, SaType::ESP, 1, 1), Profile::Linux)
        .finish()
        .expect("a header")
        .to_vec()
}

fn main() {
    row::heading();
    let all = sched_getaffinity(Pid::this()).expect("processors");
    let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).expect("one");
    let mut one = CpuSet::new();
    one.set(first).expect("it is there");
    // pfkeyd and the echo begin where this process is.
    sched_setaffinity(Pid::this(), &one).expect("a processor of ours");
    measure("one processor", Goal::Ratio(1.25), Goal::None);
    sched_setaffinity(Pid::this(), &all).expect("processors of ours");
    measure("any processor", Goal::Ratio(0.6), Goal::Ratio(1.5));
}
