//! The machine's pfkeyd: who is served, what one program can do to others, and what is left when it dies.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, UnixAddr, bind, connect,
    getsockname, getsockopt, recv, sendmsg, socket, sockopt,
};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, OpenError, drop_capabilities, open_with, send};
use pfkey_rs::wire::hello::{Hello, PRIMER, PROTOCOL, QUESTION, Welcome};
use pfkey_rs::wire::layout::SadbXPolicy;
use pfkey_rs::wire::{ExtensionType, Extras, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

#[path = "support/c.rs"]
mod c;
#[path = "support/lingering.rs"]
mod lingering;
#[path = "support/waiting.rs"]
mod waiting;

use lingering::Lingering;
use waiting::{waiting, waiting_headers};

const HELLO: Hello = Hello { protocol: PROTOCOL, extras: Extras { aead: false, sha256_128: false } };

/// A service; its processes are ended when it is dropped.
struct Service {
    child: Child,
    directory: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
        let log = self.directory.with_extension("log");
        eprint!("{}", std::fs::read_to_string(&log).unwrap_or_default());
        let _ = std::fs::remove_file(log);
    }
}

/// A directory of a service, where other users can go: into a tree in root's home they cannot.
fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("service-{name}-{}", std::process::id()))
}

impl Service {
    /// Starts one, in a network namespace of this thread's own. `None` where that cannot be.
    fn start(name: &str) -> Option<Self> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || pfkey_rs::xfrm::Netlink::open().is_err() {
            eprintln!("skipped: it needs root, network namespaces and XFRM");
            return None;
        }
        let directory = place(name);
        let (ready, started) = nix::unistd::pipe().unwrap();
        let child = Command::new(c::program("pfkeyd"))
            .args(["--service", directory.join("s").to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
            .stderr(std::fs::File::create(directory.with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        drop(started);
        let mut status = [0xff; 4];
        std::fs::File::from(ready).read_exact(&mut status).expect("it says how the start went");
        assert_eq!(i32::from_ne_bytes(status), 0);
        Some(Self { child, directory })
    }

    fn path(&self) -> PathBuf {
        self.directory.join("s")
    }

    fn open(&self) -> OwnedFd {
        self.try_open().unwrap_or_else(|e| panic!("{e}"))
    }

    fn try_open(&self) -> Result<OwnedFd, OpenError> {
        open_with(&Backend::Service(self.path()))
    }

    /// Connects, and says nothing.
    fn connect(&self) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.path()).unwrap()).unwrap();
        fd
    }

    /// Says something with these descriptors, and gives the answer; `None` is the end of the connection.
    fn say(&self, bytes: &[u8], with: &[&OwnedFd]) -> (OwnedFd, Option<Welcome>) {
        let fd = self.connect();
        let raw: Vec<RawFd> = with.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[] } else { &rights[..] };
        sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None).unwrap();
        let answer = receive(&fd).and_then(|bytes| Welcome::read(&bytes));
        (fd, answer)
    }

    fn errno(&self, bytes: &[u8], with: &[&OwnedFd]) -> Option<i32> {
        self.say(bytes, with).1.map(|welcome| welcome.errno as i32)
    }

    fn guardian(&self) -> Pid {
        Pid::from_raw(children(self.child.id() as i32).pop().expect("a guardian"))
    }

    /// The guardian's worker: of its processes the one that uses epoll.
    fn worker(&self) -> Pid {
        let uses_epoll = |pid: &i32| {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file.ends_with("anon_inode:[eventpoll]"))
        };
        Pid::from_raw(children(self.guardian().as_raw()).into_iter().find(uses_epoll).expect("a worker"))
    }

    /// What it wrote.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.with_extension("log")).unwrap()
    }
}

fn children(parent: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A message, waited for as long as a busy machine may need; `None` at the end.
fn receive(fd: &OwnedFd) -> Option<Vec<u8>> {
    assert_ne!(
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)),
        Ok(0),
        "silence"
    );
    let mut bytes = vec![0; 1 << 16];
    // The first may be that the other side did not read everything, before what it had said.
    let mut tries = (0..2).map(|_| recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT));
    let len = tries.find(|tried| *tried != Err(nix::errno::Errno::ECONNRESET)).and_then(Result::ok).unwrap_or(0);
    (len > 0).then(|| bytes[..len].to_vec())
}

