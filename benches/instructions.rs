//! Instructions of pieces of work whose time is noise, counted by valgrind's callgrind: the same for the same program, whatever else the
//! machine does. Each piece runs in a process of its own, many times and a few times; the difference counts.

#[path = "support/row.rs"]
mod row;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use pfkey_rs::capi::{pfkey_align, pfkey_check, pfkey_send_add2, pfkey_send_sa_args};
use pfkey_rs::engine::{Engine, Flow, LINUX};
use pfkey_rs::model::policy::Policy;
use pfkey_rs::model::sa::Selector;
use pfkey_rs::wire::{Ends, PolicyDirection};
use row::{Goal, Row};

const FEW: u32 = 1_000;
const MANY: u32 = 11_000;

fn address(last: u8) -> libc::sockaddr_in {
    let ip = u32::from(Ipv4Addr::new(192, 0, 2, last)).to_be();
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: ip },
        sin_zero: [0; 8],
    }
}

/// An ADD as a key manager sends it: ESP, two keys of 36 bytes, limits of bytes and of time. What it sends stays in the socket.
fn send_add(fd: &OwnedFd) {
    let (mut src, mut dst, mut keys) = (address(1), address(2), [7; 36]);
    // SAFETY: all fields are numbers or pointers, for which zeroes are values.
    let mut args: pfkey_send_sa_args = unsafe { std::mem::zeroed() };
    (args.so, args.satype, args.mode) = (fd.as_raw_fd(), 3, 1);
    (args.src, args.dst) = ((&raw mut src).cast(), (&raw mut dst).cast());
    (args.spi, args.wsize, args.keymat) = (0x1000_u32.to_be(), 4, keys.as_mut_ptr().cast());
    (args.e_type, args.e_keylen, args.a_type, args.a_keylen) = (12, 16, 3, 20);
    (args.l_bytes, args.l_addtime, args.seq) = (1 << 30, 3600, 1);
    // SAFETY: the pointers are those of live values, as the fields say.
    assert!(unsafe { pfkey_send_add2(&raw mut args) } > 0);
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).expect("a pair of sockets")
}

fn sends(count: u32) {
    let (ours, theirs) = pair();
    for _ in 0..count {
        send_add(&ours);
        recv(theirs.as_raw_fd(), &mut [0; 512], MsgFlags::empty()).expect("the message");
    }
}

/// What a program does with a message: `pfkey_align` and `pfkey_check`.
fn parses(count: u32) {
    let (ours, theirs) = pair();
    send_add(&ours);
    let mut message = [0_u64; 64];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut message[..]);
    recv(theirs.as_raw_fd(), bytes, MsgFlags::empty()).expect("the message");
    for _ in 0..count {
        let mut parts = [std::ptr::null_mut(); 64];
        // SAFETY: a whole message, and room for every extension that there is.
        unsafe {
            assert_eq!(pfkey_align(message.as_mut_ptr().cast(), parts.as_mut_ptr()), 0);
            assert_eq!(pfkey_check(parts.as_mut_ptr()), 0);
        }
        black_box(&parts);
    }
}

/// Which of 10 000 policies takes a packet.
fn lookups(count: u32) {
    let own = Ipv4Addr::new(192, 0, 2, 1).into();
    let peer = |n: u32| Ipv4Addr::from(0x0a00_0000 | (n.wrapping_mul(0x9e37_79b1) >> 8)).into();
    let ends = |n: u32| Ends::new(own, peer(n)).expect("one family");
    let mut engine = Engine::new(&LINUX);
    for n in 0..10_000 {
        let selector = Selector::between(ends(n));
        let (dir, priority) = (PolicyDirection::OUTBOUND, 0x8000_0000);
        engine.know_policy(Policy { id: 8 * n + 1, dir, priority, selector, ..Policy::any(own) });
    }
    for n in 0..count {
        let flow = Flow::new(ends(n.wrapping_mul(7919) % 10_000), 17, 1000, 2000);
        assert!(black_box(engine.spd().lookup(PolicyDirection::OUTBOUND, &flow)).is_some());
    }
}

type Work = (&'static str, fn(u32));

const WORK: [Work; 3] = [
    ("pfkey_send_add2, and the test's receive", sends),
    ("pfkey_align and pfkey_check of an ADD", parses),
    ("look-up of a policy among 10000", lookups),
];

/// Instructions of one of these, so many times; `None` without valgrind.
fn collected(which: usize, count: u32) -> Option<f64> {
    let own = std::env::current_exe().expect("this program's path");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(own);
    let output = command.args(["work", &which.to_string(), &count.to_string()]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [_, which, count] = words.as_slice() {
        let (_, work) = WORK[which.parse::<usize>().expect("a number")];
        return work(count.parse().expect("a number"));
    }
    row::heading();
    for (which, (work, _)) in WORK.iter().enumerate() {
        let (Some(few), Some(many)) = (collected(which, FEW), collected(which, MANY)) else {
            return println!("instructions: not counted; they need valgrind");
        };
        let each = (many - few) / f64::from(MANY - FEW);
        Row { work, unit: "instr.", ours: vec![each], limit: None, goal: Goal::None }.show();
    }
}
