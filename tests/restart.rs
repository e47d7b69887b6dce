//! The machine's pfkeyd is stopped and started again by systemd: its sessions wait in systemd's file descriptor store and go on.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, recvmsg,
    sendmsg, socket, socketpair,
};
use pfkey_rs::socket::report::Counted;
use pfkey_rs::socket::{Backend, open_with, send, send_batch};
use pfkey_rs::wire::hello::QUESTION;
use pfkey_rs::wire::layout::SadbXPolicy;
use pfkey_rs::wire::{BATCH, ExtensionType, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

#[path = "support/c.rs"]
mod c;
#[path = "support/lingering.rs"]
mod lingering;
#[path = "support/systemd.rs"]
mod systemd;
#[path = "support/waiting.rs"]
mod waiting;

use lingering::Lingering;
use systemd::Systemd;
use waiting::{waiting, waiting_headers};

const EIO: u8 = libc::EIO as u8;
const EEXIST: u8 = libc::EEXIST as u8;
const ADDED: (MessageType, u8) = (MessageType::X_SPDADD, 0);

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

fn header_only(msg_type: MessageType, satype: u8, seq: u32) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, SaType(satype), seq, std::process::id());
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

/// A message, waited for as long as a busy machine may need; `None` at the end.
fn receive(fd: &OwnedFd) -> Option<Vec<u8>> {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_ne!(poll(&mut polled, PollTimeout::from(20_000_u16)), Ok(0), "silence");
    let mut bytes = vec![0; 1 << 16];
    let len = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
    bytes.truncate(len);
    (len > 0).then_some(bytes)
}

fn header(fd: &OwnedFd) -> Header {
    receive(fd).and_then(|message| Header::read(&message)).expect("a message")
}

/// Asks, and gives what waits then.
fn ask(fd: &OwnedFd, message: &[u8]) -> Vec<(MessageType, u8)> {
    send(fd.as_raw_fd(), message).unwrap();
    waiting(fd)
}

/// Whether a connection is at its end.
fn is_over(fd: &OwnedFd) -> bool {
    receive(fd).is_none()
}

/// Adds policies with the numbers below this.
fn add(fd: &OwnedFd, count: u32) {
    let all: Vec<u32> = (1..count).collect();
    for some in all.chunks(64) {
        let messages = some.iter().map(|number| policy(MessageType::X_SPDADD, *number));
        send_batch(fd.as_raw_fd(), &[BATCH.to_vec()].into_iter().chain(messages).flatten().collect::<Vec<_>>())
            .unwrap();
        assert_eq!(waiting(fd), vec![ADDED; some.len()]);
    }
}

/// Numbers of what a dump lists, and the errno of its end.
fn dump(fd: &OwnedFd) -> (usize, u8) {
    let mut count = 0;
    loop {
        let header = header(fd);
        assert_eq!(header.msg_type, MessageType::X_SPDDUMP);
        if header.errno != 0 {
            return (count, header.errno);
        }
        count += 1;
        if header.seq == 0 {
            return (count, 0);
        }
    }
}

/// The sessions that it has.
fn sessions(systemd: &Systemd) -> usize {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(&systemd.directory.join("s")).unwrap()).unwrap();
    nix::sys::socket::send(fd.as_raw_fd(), &QUESTION, MsgFlags::empty()).unwrap();
    let said = String::from_utf8(receive(&fd).expect("an answer")).unwrap();
    said.lines().filter(|line| line.starts_with("session")).count()
}

/// Until those are closed whose clients have gone.
fn wait_for_sessions(systemd: &Systemd, count: usize) {
    let began = Instant::now();
    while sessions(systemd) != count {
        assert!(began.elapsed() < Duration::from_secs(20), "{} sessions", sessions(systemd));
    }
}

