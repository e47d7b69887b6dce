//! A socket's own IPsec policy: `IP_IPSEC_POLICY` takes a `sadb_x_policy` and is part of AF_KEY; `IP_XFRM_POLICY`, one
//! number higher, takes an `xfrm_userpolicy_info` with its templates and stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{c_int, c_void, socklen_t};
use nix::errno::Errno;
use zerocopy::FromBytes;

use super::next;
use super::quiet::quiet;
use crate::model::template::{MAX_TEMPLATES, Template, parse_requests};
use crate::wire::address::to_xfrm;
use crate::wire::layout::SadbXPolicy;
use crate::wire::{Ends, Mode, PolicyDirection, PolicyType};

/// `IP_IPSEC_POLICY`, at level IPPROTO_IP.
const IP_IPSEC_POLICY: c_int = 16;
/// `IPV6_IPSEC_POLICY`, at level IPPROTO_IPV6.
const IPV6_IPSEC_POLICY: c_int = 34;
/// What both options of XFRM are named after them.
const XFRM_AFTER_IPSEC: c_int = 1;
/// `NETLINK_XFRM`.
const NETLINK_XFRM: c_int = 6;
/// The kernel takes no longer value (`xfrm_user_policy`: PAGE_SIZE, on machines with the smallest pages).
const MAX_VALUE: usize = 4096;
/// Bytes of `struct sadb_x_policy`, and of `struct sadb_x_sec_ctx`.
const POLICY_LEN: usize = 16;
const SEC_CTX_LEN: usize = 8;

/// `xfrm_address_t`: a union of bytes and 32-bit words.
#[repr(C, align(4))]
struct XfrmAddress([u8; 16]);

/// `struct xfrm_selector`.
#[repr(C)]
struct Selector {
    daddr: XfrmAddress,
    saddr: XfrmAddress,
    dport: u16,
    dport_mask: u16,
    sport: u16,
    sport_mask: u16,
    family: u16,
    prefixlen_d: u8,
    prefixlen_s: u8,
    proto: u8,
    ifindex: c_int,
    user: u32,
}

/// `struct xfrm_userpolicy_info`.
#[repr(C)]
struct PolicyInfo {
    selector: Selector,
    /// Soft and hard limits of bytes, then of packets.
    limits: [u64; 4],
    /// Seconds since it was added, and used.
    expires: [u64; 4],
    current: [u64; 4],
    priority: u32,
    index: u32,
    dir: u8,
    action: u8,
    flags: u8,
    share: u8,
}

/// `struct xfrm_id`.
#[repr(C)]
struct Id {
    daddr: XfrmAddress,
    spi: u32,
    proto: u8,
}

/// `struct xfrm_user_tmpl`.
#[repr(C)]
struct UserTemplate {
    id: Id,
    family: u16,
    saddr: XfrmAddress,
    reqid: u32,
    mode: u8,
    share: u8,
    optional: u8,
    /// Authentication, encryption, compression.
    algorithms: [u32; 3],
}

/// The option's value.
#[repr(C)]
struct SocketPolicy {
    info: PolicyInfo,
    templates: [UserTemplate; MAX_TEMPLATES],
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<PolicyInfo>() == 168
        && size_of::<UserTemplate>() == 64
        && std::mem::offset_of!(UserTemplate, saddr) == 28
        && std::mem::offset_of!(UserTemplate, algorithms) == 52
);

/// `XFRM_INF`.
const NO_LIMIT: u64 = u64::MAX;
/// `XFRM_POLICY_BLOCK`; `XFRM_POLICY_ALLOW` is 0.
const BLOCK: u8 = 1;

/// Whether this is the option.
#[inline]
pub(super) fn is_policy(level: c_int, name: c_int) -> bool {
    (level == libc::IPPROTO_IP && name == IP_IPSEC_POLICY) || (level == libc::IPPROTO_IPV6 && name == IPV6_IPSEC_POLICY)
}

