//! Serving PF_KEY sockets from a key engine: the epoll server, and what it gives one client.
//!
//! The daemon itself is the program of the same name; the server is a library so that tests can put a hub of their own behind
//! it.
#![forbid(unsafe_code)]

mod connection;
pub mod keeper;
pub mod limits;
pub mod log;
pub mod server;
mod sources;
mod stage;

use pfkey_hub::{Service, SessionId, SessionState, Sink, Time};
use pfkey_socket as socket;
use pfkey_wire as wire;

pub use sources::Sources;
