//! What a data plane asks of the engine, and what it tells it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Engine;
use super::message::Shown;
use super::policy::{Policy, Template};
use super::resolve::policy_index::FlowKey;
use super::sa::{Address, Context as SecurityContext, Sa, Said, Selector, State};
use super::sadb::{AcquireKey, Route};
use crate::keyd::{Audience, Context, KeyEngine as _};
use crate::wire::layout::{SadbSa, SadbXPolicy};
use crate::wire::{
    ExtensionType as Ext, Header, MessageType, PolicyDirection, PolicyMode, PolicyType, Profile, SaType, SockaddrBytes,
    Writer,
};

/// A packet's addresses, protocol and ports.
pub type Flow = FlowKey;

/// What an outbound packet is to meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// No policy, or one that says none: let it pass.
    Pass,
    /// Apply these SAs in order, each in its `sadb_x_sa2_mode`.
    Apply(Vec<(Said, u8)>),
    /// An SA is missing; key managers were asked, or there is none. Hold or drop the packet.
    Wait,
}

/// Why a packet must not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// The policy says discard (EPERM).
    #[error("the policy discards the packet")]
    Discarded,
    /// There is no such SA, or it takes no packets (EINVAL).
    #[error("no such SA, or it is over its limit")]
    NoSa,
    /// The policy has more templates than can be applied (ENOBUFS).
    #[error("the policy asks for more SAs than can be applied")]
    TooManyTemplates,
}

impl Engine {
    /// Counts packets and their bytes for an SA. Its limits are tested before, once, as Linux tests them before each
    /// packet (`xfrm_state_check_expire`); what they cause is delivered.
    ///
    /// # Errors
    /// The SA does not exist, is no longer valid, or has reached its hard limit; the packets must not pass.
    pub fn count_traffic(
        &mut self,
        said: &Said,
        packets: u64,
        bytes: u64,
        cx: &mut Context<'_>,
    ) -> Result<(), TrafficError> {
        self.advance(cx);
        let index = self.sadb.find(said).ok_or(TrafficError::NoSa)?;
        let now = cx.now.as_secs();
        let Some(sa) = self.sadb.get_mut(index) else { return Err(TrafficError::NoSa) };
        if sa.state != State::Valid {
            return Err(TrafficError::NoSa);
        }
        let first = sa.usage.use_time == 0;
        if first {
            sa.usage.use_time = now;
        }
        if !self.check_volume(index, cx) {
            return Err(TrafficError::NoSa);
        }
        let Some(sa) = self.sadb.get_mut(index) else { return Err(TrafficError::NoSa) };
        sa.usage.bytes = sa.usage.bytes.saturating_add(bytes);
        sa.usage.packets = sa.usage.packets.saturating_add(packets);
        if first {
            let timer = sa.next_check(now);
            self.sadb.set_timer(index, timer);
        }
        Ok(())
    }

    /// What an outbound packet is to meet (`xfrm_tmpl_resolve_one`). A missing SA is asked for by ACQUIRE. The engine
    /// knows no routes: a tunnel template without a source takes the flow's.
    ///
    /// # Errors
    /// The policy discards the packet, or asks for more SAs than Linux would apply.
    pub fn outbound(&mut self, flow: &Flow, cx: &mut Context<'_>) -> Result<Outbound, TrafficError> {
        self.advance(cx);
        let Some(policy) = self.spd.lookup(PolicyDirection::OUTBOUND.0, flow).cloned() else {
            return Ok(Outbound::Pass);
        };
        self.spd.touch(policy.id, cx.now.as_secs());
        if policy.block {
            return Err(TrafficError::Discarded);
        }
        // Six can be installed, but the sixth is never looked for.
        if policy.templates.len() >= super::policy::MAX_TEMPLATES {
            return Err(TrafficError::TooManyTemplates);
        }
        let mut chain = Vec::new();
        let mut ends = Ends::of(flow);
        for template in &policy.templates {
            let key = ends.key(template);
            match best(self.usable(&key, flow), &key) {
                Some(sa) => chain.push((sa.said, template.mode)),
                None => {
                    self.acquire(&key, flow, &policy, cx);
                    if !template.optional {
                        return Ok(Outbound::Wait);
                    }
                }
            }
        }
        Ok(if chain.is_empty() { Outbound::Pass } else { Outbound::Apply(chain) })
    }

