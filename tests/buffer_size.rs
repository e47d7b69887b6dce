//! `pfkey_set_buffer_size` as libipsec's: it grows a receive buffer, and says how large it is in KiB.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use pfkey_rs::capi::{__ipsec_errcode, pfkey_set_buffer_size};

#[test]
fn it_grows_and_reports() {
    let (fd, _peer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let so = fd.as_raw_fd();
    let size = || getsockopt(&fd, sockopt::RcvBuf).unwrap();
    let set = |kb| {
        __ipsec_errcode.store(-1, std::sync::atomic::Ordering::Relaxed);
        // SAFETY: no pointers.
        unsafe { pfkey_set_buffer_size(so, kb) }
    };
    let before = size();
    assert_eq!(set(-5) as usize, before / 1024);
    assert_eq!(set(1) as usize, before / 1024, "never smaller");
    assert_eq!(size(), before);
    // Linux doubles what is asked for, up to net.core.rmem_max.
    let larger = set(i32::try_from(before / 1024 + 1).unwrap()) as usize;
    assert_eq!(larger, size() / 1024);
    assert!(size() >= before);
    assert_eq!(set(i32::MAX) as usize, size() / 1024, "no overflow");
    assert_eq!(__ipsec_errcode.load(std::sync::atomic::Ordering::Relaxed), -1, "the code is left alone");
    // SAFETY: no pointers.
    assert_eq!(unsafe { (pfkey_set_buffer_size(-1, 0), pfkey_set_buffer_size(-1, 8)) }, (0, -1));
}
