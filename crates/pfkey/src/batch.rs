//! Many requests at once: what loads thousands of SAs or policies need not wait for each answer.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use zeroize::Zeroizing;

use crate::socket::{self, Headers};
use crate::wire::{Errno, Header, MAX_MESSAGE_LEN, MessageType, Profile, SEVERAL};

/// Messages that travel together.
const MESSAGES: usize = 64;
/// Bytes after which no more are added.
const BYTES: usize = 48 * 1024;

/// Requests in order. They may hold keys, and are wiped.
#[derive(Default)]
pub struct Batch {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} requests)", self.ends.len())
    }
}

/// A request whose answer is awaited.
#[derive(PartialEq, Eq)]
struct Awaited {
    msg_type: MessageType,
    seq: u32,
    pid: u32,
}

impl Awaited {
    const fn of(header: &Header) -> Self {
        Self { msg_type: header.msg_type, seq: header.seq, pid: header.pid }
    }
}

impl Batch {
    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a request.
    ///
    /// # Errors
    /// What AF_KEY's `send` would refuse: EINVAL or EMSGSIZE. ENOMEM; the batch is as before then.
    pub fn push(&mut self, message: &[u8]) -> Result<(), Errno> {
        Header::check(message, Profile::Linux).map_err(|error| error.rule.errno())?;
        self.ends.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if self.bytes.capacity() - self.bytes.len() < message.len() {
            // Growing in place would leave copies of keys behind.
            let mut bytes = with_room((self.bytes.len() * 2).max(64 * 1024) + message.len())?;
            bytes.extend_from_slice(&self.bytes);
            self.bytes = Zeroizing::new(bytes);
        }
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// The requests, each with its header.
    fn requests(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }

    /// Does all requests in order and reads their answers. `failed` is told the place of each that the key engine
    /// refused, and why; the others are done all the same. Gives the number of those that failed.
    ///
    /// A request's answer is the first message with its type, sequence number and process id. What else arrives on
    /// the descriptor meanwhile is read and lost.
    ///
    /// # Errors
    /// Sending or receiving failed, or an answer is missing (ENOBUFS: the descriptor was full of unread messages). How
    /// many requests were done is not known then. ENOMEM: none was sent.
    pub fn send(self, fd: BorrowedFd<'_>, mut failed: impl FnMut(usize, Errno)) -> Result<usize, Errno> {
        let mut answers = Answers::new(fd);
        let (mut place, mut failures) = (0, 0);
        let mut take = |awaited: &[Awaited], answers: &mut Answers<'_>| -> Result<(), Errno> {
            for request in awaited {
                match answers.next(request)? {
                    0 => {}
                    errno => {
                        failures += 1;
                        failed(place, Errno::from_raw(errno.into()));
                    }
                }
                place += 1;
            }
            Ok(())
        };
        let several = socket::is_private(fd);
        let room = if several { SEVERAL.len() + BYTES + MAX_MESSAGE_LEN } else { 0 };
        let mut together = Zeroizing::new(with_room(room)?);
        let mut awaited = with_room(MESSAGES)?;
        for request in self.requests() {
            let Some(header) = Header::read(request) else { continue };
            if !several {
                send(fd, request)?;
                take(&[Awaited::of(&header)], &mut answers)?;
                continue;
            }
            if together.is_empty() {
                together.extend_from_slice(&SEVERAL);
            }
            together.extend_from_slice(request);
            awaited.push(Awaited::of(&header));
            if awaited.len() == MESSAGES || together.len() > BYTES {
                socket::send_several(fd.as_raw_fd(), &together)?;
                together.clear();
                take(&awaited, &mut answers)?;
                awaited.clear();
            }
        }
        if !awaited.is_empty() {
            socket::send_several(fd.as_raw_fd(), &together)?;
            take(&awaited, &mut answers)?;
        }
        Ok(failures)
    }
}

fn with_room<T>(len: usize) -> Result<Vec<T>, Errno> {
    let mut empty = Vec::new();
    empty.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    Ok(empty)
}

fn send(fd: BorrowedFd<'_>, message: &[u8]) -> Result<(), Errno> {
    Ok(socket::send(fd.as_raw_fd(), message).map(drop)?)
}

/// The headers of what arrives on a descriptor.
struct Answers<'fd> {
    fd: BorrowedFd<'fd>,
    arrived: Headers,
}

impl<'fd> Answers<'fd> {
    fn new(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, arrived: Headers::default() }
    }

    /// The errno of an answer, 0 for success.
    fn next(&mut self, request: &Awaited) -> Result<u8, Errno> {
        loop {
            match self.arrived.take() {
                // pfkeyd is gone.
                Some([]) => return Err(Errno::EPIPE),
                Some(bytes) => match Header::read(bytes) {
                    Some(header) if Awaited::of(&header) == *request => return Ok(header.errno),
                    _ => {}
                },
                // Answers wait when `send` returns, so none that does not wait will come.
                None => match self.arrived.receive(self.fd) {
                    Ok(()) | Err(nix::errno::Errno::EINTR) => {}
                    Err(nix::errno::Errno::EAGAIN) => return Err(Errno::ENOBUFS),
                    Err(errno) => return Err(std::io::Error::from(errno).into()),
                },
            }
        }
    }
}
