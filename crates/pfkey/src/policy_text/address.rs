//! Numeric addresses and ports as text: what `getaddrinfo` reads with `AI_NUMERICHOST`, and what `getnameinfo`
//! writes with `NI_NUMERICHOST | NI_NUMERICSERV`, both as glibc does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::wire::sockaddr::{AF_INET, AF_INET6, Sockaddr};

use super::priority::saturating_number;
use crate::socket::{INTERFACE_NAME, interface_name};

/// `AF_UNIX`, which `getnameinfo` knows too.
const AF_UNIX: u16 = 1;

/// Why there is no address. The texts are `gai_strerror`'s, which `ipsec_strerror` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `EAI_NONAME`.
    #[error("Name or service not known")]
    NoName,
    /// `EAI_SERVICE`.
    #[error("Servname not supported for ai_socktype")]
    NoService,
}

impl AddressError {
    /// `gai_strerror`'s text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoName => "Name or service not known",
            Self::NoService => "Servname not supported for ai_socktype",
        }
    }
}

/// Reads an address in any of `inet_aton`'s forms or in IPv6 notation with or without a scope, and a decimal
/// port, which is taken modulo 65536.
///
/// # Errors
/// [`AddressError`]; a port that is wrong is found first.
pub fn resolve(host: &str, port: Option<&str>) -> Result<SocketAddr, AddressError> {
    let port = match port {
        Some(digits) => port_number(digits).ok_or(AddressError::NoService)?,
        None => 0,
    };
    if let Some(v4) = inet_aton(host) {
        return Ok(SocketAddr::new(IpAddr::V4(v4), port));
    }
    let (address, scope) = match host.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (host, None),
    };
    let v6: Ipv6Addr = address.parse().map_err(|_| AddressError::NoName)?;
    let scope_id = match scope {
        Some(scope) => scope_number(v6, scope).ok_or(AddressError::NoName)?,
        None => 0,
    };
    Ok(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope_id)))
}

/// glibc keeps the port in an `int` and takes a negative one for a service's name.
fn port_number(digits: &str) -> Option<u16> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // strtoul saturates at ULONG_MAX, of which the low half is -1.
    let number: u64 = digits.parse().unwrap_or(u64::MAX);
    let low = number as u32;
    (low <= i32::MAX as u32).then_some(low as u16)
}

/// `inet_aton` without trailing text: one to four numbers, decimal, octal after `0`, hexadecimal after `0x`;
/// the last one fills the bytes that are left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let (leading, last) = match text.rsplit_once('.') {
        Some((leading, last)) => (Some(leading), last),
        None => (None, text),
    };
    let (mut high, mut bits) = (0, 32);
    for part in leading.iter().flat_map(|leading| leading.split('.')) {
        let byte = c_number(part).filter(|&n| n <= 0xff)?;
        // Not more than three.
        bits = if bits > 8 { bits - 8 } else { return None };
        high |= byte << bits;
    }
    let last = c_number(last).filter(|&n| n >> bits == 0)?;
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

/// A C number without sign, at most 32 bits wide.
fn c_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().filter(|&n| n <= 0xffff_ffff)
}

/// A scope: an interface's name where the address is link-local, otherwise (or also) a decimal number.
fn scope_number(address: Ipv6Addr, scope: &str) -> Option<u32> {
    // No interface has a longer name, and nix would allocate for it.
    let may_name = is_link_local(address) && scope.len() < INTERFACE_NAME;
    let index = if may_name { nix::net::if_::if_nametoindex(scope).ok() } else { None };
    if index.is_some() {
        return index;
    }
    if scope.is_empty() || !scope.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    u32::try_from(saturating_number(scope.as_bytes())).ok()
}

/// `fe80::/10`, and multicast of link-local scope.
fn is_link_local(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    first & 0xffc0 == 0xfe80 || first & 0xff0f == 0xff02
}

/// Bytes as text; those that are no UTF-8 are replaced.
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

/// The host part of a sockaddr as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostText {
    /// `localhost`.
    Local,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address with its scope.
    V6(Ipv6Text),
}

impl fmt::Display for HostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("localhost"),
            Self::V4(v4) => v4.fmt(f),
            Self::V6(v6) => v6.fmt(f),
        }
    }
}

/// The host part of a sockaddr: an address with its scope, `localhost` for `AF_UNIX`. `None` for other families
/// and for a sockaddr that is cut short.
#[must_use]
pub fn host_text(sockaddr: Sockaddr<'_>) -> Option<HostText> {
    sockaddr.exact()?;
    match (sockaddr.family(), sockaddr.ip()) {
        (AF_UNIX, _) => Some(HostText::Local),
        (_, Some(IpAddr::V4(v4))) => Some(HostText::V4(v4)),
        (_, Some(IpAddr::V6(v6))) => Some(HostText::V6(ipv6_text(v6, sockaddr.scope_id()))),
        _ => None,
    }
}

