//! Building a message in the caller's buffer.

use zerocopy::{Immutable, IntoBytes};

use super::layout::*;
use super::{ExtensionType, HEADER_LEN, Header, MAX_MESSAGE_LEN, Profile, Rule, WireError, round8};

/// Writes a base header and then extensions, in the order of the calls, into a buffer; allocates nothing.
///
/// The first thing that does not fit makes [`Writer::finish`] fail; calls after it have no effect. Padding and
/// reserved fields are zero whatever the buffer held.
///
/// ```
/// use pfkey_wire::{Header, MessageType, Profile, SaType, Writer};
/// let mut buffer = [0xff; 64];
/// let writer = Writer::new(&mut buffer, Header::new(MessageType::FLUSH, SaType::ESP, 7, 4242), Profile::Linux);
/// assert_eq!(writer.finish().unwrap().len(), 16);
/// ```
///
/// `Debug` shows no contents: there may be keys.
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    profile: Profile,
    overflow: Option<usize>,
    omitted: Option<ExtensionType>,
}

impl core::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Writer({} bytes written)", self.len)
    }
}

impl<'b> Writer<'b> {
    /// Starts a message; the header's length is filled in by [`Writer::finish`].
    #[must_use]
    pub fn new(buffer: &'b mut [u8], header: Header, profile: Profile) -> Self {
        let mut writer = Self { buffer, len: 0, profile, overflow: None, omitted: None };
        writer.put(header.to_layout().as_bytes());
        writer
    }

