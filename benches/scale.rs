//! PF_KEY over XFRM with a million SAs and 100 000 policies in the kernel, with ten thousand ACQUIREs a second, and with a thousand
//! programs that hear each other (`tests/kernel/bench`): latencies as percentiles, and nothing may be lost. It removes every SA and policy
//! of the network namespace that it runs in, and makes a network interface.
//!
//! `cargo bench --locked --bench scale -- 100000` takes so many SAs.

#[path = "support/pf_key.rs"]
mod pf_key;
#[path = "support/process.rs"]
mod process;
#[path = "support/row.rs"]
mod row;
#[path = "support/service.rs"]
mod service;

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};
use pf_key::{dump, flush, has_esp, message_of, policy, request, send_together};
use pfkey_rs::listing::{SaView, for_each_sa};
use pfkey_rs::socket::{self, Backend, open_with};
use pfkey_rs::wire::layout::SadbXPolicy;
use pfkey_rs::wire::{ExtensionType as Ext, Header, Message, MessageType, Profile, SaType, SockaddrBytes, Writer};
use process::{private, server_of};
use row::{Goal, Row, percentile};
use service::Service;

const POLICIES: u32 = 100_000;
const ONE_BY_ONE: u32 = 5_000;
const ACQUIRES: u32 = 10_000;
const PROGRAMS: usize = 1_000;
const CHANGES: u32 = 20;

fn show(work: &str, unit: &str, figure: f64, goal: Goal) {
    Row { work, unit, ours: vec![figure], limit: None, goal }.show();
}

/// Percentiles of what each took.
fn percentiles(work: &str, unit: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    for (name, part) in [("median", 0.5), ("99 of 100", 0.99), ("999 of 1000", 0.999), ("longest", 1.0)] {
        show(&format!("{work}, {name}"), unit, percentile(&took, part), Goal::None);
    }
}

/// Seconds that a piece of work takes.
fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// Many at once.
fn load(fd: &OwnedFd, count: u32, message: impl Fn(u32) -> Vec<u8>) -> f64 {
    seconds(|| {
        for first in (0..count).step_by(10_000) {
            let some: Vec<_> = (first..count.min(first + 10_000)).map(&message).collect();
            send_together(fd, &some);
        }
    })
}

/// Many SAs and policies: requests about them, and dumps.
fn many(sas: u32) {
    let fd = open_with(&Backend::Xfrm).expect("a descriptor");
    flush(&fd);
    let server = server_of(&fd);
    let had = private(server);
    let took = load(&fd, sas, |n| message_of(MessageType::ADD, n));
    show(&format!("{sas} SAs in batches, each"), "us", took * 1e6 / f64::from(sas), Goal::None);
    let took = load(&fd, POLICIES, policy);
    show(&format!("{POLICIES} policies in batches, each"), "us", took * 1e6 / f64::from(POLICIES), Goal::None);
    let bytes = (private(server) - had) * 1024.0 / f64::from(sas);
    show("memory of pfkeyd for each SA in the kernel", "bytes", bytes, Goal::None);
    for msg_type in [MessageType::ADD, MessageType::GET, MessageType::DELETE] {
        let took = (0..ONE_BY_ONE).map(|n| {
            // ADD and DELETE are of SAs beside the many, GET of any.
            let n = if msg_type == MessageType::GET { n.wrapping_mul(0x9e37_79b1) % sas } else { sas + n };
            let message = message_of(msg_type, n);
            seconds(|| request(fd.as_raw_fd(), &message)) * 1e6
        });
        percentiles(&format!("{msg_type:?} beside them"), "us", took.collect());
    }
    let mut count = 0;
    let took = seconds(|| count = dump(fd.as_raw_fd()));
    show("messages of a dump", "", f64::from(count), Goal::Least(f64::from(sas)));
    show("dump, each", "us", took * 1e6 / f64::from(sas), Goal::None);
    count = 0;
    let see = &mut |_: &SaView<'_>| {
        count += 1;
        ControlFlow::Continue(())
    };
    let took = seconds(|| for_each_sa(fd.as_fd(), SaType::ESP, see).expect("every SA"));
    show("SAs that pfkey_dump_foreach shows", "", f64::from(count), Goal::Least(f64::from(sas)));
    show("pfkey_dump_foreach, each", "us", took * 1e6 / f64::from(sas), Goal::None);
    let took = seconds(|| flush(&fd));
    show("both flushed", "s", took, Goal::None);
    let bytes = (private(server) - had) * 1024.0 / f64::from(sas);
    show("memory of pfkeyd after that, for each SA", "bytes", bytes, Goal::None);
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-ec", script]).status().is_ok_and(|status| status.success()), "{script}");
}

fn peer(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + n)
}

