//! Messages of scenarios: whole ones, and ways to break them.
//!
//! Until they are sent they are in the byte order of the machines that kernels were recorded on, so that what breaks a byte, and the
//! sum of a message in a transcript, mean the same on every machine.

#[path = "../support/byte_order.rs"]
mod byte_order;

pub use byte_order::{native, recorded_extensions};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa, SadbXFilter, SadbXPolicy};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

/// The process id in every request.
pub const PID: u32 = 0x0050_1d00;

/// A message as a list of extensions, so that they can be left out, doubled, or broken one by one.
#[derive(Clone, Debug)]
pub struct Msg {
    pub header: Header,
    pub extensions: Vec<Vec<u8>>,
}

fn one(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 10_000];
    let mut w = Writer::new(&mut buffer, Header::new(MessageType::ADD, SaType::UNSPEC, 0, 0), Profile::Linux);
    build(&mut w);
    recorded_extensions(w.finish().expect("it fits")[16..].to_vec())
}

pub fn sockaddr(ip: &str, port: u16) -> Vec<u8> {
    SockaddrBytes::new(ip.parse().expect("an address"), port).as_bytes().to_vec()
}

impl Msg {
    pub fn new(msg_type: MessageType, satype: SaType, seq: u32) -> Self {
        Self { header: Header::new(msg_type, satype, seq, PID), extensions: Vec::new() }
    }

    fn with(mut self, build: impl FnOnce(&mut Writer<'_>)) -> Self {
        self.extensions.push(one(build));
        self
    }

    /// An extension as a little-endian machine has it.
    pub fn raw(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// An extension as this machine has it.
    pub fn native(self, extension: Vec<u8>) -> Self {
        self.raw(recorded_extensions(extension))
    }

    pub fn sa(self, spi: u32, auth: u8, encrypt: u8) -> Self {
        self.sa_with(SadbSa { spi: spi.into(), replay: 4, state: 1, auth, encrypt, ..Default::default() })
    }

    pub fn sa_with(self, sa: SadbSa) -> Self {
        self.with(|w| {
            w.sa(sa);
        })
    }

    pub fn address(self, ext: Ext, ip: &str, port: u16, proto: u8, plen: u8) -> Self {
        self.with(|w| {
            w.address(ext, proto, plen, &sockaddr(ip, port));
        })
    }

    pub fn pair(self, src: &str, dst: &str) -> Self {
        let plen = if src.contains(':') { 128 } else { 32 };
        self.address(Ext::ADDRESS_SRC, src, 0, 0, plen).address(Ext::ADDRESS_DST, dst, 0, 0, plen)
    }

    pub fn key(self, ext: Ext, len: usize) -> Self {
        self.key_bits(ext, (len * 8) as u16, len)
    }

    pub fn key_bits(self, ext: Ext, bits: u16, len: usize) -> Self {
        let key: Vec<u8> = (1..=len).map(|i| i as u8).collect();
        self.with(|w| {
            w.key(ext, bits, &key);
        })
    }

    pub fn lifetime(self, ext: Ext, allocations: u32, bytes: u64, addtime: u64, usetime: u64) -> Self {
        self.with(|w| {
            w.lifetime(
                ext,
                SadbLifetime {
                    allocations: allocations.into(),
                    bytes: bytes.into(),
                    addtime: addtime.into(),
                    usetime: usetime.into(),
                    ..Default::default()
                },
            );
        })
    }

    pub fn lifetimes(self, hard: u64, soft: u64) -> Self {
        self.lifetime(Ext::LIFETIME_HARD, 0, 0, hard, 0).lifetime(Ext::LIFETIME_SOFT, 0, 0, soft, 0)
    }

    pub fn sa2(self, mode: u8, reqid: u32) -> Self {
        self.with(|w| {
            w.sa2(mode, reqid);
        })
    }

    pub fn range(self, min: u32, max: u32) -> Self {
        self.with(|w| {
            w.spirange(min, max);
        })
    }

    pub fn nat_t(self, encap: u8, sport: u16, dport: u16) -> Self {
        let (a, b, c) = (
            one(|w| {
                w.nat_t(encap, sport, dport);
            })[..8]
                .to_vec(),
            one(|w| {
                w.nat_t_port(Ext::X_NAT_T_SPORT, sport);
            }),
            one(|w| {
                w.nat_t_port(Ext::X_NAT_T_DPORT, dport);
            }),
        );
        self.raw(a).raw(b).raw(c)
    }

    pub fn policy(self, policy_type: u16, dir: u8, id: u32, priority: u32, requests: &[u8]) -> Self {
        let fixed = SadbXPolicy {
            policy_type: policy_type.into(),
            dir,
            id: id.into(),
            priority: priority.into(),
            ..Default::default()
        };
        self.with(|w| {
            w.policy(fixed, requests);
        })
    }

    pub fn context(self, doi: u8, alg: u8, text: &[u8]) -> Self {
        self.with(|w| {
            w.sec_ctx(doi, alg, text);
        })
    }

    pub fn filter(self, family: u16, saddr: [u8; 4], splen: u8, daddr: [u8; 4], dplen: u8) -> Self {
        let wide = |a: [u8; 4]| {
            let mut b = [0; 16];
            b[..4].copy_from_slice(&a);
            b
        };
        let filter = SadbXFilter {
            saddr: wide(saddr),
            daddr: wide(daddr),
            family: family.into(),
            splen,
            dplen,
            ..Default::default()
        };
        self.with(|w| {
            w.filter(filter);
        })
    }

    /// The same as SPDUPDATE.
    pub fn update(mut self) -> Self {
        self.header.msg_type = MessageType::X_SPDUPDATE;
        self
    }

    /// As a little-endian machine has it.
    pub fn recorded(&self) -> Vec<u8> {
        let body = self.extensions.concat();
        let header = Header { len: ((16 + body.len()) / 8) as u16, ..self.header };
        let mut bytes = byte_order::recorded_header(zerocopy::IntoBytes::as_bytes(&header.to_layout()).to_vec());
        bytes.extend(body);
        bytes
    }

    /// As this machine has it.
    pub fn bytes(&self) -> Vec<u8> {
        native(self.recorded())
    }

    /// Without its nth extension.
    pub fn without(&self, n: usize) -> Self {
        let mut changed = self.clone();
        changed.extensions.remove(n);
        changed
    }

    /// With its nth extension changed.
    pub fn broken(&self, n: usize, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.extensions[n]);
        changed
    }

    /// The type of the nth extension.
    pub fn ext_type(&self, n: usize) -> Ext {
        Ext(u16::from_le_bytes([self.extensions[n][2], self.extensions[n][3]]))
    }
}

/// One `sadb_x_ipsecrequest`.
pub fn request(proto: u16, mode: u8, level: u8, reqid: u32, ends: Option<(&str, &str)>) -> Vec<u8> {
    let addresses = ends.map_or(Vec::new(), |(a, b)| [sockaddr(a, 0), sockaddr(b, 0)].concat());
    let mut bytes = ((16 + addresses.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(proto.to_ne_bytes());
    bytes.extend([mode, level, 0, 0]);
    bytes.extend(reqid.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(addresses);
    bytes
}
