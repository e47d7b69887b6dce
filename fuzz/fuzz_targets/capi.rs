//! The C functions as C calls them: whatever they may read stands in a block of exactly that size, so that
//! AddressSanitizer sees a byte too many.
#![no_main]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

use libc::sockaddr;
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use pfkey_fuzz::drawn_message;
use pfkey_fuzz::splitmix::Random;
use pfkey_rs::align;
use pfkey_rs::capi::*;
use pfkey_rs::wire::{Header, Profile};

unsafe extern "C" {
    fn pfkey_print_sadb_msg(msg: *const sadb_msg, len: usize, as_printed: c_int) -> c_int;
}

/// Bytes in a block of their own from `malloc`.
struct Block(*mut c_void);

impl Block {
    fn new(bytes: &[u8]) -> Self {
        // SAFETY: any size may be asked for; the block has room for the bytes.
        unsafe {
            let block = libc::malloc(bytes.len());
            assert!(!block.is_null());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.cast(), bytes.len());
            Self(block)
        }
    }

    /// Text with its NUL.
    fn text(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Self::new(&[&bytes[..end], &[0]].concat())
    }

    fn at<T>(&self) -> *mut T {
        self.0.cast()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it came from malloc.
        unsafe { libc::free(self.0) }
    }
}

/// Frees what a function gave; all of it must be there.
fn freed(block: *mut c_void, len: usize) {
    if !block.is_null() {
        // SAFETY: the function says that so many bytes are there, and that the block is the caller's.
        unsafe {
            let sum = std::slice::from_raw_parts(block.cast::<u8>(), len).iter().fold(0_u8, |sum, b| sum ^ b);
            std::hint::black_box(sum);
            libc::free(block);
        }
    }
}

/// A sockaddr: 28 bytes for IPv6, 16 for any other family. Sometimes NULL.
fn address(r: &mut Random<'_>) -> Option<Block> {
    let family: u16 = r.of(&[2, 2, 2, 10, 10, 0, 1, 15, 0xffff]);
    if r.below(16) == 1 {
        return None;
    }
    let mut bytes = family.to_ne_bytes().to_vec();
    let len = if family == 10 { 28 } else { 16 };
    bytes.extend(r.take(len - 2));
    bytes.resize(len, 1);
    Some(Block::new(&bytes))
}

fn raw<T>(block: &Option<Block>) -> *mut T {
    block.as_ref().map_or(null_mut(), Block::at)
}

/// Text through the parser; what it makes is sent, shown and freed.
fn policy_text(text: &[u8]) {
    let text = Block::text(text);
    // SAFETY: a string; its length is not looked at.
    let policy = unsafe { ipsec_set_policy(text.at(), -1) };
    if policy.is_null() {
        return;
    }
    // SAFETY: a policy.
    let len = unsafe { ipsec_get_policylen(policy) };
    assert!(len >= 16);
    policy_bytes(policy, b" ");
    freed(policy.cast(), len as usize);
}

fn policy_bytes(policy: *mut c_char, delimiter: &[u8]) {
    let delimiter = Block::text(delimiter);
    for delimiter in [delimiter.at(), null_mut()] {
        // SAFETY: a policy of as many bytes as it says; what comes back is a string.
        unsafe {
            for text in [ipsec_dump_policy(policy, delimiter), ipsec_dump_policy_withports(policy.cast(), delimiter)] {
                if !text.is_null() {
                    freed(text.cast(), libc::strlen(text) + 1);
                }
            }
        }
    }
}

/// A message whose header says how long it is.
fn message(bytes: &[u8]) {
    let mut exact = bytes.to_vec();
    exact.resize(exact.len().max(16), 0);
    let stated = usize::from(u16::from_ne_bytes([exact[4], exact[5]])) * 8;
    exact.resize(stated.max(16), 0);
    let block = Block::new(&exact);
    // SAFETY: the message is as long as it says, and 16 bytes at least; the array has 27 elements.
    unsafe {
        let mut mhp = [null_mut::<c_char>(); align::SLOTS];
        assert_eq!(align::SLOTS, 27);
        if pfkey_align(block.at(), mhp.as_mut_ptr()) == 0 {
            pfkey_check(mhp.as_mut_ptr());
        }
        pfkey_sadump(block.at());
        pfkey_sadump_withports(block.at());
        pfkey_spdump_filter_socket_policy(c_int::from(exact[0] & 1));
        pfkey_spdump(block.at());
        pfkey_spdump_withports(block.at());
        pfkey_spdump_filtered_count();
        kdebug_sadb(block.at());
        for as_printed in 0..2 {
            pfkey_print_sadb_msg(block.at(), exact.len(), as_printed);
        }
        ipsec_hexdump(block.at(), exact.len() as c_int);
        ipsec_bindump(block.at(), exact.len() as c_int);
    }
    // With its length in bytes, as pfkey_set_supported wants it.
    if let Ok(len) = u16::try_from(exact.len()) {
        exact[4..6].copy_from_slice(&len.to_ne_bytes());
        let block = Block::new(&exact);
        // SAFETY: as many bytes as is said.
        unsafe { pfkey_set_supported(block.at(), len.into()) };
    }
}

