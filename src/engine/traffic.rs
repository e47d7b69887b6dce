//! What a data plane asks of the engine, and what it tells it.

use super::message::Shown;
use super::policy::Policy;
use super::resolve::policy_index::FlowKey;
use super::sa::{Address, Sa, Said, Selector, State};
use super::sadb::AcquireKey;
use super::{Engine, matches_protocol};
use crate::keyd::{Audience, Context};
use crate::wire::layout::SadbXPolicy;
use crate::wire::{ExtensionType as Ext, Header, MessageType, PolicyDirection, PolicyMode, PolicyType, SaType};

/// A packet's addresses, protocol and ports.
pub type Flow = FlowKey;

/// What an outbound packet is to meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// No policy, or one that says none: let it pass.
    Pass,
    /// Apply these SAs in order.
    Apply(Vec<Said>),
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
}

impl Engine {
    /// Counts a packet of `bytes` for an SA, after its limits were tested; what the limits cause is delivered.
    ///
    /// # Errors
    /// The SA does not exist, is no longer valid, or has reached its hard limit; the packet must not pass.
    pub fn count_traffic(&mut self, said: &Said, bytes: u64, cx: &mut Context<'_>) -> Result<(), TrafficError> {
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
        sa.usage.packets = sa.usage.packets.saturating_add(1);
        if first {
            let timer = sa.next_check(now);
            self.sadb.set_timer(index, timer);
        }
        Ok(())
    }

    /// What an outbound packet is to meet. A missing SA is asked for by ACQUIRE.
    ///
    /// # Errors
    /// The policy discards the packet.
    pub fn outbound(&mut self, flow: &Flow, cx: &mut Context<'_>) -> Result<Outbound, TrafficError> {
        let Some(policy) = self.spd.lookup(PolicyDirection::OUTBOUND.0, flow).cloned() else {
            return Ok(Outbound::Pass);
        };
        self.spd.touch(policy.id, cx.now.as_secs());
        if policy.block {
            return Err(TrafficError::Discarded);
        }
        let mut chain = Vec::new();
        let (mut saddr, mut daddr, mut v6) = (flow.saddr, flow.daddr, flow.v6);
        for template in &policy.templates {
            if PolicyMode(template.mode) == PolicyMode::TUNNEL {
                (saddr, daddr, v6) = (template.saddr, template.daddr, template.v6);
            }
            let key =
                AcquireKey { daddr, saddr, proto: template.proto, v6, mode: template.mode, reqid: template.reqid };
            match self.best_sa(&key, flow) {
                Some(said) => chain.push(said),
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

    /// The SA for a template (`xfrm_state_find`): not dying before dying, then the newest.
    fn best_sa(&self, key: &AcquireKey, flow: &Flow) -> Option<Said> {
        let fits = |sa: &Sa| {
            sa.state == State::Valid
                && matches_protocol(sa, key.proto)
                && sa.said.v6 == key.v6
                && sa.reqid == key.reqid
                && sa.mode == key.mode
                && sa.said.daddr == key.daddr
                && sa.saddr == key.saddr
                && selector_covers(&sa.selector, flow)
        };
        // Newest first, so that the first of equals is taken.
        let candidates = self.sadb.select(fits);
        let sas = candidates.iter().filter_map(|&i| self.sadb.get(i));
        sas.min_by_key(|sa| (sa.dying, std::cmp::Reverse(sa.usage.add_time))).map(|sa| sa.said)
    }

    /// Makes a larval and asks the key managers, unless that was done already.
    fn acquire(&mut self, key: &AcquireKey, flow: &Flow, policy: &Policy, cx: &mut Context<'_>) {
        if self.sadb.find_larval(key).is_some() || !cx.registered {
            return;
        }
        let failed = self.sadb.select(|sa| {
            sa.state == State::Error
                && sa.said.daddr == key.daddr
                && sa.saddr == key.saddr
                && sa.said.proto == key.proto
                && sa.reqid == key.reqid
                && selector_covers(&sa.selector, flow)
        });
        if !failed.is_empty() {
            return;
        }
        let now = cx.now.as_secs();
        let said = Said { daddr: key.daddr, spi: 0, proto: key.proto, v6: key.v6 };
        let mut larval = Sa::larval(said, key.saddr, key.mode, key.reqid, now, self.acq_expires);
        larval.selector = exact_selector(flow);
        self.acquire_seq = self.acquire_seq.wrapping_add(1).max(1);
        larval.seq = self.acquire_seq;
        larval.timer = larval.next_check(now);
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
        let taken = self.send(cx, Audience::Registered, |_, buffer| {
            let width = if key.v6 { 128 } else { 32 };
            let mut writer = crate::wire::Writer::new(buffer, header, profile);
            for (ext, addr) in [(Ext::ADDRESS_SRC, key.saddr), (Ext::ADDRESS_DST, key.daddr)] {
                let ip: std::net::IpAddr = if key.v6 {
                    std::net::Ipv6Addr::from(addr).into()
                } else {
                    std::net::Ipv4Addr::new(addr[0], addr[1], addr[2], addr[3]).into()
                };
                writer.address(ext, 0, width, crate::wire::SockaddrBytes::new(ip, 0).as_bytes());
            }
            writer.policy(ext, &[]);
            // Policies made through PF_KEY name no algorithms, so Linux proposes none; IPComp gets no proposal.
            if satype != SaType::X_IPCOMP {
                writer.proposal(32, &[]);
            }
            writer.finish()
        });
        if taken.is_ok_and(|takers| takers > 0) {
            self.sadb.insert(larval);
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
            let mut writer = crate::wire::Writer::new(buffer, header, profile);
            writer.sa(crate::wire::layout::SadbSa { spi: spi.into(), ..Default::default() });
            let parts = [
                (Ext::ADDRESS_SRC, old, Ext::X_NAT_T_SPORT, encap.sport),
                (Ext::ADDRESS_DST, new_addr, Ext::X_NAT_T_DPORT, new_port),
            ];
            for (address, addr, port_ext, port) in parts {
                let ip: std::net::IpAddr = if v6 {
                    std::net::Ipv6Addr::from(addr).into()
                } else {
                    std::net::Ipv4Addr::new(addr[0], addr[1], addr[2], addr[3]).into()
                };
                let width = if v6 { 128 } else { 32 };
                writer.address(address, 0, width, crate::wire::SockaddrBytes::new(ip, 0).as_bytes());
                writer.nat_t_port(port_ext, port);
            }
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

fn selector_covers(s: &Selector, flow: &Flow) -> bool {
    let any = s.saddr == [0; 16] && s.daddr == [0; 16] && s.splen == 0 && s.dplen == 0 && s.proto == 0;
    any || (s.v6.is_none_or(|v6| v6 == flow.v6)
        && super::prefix_equal(&s.saddr, &flow.saddr, s.splen)
        && super::prefix_equal(&s.daddr, &flow.daddr, s.dplen)
        && (s.proto == 0 || s.proto == flow.proto)
        && (s.sport == 0 || s.sport == flow.sport)
        && (s.dport == 0 || s.dport == flow.dport))
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
