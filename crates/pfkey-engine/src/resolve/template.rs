//! Which SA each template of a policy gets (`xfrm_tmpl_resolve_one`, `xfrm_state_find`).

use super::path::Routes;
use crate::sadb::{AcquireKey, Change, Index, Route};
use crate::{Engine, Flow};
use pfkey_hub::{Context, Time};
use pfkey_model::attached::Attached;
use pfkey_model::message::write_host;
use pfkey_model::policy::{MAX_TEMPLATES, Policy, Template};
use pfkey_model::sa::{Sa, SaId, Selector, State};
use pfkey_model::xfrm::Xfrm;
use pfkey_wire::layout::SadbXPolicy;
use pfkey_wire::xfrm::{FLAG_WILDRECV, attribute};
use pfkey_wire::{
    Ends, Errno, ExtensionType as Ext, Header, IpsecProtocol, MessageType, Mode, PolicyDirection, PolicyType, SaType,
    Writer,
};

/// An SA that was found for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The SA.
    pub id: SaId,
    /// The mode in which it is applied.
    pub mode: Mode,
    /// Its slot in the SADB.
    pub(super) index: u32,
    /// It stays the right one while this [is unchanged](crate::sadb::Sadb::is_unchanged).
    pub(super) change: Change,
}

/// An SA that is missing: what key managers are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: AcquireKey,
    /// Of the policy that wants it.
    policy: u32,
    priority: u32,
    /// The label, the mark and the XFRM interface of the policy, which the SA has to have.
    pub(crate) attached: Attached,
}

/// The SAs for all templates.
#[derive(Debug, Default)]
struct Found {
    links: Vec<Link>,
    /// The SAs that are missing, optional ones too.
    wanted: Vec<Wanted>,
    /// One of them is not optional.
    missing: bool,
}

/// The policies that cover a packet: at most a sub policy and a main one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matched {
    /// The id of the first.
    pub(super) id: u32,
    /// Whether the first takes ICMP errors about packets that it covers.
    pub(super) icmp: bool,
    /// Their slots among the sub policies and the main ones.
    slots: [Option<Index>; 2],
}

impl Matched {
    /// A socket's own policy, which is in no table.
    pub(super) const fn of_socket(policy: &Policy) -> Self {
        Self { id: policy.id, icmp: policy.icmp, slots: [None; 2] }
    }
}

/// What the policies of a packet lead to.
#[derive(Debug)]
pub(crate) enum Resolution {
    /// No SA is needed, or only optional ones are and these are missing (then `lasting` is false).
    Pass {
        /// True if the outcome does not depend on any SA.
        lasting: bool,
    },
    /// It is refused.
    Block,
    /// SAs to apply.
    Apply {
        /// In order; at least one.
        links: Vec<Link>,
        /// True if no optional SA is missing.
        lasting: bool,
    },
    /// An SA is missing.
    Wait,
}

impl Engine {
    /// Passes the outbound policies that cover a packet to `judge` (`xfrm_expand_policies`): a sub policy, a main one, or, if
    /// the sub policy allows the packet, both. `None` = no policy covers it.
    pub(crate) fn policies_for<R>(&self, flow: &Flow, judge: impl FnOnce(Matched, &[&Policy]) -> R) -> Option<R> {
        let out = PolicyDirection::OUTBOUND;
        let sub = if self.sub_policies.is_empty() { None } else { self.sub_policies.lookup_slot(out, flow) };
        let main = if sub.is_some_and(|(_, sub)| sub.block) { None } else { self.spd.lookup_slot(out, flow) };
        let (_, first) = sub.or(main)?;
        let slots = [sub.map(|(slot, _)| slot), main.map(|(slot, _)| slot)];
        let matched = Matched { id: first.id, icmp: first.icmp, slots };
        Some(match (sub, main) {
            (Some(_), Some((_, main))) => judge(matched, &[first, main]),
            _ => judge(matched, &[first]),
        })
    }

    /// Whether any policy is for packets that go out.
    pub(super) fn has_outbound(&self) -> bool {
        self.spd.has(PolicyDirection::OUTBOUND) || self.sub_policies.has(PolicyDirection::OUTBOUND)
    }

    /// Another number after every change to a policy.
    pub(super) const fn policy_generation(&self) -> u64 {
        self.spd.generation().wrapping_add(self.sub_policies.generation())
    }

    /// Marks policies as used.
    pub(crate) fn touch(&mut self, matched: &Matched, now: Time) {
        let [sub, main] = matched.slots;
        if let Some(slot) = sub {
            self.sub_policies.touch(slot, now.as_secs());
        }
        if let Some(slot) = main {
            self.spd.touch(slot, now.as_secs());
        }
    }

