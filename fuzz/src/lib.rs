//! What the fuzz targets share: how bytes become messages.
#![forbid(unsafe_code)]

// The messages of the random scenarios: here the fuzzer's bytes are the random numbers. Tests share
// these files by path: they are of no crate, and one made for them would be one more to keep out of what is published.
#[path = "../../tests/scenarios/build.rs"]
#[allow(dead_code, missing_docs)]
mod build;
#[path = "../../tests/scenarios/message.rs"]
#[allow(dead_code, missing_docs)]
mod message;
pub mod splitmix;

use pfkey_rs::wire::{Message, Profile, WireError};
use splitmix::Random;

/// A message that a client may send: most are whole or nearly so, some are any bytes.
pub fn drawn_message(r: &mut Random<'_>) -> Vec<u8> {
    match r.below(16) {
        0 => {
            let len = r.below(300);
            r.take(len).to_vec()
        }
        // Any bytes behind a header that is right.
        1..=3 => {
            let len = r.below(64) * 8;
            with_length([&[2, r.below(27) as u8, 0, r.below(12) as u8, 0, 0, 0, 0], r.take(len)].concat())
        }
        n => {
            let kernel = message::Kernel { old: false, xfrm: false, slow_register: false };
            let mut bytes = message::message(r, kernel).bytes();
            if n == 4 {
                for _ in 0..1 + r.below(4) {
                    let at = r.below(bytes.len());
                    bytes[at] = r.byte();
                }
            }
            if n == 5 {
                let len = r.below(bytes.len());
                bytes.truncate(len);
            }
            bytes
        }
    }
}

/// The same bytes as a whole message: padded, and with its length in the header.
pub fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(8).max(16), 0);
    let len = u16::try_from(bytes.len() / 8).unwrap_or(u16::MAX);
    bytes[4..6].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// Reads what a session was told. af_key says in the reserved field of its answers how often a policy is referred to, and
/// takes no request with such a field.
///
/// # Errors
/// It is no message of the dialect.
pub fn told(bytes: &mut [u8], profile: Profile) -> Result<Message<'_>, WireError> {
    if let [_, 13..=22, _, _, _, _, reserved @ ..] = bytes {
        reserved.iter_mut().take(2).for_each(|byte| *byte = 0);
    }
    Message::parse(bytes, profile)
}
