//! What C passes is read within its bounds, and nothing that the caller may read is written. Every argument stands in a
//! block of exactly its size; under Miri and AddressSanitizer (`tests/sanitize.sh`) a byte too many is seen. A batch takes
//! the messages, so that no system call is made.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use libc::sockaddr;
use pfkey_rs::capi::*;
use pfkey_rs::wire::SockaddrBytes;

#[path = "support/byte_order.rs"]
mod byte_order;
use byte_order::{native, native_extension};

/// Bytes in a block of their own, aligned as malloc's.
struct Block {
    words: Vec<u128>,
    len: usize,
}

impl Block {
    /// The bytes stand at the block's end, where a byte too many is outside.
    fn new(bytes: &[u8]) -> Self {
        let mut block = Self { words: vec![0; bytes.len().div_ceil(16)], len: bytes.len() };
        // SAFETY: the block has room for the bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.at(), bytes.len()) };
        block
    }

    fn at<T>(&mut self) -> *mut T {
        let unused = self.words.len() * 16 - self.len;
        // SAFETY: within the block, which has `unused` bytes more than are needed.
        unsafe { self.words.as_mut_ptr().cast::<u8>().add(unused).cast() }
    }
}

fn address(text: &str) -> Block {
    Block::new(SockaddrBytes::new(text.parse().unwrap(), 500).as_bytes())
}

