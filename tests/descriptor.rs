//! A served descriptor is a real one: it survives what daemons do to descriptors, and its pfkeyd is nobody's child.
//!
//! What changes a whole process runs in one of its own: this program again, with the test `role` and a role's
//! name in the environment.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, is_served, open_with, send};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType, Header, MessageType, Profile, SaType, Writer};

const ROLE: &str = "PFKEY_TEST_ROLE";
const FD: &str = "PFKEY_TEST_FD";

fn embedded() -> OwnedFd {
    open_with(&Backend::Embedded).expect("a private pfkeyd starts")
}

fn header_only(msg_type: MessageType, satype: SaType, seq: u32) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, satype, seq, std::process::id());
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

fn add(spi: u32) -> Vec<u8> {
    let mut buffer = [0; 256];
    let header = Header::new(MessageType::ADD, SaType::AH, spi, std::process::id());
    let address = |last: u8| [&2u16.to_ne_bytes()[..], &[0, 0, 192, 168, 0, last], &[0; 8]].concat();
    let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
    // SADB_AALG_SHA1HMAC
    writer.sa(SadbSa { spi: spi.into(), state: 1, auth: 3, ..SadbSa::default() });
    writer.address(ExtensionType::ADDRESS_SRC, 0, 32, &address(1));
    writer.address(ExtensionType::ADDRESS_DST, 0, 32, &address(2));
    writer.key(ExtensionType::KEY_AUTH, 160, &[7; 20]);
    writer.finish().expect("it fits").to_vec()
}

fn receive(fd: RawFd, flags: MsgFlags) -> Result<Header, Errno> {
    let mut buffer = [0; 4096];
    let n = recv(fd, &mut buffer, flags)?;
    Header::read(&buffer[..n]).ok_or(Errno::ENODATA)
}

/// Sends a request and reads its answer without waiting, as racoon does.
fn round_trip(fd: RawFd, seq: u32) {
    send(fd, &header_only(MessageType::FLUSH, SaType::UNSPEC, seq)).expect("send");
    let answer = receive(fd, MsgFlags::MSG_DONTWAIT).expect("the answer is there when send returns");
    assert_eq!((answer.msg_type, answer.seq), (MessageType::FLUSH, seq));
}

fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("{test} skipped: needs root");
    }
    root
}

fn run_role(role: &str, fd: Option<RawFd>) {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["role", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command.env(FD, fd.unwrap_or(-1).to_string());
    // LeakSanitizer reads /proc, which is not there after a chroot.
    command.env("LSAN_OPTIONS", "detect_leaks=0");
    let output = command.output().expect("the role starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{role}: {text}");
}

/// The only process whose parent is this one.
fn only_child() -> Option<Pid> {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent == me).then(|| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).flatten()
    })
}

