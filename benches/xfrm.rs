//! PF_KEY over XFRM beside AF_KEY and beside netlink itself, in one kernel that has both: `tests/kernel/bench`.
//!
//! Every figure is the median of several runs. The kernel runs as a process in which a system call costs microseconds, so
//! only the ratios mean something.

use std::ffi::c_void;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};
use pfkey_rs::batch::Batch;
use pfkey_rs::capi::{pfkey_recv, pfkey_send_dump};
use pfkey_rs::listing::{SaView, for_each_sa};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa, SadbXPolicy};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

const SAS: u32 = 50_000;
const ONE_BY_ONE: u32 = 2_000;
const LOADED: u32 = 10_000;
const RUNS: usize = 5;

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// The median time of some runs.
fn time(run: impl FnMut()) -> Duration {
    time_after(|| (), run)
}

/// The median time of some runs, each after a preparation that does not count.
fn time_after(mut prepare: impl FnMut(), mut run: impl FnMut()) -> Duration {
    median(
        (0..RUNS)
            .map(|_| {
                prepare();
                let start = Instant::now();
                run();
                start.elapsed()
            })
            .collect(),
    )
}

/// One peer and one sequence number for each SA: with equal ones the kernel's own search for a larval is linear.
fn message(buffer: &mut [u8; 512], msg_type: MessageType, n: u32) -> usize {
    let peer = SockaddrBytes::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 0);
    let host = SockaddrBytes::new([192, 0, 2, 1].into(), 0);
    let mut w = Writer::new(buffer, Header::new(msg_type, SaType::ESP, n + 1, std::process::id()), Profile::Linux);
    w.sa(SadbSa { spi: (0x1000 + n).into(), replay: 4, state: 1, auth: 3, encrypt: 12, ..Default::default() });
    let lifetime = |add: u64| SadbLifetime { addtime: add.into(), ..Default::default() };
    w.lifetime(Ext::LIFETIME_HARD, lifetime(36_000)).lifetime(Ext::LIFETIME_SOFT, lifetime(30_000));
    w.address(Ext::ADDRESS_SRC, 0, 32, host.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, peer.as_bytes());
    w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    w.finish().expect("it fits").len()
}

fn message_of(msg_type: MessageType, n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let len = message(&mut buffer, msg_type, n);
    buffer[..len].to_vec()
}

