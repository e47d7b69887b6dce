//! Several engines over the XFRM of one network namespace: what each is told is its own. Policies only, which every kernel
//! with XFRM takes.

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;

use std::time::Duration;

use build::{Msg, request};
use nix::sched::{CloneFlags, unshare};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::wire::{Errno, ExtensionType as Ext, Header, Message, MessageType as M, Profile, SaState, SaType as S};
use pfkey_rs::xfrm::XfrmEngine;

const NOW: Duration = Duration::from_secs(1_700_000_000);
const EEXIST: u8 = libc::EEXIST as u8;

/// A network namespace for this thread and those that it starts. False: it cannot be had, or has no XFRM.
fn new_network() -> bool {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("skipped: a network namespace needs root");
        return false;
    }
    match XfrmEngine::new() {
        Ok(_) => true,
        Err(Errno::EAFNOSUPPORT) => {
            eprintln!("skipped: this kernel has no XFRM");
            false
        }
        Err(errno) => panic!("{errno}"),
    }
}

/// A program's descriptor with a pfkeyd of its own behind it.
struct Program {
    hub: Hub<XfrmEngine>,
    queues: Queues,
    session: SessionId,
}

impl Program {
    fn new() -> Self {
        let mut hub = Hub::new(XfrmEngine::new().expect("XFRM netlink"));
        let session = hub.open();
        Self { hub, queues: Queues::new(), session }
    }

    /// Everything that the program hears of a request, or of several, until `send` returns.
    fn send(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if pfkey_rs::wire::split_batch(bytes).count() == 1 {
            self.hub.receive(self.session, bytes, NOW, &mut self.queues).expect("a message");
        } else {
            assert_eq!(self.hub.receive_all(self.session, bytes, NOW, &mut self.queues), 0);
        }
        std::iter::from_fn(|| self.queues.pop(self.session)).collect()
    }

    /// The errnos of all answers of a type.
    fn errnos(&mut self, message: &Msg) -> Vec<u8> {
        let headers = self.send(&message.bytes()).into_iter().map(|bytes| Header::read(&bytes).expect("a header"));
        headers.filter(|header| header.msg_type == message.header.msg_type).map(|header| header.errno).collect()
    }

    /// The answer to an SPDGET. Other programs' notifications may come before it.
    fn policy(&mut self, id: u32) -> Vec<u8> {
        let answers = self.send(&spdget(id).bytes()).into_iter();
        let mut own = answers.filter(|bytes| bytes[1] == M::X_SPDGET.0);
        let answer = own.next().expect("an answer");
        assert_eq!(own.next(), None, "one answer");
        answer
    }

    /// The answer to a GETSPI: the larval's SPI.
    fn larval(&mut self, getspi: &Msg) -> u32 {
        let mut answers = self.send(&getspi.bytes());
        assert_eq!(answers.len(), 1);
        let message = parse(&mut answers[0]);
        assert_eq!(message.header().errno, 0);
        message.sa().expect("an SA").spi.get()
    }

    /// SPIs and states of all SAs.
    fn states(&mut self) -> Vec<(u32, SaState)> {
        let mut sas = self.send(&Msg::new(M::DUMP, S::UNSPEC, 1).bytes());
        // There is none.
        sas.retain(|bytes| bytes[2] != libc::ENOENT as u8);
        let states = sas.iter_mut().map(|bytes| parse(bytes).sa().map(|sa| (sa.spi.get(), SaState(sa.state))));
        states.map(|state| state.expect("an SA")).collect()
    }

    /// The policy with this id: its destination.
    fn destination(&mut self, id: u32) -> [u8; 4] {
        let mut answer = self.policy(id);
        let message = parse(&mut answer);
        assert_eq!(message.header().errno, 0);
        assert_eq!(message.policy().expect("a policy").0.id.get(), id, "the policy that was asked for");
        *message.address(Ext::ADDRESS_DST).expect("an address").1.0[4..].first_chunk().expect("IPv4")
    }

    /// The reqid of the policy with this id.
    fn reqid(&mut self, id: u32) -> u32 {
        let mut answer = self.policy(id);
        let message = parse(&mut answer);
        let (_, requests) = message.policy().expect("a policy");
        u32::from_ne_bytes(*requests[8..].first_chunk().expect("a request"))
    }
}

