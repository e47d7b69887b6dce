//! An SA.

use std::net::SocketAddr;

use crate::failure::Unwritable;
use pfkey_wire::layout::{SadbLifetime, SadbSa, SadbXNatTType};
use pfkey_wire::xfrm::{Carrier, attribute};
use pfkey_wire::{ExtensionType as Ext, Header, Message, MessageType, Profile, SaFlags, SaType, Writer};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::attached::Attached;
use super::xfrm::Report;
use super::{host, host_port, names, ports, sockaddr, socket_addr, utc, width};
use crate::channel::finish;
use crate::output::{Record, Value, hex};

/// A key, wiped when dropped.
pub type Key = Zeroizing<Vec<u8>>;

/// `UDP_ENCAP_ESPINUDP`.
pub const ESP_IN_UDP: u8 = 2;
/// The port of an end of which none is said (RFC 3947).
const NAT_T_PORT: u16 = 4500;
/// KAME's `SADB_X_EXT_CYCSEQ`, which setkey sets unless told otherwise. Linux ignores it.
pub const CYCLIC_SEQ: u32 = 0x40;
/// KAME's flags by setkey's names, and Linux's, which setkey cannot name.
pub const FLAGS: &[(&str, u32)] = &[
    ("zero-pad", 0x200),
    ("random-pad", 0x100),
    ("seq-pad", 0),
    ("nopmtudisc", SaFlags::NOPMTUDISC.0),
    ("decap-dscp", SaFlags::DECAP_DSCP.0),
    ("noecn", SaFlags::NOECN.0),
];
/// The flags that Linux keeps.
pub const KEPT_FLAGS: u32 = SaFlags::KEPT.0;

/// UDP encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatT {
    /// `UDP_ENCAP_*`; the ports are those of the SA's addresses, or else 4500.
    pub encap_type: u8,
    /// The peer's original address.
    pub original: Option<SocketAddr>,
}

/// What is asked for.
#[derive(Clone, PartialEq)]
pub struct Sa {
    /// Protocol.
    pub satype: SaType,
    /// Source; the port is that of UDP encapsulation.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// SPI in host byte order.
    pub spi: u32,
    /// `IPSEC_MODE_*`.
    pub mode: u8,
    /// Request id.
    pub reqid: u32,
    /// Replay window in packets.
    pub replay: u8,
    /// `SADB_SAFLAGS_*` and KAME's.
    pub flags: u32,
    /// Where it dies.
    pub hard: Lifetime,
    /// Where a successor is asked for.
    pub soft: Lifetime,
    /// Authentication algorithm.
    pub auth: u8,
    /// Its key.
    pub auth_key: Option<Key>,
    /// Encryption or compression algorithm.
    pub encrypt: u8,
    /// Its key; empty for the null cipher.
    pub encrypt_key: Option<Key>,
    /// UDP encapsulation.
    pub nat_t: Option<NatT>,
    /// The traffic that the SA is limited to.
    pub proxy: Option<(SocketAddr, u8)>,
    /// What policies have as well.
    pub attached: Attached,
}

/// What names an SA: protocol, destination address, SPI, mark.
pub type SaId = (u8, std::net::IpAddr, u32, u32);

/// Limits of an SA, or what was used of them; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Packets.
    pub allocations: u32,
    pub bytes: u64,
    /// Seconds since creation, or its time.
    pub addtime: u64,
    /// Seconds since first use, or its time.
    pub usetime: u64,
}

fn layout(lifetime: Lifetime) -> SadbLifetime {
    SadbLifetime {
        allocations: lifetime.allocations.into(),
        bytes: lifetime.bytes.into(),
        addtime: lifetime.addtime.into(),
        usetime: lifetime.usetime.into(),
        ..Default::default()
    }
}

fn lifetime(message: &Message<'_>, ext: Ext) -> Lifetime {
    message.lifetime(ext).map_or_else(Lifetime::default, |l| Lifetime {
        allocations: l.allocations.get(),
        bytes: l.bytes.get(),
        addtime: l.addtime.get(),
        usetime: l.usetime.get(),
    })
}

