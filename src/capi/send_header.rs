//! Messages that are a header only.

use std::ffi::c_int;

use super::guard::cancellation_point;
use super::sending::send;
use super::supported;
use crate::request::HeaderRequest;
use crate::wire::MessageType;

fn header_only(so: c_int, msg_type: MessageType, satype: u32) -> c_int {
    cancellation_point(|| send(so, |pid, buffer| HeaderRequest { msg_type, satype }.write(pid, buffer)))
}

/// Registers for ACQUIRE and EXPIRE messages of an SA type (0, AH, ESP or IPComp), and forgets the algorithms that
/// an earlier registration listed. `pfkey_recv_register` reads the answer.
///
/// Returns the number of bytes sent; -1 with a code otherwise (2 for another SA type).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_register(so: c_int, satype: u32) -> c_int {
    cancellation_point(|| {
        let request = HeaderRequest { msg_type: MessageType::REGISTER, satype };
        let sent = send(so, |pid, buffer| request.write(pid, buffer));
        // A list is dropped only for a type that can be registered, as in libipsec, but also where sending failed:
        // programs rely on having to register anew.
        supported::forget(satype);
        sent
    })
}

/// Removes all SAs of a type, or all for 0. Two messages may answer.
///
/// Returns the number of bytes sent; -1 with a code otherwise (10 for an SA type that is not IPsec's).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_flush(so: c_int, satype: u32) -> c_int {
    header_only(so, MessageType::FLUSH, satype)
}

/// Asks for all SAs of a type, or all for 0: a message each, the last with sequence number 0.
///
/// Returns the number of bytes sent; -1 with a code otherwise (10 for an SA type that is not IPsec's).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_dump(so: c_int, satype: u32) -> c_int {
    header_only(so, MessageType::DUMP, satype)
}

/// Switches a descriptor to hear every message (`flag` not 0), or no longer.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_promisc_toggle(so: c_int, flag: c_int) -> c_int {
    header_only(so, MessageType::X_PROMISC, u32::from(flag != 0))
}

/// Asks to be shown what XFRM has beyond PF_KEY (`on` not 0), or no longer, on this descriptor: SADB_X_XFRM. Messages about SAs and
/// policies then have it, and messages with an errno what the kernel says of it; `pfkey_xfrm_of` reads both.
///
/// The answer is a message of the same type, to this descriptor alone. A pfkeyd that is older than the extension does not answer.
///
/// Returns the number of bytes sent; -1 with a code otherwise: AF_KEY has no such message (26, EINVAL).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_show_xfrm(so: c_int, on: c_int) -> c_int {
    header_only(so, MessageType::X_XFRM, u32::from(on != 0))
}

/// Removes all policies. Two messages may answer.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spdflush(so: c_int) -> c_int {
    header_only(so, MessageType::X_SPDFLUSH, 0)
}

/// Asks for all policies: a message each, the last with sequence number 0.
///
/// Returns the number of bytes sent; -1 with a code otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_send_spddump(so: c_int) -> c_int {
    header_only(so, MessageType::X_SPDDUMP, 0)
}
