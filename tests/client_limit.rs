//! A daemon with as many clients as it may have. It is a program of its own: a test beside it would leave descriptors to the
//! daemon, which has few.

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::io::BufRead as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use daemon::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with};

/// Asks for something that needs no SA, and waits for the answer no longer than some seconds.
fn answers(fd: &OwnedFd) -> bool {
    let mut flush = [0; 16];
    flush[..6].copy_from_slice(&[2, 9, 0, 0, 2, 0]);
    setsockopt(fd, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
    send(fd.as_raw_fd(), &flush, MsgFlags::MSG_NOSIGNAL) == Ok(16)
        && recv(fd.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) == Ok(16)
}

#[test]
fn clients_beyond_the_limit_are_refused() {
    let mut daemon = Daemon::start_small(&c::scratch("client_limit"), Stdio::null(), Stdio::piped());
    let stderr = daemon.child.stderr.take().unwrap();
    let open = || open_with(&Backend::Unix(daemon.path.clone())).unwrap();
    let clients: Vec<OwnedFd> = (0..32).map(|_| open()).collect();
    assert!(clients.iter().all(answers));
    for _ in 0..20 {
        let refused = open();
        setsockopt(&refused, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
        let mut report = [0; 64];
        let n = recv(refused.as_raw_fd(), &mut report, MsgFlags::empty());
        assert_eq!((n, report[..6].to_vec()), (Ok(16), vec![2, 0, libc::ENOBUFS as u8, 0, 2, 0]));
        assert_eq!(recv(refused.as_raw_fd(), &mut report, MsgFlags::empty()), Ok(0), "the end");
    }
    assert!(clients.iter().all(answers), "the others go on");
    kill(Pid::from_raw(daemon.child.id() as i32), Signal::SIGUSR1).unwrap();
    let mut said = std::io::BufReader::new(stderr).lines().map(Result::unwrap);
    let first = said.next();
    assert!(first.as_deref().is_some_and(|line| line.ends_with("others are refused")), "{first:?}");
    let count = said.find(|line| !line.starts_with("session") && !line.starts_with("malformed"));
    assert_eq!(count.as_deref(), Some("clients: 32 of 32, 20 refused"), "others are said to be refused once");
    drop(daemon);
}
