//! A PF_KEYv2 client: SAs and policies, typed, and what the kernel asks of a key manager.
//!
//! [`Client`] sends requests and waits for their answers. [`KeyManager`] is a client that the kernel asks for SAs. Both work
//! over the kernel's AF_KEY, or, where it has none, over XFRM through a `pfkeyd` process that [`Client::open`] starts; a key
//! engine in userspace serves tests and data planes of their own ([`Backend`]). Everything is synchronous, without threads
//! and without a runtime; [`Calls`] is the same without I/O, for programs that have their own.
//!
//! ```no_run
//! use pfkey::{Cipher, Client, Hmac, Sa, SaType};
//!
//! let mut keys = Client::open()?;
//! let (src, dst) = ([192, 0, 2, 1], [192, 0, 2, 2]);
//! let sa = Sa::esp(src, dst, 0x1000).tunnel().reqid(7).encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32]);
//! keys.add(&sa)?;
//! for sa in keys.dump(SaType::ESP)? {
//!     println!("{}", sa?);
//! }
//! # Ok::<(), pfkey::Error>(())
//! ```
//!
//! Keys are wiped when dropped and shown by no `Debug` or `Display`.
#![forbid(unsafe_code)]

mod algorithm;
pub mod batch;
mod calls;
mod client;
mod dump;
mod error;
mod event;
mod key_manager;
pub mod listing;
mod policy;
pub mod policy_text;
mod received;
mod request;
mod sa;
mod transport;

use pfkey_model as model;
use pfkey_socket as socket;
pub use pfkey_wire as wire;
use pfkey_xfrm as xfrm;

pub use algorithm::{Cipher, Compression, Hmac};
pub use batch::{Batch, Outcomes};
pub use calls::{Call, Calls, Reply};
pub use client::Client;
pub use dump::{Policies, Sas};
pub use error::{Error, Invalid};
pub use event::{Acquire, Algorithms, Bytes, Event, Mapping, Offer};
pub use key_manager::KeyManager;
pub use model::migrate::{Migration, Move};
pub use model::policy::Policy as PolicyInfo;
pub use model::sa::{Limits, Sa as SaInfo, SaId, Selector, State, Usage};
pub use model::xfrm::{OffloadDevice, Xfrm};
pub use policy::{Policy, Rule};
pub use received::Received;
pub use request::{Request, SpiRange};
pub use sa::Sa;
pub use socket::{Backend, OpenError};
pub use wire::{Ends, Errno, IpsecProtocol, Message, MessageType, Mode, PolicyDirection as Direction, Prefix, SaType};