static SIGCHLDS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_sigchld(_: libc::c_int) {
    SIGCHLDS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let fd: RawFd = std::env::var(FD).ok().and_then(|n| n.parse().ok()).unwrap_or(-1);
    match role.as_str() {
        "round trip" => {
            assert!(is_served(fd));
            round_trip(fd, 5);
        }
        "chroot and setuid" => {
            nix::unistd::chroot("/proc").expect("chroot");
            nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).expect("setuid");
            assert!(is_served(fd));
            round_trip(fd, 6);
        }
        "no child" => {
            // SAFETY: the handler only adds to an atomic.
            unsafe { signal(Signal::SIGCHLD, SigHandler::Handler(count_sigchld)) }.expect("signal");
            let key = embedded();
            assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
            round_trip(key.as_raw_fd(), 1);
            drop(key);
            assert_eq!(SIGCHLDS.load(Ordering::Relaxed), 0);
        }
        "last descriptor" => {
            // An orphan's new parent can wait for its end.
            nix::sys::prctl::set_child_subreaper(true).expect("prctl");
            let key = embedded();
            let copy = key.try_clone().expect("dup");
            drop(key);
            round_trip(copy.as_raw_fd(), 1);
            let helper = only_child().expect("the pfkeyd");
            drop(copy);
            waitpid(helper, Some(WaitPidFlag::__WALL)).expect("it ends");
        }
        "killed" => {
            nix::sys::prctl::set_child_subreaper(true).expect("prctl");
            let key = embedded();
            let guardian = only_child().expect("the pfkeyd");
            kill(guardian, Signal::SIGKILL).expect("kill");
            waitpid(guardian, Some(WaitPidFlag::__WALL)).expect("it ends");
            // The worker goes on alone.
            round_trip(key.as_raw_fd(), 1);
            let worker = only_child().expect("the worker");
            kill(worker, Signal::SIGKILL).expect("kill");
            waitpid(worker, Some(WaitPidFlag::__WALL)).expect("it ends");
            let error = send(key.as_raw_fd(), &header_only(MessageType::FLUSH, SaType::UNSPEC, 1)).expect_err("gone");
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
            assert_eq!(recv(key.as_raw_fd(), &mut [0; 16], MsgFlags::empty()), Ok(0), "end of file");
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn survives_fork_and_exec() {
    let key = embedded();
    run_role("round trip", Some(key.as_raw_fd()));
    round_trip(key.as_raw_fd(), 7);
}

#[test]
fn survives_chroot_and_setuid() {
    if root("survives_chroot_and_setuid") {
        let key = embedded();
        run_role("chroot and setuid", Some(key.as_raw_fd()));
    }
}

#[test]
fn survives_scm_rights() {
    let key = embedded();
    let (here, there) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).expect("socketpair");
    let fds = [key.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).expect("sendmsg");
    drop(key);
    let mut byte = [0];
    let mut space = nix::cmsg_space!(RawFd);
    let mut data = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(there.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty()).expect("recvmsg");
    let Some(ControlMessageOwned::ScmRights(got)) = message.cmsgs().expect("whole").next() else {
        panic!("no descriptor came")
    };
    // SAFETY: recvmsg just made this descriptor; nobody else owns it.
    let passed = unsafe { OwnedFd::from_raw_fd(got[0]) };
    assert!(is_served(passed.as_raw_fd()));
    round_trip(passed.as_raw_fd(), 8);
}

#[test]
fn the_pfkeyd_is_no_child_of_the_opener() {
    run_role("no child", None);
}

#[test]
fn the_pfkeyd_ends_with_the_last_descriptor() {
    run_role("last descriptor", None);
}

#[test]
fn a_killed_pfkeyd_is_an_error_and_no_hang() {
    run_role("killed", None);
}

#[test]
fn an_ordinary_socket_is_not_served() {
    let (a, _b) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("socketpair");
    assert!(!is_served(a.as_raw_fd()));
    assert_eq!(send(a.as_raw_fd(), b"anything").expect("nobody reads it, and nobody waits"), 8);
}

/// A number that was a served descriptor's and was closed without this library's knowledge.
#[test]
fn nobody_is_waited_for_behind_another_descriptor_of_the_same_number() {
    let fd = embedded();
    let number = fd.as_raw_fd();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
    let mut fd = fd;
    nix::unistd::dup2(&ours, &mut fd).expect("its number");
    assert_eq!(fd.as_raw_fd(), number);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let sent = send(fd.as_raw_fd(), &header_only(MessageType::FLUSH, SaType::UNSPEC, 1));
        done.send(sent.is_ok()).expect("somebody waits");
    });
    // Without a limit for the message itself: nobody reads it. pfkeyd would be given thirty seconds.
    assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
    drop(theirs);
}

/// As the one before, for what is no message.
#[test]
fn another_descriptor_of_the_same_number_is_sent_anything() {
    let mut fd = embedded();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
    nix::unistd::dup2(&ours, &mut fd).expect("its number");
    assert_eq!(send(fd.as_raw_fd(), b"anything").expect("a plain send"), 8);
    let mut bytes = [0; 16];
    assert_eq!(recv(theirs.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), Ok(8));
    assert_eq!(&bytes[..8], b"anything");
}

#[test]
fn every_answer_is_there_and_a_dump_larger_than_the_socket_is_complete() {
    const SAS: u32 = 20_000;
    let key = embedded();
    let fd = key.as_raw_fd();
    fcntl(&key, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
    for spi in 0x1000..0x1000 + SAS {
        send(fd, &add(spi)).expect("send");
        let answer = receive(fd, MsgFlags::empty()).expect("the answer is there when send returns");
        assert_eq!((answer.msg_type, answer.errno, answer.seq), (MessageType::ADD, 0, spi));
    }
    fcntl(&key, FcntlArg::F_SETFL(OFlag::O_RDWR)).expect("blocking again");
    send(fd, &header_only(MessageType::DUMP, SaType::UNSPEC, 1)).expect("send");
    for expected in (1..SAS).chain([0]) {
        let answer = receive(fd, MsgFlags::empty()).expect("recv");
        assert_eq!((answer.msg_type, answer.errno, answer.seq), (MessageType::DUMP, 0, expected));
    }
    assert_eq!(receive(fd, MsgFlags::MSG_DONTWAIT), Err(Errno::EAGAIN), "nothing follows the last");
}
