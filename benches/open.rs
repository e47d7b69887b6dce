//! A thousand PF_KEY sockets: what opening one takes, and what memory, for AF_KEY, for the machine's pfkeyd, and for a private one each;
//! in one kernel that has both: `tests/kernel/bench`. Needs root.
//!
//! Memory is what the kernel has less of while they are open: buffers, descriptors and processes of both sides.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use pfkey_rs::socket::{Backend, find_pfkeyd, open_with};

const SOCKETS: usize = 1000;

/// Bytes that the kernel could give to programs.
fn available() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("procfs");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("MemAvailable");
    let kib: i64 = line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

struct Opened {
    first: Duration,
    median: Duration,
    last: Duration,
    bytes: i64,
}

fn open_many(backend: &Backend, count: usize) -> Opened {
    let before = available();
    let mut times = Vec::with_capacity(count);
    let sockets: Vec<OwnedFd> = (0..count)
        .map(|_| {
            let start = Instant::now();
            let socket = open_with(backend).expect("a socket");
            times.push(start.elapsed());
            socket
        })
        .collect();
    let bytes = (before - available()) / count as i64;
    drop(sockets);
    let (first, last) = (times[0], times[count - 1]);
    times.sort_unstable();
    Opened { first, median: times[count / 2], last, bytes }
}

/// A pfkeyd for all, which ends with this.
struct Service(Child, PathBuf);

impl Service {
    fn start() -> Self {
        let path = std::env::temp_dir().join(format!("pfkey-bench-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        let socket = path.join("pfkeyd.sock");
        let mut command = Command::new(find_pfkeyd().expect("a pfkeyd"));
        let child = command.arg("--service").arg(&socket).stdin(Stdio::null()).spawn().expect("it starts");
        while open_with(&Backend::Service(socket.clone())).is_err() {
            std::thread::yield_now();
        }
        Self(child, socket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(self.1.parent().expect("a directory"));
    }
}

fn main() {
    // What the unit of systemd gives pfkeyd, too, which has several for a client.
    setrlimit(Resource::RLIMIT_NOFILE, 16384, 16384).expect("root may have so many descriptors");
    println!("{:<34}{:>12}{:>12}{:>12}{:>12}", "opened", "first µs", "median µs", "last µs", "KiB each");
    let service = Service::start();
    let rows = [
        ("AF_KEY", Backend::AfKey, SOCKETS),
        ("the machine's pfkeyd", Backend::Service(service.1.clone()), SOCKETS),
        ("a private pfkeyd each", Backend::Xfrm, 50),
    ];
    for (what, backend, count) in rows {
        if open_with(&backend).is_err() {
            println!("{what:<34}  none here");
            continue;
        }
        let Opened { first, median, last, bytes } = open_many(&backend, count);
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let kib = bytes as f64 / 1024.0;
        let what = format!("{what}, {count}");
        println!("{what:<34}{:>12.1}{:>12.1}{:>12.1}{kib:>12.1}", us(first), us(median), us(last));
    }
}
