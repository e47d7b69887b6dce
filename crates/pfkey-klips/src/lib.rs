//! Openswan's KLIPS: another PF_KEY stack, with SAs, groups of SAs and eroutes instead of policies.
//!
//! Its messages, structures and rules are its own from message 13 and extension 18 on, and its audiences too, so it has a
//! hub of its own. What is meant is Openswan 2.4 with NAT-T; docs/klips.md says what differs.
//!
//! | file | what it does |
//! |---|---|
//! | `number`, `layout`, `table` | numbers, structures, which extension goes with which message |
//! | `parse`, `field`, `request` | bytes → a [`Request`], or why not |
//! | `said`, `sa`, `sadb`, `eroute` | SAs by name, their groups, the table of flows |
//! | `message/` | a file for each kind of message: what it does and says |
//! | `outbound`, `usage` | what becomes of packets, and what they do to SAs |
//! | `hub`, `view` | sessions: who hears what; the engine as text |
//!
//! ```
//! use std::time::Duration;
//!
//! use pfkey_hub::Queues;
//! use pfkey_klips::{Engine, Flow, Hub, Outcome, Packet, PacketId};
//!
//! let mut hub = Hub::new(Engine::new());
//! let mut queues = Queues::new();
//! let now = Duration::from_secs(1_700_000_000);
//! let flow = Flow { src: [10, 0, 1, 7].into(), dst: [10, 0, 2, 9].into(), proto: 6, sport: 4000, dport: 443 };
//! let packet = Packet { id: PacketId(1), bytes: 60 };
//! let outcome = hub.with_engine(now, &mut queues, |engine, cx| engine.outbound(&flow, packet, cx));
//! assert_eq!(outcome, Outcome::Drop, "no eroute takes it");
//! ```
#![forbid(unsafe_code)]

pub mod debug;
mod engine;
pub mod eroute;
pub mod field;
mod hub;
pub mod layout;
mod message;
pub mod number;
mod outbound;
pub mod parse;
mod reply;
pub mod request;
pub mod sa;
pub mod sadb;
mod said;
pub mod supported;
pub mod table;
mod usage;
mod view;

pub use engine::{Context, Engine, Sockets};
pub use eroute::PacketId;
pub use hub::Hub;
pub use message::{MSG_PARSERS, Parser};
pub use outbound::{Flow, Outcome, Packet, Released};
pub use parse::Refusal;
pub use request::Request;
pub use said::{Format, Said, SaidError};

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
