//! How Linux's af_key reads requests and writes SAs and policies. Every key engine that behaves like af_key is built on
//! this.
#![forbid(unsafe_code)]

pub mod message;
pub mod migrate;
pub mod policy;
pub mod read;
pub mod request;
pub mod sa;
pub mod template;
pub mod view;

use pfkey_wire as wire;