/// Two ends that do not block.
struct Pair(OwnedFd, OwnedFd);

impl Pair {
    fn so(&self) -> c_int {
        self.0.as_raw_fd()
    }

    /// What the library sent: one whole message, or nothing where it says so.
    fn sent(&self, returned: c_int) {
        let mut buffer = vec![0; 1 << 20];
        let peer: RawFd = self.1.as_raw_fd();
        match recv(peer, &mut buffer, MsgFlags::empty()) {
            Ok(len) => {
                assert_eq!(len as c_int, returned);
                // Policies and labels are copied as they are; the frame is the library's.
                assert!(Header::check(&buffer[..len], Profile::Linux).is_ok(), "{:02x?}", &buffer[..len]);
            }
            Err(errno) => assert_eq!((errno, returned), (Errno::EAGAIN, -1)),
        }
        assert_eq!(recv(peer, &mut buffer, MsgFlags::empty()), Err(Errno::EAGAIN), "one message at most");
    }
}

fn pair() -> Pair {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair of sockets");
    Pair(a, b)
}

/// Numbers of which most are small.
fn number(r: &mut Random<'_>) -> u32 {
    match r.below(4) {
        0 => r.word(),
        _ => r.below(32) as u32,
    }
}

fn send_sa(r: &mut Random<'_>, pair: &Pair) {
    let (src, dst, oa) = (address(r), address(r), address(r));
    let (e_keylen, a_keylen) = (r.below(80), r.below(80));
    let e_keylen = if r.below(64) == 1 { 8000 + e_keylen } else { e_keylen };
    let mut keys = r.take(e_keylen + a_keylen).to_vec();
    keys.resize(e_keylen + a_keylen, 7);
    // As many bytes as are looked at: none of a key that goes with no algorithm.
    let (satype, e_type, a_type) = (r.of(&[2, 3, 9, 0, 5, 300]), number(r), number(r));
    let looked_at = if a_type != 0 {
        e_keylen + a_keylen
    } else if e_type == 0 || satype == 9 {
        0
    } else {
        e_keylen
    };
    let keymat = Block::new(&keys[..looked_at]);
    let context_len = if r.below(32) == 1 { 5000 } else { r.below(64) };
    let mut context = r.take(context_len).to_vec();
    context.resize(context_len, b'x');
    let context = Block::new(&context);
    let mut args = pfkey_send_sa_args {
        so: pair.so(),
        r#type: 0,
        satype,
        mode: number(r),
        src: raw(&src),
        dst: raw(&dst),
        spi: r.word(),
        reqid: number(r),
        wsize: number(r),
        keymat: keymat.at(),
        e_type,
        e_keylen: e_keylen as u32,
        a_type,
        a_keylen: a_keylen as u32,
        flags: number(r),
        l_alloc: r.word(),
        l_bytes: r.word(),
        l_addtime: r.word(),
        l_usetime: r.word(),
        seq: r.word(),
        l_natt_type: r.below(4) as u8,
        l_natt_sport: r.word() as u16,
        l_natt_dport: r.word() as u16,
        l_natt_oa: raw(&oa),
        l_natt_frag: 0,
        ctxdoi: r.byte(),
        ctxalg: r.byte(),
        ctxstr: if r.below(2) == 0 { null_mut() } else { context.at() },
        ctxstrlen: context_len as u16,
    };
    let args = &raw mut args;
    // SAFETY: every pointer is to what its name says, in the length that is said.
    unsafe {
        pair.sent(if r.below(2) == 0 { pfkey_send_add2(args) } else { pfkey_send_update2(args) });
        let a = *args;
        let old = (a.l_bytes.into(), a.l_addtime.into(), a.l_usetime.into());
        pair.sent(pfkey_send_add(
            a.so, a.satype, a.mode, a.src, a.dst, a.spi, a.reqid, a.wsize, a.keymat, a.e_type, a.e_keylen, a.a_type,
            a.a_keylen, a.flags, a.l_alloc, old.0, old.1, old.2, a.seq,
        ));
        pair.sent(pfkey_send_update_nat(
            a.so,
            a.satype,
            a.mode,
            a.src,
            a.dst,
            a.spi,
            a.reqid,
            a.wsize,
            a.keymat,
            a.e_type,
            a.e_keylen,
            a.a_type,
            a.a_keylen,
            a.flags,
            a.l_alloc,
            old.0,
            old.1,
            old.2,
            a.seq,
            a.l_natt_type,
            a.l_natt_sport,
            a.l_natt_dport,
            a.l_natt_oa,
            0,
        ));
        pair.sent(pfkey_send_getspi(a.so, a.satype, a.mode, a.src, a.dst, a.spi, number(r), a.reqid, a.seq));
        pair.sent(pfkey_send_getspi_nat(
            a.so,
            a.satype,
            a.mode,
            a.src,
            a.dst,
            a.l_natt_type,
            1,
            2,
            a.spi,
            number(r),
            a.reqid,
            a.seq,
        ));
        pair.sent(pfkey_send_delete(a.so, a.satype, a.mode, a.src, a.dst, a.spi));
        pair.sent(pfkey_send_delete_all(a.so, a.satype, a.mode, a.src, a.dst));
        pair.sent(pfkey_send_get(a.so, a.satype, a.mode, a.src, a.dst, a.spi));
    }
}

