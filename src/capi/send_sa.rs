//! Messages about SAs.

use std::ffi::{c_char, c_int, c_void};

use libc::sockaddr;

use super::argument;
use super::guard::{Failure, cancellation_point};
use super::sending::send_with;
use super::softrate;
use super::xfrm::pfkey_xfrm;
use crate::error::Code;
use crate::request::{Lifetime, NatT, SaIdRequest, SaRequest, SaRequestKind, SecurityContext, SpiRequest};
use crate::wire::MessageType;
use crate::wire::xfrm::Carrier;

/// The arguments of `pfkey_send_add2` and `pfkey_send_update2`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct pfkey_send_sa_args {
    /// PF_KEY descriptor.
    pub so: c_int,
    /// Message type; written by the call.
    pub r#type: u32,
    /// `SADB_SATYPE_*`.
    pub satype: u32,
    /// `IPSEC_MODE_*`.
    pub mode: u32,
    /// Source.
    pub src: *mut sockaddr,
    /// Destination.
    pub dst: *mut sockaddr,
    /// SPI in network byte order.
    pub spi: u32,
    /// Request id.
    pub reqid: u32,
    /// Replay window in packets.
    pub wsize: u32,
    /// Encryption key, then authentication key.
    pub keymat: *mut c_char,
    /// `SADB_EALG_*`, or `SADB_X_CALG_*` for IPComp.
    pub e_type: u32,
    /// Bytes of encryption key.
    pub e_keylen: u32,
    /// `SADB_AALG_*`.
    pub a_type: u32,
    /// Bytes of authentication key.
    pub a_keylen: u32,
    /// `SADB_SAFLAGS_*`.
    pub flags: u32,
    /// Hard limit in packets; 0 = none.
    pub l_alloc: u32,
    /// Hard limit in bytes; 0 = none.
    pub l_bytes: u32,
    /// Hard limit in seconds since creation; 0 = none.
    pub l_addtime: u32,
    /// Hard limit in seconds since first use; 0 = none.
    pub l_usetime: u32,
    /// Sequence number.
    pub seq: u32,
    /// `UDP_ENCAP_*`; 0 = none.
    pub l_natt_type: u8,
    /// UDP source port in host byte order.
    pub l_natt_sport: u16,
    /// UDP destination port in host byte order.
    pub l_natt_dport: u16,
    /// The peer's original address, or NULL.
    pub l_natt_oa: *mut sockaddr,
    /// Not used on Linux.
    pub l_natt_frag: u16,
    /// Domain of interpretation of the security context.
    pub ctxdoi: u8,
    /// LSM of the security context.
    pub ctxalg: u8,
    /// Security context, or NULL.
    pub ctxstr: *mut c_char,
    /// Bytes of security context.
    pub ctxstrlen: u16,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<pfkey_send_sa_args>() == 136);
    assert!(offset_of!(pfkey_send_sa_args, src) == 16);
    assert!(offset_of!(pfkey_send_sa_args, keymat) == 48);
    assert!(offset_of!(pfkey_send_sa_args, l_natt_type) == 96);
    assert!(offset_of!(pfkey_send_sa_args, l_natt_oa) == 104);
    assert!(offset_of!(pfkey_send_sa_args, ctxalg) == 115);
    assert!(offset_of!(pfkey_send_sa_args, ctxstr) == 120);
    assert!(offset_of!(pfkey_send_sa_args, ctxstrlen) == 128);
};

