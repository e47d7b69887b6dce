//! Where a scenario runs.

#[path = "../support/program.rs"]
mod program;

use program::program;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::network::{self, Packet};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use pfkey_rs::engine::{Engine, LINUX};
use pfkey_rs::hub::{Hub, KeyEngine, Queues, Service as _, SessionId};
use pfkey_rs::socket::{self, Backend as Kind};
use pfkey_rs::xfrm::XfrmEngine;

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

/// A hub and an engine in this process.
struct InProcess<E: KeyEngine> {
    hub: Hub<E>,
    queues: Queues,
    sessions: BTreeMap<String, SessionId>,
}

impl<E: KeyEngine> InProcess<E> {
    fn new(engine: E) -> Self {
        Self { hub: Hub::new(engine), queues: Queues::new(), sessions: BTreeMap::new() }
    }

    fn open(&mut self, name: &str) {
        self.sessions.insert(name.to_owned(), self.hub.open());
    }

    fn close(&mut self, name: &str, now: Duration) {
        if let Some(id) = self.sessions.remove(name) {
            self.hub.close(id, now);
            self.queues.close(id);
        }
    }

    fn send(&mut self, name: &str, message: &[u8], now: Duration) -> i32 {
        match self.hub.receive(self.sessions[name], message, now, &mut self.queues) {
            Ok(()) => 0,
            Err(error) => error.rule.errno().to_raw(),
        }
    }

    fn set_buffer(&mut self, name: &str, bytes: usize) {
        // Linux doubles it, for its own bookkeeping.
        self.queues.set_limit(self.sessions[name], 2 * bytes);
    }

    fn receive(&mut self, name: &str, most: usize, now: Duration) -> Vec<Vec<u8>> {
        let id = self.sessions[name];
        let mut messages = Vec::new();
        while messages.len() < most {
            let Some(message) = self.queues.pop(id) else { break };
            messages.push(message);
            if self.queues.may_resume(id) {
                self.hub.writable(id, now, &mut self.queues);
            }
        }
        messages
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

/// The embedded engine in this process, with a clock of our own.
pub struct Memory {
    inner: InProcess<Engine>,
    now: Duration,
}

impl Memory {
    /// `packets`: as `AfKey::new`.
    pub fn new(packets: bool) -> Self {
        let mut engine = Engine::with_seed(&LINUX, 1);
        if packets {
            engine.set_acq_expires(network::ACQ_EXPIRES);
        }
        Self { inner: InProcess::new(engine), now: now() }
    }
}

impl Backend for Memory {
    fn open(&mut self, name: &str) {
        self.inner.open(name);
    }

    fn close(&mut self, name: &str) {
        self.inner.close(name, self.now);
    }

    fn send(&mut self, name: &str, message: &[u8]) -> i32 {
        self.inner.send(name, message, self.now)
    }

    fn set_buffer(&mut self, name: &str, bytes: usize) {
        self.inner.set_buffer(name, bytes);
    }

    fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>> {
        self.inner.receive(name, most, self.now)
    }

    fn wait(&mut self, seconds: u64) {
        let InProcess { hub, queues, .. } = &mut self.inner;
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = hub.next_deadline().filter(|d| *d <= end) {
            self.now = deadline.max(self.now);
            hub.advance(self.now, queues);
        }
        self.now = end;
    }

    fn arrives(&mut self, from: u16) {
        network::arrived(from, &mut self.inner.hub, self.now, &mut self.inner.queues);
    }

    fn packet(&mut self, packet: &Packet) -> i32 {
        network::pass(packet, &mut self.inner.hub, self.now, &mut self.inner.queues)
    }
}

/// XFRM of this kernel in a network namespace of its own, with the hub in this process.
pub struct Xfrm(InProcess<XfrmEngine>);

impl Xfrm {
    /// `packets`: as `AfKey::new`.
    pub fn new(packets: bool) -> Self {
        new_network(packets);
        Self(InProcess::new(XfrmEngine::new().expect("XFRM netlink")))
    }
}

impl Backend for Xfrm {
    fn open(&mut self, name: &str) {
        self.0.open(name);
    }

    fn close(&mut self, name: &str) {
        self.0.close(name, now());
    }

    fn send(&mut self, name: &str, message: &[u8]) -> i32 {
        self.0.send(name, message, now())
    }

    fn set_buffer(&mut self, name: &str, bytes: usize) {
        self.0.set_buffer(name, bytes);
    }

    fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>> {
        // The kernel's events wait in their socket when it has told them.
        self.0.hub.event(now(), &mut self.0.queues);
        self.0.receive(name, most, now())
    }

    fn wait(&mut self, seconds: u64) {
        pass_time(seconds);
    }

    fn arrives(&mut self, from: u16) {
        let _open = network::arrive(from);
        await_news(std::iter::once(self.0.hub.engine().as_fd()));
    }

    fn packet(&mut self, packet: &Packet) -> i32 {
        let errno = network::send(packet);
        await_news(std::iter::once(self.0.hub.engine().as_fd()));
        errno
    }
}

/// A network namespace for this thread; `packets`: with an interface to send them through.
fn new_network(packets: bool) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    if packets {
        network::prepare();
    }
}

/// A kernel may handle a packet, and what follows of it, after the call that sent it: waits until there is news on one
/// of the descriptors, or there is none to expect.
fn await_news<'f>(descriptors: impl Iterator<Item = BorrowedFd<'f>>) {
    let mut polled: Vec<_> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let _ = poll(&mut polled, 50_u8);
}