/// An answer; Linux writes a policy's reference count where a request has zeros.
fn parse(bytes: &mut [u8]) -> Message<'_> {
    bytes[6..8].fill(0);
    Message::parse(bytes, Profile::Linux).expect("a message")
}

fn ends(message: Msg, n: u8) -> Msg {
    message.address(Ext::ADDRESS_SRC, "10.0.0.1", 0, 255, 32).address(
        Ext::ADDRESS_DST,
        &format!("10.1.0.{n}"),
        0,
        255,
        32,
    )
}

/// As the callers of libipsec send them: sequence number 0.
fn spd(msg_type: M, n: u8, level: u8) -> Msg {
    ends(Msg::new(msg_type, S::UNSPEC, 0), n).policy(2, 2, 0, 0, &request(50, 1, level, 0, None))
}

fn spdadd(n: u8) -> Msg {
    spd(M::X_SPDADD, n, 2)
}

fn spddelete(n: u8) -> Msg {
    ends(Msg::new(M::X_SPDDELETE, S::UNSPEC, 0), n).policy(0, 2, 0, 0, &[])
}

fn spdget(id: u32) -> Msg {
    Msg::new(M::X_SPDGET, S::UNSPEC, 0).policy(0, 0, id, 0, &[])
}

/// The id of the n-th policy of a namespace whose policies are all outbound.
const fn id(n: u8) -> u32 {
    if n == 0 { 1 } else { 8 * n as u32 + 1 }
}

#[test]
fn a_change_that_fails_is_told_whoever_else_succeeds_under_the_same_numbers() {
    if !new_network() {
        return;
    }
    let (mut one, mut other) = (Program::new(), Program::new());
    assert_eq!(one.errnos(&spdadd(1)), [0]);
    for _ in 0..3 {
        // The other's event waits with the sequence number and the process id of what now fails.
        assert_eq!(other.errnos(&spdadd(2)).last(), Some(&0));
        assert_eq!(one.errnos(&spdadd(1)), [0, EEXIST], "the other's, and the error");
        assert_eq!(other.errnos(&spddelete(2)), [0]);
        assert_eq!(one.errnos(&spddelete(9)), [0, libc::ENOENT as u8]);
    }
    // Nothing is left over that a later question would take for its answer.
    assert_eq!(one.destination(id(0)), [10, 1, 0, 1]);
    assert_eq!(one.errnos(&spdadd(3)), [0]);
    assert_eq!(one.errnos(&spdget(id(40))), [libc::ENOENT as u8]);
    assert_eq!(one.destination(id(0)), [10, 1, 0, 1]);
}

#[test]
fn a_batch_says_which_failed_whoever_else_succeeds_under_the_same_numbers() {
    if !new_network() {
        return;
    }
    let (mut one, mut other) = (Program::new(), Program::new());
    assert_eq!(one.errnos(&spdadd(1)), [0]);
    assert_eq!(other.errnos(&spdadd(2)).last(), Some(&0));
    let batch = [spdadd(1), spdadd(3), spdadd(2), spddelete(9), spdadd(4)].map(|message| message.bytes()).concat();
    let answers: Vec<_> = one.send(&batch).iter().map(|bytes| Header::read(bytes).expect("a header")).collect();
    let own: Vec<_> = answers.iter().filter(|h| h.errno != 0 || h.len > 2).map(|h| (h.msg_type, h.errno)).collect();
    // The other's is told with the first success.
    let enoent = libc::ENOENT as u8;
    let (add, delete) = (M::X_SPDADD, M::X_SPDDELETE);
    assert_eq!(own, [(add, EEXIST), (add, 0), (add, EEXIST), (delete, enoent), (add, 0), (add, 0)]);
    assert_eq!(one.destination(id(0)), [10, 1, 0, 1]);
}

