//! What XFRM has beyond PF_KEY, for C: attributes gathered in a structure of the caller's, and read from messages.
//!
//! The structure has a fixed size, because the extension's is limited (4096 bytes of attributes): it lives on the caller's stack or
//! in the caller's structures, is copied by assignment, and nothing is allocated or has to be freed.

use std::ffi::{c_int, c_void};

use libc::sockaddr;

use super::error::system_text;
use super::guard::{Failure, guard};
use super::{argument, sadb_msg};
use crate::error::Code;
use crate::wire::address::to_xfrm;
use crate::wire::xfrm::{Gathered, Name, Refusal, Said, Words, attribute};
use crate::wire::{Errno, ExtensionType, extensions};

/// Attributes, flags and options of an SA or a policy, or of its name. `PFKEY_XFRM_INIT`, or zeros, is none. It is the caller's,
/// and holds no pointer.
///
/// `len`: bytes of attributes. `flags`: XFRM_STATE_* that `sadb_sa_flags` lacks, or XFRM_POLICY_*. `options`: SADB_X_XFRM_*.
/// `attributes`: netlink attributes (struct nlattr, linux/netlink.h; XFRMA_*, linux/xfrm.h), each padded to four bytes, which
/// the functions write.
#[allow(non_camel_case_types)]
pub type pfkey_xfrm = Gathered;

unsafe fn change(xfrm: *mut pfkey_xfrm, change: impl FnOnce(&mut Gathered) -> Result<(), Refusal>) -> c_int {
    guard(|| {
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_mut() }.ok_or(Code::InvalidArgument)?;
        change(xfrm).map_err(refused)?;
        Ok(0)
    })
}

/// Code 26 whose text names what is wrong.
pub(super) fn refused(refusal: Refusal) -> Failure {
    nix::errno::Errno::set_raw(refusal.errno().to_raw());
    Failure::text(format_args!("{refusal}"))
}

/// Sets any attribute, one of a kernel newer than this library too: `number` is XFRMA_*, `payload` its `len` bytes as
/// linux/xfrm.h has them, in host byte order; NULL and 0 for one that has none. It takes the place of one with the same number.
///
/// Returns 0; -1 with code 26, whose text names the attribute, for one that PF_KEY says in another place, that the kernel only
/// reports, or whose length cannot be, and for more than 4096 bytes altogether. Nothing is changed then. All functions
/// pfkey_xfrm_set_* do so.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set(
    xfrm: *mut pfkey_xfrm,
    number: c_int,
    payload: *const c_void,
    len: usize,
) -> c_int {
    guard(|| {
        let number = u16::try_from(number).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_mut() }.ok_or(Code::InvalidArgument)?;
        // SAFETY: the caller gives `len` bytes.
        let payload = unsafe { argument::bytes(payload, len) }?;
        xfrm.set(number, payload).map_err(refused)?;
        Ok(0)
    })
}

/// Sets the mark of the packets that it is for: those whose mark has `value` in the bits of `mask`. It is a part of the names of
/// SAs and policies.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_mark(xfrm: *mut pfkey_xfrm, value: u32, mask: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_mark(value, mask)) }
}

/// Sets the mark that an SA's packets get: `value` in the bits of `mask`, 0xffffffff for all. Linux 4.19.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_set_mark(xfrm: *mut pfkey_xfrm, value: u32, mask: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_set_mark(value, mask)) }
}

/// Sets extended sequence numbers (ESN, RFC 4303) and a replay window of `packets`, 4096 at most. `wsize` of
/// `struct pfkey_send_sa_args` is 0 then.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_esn(xfrm: *mut pfkey_xfrm, packets: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_esn(packets)) }
}

/// Sets a replay window of `packets`, 4096 at most, without extended sequence numbers. `wsize` of `struct pfkey_send_sa_args` is 0
/// then.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_replay_window(xfrm: *mut pfkey_xfrm, packets: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_window(packets)) }
}

