//! How messages leave an engine: what it is called with, who receives what it writes, and the one buffer in which messages are
//! built.

use zerocopy::IntoBytes as _;
use zeroize::Zeroize;

use super::{Errno, Time};
use pfkey_wire::{ExtensionType, Header, Profile, SaType, Writer};

/// Bytes that hold any message of an engine: an SA with two keys of 8191 bytes, a label of 4096 and as many bytes of attributes is
/// the largest.
const BUFFER_LEN: usize = 26 * 1024;

/// Who receives a message, besides promiscuous sessions, which get one extra copy of everything
/// (af_key's `pfkey_broadcast`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every session, the requester included (`BROADCAST_ALL`).
    All,
    /// The requester only (`BROADCAST_ONE`).
    One,
    /// Every session that registered for any SA type (`BROADCAST_REGISTERED`).
    Registered,
    /// Every session that registered for this SA type (RFC 2367).
    RegisteredFor(SaType),
    /// Nobody but promiscuous sessions (`BROADCAST_PROMISC_ONLY`).
    Promiscuous,
}

/// Where an engine's messages go while it handles one request or event.
pub trait Outbox {
    /// Hands a complete message to its audience. Returns the number of sessions that took it.
    fn deliver(&mut self, audience: Audience, message: &[u8]) -> usize;
}

/// Room for one message at a time. It may hold keys, and is wiped after each: by words, an eighth of the stores.
#[derive(Debug)]
pub struct MessageBuffer {
    words: Box<[u64]>,
    /// Whether X_XFRM extensions are written: somebody asked for them.
    xfrm: bool,
    /// The request that was refused last with words.
    refusal: Option<String>,
}

impl Default for MessageBuffer {
    fn default() -> Self {
        Self { words: vec![0; BUFFER_LEN / 8].into(), xfrm: false, refusal: None }
    }
}

impl MessageBuffer {
    /// Whether X_XFRM extensions are written; they are not unless this is called.
    pub const fn show_xfrm(&mut self, shown: bool) {
        self.xfrm = shown;
    }

    /// Whether anybody is shown X_XFRM extensions.
    #[must_use]
    pub const fn shows_xfrm(&self) -> bool {
        self.xfrm
    }

    /// Sends an error report: a request's header with an errno, and the words that belong to it, which those receive who are
    /// shown X_XFRM extensions.
    pub(super) fn report(
        &mut self,
        request: Header,
        errno: Errno,
        why: Option<&str>,
        take: impl FnOnce(&[u8]) -> usize,
    ) {
        if let Some(why) = why {
            let errno = std::io::Error::from_raw_os_error(errno.to_raw());
            self.refusal = Some(format!("{} of process {}: {errno}: {why}", request.msg_type, request.pid));
        }
        // A header and a text always fit.
        let _ = self.write(
            request.error_report(errno.to_wire()),
            |writer| {
                if let Some(why) = why {
                    writer.why(why);
                }
            },
            take,
        );
    }

    /// The request that was refused last with words, once: its type, who made it, and why.
    pub(super) fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    /// Lends a writer for a message with this header, and the message to `take`.
    ///
    /// # Errors
    /// ENOBUFS: the message is too long.
    pub fn write<R>(
        &mut self,
        header: Header,
        write: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Errno> {
        let mut writer = Writer::new(self.words.as_mut_bytes(), header, Profile::Linux);
        if !self.xfrm {
            writer.omit(ExtensionType::X_XFRM);
        }
        write(&mut writer);
        let (taken, len) = match writer.finish() {
            Ok(message) => (Ok(take(message)), message.len()),
            Err(_) => (Err(Errno::ENOBUFS), BUFFER_LEN),
        };
        if let Some(used) = self.words.get_mut(..len / 8) {
            used.zeroize();
        }
        taken
    }
}

/// What an engine is called with.
pub struct Context<'a> {
    /// The time.
    pub now: Time,
    /// Whether a session is registered, so that an ACQUIRE would find a listener.
    pub registered: bool,
    /// Where messages go.
    pub out: &'a mut dyn Outbox,
    /// Where they are built.
    pub buffer: &'a mut MessageBuffer,
}

impl Context<'_> {
    /// Sends a message.
    ///
    /// # Errors
    /// ENOBUFS: it is too long.
    pub fn send(&mut self, to: Audience, header: Header, write: impl FnOnce(&mut Writer<'_>)) -> Result<(), Errno> {
        self.offer(to, header, write).map(drop)
    }

    /// Sends a message and returns the number of sessions that took it.
    ///
    /// # Errors
    /// ENOBUFS: it is too long.
    pub fn offer(&mut self, to: Audience, header: Header, write: impl FnOnce(&mut Writer<'_>)) -> Result<usize, Errno> {
        let Self { out, buffer, .. } = self;
        buffer.write(header, write, |message| out.deliver(to, message))
    }

    /// Sends a message that is a header only.
    pub fn send_header(&mut self, to: Audience, header: Header) {
        // A header always fits.
        let _ = self.send(to, header, |_| ());
    }

    /// Sends the error report of a request, as Linux's `pfkey_error` does: its header with an errno. `why` says more to those who
    /// are shown X_XFRM extensions.
    pub fn report(&mut self, request: Header, errno: Errno, why: Option<&str>) {
        let Self { out, buffer, .. } = self;
        buffer.report(request, errno, why, |message| out.deliver(Audience::One, message));
    }
}

/// The next message of a dump.
pub struct DumpMessage<'a> {
    buffer: &'a mut MessageBuffer,
    message: &'a mut Vec<u8>,
}

impl<'a> DumpMessage<'a> {
    /// A message that is built in `buffer` and takes the place of what is in `message`.
    pub fn new(buffer: &'a mut MessageBuffer, message: &'a mut Vec<u8>) -> Self {
        Self { buffer, message }
    }

    /// Whether anybody is shown X_XFRM extensions.
    #[must_use]
    pub const fn shows_xfrm(&self) -> bool {
        self.buffer.shows_xfrm()
    }

    /// Writes it.
    ///
    /// # Errors
    /// ENOBUFS: it is too long.
    pub fn write(&mut self, header: Header, write: impl FnOnce(&mut Writer<'_>)) -> Result<(), Errno> {
        let Self { buffer, message } = self;
        buffer.write(header, write, |written| replace(message, written))
    }
}

/// Overwrites what may hold keys, and leaves nothing of it.
fn replace(message: &mut Vec<u8>, by: &[u8]) {
    if message.capacity() < by.len() {
        // One that grows leaves its old place as it is.
        message.zeroize();
        *message = Vec::with_capacity(by.len());
    }
    let both = message.len().min(by.len());
    let (head, rest) = by.split_at(both);
    if let Some((place, stale)) = message.split_at_mut_checked(both) {
        place.copy_from_slice(head);
        stale.zeroize();
    }
    message.truncate(both);
    message.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_the_place_of_another() {
        let mut message = Vec::new();
        for by in [&b"eight by"[..], b"sixteen bytes ..", b"", b"two", b"sixteen bytes ..", b"eight by"] {
            replace(&mut message, by);
            assert_eq!(message, by);
        }
    }
}
