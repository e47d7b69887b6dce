//! An engine with some sockets, and messages written byte by byte as Openswan's `pfkeyv2.h` lays them out.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pfkey_rs::hub::{Errno, Queues, Service as _, SessionId};
use pfkey_rs::klips::number::*;
use pfkey_rs::klips::{Engine, Flow, Hub, Outcome, Packet, PacketId};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType as M, SaType as S};

pub const A: &str = "10.0.0.1";
pub const B: &str = "10.0.0.2";
pub const SPI: u32 = 0x1000;
/// Where the sockets' clock begins.
pub const START: u64 = 1_000_000;

/// A message under construction.
#[derive(Clone, Debug)]
pub struct Msg {
    pub head: [u8; 16],
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Msg {
    /// Version 2, sequence number 7, process 4242.
    pub fn new(msg_type: M, satype: S) -> Self {
        let mut head = [0; 16];
        head[..4].copy_from_slice(&[2, msg_type.0, 0, satype.0]);
        head[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        head[12..].copy_from_slice(&4242_u32.to_ne_bytes());
        Self { head, extensions: Vec::new() }
    }

    pub fn with_errno(mut self, errno: u8) -> Self {
        self.head[2] = errno;
        self
    }

    /// An extension: everything behind its length and type.
    pub fn ext(mut self, ext: Ext, body: &[u8]) -> Self {
        self.extensions.push((ext.0, body.to_vec()));
        self
    }

    pub fn without(mut self, ext: Ext) -> Self {
        self.extensions.retain(|(t, _)| *t != ext.0);
        self
    }

    pub fn sa(self, sa: Sa) -> Self {
        self.ext(Ext::SA, &sa.body())
    }

    pub fn address(self, ext: Ext, ip: &str) -> Self {
        self.ext(ext, &address(ip, 0))
    }

    pub fn ends(self) -> Self {
        self.address(Ext::ADDRESS_SRC, A).address(Ext::ADDRESS_DST, B)
    }

    pub fn key(self, ext: Ext, bytes: usize) -> Self {
        self.ext(ext, &key((bytes * 8) as u16, bytes))
    }

    pub fn range(self, min: u32, max: u32) -> Self {
        self.ext(Ext::SPIRANGE, &[min.to_be_bytes(), max.to_be_bytes(), [0; 4]].concat())
    }

    pub fn lifetime(self, ext: Ext, bytes: u64, addtime: u64, usetime: u64, packets: u32) -> Self {
        self.ext(ext, &lifetime(0, bytes, addtime, usetime, packets))
    }

    /// A flow of addresses with prefixes, protocol 0 and no ports.
    pub fn flow(self, src: &str, dst: &str) -> Self {
        self.flow_of(src, 0, dst, 0)
    }

    /// A flow of addresses with prefixes and ports; a port that is not 0 matters wholly.
    pub fn flow_of(self, src: &str, sport: u16, dst: &str, dport: u16) -> Self {
        let (src, src_mask) = prefix(src);
        let (dst, dst_mask) = prefix(dst);
        let mask = |port| if port == 0 { 0 } else { 0xffff };
        self.ext(X_EXT_ADDRESS_SRC_FLOW, &address(&src, sport))
            .ext(X_EXT_ADDRESS_DST_FLOW, &address(&dst, dport))
            .ext(X_EXT_ADDRESS_SRC_MASK, &address(&src_mask, mask(sport)))
            .ext(X_EXT_ADDRESS_DST_MASK, &address(&dst_mask, mask(dport)))
    }

    pub fn protocol(self, proto: u8) -> Self {
        self.ext(X_EXT_PROTOCOL, &[proto, 0, 0, 0])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_vec();
        for (ext, body) in &self.extensions {
            let len = (4 + body.len()).next_multiple_of(8);
            bytes.extend(((len / 8) as u16).to_ne_bytes());
            bytes.extend(ext.to_ne_bytes());
            bytes.extend(body);
            bytes.resize(bytes.len() + len - 4 - body.len(), 0);
        }
        let words = (bytes.len() / 8) as u16;
        bytes[4..6].copy_from_slice(&words.to_ne_bytes());
        bytes
    }
}

/// An SA extension's fields.
#[derive(Clone, Copy)]
pub struct Sa {
    pub spi: u32,
    pub replay: u8,
    pub state: u8,
    pub auth: u8,
    pub encrypt: u8,
    pub flags: u32,
    pub saref: u32,
}

impl Sa {
    pub fn spi(spi: u32) -> Self {
        Self { spi, replay: 0, state: 0, auth: 0, encrypt: 0, flags: 0, saref: 0 }
    }

    pub fn flagged(spi: u32, flags: u32) -> Self {
        Self { flags, ..Self::spi(spi) }
    }

    /// 20 bytes: `sadb_sa_spi` to the padding behind `sadb_x_sa_ref`.
    pub fn body(self) -> Vec<u8> {
        let small = [self.replay, self.state, self.auth, self.encrypt];
        [self.spi.to_be_bytes(), small, self.flags.to_ne_bytes(), self.saref.to_ne_bytes(), [0; 4]].concat()
    }
}

/// The body of an address extension: protocol and prefix length 0, then a sockaddr.
pub fn address(ip: &str, port: u16) -> Vec<u8> {
    let mut body = vec![0; 4];
    match ip.parse().expect("an address") {
        IpAddr::V4(v4) => {
            body.extend(2_u16.to_ne_bytes());
            body.extend(port.to_be_bytes());
            body.extend(v4.octets());
            body.extend([0; 8]);
        }
        IpAddr::V6(v6) => {
            body.extend(10_u16.to_ne_bytes());
            body.extend(port.to_be_bytes());
            body.extend([0; 4]);
            body.extend(v6.octets());
            body.extend([0; 4]);
        }
    }
    body
}

/// The body of a key extension: bits, reserved, and so many bytes of key.
pub fn key(bits: u16, bytes: usize) -> Vec<u8> {
    [&bits.to_ne_bytes()[..], &[0; 2], &vec![0xab; bytes]].concat()
}

/// The body of a lifetime extension, 36 bytes.
pub fn lifetime(allocations: u32, bytes: u64, addtime: u64, usetime: u64, packets: u32) -> Vec<u8> {
    let mut body = allocations.to_ne_bytes().to_vec();
    for amount in [bytes, addtime, usetime] {
        body.extend(amount.to_ne_bytes());
    }
    body.extend(packets.to_ne_bytes());
    body.extend([0; 4]);
    body
}

/// The body of an identity extension.
pub fn identity(identity_type: u16, id: u64, text: &str) -> Vec<u8> {
    let mut body = [&identity_type.to_ne_bytes()[..], &[0; 2], &id.to_ne_bytes(), text.as_bytes()].concat();
    // A NUL is behind the text.
    body.resize((4 + body.len() + 1).next_multiple_of(8) - 4, 0);
    body
}

/// "10.0.0.0/8" as address and mask.
pub fn prefix(text: &str) -> (String, String) {
    let (ip, len) = text.split_once('/').expect("a prefix");
    let mask = Ipv4Addr::from(match len.parse().expect("a length") {
        0 => 0,
        len => u32::MAX << (32 - len),
    });
    (ip.into(), mask.to_string())
}

pub struct World {
    pub hub: Hub,
    pub queues: Queues,
    pub now: Duration,
    pub ids: Vec<SessionId>,
}

impl World {
    pub fn new(sockets: usize) -> Self {
        let mut hub = Hub::new(Engine::with_seed(1));
        let ids = (0..sockets).map(|_| hub.open()).collect();
        Self { hub, queues: Queues::new(), now: Duration::from_secs(START), ids }
    }

    /// What `write` gives.
    pub fn send_bytes(&mut self, socket: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.hub.write(self.ids[socket], bytes, self.now, &mut self.queues)
    }

    pub fn send(&mut self, socket: usize, message: &Msg) -> Result<(), Errno> {
        self.send_bytes(socket, &message.bytes())
    }

    /// Everything that a socket received since.
    pub fn heard(&mut self, socket: usize) -> Vec<Vec<u8>> {
        let id = self.ids[socket];
        std::iter::from_fn(|| self.queues.pop(id)).collect()
    }

    /// A request of socket 0 that has to succeed, and be answered once. What others heard is thrown away.
    pub fn ask(&mut self, message: &Msg) -> Vec<u8> {
        assert_eq!(self.send(0, message), Ok(()));
        let mut heard = self.heard(0);
        assert_eq!(heard.len(), 1, "one answer");
        (1..self.ids.len()).for_each(|socket| drop(self.heard(socket)));
        let answer = heard.remove(0);
        assert_eq!(answer[2], 0, "no errno");
        answer
    }

    /// A request of socket 0 that has to fail: every socket hears of the errno that `write` gives, by the bare header.
    pub fn fails(&mut self, message: &Msg) -> Errno {
        let errno = self.send(0, message).expect_err("an error");
        let mut expected = message.head;
        expected[2] = errno.to_wire();
        expected[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        for socket in 0..self.ids.len() {
            assert_eq!(self.heard(socket), [expected], "socket {socket}");
        }
        errno
    }

    pub fn register(&mut self, socket: usize, satype: S) {
        assert_eq!(self.send(socket, &Msg::new(M::REGISTER, satype)), Ok(()));
        (0..self.ids.len()).for_each(|socket| drop(self.heard(socket)));
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// What becomes of a UDP packet of 100 bytes.
    pub fn udp(&mut self, id: u64, src: &str, dst: &str, dport: u16) -> Outcome {
        let ip = |text: &str| text.parse().expect("an address");
        let flow = Flow { src: ip(src), dst: ip(dst), proto: 17, sport: 1111, dport };
        self.outbound(flow, id)
    }

    pub fn outbound(&mut self, flow: Flow, id: u64) -> Outcome {
        let packet = Packet { id: PacketId(id), bytes: 100 };
        self.hub.with_engine(self.now, &mut self.queues, |engine, cx| engine.outbound(&flow, packet, cx))
    }

    pub fn engine(&mut self) -> &mut Engine {
        self.hub.engine_mut()
    }
}

pub fn header(message: &[u8]) -> Header {
    Header::read(message).expect("a header")
}

/// A message's extensions: type, and what is behind length and type.
pub fn extensions(message: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut rest = &message[16..];
    let mut list = Vec::new();
    while !rest.is_empty() {
        let len = 8 * usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        list.push((u16::from_ne_bytes([rest[2], rest[3]]), rest[4..len].to_vec()));
        rest = &rest[len..];
    }
    list
}

/// The types of a message's extensions, in order.
pub fn types(message: &[u8]) -> Vec<u16> {
    extensions(message).into_iter().map(|(t, _)| t).collect()
}

/// What is behind length and type of one extension.
pub fn body(message: &[u8], ext: Ext) -> Vec<u8> {
    extensions(message).into_iter().find(|(t, _)| *t == ext.0).expect("the extension").1
}

/// The SPI of a message's SA.
pub fn spi_of(message: &[u8]) -> u32 {
    u32::from_be_bytes(body(message, Ext::SA)[..4].try_into().expect("four bytes"))
}

/// ADD of ESP, 3DES with HMAC-MD5.
pub fn esp(spi: u32) -> Msg {
    let sa = Sa { state: 1, auth: 2, encrypt: 3, replay: 64, ..Sa::spi(spi) };
    Msg::new(M::ADD, S::ESP).sa(sa).ends().key(Ext::KEY_AUTH, 16).key(Ext::KEY_ENCRYPT, 24)
}

/// ADD of AH with HMAC-SHA1.
pub fn ah(spi: u32) -> Msg {
    let sa = Sa { state: 1, auth: 3, ..Sa::spi(spi) };
    Msg::new(M::ADD, S::AH).sa(sa).ends().key(Ext::KEY_AUTH, 20)
}

/// ADD of a tunnel.
pub fn tunnel(spi: u32) -> Msg {
    Msg::new(M::ADD, X_SATYPE_IPIP).sa(Sa { state: 1, ..Sa::spi(spi) }).ends()
}

/// ADD of IP compression.
pub fn comp(spi: u32) -> Msg {
    Msg::new(M::ADD, X_SATYPE_COMP).sa(Sa { state: 1, encrypt: 2, ..Sa::spi(spi) }).ends()
}

/// A request that names an SA to B.
pub fn named(msg_type: M, satype: S, spi: u32) -> Msg {
    Msg::new(msg_type, satype).sa(Sa::spi(spi)).ends()
}

/// Groups two SAs to B.
pub fn group(satype: S, spi: u32, satype2: S, spi2: u32) -> Msg {
    Msg::new(X_GRPSA, satype)
        .sa(Sa::spi(spi))
        .address(Ext::ADDRESS_DST, B)
        .ext(X_EXT_SATYPE2, &[satype2.0, 0, 0, 0])
        .ext(X_EXT_SA2, &Sa::spi(spi2).body())
        .address(X_EXT_ADDRESS_DST2, B)
}

/// An eroute to a magic SPI.
pub fn shunt(magic: u32, src: &str, dst: &str) -> Msg {
    Msg::new(X_ADDFLOW, X_SATYPE_INT).sa(Sa::spi(magic)).address(Ext::ADDRESS_DST, "0.0.0.0").flow(src, dst)
}

/// An eroute to an SA to B.
pub fn eroute(satype: S, spi: u32, src: &str, dst: &str) -> Msg {
    Msg::new(X_ADDFLOW, satype).sa(Sa::spi(spi)).address(Ext::ADDRESS_DST, B).flow(src, dst)
}

pub fn delflow(src: &str, dst: &str) -> Msg {
    Msg::new(X_DELFLOW, S::UNSPEC).flow(src, dst)
}