fn send_policy(r: &mut Random<'_>, pair: &Pair) {
    let (src, dst, local, remote) = (address(r), address(r), address(r), address(r));
    let (src, dst): (*mut sockaddr, *mut sockaddr) = (raw(&src), raw(&dst));
    let len = if r.below(2) == 0 { 16 } else { r.below(40) * 8 };
    let mut policy = r.take(len).to_vec();
    policy.resize(len.max(16), 0);
    let words = (policy.len() / 8) as u16;
    policy[0..2].copy_from_slice(&words.to_ne_bytes());
    let policy_block = Block::new(&policy);
    let (policy, len) = (policy_block.at::<c_char>(), r.of(&[policy.len() as c_int, policy.len() as c_int, 16, 0, -1]));
    let (so, prefs, prefd, proto, seq) = (pair.so(), number(r), number(r), number(r), r.word());
    let (from, until) = (r.long(), r.long());
    // SAFETY: every pointer is to what its name says, in the length that is said.
    unsafe {
        pair.sent(pfkey_send_spdadd(so, src, prefs, dst, prefd, proto, policy, len, seq));
        pair.sent(pfkey_send_spdadd2(so, src, prefs, dst, prefd, proto, from, until, policy, len, seq));
        pair.sent(pfkey_send_spdupdate(so, src, prefs, dst, prefd, proto, policy, len, seq));
        pair.sent(pfkey_send_spdupdate2(so, src, prefs, dst, prefd, proto, from, until, policy, len, seq));
        pair.sent(pfkey_send_spddelete(so, src, prefs, dst, prefd, proto, policy, len, seq));
        pair.sent(pfkey_send_spdsetidx(so, src, prefs, dst, prefd, proto, policy, len, seq));
        let (local, remote) = (raw(&local), raw(&remote));
        pair.sent(pfkey_send_migrate(so, local, remote, src, prefs, dst, prefd, proto, policy, len, seq));
        pair.sent(pfkey_send_spddelete2(so, seq));
        pair.sent(pfkey_send_spdget(so, seq));
    }
    policy_bytes(policy, b"\n");
}

fn send_headers(r: &mut Random<'_>, pair: &Pair) {
    let (so, n) = (pair.so(), number(r));
    // SAFETY: no pointers.
    unsafe {
        pair.sent(pfkey_send_register(so, n));
        pair.sent(pfkey_send_flush(so, n));
        pair.sent(pfkey_send_dump(so, n));
        pair.sent(pfkey_send_promisc_toggle(so, n as c_int));
        pair.sent(pfkey_send_spdflush(so));
        pair.sent(pfkey_send_spddump(so));
        pfkey_set_softrate(n, r.word());
        pfkey_get_softrate(n);
    }
}