/// A policy for one peer, ESP in transport mode.
fn policy(n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let peer = SockaddrBytes::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 0);
    let host = SockaddrBytes::new([192, 0, 2, 1].into(), 0);
    let mut w = Writer::new(
        &mut buffer,
        Header::new(MessageType::X_SPDADD, SaType::UNSPEC, 1, std::process::id()),
        Profile::Linux,
    );
    w.address(Ext::ADDRESS_SRC, 255, 32, host.as_bytes()).address(Ext::ADDRESS_DST, 255, 32, peer.as_bytes());
    // struct sadb_x_ipsecrequest: 16 bytes, ESP, transport, require.
    let mut requests = Vec::from(16_u16.to_ne_bytes());
    requests.extend(50_u16.to_ne_bytes());
    requests.extend([1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    w.policy(SadbXPolicy { policy_type: 2.into(), dir: 2, ..Default::default() }, &requests);
    w.finish().expect("it fits").to_vec()
}

/// Sends and takes the answer.
fn request(fd: RawFd, bytes: &[u8]) {
    let mut answer = [0; 1024];
    socket::send(fd, bytes).expect("a request");
    let len = recv(fd, &mut answer, MsgFlags::empty()).expect("its answer");
    assert_eq!(Header::read(&answer[..len]).map(|h| h.errno), Some(0));
}

/// Empties the kernel's SAs and policies, and the descriptor.
fn flush(fd: &OwnedFd) {
    for (msg_type, satype) in [(MessageType::FLUSH, SaType::ESP), (MessageType::X_SPDFLUSH, SaType::UNSPEC)] {
        let mut buffer = [0; 16];
        Writer::new(&mut buffer, Header::new(msg_type, satype, 1, 1), Profile::Linux).finish().expect("a header");
        socket::send(fd.as_raw_fd(), &buffer).expect("a request");
    }
    while recv(fd.as_raw_fd(), &mut [0; 1024], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

fn add(fd: RawFd, sas: std::ops::Range<u32>) {
    let mut buffer = [0; 512];
    for n in sas {
        let len = message(&mut buffer, MessageType::ADD, n);
        request(fd, &buffer[..len]);
    }
}

/// `pfkey_send_dump` and `pfkey_recv`, as a program calls them.
fn dump(fd: RawFd) -> u32 {
    // SAFETY: the descriptor is open; what pfkey_recv gives is freed.
    unsafe {
        assert!(pfkey_send_dump(fd, SaType::ESP.0.into()) > 0);
        let mut count = 0;
        loop {
            let message = pfkey_recv(fd);
            assert!(!message.is_null());
            let seq = std::slice::from_raw_parts(message.cast::<u8>(), 16)[8..12].iter().any(|byte| *byte != 0);
            libc::free(message.cast::<c_void>());
            count += 1;
            if !seq {
                return count;
            }
        }
    }
}

/// What libipsec's `pfkey_recv` does: a look at the header, memory for the message, the message.
fn dump_as_libipsec(fd: RawFd) -> u32 {
    let mut buffer = [0; 16];
    Writer::new(&mut buffer, Header::new(MessageType::DUMP, SaType::ESP, 1, 1), Profile::Linux).finish().unwrap();
    send(fd, &buffer, MsgFlags::empty()).expect("DUMP");
    let mut count = 0;
    loop {
        recv(fd, &mut buffer, MsgFlags::MSG_PEEK).expect("a header");
        let header = Header::read(&buffer).expect("a header");
        let mut message = vec![0; usize::from(header.len) * 8];
        recv(fd, &mut message, MsgFlags::empty()).expect("a message");
        count += 1;
        if header.seq == 0 {
            return count;
        }
    }
}

fn open_netlink() -> OwnedFd {
    // SAFETY: no pointers; the descriptor is new and owned here alone. nix has no name for NETLINK_XFRM.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

/// A netlink dump of all SAs whose bytes are thrown away.
fn bare_dump(fd: &OwnedFd, buffer: &mut [u8]) -> u32 {
    // struct nlmsghdr of XFRM_MSG_GETSA with NLM_F_REQUEST | NLM_F_DUMP.
    let mut request = Vec::from(16_u32.to_ne_bytes());
    request.extend(0x12_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 8]);
    send(fd.as_raw_fd(), &request, MsgFlags::empty()).expect("GETSA");
    let mut count = 0;
    loop {
        let len = recv(fd.as_raw_fd(), buffer, MsgFlags::empty()).expect("a part of the dump");
        let mut rest = &buffer[..len];
        while let Some((head, _)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if u16::from_ne_bytes([head[4], head[5]]) == 3 {
                return count;
            }
            count += 1;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn show(what: &str, time: Duration, each: u32) {
    println!("{what:<58} {:>9.2} us", time.as_secs_f64() * 1e6 / f64::from(each));
}

fn ratio(what: &str, ours: Duration, theirs: Duration, bound: &str) {
    println!("{what:<58} {:>9.2}    ({bound})", ours.as_secs_f64() / theirs.as_secs_f64());
}

/// Loading, in a batch and one by one. Nothing else listens.
fn load(fd: &OwnedFd, messages: &[Vec<u8>]) -> (Duration, Duration) {
    let singly = time_after(|| flush(fd), || messages.iter().for_each(|message| request(fd.as_raw_fd(), message)));
    let together = || {
        let mut batch = Batch::default();
        messages.iter().for_each(|message| batch.push(message).expect("a message"));
        assert_eq!(batch.send(fd.as_fd(), |_, errno, _| panic!("{errno}")), Ok(0));
    };
    (singly, time_after(|| flush(fd), together))
}

fn open(backend: &Backend) -> OwnedFd {
    socket::open_with(backend).expect("a descriptor")
}

fn main() {
    if socket::try_af_key().is_err() || socket::open_with(&Backend::Xfrm).is_err() {
        println!("needs a kernel with both AF_KEY and XFRM: tests/kernel/bench");
        return;
    }
    let opening = time(|| drop(open(&Backend::Xfrm)));
    println!("{:<58} {:>9.2} ms   (at most 5)", "open over XFRM", opening.as_secs_f64() * 1e3);

    // One descriptor at a time: every other would hear of every change.
    let one_by_one = |fd: OwnedFd| time_after(|| flush(&fd), || add(fd.as_raw_fd(), 0..ONE_BY_ONE));
    let (add_af_key, add_xfrm) = (one_by_one(open(&Backend::AfKey)), one_by_one(open(&Backend::Xfrm)));
    show("ADD and its answer, AF_KEY", add_af_key, ONE_BY_ONE);
    show("ADD and its answer, XFRM", add_xfrm, ONE_BY_ONE);

    let sas: Vec<Vec<u8>> = (0..LOADED).map(|n| message_of(MessageType::ADD, n)).collect();
    let policies: Vec<Vec<u8>> = (0..LOADED).map(policy).collect();
    let (sas_singly, sas_batch) = load(&open(&Backend::Xfrm), &sas);
    show("SAs one by one, XFRM", sas_singly, LOADED);
    show("SAs in a batch, XFRM", sas_batch, LOADED);
    let (policies_singly, policies_batch) = load(&open(&Backend::Xfrm), &policies);
    show("policies one by one, XFRM", policies_singly, LOADED);
    show("policies in a batch, XFRM", policies_batch, LOADED);

    let af_key = open(&Backend::AfKey);
    flush(&af_key);
    add(af_key.as_raw_fd(), 0..SAS);
    println!("{SAS} SAs, for each:");
    let libipsec = time(|| assert_eq!(dump_as_libipsec(af_key.as_raw_fd()), SAS));
    show("dump, AF_KEY, two receives as libipsec", libipsec, SAS);
    let ours_af_key = time(|| assert_eq!(dump(af_key.as_raw_fd()), SAS));
    show("dump, AF_KEY, pfkey_recv", ours_af_key, SAS);
    let xfrm = open(&Backend::Xfrm);
    let ours_xfrm = time(|| assert_eq!(dump(xfrm.as_raw_fd()), SAS));
    show("dump, XFRM, pfkey_recv", ours_xfrm, SAS);
    let netlink = open_netlink();
    let mut buffer = vec![0; 32 * 1024];
    // The kernel fills as much as was asked for before.
    bare_dump(&netlink, &mut buffer);
    let bare = time(|| assert_eq!(bare_dump(&netlink, &mut buffer), SAS));
    show("netlink dump, thrown away", bare, SAS);
    let mut shown = 0;
    let foreach = time(|| {
        shown = 0;
        let mut see = |sa: &SaView<'_>| {
            shown += u32::from(sa.encrypt_key.0 == 128);
            ControlFlow::Continue(())
        };
        for_each_sa(xfrm.as_fd(), SaType::ESP, &mut see).expect("every SA");
        assert_eq!(shown, SAS);
    });
    show("pfkey_dump_foreach, XFRM", foreach, SAS);

    println!("ratios:");
    ratio("SAs one by one / in a batch", sas_singly, sas_batch, "at least 3");
    ratio("policies one by one / in a batch", policies_singly, policies_batch, "at least 3");
    ratio("ADD and its answer, XFRM / AF_KEY", add_xfrm, add_af_key, "at most 1.5");
    ratio("dump, XFRM / AF_KEY with two receives", ours_xfrm, libipsec, "at most 1.0");
    ratio("dump, XFRM / AF_KEY with pfkey_recv", ours_xfrm, ours_af_key, "at most 1.3");
    ratio("pfkey_dump_foreach / netlink dump thrown away", foreach, bare, "at most 1.3");
}
