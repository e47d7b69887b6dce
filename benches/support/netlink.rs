//! What the kernel itself takes: SAs given to NETLINK_XFRM, and a dump that is thrown away.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

/// `enum { XFRM_MSG_NEWSA, XFRM_MSG_GETSA, XFRM_MSG_FLUSHSA }`.
const NEWSA: u16 = 0x10;
const GETSA: u16 = 0x12;
const FLUSHSA: u16 = 0x1c;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const DONE: u16 = 3;

pub fn open() -> OwnedFd {
    // SAFETY: no pointers; the descriptor is new and owned here alone. nix has no name for NETLINK_XFRM.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// `struct xfrm_algo` (XFRMA_ALG_AUTH, XFRMA_ALG_CRYPT) as an attribute.
fn algorithm(kind: u16, name: &str, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((4 + 68 + key.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    let mut named = [0; 64];
    named[..name.len()].copy_from_slice(name.as_bytes());
    bytes.extend(named);
    bytes.extend((8 * key.len() as u32).to_ne_bytes());
    bytes.extend(key);
    bytes
}

/// XFRM_MSG_NEWSA of an ESP SA in transport mode from 192.0.2.1 to 10.0.0.0 + n, as the AF_KEY message of the benches.
pub fn new_sa(n: u32, acknowledged: bool) -> Vec<u8> {
    let peer = (0x0a00_0000 + n).to_be_bytes();
    // struct xfrm_usersa_info: selector (56), id (24), saddr (16), lft (64), curlft (32), stats (12), seq, reqid, family …
    let mut info = [0; 224];
    info[40..42].copy_from_slice(&2_u16.to_ne_bytes());
    info[56..60].copy_from_slice(&peer);
    info[72..76].copy_from_slice(&(0x1000 + n).to_be_bytes());
    info[76] = 50;
    info[80..84].copy_from_slice(&[192, 0, 2, 1]);
    // Limits of bytes and packets: none. Seconds after adding: soft, hard.
    info[96..128].fill(0xff);
    info[128..136].copy_from_slice(&30_000_u64.to_ne_bytes());
    info[136..144].copy_from_slice(&36_000_u64.to_ne_bytes());
    info[204..208].copy_from_slice(&(n + 1).to_ne_bytes());
    info[212..214].copy_from_slice(&2_u16.to_ne_bytes());
    info[215] = 4;
    let mut body = info.to_vec();
    body.extend(algorithm(1, "hmac(sha1)", &[7; 20]));
    body.extend(algorithm(2, "cbc(aes)", &[9; 16]));
    message(NEWSA, if acknowledged { REQUEST | ACK } else { REQUEST }, &body)
}

/// Sends one and takes its acknowledgement.
pub fn acknowledged(fd: &OwnedFd, request: &[u8]) {
    let mut answer = [0; 512];
    send(fd.as_raw_fd(), request, MsgFlags::empty()).expect("a request");
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("its answer");
    assert_eq!(answer[16..20], [0; 4], "{:?}", &answer[..len]);
}

/// Removes all ESP SAs.
pub fn flush(fd: &OwnedFd) {
    send(fd.as_raw_fd(), &message(FLUSHSA, REQUEST | ACK, &[50, 0, 0, 0]), MsgFlags::empty()).expect("FLUSHSA");
    recv(fd.as_raw_fd(), &mut [0; 512], MsgFlags::empty()).expect("its answer");
}

/// A dump of all SAs whose bytes are thrown away; how many there were.
pub fn dump(fd: &OwnedFd, buffer: &mut [u8]) -> u32 {
    send(fd.as_raw_fd(), &message(GETSA, REQUEST | DUMP, &[]), MsgFlags::empty()).expect("GETSA");
    let mut count = 0;
    loop {
        let len = recv(fd.as_raw_fd(), buffer, MsgFlags::empty()).expect("a part of the dump");
        let mut rest = &buffer[..len];
        while let Some((head, _)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if u16::from_ne_bytes([head[4], head[5]]) == DONE {
                return count;
            }
            count += 1;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
