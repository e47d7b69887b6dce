//! The parts of requests: SAs, names, selectors, with af_key's checks in af_key's order.

use super::attached::Attached;
use super::judge::Judge;
use super::sa::{Encap, Key, Limits, Sa, SaId, Selector};
use super::xfrm::Xfrm;
use pfkey_wire::layout::{SadbLifetime, SadbSa};
use pfkey_wire::xfrm::{Carrier, Refusal, attribute};
use pfkey_wire::{
    AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Ends, Errno, ExtensionType as Ext, Header, IpsecProtocol,
    Message, MessageType, Mode, Prefix, SaFlags, SaType,
};

/// Linux's replay window for SAs that come through PF_KEY.
const MAX_REPLAY: u8 = 32;
/// `SADB_AALG_MAX`, `SADB_EALG_MAX`, `SADB_X_CALG_MAX`.
const MAX_AUTH: AuthAlgorithm = AuthAlgorithm::X_NULL;
const MAX_ENCRYPT: EncryptAlgorithm = EncryptAlgorithm::X_TWOFISHCBC;
const MAX_COMPRESS: CompressionAlgorithm = CompressionAlgorithm::LZJH;

/// Source and destination of a message (`present_and_same_family`).
///
/// # Errors
/// EINVAL.
pub fn ends(message: &Message<'_>) -> Result<Ends, Errno> {
    let of = |ext| message.address(ext).and_then(|(_, sockaddr)| sockaddr.ip()).ok_or(Errno::EINVAL);
    Ends::new(of(Ext::ADDRESS_SRC)?, of(Ext::ADDRESS_DST)?).ok_or(Errno::EINVAL)
}

/// Limits of a lifetime extension; none where it is absent. Linux takes 2^64-1 bytes for none (`XFRM_INF`).
#[must_use]
pub fn limits(lifetime: Option<SadbLifetime>) -> Limits {
    let given = limits_as_given(lifetime);
    Limits { bytes: if given.bytes == u64::MAX { 0 } else { given.bytes }, ..given }
}

/// The numbers of a lifetime extension.
#[must_use]
pub fn limits_as_given(lifetime: Option<SadbLifetime>) -> Limits {
    lifetime.map_or(Limits::default(), |l| Limits {
        packets: l.allocations.get().into(),
        bytes: l.bytes.get(),
        add_seconds: l.addtime.get(),
        use_seconds: l.usetime.get(),
    })
}

fn key(message: &Message<'_>, ext: Ext) -> Option<Key> {
    let (bits, bytes) = message.key(ext)?;
    Some(Key { bits, bytes: zeroize::Zeroizing::new(bytes.into()) })
}

/// The answer's header: version, seq and pid of the request.
#[must_use]
pub fn answer(request: Header, msg_type: MessageType, satype: SaType) -> Header {
    Header::new(msg_type, satype, request.seq, request.pid)
}

/// An SPD message's header, with the reference count that Linux shows.
#[must_use]
pub fn spd_answer(request: Header, msg_type: MessageType, references: u16) -> Header {
    Header { reserved: references, ..answer(request, msg_type, SaType::UNSPEC) }
}

/// Mode and reqid of the SA2 extension; mode "any" is transport.
///
/// # Errors
/// EINVAL for a mode that does not exist.
pub fn mode(message: &Message<'_>) -> Result<(Mode, u32), Errno> {
    let Some(sa2) = message.sa2() else { return Ok((Mode::TRANSPORT, 0)) };
    match Mode(sa2.mode) {
        Mode::ANY => Ok((Mode::TRANSPORT, sa2.reqid.get())),
        mode if mode <= Mode::BEET => Ok((mode, sa2.reqid.get())),
        _ => Err(Errno::EINVAL),
    }
}

