//! An SA as a key manager asks for it.

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::algorithm::{Cipher, Compression, Hmac};
use crate::error::Invalid;
use crate::model::sa::Limits;
use crate::model::xfrm::{OffloadDevice, Xfrm};
use crate::wire::layout::{SadbLifetime, SadbSa};
use crate::wire::xfrm::Carrier;
use crate::wire::{
    AuthAlgorithm, Ends, ExtensionType as Ext, IpsecProtocol, Mode, Prefix, SaFlags, SaState, SaType, SockaddrBytes,
    Writer,
};

/// `UDP_ENCAP_ESPINUDP`.
const ESP_IN_UDP: u8 = 2;

/// An SA to be added or updated. What makes no sense is found when it is sent, before anything is.
///
/// ```
/// use pfkey::{Cipher, Hmac, Sa};
/// let sa = Sa::esp([192, 0, 2, 1], [192, 0, 2, 2], 0x1000).encrypt(Cipher::AesCbc, &[0; 17]).authenticate(Hmac::Sha1, &[0; 20]);
/// assert_eq!(sa.check().unwrap_err().to_string(), "encryption key: aes-cbc takes 128 or 192 or 256 bits, not 136");
/// ```
#[derive(Clone)]
pub struct Sa {
    satype: SaType,
    src: IpAddr,
    dst: IpAddr,
    spi: u32,
    mode: Mode,
    reqid: u32,
    replay: u8,
    flags: SaFlags,
    cipher: Option<(Cipher, Zeroizing<Vec<u8>>)>,
    hmac: Option<(Hmac, Zeroizing<Vec<u8>>)>,
    compression: Option<Compression>,
    hard: Limits,
    soft: Limits,
    ports: Option<(u16, u16)>,
    inner: Option<Prefix>,
    label: Option<String>,
    xfrm: Xfrm,
    /// Of the ACQUIRE or GETSPI that it answers.
    pub(crate) seq: Option<u32>,
}

impl fmt::Debug for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sa({:?} {} -> {} {:#x}, keys hidden)", self.satype, self.src, self.dst, self.spi)
    }
}

impl Sa {
    fn new(satype: SaType, src: IpAddr, dst: IpAddr, spi: u32) -> Self {
        Self {
            satype,
            src,
            dst,
            spi,
            mode: Mode::TRANSPORT,
            reqid: 0,
            replay: 0,
            flags: SaFlags::NONE,
            cipher: None,
            hmac: None,
            compression: None,
            hard: Limits::NONE,
            soft: Limits::NONE,
            ports: None,
            inner: None,
            label: None,
            xfrm: Xfrm::default(),
            seq: None,
        }
    }

