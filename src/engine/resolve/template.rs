//! Which SA each template of a policy gets (`xfrm_tmpl_resolve_one`, `xfrm_state_find`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::path::Routes;
use crate::afkey::policy::{MAX_TEMPLATES, Policy, Template};
use crate::afkey::sa::{Address, Context as SecurityContext, Sa, Said, Selector, State};
use crate::engine::sadb::{AcquireKey, Change, Route};
use crate::engine::{Engine, Flow, prefix_equal};
use crate::keyd::{Context, Time};
use crate::wire::layout::SadbXPolicy;
use crate::wire::{
    ExtensionType as Ext, Header, MessageType, PolicyDirection, PolicyMode, PolicyType, Profile, SaType, SockaddrBytes,
    Writer,
};

/// An SA that was found for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The SA.
    pub said: Said,
    /// The mode in which it is applied.
    pub mode: u8,
    /// Where it lives in the SADB.
    pub(super) index: u32,
    /// What must not have changed for it to stay the right one.
    pub(super) change: Change,
}

/// An SA that was not found, so that key managers may be asked.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Wanted {
    key: AcquireKey,
    /// Of the policy that wants it.
    id: u32,
    priority: u32,
    context: Option<SecurityContext>,
}

/// The outcome for all templates.
#[derive(Debug, Default)]
struct Found {
    links: Vec<Link>,
    /// What key managers are to be asked for.
    wanted: Vec<Wanted>,
    /// An SA is missing without which the packet cannot go.
    missing: bool,
}

/// Which policies took a packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Taken {
    /// Their ids, 0 = none. A sub policy comes before the main one.
    pub(super) ids: [u32; 2],
    /// Whether the first takes ICMP errors about packets that it covers.
    pub(super) icmp: bool,
}

impl Taken {
    pub(in crate::engine) fn by(policies: &[&Policy]) -> Self {
        let id = |at: usize| policies.get(at).map_or(0, |policy| policy.id);
        Self { ids: [id(0), id(1)], icmp: policies.first().is_some_and(|policy| policy.icmp) }
    }
}

/// What policies come to for a packet.
#[derive(Debug)]
pub(in crate::engine) enum Settled {
    /// Nothing is asked for; or only what may be missing is, and it is missing (`lasting` is false).
    Clear {
        /// Whether SAs have no say in it.
        lasting: bool,
    },
    /// It is refused.
    Block,
    /// SAs to apply.
    Through {
        /// In order; at least one.
        links: Vec<Link>,
        /// Whether nothing is missing.
        lasting: bool,
    },
    /// An SA is missing; whoever can make it was asked.
    Wait,
}

impl Engine {
    /// Gives `judge` the outbound policies that take a packet (`xfrm_expand_policies`): at most a sub policy and, if that
    /// allows the packet, a main one.
    pub(in crate::engine) fn policies_for<R>(&self, flow: &Flow, judge: impl FnOnce(&[&Policy]) -> R) -> R {
        let out = PolicyDirection::OUTBOUND.0;
        let sub = if self.sub_policies.is_empty() { None } else { self.sub_policies.lookup(out, flow) };
        let main = if sub.is_some_and(|sub| sub.block) { None } else { self.spd.lookup(out, flow) };
        match (sub, main) {
            (Some(sub), Some(main)) => judge(&[sub, main]),
            (Some(one), None) | (None, Some(one)) => judge(&[one]),
            (None, None) => judge(&[]),
        }
    }

    /// Whether any policy is for packets that go out.
    pub(super) fn has_outbound(&self) -> bool {
        self.spd.has(PolicyDirection::OUTBOUND.0) || self.sub_policies.has(PolicyDirection::OUTBOUND.0)
    }

    /// Changes whenever a policy does.
    pub(super) const fn policy_generation(&self) -> u64 {
        self.spd.generation().wrapping_add(self.sub_policies.generation())
    }

    /// Marks policies as used.
    pub(in crate::engine) fn touch(&mut self, taken: &Taken, now: Time) {
        for id in taken.ids.into_iter().filter(|&id| id != 0) {
            self.spd.touch(id, now.as_secs());
            self.sub_policies.touch(id, now.as_secs());
        }
    }

    /// What policies come to for a packet, and which SAs are missing: [`Engine::ask_for`] asks for them.
    ///
    /// # Errors
    /// Those of [`Engine::find_links`].
    pub(in crate::engine) fn settle(
        &self,
        policies: &[&Policy],
        flow: &Flow,
        routes: Option<&dyn Routes>,
    ) -> Result<(Settled, Vec<Wanted>), Errno> {
        if policies.iter().any(|policy| policy.block) {
            return Ok((Settled::Block, Vec::new()));
        }
        let Found { links, wanted, missing } = self.find_links(policies, flow, routes)?;
        let lasting = wanted.is_empty();
        let settled = match links.as_slice() {
            _ if missing => Settled::Wait,
            [] => Settled::Clear { lasting },
            _ => Settled::Through { links, lasting },
        };
        Ok((settled, wanted))
    }