/// An XFRM socket with the kernel's answer to the primer in it, unless it shall have none.
fn netlink(primed: bool) -> OwnedFd {
    // SAFETY: no pointers; the socket is this caller's.
    let fd = unsafe {
        let raw = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_XFRM);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    if primed {
        prime(&fd);
    }
    fd
}

fn prime(fd: &OwnedFd) {
    assert_eq!(nix::sys::socket::send(fd.as_raw_fd(), &PRIMER, MsgFlags::empty()), Ok(PRIMER.len()));
}

fn four() -> [OwnedFd; 4] {
    std::array::from_fn(|_| netlink(true))
}

fn policy(msg_type: MessageType, number: u32) -> Vec<u8> {
    let mut buffer = [0; 256];
    let header = Header::new(msg_type, SaType::UNSPEC, number, std::process::id());
    let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
    let [_, a, b, c] = number.to_be_bytes();
    writer.address(ExtensionType::ADDRESS_SRC, 255, 32, SockaddrBytes::new([10, a, b, c].into(), 0).as_bytes());
    writer.address(ExtensionType::ADDRESS_DST, 255, 32, SockaddrBytes::new([10, 0, 0, 2].into(), 0).as_bytes());
    // IPSEC_POLICY_DISCARD, IPSEC_DIR_OUTBOUND
    writer.policy(SadbXPolicy { policy_type: 0.into(), dir: 2, ..SadbXPolicy::default() }, &[]);
    writer.finish().expect("it fits").to_vec()
}

fn header_only(msg_type: MessageType, satype: u8) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, SaType(satype), 1, std::process::id());
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

fn ask(fd: &OwnedFd, message: &[u8]) {
    send(fd.as_raw_fd(), message).unwrap();
}

const ADDED: (MessageType, u8) = (MessageType::X_SPDADD, 0);

/// The sessions of a namespace hear each other's changes, registrations, and promiscuously everything; what was sent before
/// they came they do not hear.
#[test]
fn all_sockets_of_a_namespace_hear_each_other() {
    let Some(service) = Service::start("audience") else { return };
    let (a, b) = (service.open(), service.open());
    ask(&b, &header_only(MessageType::X_PROMISC, 1));
    ask(&a, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&a), [(MessageType::X_PROMISC, 0), ADDED]);
    let heard = waiting(&b);
    assert_eq!(heard.iter().filter(|one| **one == ADDED).count(), 3, "the request, a copy, the broadcast: {heard:?}");
    let late = service.open();
    assert_eq!(waiting(&late), []);
    ask(&late, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&late), [(MessageType::X_SPDADD, libc::EEXIST as u8)]);
}

/// A socket that was opened before another's request does not miss its broadcast, however many open at once.
#[test]
fn whoever_has_opened_misses_nothing() {
    let Some(service) = Service::start("early") else { return };
    let all: Vec<OwnedFd> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..40).map(|_| scope.spawn(|| service.open())).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    ask(&all[0], &policy(MessageType::X_SPDADD, 1));
    assert_eq!(all.iter().filter(|fd| waiting(fd) == [ADDED]).count(), 40);
}

#[test]
fn programs_with_other_settings_are_told_apart() {
    let Some(service) = Service::start("settings") else { return };
    let plain = service.open();
    let aead = Hello { protocol: PROTOCOL, extras: Extras { aead: true, sha256_128: false } };
    let sockets = four();
    let (with, welcome) = service.say(&aead.to_bytes(), &sockets.each_ref());
    assert_eq!(welcome, Some(Welcome { protocol: PROTOCOL, errno: 0 }));
    // They hear of each other through the kernel.
    ask(&plain, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(
        receive(&with).and_then(|message| Header::read(&message)).map(|h| h.msg_type),
        Some(MessageType::X_SPDADD)
    );
}

#[test]
fn a_namespace_has_its_own_policies() {
    let Some(service) = Service::start("namespaces") else { return };
    let here = service.open();
    let elsewhere = std::thread::scope(|scope| {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            service.open()
        };
        scope.spawn(open).join().unwrap()
    });
    ask(&elsewhere, &policy(MessageType::X_SPDADD, 1));
    assert_eq!((waiting(&elsewhere), waiting(&here)), (vec![ADDED], vec![]));
    ask(&here, &policy(MessageType::X_SPDADD, 1));
    assert_eq!((waiting(&elsewhere), waiting(&here)), (vec![], vec![ADDED]));
    ask(&elsewhere, &header_only(MessageType::X_SPDDUMP, 0));
    assert_eq!(waiting(&elsewhere), [(MessageType::X_SPDDUMP, 0)]);
}

