//! PF_KEY over XFRM beside netlink itself and, in a kernel that has it, beside AF_KEY (`tests/kernel/bench`). It removes every SA
//! and policy of the network namespace that it runs in.

#[path = "support/netlink.rs"]
mod netlink;
#[path = "support/pf_key.rs"]
mod pf_key;
#[path = "support/process.rs"]
mod process;
#[path = "support/row.rs"]
mod row;

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv, send};
use pf_key::{add, dump, flush, has_esp, message_of, policy, request, send_together};
use pfkey_rs::listing::{SaView, for_each_sa};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::{Header, MessageType, Profile, SaType, Writer};
use process::{private, server_of};
use row::{Goal, Row, in_turns};

const SAS: u32 = 50_000;
const ONE_BY_ONE: u32 = 2_000;
const LOADED: u32 = 10_000;

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

/// Microseconds of each.
fn each(count: u32, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn open(backend: &Backend) -> OwnedFd {
    socket::open_with(backend).expect("a descriptor")
}

fn row(work: &str, (ours, took): (Vec<f64>, Vec<f64>), limit: &str, goal: Goal) {
    Row { work, unit: "us", ours, limit: Some((limit, took)), goal }.show();
}

/// A thing of a descriptor after everything was removed. One descriptor at a time: every other would hear of every change.
fn from_empty(backend: &Backend, count: u32, run: impl Fn(&OwnedFd)) -> f64 {
    let fd = open(backend);
    flush(&fd);
    each(count, || run(&fd))
}

/// Changes, one by one and together.
fn changes(has_af_key: bool) {
    let add_of = |backend: Backend| move || from_empty(&backend, ONE_BY_ONE, |fd| add(fd.as_raw_fd(), 0..ONE_BY_ONE));
    let requests: Vec<_> = (0..LOADED).map(|n| netlink::new_sa(n, true)).collect();
    let one_by_one = || {
        let fd = netlink::open();
        netlink::flush(&fd);
        each(ONE_BY_ONE, || requests[..ONE_BY_ONE as usize].iter().for_each(|one| netlink::acknowledged(&fd, one)))
    };
    if has_af_key {
        row(
            "ADD and its answer, XFRM",
            in_turns(add_of(Backend::Xfrm), add_of(Backend::AfKey)),
            "AF_KEY",
            Goal::Ratio(2.0),
        );
        row(
            "ADD and its answer, AF_KEY",
            in_turns(add_of(Backend::AfKey), one_by_one),
            "netlink NEWSA with ack",
            Goal::None,
        );
    }
    row("ADD and its answer, XFRM", in_turns(add_of(Backend::Xfrm), one_by_one), "netlink NEWSA with ack", Goal::None);

    let sas: Vec<Vec<u8>> = (0..LOADED).map(|n| message_of(MessageType::ADD, n)).collect();
    let policies: Vec<Vec<u8>> = (0..LOADED).map(policy).collect();
    let batched: Vec<_> = (0..LOADED).map(|n| netlink::new_sa(n, false)).collect();
    let batched: Vec<Vec<u8>> = batched.chunks(64).map(<[_]>::concat).collect();
    let together = || from_empty(&Backend::Xfrm, LOADED, |fd| send_together(fd, &sas));
    let netlink_together = || {
        let fd = netlink::open();
        netlink::flush(&fd);
        each(LOADED, || {
            batched.iter().for_each(|some| assert_eq!(send(fd.as_raw_fd(), some, MsgFlags::empty()), Ok(some.len())))
        })
    };
    row(
        "SAs in a batch, each, XFRM",
        in_turns(together, netlink_together),
        "netlink NEWSA, 64 a send",
        Goal::Ratio(2.0),
    );
    let one_by_one = |messages: &[Vec<u8>]| {
        from_empty(&Backend::Xfrm, ONE_BY_ONE, |fd| {
            messages.iter().take(ONE_BY_ONE as usize).for_each(|m| request(fd.as_raw_fd(), m))
        })
    };
    let policies_together = || from_empty(&Backend::Xfrm, LOADED, |fd| send_together(fd, &policies));
    row(
        "policies in a batch, each, XFRM",
        in_turns(policies_together, || one_by_one(&policies)),
        "one by one",
        Goal::None,
    );
}

/// Dumps of many SAs.
fn dumps(has_af_key: bool) {
    let xfrm = open(&Backend::Xfrm);
    flush(&xfrm);
    let sas: Vec<Vec<u8>> = (0..SAS).map(|n| message_of(MessageType::ADD, n)).collect();
    let had = private(server_of(&xfrm));
    send_together(&xfrm, &sas);
    let bytes = (private(server_of(&xfrm)) - had) * 1024.0 / f64::from(SAS);
    let work = "memory of pfkeyd for each of 50000 SAs in the kernel";
    Row { work, unit: "bytes", ours: vec![bytes], limit: None, goal: Goal::None }.show();
    let dump_of = |fd: &OwnedFd| each(SAS, || assert_eq!(dump(fd.as_raw_fd()), SAS));
    let bare = netlink::open();
    let mut buffer = vec![0; 32 * 1024];
    // The kernel fills as much as was asked for before.
    netlink::dump(&bare, &mut buffer);
    let mut thrown_away = || each(SAS, || assert_eq!(netlink::dump(&bare, &mut buffer), SAS));
    row(
        "dump of 50000 SAs, each, XFRM",
        in_turns(|| dump_of(&xfrm), &mut thrown_away),
        "netlink dump, thrown away",
        Goal::None,
    );
    let foreach = || {
        let mut shown = 0;
        let mut see = |sa: &SaView<'_>| {
            shown += u32::from(sa.encrypt_key.0 == 128);
            ControlFlow::Continue(())
        };
        let took = each(SAS, || for_each_sa(xfrm.as_fd(), SaType::ESP, &mut see).expect("every SA"));
        assert_eq!(shown, SAS);
        took
    };
    row(
        "pfkey_dump_foreach of 50000 SAs, each",
        in_turns(foreach, thrown_away),
        "netlink dump, thrown away",
        Goal::Ratio(1.05),
    );
    if has_af_key {
        let af_key = open(&Backend::AfKey);
        let ours = in_turns(|| dump_of(&xfrm), || dump_of(&af_key));
        row("dump of 50000 SAs, each, XFRM", ours, "pfkey_recv on AF_KEY", Goal::Ratio(1.0));
        let as_libipsec = || each(SAS, || assert_eq!(dump_as_libipsec(af_key.as_raw_fd()), SAS));
        row(
            "dump of 50000 SAs, each, XFRM",
            in_turns(|| dump_of(&xfrm), as_libipsec),
            "AF_KEY, two receives",
            Goal::Ratio(1.0),
        );
    }
    flush(&xfrm);
}

fn main() {
    if socket::open_with(&Backend::Xfrm).is_err() {
        return println!("PF_KEY over XFRM: not measured; it needs CAP_NET_ADMIN in this network namespace");
    }
    if !has_esp() {
        return println!(
            "PF_KEY over XFRM: not measured; this kernel takes no ESP SA (tests/kernel/bench has kernels that do)"
        );
    }
    row::heading();
    let has_af_key = socket::try_af_key().is_ok();
    changes(has_af_key);
    dumps(has_af_key);
}