    /// Goes on behind a message of `len` bytes that the buffer has already.
    #[must_use]
    pub const fn after(buffer: &'b mut [u8], len: usize, profile: Profile) -> Self {
        let overflow = if len > buffer.len() { Some(len) } else { None };
        Self { buffer, len, profile, overflow, omitted: None }
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether not even the header fitted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Space for `n` bytes, as the buffer had them; `None` (and an overflow) when there is none.
    #[inline]
    fn reserve(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.len.saturating_add(n);
        if self.overflow.is_some() || end > self.buffer.len() || end > MAX_MESSAGE_LEN {
            self.overflow.get_or_insert(self.len);
            return None;
        }
        let space = &mut self.buffer[self.len..end];
        self.len = end;
        Some(space)
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(space) = self.reserve(bytes.len()) {
            space.copy_from_slice(bytes);
        }
    }

    /// A whole extension: `fixed` (whose first four bytes are replaced by length and type), then `tail`, then
    /// zeros up to `min` bytes and to a multiple of 8.
    #[inline]
    pub(super) fn extension<T: IntoBytes + Immutable>(
        &mut self,
        ext_type: ExtensionType,
        fixed: &T,
        tail: &[&[u8]],
        min: usize,
    ) -> &mut Self {
        if self.omitted == Some(ext_type) {
            return self;
        }
        let fixed = fixed.as_bytes();
        let used = fixed.len() + tail.iter().map(|t| t.len()).sum::<usize>();
        let total = round8(used.max(min));
        let Ok(words) = u16::try_from(total / 8) else {
            self.overflow.get_or_insert(self.len);
            return self;
        };
        if let Some(space) = self.reserve(total) {
            let head = SadbExt { len: words.into(), ext_type: ext_type.0.into() };
            let (fixed_space, mut rest) = space.split_at_mut(fixed.len());
            fixed_space.copy_from_slice(fixed);
            fixed_space[..4].copy_from_slice(head.as_bytes());
            for part in tail {
                let (here, next) = rest.split_at_mut(part.len());
                here.copy_from_slice(part);
                rest = next;
            }
            // Most extensions are whole: no call for nothing.
            if !rest.is_empty() {
                rest.fill(0);
            }
        }
        self
    }

    /// An extension that is its structure and no more; its length and type are filled in.
    #[inline]
    pub fn fixed<T: IntoBytes + Immutable>(&mut self, ext_type: ExtensionType, fixed: &T) -> &mut Self {
        self.extension(ext_type, fixed, &[], 0)
    }

    /// The SA extension; its length and type are filled in.
    #[inline]
    pub fn sa(&mut self, sa: SadbSa) -> &mut Self {
        self.extension(ExtensionType::SA, &sa, &[], self.profile.sa_len())
    }

    /// Whole extensions as another message had them, a multiple of 8 bytes.
    pub fn copied(&mut self, extensions: &[u8]) -> &mut Self {
        self.put(extensions);
        self
    }

    /// A lifetime extension.
    #[inline]
    pub fn lifetime(&mut self, ext_type: ExtensionType, lifetime: SadbLifetime) -> &mut Self {
        self.extension(ext_type, &lifetime, &[], self.profile.lifetime_len())
    }

    /// An address extension around a sockaddr's bytes, which are copied verbatim.
    #[inline]
    pub fn address(&mut self, ext_type: ExtensionType, proto: u8, prefixlen: u8, sockaddr: &[u8]) -> &mut Self {
        let fixed = SadbAddress { proto, prefixlen, ..Default::default() };
        self.extension(ext_type, &fixed, &[sockaddr], 0)
    }

    /// A key extension; `key` holds `ceil(bits/8)` bytes.
    #[inline]
    pub fn key(&mut self, ext_type: ExtensionType, bits: u16, key: &[u8]) -> &mut Self {
        let fixed = SadbKey { bits: bits.into(), ..Default::default() };
        self.extension(ext_type, &fixed, &[key], 0)
    }

    /// The SA2 extension with sequence 0.
    #[inline]
    pub fn sa2(&mut self, mode: u8, reqid: u32) -> &mut Self {
        let fixed = SadbXSa2 { mode, reqid: reqid.into(), ..Default::default() };
        self.extension(ExtensionType::X_SA2, &fixed, &[], 0)
    }

    /// An SPI range, both ends in host byte order.
    pub fn spirange(&mut self, min: u32, max: u32) -> &mut Self {
        let fixed = SadbSpirange { min: min.into(), max: max.into(), ..Default::default() };
        self.extension(ExtensionType::SPIRANGE, &fixed, &[], 0)
    }

    /// A policy extension: its fixed part, then requests' bytes.
    pub fn policy(&mut self, policy: SadbXPolicy, requests: &[u8]) -> &mut Self {
        self.extension(ExtensionType::X_POLICY, &policy, &[requests], 0)
    }

    /// The three NAT-T extensions; ports in host byte order.
    pub fn nat_t(&mut self, nat_t_type: u8, sport: u16, dport: u16) -> &mut Self {
        let fixed = SadbXNatTType { nat_t_type, ..Default::default() };
        self.extension(ExtensionType::X_NAT_T_TYPE, &fixed, &[], 0);
        self.nat_t_port(ExtensionType::X_NAT_T_SPORT, sport).nat_t_port(ExtensionType::X_NAT_T_DPORT, dport)
    }

    /// One NAT-T port extension; port in host byte order.
    pub fn nat_t_port(&mut self, ext_type: ExtensionType, port: u16) -> &mut Self {
        let fixed = SadbXNatTPort { port: port.into(), ..Default::default() };
        self.extension(ext_type, &fixed, &[], 0)
    }

    /// A security context.
    pub fn sec_ctx(&mut self, doi: u8, alg: u8, text: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(text.len()) else {
            self.overflow.get_or_insert(self.len);
            return self;
        };
        let fixed = SadbXSecCtx { alg, doi, ctx_len: len.into(), ..Default::default() };
        self.extension(ExtensionType::X_SEC_CTX, &fixed, &[text], 0)
    }

    /// The key manager's own addresses: two sockaddrs back to back.
    pub fn kmaddress(&mut self, local: &[u8], remote: &[u8]) -> &mut Self {
        self.extension(ExtensionType::X_KMADDRESS, &SadbXKmaddress::default(), &[local, remote], 0)
    }

    /// A proposal of combinations.
    pub fn proposal(&mut self, replay: u8, combs: &[SadbComb]) -> &mut Self {
        let fixed = SadbProp { replay, ..Default::default() };
        self.extension(ExtensionType::PROPOSAL, &fixed, &[combs.as_bytes()], 0)
    }

    /// A list of algorithms.
    pub fn supported(&mut self, ext_type: ExtensionType, algorithms: &[SadbAlg]) -> &mut Self {
        self.extension(ext_type, &SadbSupported::default(), &[algorithms.as_bytes()], 0)
    }

    /// An identity with its text, to which a NUL is added; no text, no NUL.
    pub fn identity(&mut self, ext_type: ExtensionType, ident_type: u16, id: u64, text: &[u8]) -> &mut Self {
        let fixed = SadbIdent { ident_type: ident_type.into(), id: id.into(), ..Default::default() };
        let nul: &[u8] = if text.is_empty() { &[] } else { &[0] };
        self.extension(ext_type, &fixed, &[text, nul], 0)
    }

    /// A sensitivity with its two bitmaps, whole 64-bit words each; the lengths are filled in.
    pub fn sensitivity(&mut self, sens: SadbSens, sens_bitmap: &[u8], integ_bitmap: &[u8]) -> &mut Self {
        let (Ok(sens_len), Ok(integ_len)) = (u8::try_from(sens_bitmap.len() / 8), u8::try_from(integ_bitmap.len() / 8))
        else {
            self.overflow.get_or_insert(self.len);
            return self;
        };
        let fixed = SadbSens { sens_len, integ_len, ..sens };
        self.extension(ExtensionType::SENSITIVITY, &fixed, &[sens_bitmap, integ_bitmap], 0)
    }

    /// What a key manager wants stored with the SA.
    pub fn kmprivate(&mut self, data: &[u8]) -> &mut Self {
        self.extension(ExtensionType::X_KMPRIVATE, &SadbXKmprivate::default(), &[data], 0)
    }

    /// A dump filter; its length and type are filled in.
    pub fn filter(&mut self, filter: SadbXFilter) -> &mut Self {
        self.extension(ExtensionType::X_FILTER, &filter, &[], 0)
    }

    /// Writes no extension of a type from here on: the message's readers did not ask for it.
    pub const fn omit(&mut self, ext_type: ExtensionType) {
        self.omitted = Some(ext_type);
    }

    /// Bytes as they are: an extension that the caller built. Not padded, not checked.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.put(bytes);
        self
    }