#[test]
fn sessions_are_what_they_were() {
    let Some(mut systemd) = Systemd::new("sessions") else { return };
    systemd.start("");
    let (registered, promiscuous, plain) = (systemd.open(), systemd.open(), systemd.open());
    assert_eq!(ask(&registered, &header_only(MessageType::REGISTER, 3, 1)), [(MessageType::REGISTER, 0)]);
    assert_eq!(ask(&promiscuous, &header_only(MessageType::X_PROMISC, 1, 1)), [(MessageType::X_PROMISC, 0); 2]);
    // Everybody hears it.
    assert_eq!([waiting(&registered), waiting(&plain)], [[(MessageType::X_PROMISC, 0)], [(MessageType::X_PROMISC, 0)]]);
    for _ in 0..3 {
        systemd.restart();
        assert_eq!(systemd.store.len(), 0, "it has taken them back");
        assert_eq!(sessions(&systemd), 3);
        assert_eq!(ask(&registered, &header_only(MessageType::REGISTER, 3, 2)), [(MessageType::REGISTER, EEXIST)]);
        waiting(&promiscuous);
        assert_eq!(ask(&plain, &policy(MessageType::X_SPDADD, 1)), [ADDED]);
        assert_eq!(waiting(&registered), [ADDED]);
        assert_eq!(waiting(&promiscuous), [ADDED, ADDED, ADDED], "the request, a copy, the broadcast");
        assert_eq!(ask(&plain, &policy(MessageType::X_SPDDELETE, 1)), [(MessageType::X_SPDDELETE, 0)]);
        assert_eq!(waiting(&registered).len(), 1);
        waiting(&promiscuous);
    }
    drop(plain);
    systemd.restart();
    wait_for_sessions(&systemd, 2);
    assert_eq!(ask(&systemd.open(), &policy(MessageType::X_SPDADD, 1)), [ADDED]);
}

/// What a session's program wants of all its SAs and policies, and the world that it is in.
#[test]
fn settings_are_what_they_were() {
    let Some(mut systemd) = Systemd::new("settings") else { return };
    systemd.start("");
    let session = systemd.open();
    let settings = settings_message("mark=7/0xff");
    assert_eq!(ask(&session, &settings), [(MessageType::X_XFRM, 0)]);
    assert_eq!(ask(&session, &policy(MessageType::X_SPDADD, 1)), [ADDED]);
    systemd.restart();
    // In a world of its own it lists its own only.
    let other = systemd.open();
    assert_eq!(ask(&other, &policy(MessageType::X_SPDADD, 2)), [ADDED]);
    assert_eq!(waiting(&session), []);
    send(session.as_raw_fd(), &header_only(MessageType::X_SPDDUMP, 0, 5)).unwrap();
    assert_eq!(dump(&session), (1, 0));
    assert_eq!(ask(&session, &policy(MessageType::X_SPDADD, 1)), [(MessageType::X_SPDADD, EEXIST)]);
}

/// What a session loses because it does not read, workers that die, and restarts.
#[test]
fn what_was_counted_goes_on() {
    let Some(mut systemd) = Systemd::new("counted") else { return };
    systemd.start("");
    let counted =
        |systemd: &Systemd| pfkey_rs::socket::ask(&systemd.directory.join("s")).unwrap().counted.expect("counters");
    let (asks, deaf) = (systemd.open(), systemd.open());
    assert_eq!(ask(&asks, &policy(MessageType::X_SPDADD, 0)), [ADDED]);
    assert_eq!(counted(&systemd), Counted::default());
    let mut number = 0;
    while counted(&systemd).dropped == 0 {
        for _ in 0..500 {
            number += 1;
            assert_eq!(ask(&asks, &policy(MessageType::X_SPDADD, number)), [ADDED]);
        }
        assert!(number < 100_000, "its queue has an end");
    }
    let dropped = counted(&systemd).dropped;
    assert_eq!(waiting(&deaf).len() as u64 + dropped, u64::from(number) + 1, "every message is here or counted");
    let worker = systemd.worker();
    kill(worker, Signal::SIGKILL).unwrap();
    assert_eq!(ask(&asks, &policy(MessageType::X_SPDADD, 0)), [(MessageType::X_SPDADD, EEXIST)]);
    let expected = Counted { dropped, workers: 1, ..Counted::default() };
    assert_eq!(counted(&systemd), expected);
    for restarts in 1..3 {
        systemd.restart();
        assert_eq!(systemd.store.len(), 0, "it has taken them back");
        assert_eq!(counted(&systemd), Counted { restarts, ..expected });
    }
}

