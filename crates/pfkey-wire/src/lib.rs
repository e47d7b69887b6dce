//! PF_KEYv2 as bytes (RFC 2367, `linux/pfkeyv2.h`): no I/O, no allocation, no `unsafe`.
//!
//! [`Message`] is a validated, borrowed view of a received message: any byte string is either a view or a
//! [`WireError`] that names the offset and the rule, never a panic; the checks are the kernel's.
//! [`Writer`] builds a message in the caller's buffer.
//!
//! Byte order: every field is in host order, except the SPI of an SA extension, the NAT-T ports, and everything
//! inside a `sockaddr`.
//!
//! ```
//! use pfkey_wire::{ExtensionType, Header, Message, MessageType, Profile, SaType, SockaddrBytes, Writer};
//!
//! let address = |last| SockaddrBytes::new([192, 0, 2, last].into(), 0);
//! let mut buffer = [0; 256];
//! let header = Header::new(MessageType::GETSPI, SaType::ESP, 1, 4242);
//! let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
//! writer.address(ExtensionType::ADDRESS_SRC, 0, 32, address(1).as_bytes());
//! writer.address(ExtensionType::ADDRESS_DST, 0, 32, address(2).as_bytes());
//! writer.spirange(0x1000, 0x1fff);
//! let bytes = writer.finish().unwrap();
//!
//! let message = Message::parse(bytes, Profile::Linux).unwrap();
//! let (_, dst) = message.address(ExtensionType::ADDRESS_DST).unwrap();
//! assert_eq!(dst.ip(), Some([192, 0, 2, 2].into()));
//!
//! // What is cut short is no message, and the error says where.
//! let error = Message::parse(&bytes[..bytes.len() - 8], Profile::Linux).unwrap_err();
//! println!("{error}");
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod algorithm;
mod errno;
mod error;
pub mod extension;
pub mod extras;
mod header;
pub mod hello;
mod ipsecrequest;
pub mod layout;
mod message;
pub mod message_type;
pub mod number;
mod profile;
pub mod sockaddr;
mod writer;
pub mod xfrm;

pub use address::{Ends, Prefix};
pub use algorithm::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm};
pub use errno::Errno;
pub use error::{Rule, WireError};
pub use extension::ExtensionType;
pub use extras::Extras;
pub use header::Header;
pub use ipsecrequest::Requests;
pub use message::{Extension, Message, extensions};
pub use message_type::MessageType;
pub use number::{
    IdentityType, IpsecProtocol, Mode, PolicyDirection, PolicyLevel, PolicyType, SaFlags, SaState, SaType,
};
pub use profile::Profile;
pub use sockaddr::{Sockaddr, SockaddrBytes};
pub use writer::Writer;

/// The version every message carries (`PF_KEY_V2`).
pub const PF_KEY_V2: u8 = 2;
/// Bytes of the base header, and the smallest message.
pub const HEADER_LEN: usize = 16;
/// The largest message that the 16-bit length field can express, in bytes.
pub const MAX_MESSAGE_LEN: usize = 65535 * 8;

/// The head of a batch: several messages in one datagram, which this library sends to a pfkeyd. No PF_KEY message of any
/// version begins with these bytes, so that no other program sends a batch by accident.
pub const BATCH: [u8; HEADER_LEN] = *b"\0several\xd7\x1c\x8e\x3b\xf4\x60\xa9\x95";

/// The messages of a batch, behind its head. Ends where a length does not fit.
pub fn split_batch(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = usize::from(Header::read(bytes)?.len) * 8;
        let (message, rest) = bytes.split_at_checked(len).filter(|_| len >= HEADER_LEN)?;
        bytes = rest;
        Some(message)
    })
}

/// Rounds a length up to the next multiple of 8 (`PFKEY_ALIGN8`, but without its overflow).
#[must_use]
pub const fn round8(n: usize) -> usize {
    n.saturating_add(7) & !7
}

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