/// Any datagrams, received.
fn receive(r: &mut Random<'_>, pair: &Pair) {
    let mut messages = Vec::new();
    for _ in 0..1 + r.below(3) {
        let mut bytes = drawn_message(r);
        if r.below(2) == 0 && bytes.len() >= 16 {
            // The answer to this process's REGISTER.
            bytes[1] = 7;
            bytes[12..16].copy_from_slice(&std::process::id().to_ne_bytes());
        }
        let _ = send(pair.1.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT);
        messages.push(bytes);
    }
    // SAFETY: no pointers; what comes back is a message of as many bytes as it says.
    unsafe {
        if r.below(2) == 0 {
            pfkey_recv_register(pair.so());
        }
        for _ in 0..messages.len() {
            let received = pfkey_recv(pair.so());
            if !received.is_null() {
                let len = usize::from((*received).len.get()) * 8;
                assert!(len >= 16);
                freed(received.cast(), len);
            }
        }
        let mut algorithm = std::mem::zeroed::<sadb_alg>();
        for kind in [14, 15, 3] {
            let (id, bits) = (number(r), number(r));
            ipsec_check_keylen(kind, id, bits);
            ipsec_check_keylen2(kind % 12, id, bits);
            ipsec_get_keylen(kind, id, &raw mut algorithm);
            ipsec_get_keylen(kind, id, null_mut());
        }
        let reason = ipsec_strerror();
        assert!(!reason.is_null() && libc::strlen(reason) > 0);
        // A function of the listing's, over a descriptor that nobody serves.
        pfkey_batch_begin(pair.so());
        pfkey_send_flush(pair.so(), 3);
        pfkey_batch_drop();
    }
}

/// An engine of one's own.
fn engine(r: &mut Random<'_>) {
    // SAFETY: the engine lives until it is freed; every pointer is to what its name says.
    unsafe {
        let engine = pfkey_engine_new(null());
        assert!(!engine.is_null());
        let session = pfkey_engine_open(engine);
        let mut now = 1_700_000_000_000_000_000;
        for _ in 0..16 {
            if r.is_empty() {
                break;
            }
            match r.below(6) {
                0..=2 => {
                    let bytes = drawn_message(r);
                    let block = Block::new(&bytes);
                    pfkey_engine_send(engine, session, block.at(), bytes.len(), now);
                }
                3 => {
                    let (src, dst) = (address(r), address(r));
                    let mut sas: Vec<pfkey_engine_sa> = Vec::with_capacity(6);
                    let room = r.below(7);
                    let proto = r.of(&[6, 17, 1]);
                    let n = pfkey_engine_outbound(engine, raw(&src), raw(&dst), proto, sas.as_mut_ptr(), room, now);
                    sas.set_len(usize::try_from(n).unwrap_or(0));
                    assert!(sas.len() <= room);
                    for sa in &sas {
                        let peer = address(r);
                        pfkey_engine_count(engine, sa, r.long(), r.long(), now);
                        pfkey_engine_new_mapping(engine, sa, raw(&peer), now);
                    }
                    let mut resolution = std::mem::MaybeUninit::<pfkey_resolution>::uninit();
                    pfkey_resolve(engine, raw(&src), raw(&dst), proto, r.word(), resolution.as_mut_ptr());
                }
                4 => {
                    now = now.saturating_add(r.long() >> r.below(64));
                    pfkey_engine_advance(engine, now);
                    // At the end of time nothing is later.
                    let next = pfkey_engine_next_deadline(engine);
                    assert!(next > now || now == u64::MAX, "{next} at {now}");
                }
                _ => loop {
                    let pending = pfkey_engine_pending(engine, session);
                    if pending <= 0 {
                        break;
                    }
                    let block = Block::new(&vec![0; pending as usize]);
                    assert_eq!(pfkey_engine_recv(engine, session, block.at(), pending as usize, now), pending);
                },
            }
        }
        pfkey_engine_close(engine, session, now);
        pfkey_engine_free(engine);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut r = Random(bytes);
    match r.below(8) {
        0 => message(r.0),
        1 => message(&drawn_message(&mut r)),
        2 => policy_text(r.0),
        3 => send_sa(&mut r, &pair()),
        4 => send_policy(&mut r, &pair()),
        5 => send_headers(&mut r, &pair()),
        6 => receive(&mut r, &pair()),
        _ => engine(&mut r),
    }
});
