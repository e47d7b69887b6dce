//! Why a request was refused, in words: in the error report of a session that is shown X_XFRM, as the attribute `XFRMA_UNSPEC` of the
//! extension. They may be the kernel's, or another process's: they are bounded, and printed as ASCII only.

use std::fmt;

use super::settings::TEXT;
use super::{AttributeHeader, Said, round4};
use crate::Writer;
use zerocopy::IntoBytes as _;

/// Bytes at most; what is longer is cut.
pub const MAX_WHY: usize = 240;

/// Bytes of a text from elsewhere, up to a NUL: shown as far as [`MAX_WHY`], and `?` for each that is not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<'a>(pub &'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for byte in self.0.iter().take(MAX_WHY).take_while(|byte| **byte != 0) {
            f.write_char(if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' })?;
        }
        Ok(())
    }
}

impl<'a> Said<'a> {
    /// What an error report says beside its errno.
    #[must_use]
    pub fn why(self) -> Option<Words<'a>> {
        self.attributes.payload(TEXT).map(Words)
    }
}

impl Writer<'_> {
    /// What an error report says beside its errno.
    pub fn why(&mut self, why: &str) -> &mut Self {
        let text = why.as_bytes().get(..why.len().min(MAX_WHY)).unwrap_or_default();
        let header = AttributeHeader { len: (4 + text.len() as u16).into(), attr_type: TEXT.into() };
        let mut attribute = [0; 4 + MAX_WHY];
        for (to, from) in attribute.iter_mut().zip(header.as_bytes().iter().chain(text)) {
            *to = *from;
        }
        self.xfrm(0, 0, attribute.get(..round4(4 + text.len())).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Header, Message, MessageType, Profile, SaType};

    #[test]
    fn words_are_bounded_and_printable() {
        let shown = |bytes: &[u8]| Words(bytes).to_string();
        assert_eq!(shown(b"Invalid \x1b[31m\nflag\xff\0behind"), "Invalid ?[31m?flag?");
        assert_eq!(shown(&[b'x'; 10_000]).len(), MAX_WHY);
        for why in ["", "a", "four", &"y".repeat(1000)] {
            let mut buffer = [0xa5; 1024];
            let mut header = Header::new(MessageType::ADD, SaType::ESP, 1, 2);
            header.errno = 22;
            let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
            writer.why(why);
            let message = Message::parse(writer.finish().unwrap(), Profile::Linux).unwrap();
            assert_eq!(message.xfrm().why().unwrap().to_string(), why[..why.len().min(MAX_WHY)]);
            assert!(message.xfrm().attributes.is_whole());
        }
    }
}