/// Two threads with a descriptor each, as libipsec's callers: both ids are the process's, both sequence numbers 0.
#[test]
fn every_duplicate_is_refused_in_each_of_two_threads() {
    const TIMES: usize = 500;
    if !new_network() {
        return;
    }
    let mut one = Program::new();
    assert_eq!((one.errnos(&spdadd(1)), one.errnos(&spdadd(2))), (vec![0], vec![0]));
    let refused: Vec<usize> = std::thread::scope(|scope| {
        let threads = [10, 20].map(|own| {
            scope.spawn(move || {
                let mut program = Program::new();
                let mut refused = 0;
                for n in 0..TIMES {
                    // Changes that succeed, so that the other has events of these numbers.
                    let mine = if n % 2 == 0 { spdadd(own) } else { spddelete(own) };
                    assert!(program.errnos(&mine).contains(&0));
                    refused += program.errnos(&spdadd(1)).iter().filter(|errno| **errno == EEXIST).count();
                    assert_eq!(program.destination(id(1)), [10, 1, 0, 2]);
                }
                refused
            })
        });
        threads.map(|thread| thread.join().expect("a thread")).to_vec()
    });
    assert_eq!(refused, [TIMES; 2]);
}

/// setkey's second run: the first run's policies are flushed, an SA of one of them is still there.
#[test]
fn a_unique_policy_does_not_get_the_reqid_of_an_sa_that_is_there() {
    if !new_network() {
        return;
    }
    let mut first = Program::new();
    assert_eq!(first.errnos(&spd(M::X_SPDADD, 1, 3)), [0]);
    let reqid = first.reqid(id(0));
    assert!(reqid > 0x3fff);
    let larval = Msg::new(M::GETSPI, S::ESP, 5).pair("10.0.0.1", "10.1.0.1").range(0x1000, 0x2000).sa2(1, reqid);
    assert_eq!(first.errnos(&larval), [0]);
    assert_eq!(first.errnos(&Msg::new(M::X_SPDFLUSH, S::UNSPEC, 0)), [0, 0]);
    let mut second = Program::new();
    assert_eq!(second.errnos(&spd(M::X_SPDADD, 1, 3)), [0]);
    let mut policies = second.send(&Msg::new(M::X_SPDDUMP, S::UNSPEC, 0).bytes());
    let id = parse(&mut policies[0]).policy().expect("a policy").0.id.get();
    assert_ne!(second.reqid(id), reqid);
}

#[test]
fn unique_policies_of_several_programs_have_reqids_of_their_own() {
    const EACH: u8 = 30;
    if !new_network() {
        return;
    }
    std::thread::scope(|scope| {
        for own in 0..4 {
            scope.spawn(move || {
                let mut program = Program::new();
                for n in 0..EACH {
                    assert!(program.errnos(&spd(M::X_SPDADD, own * EACH + n, 3)).contains(&0));
                }
            });
        }
    });
    let mut program = Program::new();
    let mut reqids: Vec<u32> = (0..4 * EACH).map(|n| program.reqid(id(n))).collect();
    assert!(reqids.iter().all(|reqid| *reqid > 0x3fff));
    reqids.sort_unstable();
    reqids.dedup();
    assert_eq!(reqids.len(), usize::from(4 * EACH));
}

/// What another program did before is told before the answer to what AF_KEY's socket answers by itself, as to all else.
#[test]
fn what_happened_before_a_request_is_told_before_its_answer() {
    if !new_network() {
        return;
    }
    let mut other = Program::new();
    let promisc = Msg::new(M::X_PROMISC, S(1), 9);
    let asking = [Msg::new(M::REGISTER, S::AH, 9), promisc, Msg::new(M::X_SPDDUMP, S::UNSPEC, 9), spdget(1)];
    for (n, request) in asking.iter().enumerate() {
        let mut program = Program::new();
        assert_eq!(other.errnos(&spdadd(n as u8)), [0]);
        let told: Vec<u8> = program.send(&request.bytes()).iter().map(|message| message[1]).collect();
        assert_eq!(told[..2], [M::X_SPDADD.0, request.header.msg_type.0], "{told:?}");
    }
}

/// A network whose loopback interface is up and asks policies. False: this machine lets nobody have it.
fn loopback_asks_policies() -> bool {
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let asks = std::fs::write("/proc/sys/net/ipv4/conf/lo/disable_xfrm", "0");
    let ready = up.is_ok_and(|status| status.success()) && asks.is_ok();
    if !ready {
        eprintln!("skipped: no ip, or no way to set disable_xfrm");
    }
    ready
}