/// Real time has to pass in kernels; half a second for the timers' slack.
fn pass_time(seconds: u64) {
    std::thread::sleep(Duration::from_millis(seconds * 1000 + 500));
}

/// Descriptors of a PF_KEY backend.
struct Descriptors {
    kind: Kind,
    open: BTreeMap<String, OwnedFd>,
    /// Each is opened by a process of its own, which hands it over and stays.
    openers: Option<Vec<Child>>,
}

impl Descriptors {
    fn new(kind: Kind) -> Self {
        Self { kind, open: BTreeMap::new(), openers: None }
    }

    /// As for a packet above. Of several messages that another process sends only the first was waited for.
    fn await_news(&self) {
        await_news(self.open.values().map(AsFd::as_fd));
        std::thread::sleep(Duration::from_millis(10));
    }

    fn open(&mut self) -> OwnedFd {
        let Some(openers) = &mut self.openers else {
            return socket::open_with(&self.kind).unwrap_or_else(|e| panic!("{e}"));
        };
        let Kind::Service(path) = &self.kind else { panic!("{:?}", self.kind) };
        let flags = SockFlag::empty();
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        fcntl(&ours, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["opener", "--exact", "--nocapture", "--test-threads=1"])
            .env("PFKEY_OPENER", theirs.as_raw_fd().to_string())
            .env("PFKEY_BACKEND", format!("service:{}", path.display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        openers.push(child);
        drop(theirs);
        let mut space = nix::cmsg_space!(RawFd);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let message =
            recvmsg::<()>(ours.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        match message.cmsgs().unwrap().next() {
            // SAFETY: it has just been made for this process.
            Some(ControlMessageOwned::ScmRights(fds)) => unsafe { OwnedFd::from_raw_fd(fds[0]) },
            other => panic!("no descriptor: {other:?}"),
        }
    }

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

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.open.clear();
        for opener in self.openers.iter_mut().flatten() {
            let _ = opener.kill();
            let _ = opener.wait();
        }
    }
}

/// What a process does that opens a socket for another and stays.
pub fn open_for_another(number: &str) {
    let to: RawFd = number.parse().expect("a descriptor");
    let fd = socket::open().unwrap_or_else(|e| panic!("{e}"));
    let raw = [fd.as_raw_fd()];
    sendmsg::<()>(to, &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(&raw)], MsgFlags::empty(), None).unwrap();
    drop(fd);
    std::thread::sleep(Duration::from_secs(3600));
}

macro_rules! over_descriptors {
    ($name:ident) => {
        impl Backend for $name {
            fn open(&mut self, name: &str) {
                let fd = self.descriptors.open();
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
                pass_time(seconds);
            }

            fn arrives(&mut self, from: u16) {
                let _open = network::arrive(from);
                self.descriptors.await_news();
            }

            fn packet(&mut self, packet: &Packet) -> i32 {
                let errno = network::send(packet);
                self.descriptors.await_news();
                errno
            }
        }
    };
}

/// A pfkeyd of its own, over its socket.
pub struct Served {
    child: Child,
    directory: std::path::PathBuf,
    descriptors: Descriptors,
}

over_descriptors!(Served);

impl Served {
    pub fn new() -> Self {
        Self::start("--listen")
    }

    fn start(how: &str) -> Self {
        use std::io::Read as _;
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("s{}-{n}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let (ready, started) = nix::unistd::pipe().unwrap();
        let child = Command::new(program("pfkeyd"))
            .args([how, path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
            .spawn()
            .unwrap();
        drop(started);
        std::fs::File::from(ready).read_exact(&mut [0; 4]).expect("pfkeyd says that it listens");
        let descriptors = Descriptors::new(if how == "--listen" { Kind::Unix(path) } else { Kind::Service(path) });
        Self { child, directory, descriptors }
    }
}

/// The machine's pfkeyd, in this network namespace or in another than the programs.
pub struct Machine {
    served: Served,
}

impl Machine {
    /// `elsewhere`: it is started before this thread has a network namespace of its own.
    pub fn new(packets: bool, elsewhere: bool) -> Self {
        if !elsewhere {
            new_network(packets);
        }
        let mut served = Served::start("--service");
        if elsewhere {
            new_network(packets);
        }
        served.descriptors.openers = Some(Vec::new());
        Self { served }
    }
}

impl Backend for Machine {
    fn open(&mut self, name: &str) {
        self.served.open(name);
    }

    fn close(&mut self, name: &str) {
        self.served.close(name);
    }

    fn send(&mut self, name: &str, message: &[u8]) -> i32 {
        self.served.send(name, message)
    }

    fn receive(&mut self, name: &str, most: usize) -> Vec<Vec<u8>> {
        self.served.receive(name, most)
    }

    fn set_buffer(&mut self, name: &str, bytes: usize) {
        self.served.set_buffer(name, bytes);
    }

    fn wait(&mut self, seconds: u64) {
        self.served.wait(seconds);
    }

    fn packet(&mut self, packet: &Packet) -> i32 {
        self.served.packet(packet)
    }

    fn arrives(&mut self, from: u16) {
        self.served.arrives(from);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.descriptors.open.clear();
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
        new_network(packets);
        Self { descriptors: Descriptors::new(Kind::AfKey) }
    }
}
