//! The requests of a policy as the kernel reads them (`parse_ipsecrequests`): what `sadb_x_ipsecrequest`s ask of SAs,
//! in the SPD and in a socket's own policy.
#![forbid(unsafe_code)]

use nix::errno::Errno;
use zerocopy::FromBytes;

use crate::wire::layout::SadbXIpsecrequest;
use crate::wire::{PolicyDirection, PolicyLevel, PolicyMode, Sockaddr};

/// An IPv4 address stands in the first four bytes, the rest zero (`xfrm_address_t`).
pub type Address = [u8; 16];
/// `XFRM_MAX_DEPTH`.
pub const MAX_TEMPLATES: usize = 6;
/// `IPSEC_MANUAL_REQID_MAX`.
pub const MANUAL_REQID_MAX: u32 = 0x3fff;

/// What a policy asks of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// 50, 51 or 108.
    pub proto: u8,
    /// `sadb_x_ipsecrequest_mode`.
    pub mode: u8,
    /// Level "use".
    pub optional: bool,
    /// Request id, 0 = any.
    pub reqid: u32,
    /// Family of the addresses.
    pub v6: bool,
    /// Tunnel source.
    pub saddr: Address,
    /// Tunnel destination.
    pub daddr: Address,
}

/// An address of either family as 16 bytes, and whether it is IPv6.
#[must_use]
pub fn address(sockaddr: Sockaddr<'_>) -> Option<(bool, Address)> {
    let mut bytes = [0; 16];
    match sockaddr.ip()? {
        std::net::IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            Some((false, bytes))
        }
        std::net::IpAddr::V6(v6) => Some((true, v6.octets())),
    }
}

/// Two sockaddrs of one family back to back (`parse_sockaddr_pair`).
pub fn address_pair(bytes: &[u8]) -> Result<(bool, Address, Address), Errno> {
    let first = Sockaddr(bytes);
    let (v6, src) = address(first).ok_or(Errno::EINVAL)?;
    let len = if v6 { 28 } else { 16 };
    // Both together are padded to 8 bytes, which 32 and 56 already are.
    if bytes.len() < 2 * len {
        return Err(Errno::EINVAL);
    }
    let second = Sockaddr(bytes.get(len..).unwrap_or_default());
    let (second_v6, dst) = address(second).ok_or(Errno::EINVAL)?;
    if v6 == second_v6 { Ok((v6, src, dst)) } else { Err(Errno::EINVAL) }
}

/// Reads the requests of a policy of type IPSEC (`parse_ipsecrequests`). `new_reqid` gives a number of its own to
/// a request of level unique without one.
pub fn parse_requests(
    mut bytes: &[u8],
    dir: u8,
    v6: bool,
    mut new_reqid: impl FnMut() -> Option<u32>,
) -> Result<Vec<Template>, Errno> {
    let mut templates = Vec::new();
    while let Ok((request, _)) = SadbXIpsecrequest::read_from_prefix(bytes) {
        let len = usize::from(request.len.get());
        if len < 16 {
            return Err(Errno::EINVAL);
        }
        let body = bytes.get(16..len).ok_or(Errno::EINVAL)?;
        if templates.len() >= MAX_TEMPLATES {
            return Err(Errno::ELOOP);
        }
        templates.push(parse_request(&request, body, dir, v6, &mut new_reqid)?);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(templates)
}

fn parse_request(
    request: &SadbXIpsecrequest,
    body: &[u8],
    dir: u8,
    v6: bool,
    new_reqid: &mut impl FnMut() -> Option<u32>,
) -> Result<Template, Errno> {
    if request.mode == 0 {
        return Err(Errno::EINVAL);
    }
    // The kernel looks at the low byte only. 43 and 60 are IPv6's routing and destination options headers.
    let proto = request.proto.get() as u8;
    if !matches!(proto, 43 | 50 | 51 | 60 | 108) {
        return Err(Errno::EINVAL);
    }
    let mode = PolicyMode(request.mode);
    if mode.0 > PolicyMode::BEET.0 {
        return Err(Errno::EINVAL);
    }
    let mut template =
        Template { proto, mode: request.mode, optional: false, reqid: 0, v6, saddr: [0; 16], daddr: [0; 16] };
    match PolicyLevel(request.level) {
        PolicyLevel::USE => {
            if mode != PolicyMode::TRANSPORT && dir == PolicyDirection::OUTBOUND.0 {
                return Err(Errno::EINVAL);
            }
            template.optional = true;
        }
        PolicyLevel::UNIQUE => {
            template.reqid = match request.reqid.get() {
                given @ 1..=MANUAL_REQID_MAX => given,
                _ => new_reqid().ok_or(Errno::ENOBUFS)?,
            };
        }
        _ => {}
    }
    if mode == PolicyMode::TUNNEL {
        (template.v6, template.saddr, template.daddr) = address_pair(body)?;
    }
    Ok(template)
}