    /// Fills in the header's length and returns the message.
    ///
    /// # Errors
    /// [`Rule::TooLong`] with the offset of the first thing that did not fit.
    pub fn finish(self) -> Result<&'b mut [u8], WireError> {
        if let Some(offset) = self.overflow {
            return Err(WireError { offset, rule: Rule::TooLong });
        }
        let words = (self.len / 8) as u16;
        let message = &mut self.buffer[..self.len];
        if message.len() >= HEADER_LEN {
            message[4..6].copy_from_slice(&words.to_ne_bytes());
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, MessageType, SaType};
    use super::*;

    #[test]
    fn every_buffer_size_gives_a_message_or_an_error() {
        let header = Header::new(MessageType::ADD, SaType::ESP, 1, 2);
        let build = |buffer: &mut [u8]| {
            let mut writer = Writer::new(buffer, header, Profile::Linux);
            writer.sa(SadbSa::default()).key(ExtensionType::KEY_AUTH, 9, &[1, 2]).sec_ctx(1, 1, b"abc");
            writer.finish().map(|m| m.len())
        };
        assert_eq!(build(&mut [0xa5; 64]), Ok(64));
        for n in 0..64 {
            assert!(matches!(build(&mut vec![0xa5; n]), Err(WireError { rule: Rule::TooLong, .. })), "{n}");
        }
    }

    #[test]
    fn padding_is_zero_whatever_the_buffer_held() {
        let mut buffer = [0xa5; 64];
        let mut writer = Writer::new(&mut buffer, Header::new(MessageType::ADD, SaType::AH, 0, 0), Profile::Linux);
        writer.key(ExtensionType::KEY_AUTH, 8, &[7]);
        let bytes = writer.finish().unwrap();
        let numbers = [2_u16, 8, 8, 0].map(u16::to_ne_bytes).concat();
        assert_eq!((&bytes[16..24], &bytes[24..]), (&numbers[..], &[7, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!(Message::parse(bytes, Profile::Linux).unwrap().key(ExtensionType::KEY_AUTH), Some((8, &[7][..])));
    }
}
