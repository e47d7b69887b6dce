//! libipsec (PF_KEYv2, RFC 2367) rebuilt in Rust.
//!
//! The map, from the bytes outwards; imports run this way only:
//!
//! | room | what it does |
//! |---|---|
//! | [`wire`] | PF_KEYv2 messages as bytes: numbers, layouts, a validated view, a writer (the crate `pfkey-wire`) |
//! | [`policy`] | policy specifications: text ⇄ typed ⇄ `sadb_x_policy` bytes |
//! | [`request`] | what a key manager asks for, typed, and as messages |
//! | [`align`] | libipsec's own checks of messages |
//! | [`print`] | messages as people read them |
//! | [`socket`] | opening a PF_KEY descriptor and moving messages over it (the crate `pfkey-socket`) |
//! | [`afkey`] | what af_key makes of requests, and how it shows SAs and policies; shared by the engines (the crate `pfkey-model`) |
//! | [`engine`] | the embedded key engine |
//! | [`xfrm`] | a key engine over XFRM netlink: the kernel's own SAs and policies |
//! | [`keyd`] | serving PF_KEY sockets from a [`keyd::KeyEngine`] |
//! | [`klips`] | another PF_KEY stack: Openswan KLIPS's SAs, groups and eroutes |
//! | [`batch`] | many requests at once |
//! | [`listing`] | every SA behind a descriptor, by the shortest way |
//! | [`capi`] | the C ABI |
#![deny(unsafe_code)]

pub mod align;
pub mod capi;
pub mod error;
pub mod print;
pub mod request;

pub use pfkey::{batch, listing, policy_text as policy};
pub use pfkey_engine as engine;
pub use pfkey_hub as keyd;
pub use pfkey_klips as klips;
pub use pfkey_model as afkey;
pub use pfkey_socket as socket;
pub use pfkey_wire as wire;
pub use pfkey_xfrm as xfrm;
