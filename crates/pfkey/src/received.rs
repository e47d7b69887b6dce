//! A message as it was received.

use crate::wire::{HEADER_LEN, Header, Message, MessageType, Profile};

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The header as it came. Its reserved field is a policy's reference count.
    pub header: Header,
    /// The message; `None` if its extensions make no sense.
    pub message: Option<Message<'a>>,
    /// It is a promiscuous listener's copy of what others said.
    pub is_copy: bool,
}

impl<'a> Received<'a> {
    /// What an error report says beside its errno, to those who are shown it.
    #[must_use]
    pub fn why(&self) -> Option<Box<str>> {
        let words = self.message.as_ref().filter(|_| self.header.errno != 0)?.xfrm().why()?;
        Some(words.to_string().into())
    }

    /// Reads a message, in which it corrects two header fields. `None`: it is shorter than a header.
    pub fn read(bytes: &'a mut [u8]) -> Option<Self> {
        // By RFC 2367 section 3.1.11 a promiscuous listener gets messages behind a header of PROMISC; Linux sends them bare.
        let outer = Header::read(bytes)?;
        let is_copy = outer.msg_type == MessageType::X_PROMISC && bytes.len() >= 2 * HEADER_LEN;
        let bytes = bytes.get_mut(if is_copy { HEADER_LEN } else { 0 }..)?;
        let header = Header::read(bytes)?;
        // af_key's own messages break the rules for requests in two fields: the reserved one is a policy's reference count,
        // and the length of a policy with tunnels of two families is wrong.
        let words = (bytes.len() / 8) as u16;
        if let Some(head) = bytes.get_mut(4..8) {
            head[..2].copy_from_slice(&words.to_ne_bytes());
            head[2..].fill(0);
        }
        Some(Self { header, message: Message::parse(bytes, Profile::Linux).ok(), is_copy })
    }
}
