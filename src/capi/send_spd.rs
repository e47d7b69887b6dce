//! Messages about policies.

use std::ffi::{c_char, c_int, c_void};

use libc::sockaddr;

use super::argument;
use super::guard::cancellation_point;
use super::sending::{send, send_with};
use super::xfrm::pfkey_xfrm;
use crate::error::Code;
use crate::request::{MigrateRequest, PolicyIdRequest, PolicyRequest, PolicyRequestKind};
use crate::wire::MessageType;
use crate::wire::xfrm::Carrier;

/// A selector and a policy as C gives them.
struct Arguments {
    src: *mut sockaddr,
    prefs: u32,
    dst: *mut sockaddr,
    prefd: u32,
    proto: u32,
    policy: *mut c_char,
    policylen: c_int,
    seq: u32,
    xfrm: *const pfkey_xfrm,
}

unsafe fn send_policy(so: c_int, kind: PolicyRequestKind, times: (u64, u64), a: Arguments) -> c_int {
    cancellation_point(|| {
        let bare = matches!(kind, PolicyRequestKind::Delete | PolicyRequestKind::SetIdx);
        if bare && a.policylen != 16 {
            return Err(Code::InvalidArgument.into());
        }
        let len = usize::try_from(a.policylen).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives sockaddrs or NULL.
        let (src, dst) = unsafe { argument::sockaddrs(a.src, a.dst) }?;
        // SAFETY: the caller gives `policylen` bytes.
        let policy = unsafe { argument::bytes(a.policy.cast::<c_void>(), len) }?;
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { a.xfrm.as_ref() };
        // The attributes stand behind it: it may not say that it is longer.
        let words = policy.first_chunk().map_or(0, |len| usize::from(u16::from_ne_bytes(*len)));
        if xfrm.is_some() && words * 8 != policy.len() {
            return Err(Code::InvalidArgument.into());
        }
        let carrier = if kind == PolicyRequestKind::Delete { Carrier::PolicyName } else { Carrier::Policy };
        let request = PolicyRequest {
            kind,
            src,
            prefs: a.prefs,
            dst,
            prefd: a.prefd,
            proto: a.proto as u8,
            ltime: times.0,
            vtime: times.1,
            policy,
            seq: a.seq,
        };
        send_with(so, xfrm, carrier, 0, |pid, buffer| request.write(pid, buffer))
    })
}

macro_rules! policy_call {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        ///
        /// Returns the number of bytes sent; -1 with a code otherwise.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C-unwind" fn $name(
            so: c_int,
            src: *mut sockaddr,
            prefs: u32,
            dst: *mut sockaddr,
            prefd: u32,
            proto: u32,
            policy: *mut c_char,
            policylen: c_int,
            seq: u32,
        ) -> c_int {
            let xfrm = std::ptr::null();
            let arguments = Arguments { src, prefs, dst, prefd, proto, policy, policylen, seq, xfrm };
            // SAFETY: passed on from the caller.
            unsafe { send_policy(so, $kind, (0, 0), arguments) }
        }
    };
    ($(#[$doc:meta])* $name:ident, $kind:expr, times) => {
        $(#[$doc])*
        ///
        /// `ltime` and `vtime` are the seconds that the policy lives, and lives unused; 0 = no limit.
        /// Returns the number of bytes sent; -1 with a code otherwise.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C-unwind" fn $name(
            so: c_int,
            src: *mut sockaddr,
            prefs: u32,
            dst: *mut sockaddr,
            prefd: u32,
            proto: u32,
            ltime: u64,
            vtime: u64,
            policy: *mut c_char,
            policylen: c_int,
            seq: u32,
        ) -> c_int {
            let xfrm = std::ptr::null();
            let arguments = Arguments { src, prefs, dst, prefd, proto, policy, policylen, seq, xfrm };
            // SAFETY: passed on from the caller.
            unsafe { send_policy(so, $kind, (ltime, vtime), arguments) }
        }
    };
}

policy_call! {
    /// Adds a policy: SADB_X_SPDADD. `policy` is what `ipsec_set_policy` made, `policylen` its
    /// `ipsec_get_policylen`; it is copied. `proto` 255 is any.
    pfkey_send_spdadd, PolicyRequestKind::Add
}
policy_call! {
    /// `pfkey_send_spdadd` with lifetimes.
    pfkey_send_spdadd2, PolicyRequestKind::Add, times
}
policy_call! {
    /// Adds or replaces a policy: SADB_X_SPDUPDATE. See `pfkey_send_spdadd`.
    pfkey_send_spdupdate, PolicyRequestKind::Update
}
policy_call! {
    /// `pfkey_send_spdupdate` with lifetimes.
    pfkey_send_spdupdate2, PolicyRequestKind::Update, times
}
policy_call! {
    /// Removes the policy with this selector and direction: SADB_X_SPDDELETE. `policylen` must be 16.
    pfkey_send_spddelete, PolicyRequestKind::Delete
}
policy_call! {
    /// SADB_X_SPDSETIDX, on Linux the same as SPDADD. `policylen` must be 16.
    pfkey_send_spdsetidx, PolicyRequestKind::SetIdx
}