impl Sa {
    /// An SA that says nothing yet.
    pub fn new(satype: SaType, src: SocketAddr, dst: SocketAddr, spi: u32) -> Self {
        Self {
            satype,
            src,
            dst,
            spi,
            mode: 0,
            reqid: 0,
            replay: 0,
            flags: CYCLIC_SEQ,
            hard: Lifetime::default(),
            soft: Lifetime::default(),
            auth: 0,
            auth_key: None,
            encrypt: 0,
            encrypt_key: None,
            nat_t: None,
            proxy: None,
            attached: Attached::default(),
        }
    }

    /// What names it.
    pub fn id(&self) -> SaId {
        (self.satype.0, self.dst.ip(), self.spi, self.attached.xfrm.mark().masked())
    }

    /// Whether an UPDATE makes another of it: one of an SA in use changes its limits and, where both are encapsulated in the same
    /// way, what belongs to the encapsulation. It keeps its sequence numbers, replay window and usage.
    pub fn can_become(&self, other: &Self) -> bool {
        let with_port = |end: SocketAddr, of: SocketAddr| SocketAddr::new(end.ip(), of.port());
        let encap_type = |sa: &Self| sa.nat_t.map(|nat_t| nat_t.encap_type);
        let updated = Self {
            hard: other.hard,
            soft: other.soft,
            src: with_port(self.src, other.src),
            dst: with_port(self.dst, other.dst),
            nat_t: other.nat_t,
            ..self.clone()
        };
        encap_type(self) == encap_type(other) && updated == *other
    }

    /// For people.
    pub fn title(&self) -> String {
        format!("{} {} {} spi {:#010x}", names::satype(self.satype), host(self.src), host(self.dst), self.spi)
    }

    fn address(w: &mut Writer<'_>, ext: Ext, address: SocketAddr, prefix: u8) {
        w.address(ext, pfkey_wire::IpsecProtocol::ANY.0, prefix, sockaddr(address).as_bytes());
    }

    /// The message, with the extensions in setkey's order: ADD, UPDATE and GETSPI with everything, GET and DELETE
    /// with what names the SA.
    pub fn write(&self, msg_type: MessageType, seq: u32, pid: u32, buffer: &mut [u8]) -> Result<usize, Unwritable> {
        let header = Header::new(msg_type, self.satype, seq, pid);
        let mut w = Writer::new(buffer, header, Profile::Linux);
        let whole = matches!(msg_type, MessageType::ADD | MessageType::UPDATE | MessageType::GETSPI);
        if whole {
            if let Some(key) = &self.encrypt_key {
                w.key(Ext::KEY_ENCRYPT, bits(key)?, key);
            }
            if let Some(key) = self.auth_key.as_ref().filter(|key| !key.is_empty()) {
                w.key(Ext::KEY_AUTH, bits(key)?, key);
            }
            // The kernel wants both or none.
            if (self.hard, self.soft) != Default::default() {
                w.lifetime(Ext::LIFETIME_HARD, layout(self.hard)).lifetime(Ext::LIFETIME_SOFT, layout(self.soft));
            }
            self.attached.write_label(&mut w);
            if msg_type == MessageType::GETSPI && self.spi != 0 {
                w.spirange(self.spi, self.spi);
            }
        }
        w.sa(SadbSa {
            spi: self.spi.into(),
            replay: self.replay,
            auth: self.auth,
            encrypt: self.encrypt,
            flags: self.flags.into(),
            ..Default::default()
        });
        w.sa2(self.mode, self.reqid);
        let nat_t = self.nat_t.filter(|_| whole);
        if let Some(nat_t) = nat_t {
            let fixed = SadbXNatTType {
                len: 1.into(),
                exttype: Ext::X_NAT_T_TYPE.0.into(),
                nat_t_type: nat_t.encap_type,
                ..Default::default()
            };
            w.raw(fixed.as_bytes());
            if let Some(original) = nat_t.original {
                Self::address(&mut w, Ext::X_NAT_T_OA, original, width(original));
            }
        }
        Self::address(&mut w, Ext::ADDRESS_SRC, self.src, width(self.src));
        Self::address(&mut w, Ext::ADDRESS_DST, self.dst, width(self.dst));
        if let Some((proxy, prefix)) = self.proxy.filter(|_| whole) {
            Self::address(&mut w, Ext::ADDRESS_PROXY, proxy, prefix);
        }
        if nat_t.is_some() {
            let port = |end: SocketAddr| if end.port() == 0 { NAT_T_PORT } else { end.port() };
            w.nat_t_port(Ext::X_NAT_T_SPORT, port(self.src)).nat_t_port(Ext::X_NAT_T_DPORT, port(self.dst));
        }
        self.attached.write(if whole { Carrier::Sa } else { Carrier::SaName }, &mut w);
        finish(w)
    }
}

