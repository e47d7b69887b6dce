//! Filters of system calls, in the form that the kernel takes (`linux/filter.h`, `linux/seccomp.h`).

use libc::sock_filter;

/// `AUDIT_ARCH_*` of `linux/audit.h`: ELF's number, 64 bits, little endian.
pub const X86_64: u32 = 0xc000_003e;
pub const I386: u32 = 0x4000_0003;
pub const AARCH64: u32 = 0xc000_00b7;
pub const RISCV64: u32 = 0xc000_00f3;

/// The kernel's name of this machine.
pub const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(AARCH64)
} else if cfg!(target_arch = "riscv64") {
    Some(RISCV64)
} else if cfg!(target_arch = "x86") {
    Some(I386)
} else if cfg!(target_arch = "arm") {
    Some(0x4000_0028)
} else if cfg!(target_arch = "s390x") {
    Some(0x8000_0016)
} else {
    None
};

/// Where `struct seccomp_data` has the system call's number, and its architecture.
pub const NUMBER_AT: u32 = 0;
pub const ARCHITECTURE_AT: u32 = 4;

/// Where it has an argument's lower half, on a little-endian machine.
pub const fn argument_at(index: u32) -> u32 {
    16 + 8 * index
}

const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Takes a word of `struct seccomp_data` to look at.
pub const fn load(at: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

/// Keeps these bits of the word.
pub const fn keep(bits: u32) -> sock_filter {
    statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits)
}

/// What becomes of the system call.
pub const fn give(action: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action)
}

/// Goes on behind `jt` statements, if the word is this one, or `jf`.
pub const fn jump_if_equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf, k }
}

/// The same if it is at least this one.
pub const fn jump_if_at_least(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, jt, jf, k }
}
