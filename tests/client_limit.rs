//! A daemon with as many clients as it may have. It is a program of its own: a test beside it would leave descriptors to the
//! daemon, which has few.

#[path = "support/c.rs"]
mod c;

use std::io::{BufRead as _, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with};

/// A daemon, ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    let path = c::scratch("client_limit").join("s");
    let (ready, started) = nix::unistd::pipe().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh", c::program("pfkeyd")])
        .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let daemon = Daemon(child);
    drop(started);
    std::fs::File::from(ready).read_exact(&mut [0xff; 4]).expect("it says how the start went");
    let open = || open_with(&Backend::Unix(path.clone())).unwrap();
    // As many as half of its descriptors.
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
    kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGUSR1).unwrap();
    let mut said = std::io::BufReader::new(stderr).lines().map(Result::unwrap);
    let first = said.next();
    assert!(first.as_deref().is_some_and(|line| line.ends_with("others are refused")), "{first:?}");
    let count = said.find(|line| !line.starts_with("session") && !line.starts_with("malformed"));
    assert_eq!(count.as_deref(), Some("clients: 32 of 32, 20 refused"), "others are said to be refused once");
    drop(daemon);
}
