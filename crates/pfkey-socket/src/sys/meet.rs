//! The sockets that a program hands the machine's pfkeyd, and how they travel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use pfkey_wire::hello::{ALL_SOCKETS, PRIMER};

use super::new_descriptor;

/// Room for [`ALL_SOCKETS`] descriptors, and exactly that.
const RIGHTS: usize = 16 + 4 * ALL_SOCKETS;

/// Room for what travels beside a message.
#[repr(C, align(8))]
struct Control<const N: usize>([u8; N]);

/// A NETLINK_XFRM socket in which the kernel's answer to [`PRIMER`] waits.
///
/// # Errors
/// Those of `socket` and `send`: EPROTONOSUPPORT where the kernel has no XFRM_USER.
pub(crate) fn primed_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the socket is this caller's.
    let fd = unsafe { new_descriptor(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_XFRM)) }?;
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // Without it an error's acknowledgement repeats the request, keys included. Missing before Linux 4.2.
    // SAFETY: the pointer is that of a live integer of the length that is passed.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, (&raw const on).cast(), len);
    }
    // The kernel names the socket, which has no name yet, when it sends.
    // SAFETY: the pointer and length are those of a live array.
    let sent = unsafe { libc::send(fd.as_raw_fd(), PRIMER.as_ptr().cast(), PRIMER.len(), libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// Sets the bytes that may wait to be received, as far as that is allowed.
pub(crate) fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) {
    let bytes = bytes as libc::c_int;
    let set = |name| {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer is that of a live integer of the length that is passed.
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const bytes).cast(), len) }
    };
    if set(libc::SO_RCVBUFFORCE) != 0 {
        set(libc::SO_RCVBUF);
    }
}

fn message<const N: usize>(part: &mut libc::iovec, control: &mut Control<N>) -> libc::msghdr {
    // SAFETY: msghdr is plain data, valid when zeroed.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    message
}

/// Sends bytes with descriptors, at most [`ALL_SOCKETS`] of them, without SIGPIPE.
///
/// # Errors
/// Those of `sendmsg`.
pub(crate) fn send_with<const N: usize>(fd: BorrowedFd<'_>, bytes: &[u8], with: [BorrowedFd<'_>; N]) -> io::Result<()> {
    const { assert!(N <= ALL_SOCKETS) };
    let mut control = Control([0; RIGHTS]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message(&mut part, &mut control);
    // SAFETY: the header and the descriptors fit into the control buffer, which the macros stay inside of.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4 * N as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4 * N as u32) as _;
        let numbers = with.map(|fd| fd.as_raw_fd());
        libc::CMSG_DATA(header).cast::<[RawFd; N]>().write_unaligned(numbers);
    }
    loop {
        // SAFETY: the header names live buffers of these lengths, which are only read.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match io::Error::last_os_error() {
            _ if sent >= 0 => return Ok(()),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// A message with its descriptors.
pub struct Seen {
    /// Its bytes.
    pub len: usize,
    /// Copies of what came with it, at least as many as there were up to [`ALL_SOCKETS`]. To drop one may take as long as whoever
    /// sent it likes.
    pub descriptors: Vec<OwnedFd>,
    /// There are more than these.
    pub more: bool,
}

/// Looks at the message that waits, whose descriptors become copies of the receiver's; they come again if it is looked at
/// again.
///
/// # Errors
/// Those of `recvmsg`: EAGAIN if none waits.
pub fn peek_with_descriptors(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Seen> {
    let mut control = Control([0; RIGHTS + 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message(&mut part, &mut control);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
    // SAFETY: the header names live buffers of these lengths.
    let len = nix::errno::Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled the control buffer as msg_controllen says, and the macros stay inside it. The descriptors were
    // made for this receiver; each is owned once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                descriptors.extend((0..bytes / 4).map(|n| OwnedFd::from_raw_fd(first.add(n).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Seen { len: len as usize, descriptors, more: message.msg_flags & libc::MSG_CTRUNC != 0 })
}
