//! How a program and the machine's pfkeyd meet: two messages of 16 bytes, before any of PF_KEY.
//!
//! The program connects and sends a [`Hello`] with two NETLINK_XFRM sockets (SCM_RIGHTS): for requests, and for a dump. Through
//! each it has sent the kernel [`PRIMER`], whose answer waits in the socket and shows that the socket's opener *and* the program
//! that sent it have CAP_NET_ADMIN in its network namespace. pfkeyd answers with a [`Welcome`]; from then on the connection is a
//! PF_KEY socket.
//!
//! The first program of another network namespace than pfkeyd's brings two more, which no other process can open there: for
//! events, and for questions of the engine's own. It is asked for them by [`LACKS_SOCKETS`], and connects once more.

use crate::Extras;

/// The version of the two messages and of what follows them.
pub const PROTOCOL: u32 = 2;
/// Sockets that come with a [`Hello`].
pub const SOCKETS: usize = 2;
/// The same from the first program of another network namespace.
pub const ALL_SOCKETS: usize = 4;
/// What [`Welcome`] says to the first program of another network namespace that brought [`SOCKETS`] only: EREMOTE.
pub const LACKS_SOCKETS: u32 = 66;
/// Bytes of events that may wait in the third. The program sets it: in setsockopt(2) on a socket of which a program has a copy
/// pfkeyd could have to wait for that program. The kernel charges four times what an event carries.
pub const EVENT_BUFFER: usize = 4 << 20;
/// Bytes of each of the two messages.
pub const MEETING_LEN: usize = 16;

/// What a program says instead that wants to know about pfkeyd. The answer is a text, and the end.
pub const QUESTION: [u8; MEETING_LEN] = *b"\0pfkeyd?\0\0\0\0\0\0\0\0";

/// No PF_KEY message of any version begins so.
const MAGIC: [u8; 8] = *b"\0pfkeyd\xb5";

/// `nlmsg_seq` of the primer, and of its answer.
pub const PRIMER_SEQ: u32 = 0x7066_6b79;
/// A request that every kernel refuses after it has looked at the right to ask: GETSA, with an acknowledgement, of an ESP SA
/// with the SPI 0 and no address.
pub const PRIMER: [u8; 40] = primer();

const fn primer() -> [u8; 40] {
    let mut bytes = [0; 40];
    let (len, seq) = (40_u32.to_ne_bytes(), PRIMER_SEQ.to_ne_bytes());
    // XFRM_MSG_GETSA; NLM_F_REQUEST | NLM_F_ACK; `struct xfrm_usersa_id`: AF_INET, IPPROTO_ESP.
    let (kind, flags, family) = (0x12_u16.to_ne_bytes(), 5_u16.to_ne_bytes(), 2_u16.to_ne_bytes());
    let mut n = 0;
    while n < 4 {
        bytes[n] = len[n];
        bytes[8 + n] = seq[n];
        if n < 2 {
            bytes[4 + n] = kind[n];
            bytes[6 + n] = flags[n];
            bytes[36 + n] = family[n];
        }
        n += 1;
    }
    bytes[38] = 50;
    bytes
}

fn pack(first: u32, second: u32) -> [u8; MEETING_LEN] {
    let mut bytes = [0; MEETING_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&first.to_ne_bytes());
    bytes[12..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

fn unpack(bytes: &[u8]) -> Option<(u32, u32)> {
    let bytes: &[u8; MEETING_LEN] = bytes.try_into().ok()?;
    let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    bytes.starts_with(&MAGIC).then(|| (number(8), number(12)))
}

/// What a program says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u32,
    /// What it shall be offered beyond AF_KEY.
    pub extras: Extras,
}

impl Hello {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MEETING_LEN] {
        pack(self.protocol, self.extras.bits().into())
    }

    /// `None` for what is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (protocol, extras) = unpack(bytes)?;
        Some(Self { protocol, extras: Extras::from_bits(extras as u8) })
    }
}

/// What pfkeyd says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// pfkeyd's [`PROTOCOL`].
    pub protocol: u32,
    /// 0, or why there is no session: EPERM, the right is missing; EPROTONOSUPPORT, another protocol is spoken;
    /// [`LACKS_SOCKETS`].
    pub errno: u32,
}

impl Welcome {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MEETING_LEN] {
        pack(self.protocol, self.errno)
    }

    /// `None` for what is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (protocol, errno) = unpack(bytes)?;
        Some(Self { protocol, errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_read_as_they_were_written() {
        let hello = Hello { protocol: 7, extras: Extras { aead: true, sha256_128: false } };
        assert_eq!(Hello::read(&hello.to_bytes()), Some(hello));
        let welcome = Welcome { protocol: 1, errno: 93 };
        assert_eq!(Welcome::read(&welcome.to_bytes()), Some(welcome));
        assert_eq!(Hello::read(&hello.to_bytes()[1..]), None);
        assert_eq!(Hello::read(&[0; MEETING_LEN]), None);
    }

    #[test]
    fn the_primer_is_a_whole_netlink_message() {
        assert_eq!(PRIMER[..4], 40_u32.to_ne_bytes());
        assert_eq!(PRIMER[8..12], PRIMER_SEQ.to_ne_bytes());
    }
}