/// X_XFRM with a text (`pfkey_wire::xfrm::settings`).
fn settings_message(text: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    pfkey_rs::wire::xfrm::push(&mut attributes, pfkey_rs::wire::xfrm::settings::TEXT, text.as_bytes());
    let mut buffer = [0; 512];
    let header = Header::new(MessageType::X_XFRM, pfkey_rs::wire::xfrm::settings::SETTINGS, 1, std::process::id());
    let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
    writer.xfrm(0, 0, &attributes);
    writer.finish().expect("it fits").to_vec()
}

#[test]
fn what_is_asked_while_it_is_stopped_is_done_and_answered_once() {
    let Some(mut systemd) = Systemd::new("asked") else { return };
    systemd.start("");
    let (asks, hears) = (systemd.open(), systemd.open());
    systemd.end();
    std::thread::scope(|scope| {
        // It returns when the answer waits.
        let asked = scope.spawn(|| ask(&asks, &policy(MessageType::X_SPDADD, 1)));
        while pfkey_rs::socket::is_settled(asks.as_fd()) {
            std::thread::yield_now();
        }
        systemd.start("");
        assert_eq!(asked.join().unwrap(), [ADDED]);
    });
    assert_eq!(waiting(&hears), [ADDED]);
    assert_eq!(ask(&asks, &policy(MessageType::X_SPDADD, 1)), [(MessageType::X_SPDADD, EEXIST)]);
}

#[test]
fn an_answer_that_waits_goes_on_waiting() {
    let Some(mut systemd) = Systemd::new("answer") else { return };
    systemd.start("");
    let session = systemd.open();
    send(session.as_raw_fd(), &policy(MessageType::X_SPDADD, 1)).unwrap();
    systemd.restart();
    assert_eq!(waiting(&session), [ADDED]);
}

/// Nobody knows any more what was left of it: it ends in an error, and the next is whole.
#[test]
fn a_dump_that_waits_for_its_reader_ends_in_an_error() {
    let Some(mut systemd) = Systemd::new("dump") else { return };
    systemd.start("");
    let (session, other) = (systemd.open(), systemd.open());
    add(&session, 12_000);
    waiting(&other);
    send(session.as_raw_fd(), &header_only(MessageType::X_SPDDUMP, 0, 5)).unwrap();
    systemd.restart();
    assert_eq!(ask(&other, &policy(MessageType::X_SPDADD, 12_000)), [ADDED]);
    let (count, errno) = dump(&session);
    assert_eq!(errno, EIO);
    assert!(count > 100 && count < 11_999, "{count}");
    waiting(&session);
    send(session.as_raw_fd(), &header_only(MessageType::X_SPDDUMP, 0, 6)).unwrap();
    assert_eq!(dump(&session), (12_000, 0));
}

/// Each request and each batch is answered as if nothing were, again and again.
#[test]
fn requests_go_on_over_restarts() {
    let Some(mut systemd) = Systemd::new("requests") else { return };
    systemd.start("");
    let (single, many) = (systemd.open(), systemd.open());
    let stop = AtomicBool::new(false);
    let [singles, batches] = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut number = 0x80_0000;
            while !stop.load(Relaxed) {
                number += 1;
                send(single.as_raw_fd(), &policy(MessageType::X_SPDADD, number)).unwrap();
                while header(&single).seq != number {}
            }
            number
        });
        let asks_many = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Relaxed) && number < 0x7f_0000 {
                // So many that it has several turns.
                let batch = (number + 1..=number + 500).flat_map(|number| policy(MessageType::X_SPDADD, number));
                send_batch(many.as_raw_fd(), &BATCH.into_iter().chain(batch).collect::<Vec<_>>()).unwrap();
                let own = waiting_headers(&many).into_iter().filter(|header| header.seq < 0x80_0000);
                let own: Vec<_> = own.map(|header| (header.seq, header.errno)).collect();
                assert_eq!(own, (number + 1..=number + 500).map(|number| (number, 0)).collect::<Vec<_>>());
                number += 500;
            }
            number
        });
        for _ in 0..10 {
            systemd.restart();
        }
        stop.store(true, Relaxed);
        [asks.join().unwrap() - 0x80_0000, asks_many.join().unwrap()]
    });
    waiting(&single);
    send(single.as_raw_fd(), &header_only(MessageType::X_SPDDUMP, 0, 1)).unwrap();
    assert_eq!(dump(&single), ((singles + batches) as usize, 0));
}