    /// Asks key managers for SAs that are missing.
    pub(in crate::engine) fn ask_for(&mut self, wanted: &[Wanted], flow: &Flow, cx: &mut Context<'_>) {
        for wanted in wanted {
            self.acquire(wanted, flow, cx);
        }
    }

    /// Looks for an SA for each template of these policies.
    ///
    /// # Errors
    /// ENOBUFS: more templates than can be applied; or no route to a tunnel's other end.
    fn find_links(&self, policies: &[&Policy], flow: &Flow, routes: Option<&dyn Routes>) -> Result<Found, Errno> {
        let mut found = Found::default();
        for policy in policies {
            // Six can be installed, but the sixth is never looked for (`xfrm_tmpl_resolve`).
            if found.links.len() + policy.templates.len() >= MAX_TEMPLATES {
                return Err(Errno::ENOBUFS);
            }
            let mut ends = Ends::of(flow);
            for template in &policy.templates {
                let key = ends.key_by(template, routes)?;
                let change = self.sadb.change(&key.daddr, key.reqid);
                match self.best(&key, flow) {
                    Some((index, sa)) => {
                        found.links.push(Link { said: sa.said, mode: template.mode, index, change });
                        ends.reached(&key);
                    }
                    None => {
                        let (id, priority) = (policy.id, policy.priority);
                        found.wanted.push(Wanted { key, id, priority, context: policy.context.clone() });
                        if !template.optional {
                            found.missing = true;
                            return Ok(found);
                        }
                    }
                }
            }
        }
        // `xfrm_state_sort`: only where a sub policy and a main policy both ask, and only for IPv6.
        if flow.v6 && policies.len() > 1 {
            found.links.sort_by_key(|link| match (PolicyMode(link.mode), link.said.proto) {
                (PolicyMode::TRANSPORT, 51) => 3,
                (PolicyMode::TRANSPORT, _) => 1,
                _ => 4,
            });
        }
        Ok(found)
    }

    /// The SAs that fit a template, newest first, whatever their state: those of its source, then, unless one
    /// is on its way, those of any.
    pub(super) fn candidates(&self, key: &AcquireKey) -> impl Iterator<Item = (u32, &Sa)> {
        let route = Route { daddr: key.daddr, saddr: key.saddr, reqid: key.reqid, v6: key.v6 };
        let fits = {
            let key = *key;
            move |(_, sa): &(u32, &Sa)| sa.said.proto == key.proto && sa.mode == key.mode
        };
        let any_source = Route { saddr: [0; 16], ..route };
        let acquire = *key;
        let second = std::iter::once_with(move || {
            (any_source != route && !self.sadb.is_acquiring(&acquire)).then(|| self.sadb.on_route(any_source))
        });
        self.sadb.on_route(route).chain(second.flatten().flatten()).filter(fits)
    }

    /// Those among them that a packet can take.
    pub(super) fn usable(&self, key: &AcquireKey, flow: &Flow) -> impl Iterator<Item = (u32, &Sa)> {
        let flow = *flow;
        self.candidates(key).filter(move |(_, sa)| sa.state == State::Valid && takes(sa, &flow))
    }

    /// The SA for a template (`xfrm_state_look_at`): not dying before dying, then the newest.
    pub(super) fn best(&self, key: &AcquireKey, flow: &Flow) -> Option<(u32, &Sa)> {
        let mut best: Option<(u32, &Sa)> = None;
        for (index, sa) in self.usable(key, flow) {
            // They come newest first, and those of any source last.
            match best {
                Some((_, found)) if found.saddr != sa.saddr => break,
                _ if !sa.dying => return Some((index, sa)),
                None => best = Some((index, sa)),
                Some(_) => {}
            }
        }
        best
    }

