//! How Linux's af_key reads requests and writes SAs and policies. Every key engine that behaves like af_key is built on
//! this.
//!
//! ```
//! use pfkey_model::{message::{self, Part}, sa::Sa, view::SaView};
//! use pfkey_wire::{Ends, Header, IpsecProtocol, Message, MessageType, Profile, SaType, Writer};
//!
//! let ends = Ends::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into()).unwrap();
//! let sa = Sa { reqid: 7, ..Sa::new(ends, 0x1000, IpsecProtocol::ESP, 1_700_000_000) };
//!
//! // As a message of a dump, …
//! let mut buffer = [0; 512];
//! let header = Header::new(MessageType::DUMP, SaType::ESP, 0, 4242);
//! let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
//! message::write_sa(&mut writer, &sa, Part::Whole);
//! let bytes = writer.finish().unwrap();
//!
//! // … and read from it, in place.
//! let view = SaView::of_message(&Message::parse(bytes, Profile::Linux).unwrap()).unwrap();
//! assert_eq!((view.id(), view.reqid), (sa.id(), 7));
//! ```
#![forbid(unsafe_code)]

pub mod attached;
pub mod judge;
pub mod label;
pub mod message;
pub mod migrate;
pub mod policy;
pub mod read;
pub mod request;
pub mod sa;
pub mod settings;
pub mod socket_policy;
pub mod template;
pub mod view;
pub mod xfrm;

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
