//! pfkeyd as a command: exit statuses, signals, what it leaves behind.

#[path = "support/c.rs"]
mod c;

use std::io::{BufRead as _, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, recv};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with};

fn pfkeyd() -> Command {
    Command::new(c::program("pfkeyd"))
}

fn status(arguments: &[&str]) -> Option<i32> {
    pfkeyd().args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().code()
}

#[test]
fn the_commands_status_is_passed_on() {
    assert_eq!(status(&["--", "sh", "-c", "exit 42"]), Some(42));
    assert_eq!(status(&["--", "true"]), Some(0));
    assert_eq!(status(&["--", "sh", "-c", "kill -9 $$"]), Some(128 + 9));
    assert_eq!(status(&["--", "/nonexistent"]), Some(127));
    assert_eq!(status(&["--", "/etc/passwd"]), Some(126));
}

#[test]
fn usage_errors_are_2_and_say_what_is_wrong() {
    for arguments in [
        &[][..],
        &["--listen"],
        &["--engine", "kernel", "--", "true"],
        &["--profile", "bsd", "--", "true"],
        &["--engine", "xfrm", "--profile", "rfc2367", "--", "true"],
        &["--engine", "xfrm", "--profile", "klips", "--", "true"],
        &["--engine", "copy", "--profile", "rfc2367", "--", "true"],
        &["--profile", "klips", "--algorithms", "aead", "--", "true"],
        &["--fd", "x"],
        &["--"],
        &["--listen", "/x", "--", "true"],
    ] {
        let output = pfkeyd().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(status(&["--help"]), Some(0));
    assert_eq!(status(&["--version"]), Some(0));
}

#[test]
fn a_path_that_it_cannot_listen_on_is_named() {
    for option in ["--listen", "--seccomp-agent"] {
        let output = pfkeyd().args([option, "/nonexistent/socket"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{option}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "pfkeyd: /nonexistent/socket: No such file or directory (os error 2)\n",
            "{option}"
        );
    }
}

/// By RFC 2367 everybody hears of a new SPI; on Linux its asker does.
#[test]
fn the_profile_is_that_of_every_session() {
    use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};
    for (profile, hears) in [("linux", false), ("rfc2367", true)] {
        let path = c::scratch("pfkeyd_profile").join("s");
        let (_daemon, _) = listen_with(&path, &["--profile", profile]);
        let backend = Backend::Unix(path);
        let (asker, other) = (open_with(&backend).unwrap(), open_with(&backend).unwrap());
        let address = SockaddrBytes::new([10, 0, 0, 1].into(), 0);
        let mut buffer = [0; 256];
        let mut w = Writer::new(&mut buffer, Header::new(MessageType::GETSPI, SaType::ESP, 1, 1), Profile::Linux);
        for ext in [Ext::ADDRESS_SRC, Ext::ADDRESS_DST] {
            w.address(ext, 0, 32, address.as_bytes());
        }
        w.spirange(0x300, 0x400);
        let message = w.finish().unwrap();
        pfkey_rs::socket::send(asker.as_raw_fd(), message).unwrap();
        let heard = recv(other.as_raw_fd(), &mut [0; 512], MsgFlags::MSG_DONTWAIT).is_ok();
        assert_eq!(heard, hears, "{profile}");
    }
}

/// A daemon, ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pfkeyd that says when it listens.
fn listen(path: &Path) -> (Daemon, [u8; 4]) {
    listen_with(path, &[])
}

fn listen_with(path: &Path, arguments: &[&str]) -> (Daemon, [u8; 4]) {
    listen_and_say(path, arguments, Stdio::null())
}

fn listen_and_say(path: &Path, arguments: &[&str], stderr: Stdio) -> (Daemon, [u8; 4]) {
    let (ready, started) = nix::unistd::pipe().unwrap();
    let child = pfkeyd()
        .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
        .args(arguments)
        .stderr(stderr)
        .spawn()
        .unwrap();
    drop(started);
    let mut status = [0xff; 4];
    std::fs::File::from(ready).read_exact(&mut status).expect("it says how the start went");
    (Daemon(child), status)
}

#[test]
fn a_socket_file_is_removed_taken_over_and_never_stolen() {
    let path = c::scratch("pfkeyd_listen").join("s");
    let (mut first, status) = listen(&path);
    assert_eq!(status, [0; 4]);
    let (mut second, status) = listen(&path);
    assert_eq!(i32::from_ne_bytes(status), libc::EADDRINUSE, "somebody listens there");
    assert_eq!(second.0.wait().unwrap().code(), Some(1));
    // Killed, it leaves its file; the next one takes it over.
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert!(path.exists());
    // Its guardian ends with it, but nobody can wait for that.
    let refused = || {
        let (unix, packets) = (AddressFamily::Unix, SockType::SeqPacket);
        let probe = nix::sys::socket::socket(unix, packets, SockFlag::empty(), None).unwrap();
        nix::sys::socket::connect(probe.as_raw_fd(), &UnixAddr::new(&path).unwrap()).is_err()
    };
    while !refused() {
        std::thread::yield_now();
    }
    let (mut third, status) = listen(&path);
    assert_eq!(status, [0; 4]);
    kill(Pid::from_raw(third.0.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(third.0.wait().unwrap().code(), Some(0));
    assert!(!path.exists());
}

/// The command decides what a signal means; pfkeyd passes it on, and ends as the command does.
#[test]
fn a_signal_goes_to_the_command() {
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = pfkeyd().args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 6]).expect("the command runs");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn statistics_on_a_signal() {
    let path = c::scratch("pfkeyd_statistics").join("s");
    let (mut daemon, _) = listen_and_say(&path, &[], Stdio::piped());
    let session = open_with(&Backend::Unix(path)).unwrap();
    // An ADD without anything is read, and has nothing that an SA needs.
    let mut add = [0; 16];
    add[..6].copy_from_slice(&[2, 3, 0, 3, 2, 0]);
    pfkey_rs::socket::send(session.as_raw_fd(), &add).unwrap();
    // What is no message is counted, and that is all.
    nix::sys::socket::send(session.as_raw_fd(), &add[..8], nix::sys::socket::MsgFlags::empty()).unwrap();
    pfkey_rs::socket::settle(session.as_raw_fd());
    kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGUSR1).unwrap();
    let said = std::io::BufReader::new(daemon.0.stderr.take().unwrap());
    let said: Vec<String> = said.lines().take(4).map(Result::unwrap).collect();
    assert_eq!(said[0], "session 0: 1 delivered, 0 dropped, 0 dumps resumed, 0 refused, 0 interrupted");
    assert_eq!(said[1], "malformed requests: 1");
    // How many there may be depends on the descriptors that are allowed.
    assert!(said[2].starts_with("clients: 1 of ") && said[2].ends_with(", 0 refused"), "{}", said[2]);
    assert_eq!(said[3], "SAs: 1 requests, 0 allocated, 0 added");
}

/// Asks for something that needs no SA, and waits for the answer no longer than some seconds.
fn answers(fd: &OwnedFd) -> bool {
    let mut flush = [0; 16];
    flush[..6].copy_from_slice(&[2, 9, 0, 0, 2, 0]);
    let patience = nix::sys::time::TimeVal::new(10, 0);
    nix::sys::socket::setsockopt(fd, nix::sys::socket::sockopt::ReceiveTimeout, &patience).unwrap();
    nix::sys::socket::send(fd.as_raw_fd(), &flush, MsgFlags::MSG_NOSIGNAL) == Ok(16)
        && recv(fd.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) == Ok(16)
}

/// Makes a daemon print: what SIGUSR1 asks for, and an accept that fails because its descriptors ran out.
fn make_it_print(daemon: &Daemon, path: &Path) {
    let pid = daemon.0.id();
    kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).unwrap();
    // The guardian accepts.
    let guardian = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let limited = Command::new("prlimit").args(["--pid", guardian.trim(), "--nofile=3:"]).status();
    if !limited.unwrap().success() {
        return eprintln!("skipped: the guardian is another user, whose limits need CAP_SYS_RESOURCE");
    }
    let (unix, packets) = (AddressFamily::Unix, SockType::SeqPacket);
    let waits = nix::sys::socket::socket(unix, packets, SockFlag::empty(), None).unwrap();
    nix::sys::socket::connect(waits.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
}

#[test]
fn nobody_reads_what_it_prints() {
    // A pipe whose reader is gone, and one that is full.
    for full in [false, true] {
        let path = c::scratch("pfkeyd_unread").join("s");
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        while full && nix::unistd::write(&writer, &[b'x'; 512]).is_ok() {}
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let (mut daemon, _) = listen_and_say(&path, &[], writer.into());
        let reader = Some(reader).filter(|_| full);
        let session = open_with(&Backend::Unix(path.clone())).unwrap();
        assert!(answers(&session));
        make_it_print(&daemon, &path);
        assert!(answers(&session), "full: {full}");
        assert_eq!(daemon.0.try_wait().unwrap(), None, "full: {full}");
        drop(reader);
    }
}

#[test]
fn a_thousand_sessions() {
    // Descriptors of this process and of pfkeyd; what the system gives is enough almost everywhere.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    if hard < 2200 {
        return eprintln!("skipped: only {hard} descriptors are allowed here");
    }
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let path = c::scratch("pfkeyd_thousand").join("s");
    let (daemon, _) = listen(&path);
    let backend = Backend::Unix(path);
    let sessions: Vec<_> = (0..1000).map(|_| open_with(&backend).unwrap()).collect();
    let mut flush = [0; 16];
    flush[..6].copy_from_slice(&[2, 9, 0, 0, 2, 0]);
    for fd in &sessions {
        pfkey_rs::socket::send(fd.as_raw_fd(), &flush).unwrap();
        let n = nix::sys::socket::recv(fd.as_raw_fd(), &mut [0; 64], nix::sys::socket::MsgFlags::MSG_DONTWAIT);
        assert_eq!(n, Ok(16));
    }
    drop(daemon);
}