fn bits(key: &[u8]) -> Result<u16, Unwritable> {
    u16::try_from(key.len() * 8).map_err(|_| Unwritable::KeyLength)
}

/// An SA as a key engine tells of it.
#[derive(Clone, PartialEq)]
pub struct SaEntry {
    /// What was asked for.
    pub sa: Sa,
    /// `SADB_SASTATE_*`.
    pub state: u8,
    /// What was used so far; the times are Unix times.
    pub current: Lifetime,
    /// What is reported besides.
    pub report: Report,
}

impl SaEntry {
    /// From a message; `None` if it does not tell of an SA.
    pub fn of(message: &Message<'_>) -> Option<Self> {
        let fixed = message.sa()?;
        let mut src = socket_addr(message.address(Ext::ADDRESS_SRC)?.1)?;
        let mut dst = socket_addr(message.address(Ext::ADDRESS_DST)?.1)?;
        let nat_t = message.nat_t_type().filter(|t| *t != 0).map(|encap_type| {
            src.set_port(message.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0));
            dst.set_port(message.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0));
            NatT { encap_type, original: message.address(Ext::X_NAT_T_OA).and_then(|(_, a)| socket_addr(a)) }
        });
        let key = |ext| message.key(ext).map(|(_, key)| Zeroizing::new(key.to_vec()));
        let sa2 = message.sa2();
        // af_key tells of a selector for everything as 0.0.0.0/0.
        let proxy = message.address(Ext::ADDRESS_PROXY).and_then(|(fixed, address)| {
            let address = socket_addr(address)?;
            (fixed.prefixlen != 0 || !address.ip().is_unspecified()).then_some((address, fixed.prefixlen))
        });
        let mut sa = Sa::new(message.header().satype, src, dst, fixed.spi.get());
        sa.mode = sa2.map_or(0, |sa2| sa2.mode);
        sa.reqid = sa2.map_or(0, |sa2| sa2.reqid.get());
        sa.replay = fixed.replay;
        sa.flags = fixed.flags.get();
        sa.hard = lifetime(message, Ext::LIFETIME_HARD);
        sa.soft = lifetime(message, Ext::LIFETIME_SOFT);
        sa.auth = fixed.auth;
        sa.auth_key = key(Ext::KEY_AUTH);
        sa.encrypt = fixed.encrypt;
        sa.encrypt_key = key(Ext::KEY_ENCRYPT);
        // The null cipher's empty key is asked for but never told.
        if sa.encrypt != 0 && sa.encrypt_key.is_none() && sa.satype == SaType::ESP {
            sa.encrypt_key = Some(Key::default());
        }
        sa.nat_t = nat_t;
        sa.proxy = proxy;
        let (attached, report) = Attached::of(message);
        sa.attached = attached;
        Some(Self { sa, state: fixed.state, current: lifetime(message, Ext::LIFETIME_CURRENT), report })
    }

    /// Whether it is mature or dying, and can be made again.
    pub fn is_whole(&self) -> bool {
        matches!(self.state, 1 | 2)
    }

    /// Whether it has a key that is worth hiding.
    pub fn has_key(&self) -> bool {
        [&self.sa.auth_key, &self.sa.encrypt_key].into_iter().flatten().any(|key| !key.is_empty())
    }

    /// What is shown of it.
    pub fn record(&self) -> Record {
        let sa = &self.sa;
        let mut record: Record = vec![
            ("protocol", Value::Text(self.protocol())),
            ("spi", Value::Hex(sa.spi)),
            ("source", Value::Said(host_port(sa.src), Box::new(Value::Text(host(sa.src))))),
            ("destination", Value::Said(host_port(sa.dst), Box::new(Value::Text(host(sa.dst))))),
            ("mode", Value::Text(names::mode(sa.mode))),
            ("reqid", Value::Number(sa.reqid.into())),
            ("state", Value::Text(names::state(self.state))),
            ("replay", Value::Number(sa.replay.into())),
        ];
        record.extend(ports(sa.src.port(), sa.dst.port()));
        let algorithms = if sa.satype == SaType::X_IPCOMP {
            ("compression", names::COMPRESS)
        } else {
            ("encryption", names::ENCRYPT)
        };
        if sa.encrypt != 0 {
            record.push((algorithms.0, Value::Text(names::shown(algorithms.1, sa.encrypt))));
        }
        let mut key = |names: (&'static str, &'static str), key: &Option<Key>| {
            if let Some(key) = key.as_ref().filter(|key| !key.is_empty()) {
                record.push((names.0, Value::Number(key.len() as u64 * 8)));
                record.push((names.1, Value::Key(key.clone())));
            }
        };
        key(("encryption_key_bits", "encryption_key"), &sa.encrypt_key);
        if sa.auth != 0 {
            key(("authentication_key_bits", "authentication_key"), &sa.auth_key);
            record.push(("authentication", Value::Text(names::shown(names::AUTH, sa.auth))));
        }
        let flags: Vec<_> = FLAGS.iter().filter(|(_, bit)| sa.flags & bit & KEPT_FLAGS != 0).collect();
        if !flags.is_empty() {
            record.push(("flags", Value::List(flags.iter().map(|(name, _)| (*name).to_owned()).collect())));
        }
        if let Some((address, prefix)) = sa.proxy {
            record.push(("selector", Value::Text(format!("{}/{prefix}", host(address)))));
        }
        let names = [
            ("hard_seconds", "hard_idle_seconds", "hard_bytes", "hard_packets"),
            ("soft_seconds", "soft_idle_seconds", "soft_bytes", "soft_packets"),
        ];
        for (names, limit) in names.into_iter().zip([sa.hard, sa.soft]) {
            let numbers = [
                (names.0, limit.addtime),
                (names.1, limit.usetime),
                (names.2, limit.bytes),
                (names.3, limit.allocations.into()),
            ];
            record.extend(numbers.into_iter().filter(|(_, n)| *n != 0).map(|(name, n)| (name, Value::Number(n))));
        }
        record.extend(sa.attached.record(Carrier::Sa, self.report));
        record.push(("bytes", Value::Number(self.current.bytes)));
        record.push(("packets", Value::Number(self.current.allocations.into())));
        for (name, time) in [("created", self.current.addtime), ("used", self.current.usetime)] {
            if time != 0 {
                record.push((name, Value::Text(utc(time))));
            }
        }
        record
    }

    fn protocol(&self) -> String {
        match self.sa.nat_t {
            Some(nat_t) if nat_t.encap_type == ESP_IN_UDP => "esp-udp".to_owned(),
            _ => names::satype(self.sa.satype),
        }
    }

    /// The `add` command that makes it again, or why there is none.
    pub fn command(&self) -> Result<Zeroizing<String>, &'static str> {
        use std::fmt::Write as _;
        let sa = &self.sa;
        match self.state {
            1 | 2 => {}
            0 => return Err("larval: a key manager is still negotiating it"),
            _ => return Err("dead"),
        }
        if sa.nat_t.is_some_and(|n| n.encap_type != ESP_IN_UDP) {
            return Err("an encapsulation that the file language cannot name");
        }
        if !names::PROTOCOLS.iter().any(|(_, satype)| *satype == sa.satype) {
            return Err("a protocol that the file language cannot name");
        }
        if sa.mode > 3 {
            return Err("a mode that the file language cannot name");
        }
        let key_len = |key: &Option<Key>| key.as_ref().map_or(0, |key| key.len());
        // Long enough that it never moves and leaves a copy of the keys behind.
        let keys = key_len(&sa.encrypt_key) + key_len(&sa.auth_key);
        let attached = sa.attached.words(Carrier::Sa)?;
        let mut text = Zeroizing::new(String::with_capacity(1024 + keys * 2 + attached.len()));
        let prefix = format!("add {} {} {} {:#x}", host_port(sa.src), host_port(sa.dst), self.protocol(), sa.spi);
        text.push_str(&prefix);
        let _ = write!(text, " -m {}", names::mode(sa.mode));
        for (flag, bit) in FLAGS {
            if sa.flags & bit & KEPT_FLAGS != 0 {
                let _ = write!(text, " -f {flag}");
            }
        }
        let limits = |limit: Lifetime| [limit.addtime, limit.bytes, limit.usetime, limit.allocations.into()];
        // Where the attribute has the window, `-r` would be another.
        let has_window = sa.attached.xfrm.attributes().payload(attribute::REPLAY_ESN_VAL).is_some();
        let replay = if has_window { 0 } else { sa.replay };
        let options = [("-u", sa.reqid.into()), ("-r", replay.into())];
        let hard = ["-lh", "-bh", "-uh", "-ph"].into_iter().zip(limits(sa.hard));
        let soft = ["-ls", "-bs", "-us", "-ps"].into_iter().zip(limits(sa.soft));
        for (option, number) in options.into_iter().chain(hard).chain(soft).filter(|(_, n)| *n != 0) {
            let _ = write!(text, " {option} {number}");
        }
        if let Some((address, prefix)) = sa.proxy {
            let _ = write!(text, " -proxy {}/{prefix}", host(address));
        }
        text.push_str(&attached);
        let unnamed = "an algorithm that has no name";
        if sa.satype == SaType::X_IPCOMP {
            let _ = write!(text, " -C {}", names::name_of(names::COMPRESS, sa.encrypt).ok_or(unnamed)?);
        } else if sa.encrypt != 0 {
            let _ = write!(text, " -E {}", names::name_of(names::ENCRYPT, sa.encrypt).ok_or(unnamed)?);
            // The null cipher takes no key.
            if let Some(key) = sa.encrypt_key.as_ref().filter(|key| !key.is_empty()) {
                push_key(&mut text, key);
            }
        } else if sa.satype == SaType::ESP {
            return Err("no encryption algorithm that PF_KEY knows");
        }
        if sa.auth != 0 && sa.satype != SaType::X_IPCOMP {
            let _ = write!(text, " -A {}", names::name_of(names::AUTH, sa.auth).ok_or(unnamed)?);
            let null = names::name_of(names::AUTH, sa.auth) == Some("null");
            if !null {
                push_key(&mut text, sa.auth_key.as_ref().unwrap_or(&Key::default()));
            }
        } else if sa.satype == SaType::AH {
            return Err("no authentication algorithm that PF_KEY knows");
        }
        text.push(';');
        Ok(text)
    }
}

/// A key as the file language has it: hexadecimal, or an empty string.
fn push_key(text: &mut String, key: &Key) {
    text.push(' ');
    if key.is_empty() {
        text.push_str("\"\"");
    } else {
        text.push_str(&hex(key));
    }
}
