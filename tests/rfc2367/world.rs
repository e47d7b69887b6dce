//! An engine of the profile rfc2367 with some sockets.

use std::time::Duration;

use pfkey_rs::engine::{Engine, Flow, Outbound, RFC2367, SaId, TrafficError};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{
    Ends, ExtensionType as Ext, Header, IpsecProtocol, Message, MessageType as M, Profile, SaType as S,
};

use crate::build::{Msg, request};

pub const A: &str = "10.0.0.1";
pub const B: &str = "10.0.0.2";
pub const SPI: u32 = 0x1000;

pub struct World {
    pub hub: Hub<Engine>,
    pub queues: Queues,
    pub now: Duration,
    ids: Vec<SessionId>,
}

impl World {
    pub fn new(sockets: usize) -> Self {
        let mut hub = Hub::new(Engine::with_seed(&RFC2367, 1));
        let ids = (0..sockets).map(|_| hub.open()).collect();
        Self { hub, queues: Queues::new(), now: Duration::from_secs(1_000_000), ids }
    }

    /// Sends bytes; an error is `send`'s own errno.
    pub fn send_bytes(&mut self, socket: usize, bytes: &[u8]) -> Result<(), i32> {
        self.hub.receive(self.ids[socket], bytes, self.now, &mut self.queues).map_err(|e| e.rule.errno().to_raw())
    }

    pub fn send(&mut self, socket: usize, message: &Msg) {
        self.send_bytes(socket, &message.bytes()).expect("a message");
    }

    /// Everything that a socket received since.
    pub fn heard(&mut self, socket: usize) -> Vec<Vec<u8>> {
        let id = self.ids[socket];
        let mut messages = Vec::new();
        while let Some(message) = self.queues.pop(id) {
            messages.push(message);
            if self.queues.may_resume(id) {
                self.hub.writable(id, self.now, &mut self.queues);
            }
        }
        messages
    }

    /// Sends from socket 0, gives its only answer.
    pub fn ask(&mut self, message: &Msg) -> Vec<u8> {
        self.send(0, message);
        let mut heard = self.heard(0);
        assert_eq!(heard.len(), 1, "one answer");
        heard.remove(0)
    }

    /// The errno that socket 0 is told; what the others hear is thrown away.
    pub fn errno(&mut self, message: &Msg) -> i32 {
        let answer = self.ask(message);
        for socket in 1..self.ids.len() {
            self.heard(socket);
        }
        header(&answer).errno.into()
    }

    /// A request that has to succeed.
    pub fn done(&mut self, message: &Msg) {
        assert_eq!(self.errno(message), 0, "{:?}", message.header.msg_type);
    }

    pub fn close(&mut self, socket: usize) {
        self.hub.close(self.ids[socket], self.now);
        self.queues.close(self.ids[socket]);
    }

    pub fn queue_limit(&mut self, socket: usize, bytes: usize) {
        self.queues.set_limit(self.ids[socket], bytes);
    }

    pub fn dropped(&self, socket: usize) -> u64 {
        self.hub.statistics(self.ids[socket]).map_or(0, |s| s.dropped)
    }

    /// Lets seconds pass.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.hub.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.hub.advance(self.now, &mut self.queues);
        }
        self.now = end;
    }

    /// What a UDP packet between the two hosts is to meet.
    pub fn outbound(&mut self) -> Result<Outbound, TrafficError> {
        let ends = Ends::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
        let flow = Flow::new(ends, 17, 1111, 2222);
        self.hub.with_engine(self.now, None, &mut self.queues, |engine, cx| engine.outbound(&flow, cx))
    }

    pub fn count(&mut self, spi: u32, bytes: u64) -> Result<(), TrafficError> {
        let id = SaId::new([10, 0, 0, 2].into(), spi, IpsecProtocol::AH);
        self.hub.with_engine(self.now, None, &mut self.queues, |engine, cx| engine.count_traffic(&id, 1, bytes, cx))
    }

    /// The ACQUIRE that a packet causes at socket 0.
    pub fn acquire(&mut self) -> Vec<u8> {
        self.done(&Msg::new(M::REGISTER, S::AH, 1));
        self.done(&want_ah());
        assert_eq!(self.outbound(), Ok(Outbound::Wait));
        let mut heard = self.heard(0);
        assert_eq!(heard.len(), 1);
        heard.remove(0)
    }
}

/// A policy that wants AH between the two hosts.
pub fn want_ah() -> Msg {
    Msg::new(M::X_SPDADD, S::UNSPEC, 1)
        .address(Ext::ADDRESS_SRC, A, 0, 255, 32)
        .address(Ext::ADDRESS_DST, B, 0, 255, 32)
        .policy(2, 2, 0, 0, &request(51, 1, 2, 0, None))
}

pub fn sa(state: u8, auth: u8, encrypt: u8) -> SadbSa {
    SadbSa { spi: SPI.into(), replay: 4, state, auth, encrypt, ..Default::default() }
}

/// ADD of AH with HMAC-SHA1: SA, source, destination, key.
pub fn ah() -> Msg {
    Msg::new(M::ADD, S::AH, 7).sa_with(sa(1, 3, 0)).pair(A, B).key(Ext::KEY_AUTH, 20)
}

/// ADD of ESP with an algorithm and a key of so many bytes.
pub fn esp(encrypt: u8, key: usize) -> Msg {
    Msg::new(M::ADD, S::ESP, 7).sa_with(sa(1, 0, encrypt)).pair(A, B).key(Ext::KEY_ENCRYPT, key)
}

/// A request that names the SA.
pub fn named(msg_type: M) -> Msg {
    Msg::new(msg_type, S::AH, 8).sa(SPI, 0, 0).pair(A, B)
}

pub fn update() -> Msg {
    let mut message = ah();
    message.header.msg_type = M::UPDATE;
    message
}

pub fn getspi(min: u32, max: u32) -> Msg {
    Msg::new(M::GETSPI, S::AH, 9).pair(A, B).range(min, max)
}

pub fn bare(msg_type: M, satype: S) -> Msg {
    Msg::new(msg_type, satype, 10)
}

pub fn hard(bytes: u64, add: u64, usetime: u64) -> Msg {
    ah().lifetime(Ext::LIFETIME_HARD, 0, bytes, add, usetime)
}

pub fn header(message: &[u8]) -> Header {
    Header::read(message).expect("a header")
}

pub fn parse(message: &[u8]) -> Message<'_> {
    Message::parse(message, Profile::Linux).expect("a well-formed message")
}

/// The types of its extensions in order.
pub fn extensions(message: &[u8]) -> Vec<u16> {
    parse(message).extensions().map(|e| e.ext_type.0).collect()
}
