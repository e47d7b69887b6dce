//! SAs and policies as messages (af_key's `__pfkey_xfrm_state2msg` and `pfkey_xfrm_policy2msg`).

use std::net::IpAddr;

use zerocopy::IntoBytes;

use super::policy::{Policy, Template};
use super::sa::{Limits, Sa, Selector, Usage};
use pfkey_wire::address::in_family_of;
use pfkey_wire::layout::{SadbLifetime, SadbSa, SadbXIpsecrequest, SadbXPolicy};
use pfkey_wire::{
    ExtensionType as Ext, IpsecProtocol, Mode, PolicyLevel, PolicyType, Prefix, SaState, SockaddrBytes, Writer,
};

/// An address of an SA: all of its bits, no port.
pub fn write_host(writer: &mut Writer<'_>, ext: Ext, address: IpAddr) {
    write_prefix(writer, ext, 0, Prefix::host(address), 0);
}

/// One side of a selector.
pub fn write_prefix(writer: &mut Writer<'_>, ext: Ext, proto: u8, prefix: Prefix, port: u16) {
    writer.address(ext, proto, prefix.len, SockaddrBytes::new(prefix.address, port).as_bytes());
}

/// 0 (any) is shown as 255 (`pfkey_proto_from_xfrm`).
const fn proto_from_selector(proto: u8) -> u8 {
    if proto == 0 { IpsecProtocol::ANY.0 } else { proto }
}

/// Limits as an extension.
#[must_use]
pub fn limits(limits: &Limits) -> SadbLifetime {
    SadbLifetime {
        allocations: (limits.packets as u32).into(),
        bytes: limits.bytes.into(),
        addtime: limits.add_seconds.into(),
        usetime: limits.use_seconds.into(),
        ..Default::default()
    }
}

/// What was used of them, as an extension.
#[must_use]
pub fn usage(usage: &Usage) -> SadbLifetime {
    SadbLifetime {
        allocations: (usage.packets as u32).into(),
        bytes: usage.bytes.into(),
        addtime: usage.add_time.into(),
        usetime: usage.use_time.into(),
        ..Default::default()
    }
}

/// The parts of an SA that a message includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// Everything but keys.
    WithoutKeys,
    /// An EXPIRE for a hard limit: no keys, and the hard limit only.
    Hard,
    /// An EXPIRE for a soft limit: no keys, and the soft limit only.
    Soft,
    /// The answer to an ADD or UPDATE, without keys, counters and proxy (profile rfc2367 only).
    Reply,
    /// Its name: the SPI and the addresses (profile rfc2367 only).
    Name,
}

impl Part {
    /// The part that an EXPIRE includes.
    #[must_use]
    pub const fn expired(hard: bool) -> Self {
        if hard { Self::Hard } else { Self::Soft }
    }
}

/// Writes an SA behind a header.
pub fn write_sa(writer: &mut Writer<'_>, sa: &Sa, part: Part) {
    writer.sa(SadbSa {
        spi: sa.spi.into(),
        replay: sa.replay,
        state: SaState::from(sa.state).0,
        auth: sa.auth.0,
        encrypt: sa.encrypt.0,
        flags: sa.flags.0.into(),
        ..Default::default()
    });
    if part != Part::Soft {
        writer.lifetime(Ext::LIFETIME_HARD, limits(&sa.hard));
    }
    if part != Part::Hard {
        writer.lifetime(Ext::LIFETIME_SOFT, limits(&sa.soft));
    }
    writer.lifetime(Ext::LIFETIME_CURRENT, usage(&sa.usage));
    write_host(writer, Ext::ADDRESS_SRC, sa.ends.src());
    write_host(writer, Ext::ADDRESS_DST, sa.ends.dst());
    let Selector { src, proto, sport, .. } = shown_selector(sa);
    if src.address != sa.ends.src() {
        write_prefix(writer, Ext::ADDRESS_PROXY, proto_from_selector(proto), src, sport);
    }
    if part == Part::Whole {
        for (ext, key) in [(Ext::KEY_AUTH, &sa.auth_key), (Ext::KEY_ENCRYPT, &sa.encrypt_key)] {
            if key.bits != 0 {
                writer.key(ext, key.bits, &key.bytes);
            }
        }
    }
    writer.sa2(sa.mode.0, sa.reqid);
    if let Some(encap) = sa.encap {
        writer.nat_t(encap.encap_type, encap.sport, encap.dport);
    }
    sa.attached.write(writer);
}

/// An SA's selector as Linux shows it: the empty one if it has none, and its source as an address of the SA's family.
fn shown_selector(sa: &Sa) -> Selector {
    let selector = sa.selector.as_deref().copied().unwrap_or_else(|| Selector::any(sa.ends.src()));
    let src = Prefix { address: in_family_of(selector.src.address, sa.ends.src()), ..selector.src };
    Selector { src, ..selector }
}

/// Writes a policy behind a header. Linux shows its reference count in the header's `reserved`.
pub fn write_policy(writer: &mut Writer<'_>, policy: &Policy) {
    let Selector { src, dst, proto, sport, dport } = policy.selector;
    let proto = proto_from_selector(proto);
    write_prefix(writer, Ext::ADDRESS_SRC, proto, src, sport);
    write_prefix(writer, Ext::ADDRESS_DST, proto, dst, dport);
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
            dir: policy.dir.0,
            id: policy.id.into(),
            priority: policy.priority.into(),
            ..Default::default()
        },
        requests.get(..used).unwrap_or_default(),
    );
    policy.attached.write(writer);
}

/// Writes at most six requests. Returns the bytes used.
fn write_requests(buffer: &mut [u8], templates: &[Template]) -> usize {
    let mut used = 0;
    for template in templates.iter().take(6) {
        let src = SockaddrBytes::new(template.ends.src(), 0);
        let dst = SockaddrBytes::new(template.ends.dst(), 0);
        let parts: &[&[u8]] = if template.mode == Mode::TUNNEL { &[src.as_bytes(), dst.as_bytes()] } else { &[] };
        let len = 16 + parts.iter().map(|p| p.len()).sum::<usize>();
        let level = match (template.optional, template.reqid) {
            (true, _) => PolicyLevel::USE,
            (false, 0) => PolicyLevel::REQUIRE,
            (false, _) => PolicyLevel::UNIQUE,
        };
        let fixed = SadbXIpsecrequest {
            len: (len as u16).into(),
            proto: u16::from(template.proto.0).into(),
            mode: template.mode.0,
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
