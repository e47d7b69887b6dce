//! The profile klips: what Openswan's PF_KEY stack does, message by message. docs/klips.md says what is meant and what is
//! decided otherwise.
#![forbid(unsafe_code)]

#[path = "../support/c.rs"]
mod c;

mod anything;
mod daemon;
mod dialects;
mod eroutes;
mod fields;
mod flows;
mod framing;
mod groups;
mod listeners;
mod parsers;
mod sas;
#[path = "../support/daemon.rs"]
mod served;
mod tables;
mod text;
mod world;
