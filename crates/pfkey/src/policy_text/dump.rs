//! `sadb_x_policy` bytes as text: `ipsec_dump_policy` and `ipsec_dump_policy_withports`.

use core::fmt::{self, Write};

use zerocopy::FromBytes;

use crate::wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use crate::wire::sockaddr::{Sockaddr, sockaddr_len};
use crate::wire::{ExtensionType, Mode, PolicyLevel, PolicyType};

use super::error::DumpError;
use super::{AH, ESP, HEADER_LEN, IPCOMP, address, priority};

/// Reqids above this one are shown behind `#` instead of `:` (`IPSEC_MANUAL_REQID_MAX`).
const MANUAL_REQID_MAX: u32 = 0x3fff;

/// Writes a policy extension as text, `delimiter` before each request. `bytes` may go on behind the extension.
///
/// The text parses again, except for what the language has no words for: directions `any` and `…(socket)`, mode `any`, a
/// reqid without level `unique` or behind `#`.
///
/// A request of less than 16 bytes is refused, where libipsec never returns; so is an extension longer than
/// `bytes`.
///
/// # Errors
/// In the order of the checks: [`DumpError::Message`] (too short), [`DumpError::ExtensionType`],
/// [`DumpError::Direction`], [`DumpError::Policy`], [`DumpError::Message`] (the requests do not add up),
/// then by request [`DumpError::Proto`], [`DumpError::Mode`], [`DumpError::Address`],
/// [`DumpError::Level`].
pub fn dump(bytes: &[u8], delimiter: &[u8], with_ports: bool) -> Result<Vec<u8>, DumpError> {
    let mut text = Vec::new();
    dump_to(bytes, delimiter, with_ports, &mut |piece| text.extend_from_slice(piece))?;
    Ok(text)
}

/// [`dump`], piece by piece and without allocating. After an error, what `sink` received is to be ignored.
///
/// # Errors
/// As [`dump`].
pub fn dump_to(bytes: &[u8], delimiter: &[u8], with_ports: bool, sink: &mut dyn FnMut(&[u8])) -> Result<(), DumpError> {
    let (header, _) = SadbXPolicy::read_from_prefix(bytes).map_err(|_| DumpError::Message)?;
    if header.exttype.get() != ExtensionType::X_POLICY.0 {
        return Err(DumpError::ExtensionType);
    }
    let direction = match header.dir {
        0 => "any",
        1 => "in",
        2 => "out",
        3 => "fwd",
        4 => "in(socket)",
        5 => "out(socket)",
        _ => return Err(DumpError::Direction),
    };
    let policy_type = match PolicyType(header.policy_type.get()) {
        PolicyType::DISCARD => "discard",
        PolicyType::NONE => "none",
        PolicyType::IPSEC => "ipsec",
        PolicyType::ENTRUST => "entrust",
        PolicyType::BYPASS => "bypass",
        _ => return Err(DumpError::Policy),
    };
    let mut out = Out(sink);
    out.put(direction);
    priority::write(&mut out, header.priority.get());
    out.put(" ");
    out.put(policy_type);
    if PolicyType(header.policy_type.get()) == PolicyType::IPSEC {
        let end = usize::from(header.len.get()) * 8;
        let requests = bytes.get(HEADER_LEN..end).ok_or(DumpError::Message)?;
        check_lengths(requests)?;
        let mut rest = requests;
        while let Ok((fixed, _)) = SadbXIpsecrequest::read_from_prefix(rest) {
            let (request, next) = rest.split_at_checked(usize::from(fixed.len.get())).ok_or(DumpError::Proto)?;
            (out.0)(delimiter);
            let body = request.get(HEADER_LEN..).unwrap_or_default();
            put_request(&mut out, fixed, body, with_ports)?;
            rest = next;
        }
    }
    Ok(())
}

/// Writes to a sink.
struct Out<'s>(&'s mut dyn FnMut(&[u8]));

impl Out<'_> {
    fn put(&mut self, text: &str) {
        (self.0)(text.as_bytes());
    }
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text);
        Ok(())
    }
}

/// Whether each request is at least as long as its fixed part, and all of them fill `requests`.
fn check_lengths(mut requests: &[u8]) -> Result<(), DumpError> {
    while !requests.is_empty() {
        let (fixed, _) = SadbXIpsecrequest::read_from_prefix(requests).map_err(|_| DumpError::Message)?;
        let len = usize::from(fixed.len.get());
        if len < HEADER_LEN {
            return Err(DumpError::Message);
        }
        requests = requests.get(len..).ok_or(DumpError::Message)?;
    }
    Ok(())
}

/// `PROTO/MODE/ADDRESSES/LEVEL[:REQID]`; `body` is what follows the fixed part.
fn put_request(out: &mut Out<'_>, fixed: SadbXIpsecrequest, body: &[u8], with_ports: bool) -> Result<(), DumpError> {
    let protocol = match u8::try_from(fixed.proto.get()) {
        Ok(ESP) => "esp",
        Ok(AH) => "ah",
        Ok(IPCOMP) => "ipcomp",
        _ => return Err(DumpError::Proto),
    };
    let mode = match Mode(fixed.mode) {
        Mode::ANY => "any",
        Mode::TRANSPORT => "transport",
        Mode::TUNNEL => "tunnel",
        _ => return Err(DumpError::Mode),
    };
    let _ = write!(out, "{protocol}/{mode}/");
    if !body.is_empty() {
        let (source, destination) = addresses(body).ok_or(DumpError::Address)?;
        put_address(out, source, with_ports).ok_or(DumpError::Address)?;
        out.put("-");
        put_address(out, destination, with_ports).ok_or(DumpError::Address)?;
    }
    out.put(match PolicyLevel(fixed.level) {
        PolicyLevel::DEFAULT => "/default",
        PolicyLevel::USE => "/use",
        PolicyLevel::REQUIRE => "/require",
        PolicyLevel::UNIQUE => "/unique",
        _ => return Err(DumpError::Level),
    });
    let _ = match fixed.reqid.get() {
        0 => Ok(()),
        reqid if reqid > MANUAL_REQID_MAX => write!(out, "#{reqid}"),
        reqid => write!(out, ":{reqid}"),
    };
    Ok(())
}

/// The two sockaddrs that fill `body` exactly.
fn addresses(body: &[u8]) -> Option<(Sockaddr<'_>, Sockaddr<'_>)> {
    let (source, destination) = body.split_at_checked(sockaddr_len(Sockaddr(body).family()))?;
    let destination = Sockaddr(destination);
    (destination.0.len() == sockaddr_len(destination.family())).then_some((Sockaddr(source), destination))
}

fn put_address(out: &mut Out<'_>, sockaddr: Sockaddr<'_>, with_ports: bool) -> Option<()> {
    let _ = write!(out, "{}", address::host_text(sockaddr)?);
    if with_ports {
        let _ = write!(out, "[{}]", address::service_text(sockaddr)?);
    }
    Some(())
}
