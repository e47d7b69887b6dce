//! A NETLINK_XFRM socket (`linux/netlink.h`): the only system calls of this module.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as System;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, NetlinkAddr, bind, getpeername, recvmmsg, recvmsg, send, setsockopt, sockopt,
};

use super::attribute::Acknowledgement;
use super::layout::message;
use pfkey_wire::Errno;
use pfkey_wire::hello::{PRIMER, PRIMER_SEQ};
use zeroize::Zeroize as _;

/// `NETLINK_XFRM`.
const PROTOCOL: libc::c_int = 6;
/// The kernel fills at most 32 KiB of a dump into one datagram; one message with the longest keys is below 64 KiB.
pub const RECEIVE_BUFFER: usize = 64 * 1024;

/// Bytes of an acknowledgement: a header, an errno, the header that it is about, and a text, of which the kernel formats up to 80
/// bytes (`NETLINK_MAX_FMTMSG_LEN`) and has others that are little longer. What follows may be cut off.
const ACKNOWLEDGEMENT: usize = 256;

/// Without the text.
const SHORTEST: usize = 36;

/// Datagrams that are thrown away before something is asked: of a dump of 300 000 SAs.
const MOST_STALE: usize = 4096;

/// Datagrams of other senders than the kernel that are passed over for one of its. Who has a copy of a session's socket may add to
/// them as fast as they are taken, and all others wait.
const MOST_FOREIGN: usize = 64;

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

/// An option of a socket that is a plain number of any size; `None` if it has none such.
fn option<T: zerocopy::FromBytes>(fd: BorrowedFd<'_>, name: libc::c_int) -> Option<T> {
    let mut value = T::new_zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is that of a live value of the length that is passed, and any bytes are one.
    let status =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (status == 0 && len as usize == size_of::<T>()).then_some(value)
}

/// The network namespace of any socket (`SO_NETNS_COOKIE`); `None` before Linux 5.14.
#[must_use]
pub fn namespace(fd: BorrowedFd<'_>) -> Option<u64> {
    option(fd, libc::SO_NETNS_COOKIE)
}

/// A netlink socket of any protocol: nobody has to wait to close one.
#[derive(Debug)]
pub struct NetlinkFd(OwnedFd);

impl NetlinkFd {
    /// # Errors
    /// The descriptor, if it is anything else.
    pub fn of(fd: OwnedFd) -> Result<Self, OwnedFd> {
        if option(fd.as_fd(), libc::SO_DOMAIN) == Some(libc::AF_NETLINK) { Ok(Self(fd)) } else { Err(fd) }
    }
}

impl From<Netlink> for OwnedFd {
    fn from(netlink: Netlink) -> Self {
        netlink.fd
    }
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
    /// EAFNOSUPPORT where the kernel has no XFRM_USER, or none for programs of 32 bits; other errors of `socket`.
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
        let netlink = Self::known(fd);
        // A socket without a name has the number of the kernel, to whom multicasts do not go.
        bind(netlink.fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(from_system)?;
        // Without it an error's acknowledgement repeats the request, keys included. Missing before Linux 4.2.
        let _ = netlink.option(libc::NETLINK_CAP_ACK, 1);
        // A 64-bit kernel without XFRM_USER_COMPAT refuses every request of a 32-bit program (`in_compat_syscall`), which on x86
        // alone has other structures; one that cannot be does no harm.
        if cfg!(target_arch = "x86") {
            netlink.send(&PRIMER)?;
            if netlink.answer_to_primer()? == Err(Errno::EOPNOTSUPP) {
                return Err(Errno::EAFNOSUPPORT);
            }
        }
        netlink.hear_reasons();
        Ok(netlink)
    }

    /// Takes over a socket that another program made, if it is of NETLINK_XFRM and the kernel's answer to the primer waits in it:
    /// whoever opened it and whoever sent that have CAP_NET_ADMIN over its network namespace. The other may hold a copy, receive
    /// what this one waits for, and send.
    ///
    /// # Errors
    /// EPERM without that right; EINVAL for any other descriptor, and where anything but that answer waits.
    pub fn adopt(fd: NetlinkFd) -> Result<Self, Errno> {
        let netlink = Self::of_xfrm(fd)?;
        if !netlink.is_the_kernels() {
            return Err(Errno::EINVAL);
        }
        netlink.take_primed(true)?;
        netlink.hear_reasons();
        // That shows the sender's right. If an address was said with it, the opener was not asked.
        netlink.send(&PRIMER)?;
        netlink.take_primed(false)?;
        Ok(netlink)
    }

