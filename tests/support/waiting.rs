//! What waits at a descriptor.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::wire::{Header, MessageType};

/// The headers of the messages that wait now.
pub fn waiting_headers(fd: &OwnedFd) -> Vec<Header> {
    let mut bytes = vec![0; 1 << 16];
    let next = || {
        let len = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok().filter(|len| *len > 0)?;
        Header::read(&bytes[..len])
    };
    std::iter::from_fn(next).collect()
}

/// Their types and errnos.
pub fn waiting(fd: &OwnedFd) -> Vec<(MessageType, u8)> {
    waiting_headers(fd).into_iter().map(|header| (header.msg_type, header.errno)).collect()
}
