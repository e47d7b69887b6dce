//! One message, one send, no allocation.

use std::ffi::c_int;

use zeroize::{Zeroize, Zeroizing};

use super::guard::Failure;
use super::memory::Block;
use crate::error::Code;
use crate::wire::MAX_MESSAGE_LEN;

/// Bytes of the stack buffer that nearly every message fits.
const STACK: usize = 4096;

/// Has `write` build a message (it is given the process id and a buffer) and sends it. Messages above 4096 bytes,
/// which only keys, contexts and policies of that size make, are built on the heap. Both are wiped, they may hold
/// keys.
pub(super) fn send(so: c_int, write: impl Fn(u32, &mut [u8]) -> Result<usize, Code>) -> Result<c_int, Failure> {
    let pid = std::process::id();
    let mut stack = Zeroizing::new([0; STACK]);
    match write(pid, &mut *stack) {
        Ok(len) => transmit(so, &*stack, len),
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

fn transmit(so: c_int, buffer: &[u8], len: usize) -> Result<c_int, Failure> {
    let Some(message) = buffer.get(..len) else { return Err(Code::NoBuffers.into()) };
    match super::batch::keep(so, message) {
        Some(kept) => kept,
        None => Ok(crate::socket::send(so, message)? as c_int),
    }
}
