//! One message, one send, no allocation.

use std::ffi::c_int;

use zeroize::Zeroize;

use super::guard::Failure;
use super::memory::Block;
use super::xfrm::{pfkey_xfrm, refused};
use crate::error::Code;
use crate::wire::xfrm::Carrier;
use crate::wire::{MAX_MESSAGE_LEN, Profile, Writer};

/// Bytes of the stack buffer that nearly every message fits.
const STACK: usize = 4096;

/// The buffer. To wipe all of it takes longer than to build the message.
struct Stack {
    bytes: [u8; STACK],
    /// As far as it was written to.
    used: usize,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.bytes.get_mut(..self.used).unwrap_or_default().zeroize();
    }
}

/// Has `write` build a message (it is given the process id and a buffer) and sends it. Messages above 4096 bytes,
/// which only keys, contexts and policies of that size make, are built on the heap. Both are wiped, they may hold
/// keys.
pub(super) fn send(so: c_int, write: impl Fn(u32, &mut [u8]) -> Result<usize, Code>) -> Result<c_int, Failure> {
    let pid = std::process::id();
    let mut stack = Stack { bytes: [0; STACK], used: STACK };
    match write(pid, &mut stack.bytes) {
        Ok(len) => {
            stack.used = len.min(STACK);
            transmit(so, &stack.bytes, len)
        }
        Err(Code::NoBuffers) => {
            let mut heap = Block::zeroed(MAX_MESSAGE_LEN)?;
            let outcome = match write(pid, heap.bytes()) {
                Ok(len) => transmit(so, heap.bytes(), len),
                Err(code) => Err(code.into()),
            };
            heap.bytes().zeroize();
            outcome
        }
        Err(code) => Err(code.into()),
    }
}

/// As [`send`], with what XFRM has beyond PF_KEY behind it; `None` and nothing are nothing. `replay` is `sadb_sa_replay`.
pub(super) fn send_with(
    so: c_int,
    xfrm: Option<&pfkey_xfrm>,
    carrier: Carrier,
    replay: u8,
    write: impl Fn(u32, &mut [u8]) -> Result<usize, Code>,
) -> Result<c_int, Failure> {
    let Some(xfrm) = xfrm.filter(|xfrm| !xfrm.is_empty()) else { return send(so, write) };
    let said = xfrm.said();
    said.check(carrier, replay).map_err(refused)?;
    if crate::socket::is_af_key(so) {
        // It would pass over them.
        nix::errno::Errno::set_raw(libc::EOPNOTSUPP);
        return Err(Failure::text(format_args!("AF_KEY has no attributes of XFRM's")));
    }
    send(so, |pid, buffer| {
        let len = write(pid, buffer)?;
        let mut writer = Writer::after(buffer, len, Profile::Linux);
        writer.xfrm(said.fixed.flags, said.fixed.options, said.attributes.0);
        writer.finish().map(|message| message.len()).map_err(|_| Code::NoBuffers)
    })
}

fn transmit(so: c_int, buffer: &[u8], len: usize) -> Result<c_int, Failure> {
    let Some(message) = buffer.get(..len) else { return Err(Code::NoBuffers.into()) };
    match super::batch::keep(so, message) {
        Some(kept) => kept,
        None => Ok(crate::socket::send(so, message)? as c_int),
    }
}
