//! Serving PF_KEY sockets from a key engine: the epoll server, and what it gives one client.
//!
//! The daemon itself is the program of the same name; the server is a library so that tests can put a hub of their own behind
//! it.
//!
//! ```
//! use std::os::fd::AsRawFd as _;
//!
//! use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
//! use pfkey_engine::{Engine, LINUX};
//! use pfkey_hub::Hub;
//! use pfkey_wire::{Header, MessageType, SaType};
//! use pfkeyd::server::Server;
//! use zerocopy::IntoBytes as _;
//!
//! let (client, served) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
//! let server = std::thread::spawn(move || {
//!     let mut server = Server::new(Hub::new(Engine::new(&LINUX)))?;
//!     server.add(served)?;
//!     server.run() // until the client has gone
//! });
//!
//! let request = Header::new(MessageType::REGISTER, SaType::ESP, 1, 4242).to_layout();
//! send(client.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
//! let mut answer = [0; 4096];
//! let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty())?;
//! assert_eq!(Header::read(&answer[..len]).unwrap().errno, 0);
//!
//! drop(client);
//! server.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod connection;
pub mod keeper;
pub mod limits;
pub mod log;
pub mod machine;
mod outgoing;
pub mod server;
mod sources;

use pfkey_hub::{Service, SessionId, SessionState, Sink, Time};

pub use sources::Sources;