/// What a thread does that gives up every capability, or becomes another user; other threads keep theirs.
fn unprivileged<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_capabilities().unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// It is root's that the right to open a socket is refused to, for one who has lost CAP_NET_ADMIN, as AF_KEY's `socket` does.
#[test]
fn without_cap_net_admin_it_says_eperm() {
    let Some(service) = Service::start("eperm") else { return };
    let error = unprivileged(|| service.try_open().unwrap_err().errno());
    assert_eq!(error, libc::EPERM);
    // Whoever opens, and whoever asks, has to have it: neither alone is enough.
    let opened_without = unprivileged(|| netlink(false));
    prime(&opened_without);
    let asked_without = netlink(false);
    unprivileged(|| prime(&asked_without));
    for bad in [opened_without, asked_without, unprivileged(|| netlink(true))] {
        let rest = four();
        let sockets = [&bad, &rest[1], &rest[2], &rest[3]];
        assert_eq!(service.errno(&HELLO.to_bytes(), &sockets), Some(libc::EPERM));
    }
    let fd = service.open();
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&fd), [ADDED]);
}

/// setsockopt(2) waits for whoever holds the socket's lock, and who has a copy may for as long as he likes.
#[test]
fn no_buffer_of_a_socket_that_a_program_brought_is_set() {
    let Some(service) = Service::start("options") else { return };
    std::thread::scope(|scope| {
        let act = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let sockets = four();
            let buffers = || sockets.each_ref().map(|fd| getsockopt(fd, sockopt::RcvBuf).unwrap());
            let before = buffers();
            let (fd, welcome) = service.say(&HELLO.to_bytes(), &sockets.each_ref());
            assert_eq!(welcome, Some(Welcome { protocol: PROTOCOL, errno: 0 }));
            ask(&fd, &policy(MessageType::X_SPDADD, 1));
            assert!(receive(&fd).is_some());
            assert_eq!(buffers(), before);
        };
        scope.spawn(act).join().unwrap();
    });
}