    /// What the policies of a packet lead to, and the SAs that are missing: [`Engine::ask_for`] asks for them.
    ///
    /// # Errors
    /// Those of [`Engine::find_links`].
    pub(crate) fn resolve(
        &self,
        policies: &[&Policy],
        flow: &Flow,
        routes: Option<&dyn Routes>,
    ) -> Result<(Resolution, Vec<Wanted>), Errno> {
        if policies.iter().any(|policy| policy.block) {
            return Ok((Resolution::Block, Vec::new()));
        }
        let Found { links, wanted, missing } = self.find_links(policies, flow, routes)?;
        let lasting = wanted.is_empty();
        let resolution = match links.as_slice() {
            _ if missing => Resolution::Wait,
            [] => Resolution::Pass { lasting },
            _ => Resolution::Apply { links, lasting },
        };
        Ok((resolution, wanted))
    }

    /// Asks key managers for SAs that are missing.
    pub(crate) fn ask_for(&mut self, wanted: &[Wanted], flow: &Flow, cx: &mut Context<'_>) {
        for wanted in wanted {
            self.acquire(wanted, flow, cx);
        }
    }

    /// Finds an SA for each template of these policies.
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
            let mut from = flow.ends;
            for template in &policy.templates {
                let key = key_by(from, template, policy, routes)?;
                let change = self.sadb.change(key.ends.dst(), key.reqid);
                match self.best(&key, &policy.attached.xfrm, flow) {
                    Some((index, sa)) => {
                        found.links.push(Link { id: sa.id(), mode: template.mode, index, change });
                        from = key.ends;
                    }
                    None => {
                        let attached = policy.attached.wanted();
                        found.wanted.push(Wanted { key, policy: policy.id, priority: policy.priority, attached });
                        if !template.optional {
                            found.missing = true;
                            return Ok(found);
                        }
                    }
                }
            }
        }
        // `xfrm_state_sort`: only where a sub policy and a main policy both ask, and only for IPv6.
        if flow.ends.is_ipv6() && policies.len() > 1 {
            found.links.sort_by_key(|link| match (link.mode, link.id.proto) {
                (Mode::TRANSPORT, IpsecProtocol::AH) => 3,
                (Mode::TRANSPORT, _) => 1,
                _ => 4,
            });
        }
        Ok(found)
    }

    /// The SAs that fit a template of a policy, newest first, whatever their state: those of its source, then, unless one
    /// is on its way, those of any. `policy` is what it has beyond PF_KEY.
    pub(super) fn candidates<'e>(&'e self, key: &AcquireKey, policy: &'e Xfrm) -> impl Iterator<Item = (u32, &'e Sa)> {
        let route = Route { ends: key.ends, reqid: key.reqid };
        let fits = {
            let key = *key;
            move |(_, sa): &(u32, &Sa)| (sa.proto, sa.mode) == (key.proto, key.mode) && is_in_scope(sa, &key, policy)
        };
        let any_source = Route { ends: Ends::to(key.ends.dst()), ..route };
        let acquire = *key;
        let second = std::iter::once_with(move || {
            (any_source != route && !self.sadb.is_acquiring(&acquire)).then(|| self.sadb.on_route(any_source))
        });
        self.sadb.on_route(route).chain(second.flatten().flatten()).filter(fits)
    }

    /// Those among them that a packet can take.
    pub(super) fn usable<'e>(
        &'e self,
        key: &AcquireKey,
        policy: &'e Xfrm,
        flow: &Flow,
    ) -> impl Iterator<Item = (u32, &'e Sa)> {
        let flow = *flow;
        self.candidates(key, policy).filter(move |(_, sa)| sa.state.is_valid() && sa.takes(&flow))
    }

    /// The SA for a template (`xfrm_state_look_at`): one for this processor before one for any, not dying before dying, then the
    /// newest.
    pub(super) fn best<'e>(&'e self, key: &AcquireKey, policy: &'e Xfrm, flow: &Flow) -> Option<(u32, &'e Sa)> {
        let mut best: Option<(u32, &Sa)> = None;
        for (index, sa) in self.usable(key, policy, flow) {
            // They come newest first, and those of any source last.
            match best {
                Some((_, found)) if found.ends != sa.ends => break,
                Some((_, found)) if !is_before(sa, found) => {}
                _ => best = Some((index, sa)),
            }
            // Without a processor nothing that follows is before it.
            if sa.state == State::Mature && flow.cpu == Flow::ANY_CPU {
                break;
            }
        }
        best
    }

    /// Makes a larval and asks the key managers, unless that was done already.
    fn acquire(&mut self, wanted: &Wanted, flow: &Flow, cx: &mut Context<'_>) {
        let Wanted { key, attached, .. } = wanted;
        let any_source = AcquireKey { ends: Ends::to(key.ends.dst()), ..*key };
        if self.sadb.is_acquiring(key) || self.sadb.is_acquiring(&any_source) || !cx.registered {
            return;
        }
        // A refused larval stops its own flow until it expires.
        let failed = |(_, sa): (u32, &Sa)| sa.state == State::Refused && sa.takes(flow);
        if self.candidates(key, &attached.xfrm).any(failed) {
            return;
        }
        let now = cx.now.as_secs();
        let mut larval = Sa::larval(key.ends, 0, key.proto, key.mode, key.reqid, now, self.acq_expires);
        larval.selector = Some(Box::new(Selector::exactly(flow)));
        larval.attached.clone_from(attached);
        self.acquire_seq = self.acquire_seq.wrapping_add(1).max(1);
        larval.seq = self.acquire_seq;
        let satype = SaType::from_protocol(key.proto);
        let header = Header::new(MessageType::ACQUIRE, satype, larval.seq, 0);
        let audience = (self.dialect.sessions.listeners)(MessageType::ACQUIRE, satype);
        let takers = cx.offer(audience, header, |writer| (self.dialect.write_acquire)(writer, wanted, flow));
        if takers.is_ok_and(|takers| takers > 0) {
            self.counts.allocated += 1;
            self.sadb.insert(larval, now);
        }
    }
}

