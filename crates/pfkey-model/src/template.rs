//! The requests of a policy as the kernel reads them (`parse_ipsecrequests`): what `sadb_x_ipsecrequest`s ask of SAs,
//! in the SPD and in a socket's own policy.

use pfkey_wire::layout::SadbXIpsecrequest;
use pfkey_wire::{Ends, Errno, IpsecProtocol, Mode, PolicyDirection, PolicyLevel, Requests, Sockaddr};

/// `XFRM_MAX_DEPTH`.
pub const MAX_TEMPLATES: usize = 6;
/// `IPSEC_MANUAL_REQID_MAX`.
pub const MANUAL_REQID_MAX: u32 = 0x3fff;

/// What a policy requires of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// AH, ESP or IPComp.
    pub proto: IpsecProtocol,
    /// `sadb_x_ipsecrequest_mode`.
    pub mode: Mode,
    /// Level "use".
    pub optional: bool,
    /// Request id, 0 = any.
    pub reqid: u32,
    /// The tunnel's ends; nowhere in other modes.
    pub ends: Ends,
}

/// Two sockaddrs of one family back to back (`parse_sockaddr_pair`).
pub fn ends(bytes: &[u8]) -> Result<Ends, Errno> {
    let src = Sockaddr(bytes).ip().ok_or(Errno::EINVAL)?;
    let len = if src.is_ipv6() { 28 } else { 16 };
    // Both together are padded to 8 bytes, which 32 and 56 already are.
    if bytes.len() < 2 * len {
        return Err(Errno::EINVAL);
    }
    let dst = Sockaddr(bytes.get(len..).unwrap_or_default()).ip().ok_or(Errno::EINVAL)?;
    Ends::new(src, dst).ok_or(Errno::EINVAL)
}

/// Reads the requests of a policy of type IPSEC (`parse_ipsecrequests`). In transport mode the ends of a template are
/// `nowhere`. `new_reqid` returns the reqid for a request of level unique that has none, or one that no request may
/// choose.
pub fn parse_requests(
    bytes: &[u8],
    dir: PolicyDirection,
    nowhere: Ends,
    mut new_reqid: impl FnMut(u32) -> Option<u32>,
) -> Result<Vec<Template>, Errno> {
    let mut templates = Vec::new();
    let mut requests = Requests::new(bytes);
    for (request, body) in &mut requests {
        if templates.len() >= MAX_TEMPLATES {
            return Err(Errno::ELOOP);
        }
        templates.push(parse_request(&request, body, dir, nowhere, &mut new_reqid)?);
    }
    // Bytes too few for another request are ignored.
    if requests.rest().len() < size_of::<SadbXIpsecrequest>() { Ok(templates) } else { Err(Errno::EINVAL) }
}

fn parse_request(
    request: &SadbXIpsecrequest,
    body: &[u8],
    dir: PolicyDirection,
    nowhere: Ends,
    new_reqid: &mut impl FnMut(u32) -> Option<u32>,
) -> Result<Template, Errno> {
    let mode = Mode(request.mode);
    if mode == Mode::ANY {
        return Err(Errno::EINVAL);
    }
    // The kernel looks at the low byte only.
    let proto = IpsecProtocol(request.proto.get() as u8);
    let is_known = matches!(
        proto,
        IpsecProtocol::AH
            | IpsecProtocol::ESP
            | IpsecProtocol::IPCOMP
            | IpsecProtocol::ROUTING
            | IpsecProtocol::DSTOPTS
    );
    if !is_known || mode > Mode::BEET {
        return Err(Errno::EINVAL);
    }
    let mut template = Template { proto, mode, optional: false, reqid: 0, ends: nowhere };
    match PolicyLevel(request.level) {
        PolicyLevel::USE => {
            if mode != Mode::TRANSPORT && dir == PolicyDirection::OUTBOUND {
                return Err(Errno::EINVAL);
            }
            template.optional = true;
        }
        PolicyLevel::UNIQUE => {
            template.reqid = match request.reqid.get() {
                given @ 1..=MANUAL_REQID_MAX => given,
                given => new_reqid(given).ok_or(Errno::ENOBUFS)?,
            };
        }
        _ => {}
    }
    if mode == Mode::TUNNEL {
        template.ends = ends(body)?;
    }
    Ok(template)
}