/// Sets the bits of the integrity value, such as 128 for SHA2-256 (RFC 4868), of which AF_KEY makes 96. Whole bytes. The algorithm
/// and its key stand where they always do.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_icv(xfrm: *mut pfkey_xfrm, bits: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_icv(bits)) }
}

/// Sets the network interface that does the cryptography: its number (if_nametoindex), and XFRM_OFFLOAD_INBOUND for an inbound SA,
/// XFRM_OFFLOAD_PACKET for whole packets. A policy has it with XFRM_OFFLOAD_PACKET.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_offload(xfrm: *mut pfkey_xfrm, ifindex: u32, flags: u8) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_offload(ifindex, flags)) }
}

/// Sets flags, and clears none: XFRM_STATE_WILDRECV, _ICMP, _AF_UNSPEC, _ALIGN4 of an SA, whose others are in `sadb_sa_flags`
/// (`pfkey_xfrm_set_esn` sets _ESN); XFRM_POLICY_LOCALOK, _ICMP, _CPU_ACQUIRE of a policy.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_flags(xfrm: *mut pfkey_xfrm, flags: u8) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe {
        change(xfrm, |xfrm| {
            xfrm.add_flags(flags);
            Ok(())
        })
    }
}

/// Sets the direction of an SA's packets: XFRM_SA_DIR_IN (1) or XFRM_SA_DIR_OUT (2). Linux 6.10.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_sa_dir(xfrm: *mut pfkey_xfrm, dir: u8) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set(attribute::SA_DIR, &[dir])) }
}

/// Sets the care-of address of a mobile node: a sockaddr_in or sockaddr_in6, which is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_coaddr(xfrm: *mut pfkey_xfrm, address: *const sockaddr) -> c_int {
    guard(|| {
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_mut() }.ok_or(Code::InvalidArgument)?;
        // SAFETY: the caller gives a sockaddr or NULL.
        let address = unsafe { argument::sockaddr(address) }?.ip().ok_or(Code::InvalidFamily)?;
        xfrm.set(attribute::COADDR, &to_xfrm(address)).map_err(refused)?;
        Ok(0)
    })
}

/// Sets that IP-TFS does not split packets.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_dont_frag(xfrm: *mut pfkey_xfrm) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set(attribute::IPTFS_DONT_FRAG, &[])) }
}

/// Sets the XFRM interface that it belongs to; 0 = none.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_if_id(xfrm: *mut pfkey_xfrm, if_id: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::IF_ID, if_id)) }
}

/// Sets `XFRM_SA_XFLAG_*`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_extra_flags(xfrm: *mut pfkey_xfrm, flags: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::SA_EXTRA_FLAGS, flags)) }
}

/// Sets the bytes to which packets are padded (traffic flow confidentiality).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_tfcpad(xfrm: *mut pfkey_xfrm, bytes: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::TFCPAD, bytes)) }
}

/// Sets the processor that an SA is for, from 0. Linux 6.13.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_pcpu(xfrm: *mut pfkey_xfrm, cpu: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::SA_PCPU, cpu)) }
}

/// Sets the seconds between two NAT keepalives, which the kernel then sends; 0 = none. Linux 6.11.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_nat_keepalive(xfrm: *mut pfkey_xfrm, seconds: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::NAT_KEEPALIVE_INTERVAL, seconds)) }
}

/// Sets the seconds at least between two reports that a NAT-T peer has another address or port. Linux 5.16.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_mtimer_thresh(xfrm: *mut pfkey_xfrm, seconds: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::MTIMER_THRESH, seconds)) }
}

/// Sets the microseconds that IP-TFS waits for a missing packet. Linux 6.14, as all of IP-TFS.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_drop_time(xfrm: *mut pfkey_xfrm, microseconds: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::IPTFS_DROP_TIME, microseconds)) }
}

