//! Serving PF_KEY sockets from a key engine: the epoll server, and what it gives one client.
#![forbid(unsafe_code)]

mod connection;
pub mod keeper;
pub mod limits;
pub mod log;
pub mod server;
mod stage;

pub use pfkey_hub::*;
