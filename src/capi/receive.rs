//! Receiving a message with one system call.

use std::cell::RefCell;
use std::ffi::{CString, c_int};

use zeroize::Zeroize;

use super::guard::{Failure, guard};
use super::{memory, sadb_msg};
use crate::error::Code;
use crate::wire::{HEADER_LEN, Header, MAX_MESSAGE_LEN};

/// Bytes that nearly every message fits.
const STACK: usize = 4096;

thread_local! {
    /// Where the rest of a large message goes. Reserved once a thread; its pages are touched only by such a message.
    static SPILL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Receives one message with one system call, waiting for it unless the descriptor is non-blocking.
///
/// Returns a block from `malloc` with the whole message, at least 16 bytes and as long as its header says; the
/// caller frees it with `free`. Returns NULL, with the message consumed, if it is not one:
/// - code 26: the system call failed (EAGAIN on a non-blocking descriptor or after SO_RCVTIMEO; EINTR is tried
///   again); the message is shorter than its header says or longer than any message can be (EMSGSIZE); or the
///   pfkeyd behind the descriptor has ended;
/// - code 30: fewer than 16 bytes, or end of file on another descriptor;
/// - code 3: the header says less than 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_recv(so: c_int) -> *mut sadb_msg {
    guard(|| with_message(so, memory::copy))
}

/// Receives one message and hands its bytes to `take`; what held them is wiped.
pub(super) fn with_message<T>(so: c_int, take: impl FnOnce(&[u8]) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut stack = [0; STACK];
    let mut spill = SPILL.try_with(RefCell::take).unwrap_or_default();
    if spill.is_empty() {
        spill = vec![0; MAX_MESSAGE_LEN - STACK + 8];
    }
    let result = match receive(so, &mut stack, &mut spill) {
        Ok(received) => {
            let outcome = whole(so, &stack, &spill, received, take);
            stack[..received.min(STACK)].zeroize();
            if let Some(used) = received.checked_sub(STACK).and_then(|used| spill.get_mut(..used)) {
                used.zeroize();
            }
            outcome
        }
        Err(failure) => {
            // A message that did not fit has filled both.
            stack.zeroize();
            if matches!(failure, Failure::Errno(libc::EMSGSIZE)) {
                spill.zeroize();
                spill = Vec::new();
            }
            Err(failure)
        }
    };
    let _ = SPILL.try_with(|cell| cell.replace(spill));
    result
}

/// One `recvmsg` into both buffers; gives the bytes received.
fn receive(so: c_int, stack: &mut [u8], spill: &mut [u8]) -> Result<usize, Failure> {
    let mut parts = [
        libc::iovec { iov_base: stack.as_mut_ptr().cast(), iov_len: stack.len() },
        libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() },
    ];
    loop {
        // SAFETY: msghdr is plain data, valid when zeroed.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = parts.as_mut_ptr();
        header.msg_iovlen = parts.len() as _;
        // SAFETY: the vectors name live buffers.
        let n = unsafe { libc::recvmsg(so, &raw mut header, 0) };
        match usize::try_from(n) {
            Ok(_) if header.msg_flags & libc::MSG_TRUNC != 0 => return Err(Failure::Errno(libc::EMSGSIZE)),
            Ok(n) => return Ok(n),
            Err(_) => match nix::errno::Errno::last_raw() {
                libc::EINTR => {}
                errno => return Err(Failure::Errno(errno)),
            },
        }
    }
}

/// Checks what was received and hands over as many bytes as the header says.
fn whole<T>(
    so: c_int,
    stack: &[u8],
    spill: &[u8],
    received: usize,
    take: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if received == 0 && crate::socket::is_served(so) {
        return Err(Failure::Text(CString::from(c"The pfkeyd behind the descriptor has ended")));
    }
    let Some(header) = stack.get(..received.min(STACK)).and_then(Header::read) else { return Err(Code::Max.into()) };
    let len = usize::from(header.len) * 8;
    if len < HEADER_LEN {
        return Err(Code::InvalidMessage.into());
    }
    if len > received {
        return Err(Failure::Errno(libc::EMSGSIZE));
    }
    // What lies behind the message is cut off, as libipsec does.
    match stack.get(..len) {
        Some(message) => take(message),
        None => {
            let mut message = zeroize::Zeroizing::new(Vec::with_capacity(len));
            message.extend_from_slice(stack);
            message.extend_from_slice(spill.get(..len - STACK).unwrap_or_default());
            take(&message)
        }
    }
}
