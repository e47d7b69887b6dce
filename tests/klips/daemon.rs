//! The profile behind a real socket: `pfkeyd --profile klips`, and what the calls of KLIPS's socket table do there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use pfkey_rs::klips::number::*;
use pfkey_rs::socket::{Backend, open_with};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::c;
use crate::served::Daemon;
use crate::world::*;

fn start(name: &str) -> Daemon {
    Daemon::start_with(&c::scratch(name), &["--profile", "klips"])
}

fn open(daemon: &Daemon) -> OwnedFd {
    open_with(&Backend::parse(daemon.backend().as_bytes()).unwrap()).unwrap()
}

/// Sends, and waits until every answer is there.
fn ask(fd: &OwnedFd, message: &Msg) {
    pfkey_rs::socket::send(fd.as_raw_fd(), &message.bytes()).unwrap();
}

/// Everything that waits at a socket.
fn heard(fd: &OwnedFd) -> Vec<Vec<u8>> {
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok().filter(|len| *len > 0)?;
        Some(buffer[..len].to_vec())
    })
    .collect()
}

fn only(fd: &OwnedFd) -> Vec<u8> {
    let mut heard = heard(fd);
    assert_eq!(heard.len(), 1);
    heard.remove(0)
}

/// What pluto does for a tunnel: it registers, trades an SPI for an SA, groups it, routes a flow, and takes all down again.
#[test]
fn a_key_managers_session() {
    let daemon = start("klips_session");
    let (pluto, listener) = (open(&daemon), open(&daemon));
    ask(&pluto, &Msg::new(M::REGISTER, S::ESP));
    assert_eq!(types(&only(&pluto)), [14, 15]);
    assert!(heard(&listener).is_empty(), "it is not registered");
    ask(&pluto, &Msg::new(M::GETSPI, S::ESP).ends().range(0x1000, 0x1fff));
    let spi = spi_of(&only(&pluto));
    let mut update = esp(spi);
    update.head[1] = M::UPDATE.0;
    let steps = [
        (update, vec![1, 2, 5, 6]),
        (tunnel(0x1001), vec![1, 5, 6]),
        (group(X_SATYPE_IPIP, 0x1001, S::ESP, spi), vec![1, 6, 18, 19, 20]),
        (eroute(X_SATYPE_IPIP, 0x1001, "10.1.0.0/16", "10.2.0.0/16"), vec![1, 6, 21, 22, 23, 24]),
        (delflow("10.1.0.0/16", "10.2.0.0/16"), vec![1, 21, 22, 23, 24]),
        (named(M::DELETE, S::ESP, spi), vec![1, 5, 6]),
    ];
    assert_eq!(only(&listener)[1], M::GETSPI.0);
    for (step, answer) in steps {
        ask(&pluto, &step);
        let message = only(&pluto);
        assert_eq!((message[1], message[2], types(&message)), (step.head[1], 0, answer));
        assert_eq!(only(&listener), message, "everybody hears it");
    }
    // The tunnel went with the group; errors go to everybody too.
    ask(&pluto, &named(M::GET, X_SATYPE_IPIP, 0x1001));
    assert_eq!(only(&pluto)[2], Errno::ESRCH as u8);
    assert_eq!(only(&listener).len(), 16);
}

/// `pfkey_ops`: poll, shutdown, recvmsg, release.
#[test]
fn the_sockets_calls() {
    let daemon = start("klips_calls");
    let (fd, other) = (open(&daemon), open(&daemon));
    let readable = |fd: &OwnedFd| {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!readable(&fd));
    ask(&fd, &Msg::new(M::FLUSH, S::UNSPEC));
    assert!(readable(&fd), "poll says that an answer waits");
    // MSG_PEEK leaves it, a short buffer loses the rest.
    let mut buffer = [0; 64];
    assert_eq!(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK), Ok(16));
    assert_eq!(recv(fd.as_raw_fd(), &mut buffer[..4], MsgFlags::empty()), Ok(4));
    assert!(!readable(&fd));
    heard(&other);
    // What is no message is heard by nobody, and the session goes on.
    send(fd.as_raw_fd(), &[1; 16], MsgFlags::empty()).unwrap();
    ask(&fd, &Msg::new(M::DUMP, S::ESP));
    assert_eq!(only(&fd)[2], Errno::ENOSYS as u8);
    assert_eq!(only(&other)[2], Errno::ENOSYS as u8);
    // A closed socket's registration ends: an ACQUIRE finds nobody.
    ask(&other, &Msg::new(M::REGISTER, S::ESP));
    let failed = Msg::new(M::ACQUIRE, S::ESP).with_errno(1).ends();
    ask(&fd, &failed);
    assert!(heard(&fd).is_empty());
    assert_eq!(heard(&other)[1], failed.bytes());
    drop(other);
    // The daemon may learn of the end after the next request: until then the ACQUIRE is taken.
    let refused = (0..1000).find(|_| {
        ask(&fd, &failed);
        heard(&fd).first().is_some_and(|answer| answer[2] == Errno::EPROTONOSUPPORT as u8)
    });
    assert!(refused.is_some());
    shutdown(fd.as_raw_fd(), Shutdown::Write).unwrap();
    let sent = send(fd.as_raw_fd(), &Msg::new(M::FLUSH, S::UNSPEC).bytes(), MsgFlags::MSG_NOSIGNAL);
    assert_eq!(sent, Err(Errno::EPIPE));
}

/// SAs to addresses of the daemon's host are inbound.
#[test]
fn the_daemon_knows_its_hosts_addresses() {
    let own = nix::ifaddrs::getifaddrs().unwrap().find_map(|interface| {
        let ip = interface.address?.as_sockaddr_in()?.ip();
        (!ip.is_loopback()).then(|| ip.to_string())
    });
    let daemon = start("klips_addresses");
    let fd = open(&daemon);
    if own.is_none() {
        eprintln!("skipped: an address that is not a loopback, which this host has not");
    }
    let others = [(Some("127.0.0.1".into()), 1), (Some("203.0.113.77".into()), 0), (own, 1)];
    for (dst, flags) in others {
        let Some(dst) = dst else { continue };
        ask(&fd, &esp(SPI).without(Ext::ADDRESS_DST).address(Ext::ADDRESS_DST, &dst));
        assert_eq!(body(&only(&fd), Ext::SA)[8..12], u32::to_ne_bytes(flags), "{dst}");
    }
}
