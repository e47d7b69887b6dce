//! Netlink messages and attributes: written into a buffer that is wiped, and read without trusting a length.
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::{Zeroize, Zeroizing};

use super::layout::{Header, message};
use pfkey_wire::Errno;
use pfkey_wire::xfrm::AttributeHeader;
pub use pfkey_wire::xfrm::{Attributes, round4};

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;

/// One or more messages under construction.
#[derive(Default)]
pub struct Writer {
    bytes: Zeroizing<Vec<u8>>,
    /// Where the last message starts.
    start: usize,
}

impl Writer {
    /// Wipes what was written.
    pub fn clear(&mut self) {
        self.bytes.zeroize();
        self.start = 0;
    }

    /// Makes room for so many bytes at once, so that growing leaves no copy of keys behind.
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)), start: 0 }
    }

    /// Takes what another wrote, which is then empty.
    pub fn append(&mut self, other: &mut Self) {
        self.bytes.extend_from_slice(&other.bytes);
        other.clear();
    }

    /// Begins a message with a fixed part. `seq` and `pid` come back in the notification that it causes.
    pub fn message(
        &mut self,
        msg_type: u16,
        flags: u16,
        seq: u32,
        pid: u32,
        fixed: &(impl IntoBytes + Immutable + ?Sized),
    ) -> &mut Self {
        // Growing would leave copies of keys behind: room for the two longest keys and a label.
        self.bytes.reserve(24 * 1024);
        self.start = self.bytes.len();
        let header = Header {
            msg_type: msg_type.into(),
            flags: flags.into(),
            seq: seq.into(),
            pid: pid.into(),
            ..Default::default()
        };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(fixed.as_bytes());
        self.pad()
    }

    /// Adds an attribute made of parts. One that is too long for its length field is left out; the kernel then
    /// misses it and refuses the message.
    pub fn attribute(&mut self, attr_type: u16, parts: &[&[u8]]) -> &mut Self {
        let len = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
        let Ok(len) = u16::try_from(len) else { return self };
        let header = AttributeHeader { len: len.into(), attr_type: attr_type.into() };
        self.bytes.extend_from_slice(header.as_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.pad()
    }

    fn pad(&mut self) -> &mut Self {
        let padded = round4(self.bytes.len());
        self.bytes.resize(padded, 0);
        let len = (self.bytes.len() - self.start) as u32;
        if let Some(field) = self.bytes.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self
    }

    /// The messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub msg_type: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`.
    pub pid: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What a request is known by: an acknowledgement repeats its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// `nlmsg_type`.
    pub msg_type: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`.
    pub pid: u32,
}

/// An acknowledgement (`NLMSG_ERROR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The request.
    pub of: Name,
    /// What came of it.
    pub outcome: Result<(), Errno>,
}

impl Acknowledgement {
    /// The acknowledgement that a datagram holds; `None` for anything else.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (received, _) = split(datagram).filter(|(one, _)| one.msg_type == message::ERROR)?;
        let (request, _) = Header::read_from_prefix(received.body.get(4..)?).ok()?;
        let of = Name { msg_type: request.msg_type.get(), seq: request.seq.get(), pid: request.pid.get() };
        let outcome = match received.error() {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        };
        Some(Self { of, outcome })
    }
}

impl<'a> Received<'a> {
    /// What it is known by.
    pub const fn name(&self) -> Name {
        Name { msg_type: self.msg_type, seq: self.seq, pid: self.pid }
    }

    /// The fixed part, and the attributes behind it.
    pub fn fixed<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<(T, Attributes<'a>)> {
        let (fixed, _) = T::read_from_prefix(self.body).ok()?;
        Some((fixed, Attributes(self.body.get(round4(size_of::<T>())..).unwrap_or_default())))
    }

    /// The errno of an acknowledgement or of the end of a dump: 0 for success, also where it is missing.
    pub fn error(&self) -> i32 {
        self.body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The first message of `bytes`, and what follows it. `None` at the end, and where a length does not fit.
pub fn split(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let len = header.len.get() as usize;
    let body = bytes.get(size_of::<Header>()..len)?;
    let received = Received { msg_type: header.msg_type.get(), seq: header.seq.get(), pid: header.pid.get(), body };
    Some((received, bytes.get(round4(len)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::default();
        writer.message(0x10, REQUEST | ACK, 7, 9, &[1_u8, 2, 3, 4]).attribute(5, &[b"abc", b"de"]).attribute(6, &[]);
        writer.message(0x11, REQUEST, 8, 9, &[5_u8; 3]);
        let (first, rest) = split(writer.bytes()).unwrap();
        assert_eq!((first.msg_type, first.seq, first.pid), (0x10, 7, 9));
        let (fixed, attributes) = first.fixed::<[u8; 4]>().unwrap();
        assert_eq!(fixed, [1, 2, 3, 4]);
        assert_eq!(attributes.collect::<Vec<_>>(), [(5, &b"abcde"[..]), (6, &[][..])]);
        let (second, rest) = split(rest).unwrap();
        assert_eq!((second.seq, second.fixed::<[u8; 3]>().unwrap().0), (8, [5; 3]));
        assert_eq!(split(rest), None);
        writer.clear();
        assert!(writer.bytes().is_empty());
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_reading() {
        for len in [0_u32, 15, 21, u32::MAX] {
            let message = [&len.to_ne_bytes()[..], &[0; 16]].concat();
            assert_eq!(split(&message), None, "{len}");
        }
    }
}
