//! Sending a message allocates nothing, and an error text is a thread's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use pfkey_rs::capi::*;
use pfkey_rs::wire::SockaddrBytes;

struct Counting;

thread_local! {
    static COUNT: AtomicUsize = const { AtomicUsize::new(0) };
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.fetch_add(1, Ordering::Relaxed));
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> usize {
    COUNT.with(|count| count.load(Ordering::Relaxed))
}

#[test]
fn a_send_allocates_nothing() {
    let (ours, _peer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let so = ours.as_raw_fd();
    let mut src = SockaddrBytes::new([10, 0, 0, 1].into(), 0).as_bytes().to_vec();
    let mut dst = SockaddrBytes::new([10, 0, 0, 2].into(), 0).as_bytes().to_vec();
    let mut keys = [7_u8; 36];
    // SAFETY: plain data, valid when zeroed.
    let mut args: pfkey_send_sa_args = unsafe { std::mem::zeroed() };
    args.so = so;
    args.satype = 3;
    args.src = src.as_mut_ptr().cast();
    args.dst = dst.as_mut_ptr().cast();
    args.keymat = keys.as_mut_ptr().cast();
    (args.e_type, args.e_keylen, args.a_type, args.a_keylen) = (12, 16, 3, 20);
    let mut policy = [0_u8; 64];
    policy[0] = 8;
    // SAFETY: every pointer is to a live object of the size that goes with it.
    unsafe {
        let before = allocations();
        assert_eq!(pfkey_send_add2(&mut args), 216);
        assert!(pfkey_send_getspi(so, 3, 1, args.src, args.dst, 0, 0, 0, 1) > 0);
        assert!(pfkey_send_spdadd(so, args.src, 32, args.dst, 32, 255, policy.as_mut_ptr().cast(), 64, 0) > 0);
        assert_eq!(pfkey_send_dump(so, 0), 16);
        assert_eq!(allocations(), before);
    }
}

#[test]
fn each_thread_has_its_own_error() {
    let text = || {
        // SAFETY: never NULL, NUL-terminated.
        unsafe { CStr::from_ptr(ipsec_strerror()) }.to_str().unwrap().to_owned()
    };
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: no pointers.
            assert_eq!(unsafe { pfkey_send_register(-1, 5) }, -1);
            barrier.wait();
            barrier.wait();
            assert_eq!(text(), "Invalid argument");
        });
        barrier.wait();
        // SAFETY: no pointers.
        assert_eq!(unsafe { pfkey_send_flush(-1, 3) }, -1);
        assert_eq!(text(), "Bad file descriptor");
        barrier.wait();
    });
}
