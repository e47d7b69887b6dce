//! Receiving, registration and the error table behave as the real libipsec's did.
//!
//! One at a time, and in the order of the golden file: the code and the registered algorithms belong to the whole
//! process.

mod support;

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use pfkey_rs::capi::*;
use serde_json::Value;
use support::{golden, native, native_algorithm, unhex};

/// Golden lines that show a bug of libipsec which this library does not have, and what it does instead.
const BUGS: &[(i64, i32, &str)] =
    &[(5, 3, "a length field of 0 gives a block of no bytes as a message; here it is an invalid message")];

static PROCESS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_NONBLOCK).unwrap()
}

fn strerror() -> String {
    // SAFETY: never NULL, NUL-terminated.
    unsafe { CStr::from_ptr(ipsec_strerror()) }.to_str().unwrap().to_owned()
}

fn code() -> i32 {
    __ipsec_errcode.load(Ordering::Relaxed)
}

fn receive(line: &Value) {
    let id = line["id"].as_i64().unwrap();
    let kind = if line["sock"] == "dgram" { SockType::Datagram } else { SockType::SeqPacket };
    let (ours, peer) = pair(kind);
    for datagram in line["queued"].as_array().unwrap() {
        send(peer.as_raw_fd(), &native(unhex(datagram.as_str().unwrap())), MsgFlags::empty()).unwrap();
    }
    if line["note"] == "peer closed" {
        drop(peer);
    }
    // SAFETY: a message's length is that of its header; it is freed once.
    let message = unsafe {
        let message = pfkey_recv(ours.as_raw_fd());
        let bytes = message
            .as_ref()
            .map(|m| std::slice::from_raw_parts(message.cast::<u8>(), usize::from(m.len.get()) * 8).to_vec());
        libc::free(message.cast());
        bytes
    };
    if let Some((_, expected, reason)) = BUGS.iter().find(|(bug, ..)| *bug == id) {
        assert_eq!((message, code()), (None, *expected), "id {id}: {reason}");
    } else {
        assert_eq!(message, line["result"].as_str().map(|text| native(unhex(text))), "id {id}");
        assert_eq!(i64::from(code()), line["errcode"].as_i64().unwrap(), "id {id}");
    }
    let left =
        std::iter::from_fn(|| recv(ours.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).ok().filter(|n| *n > 0));
    assert_eq!(left.count() as u64, line["left_in_queue"].as_u64().unwrap(), "id {id}: one datagram was consumed");
}

/// A message with extensions of whole words behind a header; `sadb_msg_len` as given.
fn register_message(len: u16, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 7, 0, 0];
    bytes.extend(len.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(extensions);
    bytes
}