    /// An ESP SA in transport mode. Needs a cipher.
    #[must_use]
    pub fn esp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, spi: u32) -> Self {
        Self::new(SaType::ESP, src.into(), dst.into(), spi)
    }

    /// An AH SA in transport mode. Needs authentication.
    #[must_use]
    pub fn ah(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, spi: u32) -> Self {
        Self::new(SaType::AH, src.into(), dst.into(), spi)
    }

    /// An IPComp SA in transport mode, whose SPI is a CPI (RFC 3173).
    #[must_use]
    pub fn ipcomp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, cpi: u16, compression: Compression) -> Self {
        let sa = Self::new(SaType::X_IPCOMP, src.into(), dst.into(), cpi.into());
        Self { compression: Some(compression), ..sa }
    }

    /// In tunnel mode.
    #[must_use]
    pub const fn tunnel(self) -> Self {
        self.mode(Mode::TUNNEL)
    }

    /// In a mode: transport, tunnel, or BEET.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The request id that policies name; 0 = none.
    #[must_use]
    pub const fn reqid(mut self, reqid: u32) -> Self {
        self.reqid = reqid;
        self
    }

    /// The replay window in packets; 0 = replays are not looked for. Linux takes 32 at most through PF_KEY.
    #[must_use]
    pub const fn replay_window(mut self, packets: u8) -> Self {
        self.replay = packets;
        self
    }

    /// `SADB_SAFLAGS_*` and `SADB_X_EXT_*`.
    #[must_use]
    pub const fn flags(mut self, flags: SaFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Encrypts with a key, which an AEAD's salt follows.
    #[must_use]
    pub fn encrypt(mut self, cipher: Cipher, key: &[u8]) -> Self {
        self.cipher = Some((cipher, Zeroizing::new(key.to_vec())));
        self
    }

    /// Authenticates with a key.
    #[must_use]
    pub fn authenticate(mut self, hmac: Hmac, key: &[u8]) -> Self {
        self.hmac = Some((hmac, Zeroizing::new(key.to_vec())));
        self
    }

    /// The limits at which it dies.
    #[must_use]
    pub const fn hard(mut self, limits: Limits) -> Self {
        self.hard = limits;
        self
    }

    /// The limits at which its key manager is told to renew it.
    #[must_use]
    pub const fn soft(mut self, limits: Limits) -> Self {
        self.soft = limits;
        self
    }

    /// ESP in UDP (RFC 3948) between these ports.
    #[must_use]
    pub const fn udp(mut self, sport: u16, dport: u16) -> Self {
        self.ports = Some((sport, dport));
        self
    }

    /// Where its packets come from, if that is not its own source (`SADB_EXT_ADDRESS_PROXY`).
    #[must_use]
    pub const fn inner_source(mut self, prefix: Prefix) -> Self {
        self.inner = Some(prefix);
        self
    }

    /// A security label of SELinux.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What XFRM has beyond PF_KEY. AF_KEY has nothing of it.
    ///
    /// ```
    /// use pfkey::{Calls, Cipher, Event, Hmac, OffloadDevice, Received, Request, Sa, Xfrm};
    /// let device = OffloadDevice { ifindex: 7, inbound: false, packet: true };
    /// let beyond = Xfrm::default().with_if_id(42).with_mark(0x10, 0xff).with_esn(256).with_icv(128).with_offload(device);
    /// let sa = Sa::esp([192, 0, 2, 1], [192, 0, 2, 2], 0x1000)
    ///     .encrypt(Cipher::AesCbc, &[1; 16])
    ///     .authenticate(Hmac::Sha256, &[2; 32])
    ///     .xfrm(beyond);
    /// // What is sent, and what who asked for it (`Client::show_xfrm`) reads of it:
    /// let mut buffer = Vec::new();
    /// let (_, message) = Calls::new().begin(&Request::Add(&sa), &mut buffer)?;
    /// let Some(Event::SaAdded(info)) = Received::read(message).map(|received| Event::of(&received)) else { panic!() };
    /// let xfrm = &info.attached.xfrm;
    /// assert_eq!((xfrm.if_id(), xfrm.mark().value, xfrm.window(), xfrm.icv_bits()), (42, 0x10, Some(256), Some(128)));
    /// assert_eq!((xfrm.is_esn(), xfrm.offload(), xfrm.set_mark()), (true, Some(device), None));
    ///
    /// let two_windows = sa.replay_window(4).check().unwrap_err();
    /// assert!(two_windows.to_string().contains("XFRMA_REPLAY_ESN_VAL"));
    /// # Ok::<(), pfkey::Invalid>(())
    /// ```
    #[must_use]
    pub fn xfrm(mut self, xfrm: Xfrm) -> Self {
        self.xfrm = xfrm;
        self
    }

    /// Of an XFRM interface.
    #[must_use]
    pub fn if_id(mut self, if_id: u32) -> Self {
        self.xfrm = self.xfrm.with_if_id(if_id);
        self
    }

    /// For packets whose mark is `value` in the bits of `mask`.
    #[must_use]
    pub fn mark(mut self, value: u32, mask: u32) -> Self {
        self.xfrm = self.xfrm.with_mark(value, mask);
        self
    }

    /// With extended sequence numbers and a replay window of so many packets, 4096 at most, in the place of
    /// [`Sa::replay_window`].
    #[must_use]
    pub fn esn(mut self, packets: u32) -> Self {
        self.xfrm = self.xfrm.with_esn(packets);
        self
    }

    /// With so many bits of integrity value.
    #[must_use]
    pub fn icv(mut self, bits: u32) -> Self {
        self.xfrm = self.xfrm.with_icv(bits);
        self
    }

    /// With a network interface that does the cryptography.
    #[must_use]
    pub fn offload(mut self, device: OffloadDevice) -> Self {
        self.xfrm = self.xfrm.with_offload(device);
        self
    }

    /// With the mark and the XFRM interface of what it answers, where it says none.
    pub(crate) fn or_scope(mut self, other: &Xfrm) -> Self {
        self.xfrm = self.xfrm.or_scope(other);
        self
    }

    /// What XFRM has beyond PF_KEY.
    pub(crate) const fn beyond(&self) -> &Xfrm {
        &self.xfrm
    }

    /// Answers the request or ACQUIRE with this sequence number.
    #[must_use]
    pub const fn answering(mut self, seq: u32) -> Self {
        self.seq = Some(seq);
        self
    }

    /// AH, ESP or IPComp.
    #[must_use]
    pub const fn satype(&self) -> SaType {
        self.satype
    }

    /// Whether it can be sent.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), Invalid> {
        if Ends::new(self.src, self.dst).is_none() {
            return Err(Invalid::new("destination", "of another family than the source"));
        }
        if (1..256).contains(&self.spi) && self.satype != SaType::X_IPCOMP || self.spi == 0 {
            return Err(Invalid::new("SPI", format_args!("{:#x}: RFC 4303 reserves 0 to 255", self.spi)));
        }
        if self.mode == Mode::ANY || self.mode > Mode::BEET {
            return Err(Invalid::new("mode", "transport, tunnel or BEET"));
        }
        match (self.satype, &self.cipher, &self.hmac) {
            (SaType::AH, Some(_), _) => return Err(Invalid::new("encryption", "AH has none")),
            (SaType::AH, None, None) => return Err(Invalid::new("authentication", "AH needs it")),
            (SaType::ESP, None, _) => return Err(Invalid::new("encryption", "ESP needs it, if only null")),
            (SaType::ESP, Some((cipher, _)), Some((hmac, _))) if cipher.is_aead() && *hmac != Hmac::Null => {
                return Err(Invalid::new("authentication", format_args!("{cipher} authenticates already")));
            }
            (SaType::X_IPCOMP, None, None) | (SaType::AH | SaType::ESP, ..) => {}
            _ => return Err(Invalid::new("algorithms", "IPComp has neither encryption nor authentication")),
        }
        if let Some((cipher, key)) = &self.cipher {
            check_key("encryption key", &cipher, cipher.row(), key)?;
        }
        if let Some((hmac, key)) = &self.hmac {
            check_key("authentication key", &hmac, hmac.row(), key)?;
        }
        if self.ports.is_some() && self.satype != SaType::ESP {
            return Err(Invalid::new("UDP ports", "only ESP is encapsulated in UDP"));
        }
        for (field, hard, soft) in [
            ("soft packets", self.hard.packets, self.soft.packets),
            ("soft bytes", self.hard.bytes, self.soft.bytes),
            ("soft seconds since it was added", self.hard.add_seconds, self.soft.add_seconds),
            ("soft seconds since it was used", self.hard.use_seconds, self.soft.use_seconds),
        ] {
            if hard != 0 && soft > hard {
                return Err(Invalid::new(field, format_args!("{soft} are more than the hard limit's {hard}")));
            }
        }
        for (field, packets) in [("hard packets", self.hard.packets), ("soft packets", self.soft.packets)] {
            if u32::try_from(packets).is_err() {
                return Err(Invalid::new(field, "PF_KEY counts to 2^32-1"));
            }
        }
        check_xfrm(&self.xfrm, Carrier::Sa, self.replay)?;
        if let Some(inner) = self.inner {
            crate::policy::check_prefix("inner source", inner)?;
        }
        crate::policy::check_label(self.label.as_deref())
    }

    /// Writes it behind a header.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        let number = self.cipher.as_ref().map(|(cipher, _)| cipher.number().0);
        writer.sa(SadbSa {
            spi: self.spi.into(),
            replay: self.replay,
            state: SaState::MATURE.0,
            auth: self.hmac.as_ref().map_or(AuthAlgorithm::NONE, |(hmac, _)| hmac.number()).0,
            encrypt: number.or(self.compression.map(|compression| compression.number().0)).unwrap_or(0),
            flags: self.flags.0.into(),
            ..SadbSa::default()
        });
        writer.sa2(self.mode.0, self.reqid);
        write_ends(writer, self.src, self.dst);
        if let Some((_, key)) = &self.cipher {
            write_key(writer, Ext::KEY_ENCRYPT, key);
        }
        if let Some((_, key)) = &self.hmac {
            write_key(writer, Ext::KEY_AUTH, key);
        }
        writer.lifetime(Ext::LIFETIME_HARD, lifetime(&self.hard));
        writer.lifetime(Ext::LIFETIME_SOFT, lifetime(&self.soft));
        if let Some(inner) = self.inner {
            let address = SockaddrBytes::new(inner.address, 0);
            writer.address(Ext::ADDRESS_PROXY, IpsecProtocol::ANY.0, inner.len, address.as_bytes());
        }
        if let Some((sport, dport)) = self.ports {
            writer.nat_t(ESP_IN_UDP, sport, dport);
        }
        crate::policy::write_label(writer, self.label.as_deref());
        self.xfrm.write(writer);
    }
}

