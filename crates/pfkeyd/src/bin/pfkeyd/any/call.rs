//! What a program asks of the kernel, whatever architecture it was built for.

use std::os::fd::RawFd;

use nix::errno::Errno;
use pfkey_model::socket_policy;

use super::program::Program;
use super::sys::SystemCall;

pub use socket_policy::{IP_IPSEC_POLICY, IPV6_IPSEC_POLICY};

/// Numbers of system calls.
pub struct Numbers {
    pub write: u32,
    pub writev: u32,
    pub sendto: u32,
    pub sendmsg: u32,
    pub sendmmsg: u32,
    pub socket: u32,
    pub setsockopt: u32,
    pub socketcall: Option<u32>,
}

/// How programs of one architecture call the kernel.
pub struct Abi {
    pub architecture: u32,
    pub numbers: Numbers,
    /// Bytes of a pointer.
    pub word: usize,
}

/// Those of this machine's own programs.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const NATIVE: Abi = Abi {
    #[cfg(target_arch = "x86_64")]
    architecture: crate::bpf::X86_64,
    #[cfg(target_arch = "aarch64")]
    architecture: crate::bpf::AARCH64,
    #[cfg(target_arch = "riscv64")]
    architecture: crate::bpf::RISCV64,
    numbers: Numbers {
        write: libc::SYS_write as u32,
        writev: libc::SYS_writev as u32,
        sendto: libc::SYS_sendto as u32,
        sendmsg: libc::SYS_sendmsg as u32,
        sendmmsg: libc::SYS_sendmmsg as u32,
        socket: libc::SYS_socket as u32,
        setsockopt: libc::SYS_setsockopt as u32,
        socketcall: None,
    },
    word: 8,
};

/// `arch/x86/entry/syscalls/syscall_32.tbl`.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const I386: Abi = Abi {
    architecture: crate::bpf::I386,
    numbers: Numbers {
        write: 4,
        writev: 146,
        sendto: 369,
        sendmsg: 370,
        sendmmsg: 345,
        socket: 359,
        setsockopt: 366,
        socketcall: Some(102),
    },
    word: 4,
};

/// The architectures whose programs can be served here.
pub const ABIS: &[Abi] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
    NATIVE,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    I386,
];

/// The calls of `socketcall` that matter, and how many arguments each has (`linux/net.h`).
pub const SOCKETCALL: &[(u32, usize)] =
    &[(SYS_SOCKET, 3), (SYS_SEND, 4), (SYS_SENDTO, 6), (SYS_SETSOCKOPT, 5), (SYS_SENDMSG, 3), (SYS_SENDMMSG, 4)];
const SYS_SOCKET: u32 = 1;
const SYS_SEND: u32 = 9;
const SYS_SENDTO: u32 = 11;
const SYS_SETSOCKOPT: u32 = 14;
const SYS_SENDMSG: u32 = 16;
const SYS_SENDMMSG: u32 = 20;

/// Where a message is in a program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `write`, `send`, `sendto`; with the address that it is sent to, which AF_KEY does not look at.
    Bytes { at: u64, len: u64, address: u64, address_len: i32 },
    /// `writev`.
    Parts { at: u64, count: u64 },
    /// `sendmsg`: a `msghdr`.
    Header { at: u64 },
}

/// One system call that this program has a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `socket(AF_KEY, …)`.
    Socket {
        kind: i32,
        protocol: i32,
    },
    Send {
        fd: RawFd,
        message: Message,
        flags: i32,
    },
    /// `sendmmsg`.
    SendSeveral {
        fd: RawFd,
        at: u64,
        count: u32,
        flags: i32,
    },
    /// `setsockopt` of a socket's own policy.
    SetPolicy {
        fd: RawFd,
        v6: bool,
        at: u64,
        len: i32,
    },
    /// The kernel's.
    Other,
}

/// Reads a system call.
///
/// # Errors
/// Those of reading the program's memory.
pub fn read(call: &SystemCall, program: &Program) -> Result<Call, Errno> {
    let Some(abi) = ABIS.iter().find(|abi| abi.architecture == call.architecture) else { return Ok(Call::Other) };
    let n = &abi.numbers;
    let number = call.number as u32;
    // Registers of a 32-bit program have zeros above.
    let mut a = call.arguments;
    let nothing = [0, 0];
    let (number, to) = if Some(number) == n.socketcall {
        let Some((which, count)) = SOCKETCALL.iter().find(|(which, _)| u64::from(*which) == a[0]) else {
            return Ok(Call::Other);
        };
        a = program.arguments(a[1], *count)?;
        match *which {
            SYS_SOCKET => (n.socket, nothing),
            SYS_SEND => (n.sendto, nothing),
            SYS_SENDTO => (n.sendto, [a[4], a[5]]),
            SYS_SETSOCKOPT => (n.setsockopt, nothing),
            SYS_SENDMSG => (n.sendmsg, nothing),
            _ => (n.sendmmsg, nothing),
        }
    } else {
        (number, if number == n.sendto { [a[4], a[5]] } else { nothing })
    };
    let fd = a[0] as RawFd;
    let flags = a[3] as i32;
    let call = if number == n.socket && a[0] as u32 == super::filter::AF_KEY {
        Call::Socket { kind: a[1] as i32, protocol: a[2] as i32 }
    } else if number == n.setsockopt {
        let v6 = match (a[1] as i32, a[2] as i32) {
            (libc::IPPROTO_IP, IP_IPSEC_POLICY) => false,
            (libc::IPPROTO_IPV6, IPV6_IPSEC_POLICY) => true,
            _ => return Ok(Call::Other),
        };
        Call::SetPolicy { fd, v6, at: a[3], len: a[4] as i32 }
    } else if number == n.socket {
        Call::Other
    } else if number == n.write {
        Call::Send { fd, message: Message::Bytes { at: a[1], len: a[2], address: 0, address_len: 0 }, flags: 0 }
    } else if number == n.sendto {
        let [address, address_len] = to;
        let message = Message::Bytes { at: a[1], len: a[2], address, address_len: address_len as i32 };
        Call::Send { fd, message, flags }
    } else if number == n.writev {
        Call::Send { fd, message: Message::Parts { at: a[1], count: a[2] }, flags: 0 }
    } else if number == n.sendmsg {
        Call::Send { fd, message: Message::Header { at: a[1] }, flags: a[2] as i32 }
    } else if number == n.sendmmsg {
        Call::SendSeveral { fd, at: a[1], count: a[2] as u32, flags }
    } else {
        Call::Other
    };
    Ok(call)
}

/// Bytes of a pointer in programs of this architecture.
pub fn word_of(architecture: u32) -> usize {
    ABIS.iter().find(|abi| abi.architecture == architecture).map_or(size_of::<usize>(), |abi| abi.word)
}
