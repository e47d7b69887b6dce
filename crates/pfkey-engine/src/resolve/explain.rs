//! What would become of an outbound packet, and why: the resolution of [`Engine::outbound`] without its effects. No ACQUIRE is
//! sent, nothing is counted.

use super::mtu::{Transform, chain_mtu};
use super::template::key;
use crate::sadb::AcquireKey;
use crate::{Engine, Flow};
use pfkey_model::policy::{MAX_TEMPLATES, Policy, Template};
use pfkey_model::sa::{Sa, SaId, State};
use pfkey_wire::xfrm::{FLAG_POLICY_CPU_ACQUIRE, MODE_IPTFS};
use pfkey_wire::{Ends, PolicyDirection};

/// Why a template has no SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// There is none of its protocol, mode, reqid, mark, XFRM interface and offload between the two addresses.
    #[error("no such SA")]
    None,
    /// A key manager was asked for one.
    #[error("being negotiated")]
    Acquiring,
    /// A key manager gave up.
    #[error("given up by a key manager")]
    GivenUp,
    /// There is one, but its selector does not take the packet, or it is for another processor.
    #[error("its selector does not take the packet, or it is for another processor")]
    Selector,
}

/// What a policy requires of one SA, and which SA it gets.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is required.
    pub template: Template,
    /// The tunnel's ends, or the packet's.
    pub ends: Ends,
    /// Number of SAs that fit.
    pub candidates: usize,
    /// The one that is used: not dying before dying, then the newest.
    pub chosen: Result<SaId, Lack>,
    /// A key manager is asked for one of this processor's own (`XFRM_POLICY_CPU_ACQUIRE`).
    pub asks: bool,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes out as it is.
    Pass,
    /// It goes out through the SAs.
    Transform,
    /// An SA is missing: an ACQUIRE is sent, and the packet is dropped or held.
    Wait,
    /// The policy discards it (EPERM).
    Discard,
    /// The policy requires more SAs than can be applied (ENOBUFS).
    TooManyTemplates,
}

/// What would become of a packet.
#[derive(Clone, Debug)]
pub struct Explanation<'e> {
    /// The policy of type sub that covers it: what it requires comes first.
    pub sub: Option<&'e Policy>,
    /// The policy that covers it; of type main.
    pub policy: Option<&'e Policy>,
    /// The SAs that the policy requires, in the order of application, up to the first one that is missing.
    pub steps: Vec<Step>,
    /// The outcome.
    pub verdict: Verdict,
    /// The MTU for the packet, IP header included.
    pub mtu: u32,
    /// The least and the most bytes that are added to a packet.
    pub overhead: (u32, u32),
    /// An SA packs and splits packets (IP-TFS), so that MTU and overhead are not those of one packet.
    pub packs: bool,
}

impl Engine {
    /// Adds an SA as it is, for an engine that is a copy of another.
    pub fn know_sa(&mut self, sa: Sa) {
        self.counts.allocated += 1;
        self.sadb.insert_copy(sa);
    }

    /// Adds a policy as it is. Of two with equal priority the one that was added first is the stronger.
    pub fn know_policy(&mut self, policy: Policy) {
        let of_its_type = if policy.attached.xfrm.is_sub() { &mut self.sub_policies } else { &mut self.spd };
        of_its_type.insert(policy);
    }

    /// What would become of an outbound packet whose path has this MTU in bytes. PF_KEY has no default of blocking.
    #[must_use]
    pub fn explain(&self, flow: &Flow, path_mtu: u32) -> Explanation<'_> {
        let out = PolicyDirection::OUTBOUND;
        let sub = self.sub_policies.lookup(out, flow);
        let main = if sub.is_some_and(|sub| sub.block) { None } else { self.spd.lookup(out, flow) };
        let mut explanation = Explanation {
            sub,
            policy: main,
            steps: Vec::new(),
            verdict: Verdict::Pass,
            mtu: path_mtu,
            overhead: (0, 0),
            packs: false,
        };
        let policies: Vec<&Policy> = sub.into_iter().chain(main).collect();
        if policies.iter().any(|policy| policy.block) {
            explanation.verdict = Verdict::Discard;
            return explanation;
        }
        if policies.iter().map(|policy| policy.templates.len()).sum::<usize>() >= MAX_TEMPLATES {
            explanation.verdict = Verdict::TooManyTemplates;
            return explanation;
        }
        let mut chain = Vec::new();
        for policy in policies {
            let mut from = flow.ends;
            for template in &policy.templates {
                let key = key(from, template, policy);
                let step = self.step(policy, template, &key, flow);
                if let Some(sa) = step.chosen.ok().and_then(|id| self.sadb.get(self.sadb.find(&id)?)) {
                    chain.push(Transform::of(sa, self.extras()));
                    explanation.packs |= sa.attached.xfrm.mode() == Some(MODE_IPTFS);
                    from = key.ends;
                }
                let missing = step.chosen.is_err() && !template.optional;
                explanation.steps.push(step);
                if missing {
                    explanation.verdict = Verdict::Wait;
                    return explanation;
                }
            }
        }
        if !chain.is_empty() {
            explanation.verdict = Verdict::Transform;
            explanation.mtu = chain_mtu(&chain, path_mtu);
            let sum = |(a, b): (u32, u32), (c, d): (u32, u32)| (a + c, b + d);
            explanation.overhead = chain.iter().map(Transform::overhead).fold((0, 0), sum);
        }
        explanation
    }

    fn step(&self, policy: &Policy, template: &Template, key: &AcquireKey, flow: &Flow) -> Step {
        let xfrm = &policy.attached.xfrm;
        let lack = || {
            let any = |is: fn(State) -> bool| self.candidates(key, xfrm).any(|(_, sa)| is(sa.state));
            if any(|state| state == State::Larval) {
                Lack::Acquiring
            } else if any(|state| state == State::Refused) {
                Lack::GivenUp
            } else if any(State::is_valid) {
                Lack::Selector
            } else {
                Lack::None
            }
        };
        let best = self.best(key, xfrm, flow).map(|(_, sa)| sa);
        let own = |sa: &Sa| sa.attached.xfrm.pcpu() == Some(flow.cpu);
        Step {
            template: *template,
            ends: key.ends,
            candidates: self.usable(key, xfrm, flow).count(),
            chosen: best.map(Sa::id).ok_or_else(lack),
            asks: xfrm.flags() & FLAG_POLICY_CPU_ACQUIRE != 0 && best.is_some_and(|sa| !own(sa)),
        }
    }
}
