//! The listing of "Unix Network Programming" (Stevens, Fenner, Rudoff), chapter 19: `print_sadb_msg`.

use core::fmt;

use nix::errno::Errno;
use zerocopy::FromBytes;

use crate::wire::layout::*;
use crate::wire::sockaddr::{AF_INET6, Sockaddr};
use crate::wire::{ExtensionType, HEADER_LEN, Header, PF_KEY_V2, SaFlags};

use super::text::{Out, Sink, collect, put};
use super::view::{host, time};
use super::{Environment, Text};

/// Whether the slips of the book's program are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Style {
    /// The SPI as the number that it is, and separators between all values.
    #[default]
    Corrected,
    /// As printed in the book: the SPI as its bytes lie in memory, hard and soft lifetimes without a separator.
    Book,
}

/// Why a message is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// The header's length is not the number of bytes.
    #[error("SADB Message length ({header}) doesn't match msglen ({actual})")]
    Length {
        /// Bytes that the header announces.
        header: usize,
        /// Bytes that are there.
        actual: usize,
    },
    /// Not `PF_KEY_V2`.
    #[error("SADB Message version not PF_KEY_V2")]
    Version,
}

/// Lists a message with symbolic names, one line or more for each extension. A malformed extension ends the list
/// with a line that says so.
///
/// # Errors
/// [`ListingError`]: nothing is listed then.
pub fn listing(message: &[u8], style: Style, environment: &dyn Environment) -> Result<Text, ListingError> {
    let (text, outcome) = collect(message.len(), |sink| listing_to(message, style, environment, sink));
    outcome.map(|()| text)
}

/// [`listing`], piece by piece.
///
/// # Errors
/// As [`listing`].
pub fn listing_to(
    message: &[u8],
    style: Style,
    environment: &dyn Environment,
    sink: &mut Sink<'_>,
) -> Result<(), ListingError> {
    let actual = message.len();
    let header = Header::read(message).ok_or(ListingError::Length { header: 0, actual })?;
    let announced = usize::from(header.len) * 8;
    if announced != actual {
        return Err(ListingError::Length { header: announced, actual });
    }
    if header.version != PF_KEY_V2 {
        return Err(ListingError::Version);
    }
    let mut out = Out(sink);
    let (errno, seq, pid) = (header.errno, header.seq, header.pid);
    put!(out, "SADB Message {}, errno {errno}, ", message_type(header.msg_type.0));
    put!(out, "satype {}, seq {seq}, pid {pid}\n", satype(header.satype.0));
    if errno != 0 {
        put!(out, " errno {}\n", Errno::from_raw(i32::from(errno)).desc());
    }
    let mut rest = message.get(HEADER_LEN..).unwrap_or_default();
    while !rest.is_empty() {
        let head = SadbExt::read_from_prefix(rest).map(|(head, _)| head).unwrap_or_default();
        let len = usize::from(head.len.get()) * 8;
        match rest.split_at_checked(len) {
            Some((ext, next)) if len > 0 => {
                let ext_type = ExtensionType(head.ext_type.get());
                if put_extension(&mut out, ext_type, ext, style, environment).is_none() {
                    put!(out, " [short extension {}]\n", ext_type.0);
                }
                rest = next;
            }
            _ => {
                put!(out, " [malformed extension {}, length {len}]\n", head.ext_type.get());
                break;
            }
        }
    }
    Ok(())
}

/// `None` if the extension is shorter than its structure.
fn put_extension(
    out: &mut Out<'_, '_>,
    ext_type: ExtensionType,
    ext: &[u8],
    style: Style,
    environment: &dyn Environment,
) -> Option<()> {
    use ExtensionType as E;
    match ext_type {
        E::RESERVED => put!(out, " Reserved Extension\n"),
        E::SA => put_sa(out, read(ext)?.0, style),
        E::LIFETIME_CURRENT | E::LIFETIME_HARD | E::LIFETIME_SOFT => {
            put_lifetime(out, ext_type, read(ext)?.0, style, environment);
        }
        E::ADDRESS_SRC => put_address(out, "Source", read(ext)?),
        E::ADDRESS_DST => put_address(out, "Dest", read(ext)?),
        E::ADDRESS_PROXY => put_address(out, "Proxy", read(ext)?),
        E::KEY_AUTH => put_key(out, "Authentication", read(ext)?),
        E::KEY_ENCRYPT => put_key(out, "Encryption", read(ext)?),
        E::IDENTITY_SRC | E::IDENTITY_DST => put!(out, " [identity...]\n"),
        E::SENSITIVITY => put!(out, " [sensitivity...]\n"),
        E::PROPOSAL => put!(out, " [proposal...]\n"),
        E::SUPPORTED_AUTH => put_supported(out, "authentication", auth, read(ext)?),
        E::SUPPORTED_ENCRYPT => put_supported(out, "encryption", encrypt, read(ext)?),
        E::SPIRANGE => put!(out, " [spirange...]\n"),
        _ => put!(out, " [unknown extension {}]\n", ext_type.0),
    }
    Some(())
}

fn read<T: FromBytes>(ext: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(ext).ok()
}

