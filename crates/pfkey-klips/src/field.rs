//! The rules on a single extension: first what its own parser checks, then what the step behind it takes
//! (Openswan `pfkey_v2_parse.c`, `pfkey_v2_ext_process.c`).

use zerocopy::FromBytes;

use super::layout::{self, Comb, SAREF_LIMIT, SAREF_NULL};
use super::number::*;
use super::request::Request;
use pfkey_hub::Errno;
use pfkey_wire::layout::{SadbAddress, SadbAlg, SadbIdent, SadbKey, SadbProp, SadbSens, SadbSupported};
use pfkey_wire::sockaddr::{AF_INET, AF_INET6, SOCKADDR_IN_LEN, Sockaddr, sockaddr_len};
use pfkey_wire::{AuthAlgorithm, ExtensionType as Ext, SaState, SaType, round8};

/// The longest replay window.
const REPLAY_MAX: u8 = 64;
/// `SADB_IDENTTYPE_MAX`: a connection.
const IDENTITY_MAX: u16 = 4;
/// The types of UDP encapsulation: with non-IKE marker, with non-ESP marker.
const ENCAPSULATIONS: [u8; 2] = [1, 2];

type Checked = Result<(), Errno>;

/// Whether a condition holds; EINVAL if not.
const fn need(holds: bool) -> Checked {
    if holds { Ok(()) } else { Err(Errno::EINVAL) }
}

/// An extension that has exactly its structure's length.
fn exact<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(bytes).map_err(|_| Errno::EINVAL)
}

/// An extension's structure, and what is behind it.
fn open<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)
}

/// Checks an extension, which may have any length.
///
/// # Errors
/// The errno of the report.
pub fn check(ext: Ext, bytes: &[u8]) -> Checked {
    match ext {
        Ext::SA | X_EXT_SA2 => check_sa(exact(bytes)?),
        Ext::LIFETIME_CURRENT | Ext::LIFETIME_HARD | Ext::LIFETIME_SOFT => exact::<layout::Lifetime>(bytes).map(|_| ()),
        Ext::ADDRESS_SRC
        | Ext::ADDRESS_DST
        | Ext::ADDRESS_PROXY
        | X_EXT_ADDRESS_DST2
        | X_EXT_ADDRESS_SRC_FLOW
        | X_EXT_ADDRESS_DST_FLOW
        | X_EXT_ADDRESS_SRC_MASK
        | X_EXT_ADDRESS_DST_MASK
        | X_EXT_NAT_T_OA => check_address(bytes),
        Ext::KEY_AUTH | Ext::KEY_ENCRYPT => check_key(bytes),
        Ext::IDENTITY_SRC | Ext::IDENTITY_DST => check_identity(bytes),
        Ext::SENSITIVITY => open::<SadbSens>(bytes).map(|_| ()),
        Ext::PROPOSAL => check_proposal(bytes),
        Ext::SUPPORTED_AUTH | Ext::SUPPORTED_ENCRYPT => check_supported(ext, bytes),
        Ext::SPIRANGE => check_spirange(exact(bytes)?),
        X_EXT_SATYPE2 => {
            let satype: layout::SaType2 = exact(bytes)?;
            need(protocol(SaType(satype.satype)).is_some() && satype.reserved == [0; 3])
        }
        X_EXT_DEBUG => exact::<layout::Debug>(bytes).and_then(|debug| need(debug.reserved == [0; 4])),
        X_EXT_PROTOCOL => exact::<layout::Protocol>(bytes).and_then(|protocol| need(protocol.reserved == 0)),
        // KLIPS does not look, and would read beyond a shorter one.
        X_EXT_NAT_T_TYPE | X_EXT_NAT_T_SPORT | X_EXT_NAT_T_DPORT => need(bytes.len() == 8),
        // KMPRIVATE is never taken.
        _ => Err(Errno::EINVAL),
    }
}

fn check_sa(sa: layout::Sa) -> Checked {
    let state = SaState(sa.rfc.state);
    let saref = sa.saref.get();
    need(AuthAlgorithm(sa.rfc.auth) <= AuthAlgorithm::X_NULL)?;
    need(state < SaState::DEAD)?;
    need(sa.rfc.replay <= REPLAY_MAX)?;
    need(saref == SAREF_NULL || saref < SAREF_LIMIT)
}

fn check_address(bytes: &[u8]) -> Checked {
    let (address, rest) = open::<SadbAddress>(bytes)?;
    need(rest.len() >= SOCKADDR_IN_LEN && address.reserved.get() == 0)?;
    let family = Sockaddr(rest).family();
    if !matches!(family, AF_INET | AF_INET6) {
        return Err(Errno::EPFNOSUPPORT);
    }
    need(bytes.len() == round8(size_of::<SadbAddress>() + sockaddr_len(family)))?;
    // There are masks instead.
    if address.prefixlen == 0 { Ok(()) } else { Err(Errno::EAFNOSUPPORT) }
}