/// Of what the kernel can say to a message, one thing alone shows the right: other messages are refused before it is asked for.
#[test]
fn no_other_answer_of_the_kernels_is_taken_for_the_primers() {
    let Some(service) = Service::start("primer") else { return };
    // Above XFRM_MSG_MAX: EINVAL. Without NLM_F_REQUEST: acknowledged, and nothing is done.
    for (at, value) in [(4, 0x7f_u16), (6, 4)] {
        let mut forged = PRIMER;
        forged[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        let one = || {
            let fd = netlink(false);
            assert_eq!(nix::sys::socket::send(fd.as_raw_fd(), &forged, MsgFlags::empty()), Ok(PRIMER.len()));
            fd
        };
        let sockets: [OwnedFd; 4] = unprivileged(|| std::array::from_fn(|_| one()));
        assert_eq!(service.errno(&HELLO.to_bytes(), &sockets.each_ref()), Some(libc::EINVAL));
    }
}

/// To a message that names its receiver Linux does not ask whether the socket's opener may.
#[test]
fn an_opener_without_the_right_is_refused_however_the_primer_was_sent() {
    let Some(service) = Service::start("opener") else { return };
    let sockets: [OwnedFd; 4] = unprivileged(|| std::array::from_fn(|_| netlink(false)));
    for fd in &sockets {
        let kernel = NetlinkAddr::new(0, 0);
        let sent = nix::sys::socket::sendto(fd.as_raw_fd(), &PRIMER, &kernel, MsgFlags::empty());
        assert_eq!(sent, Ok(PRIMER.len()));
    }
    assert_eq!(service.errno(&HELLO.to_bytes(), &sockets.each_ref()), Some(libc::EPERM));
}

/// A 64-bit kernel without XFRM_USER_COMPAT takes no request of theirs, but looks at their right before it says so.
#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_served() {
    let Some(service) = Service::start("32") else { return };
    let source = c::root().join("c-tests/checks/prime32.c");
    let Some(prime_32) = c::compile_32(&c::scratch("service_32"), "prime", &source) else { return };
    let prime = |command: &mut Command, sockets: &[OwnedFd; 2]| {
        let [first, second] = sockets.each_ref().map(|fd| fd.try_clone().unwrap());
        command.stdin(first).stdout(second).status()
    };
    let opened = || [netlink(false), netlink(false)];
    let sockets = opened();
    match prime(&mut Command::new(&prime_32), &sockets) {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => return println!("skipped: {error}"),
    }
    let (fd, welcome) = service.say(&HELLO.to_bytes(), &sockets.each_ref());
    assert_eq!(welcome, Some(Welcome { protocol: PROTOCOL, errno: 0 }));
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    let answer = receive(&fd).expect("an answer");
    assert_eq!(Header::read(&answer).map(|header| (header.msg_type, header.errno)), Some(ADDED));
    // Without the right, of the opener or of who asks, as programs of 64 bits.
    let opened_without = unprivileged(opened);
    assert!(prime(&mut Command::new(&prime_32), &opened_without).unwrap().success());
    let asked_without = opened();
    // Root's programs have all rights again that the bounding set has.
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(&prime_32);
    assert!(prime(&mut without, &asked_without).unwrap().success());
    for bad in [opened_without, asked_without] {
        assert_eq!(service.errno(&HELLO.to_bytes(), &bad.each_ref()), Some(libc::EPERM));
    }
}

/// Connected to another socket, it is not the kernel's.
#[test]
fn a_socket_that_is_connected_elsewhere_is_refused() {
    let Some(service) = Service::start("connected") else { return };
    let (sockets, other) = (four(), netlink(false));
    bind(other.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    let name: NetlinkAddr = getsockname(other.as_raw_fd()).unwrap();
    connect(sockets[1].as_raw_fd(), &name).unwrap();
    assert_eq!(service.errno(&HELLO.to_bytes(), &sockets.each_ref()), Some(libc::EINVAL));
}

/// It cannot have the events of a namespace of others: the socket for them is made by pfkeyd, or comes from who may.
#[test]
fn events_socket_of_who_may_not_is_refused() {
    let Some(service) = Service::start("events") else { return };
    let error = std::thread::scope(|scope| {
        let act = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let [requests, dump, _, own] = four();
            let events = unprivileged(|| netlink(true));
            service.errno(&HELLO.to_bytes(), &[&requests, &dump, &events, &own])
        };
        scope.spawn(act).join().unwrap()
    });
    assert_eq!(error, Some(libc::EPERM));
}

#[test]
fn what_is_no_hello_is_refused_and_others_are_served() {
    let Some(service) = Service::start("garbage") else { return };
    let hello = HELLO.to_bytes();
    let [a, b, c, d] = &four();
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let udp = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let unix = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let route =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).unwrap();
    for bad in [&pipe, &udp, &unix, &route, &netlink(false)] {
        assert_eq!(service.errno(&hello, &[bad, b, c, d]), Some(libc::EINVAL));
    }
    let two: [OwnedFd; 2] = [netlink(true), netlink(true)];
    assert_eq!(service.errno(&hello, &[&two[0], &pipe, c, d]), Some(libc::EINVAL));
    assert_eq!(service.errno(&hello, &[]), Some(libc::EINVAL));
    assert_eq!(service.errno(&hello, &[&two[1], b, c]), Some(libc::EINVAL));
    let five = [a, b, c, d, a];
    assert_eq!(service.errno(&hello, &five), Some(libc::EINVAL));
    assert_eq!(service.errno(b"short", &[]), Some(libc::EINVAL));
    assert_eq!(service.errno(&[0xff; 4096], &[]), Some(libc::EINVAL));
    assert_eq!(service.errno(&header_only(MessageType::REGISTER, 3), &[]), Some(libc::EINVAL));
    let newer = Hello { protocol: PROTOCOL + 1, ..HELLO };
    assert_eq!(service.errno(&newer.to_bytes(), &[a, b, c, d]), Some(libc::EPROTONOSUPPORT));
    // Sockets of two namespaces.
    let other = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        netlink(true)
    });
    assert_eq!(service.errno(&hello, &[a, &other.join().unwrap(), c, d]), Some(libc::EINVAL));
    let fd = service.open();
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&fd), [ADDED]);
}

