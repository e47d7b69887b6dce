//! Receiving a message.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use zeroize::Zeroize;

use super::guard::{Failure, FailureValue, attempt};
use super::memory::Block;
use super::{error, sadb_msg};
use crate::error::Code;
use crate::wire::{HEADER_LEN, Header, MAX_MESSAGE_LEN};

/// Bytes that nearly every message fits.
pub(super) const USUAL: usize = 4096;
/// What a larger one needs besides, and a few that show one that is too large.
const REST: usize = MAX_MESSAGE_LEN - USUAL + 8;

/// Receives one message, waiting for it unless the descriptor is non-blocking. A message that is there already takes
/// one system call. While it waits, the thread may be cancelled.
///
/// Returns a block from `malloc` with the whole message, at least 16 bytes and as long as its header says; the
/// caller frees it with `free`. Returns NULL, with the message consumed, if it is not one:
/// - code 26: the system call failed (EAGAIN on a non-blocking descriptor or after SO_RCVTIMEO; EINTR is tried
///   again); the message is shorter than its header says or longer than any message can be (EMSGSIZE); or the
///   pfkeyd behind the descriptor has ended (EPIPE);
/// - code 30: fewer than 16 bytes, or end of file on another descriptor;
/// - code 3: the header says less than 16 bytes;
/// - code 21: there is no memory. A message of up to 4096 bytes still waits then.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_recv(so: c_int) -> *mut sadb_msg {
    waiting(so, || {
        let mut block = Block::zeroed(USUAL)?;
        let received = receive(so, block.bytes(), |first, rest| {
            let whole = if rest.is_empty() { None } else { Some(Block::joined(first, rest)?) };
            Ok((first.len(), whole))
        })?;
        Ok(match received {
            None => Attempt::Nothing,
            Some((_, Some(whole))) => {
                block.bytes().zeroize();
                Attempt::Done(whole.into_c())
            }
            Some((len, None)) => Attempt::Done(block.cut(len).into_c()),
        })
    })
}

/// What came of one attempt to receive.
#[derive(Clone, Copy)]
pub(super) enum Attempt<T> {
    /// The entry's value.
    Done(T),
    /// A message that is not the one.
    Other,
    /// No message waits.
    Nothing,
}

/// Makes attempts until one gives the entry's value. While no message waits it waits for one as `recv` does; the thread may be
/// cancelled there, where it has nothing in hand.
#[inline(always)]
pub(super) fn waiting<T: FailureValue>(so: c_int, once: impl FnMut() -> Result<Attempt<T>, Failure>) -> T {
    let mut once = ManuallyDrop::new(once);
    let errno = Errno::last_raw();
    loop {
        let outcome = attempt(|| {
            let outcome = once()?;
            if let Attempt::Done(_) = outcome {
                error::set(Code::NoError);
            }
            Ok(outcome)
        });
        match outcome {
            None => return T::failed(),
            Some(Attempt::Done(value)) => return value,
            Some(Attempt::Other) => {}
            Some(Attempt::Nothing) => match wait(so) {
                // That nothing was there yet is nobody's business.
                0 | libc::EINTR => Errno::set_raw(errno),
                errno => {
                    attempt(|| Err::<(), _>(Failure::Errno(errno)));
                    return T::failed();
                }
            },
        }
    }
}

/// Waits until a message can be received; gives an errno, or 0. What O_NONBLOCK and SO_RCVTIMEO mean is left to `recv`.
#[inline(always)]
fn wait(so: c_int) -> c_int {
    mod c {
        unsafe extern "C-unwind" {
            /// The libc crate takes it for a function that cannot unwind; a cancelled thread does.
            pub(super) fn recv(
                fd: std::ffi::c_int,
                buffer: *mut std::ffi::c_void,
                len: usize,
                flags: std::ffi::c_int,
            ) -> isize;
        }
    }
    let mut byte = 0_u8;
    // SAFETY: one byte of a live variable.
    let n = unsafe { c::recv(so, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
    if n < 0 { Errno::last_raw() } else { 0 }
}

/// Room for the rest of a message. Its pages are touched only by large ones.
struct Rest {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; REST]>,
}

// SAFETY: the bytes are used by whoever has set `taken`, and by nobody else.
unsafe impl Sync for Rest {}

static SHARED: Rest = Rest { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; REST]) };

