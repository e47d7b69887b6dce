//! libipsec (PF_KEYv2, RFC 2367) rebuilt in Rust.
//!
//! This package is the C ABI and what is libipsec's alone:
//!
//! | module | what it does |
//! |---|---|
//! | [`capi`] | the C ABI |
//! | [`request`] | what libipsec's calls ask for, typed, and as messages |
//!
//! All else are crates of their own (`docs/design.md` draws them), which are named here for the tests. A Rust program depends
//! on the crate `pfkey`, not on this one, whose functions are libipsec's.
//!
//! ```
//! use pfkey_rs::print::kdebug_sadb;
//! use pfkey_rs::request::HeaderRequest;
//! use pfkey_rs::wire::MessageType;
//!
//! // What pfkey_send_register sends, and as libipsec prints it.
//! let mut buffer = [0; 64];
//! let request = HeaderRequest { msg_type: MessageType::REGISTER, satype: 3 };
//! let len = request.write(4242, &mut buffer).unwrap();
//! let printed = kdebug_sadb(&buffer[..len]).text;
//! assert!(printed.starts_with(b"sadb_msg{ version=2 type=7 errno=0 satype=3\n"));
//! ```
#![deny(unsafe_code)]

pub mod capi;
pub mod request;

pub use pfkey::{batch, listing, policy_text as policy};
pub use pfkey_engine as engine;
pub use pfkey_hub as hub;
pub use pfkey_klips as klips;
pub use pfkey_model as model;
pub use pfkey_print::{self as print, align, error};
pub use pfkey_socket as socket;
pub use pfkey_wire as wire;
pub use pfkey_xfrm as xfrm;
