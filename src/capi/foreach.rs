//! Every SA, a callback each.

use std::ffi::{c_int, c_void};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use libc::sockaddr;

use super::guard::{Failure, cancellation_point};
use crate::error::Code;
use crate::listing::{SaView, for_each_sa};
use crate::model::sa::Limits;
use crate::wire::{SaState, SaType, SockaddrBytes};

/// Limits of an SA, or its use so far.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct pfkey_sa_lifetime {
    /// Packets; as a limit 0 = none.
    pub packets: u64,
    /// Bytes; as a limit 0 = none.
    pub bytes: u64,
    /// Limits: seconds since creation, 0 = none. Use: Unix time of creation.
    pub addtime: u64,
    /// Limits: seconds since first use, 0 = none. Use: Unix time of first use, 0 = unused.
    pub usetime: u64,
}

/// An SA as `pfkey_dump_foreach` shows it. It and what it points to are valid during the callback only.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct pfkey_sa_view {
    /// SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP.
    pub satype: u8,
    /// SADB_SASTATE_LARVAL, SADB_SASTATE_MATURE or SADB_SASTATE_DYING.
    pub state: u8,
    /// `sadb_sa_auth`.
    pub auth: u8,
    /// `sadb_sa_encrypt`.
    pub encrypt: u8,
    /// `sadb_x_sa2_mode`.
    pub mode: u8,
    /// Replay window in packets.
    pub replay: u8,
    /// Bits of authentication key.
    pub auth_bits: u16,
    /// Bits of encryption key.
    pub encrypt_bits: u16,
    /// UDP encapsulation, 0 = none.
    pub natt_type: u16,
    /// UDP source port in host byte order.
    pub natt_sport: u16,
    /// UDP destination port in host byte order.
    pub natt_dport: u16,
    /// SPI in network byte order, as `sadb_sa_spi`.
    pub spi: u32,
    /// `sadb_sa_flags`.
    pub flags: u32,
    /// `sadb_x_sa2_reqid`.
    pub reqid: u32,
    /// Source; a sockaddr_in or sockaddr_in6 without port.
    pub src: *const sockaddr,
    /// Destination; a sockaddr_in or sockaddr_in6 without port.
    pub dst: *const sockaddr,
    /// Authentication key, (auth_bits + 7) / 8 bytes.
    pub auth_key: *const u8,
    /// Encryption key, (encrypt_bits + 7) / 8 bytes.
    pub encrypt_key: *const u8,
    /// Hard limits.
    pub hard: pfkey_sa_lifetime,
    /// Soft limits.
    pub soft: pfkey_sa_lifetime,
    /// Use so far.
    pub current: pfkey_sa_lifetime,
}

fn lifetime(limits: &Limits) -> pfkey_sa_lifetime {
    pfkey_sa_lifetime {
        packets: limits.packets,
        bytes: limits.bytes,
        addtime: limits.add_seconds,
        usetime: limits.use_seconds,
    }
}

/// A sockaddr where C expects one.
#[repr(align(8))]
struct Aligned([u8; 28]);

impl Aligned {
    fn new(address: IpAddr) -> Self {
        let mut aligned = Self([0; 28]);
        for (to, from) in aligned.0.iter_mut().zip(SockaddrBytes::new(address, 0).as_bytes()) {
            *to = *from;
        }
        aligned
    }
}

fn show<R>(sa: &SaView<'_>, callback: impl FnOnce(&pfkey_sa_view) -> R) -> R {
    let (src, dst) = (Aligned::new(sa.ends.src()), Aligned::new(sa.ends.dst()));
    let encap = sa.encap.map_or((0, 0, 0), |encap| (encap.encap_type.into(), encap.sport, encap.dport));
    callback(&pfkey_sa_view {
        satype: sa.satype().0,
        state: SaState::from(sa.state).0,
        auth: sa.auth.0,
        encrypt: sa.encrypt.0,
        mode: sa.mode.0,
        replay: sa.replay,
        auth_bits: sa.auth_key.0,
        encrypt_bits: sa.encrypt_key.0,
        natt_type: encap.0,
        natt_sport: encap.1,
        natt_dport: encap.2,
        spi: sa.spi.to_be(),
        flags: sa.flags.0,
        reqid: sa.reqid,
        src: src.0.as_ptr().cast(),
        dst: dst.0.as_ptr().cast(),
        auth_key: sa.auth_key.1.as_ptr(),
        encrypt_key: sa.encrypt_key.1.as_ptr(),
        hard: lifetime(&sa.hard),
        soft: lifetime(&sa.soft),
        current: pfkey_sa_lifetime {
            packets: sa.usage.packets,
            bytes: sa.usage.bytes,
            addtime: sa.usage.add_time,
            usetime: sa.usage.use_time,
        },
    })
}

/// Calls `callback` once for each SA of a type (SADB_SATYPE_UNSPEC: of all), newest first, with `arg`; a value other
/// than 0 stops it.
///
/// Behind XFRM and AF_KEY the SAs come straight from the kernel by netlink, without a PF_KEY message each; DYING is then
/// judged from limits and counters. Where the program may not (no CAP_NET_ADMIN), or another engine is behind `so`, it
/// is a DUMP over `so`: what waits there before is dropped, the rest of another dump among it, and what else arrives there
/// meanwhile is read and lost, so use a descriptor that is registered for nothing. Its entries are waited for on a
/// non-blocking descriptor, too, 30 seconds each; SO_RCVTIMEO holds as for pfkey_recv. The callback must not use `so`, nor
/// leave by longjmp or an exception.
///
/// The thread cannot be cancelled meanwhile.
///
/// Returns 0, or the callback's value that stopped it; -1 with a code otherwise (10 for an SA type that has no SAs, 21
/// without memory).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_dump_foreach(
    so: c_int,
    satype: u32,
    callback: Option<extern "C" fn(sa: *const pfkey_sa_view, arg: *mut c_void) -> c_int>,
    arg: *mut c_void,
) -> c_int {
    cancellation_point(|| {
        let callback = callback.ok_or(Code::InvalidArgument)?;
        let satype = u8::try_from(satype).map(SaType).map_err(|_| Code::InvalidSaType)?;
        if satype.protocol().is_none() {
            return Err(Code::InvalidSaType.into());
        }
        if so < 0 {
            return Err(Failure::Errno(libc::EBADF));
        }
        // SAFETY: not negative; the caller keeps it open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(so) };
        let mut stopped = 0;
        let outcome = for_each_sa(fd, satype, &mut |sa| {
            stopped = show(sa, |view| callback(view, arg));
            if stopped == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome.map_err(Failure::errno)?;
        Ok(stopped)
    })
}
