//! Values that SAs and policies have in common, between PF_KEY's form and XFRM's.
#![forbid(unsafe_code)]

use super::layout::{INFINITE, LifetimeConfig, LifetimeCurrent, Selector as XfrmSelector};
use pfkey_model::sa::{Limits, Selector, Usage};
use pfkey_wire::address::{family, from_xfrm, to_xfrm, width};
use pfkey_wire::xfrm::MODE_IPTFS;
use pfkey_wire::{Ends, Mode, Prefix};

/// `XFRM_MODE_*` of a mode, where any was made transport; `tunnel` is in the place of tunnel mode.
pub fn mode_to_xfrm(mode: Mode, tunnel: Option<u8>) -> u8 {
    match mode {
        Mode::TUNNEL => tunnel.unwrap_or(1),
        Mode::BEET => 4,
        _ => 0,
    }
}

/// The mode of `XFRM_MODE_*`, and what is in the place of tunnel mode; `None` for one that PF_KEY cannot name.
pub const fn mode_from_xfrm(mode: u8) -> Option<(Mode, Option<u8>)> {
    match mode {
        0 => Some((Mode::TRANSPORT, None)),
        1 => Some((Mode::TUNNEL, None)),
        4 => Some((Mode::BEET, None)),
        MODE_IPTFS => Some((Mode::TUNNEL, Some(MODE_IPTFS))),
        _ => None,
    }
}

/// Two addresses of a family; `None` for any family but the two.
pub fn ends_from_xfrm(src: &[u8; 16], dst: &[u8; 16], family: u16) -> Option<Ends> {
    Ends::new(from_xfrm(src, family)?, from_xfrm(dst, family)?)
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

/// Use so far.
pub fn usage(curlft: &LifetimeCurrent) -> Usage {
    Usage {
        packets: curlft.packets.get(),
        bytes: curlft.bytes.get(),
        add_time: curlft.add_time.get(),
        use_time: curlft.use_time.get(),
    }
}

/// A selector. The kernel compares all its bytes, so that unused ones are zero.
pub fn selector_to_xfrm(selector: &Selector, device: u32) -> XfrmSelector {
    let mask = |port: u16| if port == 0 { 0 } else { u16::MAX };
    XfrmSelector {
        daddr: to_xfrm(selector.dst.address),
        saddr: to_xfrm(selector.src.address),
        dport: selector.dport.into(),
        dport_mask: mask(selector.dport).into(),
        sport: selector.sport.into(),
        sport_mask: mask(selector.sport).into(),
        family: family(selector.src.address).into(),
        prefixlen_d: selector.dst.len,
        prefixlen_s: selector.src.len,
        proto: selector.proto,
        ifindex: device.into(),
        ..Default::default()
    }
}

/// A selector that the kernel reports; `None` for one without a family.
pub fn selector_from_xfrm(selector: &XfrmSelector) -> Option<Selector> {
    selector_in_family(selector, selector.family.get())
}

/// A selector taken for one of a family, whatever its own.
pub fn selector_in_family(selector: &XfrmSelector, family: u16) -> Option<Selector> {
    let ends = ends_from_xfrm(&selector.saddr, &selector.daddr, family)?;
    // The kernel refuses longer prefixes (verify_newpolicy_info), and PF_KEY has no form for them.
    let prefix = |address, len: u8| Prefix { address, len: len.min(width(address)) };
    Some(Selector {
        src: prefix(ends.src(), selector.prefixlen_s),
        dst: prefix(ends.dst(), selector.prefixlen_d),
        proto: selector.proto,
        sport: selector.sport.get(),
        dport: selector.dport.get(),
    })
}
