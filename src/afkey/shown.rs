//! SAs and policies as dumps show them, read back.

use super::policy::{Policy, address, parse_requests};
use super::read::{limits, selector};
use super::sa::{Context, Encap, Key, Sa, Said, Selector, State, Usage};
use crate::wire::layout::SadbLifetime;
use crate::wire::{ExtensionType as Ext, Message, PolicyType, SaState};

pub(super) fn usage(current: Option<SadbLifetime>) -> Usage {
    current.map_or_else(Usage::default, |current| Usage {
        packets: current.allocations.get().into(),
        bytes: current.bytes.get(),
        add_time: current.addtime.get(),
        use_time: current.usetime.get(),
    })
}

/// The SA of a DUMP or GET message. What the message does not show (most of the selector) is empty.
#[must_use]
pub fn sa(message: &Message<'_>) -> Option<Sa> {
    let ext = message.sa()?;
    let (v6, saddr) = message.address(Ext::ADDRESS_SRC).and_then(|(_, sockaddr)| address(sockaddr))?;
    let (_, daddr) = message.address(Ext::ADDRESS_DST).and_then(|(_, sockaddr)| address(sockaddr))?;
    let proto = message.header().satype.protocol()?;
    let usage = usage(message.lifetime(Ext::LIFETIME_CURRENT));
    let mut sa = Sa::new(Said { daddr, spi: ext.spi.get(), proto, v6 }, saddr, usage.add_time);
    (sa.state, sa.dying) = match SaState(ext.state) {
        SaState::LARVAL => (State::Acquire, false),
        SaState::MATURE => (State::Valid, false),
        SaState::DYING => (State::Valid, true),
        _ => (State::Dead, false),
    };
    let key = |ext| {
        let (bits, bytes) = message.key(ext).unwrap_or_default();
        Key { bits, bytes: zeroize::Zeroizing::new(bytes.into()) }
    };
    (sa.auth, sa.encrypt) = (ext.auth, ext.encrypt);
    (sa.auth_key, sa.encrypt_key) = (key(Ext::KEY_AUTH), key(Ext::KEY_ENCRYPT));
    (sa.replay, sa.flags) = (ext.replay, ext.flags.get());
    (sa.hard, sa.soft) = (limits(message.lifetime(Ext::LIFETIME_HARD)), limits(message.lifetime(Ext::LIFETIME_SOFT)));
    sa.usage = usage;
    let sa2 = message.sa2().unwrap_or_default();
    (sa.mode, sa.reqid) = (sa2.mode, sa2.reqid.get());
    // A proxy of no prefix is the empty selector of most SAs.
    let proxy = message.address(Ext::ADDRESS_PROXY).filter(|(fixed, _)| fixed.prefixlen != 0);
    if let Some((fixed, (v6, saddr))) = proxy.and_then(|(fixed, sockaddr)| Some((fixed, address(sockaddr)?))) {
        sa.selector = Selector { saddr, splen: fixed.prefixlen, v6: Some(v6), ..Selector::default() };
    }
    sa.encap = message.nat_t_type().map(|encap_type| Encap {
        encap_type,
        sport: message.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
        dport: message.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
    });
    sa.context = Context::of(message).ok().flatten();
    Some(sa)
}

/// The policy of an X_SPDDUMP or X_SPDGET message; `None` for a socket's, which is no entry of the SPD.
#[must_use]
pub fn policy(message: &Message<'_>) -> Option<Policy> {
    let (v6, selector) = selector(message).ok()?;
    let (ext, requests) = message.policy()?;
    let id = ext.id.get();
    if id & 7 >= 3 {
        return None;
    }
    let policy_type = PolicyType(ext.policy_type.get());
    let templates = parse_requests(requests, ext.dir, v6, || None).ok()?;
    let usage = usage(message.lifetime(Ext::LIFETIME_CURRENT));
    Some(Policy {
        id,
        dir: ext.dir,
        v6,
        priority: ext.priority.get(),
        icmp: false,
        block: policy_type == PolicyType::DISCARD,
        selector,
        context: Context::of(message).ok().flatten(),
        templates,
        hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
        soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
        usage,
        position: 0,
        inserted: u128::from(usage.add_time) * 1_000_000_000,
    })
}
