//! What SAs and policies have in common, between PF_KEY's values and XFRM's.
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, IntoBytes};

use super::attribute::{Attributes, Writer};
use super::layout::{INFINITE, LifetimeConfig, LifetimeCurrent, Selector as XfrmSelector, UserSecCtx, attribute};
use crate::afkey::sa::{Context, Limits, Selector, Usage};
use crate::wire::Message;
use crate::wire::sockaddr::{AF_INET, AF_INET6};

/// `AF_INET` or `AF_INET6`.
pub const fn family(v6: bool) -> u16 {
    if v6 { AF_INET6 } else { AF_INET }
}

/// Whether a family is IPv6; `None` for any but the two.
pub const fn is_v6(family: u16) -> Option<bool> {
    match family {
        AF_INET => Some(false),
        AF_INET6 => Some(true),
        _ => None,
    }
}

/// `XFRM_MODE_*` of `sadb_x_sa2_mode`, where 0 was made 1.
pub const fn mode_to_xfrm(mode: u8) -> u8 {
    match mode {
        2 => 1,
        3 => 4,
        _ => 0,
    }
}

/// `sadb_x_sa2_mode` of `XFRM_MODE_*`; `None` for a mode that PF_KEY cannot name.
pub const fn mode_from_xfrm(mode: u8) -> Option<u8> {
    match mode {
        0 => Some(1),
        1 => Some(2),
        4 => Some(3),
        _ => None,
    }
}

/// Limits; 0 = none, which XFRM writes as infinite where it is a volume.
pub fn limits_to_xfrm(hard: &Limits, soft: &Limits) -> LifetimeConfig {
    let volume = |n: u64| if n == 0 { INFINITE } else { n };
    LifetimeConfig {
        soft_byte: volume(soft.bytes).into(),
        hard_byte: volume(hard.bytes).into(),
        soft_packet: volume(soft.packets).into(),
        hard_packet: volume(hard.packets).into(),
        soft_add: soft.add_seconds.into(),
        hard_add: hard.add_seconds.into(),
        soft_use: soft.use_seconds.into(),
        hard_use: hard.use_seconds.into(),
    }
}

/// Hard and soft limits.
pub fn limits_from_xfrm(lft: &LifetimeConfig) -> (Limits, Limits) {
    let volume = |n: u64| if n == INFINITE { 0 } else { n };
    let limits = |packets: u64, bytes: u64, add_seconds: u64, use_seconds: u64| Limits {
        packets: volume(packets),
        bytes: volume(bytes),
        add_seconds,
        use_seconds,
    };
    let hard = limits(lft.hard_packet.get(), lft.hard_byte.get(), lft.hard_add.get(), lft.hard_use.get());
    let soft = limits(lft.soft_packet.get(), lft.soft_byte.get(), lft.soft_add.get(), lft.soft_use.get());
    (hard, soft)
}

/// What was used so far.
pub fn usage(curlft: &LifetimeCurrent) -> Usage {
    Usage {
        packets: curlft.packets.get(),
        bytes: curlft.bytes.get(),
        add_time: curlft.add_time.get(),
        use_time: curlft.use_time.get(),
    }
}

/// A selector; the kernel compares all its bytes, so what is not said is zero.
pub fn selector_to_xfrm(selector: &Selector) -> XfrmSelector {
    let mask = |port: u16| if port == 0 { 0 } else { u16::MAX };
    XfrmSelector {
        daddr: selector.daddr,
        saddr: selector.saddr,
        dport: selector.dport.into(),
        dport_mask: mask(selector.dport).into(),
        sport: selector.sport.into(),
        sport_mask: mask(selector.sport).into(),
        family: selector.v6.map_or(0, family).into(),
        prefixlen_d: selector.dplen,
        prefixlen_s: selector.splen,
        proto: selector.proto,
        ..Default::default()
    }
}

/// A selector as the kernel told it.
pub fn selector_from_xfrm(selector: &XfrmSelector) -> Selector {
    Selector {
        saddr: selector.saddr,
        daddr: selector.daddr,
        splen: selector.prefixlen_s,
        dplen: selector.prefixlen_d,
        proto: selector.proto,
        sport: selector.sport.get(),
        dport: selector.dport.get(),
        v6: is_v6(selector.family.get()),
    }
}

/// Writes the label of a request, if it has one.
pub fn write_label(request: &Message<'_>, writer: &mut Writer) {
    let Some((fixed, text)) = request.sec_ctx() else { return };
    let head = UserSecCtx {
        // The text is at most a page long.
        len: ((size_of::<UserSecCtx>() + text.len()) as u16).into(),
        exttype: attribute::SEC_CTX.into(),
        alg: fixed.alg,
        doi: fixed.doi,
        ctx_len: fixed.ctx_len.get().into(),
    };
    writer.attribute(attribute::SEC_CTX, &[head.as_bytes(), text]);
}

/// The label among attributes.
pub fn label(attributes: Attributes<'_>) -> Option<Context> {
    let (head, rest) = UserSecCtx::read_from_prefix(attributes.payload(attribute::SEC_CTX)?).ok()?;
    Some(Context { text: rest.get(..usize::from(head.ctx_len.get()))?.into() })
}
