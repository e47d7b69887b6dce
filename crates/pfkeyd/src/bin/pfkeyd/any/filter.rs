//! Which system calls the kernel tells the supervisor of.

use std::ops::RangeInclusive;

use super::super::bpf::{ARCHITECTURE_AT, NUMBER_AT, argument_at, give, jump_if_at_least, jump_if_equal, keep, load};
use super::call::{ABIS, Abi, IP_IPSEC_POLICY, IPV6_IPSEC_POLICY, SOCKETCALL};
use libc::sock_filter;
use nix::sys::resource::rlim_t;

/// `AF_KEY`.
pub const AF_KEY: u32 = 15;

const TELL: sock_filter = give(libc::SECCOMP_RET_USER_NOTIF);
const ALLOW: sock_filter = give(libc::SECCOMP_RET_ALLOW);

/// Numbers that PF_KEY descriptors get: all sending on them is told of. Below FD_SETSIZE, as programs that call `select` need
/// it, and above what programs get by themselves. With one mask (`number & !255 == 768`), which a container's profile can say.
pub const NUMBERS: RangeInclusive<u32> = 768..=1023;

/// A descriptor may have been moved to another number (SCM_RIGHTS, `dup`). There is told what may be a message: not on the
/// standard streams, and as far as the length is an argument, if it is a multiple of 8 below 1024.
pub const FIRST_MOVED: u32 = 3;
const NO_MESSAGE: u32 = !0x3f8;

/// The numbers for a program that may open so many: the upper quarter.
pub fn numbers(limit: rlim_t) -> RangeInclusive<u32> {
    match u32::try_from(limit) {
        Ok(limit @ 64..1024) => limit - limit / 4..=limit - 1,
        // Too few to set some aside.
        Ok(limit @ ..64) => limit..=limit,
        _ => NUMBERS,
    }
}

/// The filter; none for a machine whose system calls are not known here.
pub fn program(numbers: &RangeInclusive<u32>) -> Option<Vec<sock_filter>> {
    if ABIS.is_empty() {
        return None;
    }
    let mut program = vec![load(ARCHITECTURE_AT)];
    for abi in ABIS {
        let calls = calls(abi, numbers);
        program.push(jump_if_equal(abi.architecture, 0, u8::try_from(calls.len()).ok()?));
        program.extend(calls);
    }
    program.push(ALLOW);
    Some(program)
}

/// What is told of a program of one architecture. The calls of x32 have numbers of their own, and pass.
fn calls(abi: &Abi, numbers: &RangeInclusive<u32>) -> Vec<sock_filter> {
    let bytes = [
        load(argument_at(0)),
        jump_if_at_least(FIRST_MOVED, 0, 5),
        jump_if_at_least(*numbers.start(), 0, 1),
        jump_if_at_least(numbers.end() + 1, 0, 4),
        load(argument_at(2)),
        keep(NO_MESSAGE),
        jump_if_equal(0, 1, 0),
        ALLOW,
        TELL,
    ];
    let parts = [load(argument_at(0)), jump_if_at_least(FIRST_MOVED, 0, 1), TELL, ALLOW];
    let opening = [load(argument_at(0)), jump_if_equal(AF_KEY, 0, 1), TELL, ALLOW];
    let option = [
        load(argument_at(1)),
        jump_if_equal(libc::IPPROTO_IP as u32, 0, 3),
        load(argument_at(2)),
        jump_if_equal(IP_IPSEC_POLICY as u32, 4, 0),
        ALLOW,
        jump_if_equal(libc::IPPROTO_IPV6 as u32, 0, 3),
        load(argument_at(2)),
        jump_if_equal(IPV6_IPSEC_POLICY as u32, 0, 1),
        TELL,
        ALLOW,
    ];
    // Its arguments are in memory, which a filter does not see.
    let mut several = vec![load(argument_at(0))];
    for (number, _) in SOCKETCALL {
        several.extend([jump_if_equal(*number, 0, 1), TELL]);
    }
    several.push(ALLOW);

    let n = &abi.numbers;
    let mut calls = vec![load(NUMBER_AT)];
    let mut add = |number: u32, then: &[sock_filter]| {
        calls.push(jump_if_equal(number, 0, then.len() as u8));
        calls.extend(then);
    };
    for number in [n.write, n.sendto] {
        add(number, &bytes);
    }
    for number in [n.writev, n.sendmsg, n.sendmmsg] {
        add(number, &parts);
    }
    add(n.socket, &opening);
    add(n.setsockopt, &option);
    if let Some(number) = n.socketcall {
        add(number, &several);
    }
    calls.push(ALLOW);
    calls
}
