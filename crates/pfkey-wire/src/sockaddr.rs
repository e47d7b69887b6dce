//! `struct sockaddr_in` and `struct sockaddr_in6` as they stand in a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `AF_INET` on Linux.
pub const AF_INET: u16 = 2;
/// `AF_INET6` on Linux.
pub const AF_INET6: u16 = 10;
/// Bytes of `struct sockaddr_in`.
pub const SOCKADDR_IN_LEN: usize = 16;
/// Bytes of `struct sockaddr_in6`.
pub const SOCKADDR_IN6_LEN: usize = 28;

/// Bytes that a sockaddr of this family takes: 16 or 28, and 16 for any other family (libipsec's
/// `sysdep_sa_len` on Linux).
#[must_use]
pub const fn sockaddr_len(family: u16) -> usize {
    match family {
        AF_INET6 => SOCKADDR_IN6_LEN,
        _ => SOCKADDR_IN_LEN,
    }
}

/// A sockaddr of a message, borrowed: its bytes verbatim, of whatever family, perhaps too few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockaddr<'a>(pub &'a [u8]);

impl<'a> Sockaddr<'a> {
    /// The address family, 0 when there are not even two bytes.
    #[must_use]
    pub fn family(self) -> u16 {
        match self.0 {
            [a, b, ..] => u16::from_ne_bytes([*a, *b]),
            _ => 0,
        }
    }

    /// The port in host byte order, 0 where it is missing. Bytes 2 and 3 in both families.
    #[must_use]
    pub fn port(self) -> u16 {
        match self.0 {
            [_, _, a, b, ..] => u16::from_be_bytes([*a, *b]),
            _ => 0,
        }
    }

    /// The IP address; `None` for another family or too few bytes.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self.family() {
            AF_INET => {
                let octets: [u8; 4] = self.0.get(4..8)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(octets)))
            }
            AF_INET6 => {
                let octets: [u8; 16] = self.0.get(8..24)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            }
            _ => None,
        }
    }

    /// The scope id of an IPv6 address, 0 otherwise.
    #[must_use]
    pub fn scope_id(self) -> u32 {
        match (self.family(), self.0.get(24..28)) {
            (AF_INET6, Some(b)) => u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            _ => 0,
        }
    }

    /// The bytes that belong to the sockaddr by its family, without padding; `None` when they are not all there.
    #[must_use]
    pub fn exact(self) -> Option<&'a [u8]> {
        self.0.get(..sockaddr_len(self.family()))
    }
}

/// A sockaddr built from an address and a port: owned bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SockaddrBytes {
    bytes: [u8; SOCKADDR_IN6_LEN],
    len: u8,
}

impl SockaddrBytes {
    /// `ip` with `port` (host byte order); flow label and scope 0.
    #[must_use]
    pub fn new(ip: IpAddr, port: u16) -> Self {
        let mut bytes = [0; SOCKADDR_IN6_LEN];
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        let len = match ip {
            IpAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.octets());
                SOCKADDR_IN_LEN
            }
            IpAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.octets());
                SOCKADDR_IN6_LEN
            }
        };
        Self { bytes, len: len as u8 }
    }

    /// The same with a scope id, which only IPv6 has.
    #[must_use]
    pub fn with_scope_id(mut self, scope_id: u32) -> Self {
        if usize::from(self.len) == SOCKADDR_IN6_LEN {
            self.bytes[24..28].copy_from_slice(&scope_id.to_ne_bytes());
        }
        self
    }

    /// The bytes, 16 or 28 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The same as a borrowed view.
    #[must_use]
    pub fn as_sockaddr(&self) -> Sockaddr<'_> {
        Sockaddr(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_bytes_give_no_address() {
        let full = SockaddrBytes::new("2001:db8::1".parse().unwrap(), 500);
        for n in 0..full.as_bytes().len() {
            let cut = Sockaddr(&full.as_bytes()[..n]);
            assert_eq!(cut.exact(), None);
            assert_eq!(cut.ip().is_some(), n >= 24);
        }
        assert_eq!(full.as_sockaddr().port(), 500);
    }
}
