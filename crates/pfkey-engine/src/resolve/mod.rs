//! What becomes of an outbound packet: XFRM's output route look-up as a calculation. It has no packets and no device: a
//! data plane passes a flow and its routes, and applies the outcome to the packet.
//!
//! ```text
//! Resolver ── lookup(Packet) ──► Outcome
//!   │                              ├─ Pass(Path)              the ordinary route, as it is
//!   ├─ FlowCache  Flow → decision  ├─ Bundle ─► Node ─► Node ─► Path
//!   ├─ Statistics (32 counters)    │              └ SA, mode, header, trailer, MTU of what comes to it
//!   │                              ├─ Queued(policy) ─► PacketQueue, until retry
//!   ▼                              └─ Blackhole(Path)
//! Engine
//!   ├─ Spd, sub policies ── PolicyIndex: the strongest policy of a flow
//!   └─ Sadb ── on_route: the SAs of a template ── change: whether they are still the same
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use pfkey_engine::resolve::lookup::{Outcome, Resolver};
//! use pfkey_engine::resolve::path::Path;
//! use pfkey_engine::{Engine, Flow, LINUX};
//! use pfkey_hub::{Hub, Queues, Service as _};
//! use pfkey_wire::Ends;
//!
//! let mut hub = Hub::new(Engine::new(&LINUX));
//! let (mut queues, mut resolver) = (Queues::new(), Resolver::default());
//! let ends = Ends::new([10, 0, 1, 7].into(), [10, 0, 2, 9].into()).unwrap();
//! let flow = Flow::new(ends, 6, 4000, 443);
//! // A host with one route.
//! let route =
//!     Path { device: 2, mtu: 1500, source: ends.src(), gateway: None, loopback: false, untransformed: false };
//! let now = Duration::from_secs(1_700_000_000);
//! let outcome = hub.with_engine(now, None, &mut queues, |engine, cx| {
//!     resolver.route_output(engine, &flow, None, &route, cx)
//! });
//! // There are no policies: it passes, with all of the route's MTU.
//! assert!(matches!(outcome, Ok(Outcome::Pass(path)) if path.mtu == 1500));
//! ```
//!
//! A policy of PF_KEY looks at addresses, protocol and ports alone. Interface, mark and type of service are the business of
//! whoever chooses the route; so is the sender's security label.
//!
//! [`lookup`] has the effects that a packet has; [`explain`] gives the same result for a packet that is not sent.

pub mod bundle;
pub mod explain;
pub mod flow_cache;
pub mod lookup;
pub mod mtu;
pub mod packet_queue;
pub mod path;
pub mod policy_index;
pub mod statistics;
pub(super) mod template;
