//! A PF_KEY descriptor, used for requests and their answers.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::failure::Unwritable;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use pfkey_socket::{self as socket, Backend};
use pfkey_wire::{HEADER_LEN, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType, Writer};
use std::os::fd::AsFd;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Failure;

/// How long an answer may take. AF_KEY and a pfkeyd have it ready when `send` returns.
const PATIENCE: Duration = Duration::from_secs(5);

/// A PF_KEY descriptor with a buffer; both ways carry keys, so the buffer is wiped.
pub struct Channel {
    fd: OwnedFd,
    pid: u32,
    seq: u32,
    buffer: Zeroizing<Vec<u8>>,
}

/// A message that was received.
pub struct Received<'a> {
    /// The header as it came; its reserved field is a policy's reference count.
    pub header: Header,
    /// The message, `None` if its extensions make no sense.
    pub message: Option<Message<'a>>,
    /// Whether it is a promiscuous listener's copy.
    pub wrapped: bool,
}

impl Channel {
    /// Opens the backend that `PFKEY_BACKEND` names.
    pub fn open() -> Result<Self, Failure> {
        Self::open_with(&Backend::from_environment()?)
    }

    /// Opens a given backend.
    pub fn open_with(backend: &Backend) -> Result<Self, Failure> {
        let fd = socket::open_with(backend)?;
        // Keys pass through this process: no core dumps, no ptrace by others.
        let _ = nix::sys::prctl::set_dumpable(false);
        Ok(Self { fd, pid: std::process::id(), seq: 0, buffer: Zeroizing::new(vec![0; MAX_MESSAGE_LEN]) })
    }

    /// Whether a pfkeyd serves the descriptor.
    pub fn is_served(&self) -> bool {
        socket::is_served(self.fd.as_raw_fd())
    }

    /// Sends what `write` builds from a sequence number and our process id, and gives that number.
    pub fn send(
        &mut self,
        what: &str,
        write: impl FnOnce(u32, u32, &mut [u8]) -> Result<usize, Unwritable>,
    ) -> Result<u32, Failure> {
        // 0 marks the end of a dump.
        self.seq = self.seq.checked_add(1).unwrap_or(1);
        let len =
            write(self.seq, self.pid, &mut self.buffer).map_err(|code| Failure::Usage(format!("{what}: {code}")))?;
        let message = self.buffer.get_mut(..len).unwrap_or_default();
        let sent = socket::send(self.fd.as_raw_fd(), message);
        message.zeroize();
        sent.map_err(|error| Failure::Refused { what: what.to_owned(), errno: error.raw_os_error().unwrap_or(5) })?;
        Ok(self.seq)
    }

    /// The next message, whoever caused it; `None` when `deadline` passes first.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Received<'_>>, Failure> {
        let len = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
                Ok(len) => break len,
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(Failure::Io(errno.into())),
            }
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(None),
                // Rounded up, so that the last millisecond is slept through.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Io(errno.into())),
            }
        };
        // By RFC 2367 section 3.1.11 a promiscuous listener gets messages behind a header of PROMISC; Linux sends
        // them bare.
        let outer = Header::read(self.buffer.get(..len).unwrap_or_default());
        let wrapped = outer.is_some_and(|h| h.msg_type == MessageType::X_PROMISC) && len >= 2 * HEADER_LEN;
        let start = if wrapped { HEADER_LEN } else { 0 };
        let bytes = self.buffer.get_mut(start..len).unwrap_or_default();
        let Some(header) = Header::read(bytes) else {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into());
        };
        // Two fields that make af_key's own messages break the rules for requests: a policy's reference count, and
        // the length of a policy with tunnels of two families.
        let words = (bytes.len() / 8) as u16;
        if let Some(head) = bytes.get_mut(4..8) {
            head[..2].copy_from_slice(&words.to_ne_bytes());
            head[2..].fill(0);
        }
        Ok(Some(Received { header, message: Message::parse(bytes, Profile::Linux).ok(), wrapped }))
    }

    /// Sends a request and gives its answer to `read`.
    pub fn request<T>(
        &mut self,
        what: &str,
        write: impl FnOnce(u32, u32, &mut [u8]) -> Result<usize, Unwritable>,
        read: impl FnOnce(&Received<'_>) -> T,
    ) -> Result<T, Failure> {
        let seq = self.send(what, write)?;
        let deadline = Instant::now() + PATIENCE;
        let pid = self.pid;
        loop {
            let Some(received) = self.receive(Some(deadline))? else {
                return Err(Failure::NoAnswer { what: what.to_owned() });
            };
            let header = received.header;
            if received.wrapped || header.pid != pid || header.seq != seq {
                continue;
            }
            if header.errno != 0 {
                return Err(Failure::Refused { what: what.to_owned(), errno: header.errno.into() });
            }
            return Ok(read(&received));
        }
    }

    /// Sends a request that is a header only, and reads its answer.
    pub fn header_request(&mut self, msg_type: MessageType, satype: SaType) -> Result<(), Failure> {
        let what = msg_type.name().unwrap_or("request").to_lowercase();
        self.request(&what, |seq, pid, buffer| header_only(msg_type, satype, seq, pid, buffer), |_| ())
    }

    /// Dumps the SAD or the SPD, entry by entry; nothing there is no error.
    pub fn dump(
        &mut self,
        msg_type: MessageType,
        satype: SaType,
        mut each: impl FnMut(&Received<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let what = msg_type.name().unwrap_or("dump").to_lowercase();
        self.send(&what, |seq, pid, buffer| header_only(msg_type, satype, seq, pid, buffer))?;
        let pid = self.pid;
        loop {
            let Some(received) = self.receive(Some(Instant::now() + PATIENCE))? else {
                return Err(Failure::NoAnswer { what });
            };
            let header = received.header;
            if received.wrapped || header.pid != pid || header.msg_type != msg_type {
                continue;
            }
            match i32::from(header.errno) {
                0 => each(&received)?,
                libc::ENOENT => return Ok(()),
                errno => return Err(Failure::Refused { what, errno }),
            }
            if header.seq == 0 {
                return Ok(());
            }
        }
    }
}

/// A request that is a header only.
pub fn header_only(
    msg_type: MessageType,
    satype: SaType,
    seq: u32,
    pid: u32,
    buffer: &mut [u8],
) -> Result<usize, Unwritable> {
    finish(Writer::new(buffer, Header::new(msg_type, satype, seq, pid), Profile::Linux))
}

/// The finished message's length.
pub fn finish(writer: Writer<'_>) -> Result<usize, Unwritable> {
    writer.finish().map(|message| message.len()).map_err(|_| Unwritable::TooLong)
}
