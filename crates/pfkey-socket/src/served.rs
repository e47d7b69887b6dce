//! Which descriptors a pfkeyd serves. Nothing is remembered of them; what shows it, in whatever process one ends up, is the
//! name that whoever opened it gave it.
//!
//! A name can be given by anybody, and so can a descriptor (SCM_RIGHTS): who sends on one waits until its peer has read. So
//! the peer has to be somebody who is trusted anyway.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use libc::{c_int, socklen_t};
use nix::errno::Errno;

use super::sys::has_name_prefix;

/// Whether the descriptor is a `SOCK_SEQPACKET` socket whose name begins with `prefix`, and whose peer was made by root, or
/// by who this process is now (`SO_PEERCRED`: of a pair, who made it; of a connection, who listens). errno is kept.
pub(super) fn is_named(fd: RawFd, prefix: &[u8]) -> bool {
    let errno = Errno::last_raw();
    let named = has_name_prefix(fd, prefix) && is_seqpacket(fd) && is_trusted(fd);
    Errno::set_raw(errno);
    named
}

fn is_seqpacket(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE, 0) == Some(libc::SOCK_SEQPACKET)
}

fn is_trusted(fd: RawFd) -> bool {
    let nobody = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    // SAFETY: no pointers; it cannot fail.
    option(fd, libc::SO_PEERCRED, nobody).is_some_and(|peer| peer.uid == 0 || peer.uid == unsafe { libc::geteuid() })
}

/// A socket option that is a `T`, which is plain data.
fn option<T: Copy>(fd: RawFd, name: c_int, mut value: T) -> Option<T> {
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the pointer is that of a live value of the length that is passed.
    let status = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (status == 0 && len as usize == size_of::<T>()).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socketpair};

    use super::*;

    fn named(kind: SockType, name: &str) -> (OwnedFd, OwnedFd) {
        let (ours, peer) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let name = format!("{name}/test/{}/{}", std::process::id(), ours.as_raw_fd());
        bind(ours.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
        (ours, peer)
    }

    #[test]
    fn the_name_is_not_enough() {
        let is = |(fd, _peer): (OwnedFd, OwnedFd)| is_named(fd.as_raw_fd(), b"\0pfkey/");
        assert!(is(named(SockType::SeqPacket, "pfkey")));
        assert!(!is(named(SockType::SeqPacket, "pfkeys")));
        assert!(!is(named(SockType::Stream, "pfkey")));
        assert!(!is(named(SockType::Datagram, "pfkey")));
        assert!(!is_named(-1, b"\0pfkey/"));
    }
}