/// In a namespace where pfkeyd can open nothing itself, too: what the kernel reports meanwhile waits.
#[test]
fn what_happens_while_it_is_stopped_is_heard() {
    let Some(mut systemd) = Systemd::new("meanwhile") else { return };
    systemd.start("");
    let here = systemd.open();
    std::thread::scope(|scope| {
        let act = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let session = systemd.open();
            assert_eq!(ask(&session, &policy(MessageType::X_SPDADD, 1)), [ADDED]);
            systemd.end();
            let private = open_with(&Backend::Xfrm).unwrap();
            assert_eq!(ask(&private, &policy(MessageType::X_SPDADD, 2)), [ADDED]);
            systemd.start("");
            let news = header(&session);
            assert_eq!((news.msg_type, news.seq, news.errno), (MessageType::X_SPDADD, 2, 0));
            assert_eq!(ask(&session, &policy(MessageType::X_SPDADD, 2)), [(MessageType::X_SPDADD, EEXIST)]);
            assert_eq!(ask(&session, &policy(MessageType::X_SPDDELETE, 2)), [(MessageType::X_SPDDELETE, 0)]);
        };
        scope.spawn(act).join().unwrap();
    });
    assert_eq!(waiting(&here), []);
}

#[test]
fn whoever_opens_meanwhile_is_served() {
    let Some(mut systemd) = Systemd::new("openers") else { return };
    systemd.start("");
    let backend = Backend::Service(systemd.directory.join("s"));
    let stop = AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut all = Vec::new();
                    while !stop.load(Relaxed) && all.len() < 100 {
                        all.push(open_with(&backend).unwrap_or_else(|error| panic!("{error}")));
                    }
                    all
                })
            })
            .collect();
        for _ in 0..5 {
            systemd.restart();
        }
        stop.store(true, Relaxed);
        openers.into_iter().flat_map(|opener| opener.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(sessions(&systemd), opened.len());
    assert_eq!(ask(&opened[0], &policy(MessageType::X_SPDADD, 1)), [ADDED]);
    assert!(opened[1..].iter().all(|fd| waiting(fd) == [ADDED]));
}

/// What it had asked for before is done all the same.
#[test]
fn who_goes_while_it_is_stopped_is_gone() {
    let Some(mut systemd) = Systemd::new("gone") else { return };
    systemd.start("");
    let (goes, stays) = (systemd.open(), systemd.open());
    systemd.end();
    let request = policy(MessageType::X_SPDADD, 1);
    assert_eq!(nix::sys::socket::send(goes.as_raw_fd(), &request, MsgFlags::empty()), Ok(request.len()));
    drop(goes);
    systemd.start("");
    assert_eq!(header(&stays).msg_type, MessageType::X_SPDADD);
    wait_for_sessions(&systemd, 1);
}

/// As a pfkeyd of another version could have left them.
#[test]
fn sessions_of_another_format_end() {
    let Some(mut systemd) = Systemd::new("format") else { return };
    systemd.start("");
    let session = systemd.open();
    systemd.end();
    let state = systemd.store.iter_mut().find(|(name, _)| name.starts_with("state-")).expect("it is kept");
    state.0 = "state-4000000000".to_owned();
    systemd.start("");
    assert!(is_over(&session));
    assert!(systemd.log().contains("they are of format 4000000000"), "{}", systemd.log());
    assert_eq!(systemd.store.len(), 0);
    assert_eq!(ask(&systemd.open(), &policy(MessageType::X_SPDADD, 1)), [ADDED]);
}