/// Writes Linux's ACQUIRE behind its header.
pub(crate) fn write_acquire(writer: &mut Writer<'_>, wanted: &Wanted, _: &Flow) {
    let Wanted { key, policy, priority, attached } = wanted;
    write_host(writer, Ext::ADDRESS_SRC, key.ends.src());
    write_host(writer, Ext::ADDRESS_DST, key.ends.dst());
    let policy = SadbXPolicy {
        policy_type: PolicyType::IPSEC.0.into(),
        dir: PolicyDirection::OUTBOUND.0,
        id: (*policy).into(),
        priority: (*priority).into(),
        ..Default::default()
    };
    writer.policy(policy, &[]);
    // Policies made through PF_KEY name no algorithms, so that Linux proposes none. Only AH and ESP have a proposal.
    if matches!(key.proto, IpsecProtocol::AH | IpsecProtocol::ESP) {
        writer.proposal(32, &[]);
    }
    attached.write(writer);
}

/// Whether an SA is used in the place of a newer one. Those for another processor do not come here.
fn is_before(sa: &Sa, newer: &Sa) -> bool {
    let is_own = |sa: &Sa| sa.attached.xfrm.pcpu().is_some();
    let is_dying = |sa: &Sa| sa.state == State::Dying;
    is_own(sa) && !is_own(newer) || is_dying(newer) && !is_dying(sa)
}

/// Whether an SA is for the packets of a policy's mark and XFRM interface that go out, with its offload and its kind of tunnel
/// (`xfrm_state_find`).
fn is_in_scope(sa: &Sa, key: &AcquireKey, policy: &Xfrm) -> bool {
    const IN: u8 = 1;
    let xfrm = &sa.attached.xfrm;
    let packet = |xfrm: &Xfrm| xfrm.offload().filter(|device| device.packet).map(|device| device.ifindex);
    if xfrm.is_empty() && policy.is_empty() {
        return true;
    }
    xfrm.if_id() == key.if_id
        && packet(xfrm) == packet(policy)
        && (sa.mode != Mode::TUNNEL || xfrm.mode() == policy.mode())
        && xfrm.mark().covers(key.mark)
        && xfrm.flags() & FLAG_WILDRECV == 0
        && (xfrm.is_empty() || xfrm.attributes().payload(attribute::SA_DIR) != Some(&[IN]))
}

/// What a template wants whose packets come from between these ends. A tunnel leads elsewhere; one without a source starts
/// where the packet is.
pub(super) fn key(from: Ends, template: &Template, policy: &Policy) -> AcquireKey {
    let Template { proto, mode, reqid, ends: tunnel, .. } = *template;
    let ends = if mode == Mode::TRANSPORT {
        from
    } else if tunnel.src().is_unspecified() {
        Ends::in_family_of_dst(from.src(), tunnel.dst())
    } else {
        tunnel
    };
    AcquireKey {
        ends,
        proto,
        mode,
        reqid,
        mark: policy.attached.xfrm.mark().masked(),
        if_id: policy.attached.xfrm.if_id(),
    }
}

/// The same where routes are known: a tunnel without a source starts where the route to its other end does.
///
/// # Errors
/// EHOSTUNREACH: there is no such route (`xfrm4_get_saddr`).
fn key_by(from: Ends, template: &Template, policy: &Policy, routes: Option<&dyn Routes>) -> Result<AcquireKey, Errno> {
    let mut key = key(from, template, policy);
    let without_source = template.mode != Mode::TRANSPORT && template.ends.src().is_unspecified();
    if let Some(routes) = routes.filter(|_| without_source) {
        let route = routes.route(None, key.ends.dst()).map_err(|_| Errno::EHOSTUNREACH)?;
        key.ends = Ends::in_family_of_dst(route.source, key.ends.dst());
    }
    Ok(key)
}