/// Sends an SA. The positional calls have 64 bits for the limits, which the message has too.
unsafe fn send_sa(
    args: &pfkey_send_sa_args,
    kind: SaRequestKind,
    hard: Lifetime,
    xfrm: *const pfkey_xfrm,
) -> Result<c_int, Failure> {
    // SAFETY: the caller gives the structure or NULL.
    let xfrm = unsafe { xfrm.as_ref() };
    // SAFETY: pointers and lengths are the caller's word for what is there.
    let (src, dst) = unsafe { argument::sockaddrs(args.src, args.dst) }?;
    let (e_len, a_len) = (args.e_keylen as usize, args.a_keylen as usize);
    // The keys that the message will not carry are not looked at.
    let wanted = if args.a_type != 0 { e_len.saturating_add(a_len) } else { e_len };
    let wanted = if args.a_type == 0 && (args.e_type == 0 || args.satype == 9) { 0 } else { wanted };
    // SAFETY: as above.
    let keys = unsafe { argument::bytes(args.keymat.cast::<c_void>(), wanted) }?;
    let (encrypt_key, auth_key) = keys.split_at(e_len.min(keys.len()));
    let nat_t = if args.l_natt_type == 0 {
        None
    } else {
        let original = if args.l_natt_oa.is_null() {
            None
        } else {
            // SAFETY: as above.
            Some(unsafe { argument::sockaddr(args.l_natt_oa) }?)
        };
        Some(NatT { encap_type: args.l_natt_type, sport: args.l_natt_sport, dport: args.l_natt_dport, original })
    };
    let context = if args.ctxstr.is_null() {
        None
    } else {
        // SAFETY: as above.
        let text = unsafe { argument::bytes(args.ctxstr.cast::<c_void>(), args.ctxstrlen.into()) }?;
        Some(SecurityContext { doi: args.ctxdoi, alg: args.ctxalg, text })
    };
    let request = SaRequest {
        kind,
        satype: args.satype,
        mode: args.mode as u8,
        src,
        dst,
        spi: u32::from_be(args.spi),
        reqid: args.reqid,
        replay: args.wsize as u8,
        encrypt: args.e_type,
        encrypt_key,
        auth: args.a_type,
        auth_key,
        flags: args.flags,
        hard,
        soft: hard.scaled(softrate::rates()),
        nat_t,
        context,
        seq: args.seq,
    };
    send_with(args.so, xfrm, Carrier::Sa, request.replay, |pid, buffer| request.write(pid, buffer))
}

unsafe fn send_args(args: *mut pfkey_send_sa_args, kind: SaRequestKind, xfrm: *const pfkey_xfrm) -> c_int {
    cancellation_point(|| {
        // SAFETY: the caller gives a struct or NULL.
        let args = unsafe { args.as_mut() }.ok_or(Code::InvalidArgument)?;
        args.r#type = match kind {
            SaRequestKind::Add => MessageType::ADD.0.into(),
            SaRequestKind::Update => MessageType::UPDATE.0.into(),
        };
        let hard = Lifetime {
            allocations: args.l_alloc,
            bytes: args.l_bytes.into(),
            addtime: args.l_addtime.into(),
            usetime: args.l_usetime.into(),
        };
        // SAFETY: the caller's pointers in the struct are what their fields say.
        unsafe { send_sa(args, kind, hard, xfrm) }
    })
}

/// Creates an SA: SADB_ADD. The field `type` is set by the call; keys are not kept.
///
/// Soft limits are 80 % of the hard ones, or what `pfkey_set_softrate` said.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_add2(sa_parms: *mut pfkey_send_sa_args) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_args(sa_parms, SaRequestKind::Add, std::ptr::null()) }
}

/// Completes an SA that `pfkey_send_getspi` began, or changes one: SADB_UPDATE. See `pfkey_send_add2`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_update2(sa_parms: *mut pfkey_send_sa_args) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_args(sa_parms, SaRequestKind::Update, std::ptr::null()) }
}

/// `pfkey_send_add2` with what XFRM has beyond PF_KEY; NULL is nothing. An SA with XFRM's own replay window
/// (`pfkey_xfrm_set_esn`, `pfkey_xfrm_set_replay_window`) has `wsize` 0.
///
/// Returns the number of bytes sent; -1 with a code otherwise: 26, whose text names the attribute, for one that the message cannot
/// carry, and on a descriptor of AF_KEY's (EOPNOTSUPP), which would pass over it. All functions pfkey_send_*_xfrm do so.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_add2_xfrm(
    sa_parms: *mut pfkey_send_sa_args,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_args(sa_parms, SaRequestKind::Add, xfrm) }
}