    /// Makes a larval and asks the key managers, unless that was done already.
    fn acquire(&mut self, wanted: &Wanted, flow: &Flow, cx: &mut Context<'_>) {
        let Wanted { key, id, priority, context } = wanted;
        let any_source = AcquireKey { saddr: [0; 16], ..*key };
        if self.sadb.is_acquiring(key) || self.sadb.is_acquiring(&any_source) || !cx.registered {
            return;
        }
        // A larval that a key manager gave up stops its own flow until it dies.
        let failed = |(_, sa): (u32, &Sa)| sa.state == State::Error && takes(sa, flow);
        if self.candidates(key).any(failed) {
            return;
        }
        let now = cx.now.as_secs();
        let said = Said { daddr: key.daddr, spi: 0, proto: key.proto, v6: key.v6 };
        let mut larval = Sa::larval(said, key.saddr, key.mode, key.reqid, now, self.acq_expires);
        larval.selector = exact_selector(flow);
        larval.context.clone_from(context);
        self.acquire_seq = self.acquire_seq.wrapping_add(1).max(1);
        larval.seq = self.acquire_seq;
        let timer = larval.next_check(now);
        let satype = SaType::from_protocol(key.proto);
        let header = Header::new(MessageType::ACQUIRE, satype, larval.seq, 0);
        let ext = SadbXPolicy {
            policy_type: PolicyType::IPSEC.0.into(),
            dir: PolicyDirection::OUTBOUND.0,
            id: (*id).into(),
            priority: (*priority).into(),
            ..Default::default()
        };
        let audience = self.listeners(MessageType::ACQUIRE, satype);
        let taken = cx.offer(audience, header, |writer| {
            if self.profile == Profile::Rfc2367 {
                return Self::rfc_write_acquire(writer, key, flow);
            }
            for (ext, addr) in [(Ext::ADDRESS_SRC, key.saddr), (Ext::ADDRESS_DST, key.daddr)] {
                host_address(writer, ext, &addr, key.v6);
            }
            writer.policy(ext, &[]);
            // Policies made through PF_KEY name no algorithms, so Linux proposes none; IPComp gets no proposal.
            if satype != SaType::X_IPCOMP {
                writer.proposal(32, &[]);
            }
            if let Some(context) = &larval.context {
                writer.sec_ctx(SecurityContext::DOI, SecurityContext::ALG, &context.text);
            }
        });
        if taken.is_ok_and(|takers| takers > 0) {
            self.counts.allocated += 1;
            self.sadb.insert(larval, timer);
        }
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
    pub(super) fn key(&self, template: &Template) -> AcquireKey {
        let Self { mut saddr, mut daddr, mut v6 } = *self;
        if PolicyMode(template.mode) != PolicyMode::TRANSPORT {
            (daddr, v6) = (template.daddr, template.v6);
            if template.saddr != [0; 16] {
                saddr = template.saddr;
            }
        }
        AcquireKey { daddr, saddr, proto: template.proto, v6, mode: template.mode, reqid: template.reqid }
    }

    /// The same where routes are known: a tunnel without a source starts where the route to its other end does.
    ///
    /// # Errors
    /// EHOSTUNREACH: there is no such route (`xfrm4_get_saddr`).
    fn key_by(&self, template: &Template, routes: Option<&dyn Routes>) -> Result<AcquireKey, Errno> {
        let mut key = self.key(template);
        let without_source = PolicyMode(template.mode) != PolicyMode::TRANSPORT && template.saddr == [0; 16];
        if let Some(routes) = routes.filter(|_| without_source) {
            key.saddr = routes.route(key.v6, None, &key.daddr).map_err(|_| Errno::EHOSTUNREACH)?.saddr;
        }
        Ok(key)
    }

    /// The template has an SA: the next one starts from its ends.
    pub(super) const fn reached(&mut self, key: &AcquireKey) {
        (self.saddr, self.daddr, self.v6) = (key.saddr, key.daddr, key.v6);
    }
}

/// An address of an outer header: full prefix, no port.
pub(in crate::engine) fn host_address(writer: &mut Writer<'_>, ext: Ext, addr: &Address, v6: bool) {
    let [a, b, c, d, ..] = *addr;
    let (ip, width): (IpAddr, u8) =
        if v6 { (Ipv6Addr::from(*addr).into(), 128) } else { (Ipv4Addr::new(a, b, c, d).into(), 32) };
    writer.address(ext, 0, width, SockaddrBytes::new(ip, 0).as_bytes());
}

/// Whether an SA's selector takes a packet. One that names no family is for the SA's own.
fn takes(sa: &Sa, flow: &Flow) -> bool {
    sa.inner_v6() == flow.v6 && selector_covers(&sa.selector, flow)
}

/// `xfrm_selector_match`, of a selector for the packet's family.
pub(super) fn selector_covers(s: &Selector, flow: &Flow) -> bool {
    prefix_equal(&s.saddr, &flow.saddr, s.splen)
        && prefix_equal(&s.daddr, &flow.daddr, s.dplen)
        && (s.proto == 0 || s.proto == flow.proto)
        && (s.sport == 0 || s.sport == flow.sport)
        && (s.dport == 0 || s.dport == flow.dport)
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