    /// The SAs that fit a template, newest first, whatever their state: those of its source, then, unless one
    /// is on its way, those of any.
    pub(super) fn candidates(&self, key: &AcquireKey) -> impl Iterator<Item = &Sa> {
        let route = Route { daddr: key.daddr, saddr: key.saddr, reqid: key.reqid, v6: key.v6 };
        let fits = {
            let key = *key;
            move |sa: &&Sa| sa.said.proto == key.proto && sa.mode == key.mode
        };
        let any_source = Route { saddr: [0; 16], ..route };
        let second = (any_source != route && !self.sadb.is_acquiring(key)).then(|| self.sadb.on_route(any_source));
        self.sadb.on_route(route).chain(second.into_iter().flatten()).map(|(_, sa)| sa).filter(fits)
    }

    /// Those among them that a packet can take.
    pub(super) fn usable(&self, key: &AcquireKey, flow: &Flow) -> impl Iterator<Item = &Sa> {
        let flow = *flow;
        self.candidates(key).filter(move |sa| sa.state == State::Valid && selector_covers(&sa.selector, &flow))
    }

    /// Makes a larval and asks the key managers, unless that was done already.
    fn acquire(&mut self, key: &AcquireKey, flow: &Flow, policy: &Policy, cx: &mut Context<'_>) {
        let any_source = AcquireKey { saddr: [0; 16], ..*key };
        if self.sadb.is_acquiring(key) || self.sadb.is_acquiring(&any_source) || !cx.registered {
            return;
        }
        // A larval that a key manager gave up stops its own flow until it dies.
        let failed = |sa: &Sa| sa.state == State::Error && selector_covers(&sa.selector, flow);
        if self.candidates(key).any(failed) {
            return;
        }
        let now = cx.now.as_secs();
        let said = Said { daddr: key.daddr, spi: 0, proto: key.proto, v6: key.v6 };
        let mut larval = Sa::larval(said, key.saddr, key.mode, key.reqid, now, self.acq_expires);
        larval.selector = exact_selector(flow);
        larval.context.clone_from(&policy.context);
        self.acquire_seq = self.acquire_seq.wrapping_add(1).max(1);
        larval.seq = self.acquire_seq;
        let timer = larval.next_check(now);
        let satype = SaType::from_protocol(key.proto);
        let header = Header::new(MessageType::ACQUIRE, satype, larval.seq, 0);
        let ext = SadbXPolicy {
            policy_type: PolicyType::IPSEC.0.into(),
            dir: PolicyDirection::OUTBOUND.0,
            id: policy.id.into(),
            priority: policy.priority.into(),
            ..Default::default()
        };
        let profile = self.profile;
        let audience = self.listeners(MessageType::ACQUIRE, satype);
        let taken = self.send(cx, audience, |_, buffer| {
            if profile == Profile::Rfc2367 {
                return Self::rfc_write_acquire(buffer, header, key, flow);
            }
            let mut writer = Writer::new(buffer, header, profile);
            for (ext, addr) in [(Ext::ADDRESS_SRC, key.saddr), (Ext::ADDRESS_DST, key.daddr)] {
                host_address(&mut writer, ext, &addr, key.v6);
            }
            writer.policy(ext, &[]);
            // Policies made through PF_KEY name no algorithms, so Linux proposes none; IPComp gets no proposal.
            if satype != SaType::X_IPCOMP {
                writer.proposal(32, &[]);
            }
            if let Some(context) = &larval.context {
                writer.sec_ctx(SecurityContext::DOI, SecurityContext::ALG, &context.text);
            }
            writer.finish()
        });
        if taken.is_ok_and(|takers| takers > 0) {
            self.counts.allocated += 1;
            self.sadb.insert(larval, timer);
        }
    }

