//! Policy specifications: text ⇄ typed ⇄ `sadb_x_policy` bytes (`ipsec_set_policy(3)`).
//!
//! ```text
//! policy  = dir [ [ prio ] action { request } ] ;
//! dir     = "in" | "out" | "fwd" ;
//! action  = "discard" | "none" | "ipsec" | "entrust" | "bypass" ;
//! prio    = ( "prio" | "priority" ) ( NUMBER | "-" NUMBER | base | base "+" NUMBER | base "-" NUMBER ) ;
//! base    = "low" | "def" | "high" ;
//! request = proto "/" mode [ "/" ( [ addrs [ "/" [ level ] ] ] | "/" level ) ] ;
//! proto   = "esp" | "ah" | "ipcomp" ;
//! mode    = "transport" | "tunnel" ;
//! addrs   = ADDRESS "-" ADDRESS | ADDRESS PORT "-" ADDRESS PORT | "me" "-" "any" | "any" "-" "me" ;
//! level   = "default" | "use" | "require" | "unique" | "unique:" NUMBER ;
//! ```
pub mod address;
mod dump;
mod error;
mod lexer;
mod parse;
pub mod priority;

use core::fmt;
use std::net::SocketAddr;

use zerocopy::IntoBytes;

pub use address::AddressError;
pub use dump::{dump, dump_to};
pub use error::{DumpError, PolicyError, PolicyErrorKind, TooLong};
pub use parse::{Diagnostic, Outcome, Parsed, parse, parse_with};

use crate::wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use crate::wire::{ExtensionType, Mode, PolicyDirection, PolicyLevel, PolicyType, SockaddrBytes};

/// `IPPROTO_ESP`.
pub const ESP: u8 = 50;
/// `IPPROTO_AH`.
pub const AH: u8 = 51;
/// `IPPROTO_COMP`.
pub const IPCOMP: u8 = 108;

/// Bytes of `struct sadb_x_policy`, and of `struct sadb_x_ipsecrequest`.
const HEADER_LEN: usize = 16;

/// What to do with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Which packets.
    pub direction: PolicyDirection,
    /// What to do with them.
    pub policy_type: PolicyType,
    /// Smaller is stronger; 0 = the text gave neither action nor priority, or asked for the strongest.
    pub priority: u32,
    /// How to protect them, the innermost transform first. Heeded only for [`PolicyType::IPSEC`].
    pub requests: Vec<RequestSpec>,
}

/// One transform of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSpec {
    /// [`ESP`], [`AH`] or [`IPCOMP`].
    pub protocol: u8,
    /// Transport or tunnel.
    pub mode: Mode,
    /// Whether an SA is needed.
    pub level: PolicyLevel,
    /// Ties SAs to the request; 0 = none.
    pub reqid: u32,
    /// Source and destination of a tunnel.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

impl RequestSpec {
    /// Bytes of this request in a policy.
    fn len(&self) -> usize {
        let address = |a: &SocketAddr| crate::wire::sockaddr::sockaddr_len(if a.is_ipv4() { 2 } else { 10 });
        HEADER_LEN + self.addresses.map_or(0, |(a, b)| address(&a) + address(&b))
    }
}

fn sockaddr_bytes(address: SocketAddr) -> SockaddrBytes {
    let bytes = SockaddrBytes::new(address.ip(), address.port());
    match address {
        SocketAddr::V4(_) => bytes,
        SocketAddr::V6(v6) => bytes.with_scope_id(v6.scope_id()),
    }
}

impl PolicySpec {
    /// The `sadb_x_policy` extension, its requests behind it; reserved fields are zero and the id is 0.
    ///
    /// A request with one IPv4 and one IPv6 address, which only a policy type that ignores its requests lets
    /// pass, is not a multiple of 8 bytes long: the extension then ends at its last whole unit, as libipsec's
    /// length field says.
    ///
    /// # Errors
    /// [`TooLong`] when there are more requests than the 16-bit length field can count (512 KiB).
    pub fn to_bytes(&self) -> Result<Vec<u8>, TooLong> {
        let mut bytes = vec![0; self.byte_len()?];
        self.write(&mut bytes);
        Ok(bytes)
    }

    /// Bytes of [`Self::to_bytes`].
    ///
    /// # Errors
    /// As it.
    pub fn byte_len(&self) -> Result<usize, TooLong> {
        let total = self.requests.iter().fold(HEADER_LEN, |n, request| n.saturating_add(request.len()));
        u16::try_from(total / 8).map(|len| usize::from(len) * 8).map_err(|_| TooLong)
    }

    /// Writes [`Self::to_bytes`] into a buffer of [`Self::byte_len`] bytes, as far as it goes.
    pub fn write(&self, buffer: &mut [u8]) {
        let header = SadbXPolicy {
            len: ((buffer.len() / 8) as u16).into(),
            exttype: ExtensionType::X_POLICY.0.into(),
            policy_type: self.policy_type.0.into(),
            dir: self.direction.0,
            priority: self.priority.into(),
            ..Default::default()
        };
        let mut room = buffer;
        let mut put = |bytes: &[u8]| {
            let len = bytes.len().min(room.len());
            let (to, rest) = std::mem::take(&mut room).split_at_mut(len);
            to.copy_from_slice(&bytes[..len]);
            room = rest;
        };
        put(header.as_bytes());
        for request in &self.requests {
            let fixed = SadbXIpsecrequest {
                len: (request.len() as u16).into(),
                proto: u16::from(request.protocol).into(),
                mode: request.mode.0,
                level: request.level.0,
                reqid: request.reqid.into(),
                ..Default::default()
            };
            put(fixed.as_bytes());
            if let Some((source, destination)) = request.addresses {
                put(sockaddr_bytes(source).as_bytes());
                put(sockaddr_bytes(destination).as_bytes());
            }
        }
    }
}

/// The text of `ipsec_dump_policy_withports`, requests separated by a space, and without ports when all are 0.
impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_ports = self.requests.iter().filter_map(|r| r.addresses).any(|(a, b)| a.port() != 0 || b.port() != 0);
        let bytes = self.to_bytes().map_err(|_| fmt::Error)?;
        match dump(&bytes, b" ", with_ports) {
            Ok(text) => f.write_str(&String::from_utf8_lossy(&text)),
            Err(error) => error.fmt(f),
        }
    }
}
