//! Clients that send descriptors whose close() waits, as that of a TCP socket that lingers: they hold nobody up.

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/lingering.rs"]
mod lingering;

use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::process::Stdio;

use daemon::Daemon;
use lingering::Lingering;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with};

const FLUSH: [u8; 16] = [2, 9, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A daemon with room for 32 clients.
struct Scene(Daemon);

impl Scene {
    fn new(name: &str) -> Self {
        Self(Daemon::start_small(&c::scratch(name), Stdio::piped(), Stdio::null()))
    }

    /// A session that is served.
    fn open(&self) -> OwnedFd {
        let fd = open_with(&Backend::Unix(self.0.path.clone())).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
        fd
    }

    /// A connection of which the daemon may not know yet.
    fn connect(&self) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.0.path).unwrap()).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
        fd
    }

    /// The only child of a process.
    fn child_of(pid: Pid) -> Pid {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.trim().parse().expect("one child"))
    }

    fn guardian(&self) -> Pid {
        Self::child_of(Pid::from_raw(self.0.child.id() as i32))
    }

    fn worker(&self) -> Pid {
        Self::child_of(self.guardian())
    }

    /// Whether new clients are let in and served, one after another: by the last of them what another left was closed.
    fn serves(&self) -> bool {
        (0..8).all(|_| answers(&self.open()))
    }

    /// Whether all its processes have ended, some seconds after SIGTERM.
    fn ends(&mut self) -> bool {
        kill(Pid::from_raw(self.0.child.id() as i32), Signal::SIGTERM).unwrap();
        let stdout = self.0.child.stdout.take().unwrap();
        poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)) == Ok(1)
    }
}

fn answers(fd: &OwnedFd) -> bool {
    // What others caused is no answer.
    while recv(fd.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok() {}
    send(fd.as_raw_fd(), &FLUSH, MsgFlags::MSG_NOSIGNAL) == Ok(16)
        && recv(fd.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) == Ok(16)
}

/// Whether a client was told that there are too many.
fn is_refused(fd: &OwnedFd) -> bool {
    let mut report = [0; 64];
    let mut receive = || recv(fd.as_raw_fd(), &mut report, MsgFlags::empty());
    // The first says, once, that what it sent was not read.
    let received = receive().or_else(|_| receive());
    received == Ok(16) && report[2] == libc::ENOBUFS as u8
}

/// A daemon and lingering sockets, if there can be any.
fn scene(name: &str) -> Option<(Scene, Lingering)> {
    let lingering = Lingering::new(2);
    if lingering.is_none() {
        println!("skipped: no loopback interface");
    }
    Some((Scene::new(name), lingering?))
}

#[test]
fn a_message_with_descriptors_is_the_end_of_its_connection() {
    let Some((daemon, mut lingering)) = scene("lingering_sent") else { return };
    let (before, hostile) = (daemon.open(), daemon.open());
    assert!(answers(&before) && answers(&hostile));
    let worker = daemon.worker();
    kill(worker, Signal::SIGSTOP).unwrap();
    lingering.send(&hostile, &FLUSH);
    kill(worker, Signal::SIGCONT).unwrap();
    let end = recv(hostile.as_raw_fd(), &mut [0; 64], MsgFlags::empty());
    assert!(matches!(end, Ok(0) | Err(Errno::ECONNRESET)), "{end:?}");
    assert!(answers(&before) && daemon.serves());
}

#[test]
fn a_connection_that_is_closed_with_them_inside_holds_nobody_up() {
    // An empty message is nothing to act on; a second one waits until the first is done.
    for messages in [&[&FLUSH[..], &FLUSH][..], &[&[]]] {
        let Some((daemon, mut lingering)) = scene("lingering_closed") else { return };
        let (before, hostile) = (daemon.open(), daemon.open());
        assert!(answers(&before) && answers(&hostile));
        let worker = daemon.worker();
        kill(worker, Signal::SIGSTOP).unwrap();
        let (last, first) = messages.split_last().unwrap();
        for message in first {
            send(hostile.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).unwrap();
        }
        lingering.send(&hostile, last);
        drop(hostile);
        kill(worker, Signal::SIGCONT).unwrap();
        assert!(answers(&before) && daemon.serves());
    }
}

#[test]
fn a_client_that_is_refused_holds_nobody_up() {
    let Some((daemon, mut lingering)) = scene("lingering_refused") else { return };
    let clients: Vec<OwnedFd> = (0..32).map(|_| daemon.open()).collect();
    assert!(clients.iter().all(answers));
    let guardian = daemon.guardian();
    kill(guardian, Signal::SIGSTOP).unwrap();
    let refused = daemon.connect();
    lingering.send(&refused, &FLUSH);
    kill(guardian, Signal::SIGCONT).unwrap();
    assert!(is_refused(&refused) && is_refused(&daemon.open()));
    assert!(clients.iter().all(answers));
}

#[test]
fn the_end_does_not_wait_for_what_clients_sent() {
    let Some((mut daemon, mut lingering)) = scene("lingering_end") else { return };
    let hostile = daemon.open();
    assert!(answers(&hostile));
    kill(daemon.worker(), Signal::SIGSTOP).unwrap();
    lingering.send(&hostile, &FLUSH);
    drop(hostile);
    assert!(daemon.ends());
}