#[test]
fn who_connects_and_says_nothing_is_given_up() {
    let Some(service) = Service::start("silence") else { return };
    let silent = service.connect();
    let began = Instant::now();
    let fd = service.open();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(receive(&silent), None);
    assert!(began.elapsed() > Duration::from_secs(9));
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&fd), [ADDED]);
}

/// A program that kept copies of its sockets takes its answers, makes the sockets block and connects them elsewhere, and floods
/// them. Its requests fail or not; another's are all answered.
#[test]
fn who_keeps_copies_of_its_sockets_harms_itself_only() {
    let Some(service) = Service::start("thief") else { return };
    let sockets = four();
    let (thief, welcome) = service.say(&HELLO.to_bytes(), &sockets.each_ref());
    assert_eq!(welcome, Some(Welcome { protocol: PROTOCOL, errno: 0 }));
    let honest = service.open();
    let flags = OFlag::from_bits_retain(fcntl(&sockets[0], FcntlArg::F_GETFL).unwrap());
    for fd in &sockets[..2] {
        fcntl(fd, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK)).unwrap();
        // To a socket whose queue is full soon, and for which a sender waits.
        let full = netlink(false);
        bind(full.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        let name: NetlinkAddr = getsockname(full.as_raw_fd()).unwrap();
        connect(fd.as_raw_fd(), &name).unwrap();
        std::mem::forget(full);
    }
    let began = Instant::now();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let kernel = NetlinkAddr::new(0, 0);
        for fd in &sockets[..2] {
            scope.spawn(move || {
                let mut bytes = [0; 4096];
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = nix::sys::socket::sendto(fd.as_raw_fd(), &PRIMER, &kernel, MsgFlags::MSG_DONTWAIT);
                    let _ = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
                }
            });
        }
        for number in 1..200 {
            ask(&thief, &policy(MessageType::X_SPDADD, number * 2));
            ask(&thief, &header_only(MessageType::X_SPDDUMP, 0));
            ask(&honest, &policy(MessageType::X_SPDADD, number * 2 + 1));
            let own = waiting_headers(&honest).into_iter().find(|header| header.seq == number * 2 + 1);
            assert_eq!(own.map(|own| (own.msg_type, own.errno)), Some(ADDED), "{number}");
            waiting(&thief);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    ask(&honest, &header_only(MessageType::X_SPDDUMP, 0));
    // What the other asked for last may be done only now.
    let dumped = std::iter::from_fn(|| receive(&honest)).map(|message| Header::read(&message).unwrap());
    let mut dumped = dumped.filter(|header| header.msg_type == MessageType::X_SPDDUMP);
    let errors = dumped.by_ref().take_while(|header| header.seq != 0).inspect(|header| assert_eq!(header.errno, 0));
    assert!(errors.count() >= 198);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// A dump that cannot begin, because its socket is connected elsewhere, does not cost the session its only one.
#[test]
fn after_a_dump_that_could_not_begin_the_next_can() {
    let Some(service) = Service::start("dump") else { return };
    let (sockets, full) = (four(), netlink(false));
    let (fd, welcome) = service.say(&HELLO.to_bytes(), &sockets.each_ref());
    assert_eq!(welcome, Some(Welcome { protocol: PROTOCOL, errno: 0 }));
    let answer = |request: &[u8]| {
        ask(&fd, request);
        receive(&fd).and_then(|bytes| Header::read(&bytes)).map(|header| (header.msg_type, header.errno))
    };
    assert_eq!(answer(&policy(MessageType::X_SPDADD, 1)), Some(ADDED));
    bind(full.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    let elsewhere: NetlinkAddr = getsockname(full.as_raw_fd()).unwrap();
    connect(sockets[1].as_raw_fd(), &elsewhere).unwrap();
    drop(full);
    let dump = header_only(MessageType::X_SPDDUMP, 0);
    assert_eq!(answer(&dump), Some((MessageType::X_SPDDUMP, libc::ECONNREFUSED as u8)));
    connect(sockets[1].as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    assert_eq!(answer(&dump), Some((MessageType::X_SPDDUMP, 0)));
}

/// Sockets whose close() waits for an hour hold nobody up, wherever they wait: in a hello, in what is none, behind a hello that
/// was refused or taken.
#[test]
fn descriptors_whose_close_waits_hold_nobody_up() {
    let Some(service) = Service::start("lingering") else { return };
    let mut lingering = Vec::new();
    let mut send_some = |fd: &OwnedFd, bytes: &[u8]| {
        // Where the loopback interface is.
        let sockets = std::thread::scope(|scope| {
            let make = || {
                setns(std::fs::File::open("/proc/self/ns/net").unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                Lingering::new(4)
            };
            scope.spawn(make).join().unwrap()
        });
        let Some(mut sockets) = sockets else { return };
        sockets.send(fd, bytes);
        lingering.push(sockets);
    };
    let is_served = |what: &str| {
        let began = Instant::now();
        for _ in 0..3 {
            let fd = service.open();
            ask(&fd, &header_only(MessageType::X_SPDFLUSH, 0));
            assert_eq!(waiting(&fd), [(MessageType::X_SPDFLUSH, 0)]);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
    };
    let hello = HELLO.to_bytes();
    for _ in 0..12 {
        let fd = service.connect();
        send_some(&fd, &hello);
        assert_eq!(receive(&fd).and_then(|bytes| Welcome::read(&bytes)).map(|w| w.errno), Some(libc::EINVAL as u32));
    }
    is_served("in a hello");
    let fd = service.connect();
    send_some(&fd, b"anything");
    drop(fd);
    is_served("in what is none");
    // Both are there before the first is seen.
    kill(service.guardian(), Signal::SIGSTOP).unwrap();
    let fd = service.connect();
    nix::sys::socket::send(fd.as_raw_fd(), &hello, MsgFlags::empty()).unwrap();
    send_some(&fd, &hello);
    drop(fd);
    kill(service.guardian(), Signal::SIGCONT).unwrap();
    is_served("behind a hello that is refused");
    let fd = service.open();
    send_some(&fd, &hello);
    drop(fd);
    is_served("in a session");
    let fd = service.open();
    kill(service.worker(), Signal::SIGKILL).unwrap();
    send_some(&fd, &hello);
    drop(fd);
    is_served("in a session whose worker died");
}

/// The worker is killed again and again: sessions go on, in every namespace, and new ones come.
#[test]
fn sessions_outlive_the_worker() {
    let Some(service) = Service::start("worker") else { return };
    let here = service.open();
    let elsewhere = std::thread::scope(|scope| {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            [service.open(), service.open()]
        };
        scope.spawn(open).join().unwrap()
    });
    ask(&elsewhere[0], &header_only(MessageType::X_PROMISC, 1));
    waiting(&elsewhere[0]);
    waiting(&elsewhere[1]);
    for number in 1..6 {
        kill(service.worker(), Signal::SIGKILL).unwrap();
        ask(&here, &policy(MessageType::X_SPDADD, number));
        assert_eq!(receive(&here).and_then(|bytes| Header::read(&bytes)).map(|h| h.errno), Some(0), "{number}");
        ask(&elsewhere[1], &policy(MessageType::X_SPDADD, number));
        assert_eq!(receive(&elsewhere[1]).and_then(|bytes| Header::read(&bytes)).map(|h| h.errno), Some(0));
        assert_eq!(waiting(&elsewhere[0]).len(), 3, "the request, a copy, the broadcast");
        ask(&elsewhere[1], &header_only(MessageType::X_SPDDUMP, 0));
        assert_eq!(waiting(&elsewhere[1]).len(), number as usize);
        waiting(&elsewhere[0]);
        let new = service.open();
        ask(&new, &header_only(MessageType::X_SPDDUMP, 0));
        assert_eq!(waiting(&new).len(), number as usize);
    }
}

/// A thousand sockets. Printed for whoever wants to compare; a busy machine is slow.
#[test]
fn a_thousand_sockets_are_served() {
    let Some(service) = Service::start("thousand") else { return };
    let resident = || -> u64 {
        let guardian = children(service.child.id() as i32);
        let all = guardian.iter().flat_map(|guardian| children(*guardian)).chain(guardian.clone());
        let kilobytes = |pid: i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
        };
        all.map(kilobytes).sum()
    };
    let first = service.open();
    let before = resident();
    let began = Instant::now();
    let all: Vec<OwnedFd> = (0..1000).map(|_| service.open()).collect();
    let took = began.elapsed();
    println!("1000 sockets: {:?} each, {} KiB of pfkeyd's for all", took / 1000, resident().saturating_sub(before));
    ask(&first, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(all.iter().filter(|fd| waiting(fd) == [ADDED]).count(), 1000);
    let more: Vec<_> = (0..30).map(|_| service.try_open().map_err(|error| error.errno())).collect();
    let refused: Vec<_> = more.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.iter().all(|errno| **errno == libc::ENOBUFS), "{refused:?}");
    drop(all);
    // What they had is free again, as soon as pfkeyd has heard of it.
    let again = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        service.try_open().is_ok()
    });
    assert!(again);
}

/// One user who may connect, as everybody may, does not keep others out.
#[test]
fn one_user_cannot_take_all_places() {
    let Some(service) = Service::start("places") else { return };
    let path = service.path();
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let silent = std::thread::spawn(move || {
        // SAFETY: no pointers; the kernel's call changes this thread only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 4242, 4242, 4242) }, 0);
        let open = |_| {
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
            connect(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).map(|()| fd)
        };
        (0..400).map(open).collect::<Result<Vec<_>, _>>()
    });
    let silent = silent.join().unwrap().expect("the socket is for all users");
    let fd = service.open();
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&fd), [ADDED]);
    let told = silent.iter().filter(|fd| waiting(fd) == [(MessageType::RESERVED, libc::ENOBUFS as u8)]);
    assert_eq!(told.count(), 400 - 128);
}