pub(crate) fn check_xfrm(xfrm: &Xfrm, carrier: Carrier, replay: u8) -> Result<(), Invalid> {
    xfrm.check(carrier, replay).map_err(|refusal| Invalid::new("attributes of XFRM's", refusal))
}

fn check_key(
    field: &'static str,
    name: &dyn fmt::Display,
    row: Option<&crate::wire::algorithm::Algorithm>,
    key: &[u8],
) -> Result<(), Invalid> {
    match row {
        Some(row) if !row.keys.contains(key.len() * 8) => {
            Err(Invalid::new(field, format_args!("{name} takes {}, not {}", row.keys, key.len() * 8)))
        }
        _ => Ok(()),
    }
}

fn write_key(writer: &mut Writer<'_>, ext: Ext, key: &[u8]) {
    // Its length was checked.
    writer.key(ext, (key.len() * 8) as u16, key);
}

pub(crate) fn lifetime(limits: &Limits) -> SadbLifetime {
    SadbLifetime {
        allocations: (limits.packets as u32).into(),
        bytes: limits.bytes.into(),
        addtime: limits.add_seconds.into(),
        usetime: limits.use_seconds.into(),
        ..SadbLifetime::default()
    }
}

/// Both addresses of an SA.
pub(crate) fn write_ends(writer: &mut Writer<'_>, src: IpAddr, dst: IpAddr) {
    for (ext, address) in [(Ext::ADDRESS_SRC, src), (Ext::ADDRESS_DST, dst)] {
        let host = Prefix::host(address);
        writer.address(ext, IpsecProtocol::ANY.0, host.len, SockaddrBytes::new(address, 0).as_bytes());
    }
}
