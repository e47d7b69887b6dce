//! XFRM's attributes, flags and options in words: `NAME=VALUE`, and names alone. Nothing is allocated.

use zerocopy::IntoBytes;

use super::{
    FLAG_ESN, FLAG_POLICY_CPU_ACQUIRE, FLAG_WILDRECV, Layout, MODE_IPTFS, Mark, OPTION_PROPOSE, Offload,
    POLICY_TYPE_SUB, ReplayEsn, Truncation,
};

/// `XFRM_STATE_*` that `sadb_sa_flags` lacks.
pub const SA_FLAGS: &[(&str, u8)] =
    &[("wildrecv", FLAG_WILDRECV), ("icmp", 16), ("af-unspec", 32), ("align4", 64), ("esn", FLAG_ESN)];
/// `XFRM_POLICY_*`.
pub const POLICY_FLAGS: &[(&str, u8)] = &[("localok", 1), ("icmp", 2), ("cpu-acquire", FLAG_POLICY_CPU_ACQUIRE)];
/// Options of the extension.
pub const OPTIONS: &[(&str, u8)] = &[("propose", OPTION_PROPOSE)];
/// `XFRM_OFFLOAD_IPV6`, `_INBOUND`, `_PACKET`.
pub const OFFLOAD_FLAGS: &[(&str, u8)] = &[("ipv6", 1), ("in", OFFLOAD_INBOUND), ("packet", OFFLOAD_PACKET)];
/// `XFRM_OFFLOAD_INBOUND`.
pub const OFFLOAD_INBOUND: u8 = 2;
/// `XFRM_OFFLOAD_PACKET`.
pub const OFFLOAD_PACKET: u8 = 4;

/// The bit of a name.
#[must_use]
pub fn bit_of(names: &[(&str, u8)], name: &str) -> Option<u8> {
    names.iter().find(|(other, _)| *other == name).map(|(_, bit)| *bit)
}

/// What an attribute holds: the largest is a replay window with its bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Payload {
    /// Bytes at most.
    pub const MAX: usize = size_of::<ReplayEsn>() + ReplayEsn::MAX_WORDS as usize * 4;

    /// These, and zeros up to a length; `None` if there are too many.
    #[must_use]
    pub fn padded(head: &[u8], len: usize) -> Option<Self> {
        let mut payload = Self { bytes: [0; Self::MAX], len };
        payload.bytes.get(..len)?;
        payload.bytes.get_mut(..head.len())?.copy_from_slice(head);
        Some(payload)
    }

    /// These; `None` if there are too many.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Self::padded(bytes, bytes.len())
    }

    /// A replay window of so many packets; `None` if it is too wide.
    #[must_use]
    pub fn of_window(packets: u32) -> Option<Self> {
        let esn = ReplayEsn::of_window(packets);
        let bitmap = (esn.words.get() as usize).checked_mul(4)?;
        Self::padded(esn.as_bytes(), size_of::<ReplayEsn>() + bitmap)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A number, decimal or behind `0x`, up to `max`.
#[must_use]
pub fn parse_number(text: &str, max: u64) -> Option<u64> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()?,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        _ => return None,
    };
    (number <= max).then_some(number)
}

/// A number of 32 bits, decimal or behind `0x`.
#[must_use]
pub fn parse_u32(text: &str) -> Option<u32> {
    parse_number(text, u32::MAX.into()).and_then(|number| u32::try_from(number).ok())
}

/// `0x` and an even number of digits.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Payload> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let mut payload = Payload::padded(&[], digits.len() / 2).filter(|_| digits.len() % 2 == 0)?;
    for (byte, pair) in payload.bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(payload)
}

/// The payload of a value; `None` for one that the layout has not. `interface` knows the numbers of network interfaces.
pub fn parse_value(layout: Layout, text: &str, interface: impl FnOnce(&str) -> Option<u32>) -> Option<Payload> {
    match layout {
        Layout::Flag | Layout::Replay => None,
        Layout::Direction => Payload::of(&[["in", "out"].iter().position(|word| *word == text)? as u8 + 1]),
        Layout::U16 => Payload::of(&u16::try_from(parse_number(text, u16::MAX.into())?).ok()?.to_ne_bytes()),
        Layout::U32 | Layout::Hex => Payload::of(&parse_u32(text)?.to_ne_bytes()),
        Layout::Time => Payload::of(&parse_number(text, u64::MAX)?.to_ne_bytes()),
        Layout::Mark => {
            let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
            Payload::of(Mark { value: parse_u32(value)?, mask: parse_u32(mask)? }.as_bytes())
        }
        Layout::ReplayEsn => Payload::of_window(parse_number(text, u64::from(ReplayEsn::MAX_WORDS) * 32)? as u32),
        Layout::Offload => {
            let mut parts = text.split('/');
            let ifindex = interface(parts.next()?)?;
            let mut flags = 0;
            for part in parts {
                flags |= match part.strip_prefix("flags=") {
                    Some(rest) => parse_number(rest, 255)? as u8,
                    None => bit_of(OFFLOAD_FLAGS, part)?,
                };
            }
            Payload::of(Offload { ifindex: ifindex.into(), flags, ..Offload::default() }.as_bytes())
        }
        Layout::PolicyType => Payload::of(match text {
            "main" => &[0; 6],
            "sub" => &POLICY_TYPE_SUB,
            _ => return None,
        }),
        Layout::Interface => Payload::of(&interface(text)?.to_ne_bytes()),
        Layout::Mode => (text == "iptfs").then(|| Payload::of(&[MODE_IPTFS]))?,
        Layout::Address => Payload::of(&crate::address::to_xfrm(text.parse().ok()?)),
        Layout::Truncation => {
            let icv_bits = parse_u32(text)?.into();
            Payload::of(Truncation { icv_bits, ..Truncation::default() }.as_bytes())
        }
    }
}