    /// Has the kernel say why it refuses something (extended acknowledgements). Missing before Linux 4.12.
    fn hear_reasons(&self) {
        let _ = self.option(libc::NETLINK_EXT_ACK, 1);
    }

    /// Receives the kernel's answer to a primer.
    ///
    /// # Errors
    /// EINVAL where anything else waits.
    fn answer_to_primer(&self) -> Result<Result<(), Errno>, Errno> {
        let mut answer = [0; ACKNOWLEDGEMENT];
        let received = self.receive(&mut answer)?.ok_or(Errno::EINVAL)?;
        let answer = Acknowledgement::read(received).ok_or(Errno::EINVAL)?;
        if (answer.of.msg_type, answer.of.seq) != (message::GETSA, PRIMER_SEQ) {
            return Err(Errno::EINVAL);
        }
        Ok(answer.outcome)
    }

    /// Takes the kernel's answer to a primer, which a program of 32 bits may have sent.
    fn take_primed(&self, perhaps_of_32_bits: bool) -> Result<(), Errno> {
        // Some requests are refused before the right is looked at; but none of this type, and none of it finds such an SA.
        match self.answer_to_primer()? {
            Err(Errno::ESRCH) => Ok(()),
            // `xfrm_user_rcv_msg` without XFRM_USER_COMPAT, since Linux 5.10 after it has looked at the right; a pfkeyd that
            // is handed sockets needs 5.14 (SO_NETNS_COOKIE).
            Err(Errno::EOPNOTSUPP) if perhaps_of_32_bits => Ok(()),
            Err(Errno::EPERM) => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether what is sent goes to the kernel, and to no other socket.
    fn is_the_kernels(&self) -> bool {
        getpeername::<NetlinkAddr>(self.fd.as_raw_fd()).is_ok_and(|peer| peer.pid() == 0 && peer.groups() == 0)
    }

    /// A socket that was a [`Netlink`] before it came here from another process of this program: the kernel is not asked again.
    #[must_use]
    pub fn known(fd: OwnedFd) -> Self {
        Self {
            fd,
            #[cfg(test)]
            failing: std::cell::Cell::default(),
        }
    }

    /// Whether a descriptor is a socket of NETLINK_XFRM.
    #[must_use]
    pub fn is_one(fd: BorrowedFd<'_>) -> bool {
        option(fd, libc::SO_DOMAIN) == Some(libc::AF_NETLINK) && option(fd, libc::SO_PROTOCOL) == Some(PROTOCOL)
    }

    fn of_xfrm(NetlinkFd(fd): NetlinkFd) -> Result<Self, Errno> {
        if option(fd.as_fd(), libc::SO_PROTOCOL) != Some(PROTOCOL) {
            return Err(Errno::EINVAL);
        }
        Ok(Self::known(fd))
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// That of `fcntl`.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        let fd = self.fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        Ok(Self::known(fd))
    }

    /// The number of its network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
    ///
    /// # Errors
    /// That of `getsockopt`.
    pub fn namespace(&self) -> Result<u64, Errno> {
        namespace(self.as_fd()).ok_or(Errno::EOPNOTSUPP)
    }

    /// Throws away what waits; EBUSY if there is no end of it.
    ///
    /// # Errors
    /// EBUSY.
    pub fn drain(&self, buffer: &mut [u8]) -> Result<(), Errno> {
        for _ in 0..MOST_STALE {
            if let Ok(None) = self.receive_one(buffer) {
                return Ok(());
            }
        }
        Err(Errno::EBUSY)
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
        // No address is said: with one Linux asks only whether this process may, and not whether the socket's opener might
        // (netlink_capable, NETLINK_SKB_DST). Nothing is waited for: who else holds the socket may have connected it to another,
        // and may have made it one that blocks.
        loop {
            match send(self.fd.as_raw_fd(), messages, MsgFlags::MSG_DONTWAIT) {
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
        let mut buffers = vec![[0; ACKNOWLEDGEMENT]; most.min(64)];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(slices.len(), None);
        match recvmmsg(self.fd.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => {
                let lens: Vec<usize> = results.map(|result| result.bytes).collect();
                let read = buffers.iter_mut().zip(lens).map(|(buffer, len)| {
                    let read = Acknowledgement::read(buffer.get(..len).unwrap_or_default());
                    // Who else holds the socket may have had requests repeated, and with them keys.
                    buffer.get_mut(SHORTEST..len).unwrap_or_default().zeroize();
                    read
                });
                Ok(read.collect())
            }
            Err(System::EAGAIN) => Ok(Vec::new()),
            Err(errno) => Err(from_system(errno)),
        }
    }

    /// Receives as many datagrams as wait and as have room, each in so many bytes of the buffer; none if none waits.
    ///
    /// # Errors
    /// ENOBUFS once after messages were lost.
    pub fn receive_many(&self, buffer: &mut [u8], each: usize) -> Result<Vec<Datagram>, Errno> {
        self.injected()?;
        let mut slices: Vec<_> = buffer.chunks_exact_mut(each).map(|part| [IoSliceMut::new(part)]).collect();
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(slices.len(), None);
        match recvmmsg(self.fd.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => Ok(results
                .map(|one| {
                    // Other senders than the kernel are ignored, however much they send.
                    let is_the_kernels = one.address.is_some_and(|from| from.pid() == 0);
                    Datagram {
                        len: if is_the_kernels { one.bytes } else { 0 },
                        truncated: is_the_kernels && one.flags.contains(MsgFlags::MSG_TRUNC),
                    }
                })
                .collect()),
            Err(System::EAGAIN | System::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(from_system(errno)),
        }
    }

    /// Receives the next datagram of the kernel's into the buffer; `None` if none waits.
    ///
    /// # Errors
    /// ENOBUFS once after messages were lost, and where too many of others wait.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b mut [u8]>, Errno> {
        self.injected()?;
        for _ in 0..MOST_FOREIGN {
            match self.receive_one(buffer)? {
                Some((len, true)) => return Ok(buffer.get_mut(..len)),
                Some((_, false)) => {}
                None => return Ok(None),
            }
        }
        Err(Errno::ENOBUFS)
    }

    /// Receives the next datagram: its length, and whether it is the kernel's.
    fn receive_one(&self, buffer: &mut [u8]) -> Result<Option<(usize, bool)>, Errno> {
        for _ in 0..MOST_FOREIGN {
            let mut parts = [IoSliceMut::new(buffer)];
            let received = recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT);
            match received.map(|received| (received.bytes, received.address)) {
                Ok((len, from)) => return Ok(Some((len, from.is_some_and(|from| from.pid() == 0)))),
                Err(System::EINTR) => {}
                Err(System::EAGAIN) => return Ok(None),
                Err(errno) => return Err(from_system(errno)),
            }
        }
        Err(Errno::EINTR)
    }
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::{getsockname, sendto};

    #[test]
    fn what_others_send_without_end_is_not_taken_without_end() {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return eprintln!("skipped: a network namespace needs root");
        }
        let (Ok(netlink), Ok(other)) = (Netlink::open(), Netlink::open()) else {
            return eprintln!("skipped: this kernel has no XFRM");
        };
        netlink.set_receive_buffer(64 << 20);
        let to: NetlinkAddr = getsockname(netlink.fd.as_raw_fd()).unwrap();
        for _ in 0..MOST_STALE + 2 * MOST_FOREIGN {
            sendto(other.fd.as_raw_fd(), b"foreign", &to, MsgFlags::empty()).unwrap();
        }
        let mut buffer = [0; 64];
        assert_eq!(netlink.receive(&mut buffer), Err(Errno::ENOBUFS));
        netlink.send(&PRIMER).unwrap();
        assert_eq!(netlink.drain(&mut buffer), Err(Errno::EBUSY), "more than these wait");
        assert_eq!(netlink.drain(&mut buffer), Ok(()));
        netlink.send(&PRIMER).unwrap();
        assert!(netlink.receive(&mut buffer).unwrap().is_some());
        assert_eq!(netlink.receive(&mut buffer), Ok(None));
    }
}