/// Gives the shared room back.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        SHARED.taken.store(false, Ordering::Release);
    }
}

/// Lends room for the rest of a message: the shared one, or, while another thread has it (or had it when this process was
/// forked), a block of its own.
fn with_rest<T>(lend: impl FnOnce(&mut [u8]) -> Result<T, Failure>) -> Result<T, Failure> {
    if SHARED.taken.swap(true, Ordering::Acquire) {
        return lend(Block::zeroed(REST)?.bytes());
    }
    let _taken = Taken;
    // SAFETY: this call has set `taken`, and gives it back after.
    lend(unsafe { &mut *SHARED.bytes.get() })
}

/// Receives one message without waiting, its beginning into `first`, which has [`USUAL`] bytes, and hands it to `take`
/// in two parts, the second empty unless the first is full. `None` if none waits. What is handed over stays in `first`;
/// everything else that was received is wiped.
pub(super) fn receive<T>(
    so: c_int,
    first: &mut [u8],
    take: impl FnOnce(&[u8], &[u8]) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    with_rest(|rest| {
        let received = match system_call(so, first, rest) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => {
                if errno == Errno::EMSGSIZE {
                    // It has filled both.
                    first.zeroize();
                    rest.zeroize();
                }
                return Err(Failure::Errno(errno as i32));
            }
        };
        let outcome = whole(so, first, rest, received, take);
        if let Some(used) = received.checked_sub(first.len()).and_then(|used| rest.get_mut(..used)) {
            used.zeroize();
        }
        if outcome.is_err() {
            first.zeroize();
        }
        outcome.map(Some)
    })
}

/// One `recvmsg` into both buffers; gives the bytes received.
fn system_call(so: c_int, first: &mut [u8], rest: &mut [u8]) -> Result<usize, Errno> {
    let mut parts = [
        libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
        libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() },
    ];
    loop {
        // SAFETY: msghdr is plain data, valid when zeroed.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = parts.as_mut_ptr();
        header.msg_iovlen = parts.len() as _;
        // SAFETY: the vectors name live buffers.
        let n = unsafe { libc::recvmsg(so, &raw mut header, libc::MSG_DONTWAIT) };
        match usize::try_from(n) {
            Ok(_) if header.msg_flags & libc::MSG_TRUNC != 0 => return Err(Errno::EMSGSIZE),
            Ok(n) => return Ok(n),
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}

/// Checks what was received and hands over as many bytes as the header says.
fn whole<T>(
    so: c_int,
    first: &[u8],
    rest: &[u8],
    received: usize,
    take: impl FnOnce(&[u8], &[u8]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if received == 0 && crate::socket::is_served(so) {
        Errno::set_raw(libc::EPIPE);
        return Err(Failure::text(format_args!("The pfkeyd behind the descriptor has ended")));
    }
    let Some(header) = first.get(..received.min(first.len())).and_then(Header::read) else {
        return Err(Code::Max.into());
    };
    let len = usize::from(header.len) * 8;
    if len < HEADER_LEN {
        return Err(Code::InvalidMessage.into());
    }
    if len > received {
        return Err(Failure::Errno(libc::EMSGSIZE));
    }
    // What lies behind the message is cut off, as libipsec does.
    let (first_len, rest_len) = (len.min(first.len()), len.saturating_sub(first.len()));
    take(first.get(..first_len).unwrap_or_default(), rest.get(..rest_len).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

    use super::*;

    /// As in the child of a program of which another thread was receiving.
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no sockets of packets")]
    fn a_large_message_arrives_while_the_shared_room_is_taken() {
        let (ours, peer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut message = vec![7; 40_000];
        message[4..6].copy_from_slice(&5000_u16.to_ne_bytes());
        with_rest(|_| {
            send(peer.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
            let mut first = [0; USUAL];
            let same = |first: &[u8], rest: &[u8]| Ok([first, rest].concat() == message);
            assert!(matches!(receive(ours.as_raw_fd(), &mut first, same), Ok(Some(true))));
            assert!(matches!(receive(ours.as_raw_fd(), &mut first, same), Ok(None)));
            Ok(())
        })
        .unwrap_or_else(|_| panic!("no memory"));
    }
}
