//! Where a scenario runs.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::network::{self, Packet};
use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::engine::Engine;
use pfkey_rs::keyd::{Hub, Queues, SessionId};
use pfkey_rs::socket::{self, Backend as Kind};
use pfkey_rs::wire::Profile;

/// Something that has PF_KEY sockets.
pub trait Backend {
    /// Opens a socket by name.
    fn open(&mut self, name: &str);
    /// Closes it.
    fn close(&mut self, name: &str);
    /// Sends a message; gives the errno of `send`, 0 for success.
    fn send(&mut self, name: &str, message: &[u8]) -> i32;
    /// What a socket received since it was asked last, `most` messages at most.
    fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>>;
    /// Sets SO_RCVBUF.
    fn set_buffer(&mut self, name: &str, bytes: usize);
    /// Lets seconds pass.
    fn wait(&mut self, seconds: u64);
    /// Sends a packet; gives the errno of the sender, 0 for success.
    fn packet(&mut self, packet: &Packet) -> i32;
    /// A packet in UDP arrives.
    fn arrives(&mut self, from: u16);
}

/// The hub and the engine in this process, with a clock of our own.
pub struct Memory {
    hub: Hub<Engine>,
    queues: Queues,
    sessions: BTreeMap<String, SessionId>,
    now: Duration,
}

impl Memory {
    /// `packets`: as `AfKey::new`.
    pub fn new(packets: bool) -> Self {
        let mut engine = Engine::with_seed(Profile::Linux, 1);
        if packets {
            engine.set_acq_expires(network::ACQ_EXPIRES);
        }
        Self {
            hub: Hub::new(engine, Profile::Linux),
            queues: Queues::new(),
            sessions: BTreeMap::new(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
        }
    }
}

impl Backend for Memory {
    fn open(&mut self, name: &str) {
        self.sessions.insert(name.to_owned(), self.hub.open());
    }

    fn close(&mut self, name: &str) {
        if let Some(id) = self.sessions.remove(name) {
            self.hub.close(id, self.now);
            self.queues.close(id);
        }
    }

    fn send(&mut self, name: &str, message: &[u8]) -> i32 {
        match self.hub.receive(self.sessions[name], message, self.now, &mut self.queues) {
            Ok(()) => 0,
            Err(error) => error.rule.errno(),
        }
    }

    fn set_buffer(&mut self, name: &str, bytes: usize) {
        // Linux doubles it, for its own bookkeeping.
        self.queues.set_limit(self.sessions[name], 2 * bytes);
    }

    fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>> {
        let id = self.sessions[name];
        let mut messages = Vec::new();
        while messages.len() < most
            && let Some(message) = self.queues.pop(id)
        {
            messages.push(message);
            if self.queues.may_resume(id) {
                self.hub.writable(id, self.now, &mut self.queues);
            }
        }
        messages
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.hub.next_deadline().filter(|d| *d <= end) {
            self.now = deadline.max(self.now);
            self.hub.advance(self.now, &mut self.queues);
        }
        self.now = end;
    }

    fn arrives(&mut self, from: u16) {
        network::arrived(from, &mut self.hub, self.now, &mut self.queues);
    }

    fn packet(&mut self, packet: &Packet) -> i32 {
        network::pass(packet, &mut self.hub, self.now, &mut self.queues)
    }
}

/// Descriptors of a PF_KEY backend.
struct Descriptors {
    kind: Kind,
    open: BTreeMap<String, OwnedFd>,
}

impl Descriptors {
    fn receive(&self, name: &str, most: usize) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        std::iter::from_fn(|| {
            let len = recv(self.open[name].as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            Some(buffer[..len].to_vec())
        })
        .take(most)
        .collect()
    }

    fn send(&self, name: &str, message: &[u8]) -> i32 {
        match socket::send(self.open[name].as_raw_fd(), message) {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        }
    }
}

macro_rules! over_descriptors {
    ($name:ident) => {
        impl Backend for $name {
            fn open(&mut self, name: &str) {
                let fd = socket::open_with(&self.descriptors.kind).unwrap_or_else(|e| panic!("{e}"));
                self.descriptors.open.insert(name.to_owned(), fd);
            }

            fn close(&mut self, name: &str) {
                self.descriptors.open.remove(name);
            }

            fn send(&mut self, name: &str, message: &[u8]) -> i32 {
                self.descriptors.send(name, message)
            }

            fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>> {
                self.descriptors.receive(name, most)
            }

            fn set_buffer(&mut self, name: &str, bytes: usize) {
                nix::sys::socket::setsockopt(&self.descriptors.open[name], nix::sys::socket::sockopt::RcvBuf, &bytes)
                    .expect("SO_RCVBUF");
            }

            fn wait(&mut self, seconds: u64) {
                // Real time has to pass here; half a second for the timers' slack.
                std::thread::sleep(Duration::from_millis(seconds * 1000 + 500));
            }

            fn arrives(&mut self, from: u16) {
                network::arrive(from);
            }

            fn packet(&mut self, packet: &Packet) -> i32 {
                network::send(packet)
            }
        }
    };
}

/// A pfkeyd of its own, over its socket.
pub struct Served {
    child: std::process::Child,
    directory: std::path::PathBuf,
    descriptors: Descriptors,
}

over_descriptors!(Served);

impl Served {
    pub fn new() -> Self {
        use std::io::Read as _;
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("s{}-{n}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let (ready, started) = nix::unistd::pipe().unwrap();
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_pfkeyd"))
            .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
            .spawn()
            .unwrap();
        drop(started);
        std::fs::File::from(ready).read_exact(&mut [0; 4]).expect("pfkeyd says that it listens");
        let descriptors = Descriptors { kind: Kind::Unix(path), open: BTreeMap::new() };
        Self { child, directory, descriptors }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// AF_KEY in a network namespace of its own.
pub struct AfKey {
    descriptors: Descriptors,
}

over_descriptors!(AfKey);

impl AfKey {
    /// `packets`: with an interface to send them through.
    pub fn new(packets: bool) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        if packets {
            network::prepare();
        }
        Self { descriptors: Descriptors { kind: Kind::AfKey, open: BTreeMap::new() } }
    }
}