#[test]
fn sessions_that_the_store_has_no_room_for_end() {
    let Some(mut systemd) = Systemd::new("limit") else { return };
    systemd.start("FDSTORE=1");
    let session = systemd.open();
    systemd.restart();
    assert!(is_over(&session));
    let log = systemd.log();
    assert!(log.contains("1 sessions end: they cannot be kept: FileDescriptorStoreMax= is too small"), "{log}");
    assert_eq!(ask(&systemd.open(), &policy(MessageType::X_SPDADD, 1)), [ADDED]);
}

/// systemd before 254 does not say how many it keeps, and keeps no more.
#[test]
fn sessions_of_which_not_all_was_kept_end() {
    for part in ["state-", "clients-"] {
        let Some(mut systemd) = Systemd::new(part) else { return };
        systemd.start("");
        let session = systemd.open();
        systemd.end();
        systemd.store.retain(|(name, _)| !name.starts_with(part));
        systemd.start("");
        assert!(is_over(&session));
        assert_eq!(ask(&systemd.open(), &policy(MessageType::X_SPDADD, 1)), [ADDED]);
    }
}

/// What is said in the link of a client or an engine, by numbers of `link.rs`, and with what.
type Said = ([u32; 2], Vec<OwnedFd>);
const CLIENT: u32 = 1;
const ENGINE: u32 = 11;

/// Changes what the link says.
fn say_otherwise(systemd: &mut Systemd, change: impl FnOnce(&mut Vec<Said>)) {
    let (_, link) = systemd.store.iter_mut().find(|(name, _)| name == "clients-1").expect("it is kept");
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 8];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([RawFd; 8]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(link.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
        let rights = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        // SAFETY: the kernel has just made them for this process.
        let fds = rights.into_iter().flatten().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect();
        if message.bytes == 0 {
            break;
        }
        let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        all.push(([number(0), number(4)], fds));
    }
    change(&mut all);
    let (to, other) = pair();
    *link = other;
    for (numbers, fds) in all {
        let bytes = numbers.map(u32::to_ne_bytes).concat();
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[] } else { &rights[..] };
        sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::empty(), None).unwrap();
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

#[test]
fn a_store_that_holds_anything_else_disturbs_nobody() {
    let Some(mut systemd) = Systemd::new("rubbish") else { return };
    systemd.start("");
    let sessions = [(); 5].map(|()| systemd.open());
    systemd.end();
    let zero = || OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
    say_otherwise(&mut systemd, |all| {
        assert_eq!(
            all.iter().map(|(numbers, fds)| (numbers[0], fds.len())).collect::<Vec<_>>(),
            [(ENGINE, 2), (CLIENT, 3), (CLIENT, 3), (CLIENT, 3), (CLIENT, 3), (CLIENT, 3)]
        );
        let copy = all[1].1[1].try_clone().unwrap();
        // One without its sockets, one with too few, one with another, one twice; the last is whole.
        all[1].1.truncate(1);
        all[2].1.truncate(2);
        all[3].1[1] = zero();
        all[4].0[1] = all[5].0[1];
        all.swap(4, 5);
        all.extend([
            ([CLIENT, 1023], vec![]),
            ([CLIENT, 1023], vec![zero()]),
            ([CLIENT, 1024], vec![pair().0]),
            ([CLIENT, u32::MAX], vec![pair().0]),
            ([CLIENT, 77], vec![copy, zero(), zero()]),
            ([ENGINE, 4], vec![]),
            ([ENGINE, 8], vec![zero(), zero()]),
            ([ENGINE, 12], vec![zero(), zero(), zero(), zero(), zero(), zero()]),
            ([0, 0], vec![zero()]),
            ([5, 3], vec![zero()]),
            ([99, 99], vec![zero()]),
        ]);
    });
    let stream = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap().0;
    let strange = [
        ("stored", zero()),
        ("", zero()),
        ("state-", zero()),
        ("state-1", zero()),
        ("state-2", zero()),
        ("clients-1", pair().0),
        ("clients-2", stream),
        ("clients-x", zero()),
    ];
    systemd.store.extend(strange.map(|(name, fd)| (name.to_owned(), fd)));
    systemd.start("");
    assert!(sessions[..4].iter().all(is_over));
    assert_eq!(ask(&sessions[4], &policy(MessageType::X_SPDADD, 1)), [ADDED]);
    assert_eq!(systemd.store.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [""], "nobody can name it");
    systemd.restart();
    assert_eq!(ask(&sessions[4], &policy(MessageType::X_SPDADD, 2)), [ADDED]);
    let new = systemd.open();
    assert_eq!(ask(&new, &header_only(MessageType::REGISTER, 3, 1)), [(MessageType::REGISTER, 0)]);
}