/// Sets the option: by the kernel's AF_KEY where there is one, as XFRM's option otherwise.
///
/// # Safety
/// As `setsockopt`.
pub(super) unsafe fn set(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
    let errno = Errno::last_raw();
    // SAFETY: the caller's arguments.
    let status = unsafe { next::setsockopt(fd, level, name, value, len) };
    // The kernel asks everyone who can compile policies. Without AF_KEY nobody knows this option (EOPNOTSUPP), and
    // before XFRM's module is there, nobody is there (EINVAL). What AF_KEY refuses is refused below too.
    if status == 0 || !matches!(Errno::last_raw(), libc::EOPNOTSUPP | libc::EINVAL) {
        return status;
    }
    let len = len as usize;
    if value.is_null() || !(1..=MAX_VALUE).contains(&len) || !is_internet(fd) {
        return status;
    }
    // SAFETY: the sockets of these families copy the value before they give either of these errors.
    let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) };
    // SAFETY: all of it is plain data, valid when zeroed. Padding stays zero: assigned are fields only.
    let mut policy: SocketPolicy = unsafe { std::mem::zeroed() };
    let v6 = level == libc::IPPROTO_IPV6;
    match quiet(|| translate(bytes, v6, &mut policy)) {
        Some(Ok(templates)) => {
            quiet(load_xfrm);
            let len = size_of::<PolicyInfo>() + templates * size_of::<UserTemplate>();
            // SAFETY: `templates` is at most the array's length, so `len` bytes are there.
            let status = unsafe {
                next::setsockopt(fd, level, name + XFRM_AFTER_IPSEC, (&raw const policy).cast(), len as socklen_t)
            };
            if status == 0 {
                Errno::set_raw(errno);
            }
            status
        }
        Some(Err(refused)) => {
            refused.set();
            -1
        }
        None => status,
    }
}

/// Whether it is an AF_INET or AF_INET6 socket; others do not look at the value. errno is kept.
fn is_internet(fd: c_int) -> bool {
    let errno = Errno::last_raw();
    let mut domain: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer is that of a live integer of the length that is passed.
    let status =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len) };
    Errno::set_raw(errno);
    status == 0 && matches!(domain, libc::AF_INET | libc::AF_INET6)
}

/// A socket of XFRM's loads its module.
fn load_xfrm() {
    let fd = next::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_XFRM);
    if fd >= 0 {
        // SAFETY: just opened, nobody else's.
        unsafe { libc::close(fd) };
    }
}

/// Reads a `sadb_x_policy` with the checks of `pfkey_compile_policy`, and writes XFRM's form; gives the number of
/// templates. The extension's type and the priority are not looked at there either (iked gives type 12).
fn translate(bytes: &[u8], v6: bool, policy: &mut SocketPolicy) -> Result<usize, Errno> {
    let (fixed, behind) = SadbXPolicy::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
    let len = usize::from(fixed.len.get()) * 8;
    let dir = fixed.dir;
    if len > bytes.len()
        || fixed.policy_type.get() > PolicyType::BYPASS.0
        || !matches!(PolicyDirection(dir), PolicyDirection::INBOUND | PolicyDirection::OUTBOUND)
    {
        return Err(Errno::EINVAL);
    }
    // XFRM's option has no place for a security context.
    if bytes.len() - len >= SEC_CTX_LEN && len >= POLICY_LEN {
        return Err(Errno::EOPNOTSUPP);
    }
    let kind = PolicyType(fixed.policy_type.get());
    let mut templates = 0;
    if kind == PolicyType::IPSEC {
        let requests = len.checked_sub(POLICY_LEN).and_then(|n| behind.get(..n)).ok_or(Errno::EINVAL)?;
        let nowhere: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let parsed = parse_requests(requests, PolicyDirection(dir), Ends::unspecified(nowhere), |_| new_reqid());
        let parsed = parsed.map_err(|errno| Errno::from_raw(errno.to_raw()))?;
        for (to, from) in policy.templates.iter_mut().zip(&parsed) {
            write_template(from, to);
        }
        templates = parsed.len().min(MAX_TEMPLATES);
    }
    let info = &mut policy.info;
    info.selector.family = family(v6);
    info.limits = [NO_LIMIT; 4];
    info.dir = dir - 1;
    info.action = if kind == PolicyType::DISCARD { BLOCK } else { 0 };
    Ok(templates)
}

fn family(v6: bool) -> u16 {
    if v6 { libc::AF_INET6 as u16 } else { libc::AF_INET as u16 }
}

fn write_template(from: &Template, to: &mut UserTemplate) {
    to.id.proto = from.proto.0;
    to.family = family(from.ends.is_ipv6());
    (to.saddr, to.id.daddr) = (XfrmAddress(to_xfrm(from.ends.src())), XfrmAddress(to_xfrm(from.ends.dst())));
    to.reqid = from.reqid;
    // XFRM's modes: 0 transport, 1 tunnel, 4 BEET.
    to.mode = match from.mode {
        Mode::BEET => 4,
        Mode::TUNNEL => 1,
        _ => 0,
    };
    to.optional = from.optional.into();
    // Any algorithm will do.
    to.algorithms = [u32::MAX; 3];
}

/// A reqid for level unique. The kernel counts up and skips those in use; from here, drawing one of two thousand
/// million is as good and needs no list.
fn new_reqid() -> Option<u32> {
    let mut bytes = [0; 4];
    // SAFETY: four bytes of a live array.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Above IPSEC_MANUAL_REQID_MAX, and positive as an int.
    (n == 4).then(|| (u32::from_ne_bytes(bytes) & 0x7fff_ffff) | 0x4000)
}
