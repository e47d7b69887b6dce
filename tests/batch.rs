//! Many requests at once: done in order, each answered as if it had come alone.

#[path = "support/c.rs"]
mod c;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::batch::Batch;
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa, SadbXPolicy};
use pfkey_rs::wire::{Errno, ExtensionType as Ext, Header, MessageType as M, Profile, SaType, SockaddrBytes, Writer};

const PID: u32 = 77;

fn sa(msg_type: M, spi: u32, encrypt: u8) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut w = Writer::new(&mut buffer, Header::new(msg_type, SaType::ESP, 5, PID), Profile::Linux);
    w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 3, encrypt, ..Default::default() });
    for (ext, last) in [(Ext::ADDRESS_SRC, 1), (Ext::ADDRESS_DST, 2)] {
        w.address(ext, 0, 32, SockaddrBytes::new([192, 0, 2, last].into(), 0).as_bytes());
    }
    if matches!(msg_type, M::ADD | M::UPDATE) {
        let hard = SadbLifetime { addtime: 3600.into(), ..Default::default() };
        w.lifetime(Ext::LIFETIME_HARD, hard).lifetime(Ext::LIFETIME_SOFT, SadbLifetime::default());
        w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    }
    w.finish().unwrap().to_vec()
}

fn policy(last: u8) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut w = Writer::new(&mut buffer, Header::new(M::X_SPDADD, SaType::UNSPEC, 5, PID), Profile::Linux);
    for (ext, last) in [(Ext::ADDRESS_SRC, 1), (Ext::ADDRESS_DST, last)] {
        w.address(ext, 255, 32, SockaddrBytes::new([192, 0, 2, last].into(), 0).as_bytes());
    }
    w.policy(SadbXPolicy { policy_type: 0.into(), dir: 2, ..Default::default() }, &[]);
    w.finish().unwrap().to_vec()
}

fn send(fd: &OwnedFd, requests: &[Vec<u8>]) -> (usize, Vec<(usize, Errno)>) {
    let mut batch = Batch::default();
    requests.iter().for_each(|request| batch.push(request).unwrap());
    assert_eq!(batch.len(), requests.len());
    let mut failures = Vec::new();
    let count = batch.send(fd.as_fd(), |place, errno, _| failures.push((place, errno))).unwrap();
    (count, failures)
}

fn on(backend: &Backend) {
    let fd = socket::open_with(backend).unwrap();
    assert_eq!(send(&fd, &[]), (0, vec![]));
    // Alike in type, sequence number and process id; the fourth is there already, the sixth has an unknown algorithm.
    let mut requests: Vec<_> = (0..3).map(|n| sa(M::ADD, 0x100 + n, 12)).collect();
    requests.push(sa(M::ADD, 0x101, 12));
    requests.push(sa(M::DELETE, 0x101, 0));
    requests.push(sa(M::ADD, 0x103, 99));
    requests.push(sa(M::UPDATE, 0x102, 12));
    requests.push(sa(M::UPDATE, 0x109, 12));
    requests.extend([policy(2), policy(3), policy(2)]);
    requests.push(sa(M::ADD, 0x101, 12));
    let expected = vec![(3, Errno::EEXIST), (5, Errno::ENOSYS), (7, Errno::ESRCH), (10, Errno::EEXIST)];
    assert_eq!(send(&fd, &requests), (4, expected));
    // No answer is left.
    assert_eq!(recv(fd.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT), Err(nix::errno::Errno::EAGAIN));
    // More than travel together, some of them wrong.
    let many: Vec<_> = (0..1000).map(|n| sa(M::ADD, 0x2000 + n, if n % 100 == 99 { 99 } else { 12 })).collect();
    let failures: Vec<_> = (0..10).map(|n| (n * 100 + 99, Errno::ENOSYS)).collect();
    assert_eq!(send(&fd, &many), (10, failures));
}

#[test]
fn on_the_embedded_engine() {
    if c::tree_is_anothers() {
        return println!("skipped: the tree is another user's");
    }
    on(&Backend::Embedded);
}

/// Set by `tests/kernel/overrun`, inside a kernel.
#[test]
fn in_a_kernel() {
    if std::env::var_os("PFKEY_IN_KERNEL").is_none() {
        return eprintln!("skipped: kernels are asked by tests/kernel/overrun, inside them");
    }
    on(&Backend::Xfrm);
}

#[test]
fn what_is_no_message_is_refused() {
    let mut batch = Batch::default();
    assert!(batch.push(&[2; 15]).is_err());
    assert!(batch.push(&[0; 16]).is_err());
    assert!(batch.is_empty());
}
