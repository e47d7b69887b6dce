//! A received message: validated once, then read without copying.

use zerocopy::FromBytes;

use super::extension::check_body;
use super::layout::*;
use super::profile::SLOTS;
use super::sockaddr::Sockaddr;
use super::{ExtensionType, HEADER_LEN, Header, Profile, Rule, WireError};

/// One extension of a message. `Debug` shows no contents: they may be a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its type, known or not.
    pub ext_type: ExtensionType,
    /// Where it starts, in bytes from the start of the message.
    pub offset: usize,
    /// The whole extension, header included; a multiple of 8 bytes.
    pub bytes: &'a [u8],
}

impl core::fmt::Debug for Extension<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Extension({:?} at {}, {} bytes)", self.ext_type, self.offset, self.bytes.len())
    }
}

/// A message that passed the profile's checks; extensions are found by type in constant time.
///
/// Extension types above the profile's last were skipped, as af_key does. `Debug` shows no contents: there may be keys.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    header: Header,
    profile: Profile,
    /// Offset and length of each extension in bytes; length 0 = absent.
    slots: [(u32, u32); SLOTS],
}

impl core::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.header, self.bytes.len())
    }
}

impl<'a> Message<'a> {
    /// Checks `bytes` as af_key does, framing first, then the extensions in order (`parse_exthdrs`).
    ///
    /// # Errors
    /// The first [`Rule`] that `bytes` breaks, with its offset.
    pub fn parse(bytes: &'a [u8], profile: Profile) -> Result<Self, WireError> {
        let header = Header::check(bytes, profile)?;
        let mut message = Self { bytes, header, profile, slots: [(0, 0); SLOTS] };
        let mut offset = HEADER_LEN;
        while offset < bytes.len() {
            let ext = extension_at(bytes, offset)?;
            let t = ext.ext_type.0;
            let fail = |rule| Err(WireError { offset, rule });
            if ext.ext_type == ExtensionType::RESERVED {
                return fail(Rule::ExtensionType(0));
            }
            if let (Some(slot), Some(min)) = (profile.slot(t), profile.min_extension_len(t)) {
                if ext.bytes.len() < min {
                    return fail(Rule::ExtensionShort(t));
                }
                let slot = &mut message.slots[slot];
                if slot.1 != 0 {
                    return fail(Rule::ExtensionTwice(t));
                }
                check_body(profile, ext)?;
                *slot = (offset as u32, ext.bytes.len() as u32);
            }
            offset += ext.bytes.len();
        }
        Ok(message)
    }