unsafe fn send_by_id(so: c_int, msg_type: MessageType, id: u32, xfrm: *const pfkey_xfrm) -> c_int {
    cancellation_point(|| {
        // SAFETY: the caller gives the structure or NULL.
        let xfrm = unsafe { xfrm.as_ref() };
        let request = PolicyIdRequest { msg_type, id };
        send_with(so, xfrm, Carrier::PolicyName, 0, |pid, buffer| request.write(pid, buffer))
    })
}

/// Removes a policy by its number: SADB_X_SPDDELETE2.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spddelete2(so: c_int, spid: u32) -> c_int {
    // SAFETY: NULL is allowed.
    unsafe { send_by_id(so, MessageType::X_SPDDELETE2, spid, std::ptr::null()) }
}

/// Asks for a policy by its number: SADB_X_SPDGET.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spdget(so: c_int, spid: u32) -> c_int {
    // SAFETY: NULL is allowed.
    unsafe { send_by_id(so, MessageType::X_SPDGET, spid, std::ptr::null()) }
}

/// Moves SAs and a policy to other addresses: SADB_X_MIGRATE. `local` and `remote` are the key managers' own
/// addresses; `policy` holds pairs of old and new requests.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_migrate(
    so: c_int,
    local: *mut sockaddr,
    remote: *mut sockaddr,
    src: *mut sockaddr,
    prefs: u32,
    dst: *mut sockaddr,
    prefd: u32,
    proto: u32,
    policy: *mut c_char,
    policylen: c_int,
    seq: u32,
) -> c_int {
    cancellation_point(|| {
        let len = usize::try_from(policylen).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives sockaddrs or NULL.
        let (src, dst) = unsafe { argument::sockaddrs(src, dst) }?;
        if src.family() != dst.family() {
            return Err(Code::FamilyMismatch.into());
        }
        // SAFETY: as above.
        let (local, remote) = unsafe { argument::sockaddrs(local, remote) }?;
        // SAFETY: the caller gives `policylen` bytes.
        let policy = unsafe { argument::bytes(policy.cast::<c_void>(), len) }?;
        let proto = proto as u8;
        let request = MigrateRequest { local, remote, src, prefs, dst, prefd, proto, policy, seq };
        send(so, |pid, buffer| request.write(pid, buffer))
    })
}

// Written out: cbindgen does not see what macros make, and libpfkey.h, which declares those, is libipsec's.

/// `pfkey_send_spdadd2` (`ltime` and `vtime` 0: `pfkey_send_spdadd`) with what XFRM has beyond PF_KEY, see
/// `pfkey_send_add2_xfrm`. Policies that differ in mark or XFRM interface are different policies.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_spdadd_xfrm(
    so: c_int,
    src: *mut sockaddr,
    prefs: u32,
    dst: *mut sockaddr,
    prefd: u32,
    proto: u32,
    ltime: u64,
    vtime: u64,
    policy: *mut c_char,
    policylen: c_int,
    seq: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    let arguments = Arguments { src, prefs, dst, prefd, proto, policy, policylen, seq, xfrm };
    // SAFETY: passed on from the caller.
    unsafe { send_policy(so, PolicyRequestKind::Add, (ltime, vtime), arguments) }
}

/// `pfkey_send_spdupdate2` with what XFRM has beyond PF_KEY, see `pfkey_send_spdadd_xfrm`.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_spdupdate_xfrm(
    so: c_int,
    src: *mut sockaddr,
    prefs: u32,
    dst: *mut sockaddr,
    prefd: u32,
    proto: u32,
    ltime: u64,
    vtime: u64,
    policy: *mut c_char,
    policylen: c_int,
    seq: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    let arguments = Arguments { src, prefs, dst, prefd, proto, policy, policylen, seq, xfrm };
    // SAFETY: passed on from the caller.
    unsafe { send_policy(so, PolicyRequestKind::Update, (ltime, vtime), arguments) }
}

/// `pfkey_send_spddelete` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`. `policylen` must be 16, and
/// the policy as long as that ("out none").
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn pfkey_send_spddelete_xfrm(
    so: c_int,
    src: *mut sockaddr,
    prefs: u32,
    dst: *mut sockaddr,
    prefd: u32,
    proto: u32,
    policy: *mut c_char,
    policylen: c_int,
    seq: u32,
    xfrm: *const pfkey_xfrm,
) -> c_int {
    let arguments = Arguments { src, prefs, dst, prefd, proto, policy, policylen, seq, xfrm };
    // SAFETY: passed on from the caller.
    unsafe { send_policy(so, PolicyRequestKind::Delete, (0, 0), arguments) }
}

/// `pfkey_send_spddelete2` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spddelete2_xfrm(so: c_int, spid: u32, xfrm: *const pfkey_xfrm) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_by_id(so, MessageType::X_SPDDELETE2, spid, xfrm) }
}

/// `pfkey_send_spdget` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spdget_xfrm(so: c_int, spid: u32, xfrm: *const pfkey_xfrm) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { send_by_id(so, MessageType::X_SPDGET, spid, xfrm) }
}
