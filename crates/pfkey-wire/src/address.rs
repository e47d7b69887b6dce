//! Addresses as SAs and policies have them: a prefix, and a pair of one family.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sockaddr::{AF_INET, AF_INET6};

/// Bits of an address of this family.
#[must_use]
pub const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `AF_INET` or `AF_INET6`.
#[must_use]
pub const fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// No address, of the family of another.
#[must_use]
pub const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Hashes an address as one number. `IpAddr`'s own hash writes three, which a table that grows pays for each SA.
#[inline]
pub fn hash_address(address: IpAddr, state: &mut impl Hasher) {
    state.write_u128(match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    });
}

/// `xfrm_address_t`: an IPv4 address stands in the first four bytes, the rest is zero.
#[must_use]
pub const fn to_xfrm(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// An `xfrm_address_t` of a family; `None` for any family but the two.
#[must_use]
pub const fn from_xfrm(bytes: &[u8; 16], family: u16) -> Option<IpAddr> {
    let [a, b, c, d, ..] = *bytes;
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(*bytes)))),
        _ => None,
    }
}

/// The same `xfrm_address_t` taken for one of another address's family, as the kernel takes it where it looks at one
/// family alone.
#[must_use]
pub fn in_family_of(address: IpAddr, other: IpAddr) -> IpAddr {
    from_xfrm(&to_xfrm(address), family(other)).unwrap_or(address)
}

/// An address and how many of its bits count. Host bits stay as they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Bits of it that count.
    pub len: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, len: width(address) }
    }

    /// Every address, written in the family of this one.
    #[must_use]
    pub const fn any(like: IpAddr) -> Self {
        Self { address: unspecified(like), len: 0 }
    }

    /// Whether an address is one of these (`addr_match`). Where no bits count, an address of the other family is, too.
    #[must_use]
    pub const fn covers(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                let mask = match self.len {
                    0 => 0,
                    1..=31 => u32::MAX << (32 - self.len),
                    _ => u32::MAX,
                };
                (prefix.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                let mask = match self.len {
                    0 => 0,
                    1..=127 => u128::MAX << (128 - self.len),
                    _ => u128::MAX,
                };
                (prefix.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => self.len == 0,
        }
    }
}

/// What is no prefix: an address, or an address, a slash and a number of bits that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: expected ADDRESS or ADDRESS/BITS")]
pub struct NoPrefix {
    text: String,
}

impl std::str::FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        let read = || {
            let address: IpAddr = address.parse().ok()?;
            let number = |len: &str| len.bytes().all(|byte| byte.is_ascii_digit()).then(|| len.parse().ok())?;
            let len = len.map_or(Some(width(address)), number)?;
            (len <= width(address)).then_some(Self { address, len })
        };
        read().ok_or_else(|| NoPrefix { text: text.to_owned() })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Two addresses of one family, between which an SA is, or a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    src: IpAddr,
    dst: IpAddr,
}

impl Hash for Ends {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.src, state);
        hash_address(self.dst, state);
    }
}

impl Ends {
    /// Both ends; `None` for addresses of two families.
    #[must_use]
    pub const fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        if src.is_ipv6() == dst.is_ipv6() { Some(Self { src, dst }) } else { None }
    }

    /// The way back.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }

    /// From anywhere to an address.
    #[must_use]
    pub const fn to(dst: IpAddr) -> Self {
        Self { src: unspecified(dst), dst }
    }

    /// Nowhere, in the family of an address.
    #[must_use]
    pub const fn unspecified(like: IpAddr) -> Self {
        Self::to(unspecified(like))
    }

    /// To an address, from one whose bytes are taken for one of that family: see [`in_family_of`].
    #[must_use]
    pub fn in_family_of_dst(src: IpAddr, dst: IpAddr) -> Self {
        Self { src: in_family_of(src, dst), dst }
    }

    /// The source.
    #[must_use]
    pub const fn src(&self) -> IpAddr {
        self.src
    }

    /// The destination.
    #[must_use]
    pub const fn dst(&self) -> IpAddr {
        self.dst
    }

    /// Whether both are IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.dst.is_ipv6()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
    }

    #[test]
    fn a_prefix_covers_what_begins_with_its_bits() {
        for (text, address, covered) in [
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.1.2.3/8", "11.1.2.3", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("10.1.2.3/31", "10.1.2.2", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1/128", "::1", true),
            ("::1/128", "::", false),
            ("0.0.0.0/0", "2001:db8::1", true),
            ("32.1.13.184/8", "2001:db8::1", false),
        ] {
            assert_eq!(prefix(text).covers(address.parse().unwrap()), covered, "{text} {address}");
        }
    }

    #[test]
    fn what_is_no_prefix() {
        let text = |text: &str| text.parse::<Prefix>().map(|prefix| prefix.to_string()).ok();
        assert_eq!(text("10.0.0.1").as_deref(), Some("10.0.0.1/32"));
        assert_eq!(text("2001:db8::/0").as_deref(), Some("2001:db8::/0"));
        for wrong in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ends_are_of_one_family() {
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap());
        assert!(Ends::new(v4, v6).is_none() && Ends::new(v6, v4).is_none());
        assert_eq!(Ends::in_family_of_dst(v6, v4).src(), IpAddr::from([0x20, 1, 0xd, 0xb8]));
        assert_eq!(Ends::in_family_of_dst(v4, v6).src(), "a00:1::".parse::<IpAddr>().unwrap());
    }
}