/// They may be silent, and root's, who is only root in a container.
#[test]
fn silent_clients_of_root_keep_nobody_out() {
    let Some(service) = Service::start("silents") else { return };
    let silent: Vec<OwnedFd> = (0..1100).map(|_| service.connect()).collect();
    let began = Instant::now();
    let fd = service.open();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ask(&fd, &policy(MessageType::X_SPDADD, 1));
    assert_eq!(waiting(&fd), [ADDED]);
    assert!(silent.iter().filter(|fd| waiting(fd) == [(MessageType::RESERVED, libc::ENOBUFS as u8)]).count() >= 900);
}

/// Root in a container is root, too.
#[test]
fn one_namespace_cannot_take_all_places() {
    let Some(service) = Service::start("container") else { return };
    let elsewhere = std::thread::scope(|scope| {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            (0..129).map(|_| service.try_open().map_err(|error| error.errno())).collect::<Vec<_>>()
        };
        scope.spawn(open).join().unwrap()
    });
    assert_eq!(elsewhere.iter().position(|one| one.is_err()), Some(128));
    assert_eq!(elsewhere[128].as_ref().err(), Some(&libc::ENOBUFS));
    service.open();
}

/// A user at the limit, while others come and go: it is said once.
#[test]
fn refused_clients_do_not_fill_the_log() {
    let Some(service) = Service::start("log") else { return };
    let path = service.path();
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            // SAFETY: no pointers; the kernel's call changes this thread only.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 4242, 4242, 4242) }, 0);
            let _held: Vec<OwnedFd> = (0..128).map(|_| service.connect()).collect();
            for _ in 0..200 {
                assert!(receive(&service.connect()).is_some(), "there is no place for it");
            }
        });
        while !user.is_finished() {
            service.open();
        }
        user.join().unwrap();
    });
    assert_eq!(service.log().lines().count(), 1, "{}", service.log());
}