/// `pfkey_send_update2` with what XFRM has beyond PF_KEY, see `pfkey_send_add2_xfrm`. An SA with a mark is found by it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_update2_xfrm(
    sa_parms: *mut pfkey_send_sa_args,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_args(sa_parms, SaRequestKind::Update, xfrm) }
}

macro_rules! positional {
    ($(#[$doc:meta])* $name:ident, $kind:expr $(, $nat:ident: $nat_type:ty)*) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C-unwind" fn $name(
            so: c_int,
            satype: u32,
            mode: u32,
            src: *mut sockaddr,
            dst: *mut sockaddr,
            spi: u32,
            reqid: u32,
            wsize: u32,
            keymat: *mut c_char,
            e_type: u32,
            e_keylen: u32,
            a_type: u32,
            a_keylen: u32,
            flags: u32,
            l_alloc: u32,
            l_bytes: u64,
            l_addtime: u64,
            l_usetime: u64,
            seq: u32
            $(, $nat: $nat_type)*
        ) -> c_int {
            cancellation_point(|| {
                #[allow(unused_mut)]
                let mut args = pfkey_send_sa_args {
                    so,
                    r#type: 0,
                    satype,
                    mode,
                    src,
                    dst,
                    spi,
                    reqid,
                    wsize,
                    keymat,
                    e_type,
                    e_keylen,
                    a_type,
                    a_keylen,
                    flags,
                    l_alloc,
                    l_bytes: 0,
                    l_addtime: 0,
                    l_usetime: 0,
                    seq,
                    l_natt_type: 0,
                    l_natt_sport: 0,
                    l_natt_dport: 0,
                    l_natt_oa: std::ptr::null_mut(),
                    l_natt_frag: 0,
                    ctxdoi: 0,
                    ctxalg: 0,
                    ctxstr: std::ptr::null_mut(),
                    ctxstrlen: 0,
                };
                $(args.$nat = $nat;)*
                let hard = Lifetime { allocations: l_alloc, bytes: l_bytes, addtime: l_addtime, usetime: l_usetime };
                // SAFETY: the caller's pointers are what their names say.
                unsafe { send_sa(&args, $kind, hard, std::ptr::null()) }
            })
        }
    };
}

positional! {
    /// `pfkey_send_add2` with its arguments one by one. Unlike libipsec it sends all 64 bits of the limits.
    /// Deprecated.
    pfkey_send_add, SaRequestKind::Add
}
positional! {
    /// `pfkey_send_update2` with its arguments one by one. Unlike libipsec it sends all 64 bits of the limits.
    /// Deprecated.
    pfkey_send_update, SaRequestKind::Update
}
positional! {
    /// `pfkey_send_add` with NAT traversal: `UDP_ENCAP_*`, two ports in host byte order, and the peer's original
    /// address or NULL; the last argument is not used on Linux. Deprecated.
    pfkey_send_add_nat, SaRequestKind::Add,
    l_natt_type: u8, l_natt_sport: u16, l_natt_dport: u16, l_natt_oa: *mut sockaddr, l_natt_frag: u16
}
positional! {
    /// `pfkey_send_update` with NAT traversal, see `pfkey_send_add_nat`. Deprecated.
    pfkey_send_update_nat, SaRequestKind::Update,
    l_natt_type: u8, l_natt_sport: u16, l_natt_dport: u16, l_natt_oa: *mut sockaddr, l_natt_frag: u16
}

/// Asks for an SPI between `min` and `max` (host byte order, above 255; 0 and 0 for any): SADB_GETSPI. A `max` of
/// 0xffffffff is not sent.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_getspi(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    min: u32,
    max: u32,
    reqid: u32,
    seq: u32,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { pfkey_send_getspi_nat(so, satype, mode, src, dst, 0, 0, 0, min, max, reqid, seq) }
}

