//! What becomes of an outbound packet (`xfrm_lookup`, `xfrm_bundle_lookup`), with its effects: ACQUIREs are sent,
//! policies are marked as used, counters count, and results are remembered.

use std::sync::Arc;
use std::time::Duration;

use super::bundle::Bundle;
use super::flow_cache::{CacheStatistics, Cached, FlowCache};
use super::packet_queue::PacketQueue;
use super::path::{Path, Routes};
use super::statistics::{Counter, Statistics};
use super::template::{Matched, Resolution, Wanted};
use crate::{Engine, Flow};
use pfkey_hub::{Context, KeyEngine as _, Time};
use pfkey_model::policy::Policy;
use pfkey_model::sa::SaId;
use pfkey_wire::Errno;

/// A packet that is to go out.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    /// Its addresses, protocol and ports.
    pub flow: &'p Flow,
    /// Its ordinary route.
    pub path: Path,
    /// The outbound policy of the socket that it comes from.
    pub socket: Option<&'p Policy>,
    /// Whether it can wait for an SA (`XFRM_LOOKUP_QUEUE`).
    pub queue: bool,
    /// Whether it is looked up for an ICMP error about another packet (`XFRM_LOOKUP_ICMP`): only policies that take those
    /// apply, and without one it does not pass.
    pub icmp: bool,
}

/// What becomes of it, if it is not refused.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It takes its ordinary route as it is.
    Pass(Path),
    /// It goes through SAs.
    Bundle(Arc<Bundle>),
    /// It is to wait in [`PacketQueue`] under the id of this policy.
    Queued(u32),
    /// It is discarded without an error for the sender. Its ordinary route.
    Blackhole(Path),
}

/// The result of a look-up, which can be remembered.
#[derive(Clone, Debug)]
struct Decision {
    matched: Matched,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Pass,
    Block,
    Apply(Arc<Bundle>),
    /// An SA is missing.
    Wait,
}

/// How often the flow cache gets another seed and starts anew (`flow_cache_new_hashrnd`).
const RESEED: Duration = Duration::from_secs(600);

/// Looks packets up; one for each thread that sends them. It remembers the results by flow, and assumes that a flow has the
/// same route as long as [`Routes::generation`] is the same.
pub struct Resolver {
    cache: Option<FlowCache<Flow, Decision>>,
    /// The generations of policies and routes of the entries in the cache.
    generations: (u64, u64),
    reseed: Time,
    statistics: Statistics,
    larval_drop: bool,
    default_block: bool,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { cache: Some(FlowCache::new(2048, 4096)), ..Self::without_cache() }
    }
}

impl Resolver {
    /// One that remembers nothing.
    #[must_use]
    pub fn without_cache() -> Self {
        Self {
            cache: None,
            generations: (0, 0),
            reseed: Time::ZERO,
            statistics: Statistics::default(),
            larval_drop: true,
            default_block: false,
        }
    }

    /// Whether a packet that lacks an SA is discarded (`net.core.xfrm_larval_drop`, which is on unless set) or kept.
    pub const fn set_larval_drop(&mut self, drop: bool) {
        self.larval_drop = drop;
    }

    /// Whether packets that no policy takes are refused, but for those over a loopback (`ip xfrm policy setdefault out
    /// block`).
    pub const fn set_default_block(&mut self, block: bool) {
        self.default_block = block;
    }

