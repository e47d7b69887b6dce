//! What becomes of an outbound packet: XFRM's output route look-up as a calculation. It has no packets and no device: a
//! data plane gives it a flow and its routes, and does to the packet what it is told.
//!
//! ```text
//! Resolver ── lookup(Packet) ──► Outcome
//!   │                              ├─ Pass(Path)              the ordinary route, as it is
//!   ├─ FlowCache  Flow → decision  ├─ Bundle ─► Node ─► Node ─► Path
//!   ├─ Statistics (32 counters)    │              └ SA, mode, header, trailer, MTU of what comes to it
//!   │                              ├─ Queued(policy) ─► Held, until retry
//!   ▼                              └─ Blackhole(Path)
//! Engine
//!   ├─ Spd, sub policies ── PolicyIndex: the strongest policy of a flow
//!   └─ Sadb ── on_route: the SAs of a template ── change: whether they are still the same
//! ```
//!
//! [`lookup`] decides and has the effects that a packet has; [`explain`] says the same of a packet that is not sent.

pub mod bundle;
pub mod explain;
pub mod flow_cache;
pub mod held;
pub mod lookup;
pub mod mtu;
pub mod path;
pub mod policy_index;
pub mod statistics;
pub(super) mod template;