/// `pfkey_send_getspi` with NAT traversal: `UDP_ENCAP_*` and two ports in host byte order.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_getspi_nat(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    natt_type: u8,
    sport: u16,
    dport: u16,
    min: u32,
    max: u32,
    reqid: u32,
    seq: u32,
) -> c_int {
    let none = std::ptr::null();
    // SAFETY: passed on from the caller.
    unsafe { pfkey_send_getspi_xfrm(so, satype, mode, src, dst, natt_type, sport, dport, min, max, reqid, seq, none) }
}

/// `pfkey_send_getspi_nat` (`natt_type` and ports 0: `pfkey_send_getspi`) with what XFRM has beyond PF_KEY, see
/// `pfkey_send_add2_xfrm`. A larval SA with a mark is completed by an UPDATE with that mark.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_getspi_xfrm(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    natt_type: u8,
    sport: u16,
    dport: u16,
    min: u32,
    max: u32,
    reqid: u32,
    seq: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    cancellation_point(|| {
        // SAFETY: the caller gives sockaddrs or NULL.
        let (src, dst) = unsafe { argument::sockaddrs(src, dst) }?;
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_ref() };
        let nat_t = NatT { encap_type: natt_type, sport, dport, original: None };
        let request = SpiRequest { satype: satype as u8, mode: mode as u8, src, dst, nat_t, min, max, reqid, seq };
        send_with(so, xfrm, Carrier::Sa, 0, |pid, buffer| request.write(pid, buffer))
    })
}

unsafe fn send_id(
    so: c_int,
    msg_type: MessageType,
    satype: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    spi: Option<u32>,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    cancellation_point(|| {
        // SAFETY: the caller gives sockaddrs or NULL.
        let (src, dst) = unsafe { argument::sockaddrs(src, dst) }?;
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_ref() };
        let request = SaIdRequest { msg_type, satype: satype as u8, src, dst, spi: spi.map(u32::from_be) };
        send_with(so, xfrm, Carrier::SaName, 0, |pid, buffer| request.write(pid, buffer))
    })
}

/// Removes an SA: SADB_DELETE. `spi` is in network byte order; `mode` is not used.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_delete(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    spi: u32,
) -> c_int {
    let _ = mode;
    // SAFETY: passed on from the caller.
    unsafe { send_id(so, MessageType::DELETE, satype, src, dst, Some(spi), std::ptr::null()) }
}

/// Asks to remove every SA between two addresses: SADB_DELETE without an SPI, which Linux refuses. `mode` is not
/// used.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_delete_all(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
) -> c_int {
    let _ = mode;
    // SAFETY: passed on from the caller.
    unsafe { send_id(so, MessageType::DELETE, satype, src, dst, None, std::ptr::null()) }
}

/// Asks for an SA: SADB_GET. `spi` is in network byte order; `mode` is not used.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_get(
    so: c_int,
    satype: u32,
    mode: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    spi: u32,
) -> c_int {
    let _ = mode;
    // SAFETY: passed on from the caller.
    unsafe { send_id(so, MessageType::GET, satype, src, dst, Some(spi), std::ptr::null()) }
}

/// `pfkey_send_delete` of an SA with a mark (`pfkey_xfrm_set_mark`), see `pfkey_send_add2_xfrm`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_delete_xfrm(
    so: c_int,
    satype: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    spi: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_id(so, MessageType::DELETE, satype, src, dst, Some(spi), xfrm) }
}

/// `pfkey_send_get` of an SA with a mark (`pfkey_xfrm_set_mark`), see `pfkey_send_add2_xfrm`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_get_xfrm(
    so: c_int,
    satype: u32,
    src: *mut sockaddr,
    dst: *mut sockaddr,
    spi: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_id(so, MessageType::GET, satype, src, dst, Some(spi), xfrm) }
}