/// Sockets in which sockets wait, as deep as Linux allows: before 6.10 there is an end of it, and what one client has sent must not keep
/// others from being left.
#[test]
fn what_one_client_sends_keeps_no_other_from_being_left() {
    let Some(mut systemd) = Systemd::new("deep") else { return };
    systemd.start("");
    let (other, sends) = (systemd.open(), systemd.open());
    // Nobody shall look at it.
    kill(systemd.worker(), Signal::SIGSTOP).unwrap();
    let mut chain = vec![pair()];
    let send = |to: &OwnedFd, fd: &OwnedFd| {
        let raw = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::MSG_DONTWAIT, None)
    };
    while chain.len() < 50 {
        let next = pair();
        if send(&next.0, &chain[chain.len() - 1].1).is_err() {
            break;
        }
        chain.push(next);
    }
    assert!(chain.iter().rev().any(|(_, deep)| send(&sends, deep).is_ok()));
    systemd.restart();
    assert_eq!(ask(&other, &policy(MessageType::X_SPDADD, 1)), [ADDED]);
    while receive(&sends).is_some() {}
}

/// A memory of the right size, whatever is in it.
#[test]
fn a_memory_with_anything_in_it_ends_no_pfkeyd() {
    for byte in [0xff_u8, 0x01, 0x80] {
        let Some(mut systemd) = Systemd::new(&format!("memory{byte}")) else { return };
        systemd.start("");
        let session = systemd.open();
        systemd.end();
        let (_, state) = systemd.store.iter().find(|(name, _)| name.starts_with("state-")).expect("it is kept");
        let size = nix::sys::stat::fstat(state).unwrap().st_size as usize;
        assert_eq!(nix::sys::uio::pwrite(state, &vec![byte; size], 0), Ok(size));
        systemd.start("");
        // What it thinks of the session is of no matter.
        let _ = send(session.as_raw_fd(), &header_only(MessageType::REGISTER, 3, 1));
        assert_eq!(ask(&systemd.open(), &policy(MessageType::X_SPDADD, 1)), [ADDED]);
        assert_eq!(systemd.log().matches("died").count() + systemd.log().matches("was killed").count(), 0);
    }
}

#[test]
fn descriptors_whose_close_waits_hold_no_restart_up() {
    let Some(mut systemd) = Systemd::new("lingering") else { return };
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let Some(mut lingering) = Lingering::new(2).filter(|_| up.is_ok_and(|up| up.success())) else { return };
    systemd.start("");
    let (sends, other) = (systemd.open(), systemd.open());
    systemd.end();
    lingering.send(&sends, &policy(MessageType::X_SPDADD, 1));
    let began = Instant::now();
    systemd.start("");
    assert!(is_over(&sends));
    systemd.restart();
    assert_eq!(ask(&other, &policy(MessageType::X_SPDADD, 2)), [ADDED]);
    assert!(began.elapsed() < Duration::from_secs(60));
}