/// Sends a packet that a policy with an ACQUIRE's larval is for, and gives the ACQUIRE, if there is one.
fn acquire(program: &mut Program, from: &std::net::UdpSocket, to: &str) -> Option<Header> {
    let _ = from.send_to(b"x", (to, 9));
    program.hub.event(NOW, &mut program.queues);
    let header = Header::read(&program.queues.pop(program.session)?).expect("a header");
    assert_eq!((header.msg_type, header.errno), (M::ACQUIRE, 0));
    Some(header)
}

/// A program that is registered, with a policy for packets between two addresses of the loopback interface.
fn asked_for_sas(here: &str, there: &str) -> (Program, std::net::UdpSocket) {
    let mut program = Program::new();
    assert_eq!(program.errnos(&Msg::new(M::REGISTER, S::ESP, 1)), [0]);
    let selector = Msg::new(M::X_SPDADD, S::UNSPEC, 0).address(Ext::ADDRESS_SRC, here, 0, 255, 32);
    let selector = selector.address(Ext::ADDRESS_DST, there, 0, 255, 32);
    assert_eq!(program.errnos(&selector.policy(2, 2, 0, 0, &request(50, 1, 2, 0, None))), [0]);
    (program, std::net::UdpSocket::bind((here, 0)).expect("an address"))
}

/// As a pfkeyd's next worker, another engine finds a larval in the kernel, and the sequence number of its ACQUIRE.
#[test]
fn a_larval_is_found_in_the_kernel() {
    if !new_network() || !loopback_asks_policies() {
        return;
    }
    let (here, there) = ("127.0.0.1", "127.0.0.2");
    let (mut one, socket) = asked_for_sas(here, there);
    let wanted = acquire(&mut one, &socket, there).expect("an ACQUIRE");
    assert_eq!(one.states(), [(0, SaState::LARVAL)]);
    let mut next = Program::new();
    assert_eq!(next.states(), [(0, SaState::LARVAL)]);
    // Of another reqid, so that it is not found by its addresses.
    let getspi = Msg::new(M::GETSPI, S::ESP, wanted.seq).pair(here, there).range(0x1000, 0x2000).sa2(1, 7);
    let spi = next.larval(&getspi);
    assert_eq!(next.states(), [(spi, SaState::LARVAL)], "no other was made");
}

/// The kernel asks again, for packets of other flows to the same peer too; nobody is told of a removal.
#[test]
fn an_acquire_that_is_given_up_frees_its_larval() {
    if !new_network() || !loopback_asks_policies() {
        return;
    }
    let (here, there) = ("127.0.0.1", "127.0.0.2");
    let (mut one, socket) = asked_for_sas(here, there);
    let give_up = |program: &mut Program, seq| {
        let mut given_up = Msg::new(M::ACQUIRE, S::ESP, seq);
        given_up.header.errno = libc::ETIMEDOUT as u8;
        assert_eq!(program.send(&given_up.bytes()), Vec::<Vec<u8>>::new());
    };
    let first = acquire(&mut one, &socket, there).expect("an ACQUIRE");
    assert!(acquire(&mut one, &socket, there).is_none(), "the larval stops it");
    give_up(&mut one, first.seq.wrapping_add(7));
    assert_eq!(one.states(), [(0, SaState::LARVAL)], "another's number");
    give_up(&mut one, first.seq);
    assert_eq!(one.states(), []);
    let second = acquire(&mut one, &socket, there).expect("an ACQUIRE");
    assert_ne!(second.seq, first.seq);
    // The first is not there any more.
    give_up(&mut one, first.seq);
    assert_eq!(one.states(), [(0, SaState::LARVAL)]);
    // Nor is a larval that got its SPI already.
    let spi = one.larval(&Msg::new(M::GETSPI, S::ESP, second.seq).pair(here, there).range(0x1000, 0x2000));
    assert_eq!(one.states(), [(spi, SaState::LARVAL)]);
    give_up(&mut one, second.seq);
    assert_eq!(one.states(), []);
}