/// The SA of an ADD or UPDATE (`pfkey_msg2xfrm_state` without `xfrm_init_state`).
///
/// # Errors
/// That of the error report.
pub fn sa(request: &Message<'_>, now: u64, judge: &mut impl Judge) -> Result<Sa, Errno> {
    let header = request.header();
    judge.requested();
    let ext: SadbSa = request.sa().ok_or(Errno::EINVAL)?;
    let ends = ends(request)?;
    let (hard, soft) = (request.lifetime(Ext::LIFETIME_HARD), request.lifetime(Ext::LIFETIME_SOFT));
    if header.satype == SaType::ESP && !request.has(Ext::KEY_ENCRYPT)
        || header.satype == SaType::AH && !request.has(Ext::KEY_AUTH)
        || hard.is_some() != soft.is_some()
    {
        return Err(Errno::EINVAL);
    }
    let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
    let ipcomp = header.satype == SaType::X_IPCOMP;
    // The numbers of encryption and compression share a field.
    let (auth, encrypt) = (AuthAlgorithm(ext.auth), EncryptAlgorithm(ext.encrypt));
    let compress = CompressionAlgorithm(ext.encrypt);
    if auth > MAX_AUTH || ipcomp && compress > MAX_COMPRESS || encrypt > MAX_ENCRYPT {
        return Err(Errno::EINVAL);
    }
    let (auth_key, encrypt_key) = (key(request, Ext::KEY_AUTH), key(request, Ext::KEY_ENCRYPT));
    if auth_key.as_ref().is_some_and(|k| k.bits == 0) && auth != AuthAlgorithm::X_NULL
        || encrypt_key.as_ref().is_some_and(|k| k.bits == 0) && encrypt != EncryptAlgorithm::NULL
    {
        return Err(Errno::EINVAL);
    }
    judge.allocated();
    let mut sa = Sa::new(ends, ext.spi.get(), proto, now);
    sa.attached = Attached::read(request, Carrier::Sa, judge)?;
    sa.replay = ext.replay.min(MAX_REPLAY);
    sa.flags = SaFlags(ext.flags.get()).intersection(SaFlags::KEPT);
    sa.hard = limits(hard);
    sa.soft = limits(soft);
    if auth != AuthAlgorithm::NONE {
        if !judge.has_auth(auth) {
            return Err(Errno::ENOSYS);
        }
        sa.auth = auth;
        sa.auth_key = auth_key.unwrap_or_default();
    }
    if encrypt != EncryptAlgorithm::NONE {
        let known = if ipcomp { judge.has_compress(compress) } else { judge.has_encrypt(encrypt) };
        if !known {
            return Err(Errno::ENOSYS);
        }
        sa.encrypt = encrypt;
        if !ipcomp {
            sa.encrypt_key = encrypt_key.unwrap_or_default();
        }
    }
    (sa.mode, sa.reqid) = mode(request)?;
    if sa.attached.xfrm.mode().is_some() && sa.mode != Mode::TUNNEL {
        judge.explain(&Refusal::Misplaced(attribute::MODE));
        return Err(Errno::EINVAL);
    }
    if let Some((fixed, sockaddr)) = request.address(Ext::ADDRESS_PROXY) {
        let address = sockaddr.ip().ok_or(Errno::EINVAL)?;
        sa.selector = Some(Box::new(Selector::from(Prefix { address, len: fixed.prefixlen })));
    }
    if let Some(encap_type) = request.nat_t_type() {
        sa.encap = Some(Encap {
            encap_type,
            sport: request.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
            dport: request.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
        });
    }
    // Bits of an integrity value that no algorithm makes.
    if sa.attached.xfrm.icv_bits().is_some() && sa.auth == AuthAlgorithm::NONE {
        return Err(Errno::EINVAL);
    }
    sa.seq = header.seq;
    Ok(sa)
}

/// The name of the SA that a DELETE or GET is about (`pfkey_xfrm_state_lookup`).
///
/// # Errors
/// EINVAL where it is missing, ESRCH for an SA type that has no SAs.
pub fn sa_id(request: &Message<'_>, judge: &mut impl Judge) -> Result<SaId, Errno> {
    let ext = request.sa().ok_or(Errno::EINVAL)?;
    let dst = ends(request)?.dst();
    let proto = request.header().satype.protocol().ok_or(Errno::ESRCH)?;
    let mark = Xfrm::read(request, Carrier::SaName, judge)?.mark().masked();
    Ok(SaId { mark, ..SaId::new(dst, ext.spi.get(), proto) })
}

/// The selector of an SPD request: prefixes and ports as given, the destination's protocol.
///
/// # Errors
/// EINVAL.
pub fn selector(message: &Message<'_>) -> Result<Selector, Errno> {
    let ends = ends(message)?;
    let side = |ext| message.address(ext).ok_or(Errno::EINVAL);
    let ((src, src_addr), (dst, dst_addr)) = (side(Ext::ADDRESS_SRC)?, side(Ext::ADDRESS_DST)?);
    Ok(Selector {
        src: Prefix { address: ends.src(), len: src.prefixlen },
        dst: Prefix { address: ends.dst(), len: dst.prefixlen },
        proto: if dst.proto == IpsecProtocol::ANY.0 { 0 } else { dst.proto },
        sport: src_addr.port(),
        dport: dst_addr.port(),
    })
}

/// Whether a policy's id is that of a socket's own: `XFRM_POLICY_MAX` and more in the low bits.
#[must_use]
pub const fn is_of_socket(id: u32) -> bool {
    id & 7 >= 3
}
