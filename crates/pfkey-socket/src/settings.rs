//! What a program's SAs and policies shall have beyond what it says of them (`PFKEY_XFRM`): the pfkeyd behind a descriptor is
//! told before the program has the descriptor.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use pfkey_wire::xfrm::round4;
use pfkey_wire::xfrm::settings::{Complaint, MAX_TEXT, SETTINGS, TEXT, by_number, write_by_number};
use pfkey_wire::{HEADER_LEN, Header, MessageType, Profile, Writer};

use super::choose::text;
use super::{OpenError, is_settled, settle, sys};

/// A text as it travels.
#[derive(Clone, Copy, Debug)]
pub struct XfrmText {
    bytes: [u8; MAX_TEXT],
    len: usize,
}

impl XfrmText {
    const NONE: Self = Self { bytes: [0; MAX_TEXT], len: 0 };

    /// Checks a text. Network interfaces have their numbers in this thread's network namespace from then on.
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn new(text: &str) -> Result<Self, Complaint> {
        let mut bytes = [0; MAX_TEXT];
        let interface = |name: &str| nix::net::if_::if_nametoindex(name).ok().or_else(|| by_number(name));
        let len = write_by_number(text, &interface, &mut bytes)?;
        Ok(Self { bytes, len })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Places for texts, so that nobody has to wait: who reads one while it is overwritten reads again.
const PLACES: u64 = 4;
const WORDS: usize = MAX_TEXT / 8;
static PLACE: [[AtomicU64; WORDS]; PLACES as usize] = [const { [const { AtomicU64::new(0) }; WORDS] }; PLACES as usize];
/// How many texts were begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// The number of the text that counts, from 1, and 16 bits of its length; 0 = none.
static CURRENT: AtomicU64 = AtomicU64::new(0);

fn place(number: u64) -> Option<&'static [AtomicU64; WORDS]> {
    PLACE.get((number % PLACES) as usize)
}

/// Sets what the SAs and policies of descriptors that this process opens from now on shall have beyond what it says of them,
/// instead of what `PFKEY_XFRM` names; `None` goes back to that.
pub fn set_xfrm(text: Option<&XfrmText>) {
    let Some(text) = text else { return CURRENT.store(0, Ordering::SeqCst) };
    let number = BEGUN.fetch_add(1, Ordering::SeqCst) + 1;
    for (word, bytes) in place(number).into_iter().flatten().zip(text.bytes.chunks_exact(8)) {
        word.store(bytes.try_into().map_or(0, u64::from_ne_bytes), Ordering::SeqCst);
    }
    CURRENT.store(number << 16 | text.len as u64, Ordering::SeqCst);
}

/// How often a text is read again that is being overwritten. Whoever overwrites it is done long before, unless its thread was
/// cancelled there, or is not there any more after a fork: then nothing would ever end the wait.
const READS: u32 = 1 << 16;

/// What [`set_xfrm`] said.
fn said() -> Option<XfrmText> {
    let mut reads = 0;
    loop {
        let current = CURRENT.load(Ordering::SeqCst);
        let number = current >> 16;
        if number == 0 {
            return None;
        }
        let mut text = XfrmText { len: (current & 0xffff) as usize, ..XfrmText::NONE };
        for (bytes, word) in text.bytes.chunks_exact_mut(8).zip(place(number)?) {
            bytes.copy_from_slice(&word.load(Ordering::SeqCst).to_ne_bytes());
        }
        reads += 1;
        if BEGUN.load(Ordering::SeqCst) < number + PLACES || reads == READS {
            return Some(text);
        }
    }
}

/// What the SAs and policies of descriptors that this process opens shall have: what [`set_xfrm`] said, or the text in the
/// environment variable `PFKEY_XFRM`, which is ignored in a program that runs with more rights than its caller. `None`: nothing.
///
/// # Errors
/// [`OpenError::UnknownXfrm`].
pub fn xfrm() -> Result<Option<XfrmText>, OpenError> {
    let asked = match said() {
        Some(said) => said,
        None => sys::with_secure_env(c"PFKEY_XFRM", |value| {
            let value = value.unwrap_or_default();
            if value.is_empty() {
                return Ok(XfrmText::NONE);
            }
            let value = text(value)?;
            XfrmText::new(&value).map_err(|why| OpenError::UnknownXfrm { value, why })
        })?,
    };
    Ok(Some(asked).filter(|asked| !asked.is_empty()))
}

/// Tells the pfkeyd behind a new descriptor. What others did until then is not heard.
///
/// # Errors
/// [`OpenError::LacksXfrm`], or that of `send`.
pub(super) fn tell(fd: &OwnedFd, asked: &XfrmText) -> Result<(), OpenError> {
    let system = |errno: i32| OpenError::System(std::io::Error::from_raw_os_error(errno));
    let mut attribute = [0; 4 + MAX_TEXT];
    // struct nlattr.
    let ([len_low, len_high], [type_low, type_high]) = (((4 + asked.len) as u16).to_ne_bytes(), TEXT.to_ne_bytes());
    let (head, rest) = attribute.split_at_mut(4);
    head.copy_from_slice(&[len_low, len_high, type_low, type_high]);
    rest.copy_from_slice(&asked.bytes);
    let attribute = attribute.get(..round4(4 + asked.len)).unwrap_or_default();
    let mut buffer = [0; HEADER_LEN + 16 + MAX_TEXT];
    let mut writer = Writer::new(&mut buffer, Header::new(MessageType::X_XFRM, SETTINGS, 0, 0), Profile::Linux);
    writer.xfrm(0, 0, attribute);
    let message = writer.finish().map_err(|_| system(libc::EMSGSIZE))?;
    sys::send(fd.as_raw_fd(), message).map_err(OpenError::System)?;
    settle(fd.as_raw_fd());
    loop {
        let mut answer = [0; HEADER_LEN];
        match recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(system(libc::ECONNRESET)),
            Ok(_) => match Header::read(&answer) {
                Some(Header { msg_type: MessageType::X_XFRM, errno: 0, .. }) => return Ok(()),
                Some(Header { msg_type: MessageType::X_XFRM, errno, reserved, .. }) => {
                    return Err(OpenError::LacksXfrm { number: reserved, errno: errno.into() });
                }
                // What others did.
                _ => {}
            },
            Err(Errno::EINTR) => {}
            // A pfkeyd that is older than these settings, or KLIPS's, is silent.
            Err(Errno::EAGAIN) if is_settled(fd.as_fd()) => {
                return Err(OpenError::LacksXfrm { number: 0, errno: libc::EOPNOTSUPP });
            }
            Err(Errno::EAGAIN) => return Err(system(libc::ETIMEDOUT)),
            Err(errno) => return Err(system(errno as i32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_last_counts() {
        for round in 1..10 {
            let text = format!("if_id={round}");
            set_xfrm(Some(&XfrmText::new(&text).unwrap()));
            assert_eq!(xfrm().unwrap().unwrap().as_str(), text);
        }
        set_xfrm(Some(&XfrmText::new("").unwrap()));
        assert!(xfrm().unwrap().is_none());
        // Threads that were cancelled before they were done hold up nobody.
        set_xfrm(Some(&XfrmText::new("if_id=7").unwrap()));
        BEGUN.fetch_add(PLACES, Ordering::SeqCst);
        assert_eq!(xfrm().unwrap().unwrap().as_str(), "if_id=7");
        set_xfrm(None);
        assert_eq!(XfrmText::new("offload=lo").unwrap().as_str(), "offload=1");
    }
}