/// Packets to hosts without an SA, ten thousand a second: each is an ACQUIRE, which a key manager hears.
fn acquires() {
    sh("ip link add name out0 type dummy && ip link set lo up && ip link set out0 up
        ip addr add 192.0.2.1/32 dev out0 && ip route add default dev out0");
    let manager = open_with(&Backend::Xfrm).expect("a descriptor");
    let mut buffer = [0; 512];
    let mut w = Writer::new(&mut buffer, Header::new(MessageType::X_SPDADD, SaType::UNSPEC, 1, 1), Profile::Linux);
    let address = |ip: [u8; 4]| SockaddrBytes::new(ip.into(), 0);
    w.address(Ext::ADDRESS_SRC, 255, 32, address([192, 0, 2, 1]).as_bytes());
    w.address(Ext::ADDRESS_DST, 255, 8, address([10, 0, 0, 0]).as_bytes());
    // struct sadb_x_ipsecrequest: 16 bytes, ESP, transport, require.
    let requests = [&16_u16.to_ne_bytes()[..], &50_u16.to_ne_bytes(), &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    w.policy(SadbXPolicy { policy_type: 2.into(), dir: 2, ..Default::default() }, &requests);
    let policy = w.finish().expect("it fits").to_vec();
    request(manager.as_raw_fd(), &policy);
    let mut buffer = [0; 16];
    Writer::new(&mut buffer, Header::new(MessageType::REGISTER, SaType::ESP, 1, 1), Profile::Linux)
        .finish()
        .expect("a header");
    request(manager.as_raw_fd(), &buffer);
    setsockopt(&manager, sockopt::ReceiveTimeout, &TimeVal::new(2, 0)).expect("a timeout");

    let sent = Mutex::new(vec![None; ACQUIRES as usize]);
    let mut took = Vec::new();
    let lasted = std::thread::scope(|scope| {
        let sends = scope.spawn(|| {
            let socket = UdpSocket::bind(("192.0.2.1", 0)).expect("a UDP socket");
            let start = Instant::now();
            for n in 0..ACQUIRES {
                // A hundred in ten milliseconds.
                let due = Duration::from_millis(u64::from(n / 100) * 10);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                sent.lock().expect("no panic")[n as usize] = Some(Instant::now());
                // The kernel says what it likes: the packet is dropped.
                let _ = socket.send_to(&[0], (peer(n), 9));
            }
            start.elapsed().as_secs_f64()
        });
        let mut message = [0; 2048];
        while let Ok(len) = recv(manager.as_raw_fd(), &mut message, MsgFlags::empty()) {
            let now = Instant::now();
            let Ok(acquire) = Message::parse(&message[..len], Profile::Linux) else { continue };
            if acquire.header().msg_type != MessageType::ACQUIRE {
                continue;
            }
            let dst = acquire.address(Ext::ADDRESS_DST).and_then(|(_, sockaddr)| sockaddr.ip());
            let Some(std::net::IpAddr::V4(dst)) = dst else { continue };
            let n = u32::from(dst) - 0x0a00_0000;
            let at = sent.lock().expect("no panic")[n as usize].take();
            took.extend(at.map(|at| (now - at).as_secs_f64() * 1e6));
        }
        sends.join().expect("the sender")
    });
    show("packets without an SA, a second", "/s", f64::from(ACQUIRES) / lasted, Goal::None);
    show("ACQUIREs heard of them", "", took.len() as f64, Goal::Least(ACQUIRES.into()));
    percentiles("from the packet to its ACQUIRE", "us", took);
    sh("ip xfrm state flush; ip xfrm policy flush; ip link del out0");
}

/// A program that says when it has heard of a change.
fn listener(service: &Service, says: &OwnedFd) -> Pid {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let fd = open_with(&Backend::Service(service.1.clone())).expect("a socket");
            let _ = write(says, &[0]);
            let mut message = [0; 1024];
            while let Ok(len) = recv(fd.as_raw_fd(), &mut message, MsgFlags::empty()) {
                if Header::read(&message[..len]).is_some_and(|header| header.msg_type == MessageType::ADD) {
                    let _ = write(says, &[1]);
                }
            }
            std::process::exit(0)
        }
    }
}

/// Waits until all have said something; milliseconds from `start`, and how many did not.
fn all_say(hears: &OwnedFd, start: Instant) -> (f64, usize) {
    let (mut missing, mut bytes) = (PROGRAMS, [0; PROGRAMS]);
    while missing != 0 {
        let mut fds = [PollFd::new(hears.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(30_000_u16)).unwrap_or(0) == 0 {
            break;
        }
        missing -= read(hears, &mut bytes[..missing]).expect("what they say");
    }
    (start.elapsed().as_secs_f64() * 1e3, missing)
}

/// A thousand programs at the machine's pfkeyd, each of which hears of each change.
fn programs() {
    if setrlimit(Resource::RLIMIT_NOFILE, 16384, 16384).is_err() {
        return println!("a thousand programs: not measured; they need a limit of 16384 descriptors");
    }
    let service = Service::start();
    let (hears, says) = pipe().expect("a pipe");
    let start = Instant::now();
    let listeners: Vec<Pid> = (0..PROGRAMS).map(|_| listener(&service, &says)).collect();
    let (took, missing) = all_say(&hears, start);
    show(&format!("{PROGRAMS} programs start and open"), "ms", took, Goal::None);
    assert_eq!(missing, 0);
    let fd = open_with(&Backend::Service(service.1.clone())).expect("a socket");
    let (mut answers, mut all, mut lost) = (Vec::new(), Vec::new(), 0);
    for n in 0..CHANGES {
        let message = message_of(MessageType::ADD, n);
        let start = Instant::now();
        request(fd.as_raw_fd(), &message);
        answers.push(start.elapsed().as_secs_f64() * 1e3);
        let (took, missing) = all_say(&hears, start);
        all.push(took);
        lost += missing;
    }
    percentiles("an ADD that a thousand hear of", "ms", answers);
    percentiles("until the last has heard of it", "ms", all);
    show("messages that were lost", "", lost as f64, Goal::Most(0.0));
    for pid in listeners {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
    flush(&fd);
}

fn main() {
    let sas = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    if socket::open_with(&Backend::Xfrm).is_err() {
        return println!("PF_KEY over XFRM: not measured; it needs CAP_NET_ADMIN in this network namespace");
    }
    if !has_esp() {
        return println!(
            "PF_KEY over XFRM: not measured; this kernel takes no ESP SA (tests/kernel/bench has kernels that do)"
        );
    }
    row::heading();
    programs();
    acquires();
    many(sas);
}