/// The service part of a sockaddr as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceText<'a> {
    /// A port.
    Port(u16),
    /// A path.
    Path(&'a [u8]),
}

impl fmt::Display for ServiceText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Path(path) => Lossy(path).fmt(f),
        }
    }
}

/// The service part of a sockaddr: the port's number, the path for `AF_UNIX`. `None` as for [`host_text`].
#[must_use]
pub fn service_text(sockaddr: Sockaddr<'_>) -> Option<ServiceText<'_>> {
    let bytes = sockaddr.exact()?;
    match sockaddr.family() {
        AF_INET | AF_INET6 => Some(ServiceText::Port(sockaddr.port())),
        AF_UNIX => bytes.get(2..)?.split(|&b| b == 0).next().map(ServiceText::Path),
        _ => None,
    }
}

/// An IPv6 address with its scope as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Text {
    address: Ipv6Addr,
    scope_id: u32,
}

/// An IPv6 address as `inet_ntop` and `getnameinfo` write it: unlike Rust, IPv4-compatible addresses end in
/// dotted form; the scope is an interface's name where the address is link-local.
#[must_use]
pub const fn ipv6_text(address: Ipv6Addr, scope_id: u32) -> Ipv6Text {
    Ipv6Text { address, scope_id }
}

impl fmt::Display for Ipv6Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.segments() {
            [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                write!(f, "::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))?;
            }
            _ => write!(f, "{}", self.address)?,
        }
        if self.scope_id == 0 {
            return Ok(());
        }
        let mut buffer = [0; INTERFACE_NAME];
        let name = if is_link_local(self.address) { interface_name(self.scope_id, &mut buffer) } else { None };
        match name {
            Some(name) => write!(f, "%{}", Lossy(name)),
            None => write!(f, "%{}", self.scope_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SockaddrBytes;

    #[test]
    fn inet_aton_takes_its_four_forms_and_three_radixes() {
        for (text, address) in [
            ("1.2.3.4", [1, 2, 3, 4]),
            ("10.1.1", [10, 1, 0, 1]),
            ("10.65535", [10, 0, 255, 255]),
            ("0x0a010102", [10, 1, 1, 2]),
            ("010.010.010.010", [8, 8, 8, 8]),
            ("0xff.0Xff.255.0377", [255; 4]),
            ("0.0.0.0", [0; 4]),
        ] {
            assert_eq!(inet_aton(text), Some(Ipv4Addr::from(address)), "{text}");
        }
        for text in ["", ".", "1.", ".1", "1.2.3.4.5", "256.1.1.1", "1.2.65536", "08", "0x", "1a", "4294967296"] {
            assert_eq!(inet_aton(text), None, "{text}");
        }
    }

    #[test]
    fn ipv4_compatible_addresses_end_in_dotted_form() {
        // glibc's inet_ntop, checked by hand against getnameinfo.
        for (address, text) in [
            ("::1:2", "::0.1.0.2"),
            ("::102:304", "::1.2.3.4"),
            ("::ffff:102:304", "::ffff:1.2.3.4"),
            ("::1", "::1"),
            ("::", "::"),
            ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        ] {
            assert_eq!(ipv6_text(address.parse().unwrap(), 0).to_string(), text);
        }
    }

    #[test]
    fn a_scope_is_a_name_only_where_it_is_one() {
        let link_local = "fe80::1".parse().unwrap();
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!(ipv6_text(global, 1).to_string(), "2001:db8::1%1");
        // No interface has this number.
        assert_eq!(ipv6_text(link_local, u32::MAX).to_string(), "fe80::1%4294967295");
        assert_eq!(ipv6_text(link_local, 1).to_string(), "fe80::1%lo");
        assert_eq!(scope_number(link_local, "lo"), Some(1));
        assert_eq!(scope_number(global, "lo"), None);
        assert_eq!(scope_number(link_local, "4294967296"), None);
    }

    #[test]
    fn a_sockaddr_cut_short_has_no_text() {
        let full = SockaddrBytes::new("10.0.0.1".parse().unwrap(), 500);
        assert_eq!(host_text(Sockaddr(&full.as_bytes()[..15])), None);
        assert_eq!(host_text(full.as_sockaddr()).map(|text| text.to_string()).as_deref(), Some("10.0.0.1"));
        assert_eq!(service_text(full.as_sockaddr()), Some(ServiceText::Port(500)));
    }
}