fn check_key(bytes: &[u8]) -> Checked {
    let (key, _) = open::<SadbKey>(bytes)?;
    let bits = key.bits.get();
    need(bits != 0 && key.reserved.get() == 0)?;
    need(bytes.len() == round8(size_of::<SadbKey>() + usize::from(bits).div_ceil(8)))
}

fn check_identity(bytes: &[u8]) -> Checked {
    let (identity, text) = open::<SadbIdent>(bytes)?;
    need(identity.ident_type.get() <= IDENTITY_MAX && identity.reserved.get() == 0)?;
    need(text.last().is_none_or(|byte| *byte == 0))
}

fn check_proposal(bytes: &[u8]) -> Checked {
    let (proposal, combs) = open::<SadbProp>(bytes)?;
    need(combs.len() % size_of::<Comb>() == 0)?;
    need(proposal.replay <= REPLAY_MAX && proposal.reserved == [0; 3])?;
    combs.chunks_exact(size_of::<Comb>()).try_for_each(|comb| check_comb(exact(comb)?))
}

fn check_comb(comb: Comb) -> Checked {
    let c = comb.rfc;
    let keys = |id: u8, min: u16, max: u16| {
        if id == 0 { min == 0 && max == 0 } else { min != 0 && max != 0 && min <= max }
    };
    let within = |soft: u64, hard: u64| hard == 0 || soft <= hard;
    need(AuthAlgorithm(c.auth) <= AuthAlgorithm::X_NULL)?;
    need(keys(c.auth, c.auth_minbits.get(), c.auth_maxbits.get()))?;
    need(keys(c.encrypt, c.encrypt_minbits.get(), c.encrypt_maxbits.get()))?;
    need(within(c.soft_allocations.get().into(), c.hard_allocations.get().into()))?;
    need(within(c.soft_bytes.get(), c.hard_bytes.get()))?;
    need(within(c.soft_addtime.get(), c.hard_addtime.get()))?;
    need(within(c.soft_usetime.get(), c.hard_usetime.get()))?;
    need(within(comb.soft_packets.get().into(), comb.hard_packets.get().into()))?;
    need(c.reserved.get() == 0)
}

fn check_supported(ext: Ext, bytes: &[u8]) -> Checked {
    let (supported, algorithms) = open::<SadbSupported>(bytes)?;
    need(supported.reserved.get() == 0)?;
    algorithms.chunks_exact(size_of::<SadbAlg>()).try_for_each(|bytes| {
        let algorithm: SadbAlg = exact(bytes)?;
        let known = ext != Ext::SUPPORTED_AUTH || AuthAlgorithm(algorithm.id) <= AuthAlgorithm::X_NULL;
        need(known && algorithm.reserved.get() == 0)
    })
}

fn check_spirange(range: layout::Spirange) -> Checked {
    need(range.reserved.get() == 0)?;
    need(range.max.get() >= range.min.get())?;
    // The reserved SPIs are all in use, so to speak.
    if range.min.get() > 255 { Ok(()) } else { Err(Errno::EEXIST) }
}

/// What the step behind the parser does not take, in ascending order of the extensions.
///
/// # Errors
/// The errno of the report.
pub fn process(request: &Request<'_>) -> Checked {
    for ext in request.seen().iter() {
        match ext {
            // Parsed, but nothing would be done with them.
            Ext::LIFETIME_CURRENT
            | Ext::SENSITIVITY
            | Ext::PROPOSAL
            | Ext::SUPPORTED_AUTH
            | Ext::SUPPORTED_ENCRYPT
            | Ext::X_KMPRIVATE => return Err(Errno::EINVAL),
            // Eroutes are IPv4's.
            X_EXT_ADDRESS_SRC_FLOW | X_EXT_ADDRESS_DST_FLOW | X_EXT_ADDRESS_SRC_MASK | X_EXT_ADDRESS_DST_MASK
                if request.address(ext).is_some_and(|address| address.ip.is_ipv6()) =>
            {
                return Err(Errno::EPFNOSUPPORT);
            }
            X_EXT_PROTOCOL => need(request.seen().iter().any(|t| super::table::FLOW.has(t)))?,
            X_EXT_NAT_T_TYPE => need(request.nat_t_type().is_some_and(|t| ENCAPSULATIONS.contains(&t)))?,
            _ => {}
        }
    }
    Ok(())
}