/// Sets the microseconds that IP-TFS gathers packets before it sends them.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_init_delay(xfrm: *mut pfkey_xfrm, microseconds: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::IPTFS_INIT_DELAY, microseconds)) }
}

/// Sets the bytes that can wait in an IP-TFS queue.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_max_qsize(xfrm: *mut pfkey_xfrm, bytes: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::IPTFS_MAX_QSIZE, bytes)) }
}

/// Sets the bytes of an outer packet of IP-TFS; 0 = what the path takes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_pkt_size(xfrm: *mut pfkey_xfrm, bytes: u32) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set_u32(attribute::IPTFS_PKT_SIZE, bytes)) }
}

/// Sets the packets that IP-TFS can put into order.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_set_iptfs_reorder_window(xfrm: *mut pfkey_xfrm, packets: u16) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { change(xfrm, |xfrm| xfrm.set(attribute::IPTFS_REORDER_WINDOW, &packets.to_ne_bytes())) }
}

/// Reads an attribute: copies its payload to `payload`, `len` bytes of it at most, in host byte order.
///
/// Returns the payload's length, which is more than `len` if not all was copied, and 0 for an attribute that has none; -1 with
/// code 26 if the attribute is not there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_get(
    xfrm: *const pfkey_xfrm,
    number: c_int,
    payload: *mut c_void,
    len: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_ref() }.ok_or(Code::InvalidArgument)?;
        let number = u16::try_from(number).map_err(|_| Code::InvalidArgument)?;
        let found = xfrm.attributes().payload(number);
        let found = found.ok_or_else(|| Failure::text(format_args!("{} is not there", Name(number))))?;
        let copied = found.len().min(len);
        if copied != 0 {
            if payload.is_null() {
                return Err(Code::InvalidArgument.into());
            }
            // SAFETY: the caller has room for `len` bytes there; the structure is borrowed, so that they may overlap.
            unsafe { std::ptr::copy(found.as_ptr(), payload.cast(), copied) };
        }
        Ok(found.len() as c_int)
    })
}

/// The least number of an attribute that is greater than `number`: from -1 on, one after the other.
///
/// Returns -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_next(xfrm: *const pfkey_xfrm, number: c_int) -> c_int {
    guard(|| {
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_ref() }.ok_or(Code::InvalidArgument)?;
        let greater = xfrm.attributes().map(|(other, _)| c_int::from(other)).filter(|other| *other > number);
        Ok(greater.min().unwrap_or(-1))
    })
}

/// Reads what a message says beyond PF_KEY. A session that asked (`pfkey_show_xfrm`) receives it in messages about SAs and
/// policies.
///
/// Returns 1 if the message says something; 0 if not, and `xfrm` is empty; -1 with a code otherwise. A message with an errno is -1
/// and code 26, whose text is the errno's, and behind it, in a session that asked, what the kernel says of it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_xfrm_of(msg: *const sadb_msg, xfrm: *mut pfkey_xfrm) -> c_int {
    guard(|| {
        // SAFETY: the caller gives a message or NULL.
        let message = unsafe { argument::message(msg) }?;
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_mut() }.ok_or(Code::InvalidArgument)?;
        *xfrm = Gathered::default();
        let extension = extensions(message).find(|extension| extension.ext_type == ExtensionType::X_XFRM);
        let said = extension.map(Said::of);
        let errno = message.get(2).copied().unwrap_or(0);
        if errno != 0 {
            let failure = Failure::errno(Errno::from_raw(errno.into()));
            let Some(why) = said.and_then(Said::why) else { return Err(failure) };
            nix::errno::Errno::set_raw(errno.into());
            return Err(Failure::text(format_args!("{}: {why}", Words(&system_text(errno.into())))));
        }
        match said {
            Some(said) => *xfrm = Gathered::of(said).map_err(refused)?,
            None => return Ok(0),
        }
        Ok(1)
    })
}