#[test]
fn its_directory_is_made_and_one_that_others_can_write_to_is_refused() {
    let Some(service) = Service::start("directory") else { return };
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&service.directory), mode(&service.path())), (0o755, 0o666));
    let open = service.directory.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new(c::program("pfkeyd")).arg("--service").arg(open.join("s")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("writable by others"), "{output:?}");
}

/// Root of pfkeyd's network namespace is told of all sessions, root of another, as a container's is, of that one's, and a user of
/// his own.
#[test]
fn of_a_session_hears_who_may() {
    let Some(service) = Service::start("question") else { return };
    let _here = service.open();
    let sessions = || pfkey_rs::socket::ask(&service.path()).expect("an answer").sessions;
    let (_elsewhere, theirs) = std::thread::scope(|scope| {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert_eq!(sessions(), []);
            (service.open(), sessions())
        };
        scope.spawn(open).join().unwrap()
    });
    let report = pfkey_rs::socket::ask(&service.path()).unwrap();
    assert_eq!((report.version.as_str(), report.pid), (env!("CARGO_PKG_VERSION"), service.child.id()));
    let [here, elsewhere] = report.sessions[..] else { panic!("{report:?}") };
    assert_eq!((here.pid, here.uid, here.namespace), (std::process::id(), 0, report.namespace));
    assert_eq!(theirs, [elsewhere]);
    std::thread::scope(|scope| {
        let ask = || {
            // SAFETY: no pointers; the kernel's call changes this thread only.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 4242, 4242, 4242) }, 0);
            assert_eq!(sessions(), []);
        };
        scope.spawn(ask).join().unwrap();
    });
}

