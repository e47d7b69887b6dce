//! Which descriptors a pfkeyd serves. Nothing is remembered of them; what shows it, in whatever process one ends up, is the
//! name that whoever opened it gave it.
//!
//! A name can be given by anybody, and so can a descriptor (SCM_RIGHTS): who sends on one waits until its peer has read. So
//! the peer has to be somebody who is trusted anyway.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;

use super::sys::{has_name_prefix, is_seqpacket, peer_uid};

/// Whether the descriptor is a `SOCK_SEQPACKET` socket whose name begins with `prefix`, and whose peer was made by root, or
/// by who this process is now. errno is kept.
pub(super) fn is_named(fd: RawFd, prefix: &[u8]) -> bool {
    has_name_prefix(fd, prefix) && is_seqpacket(fd) && is_trusted(fd)
}

/// Whether the peer was made by root, or by who this process is now.
pub(super) fn is_trusted(fd: RawFd) -> bool {
    peer_uid(fd).is_some_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
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
