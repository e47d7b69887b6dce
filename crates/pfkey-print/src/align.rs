//! libipsec's own checks, which are not the kernel's: `pfkey_align` finds extensions, `pfkey_check` looks at the
//! header and the two addresses.

use zerocopy::FromBytes;

use crate::wire::layout::{SadbAddress, SadbExt};
use crate::wire::sockaddr::{self, Sockaddr};
use crate::wire::{ExtensionType, HEADER_LEN, Header, MessageType, PF_KEY_V2, SaType};

/// Slots of `pfkey_align`'s result: `SADB_EXT_MAX + 1`.
pub const SLOTS: usize = 27;

/// What `pfkey_align` and `pfkey_check` refuse, named as libipsec's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignError {
    /// `EIPSEC_NOT_SUPPORTED`: SA types RSVP, OSPFv2, RIPv2, MIP.
    NotSupported,
    /// `EIPSEC_INVAL_SADBMSG`: an extension of length 0, past the end, or trailing bytes.
    InvalidMessage,
    /// `EIPSEC_INVAL_VERSION`.
    InvalidVersion,
    /// `EIPSEC_INVAL_MSGTYPE`.
    InvalidMessageType,
    /// `EIPSEC_INVAL_SATYPE`.
    InvalidSaType,
    /// `EIPSEC_INVAL_EXTTYPE`: an unknown extension, or one that is there twice.
    InvalidExtensionType,
    /// `EIPSEC_PROTO_MISMATCH`: the two addresses' protocols differ.
    ProtocolMismatch,
    /// `EIPSEC_FAMILY_MISMATCH`: the two addresses' families differ.
    FamilyMismatch,
    /// `EIPSEC_INVAL_FAMILY`: neither IPv4 nor IPv6.
    InvalidFamily,
}

/// Where each extension starts, in bytes from the start of the message; slot 0 is the header.
pub type Slots = [Option<usize>; SLOTS];

/// `pfkey_align`: finds the extensions. The slots filled before an error stay filled, as in libipsec.
///
/// Types accepted are 1–16 and 18–25 (17 X_KMPRIVATE and 26 X_FILTER are not). There is no minimum length a type.
/// Unlike libipsec, a type beyond the table is refused without reading past it.
///
/// # Errors
/// [`AlignError::InvalidMessage`] or [`AlignError::InvalidExtensionType`].
pub fn align(bytes: &[u8], slots: &mut Slots) -> Result<(), AlignError> {
    *slots = [None; SLOTS];
    slots[0] = Some(0);
    let header = Header::read(bytes).ok_or(AlignError::InvalidMessage)?;
    let end = usize::from(header.len) * 8;
    if end < HEADER_LEN || end > bytes.len() {
        return Err(AlignError::InvalidMessage);
    }
    let mut offset = HEADER_LEN;
    while offset < end {
        let rest = &bytes[offset..end];
        let (head, _) = SadbExt::read_from_prefix(rest).map_err(|_| AlignError::InvalidMessage)?;
        let len = usize::from(head.len.get()) * 8;
        if len == 0 || len > rest.len() {
            return Err(AlignError::InvalidMessage);
        }
        let t = head.ext_type.get();
        match slots.get_mut(usize::from(t)) {
            Some(slot @ None) if t != ExtensionType::X_KMPRIVATE.0 && t <= 25 => *slot = Some(offset),
            _ => return Err(AlignError::InvalidExtensionType),
        }
        offset += len;
    }
    Ok(())
}

/// `pfkey_check`'s rules on the base header.
///
/// # Errors
/// See [`AlignError`].
pub fn check_header(header: Header) -> Result<(), AlignError> {
    use AlignError as E;
    use MessageType as M;
    if header.version != PF_KEY_V2 {
        return Err(E::InvalidVersion);
    }
    let t = header.msg_type;
    if t.0 > 24 {
        return Err(E::InvalidMessageType);
    }
    match header.satype {
        SaType::UNSPEC => match t {
            M::GETSPI | M::UPDATE | M::ADD | M::DELETE | M::GET | M::ACQUIRE | M::EXPIRE | M::X_NAT_T_NEW_MAPPING => {
                Err(E::InvalidSaType)
            }
            _ => Ok(()),
        },
        SaType::AH | SaType::ESP | SaType::X_IPCOMP => match t {
            M::X_SPDADD | M::X_SPDDELETE | M::X_SPDGET | M::X_SPDDUMP | M::X_SPDFLUSH => Err(E::InvalidSaType),
            M::X_NAT_T_NEW_MAPPING if header.satype != SaType::ESP => Err(E::InvalidSaType),
            _ => Ok(()),
        },
        SaType::RSVP | SaType::OSPFV2 | SaType::RIPV2 | SaType::MIP => Err(E::NotSupported),
        // X_PROMISC uses the field as a switch; SPDFLUSH is let through with any value.
        SaType(1) if t == M::X_PROMISC => Ok(()),
        _ if t == M::X_SPDFLUSH => Ok(()),
        _ => Err(E::InvalidSaType),
    }
}

/// `pfkey_check`'s rules on the two addresses, if both are there: each the bytes of an address extension.
///
/// # Errors
/// See [`AlignError`].
pub fn check_addresses(src: &[u8], dst: &[u8]) -> Result<(), AlignError> {
    let read = |bytes: &[u8]| -> (u8, u16) {
        let proto = SadbAddress::read_from_prefix(bytes).map_or(0, |(a, _)| a.proto);
        (proto, Sockaddr(bytes.get(8..).unwrap_or_default()).family())
    };
    let ((src_proto, src_family), (dst_proto, dst_family)) = (read(src), read(dst));
    if src_proto != dst_proto {
        return Err(AlignError::ProtocolMismatch);
    }
    if src_family != dst_family {
        return Err(AlignError::FamilyMismatch);
    }
    match src_family {
        sockaddr::AF_INET | sockaddr::AF_INET6 => Ok(()),
        _ => Err(AlignError::InvalidFamily),
    }
}