/// A question that carries something is none, and a thousand of them take no place.
#[test]
fn questions_disturb_nobody() {
    let Some(service) = Service::start("questions") else { return };
    let (pipe, _end) = nix::unistd::pipe().unwrap();
    assert_eq!(service.errno(&QUESTION, &[&pipe]), Some(libc::EINVAL));
    assert_eq!(service.errno(&QUESTION, &[&netlink(true)]), Some(libc::EINVAL));
    for _ in 0..1100 {
        assert!(pfkey_rs::socket::ask(&service.path()).is_ok());
    }
    service.open();
}

/// `auto` is the service where its socket is, and a private pfkeyd where it is not, or where it speaks another protocol.
#[test]
fn auto_finds_it() {
    if Service::start("auto").is_none() || pfkey_rs::socket::try_af_key().is_ok() {
        return eprintln!("skipped: it needs root, XFRM, and a kernel without AF_KEY");
    }
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no mount namespace, as in a chroot whose root is no mount point");
    }
    let script = "set -e
        mount --make-rprivate /; mount -t tmpfs none /run
        pfkey policy add 10.0.1.0/24 10.0.2.0/24 any -P out none
        mkfifo /run/ready
        pfkeyd --status 3 --service 3>/run/ready & service=$!
        head -c 4 /run/ready >/run/status
        pfkey doctor | grep -o 'backend.*'
        pfkey monitor >/run/seen & monitor=$!
        until pfkey doctor >/run/doctor; grep \"session.*pid=$monitor \" /run/doctor >/run/session; do sleep 0.1; done
        grep -o 'why=.*' /run/session
        sed -n 's/.*what=service/service/p' /run/doctor
        kill $monitor $service; wait $service
        pfkey doctor | grep -o 'backend.*'";
    let programs = Path::new(c::program("pfkeyd")).parent().unwrap();
    c::program("pfkey");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("timeout").args(["60", "unshare", "-m", "sh", "-c", script]).env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert!(output.status.success() && lines.len() == 4, "{output:?}");
    assert!(lines[0].contains("the machine's pfkeyd"), "{text}");
    assert!(lines[1].contains("pfkey, process ") && lines[1].contains("user 0"), "{text}");
    assert!(lines[2].contains(concat!("pfkeyd ", env!("CARGO_PKG_VERSION"), ", process ")), "{text}");
    assert!(lines[3].contains("a private pfkeyd"), "{text}");
}
