//! A program that waits for a system call: its memory, its descriptors.
//!
//! What is read here may be another program's, if the one that was meant has ended: the notification is asked whether it
//! is still valid afterwards. Memory can change meanwhile, so everything is read once.

use std::ffi::OsString;
use std::io::{ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::call::{Message, word_of};
use super::sys::{self, Notification};

/// `UIO_MAXIOV`.
const MAX_PARTS: u64 = 1024;
/// More than a message can have: its header counts 8 bytes with 16 bits.
const MAX_LEN: u64 = 1 << 19;
/// Bytes of `struct sockaddr_storage`.
const MAX_ADDRESS: i32 = 128;

/// Bytes of a message, which may have keys.
pub type Bytes = Zeroizing<Vec<u8>>;

pub struct Program {
    pub thread: Pid,
    /// Bytes of its pointers.
    word: usize,
}

impl Program {
    /// The program that a notification is of; none if this process cannot see it.
    pub fn new(notification: &Notification) -> Option<Self> {
        Some(Self { thread: notification.thread()?, word: word_of(notification.call.architecture) })
    }

    /// A copy of one of its sockets. Nothing else is taken: to close a copy of a file may wait for whoever serves the file,
    /// and a copy keeps a lock, or a file that is to be executed, busy. The program goes on when the copy is gone.
    ///
    /// # Errors
    /// EBADF if there is none of this number; ENOTSOCK; EPERM.
    pub fn socket(&self, number: RawFd) -> Result<OwnedFd, Errno> {
        let name = name_of(self.thread, number)?;
        if !name.as_encoded_bytes().starts_with(b"socket:") {
            return Err(Errno::ENOTSOCK);
        }
        sys::descriptor_of(sys::process(self.thread)?.as_fd(), number)
    }

    /// Fills a buffer from its memory.
    ///
    /// # Errors
    /// EFAULT if not all of it can be read; EPERM.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let len = buffer.len() as u64;
        self.read_parts(&[(at, len)], buffer)
    }

    fn read_parts(&self, parts: &[(u64, u64)], buffer: &mut [u8]) -> Result<(), Errno> {
        if buffer.is_empty() {
            return Ok(());
        }
        let wanted = buffer.len();
        let to_size = |n: u64| usize::try_from(n).map_err(|_| Errno::EFAULT);
        let remote: Result<Vec<_>, _> =
            parts.iter().map(|(base, len)| Ok(RemoteIoVec { base: to_size(*base)?, len: to_size(*len)? })).collect();
        match process_vm_readv(self.thread, &mut [IoSliceMut::new(buffer)], &remote?)? {
            n if n == wanted => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Words, as the program has them.
    fn words<const N: usize>(&self, at: u64) -> Result<[u64; N], Errno> {
        let mut buffer = [0; 64];
        let buffer = buffer.get_mut(..N * self.word).ok_or(Errno::EINVAL)?;
        self.read(at, buffer)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(buffer.chunks_exact(self.word)) {
            *word = number(bytes);
        }
        Ok(words)
    }

    /// The arguments of a `socketcall`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn arguments(&self, at: u64, count: usize) -> Result<[u64; 6], Errno> {
        let mut buffer = [0; 6 * 8];
        let buffer = buffer.get_mut(..count * self.word).ok_or(Errno::EINVAL)?;
        self.read(at, buffer)?;
        let mut arguments = [0; 6];
        for (argument, bytes) in arguments.iter_mut().zip(buffer.chunks_exact(self.word)) {
            *argument = number(bytes);
        }
        Ok(arguments)
    }

    /// Reads a message, of at most `room` bytes; none if `writev` was called with nothing, which sends nothing.
    /// The order of the checks is the kernel's (`sys_sendto`, `sys_sendmsg`, `vfs_writev`, `pfkey_sendmsg`).
    ///
    /// # Errors
    /// Those of the system call: EFAULT, EINVAL, EMSGSIZE, EOPNOTSUPP, ENOBUFS; EPERM if this process may not read it.
    pub fn message(&self, message: Message, flags: i32, room: u64) -> Result<Option<Bytes>, Errno> {
        let parts = match message {
            Message::Bytes { at, len, address, address_len } => {
                self.check_range(at, len)?;
                self.read_address(address, address_len)?;
                vec![(at, len)]
            }
            Message::Parts { at, count } => {
                let parts = self.parts(at, count, Errno::EINVAL)?;
                if parts.iter().all(|(_, len)| *len == 0) {
                    return Ok(None);
                }
                parts
            }
            Message::Header { at } => {
                // MSG_CMSG_COMPAT is the kernel's own.
                if flags < 0 && self.word == 8 {
                    return Err(Errno::EINVAL);
                }
                let header = self.header(at)?;
                // A longer one is cut.
                self.read_address(header.name, header.name_len.min(MAX_ADDRESS))?;
                let parts = self.parts(header.parts, header.count, Errno::EMSGSIZE)?;
                if header.control_len > i32::MAX as u64 {
                    return Err(Errno::ENOBUFS);
                }
                parts
            }
        };
        if flags & libc::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let len = parts.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
        if len > room || len > MAX_LEN {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = Zeroizing::new(vec![0; len as usize]);
        self.read_parts(&parts, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn read_address(&self, at: u64, len: i32) -> Result<(), Errno> {
        if at == 0 {
            return Ok(());
        }
        let mut address = [0; MAX_ADDRESS as usize];
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        self.read(at, address.get_mut(..len).ok_or(Errno::EINVAL)?)
    }

    fn parts(&self, at: u64, count: u64, too_many: Errno) -> Result<Vec<(u64, u64)>, Errno> {
        if count > MAX_PARTS {
            return Err(too_many);
        }
        let mut buffer = vec![0; count as usize * 2 * self.word];
        self.read(at, &mut buffer)?;
        let mut parts = Vec::with_capacity(count as usize);
        for part in buffer.chunks_exact(2 * self.word) {
            let (base, len) = part.split_at(self.word);
            let (base, len) = (number(base), number(len));
            if self.is_negative(len) {
                return Err(Errno::EINVAL);
            }
            self.check_range(base, len)?;
            parts.push((base, len));
        }
        Ok(parts)
    }

    /// `access_ok`, nearly: what is beyond is not readable either.
    fn check_range(&self, at: u64, len: u64) -> Result<(), Errno> {
        let end = at.checked_add(len).ok_or(Errno::EFAULT)?;
        let beyond = if self.word == 4 { 1 << 32 } else { 1 << 63 };
        if end > beyond { Err(Errno::EFAULT) } else { Ok(()) }
    }

    fn is_negative(&self, word: u64) -> bool {
        word >> (8 * self.word - 1) != 0
    }

    fn header(&self, at: u64) -> Result<Header, Errno> {
        // On 64-bit machines there is padding behind the name's length, and at the end.
        let [name, name_len, parts, count, _control, control_len, _flags] = self.words(at)?;
        Ok(Header { name, name_len: name_len as i32, parts, count, control_len })
    }

    /// Bytes of a `struct mmsghdr`: a `msghdr`, and the length that was sent.
    pub fn header_len(&self) -> u64 {
        8 * self.word as u64
    }

    /// Notes in a `struct mmsghdr` how many bytes were sent.
    ///
    /// # Errors
    /// EFAULT.
    pub fn note_sent(&self, at: u64, len: u32) -> Result<(), Errno> {
        sys::write_memory(self.thread, at.saturating_add(7 * self.word as u64), &len.to_ne_bytes())
    }
}

/// What `/proc` calls a thread's descriptor; to look there asks nothing of the file.
///
/// # Errors
/// EBADF if there is none of this number; EPERM.
pub fn name_of(thread: Pid, number: RawFd) -> Result<OsString, Errno> {
    match std::fs::read_link(format!("/proc/{thread}/fd/{number}")) {
        Ok(name) => Ok(name.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Errno::EBADF),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EPERM))),
    }
}

/// What matters of a `struct msghdr`.
struct Header {
    name: u64,
    name_len: i32,
    parts: u64,
    count: u64,
    control_len: u64,
}

fn number(bytes: &[u8]) -> u64 {
    match bytes.len() {
        4 => bytes.try_into().map_or(0, u32::from_ne_bytes).into(),
        _ => bytes.try_into().map_or(0, u64::from_ne_bytes),
    }
}