    /// Tells key managers that a NAT-T peer moved to another address or port
    /// (`pfkey_send_new_mapping`). Repeated by the caller for every packet until an UPDATE.
    ///
    /// # Errors
    /// There is no such SA, or it is not encapsulated.
    pub fn new_mapping(
        &mut self,
        said: &Said,
        new_addr: Address,
        new_port: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), TrafficError> {
        let index = self.sadb.find(said).ok_or(TrafficError::NoSa)?;
        let Some(sa) = self.sadb.get(index) else { return Err(TrafficError::NoSa) };
        let (encap, old, seq, v6) = (sa.encap.ok_or(TrafficError::NoSa)?, sa.saddr, sa.seq, sa.said.v6);
        let header = Header::new(MessageType::X_NAT_T_NEW_MAPPING, SaType::ESP, seq, 0);
        let (profile, spi) = (self.profile, said.spi);
        let _ = self.send(cx, Audience::Registered, |_, buffer| {
            let mut writer = Writer::new(buffer, header, profile);
            writer.sa(SadbSa { spi: spi.into(), ..Default::default() });
            host_address(&mut writer, Ext::ADDRESS_SRC, &old, v6);
            writer.nat_t_port(Ext::X_NAT_T_SPORT, encap.sport);
            host_address(&mut writer, Ext::ADDRESS_DST, &new_addr, v6);
            writer.nat_t_port(Ext::X_NAT_T_DPORT, new_port);
            writer.finish()
        });
        Ok(())
    }

    /// Shows an SA as a GET would, to whoever drives the engine.
    #[must_use]
    pub fn describe(&self, said: &Said) -> Option<Vec<u8>> {
        let sa = self.sadb.get(self.sadb.find(said)?)?;
        let mut buffer = vec![0; super::message::BUFFER_LEN];
        let header = Header::new(MessageType::GET, sa.satype(), 0, 0);
        super::message::write_sa(&mut buffer, header, sa, Shown::WithoutKeys).ok().map(|m| m.to_vec())
    }
}

/// Between which addresses the next template of a policy wants its SA.
pub(super) struct Ends {
    saddr: Address,
    daddr: Address,
    v6: bool,
}

impl Ends {
    /// Those of the packet.
    pub(super) const fn of(flow: &Flow) -> Self {
        Self { saddr: flow.saddr, daddr: flow.daddr, v6: flow.v6 }
    }

    /// What the next template wants. A tunnel leads elsewhere; one without a source starts where the packet is.
    pub(super) fn key(&mut self, template: &Template) -> AcquireKey {
        if PolicyMode(template.mode) != PolicyMode::TRANSPORT {
            (self.daddr, self.v6) = (template.daddr, template.v6);
            if template.saddr != [0; 16] {
                self.saddr = template.saddr;
            }
        }
        let Self { saddr, daddr, v6 } = *self;
        AcquireKey { daddr, saddr, proto: template.proto, v6, mode: template.mode, reqid: template.reqid }
    }
}

/// The SA for a template (`xfrm_state_look_at`): not dying before dying, then the newest.
pub(super) fn best<'e>(usable: impl Iterator<Item = &'e Sa>, key: &AcquireKey) -> Option<&'e Sa> {
    // Of equals min_by_key takes the first, which is the one inserted last.
    usable.min_by_key(|sa| (sa.saddr != key.saddr, sa.dying, std::cmp::Reverse(sa.usage.add_time)))
}

/// An address of an outer header: full prefix, no port.
fn host_address(writer: &mut Writer<'_>, ext: Ext, addr: &Address, v6: bool) {
    let [a, b, c, d, ..] = *addr;
    let (ip, width): (IpAddr, u8) =
        if v6 { (Ipv6Addr::from(*addr).into(), 128) } else { (Ipv4Addr::new(a, b, c, d).into(), 32) };
    writer.address(ext, 0, width, SockaddrBytes::new(ip, 0).as_bytes());
}

/// `xfrm_selector_match`; a selector without a family takes every packet.
fn selector_covers(s: &Selector, flow: &Flow) -> bool {
    s.v6.is_none_or(|v6| {
        v6 == flow.v6
            && super::prefix_equal(&s.saddr, &flow.saddr, s.splen)
            && super::prefix_equal(&s.daddr, &flow.daddr, s.dplen)
            && (s.proto == 0 || s.proto == flow.proto)
            && (s.sport == 0 || s.sport == flow.sport)
            && (s.dport == 0 || s.dport == flow.dport)
    })
}

fn exact_selector(flow: &Flow) -> Selector {
    let width = if flow.v6 { 128 } else { 32 };
    Selector {
        saddr: flow.saddr,
        daddr: flow.daddr,
        splen: width,
        dplen: width,
        proto: flow.proto,
        sport: flow.sport,
        dport: flow.dport,
        v6: Some(flow.v6),
    }
}
