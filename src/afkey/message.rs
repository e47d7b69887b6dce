//! SAs and policies as messages (af_key's `__pfkey_xfrm_state2msg` and `pfkey_xfrm_policy2msg`).

use super::policy::{Policy, Template};
use super::sa::{Address, Context, Limits, Sa, Usage};
use crate::wire::layout::{SadbLifetime, SadbSa, SadbXIpsecrequest, SadbXPolicy};
use crate::wire::sockaddr::{AF_INET, AF_INET6};
use crate::wire::{ExtensionType as Ext, PolicyLevel, PolicyMode, PolicyType, Writer};
use zerocopy::IntoBytes;

/// A sockaddr's bytes.
pub(crate) struct Bytes([u8; 28], usize);

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

pub(crate) fn sockaddr(addr: &Address, v6: bool, port: u16) -> Bytes {
    let mut bytes = [0; 28];
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    if v6 {
        bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
        bytes[8..24].copy_from_slice(addr);
        Bytes(bytes, 28)
    } else {
        bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
        bytes[4..8].copy_from_slice(&addr[..4]);
        Bytes(bytes, 16)
    }
}

pub(crate) const fn width(v6: bool) -> u8 {
    if v6 { 128 } else { 32 }
}

/// 0 (any) is shown as 255 (`pfkey_proto_from_xfrm`).
const fn proto_from_selector(proto: u8) -> u8 {
    if proto == 0 { 255 } else { proto }
}

pub(crate) fn limits(limits: &Limits) -> SadbLifetime {
    SadbLifetime {
        allocations: (limits.packets as u32).into(),
        bytes: limits.bytes.into(),
        addtime: limits.add_seconds.into(),
        usetime: limits.use_seconds.into(),
        ..Default::default()
    }
}

pub(crate) fn usage(usage: &Usage) -> SadbLifetime {
    SadbLifetime {
        allocations: (usage.packets as u32).into(),
        bytes: usage.bytes.into(),
        addtime: usage.add_time.into(),
        usetime: usage.use_time.into(),
        ..Default::default()
    }
}

/// What of an SA a message shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Everything.
    Whole,
    /// Everything but keys.
    WithoutKeys,
    /// An EXPIRE: no keys, and only the hard (`true`) or the soft limit.
    Expiry(bool),
    /// The answer to an ADD or UPDATE, without keys, counters and proxy (profile rfc2367 only).
    Reply,
    /// What names it: the SPI and the addresses (profile rfc2367 only).
    Name,
}

/// Writes an SA behind a header.
pub fn write_sa(writer: &mut Writer<'_>, sa: &Sa, shown: Shown) {
    let v6 = sa.said.v6;
    writer.sa(SadbSa {
        spi: sa.said.spi.into(),
        replay: sa.replay,
        state: sa.wire_state().0,
        auth: sa.auth,
        encrypt: sa.encrypt,
        flags: sa.flags.into(),
        ..Default::default()
    });
    if shown != Shown::Expiry(false) {
        writer.lifetime(Ext::LIFETIME_HARD, limits(&sa.hard));
    }
    if shown != Shown::Expiry(true) {
        writer.lifetime(Ext::LIFETIME_SOFT, limits(&sa.soft));
    }
    writer.lifetime(Ext::LIFETIME_CURRENT, usage(&sa.usage));
    writer.address(Ext::ADDRESS_SRC, 0, width(v6), sockaddr(&sa.saddr, v6, 0).as_slice());
    writer.address(Ext::ADDRESS_DST, 0, width(v6), sockaddr(&sa.said.daddr, v6, 0).as_slice());
    // The selector's source is shown as PROXY in the SA's family, whatever its own.
    let len = if v6 { 16 } else { 4 };
    if sa.selector.saddr[..len] != sa.saddr[..len] {
        writer.address(
            Ext::ADDRESS_PROXY,
            proto_from_selector(sa.selector.proto),
            sa.selector.splen,
            sockaddr(&sa.selector.saddr, v6, sa.selector.sport).as_slice(),
        );
    }
    if shown == Shown::Whole {
        for (ext, key) in [(Ext::KEY_AUTH, &sa.auth_key), (Ext::KEY_ENCRYPT, &sa.encrypt_key)] {
            if key.bits != 0 {
                writer.key(ext, key.bits, &key.bytes);
            }
        }
    }
    writer.sa2(sa.mode, sa.reqid);
    if let Some(encap) = sa.encap {
        writer.nat_t(encap.encap_type, encap.sport, encap.dport);
    }
    if let Some(context) = &sa.context {
        writer.sec_ctx(Context::DOI, Context::ALG, &context.text);
    }
}

/// Writes a policy behind a header, whose `reserved` carries the reference count that Linux shows there.
pub fn write_policy(writer: &mut Writer<'_>, policy: &Policy) {
    let selector = &policy.selector;
    let v6 = policy.v6;
    let proto = proto_from_selector(selector.proto);
    writer.address(Ext::ADDRESS_SRC, proto, selector.splen, sockaddr(&selector.saddr, v6, selector.sport).as_slice());
    writer.address(Ext::ADDRESS_DST, proto, selector.dplen, sockaddr(&selector.daddr, v6, selector.dport).as_slice());
    writer.lifetime(Ext::LIFETIME_HARD, limits(&policy.hard));
    writer.lifetime(Ext::LIFETIME_SOFT, limits(&policy.soft));
    writer.lifetime(Ext::LIFETIME_CURRENT, usage(&policy.usage));
    let mut requests = [0; 6 * 72];
    let used = write_requests(&mut requests, &policy.templates);
    let policy_type = match (policy.block, policy.templates.is_empty()) {
        (true, _) => PolicyType::DISCARD,
        (false, true) => PolicyType::NONE,
        (false, false) => PolicyType::IPSEC,
    };
    writer.policy(
        SadbXPolicy {
            policy_type: policy_type.0.into(),
            dir: policy.dir,
            id: policy.id.into(),
            priority: policy.priority.into(),
            ..Default::default()
        },
        requests.get(..used).unwrap_or_default(),
    );
    if let Some(context) = &policy.context {
        writer.sec_ctx(Context::DOI, Context::ALG, &context.text);
    }
}

/// Writes at most six requests; gives the bytes used.
fn write_requests(buffer: &mut [u8], templates: &[Template]) -> usize {
    let mut used = 0;
    for template in templates.iter().take(6) {
        let tunnel = PolicyMode(template.mode) == PolicyMode::TUNNEL;
        let src = sockaddr(&template.saddr, template.v6, 0);
        let dst = sockaddr(&template.daddr, template.v6, 0);
        let parts: &[&[u8]] = if tunnel { &[src.as_slice(), dst.as_slice()] } else { &[] };
        let len = 16 + parts.iter().map(|p| p.len()).sum::<usize>();
        let level = match (template.optional, template.reqid) {
            (true, _) => PolicyLevel::USE,
            (false, 0) => PolicyLevel::REQUIRE,
            (false, _) => PolicyLevel::UNIQUE,
        };
        let fixed = SadbXIpsecrequest {
            len: (len as u16).into(),
            proto: u16::from(template.proto).into(),
            mode: template.mode,
            level: level.0,
            reqid: template.reqid.into(),
            ..Default::default()
        };
        for part in std::iter::once(fixed.as_bytes()).chain(parts.iter().copied()) {
            if let Some(space) = buffer.get_mut(used..used + part.len()) {
                space.copy_from_slice(part);
                used += part.len();
            }
        }
    }
    used
}