    /// The base header.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The profile that the message was checked against.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The extension of a type.
    #[must_use]
    pub fn extension(&self, ext_type: ExtensionType) -> Option<Extension<'a>> {
        let &(offset, len) = self.slots.get(self.profile.slot(ext_type.0)?)?;
        if len == 0 {
            return None;
        }
        let offset = offset as usize;
        Some(Extension { ext_type, offset, bytes: self.bytes.get(offset..offset + len as usize)? })
    }

    /// Whether there is an extension of a type.
    #[must_use]
    pub fn has(&self, ext_type: ExtensionType) -> bool {
        self.extension(ext_type).is_some()
    }

    /// All extensions in the order of the message, unknown types too.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        extensions(self.bytes)
    }

    /// An extension that is its structure and no more; what follows it is not looked at.
    #[must_use]
    pub fn fixed<T: FromBytes>(&self, ext_type: ExtensionType) -> Option<T> {
        T::read_from_prefix(self.extension(ext_type)?.bytes).ok().map(|(t, _)| t)
    }

    /// The SA extension (its first 16 bytes in every profile).
    #[must_use]
    pub fn sa(&self) -> Option<SadbSa> {
        self.fixed(ExtensionType::SA)
    }

    /// A lifetime extension (its first 32 bytes in every profile).
    #[must_use]
    pub fn lifetime(&self, ext_type: ExtensionType) -> Option<SadbLifetime> {
        self.fixed(ext_type)
    }

    /// An address extension: its fixed part, and the sockaddr with its padding.
    #[must_use]
    pub fn address(&self, ext_type: ExtensionType) -> Option<(SadbAddress, Sockaddr<'a>)> {
        let ext = self.extension(ext_type)?;
        let (fixed, rest) = SadbAddress::read_from_prefix(ext.bytes).ok()?;
        Some((fixed, Sockaddr(rest)))
    }

    /// A key extension: its bits and the `ceil(bits/8)` bytes of key.
    #[must_use]
    pub fn key(&self, ext_type: ExtensionType) -> Option<(u16, &'a [u8])> {
        let ext = self.extension(ext_type)?;
        let (fixed, rest) = SadbKey::read_from_prefix(ext.bytes).ok()?;
        let bits = fixed.bits.get();
        Some((bits, rest.get(..usize::from(bits).div_ceil(8))?))
    }

    /// The SA2 extension.
    #[must_use]
    pub fn sa2(&self) -> Option<SadbXSa2> {
        self.fixed(ExtensionType::X_SA2)
    }

    /// The SPI range.
    #[must_use]
    pub fn spirange(&self) -> Option<SadbSpirange> {
        self.fixed(ExtensionType::SPIRANGE)
    }

    /// The policy extension: its fixed part, and the requests' bytes.
    #[must_use]
    pub fn policy(&self) -> Option<(SadbXPolicy, &'a [u8])> {
        SadbXPolicy::read_from_prefix(self.extension(ExtensionType::X_POLICY)?.bytes).ok()
    }

    /// The type of UDP encapsulation.
    #[must_use]
    pub fn nat_t_type(&self) -> Option<u8> {
        self.fixed::<SadbXNatTType>(ExtensionType::X_NAT_T_TYPE).map(|t| t.nat_t_type)
    }

    /// A NAT-T port in host byte order.
    #[must_use]
    pub fn nat_t_port(&self, ext_type: ExtensionType) -> Option<u16> {
        self.fixed::<SadbXNatTPort>(ext_type).map(|p| p.port.get())
    }

    /// The security context: its fixed part, and the `ctx_len` bytes of text.
    #[must_use]
    pub fn sec_ctx(&self) -> Option<(SadbXSecCtx, &'a [u8])> {
        let ext = self.extension(ExtensionType::X_SEC_CTX)?;
        let (fixed, rest) = SadbXSecCtx::read_from_prefix(ext.bytes).ok()?;
        Some((fixed, rest.get(..usize::from(fixed.ctx_len.get()))?))
    }

    /// The dump filter.
    #[must_use]
    pub fn filter(&self) -> Option<SadbXFilter> {
        self.fixed(ExtensionType::X_FILTER)
    }

    /// An identity extension: its fixed part, and its text up to the first NUL.
    #[must_use]
    pub fn identity(&self, ext_type: ExtensionType) -> Option<(SadbIdent, &'a [u8])> {
        let (fixed, rest) = SadbIdent::read_from_prefix(self.extension(ext_type)?.bytes).ok()?;
        Some((fixed, rest.split(|byte| *byte == 0).next().unwrap_or_default()))
    }

    /// The sensitivity: its fixed part, and the two bitmaps; `None` where they are longer than the extension.
    #[must_use]
    pub fn sensitivity(&self) -> Option<(SadbSens, &'a [u8], &'a [u8])> {
        let ext = self.extension(ExtensionType::SENSITIVITY)?;
        let (fixed, rest) = SadbSens::read_from_prefix(ext.bytes).ok()?;
        let (sens, integ) = (usize::from(fixed.sens_len) * 8, usize::from(fixed.integ_len) * 8);
        Some((fixed, rest.get(..sens)?, rest.get(sens..sens + integ)?))
    }

    /// The proposal: the suggested replay window, and its combinations (their first 72 bytes in every profile).
    #[must_use]
    pub fn proposal(&self) -> Option<(u8, impl Iterator<Item = SadbComb> + use<'a>)> {
        let (fixed, rest) = SadbProp::read_from_prefix(self.extension(ExtensionType::PROPOSAL)?.bytes).ok()?;
        let combs = rest.chunks_exact(self.profile.comb_len());
        Some((fixed.replay, combs.filter_map(|comb| SadbComb::read_from_prefix(comb).ok().map(|(c, _)| c))))
    }

    /// A list of algorithms.
    #[must_use]
    pub fn supported(&self, ext_type: ExtensionType) -> Option<impl Iterator<Item = SadbAlg> + use<'a>> {
        let (_, rest) = SadbSupported::read_from_prefix(self.extension(ext_type)?.bytes).ok()?;
        Some(rest.chunks_exact(8).filter_map(|alg| SadbAlg::read_from_bytes(alg).ok()))
    }

    /// What a key manager stored with the SA.
    #[must_use]
    pub fn kmprivate(&self) -> Option<&'a [u8]> {
        self.extension(ExtensionType::X_KMPRIVATE)?.bytes.get(8..)
    }

    /// The bytes behind `struct sadb_x_kmaddress`: two sockaddrs back to back, unchecked.
    #[must_use]
    pub fn kmaddress(&self) -> Option<&'a [u8]> {
        self.extension(ExtensionType::X_KMADDRESS)?.bytes.get(8..)
    }
}

