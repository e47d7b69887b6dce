//! RFC 2367, item by item, on the engine's profile `rfc2367`. docs/rfc2367.md lists every item, with what is decided
//! otherwise.

#[path = "../scenarios/build.rs"]
#[allow(dead_code)]
mod build;

mod algorithms;
mod framing;
mod life;
mod messages;
mod table;
mod world;
