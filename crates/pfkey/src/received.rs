//! A message as it was received.

use std::fmt;

use crate::event::Algorithms;
use crate::model::policy::Policy as PolicyInfo;
use crate::model::sa::Sa as SaInfo;
use crate::model::view::{PolicyView, SaView};
use crate::wire::{HEADER_LEN, Header, Message, MessageType, Profile};

/// A message that was received. `Debug` shows no contents: there may be keys.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// The header as it came. Its reserved field is a policy's reference count.
    pub header: Header,
    /// The message; `None` if its extensions make no sense.
    pub message: Option<Message<'a>>,
    /// All of it, but for what was corrected.
    pub bytes: &'a [u8],
    /// It is a promiscuous listener's copy of what others said.
    pub is_copy: bool,
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.is_copy { "copy of " } else { "" };
        write!(f, "Received({of}{:?}, {} bytes)", self.header, self.bytes.len())
    }
}

impl<'a> Received<'a> {
    /// What an error report says beside its errno, to those who are shown it.
    #[must_use]
    pub fn why(&self) -> Option<Box<str>> {
        let words = self.message.as_ref().filter(|_| self.header.errno != 0)?.xfrm().why()?;
        Some(words.to_string().into())
    }

    /// The SA that it tells of: the answer to a GET, an entry of a DUMP.
    #[must_use]
    pub fn sa(&self) -> Option<SaInfo> {
        SaView::of_message(self.message.as_ref()?).map(|view| (&view).into())
    }

    /// The policy that it tells of: the answer to an X_SPDGET, an entry of an X_SPDDUMP. `None` for a socket's own policy, too.
    #[must_use]
    pub fn policy(&self) -> Option<PolicyInfo> {
        PolicyView::of_message(self.message.as_ref()?).map(|view| (&view).into())
    }

    /// The SPI that it tells: the answer to a GETSPI.
    #[must_use]
    pub fn spi(&self) -> Option<u32> {
        self.message.as_ref()?.sa().map(|sa| sa.spi.get())
    }

    /// The policy's id that it tells: the answer to an X_SPDADD or X_SPDUPDATE.
    #[must_use]
    pub fn policy_id(&self) -> Option<u32> {
        self.message.as_ref()?.policy().map(|(policy, _)| policy.id.get())
    }

    /// The algorithms that it names: the answer to a REGISTER.
    #[must_use]
    pub fn algorithms(&self) -> Algorithms {
        self.message.as_ref().map(Algorithms::of).unwrap_or_default()
    }

    /// Reads a message, which fills `bytes`; in it, two header fields are corrected. `None`: it is shorter than a header.
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
        let bytes = &*bytes;
        Some(Self { header, message: Message::parse(bytes, Profile::Linux).ok(), bytes, is_copy })
    }
}
