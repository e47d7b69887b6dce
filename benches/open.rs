//! What opening a PF_KEY socket takes, and what memory: a thousand of the machine's pfkeyd, a pfkeyd for each, and where the kernel has
//! it AF_KEY (`tests/kernel/bench`). `PFKEYD=FILE` measures another pfkeyd.

#[path = "support/process.rs"]
mod process;
#[path = "support/row.rs"]
mod row;
#[path = "support/service.rs"]
mod service;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, connect, listen, recv, send, socket,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use pfkey_rs::socket::{Backend, ask, open_with};
use process::{private, server_of};
use row::{Goal, ROUNDS, Row, median};
use service::Service;

const SOCKETS: usize = 1000;

/// Bytes that the kernel could give to programs.
fn available() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("procfs");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("MemAvailable");
    let kib: i64 = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

/// Microseconds that each of many takes to open.
fn open_many(backend: &Backend, count: usize) -> (Vec<OwnedFd>, Vec<f64>) {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            let socket = open_with(backend).expect("a socket");
            (socket, start.elapsed().as_secs_f64() * 1e6)
        })
        .unzip()
}

/// A process that accepts, and greets, and does nothing else.
struct Greeter(PathBuf, Pid);

impl Greeter {
    fn start(path: PathBuf) -> Self {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let listener = socket(kind.0, kind.1, kind.2, None).expect("a socket");
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("a path")).expect("its name");
        listen(&listener, Backlog::new(100).expect("a backlog")).expect("it listens");
        // SAFETY: this process has one thread.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Parent { child } => Self(path, child),
            ForkResult::Child => {
                let mut accepted = Vec::new();
                while let Ok(fd) = accept(listener.as_raw_fd()) {
                    let _ = send(fd, &[0; 16], MsgFlags::MSG_NOSIGNAL);
                    accepted.push(fd);
                }
                std::process::exit(0);
            }
        }
    }

    /// Microseconds of each connection.
    fn connect(&self, count: usize) -> Vec<f64> {
        let address = UnixAddr::new(&self.0).expect("a path");
        let connected = (0..count).map(|_| {
            let start = Instant::now();
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
            connect(fd.as_raw_fd(), &address).expect("it listens");
            recv(fd.as_raw_fd(), &mut [0; 16], MsgFlags::empty()).expect("a greeting");
            (fd, start.elapsed().as_secs_f64() * 1e6)
        });
        connected.unzip::<_, _, Vec<_>, _>().1
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        let _ = kill(self.1, Signal::SIGKILL);
        let _ = waitpid(self.1, None);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The machine's pfkeyd: sockets after the first, beside a connection of each; and what they need of memory.
fn shared() {
    let service = Service::start();
    let backend = Backend::Service(service.1.clone());
    let first = open_with(&backend).expect("a socket");
    let daemon = Pid::from_raw(service.0.id() as i32);
    let (mut ours, mut limit, mut memory, mut of_all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let had = private(daemon);
    for round in 0..ROUNDS {
        let before = available();
        let (sockets, took) = open_many(&backend, SOCKETS);
        if round == 0 {
            // Later ones find what those before left.
            of_all.push((before - available()) as f64 / 1024.0 / SOCKETS as f64);
            memory.push((private(daemon) - had) / SOCKETS as f64);
        }
        ours.push(median(&took));
        drop(sockets);
        while open_sessions(&service.1) > 1 {
            std::thread::yield_now();
        }
        let greeter = Greeter::start(service.1.with_extension("greeter"));
        limit.push(median(&greeter.connect(SOCKETS)));
    }
    drop(first);
    let limit = Some(("connect, accept, 16 bytes", limit));
    Row {
        work: "pfkey_open, the machine's pfkeyd, 1000 sockets",
        unit: "us",
        ours: ours.clone(),
        limit,
        goal: Goal::Ratio(2.0),
    }
    .show();
    Row { work: "pfkey_open, the machine's pfkeyd, by itself", unit: "us", ours, limit: None, goal: Goal::Most(100.0) }
        .show();
    let work = "private memory of that pfkeyd, each socket";
    Row { work, unit: "KiB", ours: memory, limit: None, goal: Goal::Most(16.0) }.show();
    let work = "the machine's memory, each socket, both sides";
    Row { work, unit: "KiB", ours: of_all, limit: None, goal: Goal::None }.show();
}

fn open_sessions(path: &Path) -> usize {
    ask(path).expect("it answers").sessions.len()
}

/// A pfkeyd for each socket.
fn alone(backend: &Backend, name: &str) {
    let (sockets, took) = open_many(backend, ROUNDS);
    let memory = sockets.iter().map(|fd| private(server_of(fd))).collect();
    let work = format!("pfkey_open, a pfkeyd of its own, {name}");
    Row { work: &work, unit: "us", ours: took, limit: None, goal: Goal::Most(1000.0) }.show();
    let work = format!("private memory of that pfkeyd, {name}");
    Row { work: &work, unit: "KiB", ours: memory, limit: None, goal: Goal::Most(300.0) }.show();
}

fn main() {
    row::heading();
    // What the unit of systemd gives pfkeyd, too, which has several for a client.
    if setrlimit(Resource::RLIMIT_NOFILE, 16384, 16384).is_err() {
        println!("a thousand sockets: not measured; they need a limit of 16384 descriptors");
    } else if open_with(&Backend::Xfrm).is_ok() {
        shared();
    }
    alone(&Backend::Embedded, "embedded engine");
    if open_with(&Backend::Xfrm).is_err() {
        return println!("PF_KEY over XFRM: not measured; it needs CAP_NET_ADMIN in this network namespace");
    }
    alone(&Backend::Xfrm, "XFRM");
    if open_with(&Backend::AfKey).is_ok() {
        let before = available();
        let (sockets, took) = open_many(&Backend::AfKey, SOCKETS);
        let memory = (before - available()) as f64 / 1024.0 / SOCKETS as f64;
        drop(sockets);
        Row {
            work: "pfkey_open, AF_KEY, 1000 sockets",
            unit: "us",
            ours: vec![median(&took)],
            limit: None,
            goal: Goal::None,
        }
        .show();
        Row { work: "the machine's memory, each", unit: "KiB", ours: vec![memory], limit: None, goal: Goal::None }
            .show();
    }
}
