//! The kernel's SAs and policies over NETLINK_XFRM: read directly, and, with the feature `engine`, as a key engine: PF_KEY on a
//! kernel without AF_KEY.
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::time::{SystemTime, UNIX_EPOCH};
//!
//! use pfkey_wire::IpsecProtocol;
//! use pfkey_xfrm::{Netlink, direct::for_each_sa};
//!
//! let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
//! let Ok(netlink) = Netlink::open() else { return Ok(()) }; // a kernel without XFRM
//! let shown = for_each_sa(netlink, IpsecProtocol::ESP, now, &mut |sa| {
//!     println!("{:?} {:#010x}", sa.ends, sa.spi);
//!     ControlFlow::Continue(())
//! });
//! match shown {
//!     None => println!("needs CAP_NET_ADMIN"),
//!     Some(Err(errno)) => println!("the dump broke off: {errno:?}"),
//!     Some(Ok(())) => {}
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]
// Half of the codec is the engine's alone.
#![cfg_attr(not(feature = "engine"), allow(dead_code))]

mod algorithm;
mod attached;
mod attribute;
pub mod direct;
mod dump_reader;
#[cfg(feature = "engine")]
mod engine;
mod layout;
mod netlink;
mod policy;
mod sa;
mod value;

#[cfg(all(feature = "engine", fuzzing))]
#[doc(hidden)]
pub use engine::fuzzing;
#[cfg(feature = "engine")]
pub use engine::{Events, SessionSockets, XfrmDump, XfrmEngine};
pub use netlink::{Netlink, NetlinkFd, namespace};

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