/// `struct sadb_x_policy` with a tunnel request between two IPv4 addresses.
fn policy() -> Vec<u8> {
    let ends = [[192, 0, 2, 1], [198, 51, 100, 2]].map(sockaddr_in);
    let mut request = vec![48, 0, 50, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ends.iter().for_each(|end| request.extend(end));
    let mut bytes = vec![8, 0, 18, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
    bytes.extend(request);
    native_extension(bytes)
}

/// An IPv4 address, as it is on a little-endian machine.
fn sockaddr_in([a, b, c, d]: [u8; 4]) -> Vec<u8> {
    vec![2, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// An ADD: header, SA, two addresses, a key.
fn message() -> Vec<u8> {
    let extension = |number: u8, body: &[u8]| {
        let mut bytes = vec![0, 0, number, 0];
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes[0] = (bytes.len() / 8) as u8;
        bytes
    };
    let end = |ip| [&[255, 32, 0, 0], &sockaddr_in(ip)[..]].concat();
    let body = [
        extension(1, &[0, 0, 0x10, 0, 4, 1, 3, 0, 0, 0, 0, 0]),
        extension(5, &end([192, 0, 2, 1])),
        extension(6, &end([198, 51, 100, 2])),
        extension(8, &[&[160, 0, 0, 0][..], &[1; 20]].concat()),
    ]
    .concat();
    let mut bytes = vec![2, 3, 0, 3, ((16 + body.len()) / 8) as u8, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
    bytes.extend(body);
    native(bytes)
}

#[test]
fn a_message_is_read_as_far_as_it_says() {
    let mut bytes = message();
    let mut block = Block::new(&bytes);
    let mut mhp = [null_mut::<c_char>(); 27];
    // SAFETY: a whole message, and 27 elements.
    unsafe {
        assert_eq!(pfkey_align(block.at(), mhp.as_mut_ptr()), 0);
        assert_eq!(mhp.iter().filter(|slot| !slot.is_null()).count(), 5);
        assert_eq!(pfkey_check(mhp.as_mut_ptr()), 0);
        assert_eq!(pfkey_align(null_mut(), mhp.as_mut_ptr()), -1);
        assert_eq!(pfkey_align(block.at(), null_mut()), -1);
    }
    // An extension that goes on behind the message, in every place where one begins.
    for at in [16, 32, 56, 80] {
        let kept = std::mem::replace(&mut bytes[at], 99);
        let mut block = Block::new(&bytes);
        // SAFETY: as above.
        unsafe { assert_eq!(pfkey_align(block.at(), mhp.as_mut_ptr()), -1) };
        bytes[at] = kept;
    }
    // A header alone, which says less.
    for len in 0..=2 {
        let mut head = Block::new(&native(vec![2, 3, 0, 3, len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        // SAFETY: a header, which says no more.
        unsafe { assert_eq!(pfkey_align(head.at(), mhp.as_mut_ptr()), if len == 2 { 0 } else { -1 }) };
    }
}

#[test]
fn a_policy_is_read_as_far_as_it_says() {
    let mut block = Block::new(&policy());
    // SAFETY: a policy; a string or NULL; what comes back is a string from malloc.
    unsafe {
        assert_eq!(ipsec_get_policylen(block.at()), 64);
        let text = ipsec_dump_policy(block.at(), null_mut());
        let shown = std::ffi::CStr::from_ptr(text).to_str().unwrap();
        assert_eq!(shown, "out prio def ipsec esp/tunnel/192.0.2.1-198.51.100.2/require");
        libc::free(text.cast());
        let text = ipsec_dump_policy_withports(block.at::<c_void>(), c"\n".as_ptr());
        assert!(!text.is_null());
        libc::free(text.cast());
        assert!(ipsec_dump_policy(null_mut(), null_mut()).is_null());
    }
    // Its length says more than there is of a request.
    let mut short = policy();
    short.truncate(32);
    short[..2].copy_from_slice(&u16::to_ne_bytes(4));
    let mut block = Block::new(&short);
    // SAFETY: as many bytes as it says.
    unsafe { assert!(ipsec_dump_policy(block.at(), null_mut()).is_null()) };
}

#[test]
fn lists_of_algorithms_are_read_as_far_as_they_say() {
    let mut bytes = vec![2, 7, 0, 3, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, 0, 14, 0, 0, 0, 0, 0, 3, 0, 160, 0, 160, 0, 0, 0]);
    let bytes = native(bytes);
    let mut block = Block::new(&bytes);
    // SAFETY: as many bytes as are said; a struct of its own.
    unsafe {
        assert_eq!(pfkey_set_supported(block.at(), 32), 0);
        assert_eq!(ipsec_check_keylen(14, 3, 160), 0);
        let mut algorithm = std::mem::MaybeUninit::<sadb_alg>::uninit();
        assert_eq!(ipsec_get_keylen(14, 3, algorithm.as_mut_ptr()), 0);
        assert_eq!(algorithm.assume_init().minbits.get(), 160);
        assert_eq!(ipsec_get_keylen(14, 3, null_mut()), -1);
        assert_eq!(pfkey_set_supported(null_mut(), 32), -1);
    }
}

/// A descriptor that a batch is gathered for; nothing is sent on it.
const SO: c_int = 1_000_000;

#[test]
fn arguments_of_requests_are_read_within_their_blocks() {
    for (src, dst) in [("192.0.2.1", "198.51.100.2"), ("2001:db8::1", "2001:db8::2")] {
        let (mut src, mut dst, mut keys) = (address(src), address(dst), Block::new(&[7; 36]));
        let (mut context, mut policy) = (Block::new(b"system_u\0"), Block::new(&policy()));
        let (src, dst): (*mut sockaddr, *mut sockaddr) = (src.at(), dst.at());
        let mut args = pfkey_send_sa_args {
            so: SO,
            r#type: 0,
            satype: 3,
            mode: 2,
            src,
            dst,
            spi: 0x1000_u32.to_be(),
            reqid: 0,
            wsize: 4,
            keymat: keys.at(),
            e_type: 12,
            e_keylen: 16,
            a_type: 3,
            a_keylen: 20,
            flags: 0,
            l_alloc: 0,
            l_bytes: 0,
            l_addtime: 100,
            l_usetime: 0,
            seq: 1,
            l_natt_type: 2,
            l_natt_sport: 4500,
            l_natt_dport: 4500,
            l_natt_oa: src,
            l_natt_frag: 0,
            ctxdoi: 1,
            ctxalg: 1,
            ctxstr: context.at(),
            ctxstrlen: 9,
        };
        // SAFETY: every pointer is to what its name says, in the length that is said.
        unsafe {
            assert_eq!(pfkey_batch_begin(SO), 0);
            let sent = [
                pfkey_send_add2(&raw mut args),
                pfkey_send_update2(&raw mut args),
                pfkey_send_getspi(SO, 3, 2, src, dst, 0x100, 0x200, 0, 1),
                pfkey_send_delete(SO, 3, 2, src, dst, args.spi),
                pfkey_send_get(SO, 3, 2, src, dst, args.spi),
                pfkey_send_spdadd(SO, src, 32, dst, 32, 255, policy.at(), 64, 1),
                pfkey_send_spdupdate2(SO, src, 32, dst, 32, 255, 1, 2, policy.at(), 64, 1),
                pfkey_send_spddelete(SO, src, 32, dst, 32, 255, policy.at(), 16, 1),
                pfkey_send_migrate(SO, src, dst, src, 32, dst, 32, 255, policy.at(), 64, 1),
                pfkey_send_spdget(SO, 9),
                pfkey_send_flush(SO, 3),
            ];
            assert!(sent.iter().all(|sent| *sent >= 16 && sent % 8 == 0), "{sent:?}");
            // Without an address, or with a length that cannot be.
            assert_eq!(pfkey_send_add2(null_mut()), -1);
            assert_eq!(pfkey_send_get(SO, 3, 2, null_mut(), dst, args.spi), -1);
            assert_eq!(pfkey_send_spdadd(SO, src, 32, dst, 32, 255, policy.at(), -1, 1), -1);
            assert_eq!(pfkey_send_spdadd(SO, src, 32, dst, 32, 255, null_mut(), 64, 1), -1);
            args.keymat = null_mut();
            assert_eq!(pfkey_send_add2(&raw mut args), -1);
            pfkey_batch_drop();
        }
    }
}

/// Payloads, sockaddrs, the structure and messages of attributes.
#[test]
fn attributes_are_read_and_written_within_their_blocks() {
    let mut structure = Block::new(&[0; size_of::<pfkey_xfrm>()]);
    let xfrm: *mut pfkey_xfrm = structure.at();
    let (mut coaddr, mut payload, mut short) = (address("192.0.2.1"), Block::new(&[1, 2, 3]), Block::new(&[9; 2]));
    let (mut src, mut dst) = (address("192.0.2.1"), address("198.51.100.2"));
    let (src, dst): (*mut sockaddr, *mut sockaddr) = (src.at(), dst.at());
    let mut policy = Block::new(&policy());
    // SAFETY: every pointer is to what its name says, in the length that is said.
    unsafe {
        assert_eq!(pfkey_xfrm_set_coaddr(xfrm, coaddr.at()), 0);
        assert_eq!(pfkey_xfrm_set_coaddr(xfrm, null_mut()), -1);
        assert_eq!(pfkey_xfrm_set(xfrm, 999, payload.at(), 3), 0);
        assert_eq!(pfkey_xfrm_set(xfrm, 1000, null_mut(), 0), 0);
        assert_eq!(pfkey_xfrm_set(xfrm, 1001, null_mut(), 1), -1);
        assert_eq!(pfkey_xfrm_set(xfrm, -1, payload.at(), 3), -1);
        assert_eq!(pfkey_xfrm_set(xfrm, 1002, payload.at(), usize::MAX), -1);
        assert_eq!(pfkey_xfrm_set(null_mut(), 999, payload.at(), 3), -1);
        assert_eq!(pfkey_xfrm_get(xfrm, 999, short.at(), 2), 3);
        assert_eq!(std::slice::from_raw_parts(short.at::<u8>(), 2), [1, 2]);
        assert_eq!(pfkey_xfrm_get(xfrm, 999, null_mut(), 0), 3);
        assert_eq!(pfkey_xfrm_get(xfrm, 999, null_mut(), 1), -1);
        assert_eq!(pfkey_xfrm_get(xfrm, 1000, short.at(), 2), 0);
        assert_eq!(pfkey_xfrm_get(xfrm, 7, short.at(), 2), -1);
        assert_eq!([-1, 14, 999, 1000].map(|after| pfkey_xfrm_next(xfrm, after)), [14, 999, 1000, -1]);

        let mut of = |xfrm| pfkey_send_spdadd_xfrm(SO, src, 32, dst, 32, 255, 1, 2, policy.at(), 64, 1, xfrm);
        assert_eq!(pfkey_batch_begin(SO), 0);
        // An attribute of SAs alone does not belong to a policy, and is not sent.
        assert_eq!((of(xfrm), of(null_mut()) > 0), (-1, true));
        assert_eq!(pfkey_send_getspi_xfrm(SO, 3, 2, src, dst, 0, 0, 0, 0, 0, 0, 1, xfrm), 80 + 40);
        assert_eq!(pfkey_send_get_xfrm(SO, 3, src, dst, 9, null_mut()), 80);
        pfkey_batch_drop();

        // An extension that ends where its message does, and one that goes on behind it.
        let mut message = native(vec![2, 3, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.extend([0, 0, 0, 0, 128, 0, 0, 0]);
        message.extend([8_u16, 31].map(u16::to_ne_bytes).concat());
        message.extend(42_u32.to_ne_bytes());
        message[16..20].copy_from_slice(&[2_u16, 240].map(u16::to_ne_bytes).concat());
        assert_eq!(pfkey_xfrm_of(Block::new(&message).at(), xfrm), 1);
        assert_eq!((pfkey_xfrm_next(xfrm, -1), pfkey_xfrm_next(xfrm, 31)), (31, -1));
        message[16..18].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(pfkey_xfrm_of(Block::new(&message).at(), xfrm), 0);
        assert_eq!(pfkey_xfrm_of(Block::new(&message).at(), null_mut()), -1);
        assert_eq!(pfkey_xfrm_of(null_mut(), xfrm), -1);
    }
}