fn put_sa(out: &mut Out<'_, '_>, sa: SadbSa, style: Style) {
    let spi = match style {
        Style::Corrected => sa.spi.get(),
        Style::Book => u32::from_ne_bytes(sa.spi.to_bytes()),
    };
    put!(out, " SA: SPI={spi} Replay Window={} State={}\n", sa.replay, state(sa.state));
    put!(out, "  Authentication Algorithm: {}\n", auth(sa.auth));
    put!(out, "  Encryption Algorithm: {}\n", encrypt(sa.encrypt));
    if SaFlags(sa.flags.get()).contains(SaFlags::PFS) {
        put!(out, "  Perfect Forward Secrecy\n");
    }
}

fn put_lifetime(
    out: &mut Out<'_, '_>,
    ext_type: ExtensionType,
    lifetime: SadbLifetime,
    style: Style,
    environment: &dyn Environment,
) {
    let name = match ext_type {
        ExtensionType::LIFETIME_CURRENT => "Current",
        ExtensionType::LIFETIME_HARD => "Hard",
        _ => "Soft",
    };
    let (added, used) = (lifetime.addtime.get(), lifetime.usetime.get());
    put!(out, " {name} lifetime:\n");
    put!(out, "  {} allocations, {} bytes", lifetime.allocations.get(), lifetime.bytes.get());
    if ext_type == ExtensionType::LIFETIME_CURRENT {
        put!(out, "\n  added at {}, ", time(added, environment));
        match used {
            0 => put!(out, "never used\n"),
            _ => put!(out, "first used at {}\n", time(used, environment)),
        }
    } else {
        let separator = if style == Style::Book { "" } else { ", " };
        put!(out, "{separator}{added} addtime, {used} usetime\n");
    }
}

fn put_address(out: &mut Out<'_, '_>, name: &str, (fixed, rest): (SadbAddress, &[u8])) {
    let sockaddr = Sockaddr(rest);
    let host = host(sockaddr);
    put!(out, " {name} address:   ");
    match (sockaddr.port(), sockaddr.family()) {
        (0, _) => put!(out, "{host}"),
        (port, AF_INET6) => put!(out, "[{host}]:{port}"),
        (port, _) => put!(out, "{host}:{port}"),
    }
    match fixed.prefixlen {
        0 => put!(out, " "),
        len => put!(out, "/{len} "),
    }
    match fixed.proto {
        0 => {}
        6 => put!(out, "(TCP)"),
        17 => put!(out, "(UDP)"),
        proto => put!(out, "(IP proto {proto})"),
    }
    put!(out, "\n");
}

fn put_key(out: &mut Out<'_, '_>, name: &str, (fixed, rest): (SadbKey, &[u8])) {
    let bits = fixed.bits.get();
    put!(out, " {name} key, {bits} bits: 0x");
    for byte in rest.iter().take(usize::from(bits).div_ceil(8)) {
        put!(out, "{byte:02x}");
    }
    put!(out, "\n");
}

fn put_supported(out: &mut Out<'_, '_>, kind: &str, name: fn(u8) -> Named, (_, mut rest): (SadbSupported, &[u8])) {
    put!(out, " Supported {kind} algorithms:\n");
    if rest.is_empty() {
        put!(out, "  None\n");
    }
    while let Ok((a, next)) = SadbAlg::read_from_prefix(rest) {
        put!(out, "  {} ivlen {} bits {}-{}\n", name(a.id), a.ivlen, a.minbits.get(), a.maxbits.get());
        rest = next;
    }
}

/// A name, or the number of its kind that has none.
struct Named {
    name: Option<&'static str>,
    kind: &'static str,
    number: u8,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "[Unknown {} {}]", self.kind, self.number),
        }
    }
}

fn named(name: Option<&'static str>, kind: &'static str, number: u8) -> Named {
    Named { name, kind, number }
}

fn message_type(t: u8) -> Named {
    const NAMES: [&str; 11] =
        ["Reserved", "Get SPI", "Update", "Add", "Delete", "Get", "Acquire", "Register", "Expire", "Flush", "Dump"];
    named(NAMES.get(usize::from(t)).copied(), "type", t)
}

fn satype(t: u8) -> Named {
    let name = match t {
        0 => "Unspecified",
        2 => "IPsec AH",
        3 => "IPsec ESP",
        5 => "RSVP",
        6 => "OSPFv2",
        7 => "RIPv2",
        8 => "Mobile IP",
        _ => return named(None, "satype", t),
    };
    named(Some(name), "satype", t)
}

fn state(s: u8) -> Named {
    named(["Larval", "Mature", "Dying", "Dead"].get(usize::from(s)).copied(), "SA state", s)
}

fn auth(algorithm: u8) -> Named {
    let name = match algorithm {
        0 => "None",
        2 => "HMAC-MD5",
        3 => "HMAC-SHA-1",
        5 => "SHA2-256",
        6 => "SHA2-384",
        7 => "SHA2-512",
        249 => "Keyed MD5",
        250 => "Keyed SHA-1",
        251 => "Null",
        _ => return named(None, "authentication algorithm", algorithm),
    };
    named(Some(name), "authentication algorithm", algorithm)
}

fn encrypt(algorithm: u8) -> Named {
    let name = match algorithm {
        0 => "None",
        2 => "DES-CBC",
        3 => "3DES-CBC",
        6 => "CAST128-CBC",
        7 => "Blowfish-CBC",
        11 => "Null",
        12 => "AES",
        _ => return named(None, "encryption algorithm", algorithm),
    };
    named(Some(name), "encryption algorithm", algorithm)
}

#[cfg(test)]
mod tests;
