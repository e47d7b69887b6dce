//! What Linux's af_key makes of requests and how it shows SAs and policies: what every key engine needs that wants to
//! be taken for it.
#![forbid(unsafe_code)]

pub mod message;
pub mod migrate;
pub mod policy;
pub mod read;
pub mod request;
pub mod sa;
pub mod view;
