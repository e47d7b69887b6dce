//! Netlink messages and attributes: written into a buffer that is wiped, and read without trusting a length.
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, Zeroizing};

use super::layout::{Header, message};
use pfkey_wire::Errno;
use pfkey_wire::layout::U32;
use pfkey_wire::xfrm::{self, AttributeHeader, Words};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The request.
    pub of: Name,
    /// What came of it.
    pub outcome: Result<(), Errno>,
    /// What the kernel says of an error.
    pub said: Option<Extended>,
}

/// What an extended acknowledgement says beside the errno.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// Its text, printable and bounded.
    text: String,
    /// Where in the request what it is about begins.
    offset: Option<u32>,
}

impl Extended {
    /// Of the attributes behind an acknowledgement; `None` if they say neither.
    fn read(attributes: Attributes<'_>) -> Option<Self> {
        let text = attributes.payload(ERROR_MSG).map(|text| Words(text).to_string()).unwrap_or_default();
        let offset = attributes.read::<U32>(ERROR_OFFS).map(U32::get);
        (!text.is_empty() || offset.is_some()).then_some(Self { text, offset })
    }

    /// It in words, with the attribute of the request that it is about.
    pub fn about(&self, request: &[u8]) -> String {
        let at = self.offset.and_then(|offset| request.get(usize::try_from(offset).ok()?..));
        // What lies before the header's end is no attribute.
        let at = at.filter(|at| at.len() + size_of::<Header>() < request.len());
        let attribute = at.and_then(|at| AttributeHeader::read_from_prefix(at).ok());
        let name = attribute.map(|(header, _)| xfrm::Name(header.attr_type.get() & 0x3fff).to_string());
        let said = [Some(self.text.clone()).filter(|text| !text.is_empty()), name];
        let said: Vec<String> = said.into_iter().flatten().collect();
        format!("kernel: {}", said.join(": "))
    }
}

/// `NLM_F_CAPPED`: of the request, an acknowledgement repeats the header alone.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_MSG: u16 = 1;
/// `NLMSGERR_ATTR_OFFS`.
const ERROR_OFFS: u16 = 2;

impl Acknowledgement {
    /// The acknowledgement that a datagram holds; `None` for anything else. What an extended one says may be cut off at the
    /// datagram's end.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (header, body) = Header::read_from_prefix(datagram).ok()?;
        if header.msg_type.get() != message::ERROR || (header.len.get() as usize) < size_of::<Header>() {
            return None;
        }
        let body = body.get(..header.len.get() as usize - size_of::<Header>()).unwrap_or(body);
        let (request, behind) = Header::read_from_prefix(body.get(4..)?).ok()?;
        let of = Name { msg_type: request.msg_type.get(), seq: request.seq.get(), pid: request.pid.get() };
        let outcome = match error(body) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        };
        let is_extended = outcome.is_err() && header.flags.get() & (CAPPED | ACK_TLVS) == CAPPED | ACK_TLVS;
        let said = if is_extended { Extended::read(Attributes(behind)) } else { None };
        Some(Self { of, outcome, said })
    }
}

impl<'a> Received<'a> {
    /// What it is known by.
    pub const fn name(&self) -> Name {
        Name { msg_type: self.msg_type, seq: self.seq, pid: self.pid }
    }

    /// The fixed part, and the attributes behind it.
    pub fn fixed<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Option<(&'a T, Attributes<'a>)> {
        let (fixed, _) = T::ref_from_prefix(self.body).ok()?;
        Some((fixed, Attributes(self.body.get(round4(size_of::<T>())..).unwrap_or_default())))
    }

    /// The errno of an acknowledgement or of the end of a dump: 0 for success, also where it is missing.
    pub fn error(&self) -> i32 {
        error(self.body)
    }
}

fn error(body: &[u8]) -> i32 {
    body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
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
        assert_eq!(fixed, &[1, 2, 3, 4]);
        assert_eq!(attributes.collect::<Vec<_>>(), [(5, &b"abcde"[..]), (6, &[][..])]);
        let (second, rest) = split(rest).unwrap();
        assert_eq!((second.seq, second.fixed::<[u8; 3]>().unwrap().0), (8, &[5; 3]));
        assert_eq!(split(rest), None);
        writer.clear();
        assert!(writer.bytes().is_empty());
    }

    /// As the kernel lays it out (`netlink_ack`): header, errno, the request's header, attributes.
    fn acknowledgement(flags: u16, errno: i32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let of = Header { len: 99.into(), msg_type: 0x10.into(), seq: 7.into(), pid: 9.into(), ..Header::default() };
        let mut body = [&(-errno).to_ne_bytes()[..], of.as_bytes()].concat();
        attributes.iter().for_each(|(number, payload)| xfrm::push(&mut body, *number, payload));
        let len = (size_of::<Header>() + body.len()) as u32;
        let header = Header { len: len.into(), msg_type: 2.into(), flags: flags.into(), ..Header::default() };
        [header.as_bytes(), &body].concat()
    }

    #[test]
    fn the_kernels_words_name_the_attribute() {
        let mut request = Writer::default();
        request.message(0x10, REQUEST, 7, 9, &[1_u8; 4]).attribute(31, &[&[1; 3]]);
        let offset = 20_u32.to_ne_bytes();
        let said = |flags, errno, attributes: &[(u16, &[u8])]| {
            let read = Acknowledgement::read(&acknowledgement(flags, errno, attributes)).unwrap();
            assert_eq!(read.of, Name { msg_type: 0x10, seq: 7, pid: 9 });
            read.said.map(|said| said.about(request.bytes()))
        };
        let both: &[(u16, &[u8])] = &[(1, b"Invalid\x07 length\0"), (2, &offset)];
        let expected = "kernel: Invalid? length: attribute 31 (XFRMA_IF_ID)";
        assert_eq!(said(0x300, 22, both).as_deref(), Some(expected));
        assert_eq!(said(0x300, 22, &both[1..]).as_deref(), Some("kernel: attribute 31 (XFRMA_IF_ID)"));
        for elsewhere in [0_u32, 15, 27, 28, 5000, u32::MAX] {
            let offset = elsewhere.to_ne_bytes();
            let said = said(0x300, 22, &[(1, b"No\0"), (2, &offset)]).unwrap();
            assert_eq!(said, "kernel: No", "{elsewhere}");
        }
        assert_eq!(said(0x300, 22, &[]), None);
        assert_eq!(said(0x300, 0, both), None, "of success nothing is said");
        assert_eq!(said(0x200, 22, both), None, "behind a whole request, keys included");
        let whole = acknowledgement(0x300, 22, both);
        for len in 0..whole.len() {
            assert_eq!(Acknowledgement::read(&whole[..len]).is_some(), len >= 36, "{len}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_reading() {
        for len in [0_u32, 15, 21, u32::MAX] {
            let message = [&len.to_ne_bytes()[..], &[0; 16]].concat();
            assert_eq!(split(&message), None, "{len}");
        }
    }
}
