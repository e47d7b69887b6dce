//! A NETLINK_XFRM socket (`linux/netlink.h`): the only system calls of this module.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as System;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, bind, recvfrom, recvmmsg, send, setsockopt, sockopt};

use super::attribute::Acknowledgement;
use pfkey_wire::Errno;

/// `NETLINK_XFRM`.
const PROTOCOL: libc::c_int = 6;
/// The kernel fills at most 32 KiB of a dump into one datagram; one message with the longest keys is below 64 KiB.
pub const RECEIVE_BUFFER: usize = 64 * 1024;

/// Multicast groups of NETLINK_XFRM (`XFRMNLGRP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Group {
    /// The kernel wants an SA. A listener here makes it want them.
    Acquire = 1,
    /// An SA reached a limit.
    Expire = 2,
    /// SAs come and go.
    Sa = 3,
    /// Policies come and go.
    Policy = 4,
    /// SAs and policies move.
    Migrate = 7,
    /// A NAT-T peer moved.
    Mapping = 8,
}

fn from_system(errno: System) -> Errno {
    Errno::from_raw(errno as i32)
}

/// What was received into one of several buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes.
    pub len: usize,
    /// It did not fit.
    pub truncated: bool,
}

/// A socket of its own netlink address.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    /// How many receives fail, and how, before the socket is asked.
    #[cfg(test)]
    pub failing: std::cell::Cell<(usize, Option<Errno>)>,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netlink {
    /// Opens one in this thread's network namespace; it does not block.
    ///
    /// # Errors
    /// EAFNOSUPPORT where the kernel has no XFRM_USER; other errors of `socket`.
    pub fn open() -> Result<Self, Errno> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, PROTOCOL) };
        let raw = System::result(raw).map_err(|errno| match errno {
            System::EPROTONOSUPPORT => Errno::EAFNOSUPPORT,
            other => from_system(other),
        })?;
        // SAFETY: socket just returned it, nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let netlink = Self {
            fd,
            #[cfg(test)]
            failing: std::cell::Cell::default(),
        };
        // A socket without a name has the number of the kernel, to whom multicasts do not go.
        bind(netlink.fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(from_system)?;
        // Without it an error's acknowledgement repeats the request, keys included. Missing before Linux 4.2.
        let _ = netlink.option(libc::NETLINK_CAP_ACK, 1);
        Ok(netlink)
    }

    /// A descriptor in the place of a socket.
    #[cfg(any(test, fuzzing))]
    pub fn over(fd: OwnedFd) -> Self {
        Self {
            fd,
            #[cfg(test)]
            failing: std::cell::Cell::default(),
        }
    }

    /// Sets the bytes that may wait to be received, as far as that is allowed.
    pub fn set_receive_buffer(&self, bytes: usize) {
        if setsockopt(&self.fd, sockopt::RcvBufForce, &bytes).is_err() {
            let _ = setsockopt(&self.fd, sockopt::RcvBuf, &bytes);
        }
    }

    fn option(&self, name: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer is that of a live integer of the length that is passed.
        let status =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_NETLINK, name, (&raw const value).cast(), len) };
        System::result(status).map(|_| ()).map_err(from_system)
    }

    /// Joins a group.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn join(&self, group: Group) -> Result<(), Errno> {
        self.option(libc::NETLINK_ADD_MEMBERSHIP, group as libc::c_int)
    }

    /// Leaves a group.
    pub fn leave(&self, group: Group) {
        let _ = self.option(libc::NETLINK_DROP_MEMBERSHIP, group as libc::c_int);
    }

    /// Sends messages to the kernel, which handles them before this returns.
    ///
    /// # Errors
    /// Those of `send`; what the kernel thinks of the messages comes as acknowledgements.
    pub fn send(&self, messages: &[u8]) -> Result<(), Errno> {
        loop {
            match send(self.fd.as_raw_fd(), messages, MsgFlags::empty()) {
                Err(System::EINTR) => {}
                other => return other.map(|_| ()).map_err(from_system),
            }
        }
    }

    /// The failure that a test asked for.
    #[cfg(test)]
    fn injected(&self) -> Result<(), Errno> {
        match self.failing.get() {
            (times, Some(errno)) if times > 0 => {
                self.failing.set((times - 1, Some(errno)));
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    const fn injected(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Receives acknowledgements that wait, `most` of them at most and 64 at once; none if none waits. `None` stands for
    /// something else that waited.
    ///
    /// # Errors
    /// Those of `recvmmsg`.
    pub fn acknowledgements(&self, most: usize) -> Result<Vec<Option<Acknowledgement>>, Errno> {
        self.injected()?;
        // A header, an errno, the header that it is about.
        let mut buffers = [[0; 64]; 64];
        let mut slices: Vec<_> = buffers.iter_mut().take(most).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(slices.len(), None);
        match recvmmsg(self.fd.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => {
                let lens: Vec<usize> = results.map(|result| result.bytes).collect();
                let whole = buffers.iter().zip(lens).map(|(buffer, len)| buffer.get(..len).unwrap_or_default());
                Ok(whole.map(Acknowledgement::read).collect())
            }
            Err(System::EAGAIN) => Ok(Vec::new()),
            Err(errno) => Err(from_system(errno)),
        }
    }

    /// Receives as many datagrams as wait and as there are buffers; none if none waits.
    ///
    /// # Errors
    /// ENOBUFS once after messages were lost.
    pub fn receive_many(&self, buffers: &mut [Box<[u8]>]) -> Result<Vec<Datagram>, Errno> {
        self.injected()?;
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(slices.len(), None);
        match recvmmsg(self.fd.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => Ok(results
                .map(|one| Datagram {
                    // Other senders than the kernel are ignored.
                    len: if one.address.is_some_and(|from| from.pid() == 0) { one.bytes } else { 0 },
                    truncated: one.flags.contains(MsgFlags::MSG_TRUNC),
                })
                .collect()),
            Err(System::EAGAIN | System::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(from_system(errno)),
        }
    }

    /// Receives the next datagram of the kernel's into the buffer; `None` if none waits.
    ///
    /// # Errors
    /// ENOBUFS once after messages were lost.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b mut [u8]>, Errno> {
        self.injected()?;
        loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), buffer) {
                Ok((len, from)) if from.is_some_and(|from| from.pid() == 0) => return Ok(buffer.get_mut(..len)),
                Ok(_) | Err(System::EINTR) => {}
                Err(System::EAGAIN) => return Ok(None),
                Err(errno) => return Err(from_system(errno)),
            }
        }
    }
}
