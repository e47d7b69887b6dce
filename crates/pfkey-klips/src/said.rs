//! What names an SA, and its text forms (Openswan's ttosa(3)).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::number::{proto, spi};

/// What names an SA: destination, SPI, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Said {
    /// Destination.
    pub dst: IpAddr,
    /// SPI, host byte order.
    pub spi: u32,
    /// IP protocol: see [`proto`].
    pub proto: u8,
}

/// How [`Said::text`] writes an SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `esp.101@1.2.3.4`: hexadecimal, the delimiter shows the address family.
    Plain,
    /// `esp.00000101@1.2.3.4`: as plain, with eight digits.
    Fixed,
    /// `esp0x101@1.2.3.4`.
    Prefixed,
    /// `esp257@1.2.3.4`.
    Decimal,
}

const PREFIXES: [(u8, &str); 5] =
    [(proto::AH, "ah"), (proto::ESP, "esp"), (proto::IPIP, "tun"), (proto::COMP, "comp"), (proto::INT, "int")];

const MAGIC: [(u32, &str); 6] = [
    (spi::PASS, "%pass"),
    (spi::DROP, "%drop"),
    (spi::REJECT, "%reject"),
    (spi::HOLD, "%hold"),
    (spi::TRAP, "%trap"),
    (spi::TRAPSUBNET, "%trapsubnet"),
];

const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const UNSPECIFIED6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl Said {
    /// The one of a magic SPI ([`spi`]), whose address is 0.0.0.0.
    #[must_use]
    pub const fn magic(spi: u32) -> Self {
        Self { dst: UNSPECIFIED, spi, proto: proto::INT }
    }

    /// Its magic SPI, if it is no real SA.
    #[must_use]
    pub const fn magic_spi(&self) -> Option<u32> {
        match self.proto {
            proto::INT => Some(self.spi),
            _ => None,
        }
    }

    /// As text (`satot`). A protocol that has no name is `unk` and its number; that form is not read.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        if self.proto == proto::IPIP && self.spi == 0 && self.dst.is_unspecified() {
            return if self.dst.is_ipv4() { "%passthrough4" } else { "%passthrough6" }.into();
        }
        let magic = self.magic_spi().and_then(|spi| MAGIC.iter().find(|(number, _)| *number == spi));
        if let Some((_, name)) = magic {
            return (*name).into();
        }
        let prefix = PREFIXES.iter().find(|(proto, _)| *proto == self.proto);
        let prefix = prefix.map_or_else(|| format!("unk{}", self.proto), |(_, name)| (*name).into());
        let family = if self.dst.is_ipv4() { '.' } else { ':' };
        let (spi, dst) = (self.spi, self.dst);
        match format {
            Format::Plain => format!("{prefix}{family}{spi:x}@{dst}"),
            Format::Fixed => format!("{prefix}{family}{spi:08x}@{dst}"),
            Format::Prefixed => format!("{prefix}0x{spi:x}@{dst}"),
            Format::Decimal => format!("{prefix}{spi}@{dst}"),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Format::Plain))
    }
}

/// A text that names no SA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaidError {
    /// No protocol of ours in front.
    #[error("{0:?} does not begin with ah, esp, tun, comp or int")]
    Protocol(String),
    /// What stands before the @ is no SPI.
    #[error("{0:?} is no SPI")]
    Spi(String),
    /// What stands behind the @ is no address; names are not looked up.
    #[error("{0:?} is no address")]
    Address(String),
    /// The delimiter says another address family.
    #[error("the address is not of the family that the SPI is written for")]
    Family,
}

impl FromStr for Said {
    type Err = SaidError;

    /// Any of [`Said::text`]'s forms (`ttosa`), and `%passthrough`.
    fn from_str(text: &str) -> Result<Self, SaidError> {
        let passthrough = |dst| Ok(Self { dst, spi: 0, proto: proto::IPIP });
        match text {
            "%passthrough" | "%passthrough4" => return passthrough(UNSPECIFIED),
            "%passthrough6" => return passthrough(UNSPECIFIED6),
            _ => {}
        }
        if let Some((spi, _)) = MAGIC.iter().find(|(_, name)| *name == text) {
            return Ok(Self::magic(*spi));
        }
        let named = PREFIXES.iter().find_map(|(proto, name)| Some((*proto, text.strip_prefix(name)?)));
        let (proto, rest) = named.ok_or_else(|| SaidError::Protocol(text.into()))?;
        let (number, address) = rest.split_once('@').ok_or_else(|| SaidError::Address(rest.into()))?;
        let dst: IpAddr = address.parse().map_err(|_| SaidError::Address(address.into()))?;
        let bad = || SaidError::Spi(number.into());
        // from_str_radix would take a sign.
        let read = |digits: &str, radix| {
            let plain = digits.chars().all(|c| c.is_digit(radix));
            u32::from_str_radix(digits, radix).ok().filter(|_| plain).ok_or_else(bad)
        };
        let (spi, v6) = match number.split_at_checked(1) {
            Some((".", digits)) => (read(digits, 16)?, Some(false)),
            Some((":", digits)) => (read(digits, 16)?, Some(true)),
            // As C reads a number: 0x1f, 037, 31.
            _ => match (number.strip_prefix("0x"), number.strip_prefix('0')) {
                (Some(digits), _) => (read(digits, 16)?, None),
                (None, Some(digits)) if !digits.is_empty() => (read(digits, 8)?, None),
                _ => (read(number, 10)?, None),
            },
        };
        if v6.is_some_and(|v6| v6 != dst.is_ipv6()) {
            return Err(SaidError::Family);
        }
        Ok(Self { dst, spi, proto })
    }
}