    /// The counters. Their `Display` has the form of `/proc/net/xfrm_stat`.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The counters, for those that a data plane counts: transforms that fail, sequence numbers that are used up.
    pub const fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.statistics
    }

    /// The counters of the flow cache.
    #[must_use]
    pub fn cache_statistics(&self) -> CacheStatistics {
        self.cache.as_ref().map(FlowCache::statistics).unwrap_or_default()
    }

    /// A packet from its addresses to its outcome (`ip_route_output_flow`): its route, then [`Resolver::lookup_route`].
    /// One without an upper-layer protocol meets no policy.
    ///
    /// # Errors
    /// The route's own, or those of [`Resolver::lookup_route`].
    pub fn route_output(
        &mut self,
        engine: &mut Engine,
        flow: &Flow,
        socket: Option<&Policy>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<Outcome, Errno> {
        let path = routes.route(Some(flow.ends.src()), flow.ends.dst())?;
        if flow.proto == 0 {
            return Ok(Outcome::Pass(path));
        }
        let packet = Packet { flow, path, socket, queue: true, icmp: false };
        self.lookup_route(engine, &packet, routes, cx)
    }

    /// [`Resolver::lookup`] as a sender sees it (`xfrm_lookup_route`): a packet that lacks an SA vanishes, unless it
    /// waits or its socket's own policy wants the SA.
    ///
    /// # Errors
    /// Those of [`Resolver::lookup`] but EREMOTE.
    pub fn lookup_route(
        &mut self,
        engine: &mut Engine,
        packet: &Packet<'_>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<Outcome, Errno> {
        match self.lookup(engine, &Packet { queue: true, ..*packet }, routes, cx) {
            Err(Errno::EREMOTE) => Ok(Outcome::Blackhole(packet.path)),
            outcome => outcome,
        }
    }

    /// What becomes of a packet (`xfrm_lookup`).
    ///
    /// # Errors
    /// EPERM: a policy, or the lack of one, forbids it. EREMOTE, EAGAIN: an SA is missing and the packet is dropped.
    /// ENOENT: an ICMP look-up without a policy for it. ENOBUFS: too many templates. ENODEV, EHOSTUNREACH and
    /// the errors of `routes`: a tunnel's other end cannot be reached.
    pub fn lookup(
        &mut self,
        engine: &mut Engine,
        packet: &Packet<'_>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<Outcome, Errno> {
        engine.advance(cx);
        if let Some(policy) = packet.socket.filter(|policy| policy.selector.covers(packet.flow)) {
            let resolution = engine.resolve(&[policy], packet.flow, Some(routes));
            let decision = self.decide(engine, Matched::of_socket(policy), resolution, packet, routes, cx)?.0;
            // An SA that is missing for a socket's own policy is an error, not a black hole.
            return match decision.action {
                Action::Wait => Err(Errno::EAGAIN),
                _ => self.conclude(engine, &decision, packet, cx),
            };
        }
        if packet.path.untransformed || !engine.has_outbound() {
            return self.no_policy(packet);
        }
        match self.cached(engine, packet, routes, cx)? {
            None => self.no_policy(packet),
            Some(Decision { action: Action::Wait, .. }) if self.larval_drop || !packet.queue => {
                self.statistics.count(Counter::OutNoStates);
                Err(if self.larval_drop { Errno::EREMOTE } else { Errno::EAGAIN })
            }
            Some(decision) => self.conclude(engine, &decision, packet, cx),
        }
    }

    /// The result of the SPD for it, remembered or new (`flow_cache_lookup`); `None` = no policy.
    fn cached(
        &mut self,
        engine: &mut Engine,
        packet: &Packet<'_>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<Option<Decision>, Errno> {
        let generations = (engine.policy_generation(), routes.generation());
        if let Some(cache) = &mut self.cache {
            if generations != self.generations {
                cache.invalidate();
                self.generations = generations;
            }
            if cx.now >= self.reseed {
                cache.reseed();
                self.reseed = cx.now + RESEED;
            }
            let usable = |decision: &Decision| match &decision.action {
                Action::Apply(bundle) => bundle.is_current(engine),
                Action::Pass | Action::Block => true,
                Action::Wait => false,
            };
            if let Cached::Known(decision) = cache.find(packet.flow, usable) {
                return Ok(decision.cloned());
            }
        }
        let found = engine.policies_for(packet.flow, |matched, policies| {
            (matched, engine.resolve(policies, packet.flow, Some(routes)))
        });
        let Some((matched, resolution)) = found else {
            if let Some(cache) = &mut self.cache {
                cache.remember(*packet.flow, None);
            }
            return Ok(None);
        };
        let (decision, lasting) = self.decide(engine, matched, resolution, packet, routes, cx)?;
        // Results that may change with every SA are not remembered: a packet waits, or optional SAs are missing.
        if let Some(cache) = self.cache.as_mut().filter(|_| lasting) {
            cache.remember(*packet.flow, Some(decision.clone()));
        }
        Ok(Some(decision))
    }

    /// The result of policies, and whether it may be remembered (`xfrm_resolve_and_create_bundle`). Sends ACQUIREs for
    /// missing SAs.
    fn decide(
        &mut self,
        engine: &mut Engine,
        matched: Matched,
        resolution: Result<(Resolution, Vec<Wanted>), Errno>,
        packet: &Packet<'_>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<(Decision, bool), Errno> {
        let (resolution, wanted) = resolution.inspect_err(|_| self.statistics.count(Counter::OutPolError))?;
        engine.ask_for(&wanted, packet.flow, cx);
        let (action, lasting) = match resolution {
            Resolution::Pass { lasting } => (Action::Pass, lasting),
            Resolution::Block => (Action::Block, true),
            Resolution::Wait => (Action::Wait, false),
            Resolution::Apply { links, lasting } => {
                let bundle = Bundle::create(engine, &links, &packet.path, routes);
                let bundle = bundle.inspect_err(|_| self.statistics.count(Counter::OutBundleGenError))?;
                (Action::Apply(Arc::new(bundle)), lasting)
            }
        };
        Ok((Decision { matched, action }, lasting))
    }

    /// `no_transform` of `xfrm_lookup`.
    fn conclude(
        &mut self,
        engine: &mut Engine,
        decision: &Decision,
        packet: &Packet<'_>,
        cx: &Context<'_>,
    ) -> Result<Outcome, Errno> {
        if packet.icmp && !decision.matched.icmp {
            return Err(Errno::ENOENT);
        }
        engine.touch(&decision.matched, cx.now);
        Ok(match &decision.action {
            Action::Pass => Outcome::Pass(packet.path),
            Action::Apply(bundle) => Outcome::Bundle(Arc::clone(bundle)),
            Action::Wait => Outcome::Queued(decision.matched.id),
            Action::Block => {
                self.statistics.count(Counter::OutPolBlock);
                return Err(Errno::EPERM);
            }
        })
    }

    /// `nopol` of `xfrm_lookup`.
    fn no_policy(&self, packet: &Packet<'_>) -> Result<Outcome, Errno> {
        if self.default_block && !packet.path.loopback {
            return Err(Errno::EPERM);
        }
        if packet.icmp { Err(Errno::ENOENT) } else { Ok(Outcome::Pass(packet.path)) }
    }

    /// Counts a packet for an SA of a bundle before the SA is applied to it (`xfrm_output_one`); `bytes` is what the
    /// transform gets.
    ///
    /// # Errors
    /// EINVAL: the SA is gone, or this packet finds it over a hard limit. The packet is to be dropped.
    pub fn output(&mut self, engine: &mut Engine, id: &SaId, bytes: u64, cx: &mut Context<'_>) -> Result<(), Errno> {
        let sadb = engine.sadb();
        let valid = sadb.find(id).and_then(|index| sadb.get(index)).is_some_and(|sa| sa.state.is_valid());
        engine.count_traffic(id, 1, bytes, cx).map_err(|_| {
            self.statistics.count(if valid { Counter::OutStateExpired } else { Counter::OutStateInvalid });
            Errno::EINVAL
        })
    }

    /// Tries again for the packets whose time it is ([`PacketQueue::next_retry`]). Each packet that waited long enough, or
    /// whose SA is there, is passed to `send` with what becomes of it, in the order in which they came.
    pub fn retry<P>(
        &mut self,
        engine: &mut Engine,
        queue: &mut PacketQueue<P>,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
        mut send: impl FnMut(Flow, P, Result<Outcome, Errno>),
    ) {
        for (policy, flow) in queue.due(cx.now) {
            let packets = match self.retry_one(engine, &flow, true, routes, cx) {
                Ok(Outcome::Queued(_)) => queue.wait_on(policy, cx.now),
                _ => queue.take(policy),
            };
            for (flow, packet) in packets {
                let outcome = self.retry_one(engine, &flow, false, routes, cx);
                send(flow, packet, outcome);
            }
        }
    }

    fn retry_one(
        &mut self,
        engine: &mut Engine,
        flow: &Flow,
        queue: bool,
        routes: &dyn Routes,
        cx: &mut Context<'_>,
    ) -> Result<Outcome, Errno> {
        let path = routes.route(Some(flow.ends.src()), flow.ends.dst())?;
        self.lookup(engine, &Packet { flow, path, socket: None, queue, icmp: false }, routes, cx)
    }
}
