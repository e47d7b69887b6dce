//! SAs and policies as the operator knows them: from messages, to messages, and in setkey's words.

pub mod attached;
pub mod names;
pub mod policy;
pub mod sa;
pub mod xfrm;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use pfkey::policy_text::address::{host_text, ipv6_text};
use pfkey_wire::{Sockaddr, SockaddrBytes};

use crate::output::Value;

/// Bytes of a sockaddr.
pub fn sockaddr(address: SocketAddr) -> SockaddrBytes {
    let bytes = SockaddrBytes::new(address.ip(), address.port());
    match address {
        SocketAddr::V4(_) => bytes,
        SocketAddr::V6(v6) => bytes.with_scope_id(v6.scope_id()),
    }
}

/// The address and port of a sockaddr.
pub fn socket_addr(sockaddr: Sockaddr<'_>) -> Option<SocketAddr> {
    Some(match sockaddr.ip()? {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), sockaddr.port()),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, sockaddr.port(), 0, sockaddr.scope_id()).into(),
    })
}

/// The address without its port.
pub fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => ipv6_text(*v6.ip(), v6.scope_id()).to_string(),
    }
}

/// The address, and `[port]` where there is one.
pub fn host_port(address: SocketAddr) -> String {
    match address.port() {
        0 => host(address),
        port => format!("{}[{port}]", host(address)),
    }
}

/// Ports for programs; people read them behind their addresses.
pub fn ports(source: u16, destination: u16) -> impl Iterator<Item = (&'static str, Value)> {
    let ports = [("source_port", source), ("destination_port", destination)];
    let there = ports.into_iter().filter(|(_, port)| *port != 0);
    there.map(|(name, port)| (name, Value::Unsaid(Box::new(Value::Number(port.into())))))
}

/// Bits of an address of this family.
pub const fn width(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A sockaddr for people, also one that is no IP address.
pub fn any_host(sockaddr: Sockaddr<'_>) -> String {
    host_text(sockaddr).map_or_else(|| format!("(family {})", sockaddr.family()), |host| host.to_string())
}

/// A Unix time as `YYYY-MM-DDTHH:MM:SSZ`.
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in cycles of 400 years of 146097 days, with the leap day last in its year.
    let day = days.min(1 << 40) + 719_468;
    let (cycle, of_cycle) = (day / 146_097, day % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12 + 1;
    let year = cycle * 400 + year + u64::from(month <= 2);
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times() {
        // Expected: date -u -d @N +%FT%TZ.
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_003_600, "2023-11-14T23:13:20Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(super::utc(time), text);
        }
    }
}