fn list(ext_type: u16, algorithms: &[(u8, u8, u16, u16)]) -> Vec<u8> {
    let mut bytes = (1 + algorithms.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(ext_type.to_ne_bytes());
    bytes.extend([0; 4]);
    for &(id, ivlen, min, max) in algorithms {
        bytes.extend([id, ivlen]);
        bytes.extend(min.to_ne_bytes());
        bytes.extend(max.to_ne_bytes());
        bytes.extend([0; 2]);
    }
    bytes
}

fn set_supported(mut message: Vec<u8>) -> c_int {
    let len = message.len() as c_int;
    // SAFETY: `len` bytes are there.
    unsafe { pfkey_set_supported(message.as_mut_ptr().cast(), len) }
}

fn registration() {
    let lists = [
        list(14, &[(2, 0, 128, 128), (3, 0, 160, 160), (249, 0, 0, 2048)]),
        list(15, &[(12, 8, 128, 256), (11, 0, 0, 2048)]),
    ]
    .concat();
    let whole = |extensions: &[u8]| register_message(16 + extensions.len() as u16, extensions);
    let line = |note: &str| golden("recv.jsonl").into_iter().find(|l| l["note"] == note).unwrap();
    let expect = |note: &str, result: c_int| {
        let line = line(note);
        assert_eq!(i64::from(result), line["ret"].as_i64().unwrap(), "{note}");
        assert_eq!(i64::from(code()), line["errcode"].as_i64().unwrap(), "{note}");
    };
    let words = register_message((16 + lists.len() as u16) / 8, &lists);
    expect("sadb_msg_len still in 8-byte units: refused", set_supported(words));
    assert_eq!(set_supported(whole(&lists)), 0);
    expect(
        "extension of another type after the lists",
        set_supported(whole(&[&lists[..], &[1, 0, 1, 0, 0, 0, 0, 0]].concat())),
    );
    expect("list with length 0", set_supported(whole(&[0, 0, 14, 0, 0, 0, 0, 0])));
}

fn keylen(line: &Value) {
    let id = &line["id"];
    let args: Vec<u32> = line["args"].as_array().unwrap().iter().map(|a| a.as_u64().unwrap() as u32).collect();
    let mut alg = sadb_alg { id: 0xee, ivlen: 0xee, ..Default::default() };
    // SAFETY: the pointer is to a live struct or NULL.
    let result = unsafe {
        match line["fn"].as_str().unwrap() {
            "ipsec_check_keylen" => ipsec_check_keylen(args[0], args[1], args[2]),
            "ipsec_check_keylen2" => ipsec_check_keylen2(args[0], args[1], args[2]),
            // The third argument says whether there is a struct.
            _ => ipsec_get_keylen(args[0], args[1], if args[2] == 0 { std::ptr::null_mut() } else { &mut alg }),
        }
    };
    assert_eq!(i64::from(result), line["ret"].as_i64().unwrap(), "id {id}");
    assert_eq!(i64::from(code()), line["errcode"].as_i64().unwrap(), "id {id}");
    assert_eq!(strerror(), line["strerror"], "id {id}");
    if result == 0 && line.get("alg").is_some() {
        use zerocopy::IntoBytes;
        assert_eq!(alg.as_bytes(), native_algorithm(unhex(line["alg"].as_str().unwrap())), "id {id}");
    }
}

#[test]
fn receiving_and_registration_as_libipsec() {
    let _alone = alone();
    let lines = golden("recv.jsonl");
    let mut registered = false;
    for line in &lines {
        let id = line["id"].as_i64().unwrap();
        match line["fn"].as_str().unwrap_or_default() {
            "pfkey_recv" => receive(line),
            "ipsec_strerror" => {
                __ipsec_errcode.store(line["code"].as_i64().unwrap() as i32, Ordering::Relaxed);
                assert_eq!(strerror(), line["text"], "id {id}");
                assert_eq!(i64::from(code()), line["code_after"].as_i64().unwrap(), "id {id}");
            }
            "ipsec_check_keylen" | "ipsec_check_keylen2" | "ipsec_get_keylen" => keylen(line),
            // The lines of this call belong together.
            "pfkey_set_supported" if !std::mem::replace(&mut registered, true) => registration(),
            "pfkey_send_register" => {
                // SAFETY: no pointers.
                let result = unsafe { pfkey_send_register(-1, 2) };
                assert_eq!((i64::from(result), i64::from(code())), (-1, 26), "id {id}");
                // Sending failed, and the list is gone all the same; registering anew brings it back.
                // SAFETY: no pointers.
                assert_eq!((unsafe { ipsec_check_keylen(14, 2, 128) }, code()), (-1, 22));
                registration();
            }
            "pfkey_recv_register" => {
                let (ours, _peer) = pair(SockType::SeqPacket);
                // SAFETY: no pointers.
                let result = unsafe { pfkey_recv_register(ours.as_raw_fd()) };
                assert_eq!((i64::from(result), i64::from(code())), (-1, 26), "id {id}");
                assert_eq!(strerror(), line["strerror"], "id {id}");
            }
            "pfkey_get_softrate" => {
                // SAFETY: no pointers.
                let rate = unsafe { pfkey_get_softrate(line["type"].as_u64().unwrap() as u32) };
                assert_eq!(u64::from(rate), line["ret"].as_u64().unwrap(), "id {id}");
            }
            // Side effects on stdout, and sizes that depend on the kernel's limits, have tests of their own.
            _ => {}
        }
    }
}

#[test]
fn a_registration_that_fails_is_a_failure() {
    let _alone = alone();
    let (ours, peer) = pair(SockType::SeqPacket);
    let mut reply = register_message(2, &[]);
    reply[2] = libc::EEXIST as u8;
    reply[12..16].copy_from_slice(&std::process::id().to_ne_bytes());
    // Somebody else's message, before it, is thrown away.
    let mut other = register_message(2, &[]);
    other[12..16].copy_from_slice(&1_u32.to_ne_bytes());
    send(peer.as_raw_fd(), &other, MsgFlags::empty()).unwrap();
    send(peer.as_raw_fd(), &reply, MsgFlags::empty()).unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { pfkey_recv_register(ours.as_raw_fd()) }, -1);
    assert_eq!(strerror(), "File exists");
}

#[test]
fn messages_of_every_size_arrive_whole() {
    let _alone = alone();
    let (ours, peer) = pair(SockType::SeqPacket);
    nix::sys::socket::setsockopt(&peer, nix::sys::socket::sockopt::SndBuf, &(4 << 20)).unwrap();
    for words in [2_u16, 3, 511, 512, 513, 20_000] {
        let len = usize::from(words) * 8;
        let mut message: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        message[4..6].copy_from_slice(&words.to_ne_bytes());
        if send(peer.as_raw_fd(), &message, MsgFlags::empty()).is_err() {
            // net.core.wmem_max forbids it here; the smaller sizes were tried.
            eprintln!("skipped a message of {len} bytes: the socket does not take it");
            continue;
        }
        // SAFETY: a message's length is that of its header; it is freed once.
        unsafe {
            let received = pfkey_recv(ours.as_raw_fd());
            assert!(!received.is_null(), "{len} bytes: {}", strerror());
            assert!(std::slice::from_raw_parts(received.cast::<u8>(), len) == message, "{len} bytes");
            libc::free(received.cast());
        }
    }
}