/// The extension that starts at `offset`.
/// The extensions behind the header of any message, in its order, up to what is none: also of those that af_key sends, whose
/// headers break the rules for requests.
pub fn extensions(bytes: &[u8]) -> impl Iterator<Item = Extension<'_>> {
    let mut offset = HEADER_LEN;
    std::iter::from_fn(move || {
        let ext = extension_at(bytes, offset).ok()?;
        offset += ext.bytes.len();
        Some(ext)
    })
}

fn extension_at(bytes: &[u8], offset: usize) -> Result<Extension<'_>, WireError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let fail = |rule| Err(WireError { offset, rule });
    let Ok((head, _)) = SadbExt::read_from_prefix(rest) else {
        return fail(Rule::TrailingBytes(rest.len()));
    };
    let t = head.ext_type.get();
    let len = usize::from(head.len.get()) * 8;
    if len == 0 {
        return fail(Rule::ExtensionEmpty(t));
    }
    match rest.get(..len) {
        Some(bytes) => Ok(Extension { ext_type: ExtensionType(t), offset, bytes }),
        None => fail(Rule::ExtensionOverrun(t)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MessageType, SaType, Writer};
    use super::*;

    fn header(msg_type: MessageType) -> Header {
        Header::new(msg_type, SaType::ESP, 1, 2)
    }

    #[test]
    fn every_extension_reads_as_it_was_written() {
        let mut buffer = [0xa5; 1024];
        let mut w = Writer::new(&mut buffer, header(MessageType::ADD), Profile::Linux);
        let comb = SadbComb { auth: 3, hard_bytes: 9.into(), ..Default::default() };
        let alg = SadbAlg { id: 12, minbits: 128.into(), ..Default::default() };
        w.identity(ExtensionType::IDENTITY_SRC, 2, 77, b"host.example")
            .sensitivity(SadbSens { dpd: 5.into(), ..Default::default() }, &[1; 8], &[2; 16])
            .proposal(32, &[comb, comb])
            .supported(ExtensionType::SUPPORTED_ENCRYPT, &[alg])
            .kmprivate(&[9; 3]);
        let message = Message::parse(w.finish().unwrap(), Profile::Linux).unwrap();
        let (identity, text) = message.identity(ExtensionType::IDENTITY_SRC).unwrap();
        assert_eq!((identity.ident_type.get(), identity.id.get(), text), (2, 77, &b"host.example"[..]));
        let (sens, first, second) = message.sensitivity().unwrap();
        assert_eq!((sens.dpd.get(), first, second), (5, &[1; 8][..], &[2; 16][..]));
        let (replay, combs) = message.proposal().unwrap();
        assert_eq!((replay, combs.count()), (32, 2));
        assert_eq!(message.supported(ExtensionType::SUPPORTED_ENCRYPT).unwrap().next(), Some(alg));
        assert_eq!(message.kmprivate(), Some(&[9, 9, 9, 0, 0, 0, 0, 0][..]));
    }

    /// KLIPS's structures are longer and its numbers mean other things (Openswan's pfkeyv2.h).
    #[test]
    fn a_profile_is_sizes_and_numbers() {
        let mut buffer = [0xa5; 256];
        let mut w = Writer::new(&mut buffer, header(MessageType::ADD), Profile::Klips);
        w.sa(SadbSa { spi: 0x101.into(), ..Default::default() });
        w.lifetime(ExtensionType::LIFETIME_HARD, SadbLifetime { addtime: 60.into(), ..Default::default() });
        let bytes = w.finish().unwrap();
        assert_eq!(bytes.len(), 16 + 24 + 40);
        let message = Message::parse(bytes, Profile::Klips).unwrap();
        assert_eq!(message.sa().unwrap().spi.get(), 0x101);
        assert_eq!(message.lifetime(ExtensionType::LIFETIME_HARD).unwrap().addtime.get(), 60);
        // Linux's SA of 16 bytes is too short there, and type 24 is no message.
        let mut buffer = [0; 64];
        let mut w = Writer::new(&mut buffer, header(MessageType::ADD), Profile::Linux);
        w.sa(SadbSa::default());
        let error = Message::parse(w.finish().unwrap(), Profile::Klips).unwrap_err();
        assert_eq!(error, WireError { offset: 16, rule: Rule::ExtensionShort(1) });
        let mut buffer = [0; 16];
        let w = Writer::new(&mut buffer, header(MessageType::X_MIGRATE), Profile::Klips);
        assert_eq!(Header::check(w.finish().unwrap(), Profile::Klips).unwrap_err().rule, Rule::MessageType(24));
    }

    /// The order of af_key's checks: framing before extensions, extensions from the first to the last.
    #[test]
    fn the_first_broken_rule_is_named() {
        let rule = |bytes: &[u8]| Message::parse(bytes, Profile::Linux).unwrap_err();
        assert_eq!(rule(&[2; 15]).rule, Rule::TooShort);
        /// Where a number of two bytes has the lower one.
        const LOW: usize = cfg!(target_endian = "big") as usize;
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&[1, 99, 0, 0]);
        (bytes[4 + LOW], bytes[6 + LOW]) = (9, 1);
        assert_eq!(rule(&bytes).rule, Rule::Version(1));
        bytes[0] = 2;
        assert_eq!(rule(&bytes).rule, Rule::Reserved(1));
        bytes[6 + LOW] = 0;
        assert_eq!(rule(&bytes).rule, Rule::MessageType(99));
        bytes[1] = 3;
        assert_eq!(rule(&bytes).rule, Rule::Length { header: 72, actual: 32 });
        bytes[4 + LOW] = 4;
        assert_eq!(rule(&bytes), WireError { offset: 16, rule: Rule::ExtensionEmpty(0) });
        bytes[16 + LOW] = 3;
        assert_eq!(rule(&bytes), WireError { offset: 16, rule: Rule::ExtensionOverrun(0) });
        bytes[16 + LOW] = 1;
        assert_eq!(rule(&bytes), WireError { offset: 16, rule: Rule::ExtensionType(0) });
        bytes[18 + LOW] = 20;
        assert_eq!(rule(&bytes), WireError { offset: 24, rule: Rule::ExtensionEmpty(0) });
        bytes[24 + LOW] = 1;
        bytes[26 + LOW] = 20;
        assert_eq!(rule(&bytes), WireError { offset: 24, rule: Rule::ExtensionTwice(20) });
        bytes[26 + LOW] = 200;
        assert!(Message::parse(&bytes, Profile::Linux).is_ok(), "unknown types are skipped");
    }
}
