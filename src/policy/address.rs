//! Numeric addresses and ports as text: what `getaddrinfo` reads with `AI_NUMERICHOST`, and what `getnameinfo`
//! writes with `NI_NUMERICHOST | NI_NUMERICSERV`, both as glibc does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::wire::sockaddr::{AF_INET, AF_INET6, Sockaddr};

use super::priority::saturating_number;

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
    let parts: Vec<u64> = text.split('.').take(5).map(c_number).collect::<Option<_>>()?;
    let (&last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&n| n > 0xff) || last > 0xffff_ffff >> (8 * leading.len()) {
        return None;
    }
    let high = leading.iter().enumerate().fold(0, |n, (i, &byte)| n | byte << (24 - 8 * i));
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
    if is_link_local(address) {
        if let Ok(index) = nix::net::if_::if_nametoindex(scope) {
            return Some(index);
        }
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

/// The host part of a sockaddr: an address with its scope, `localhost` for `AF_UNIX`. `None` for other families
/// and for a sockaddr that is cut short.
#[must_use]
pub fn host_text(sockaddr: Sockaddr<'_>) -> Option<String> {
    sockaddr.exact()?;
    match (sockaddr.family(), sockaddr.ip()) {
        (AF_UNIX, _) => Some("localhost".to_owned()),
        (_, Some(IpAddr::V4(v4))) => Some(v4.to_string()),
        (_, Some(IpAddr::V6(v6))) => Some(ipv6_text(v6, sockaddr.scope_id())),
        _ => None,
    }
}

/// The service part of a sockaddr: the port's number, the path for `AF_UNIX`. `None` as for [`host_text`].
#[must_use]
pub fn service_text(sockaddr: Sockaddr<'_>) -> Option<String> {
    let bytes = sockaddr.exact()?;
    match sockaddr.family() {
        AF_INET | AF_INET6 => Some(sockaddr.port().to_string()),
        AF_UNIX => {
            let path = bytes.get(2..)?.split(|&b| b == 0).next()?;
            Some(String::from_utf8_lossy(path).into_owned())
        }
        _ => None,
    }
}

/// An IPv6 address as `inet_ntop` and `getnameinfo` write it: unlike Rust, IPv4-compatible addresses end in
/// dotted form; the scope is an interface's name where the address is link-local.
#[must_use]
pub fn ipv6_text(address: Ipv6Addr, scope_id: u32) -> String {
    let mut text = match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_string(),
    };
    if scope_id != 0 {
        // nix answers with an empty name where there is no such interface.
        let name = nix::net::if_::if_indextoname(scope_id).ok().filter(|name| !name.is_empty());
        text.push('%');
        match name {
            Some(name) if is_link_local(address) => text.push_str(&name.to_string_lossy()),
            _ => text.push_str(&scope_id.to_string()),
        }
    }
    text
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
            assert_eq!(ipv6_text(address.parse().unwrap(), 0), text);
        }
    }

    #[test]
    fn a_scope_is_a_name_only_where_it_is_one() {
        let link_local = "fe80::1".parse().unwrap();
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!(ipv6_text(global, 1), "2001:db8::1%1");
        // No interface has this number.
        assert_eq!(ipv6_text(link_local, u32::MAX), "fe80::1%4294967295");
        assert_eq!(ipv6_text(link_local, 1), "fe80::1%lo");
        assert_eq!(scope_number(link_local, "lo"), Some(1));
        assert_eq!(scope_number(global, "lo"), None);
        assert_eq!(scope_number(link_local, "4294967296"), None);
    }

    #[test]
    fn a_sockaddr_cut_short_has_no_text() {
        let full = SockaddrBytes::new("10.0.0.1".parse().unwrap(), 500);
        assert_eq!(host_text(Sockaddr(&full.as_bytes()[..15])), None);
        assert_eq!(host_text(full.as_sockaddr()).as_deref(), Some("10.0.0.1"));
        assert_eq!(service_text(full.as_sockaddr()).as_deref(), Some("500"));
    }
}
