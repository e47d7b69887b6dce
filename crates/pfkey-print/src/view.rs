//! A message as `pfkey_align` sees it.

use core::fmt;

use zerocopy::FromBytes;

use crate::align;
use crate::error::Code;
use crate::policy::address::{HostText, host_text};
use crate::wire::layout::{SadbAddress, SadbExt, SadbKey, SadbLifetime, SadbXSecCtx};
use crate::wire::sockaddr::Sockaddr;
use crate::wire::{ExtensionType, Header};

use super::text::{Out, put};
use super::{Environment, Short};

/// A message whose extensions were found.
pub(super) struct View<'a> {
    pub header: Header,
    bytes: &'a [u8],
    slots: align::Slots,
}

impl<'a> View<'a> {
    /// `pfkey_align`, then `pfkey_check`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Code> {
        let mut slots = [None; align::SLOTS];
        align::align(bytes, &mut slots)?;
        let header = Header::read(bytes).ok_or(Code::InvalidMessage)?;
        align::check_header(header)?;
        let view = Self { header, bytes, slots };
        if let (Some(src), Some(dst)) =
            (view.extension(ExtensionType::ADDRESS_SRC), view.extension(ExtensionType::ADDRESS_DST))
        {
            align::check_addresses(src, dst)?;
        }
        Ok(view)
    }

    /// The bytes of an extension.
    pub fn extension(&self, ext_type: ExtensionType) -> Option<&'a [u8]> {
        let offset = (*self.slots.get(usize::from(ext_type.0))?)?;
        let rest = self.bytes.get(offset..)?;
        let (head, _) = SadbExt::read_from_prefix(rest).ok()?;
        rest.get(..usize::from(head.len.get()) * 8)
    }

    /// An extension's structure and what follows it; `None` if it is missing or too short.
    pub fn read<T: FromBytes>(&self, ext_type: ExtensionType) -> Option<(T, &'a [u8])> {
        T::read_from_prefix(self.extension(ext_type)?).ok()
    }

    pub fn address(&self, ext_type: ExtensionType) -> Option<(SadbAddress, Sockaddr<'a>)> {
        self.read(ext_type).map(|(fixed, rest)| (fixed, Sockaddr(rest)))
    }

    pub fn lifetime(&self, ext_type: ExtensionType) -> Option<SadbLifetime> {
        self.read(ext_type).map(|(lifetime, _)| lifetime)
    }

    /// The whole bytes of a key, as many of them as the extension holds.
    pub fn key(&self, ext_type: ExtensionType) -> Option<&'a [u8]> {
        let (fixed, rest): (SadbKey, _) = self.read(ext_type)?;
        let len = usize::from(fixed.bits.get() / 8);
        Some(rest.get(..len).unwrap_or(rest))
    }

    /// The lines about the security context, if there is one.
    pub fn put_sec_ctx(&self, out: &mut Out<'_, '_>) {
        let Some((fixed, rest)) = self.read::<SadbXSecCtx>(ExtensionType::X_SEC_CTX) else { return };
        put!(out, "\tsecurity context doi: {}\n", fixed.doi);
        put!(out, "\tsecurity context algorithm: {}\n", fixed.alg);
        put!(out, "\tsecurity context length: {}\n", fixed.ctx_len.get());
        put!(out, "\tsecurity context: ");
        out.raw(rest.split(|&b| b == 0).next().unwrap_or_default());
        put!(out, "\n");
    }
}

/// A text, or what stands for one that there is not.
pub(super) struct OrNull<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => text.fmt(f),
            None => f.write_str("(null)"),
        }
    }
}

/// `str_ipaddr`: the address of a sockaddr.
pub(super) fn host(sockaddr: Sockaddr<'_>) -> OrNull<HostText> {
    OrNull(host_text(sockaddr))
}

/// A time as 20 characters.
pub(super) enum TimeText {
    /// Blanks.
    None,
    /// Question marks: it cannot be expressed.
    Unknown,
    Known(Short),
}

impl fmt::Display for TimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "{:20}", ""),
            Self::Unknown => write!(f, "{:?<20}", ""),
            Self::Known(text) => write!(f, "{text:.20}"),
        }
    }
}

/// A time; blanks for 0.
pub(super) fn time(time: u64, environment: &dyn Environment) -> TimeText {
    match time {
        0 => TimeText::None,
        time => environment.local_time(time as i64).map_or(TimeText::Unknown, TimeText::Known),
    }
}
