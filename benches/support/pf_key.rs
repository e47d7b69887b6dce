//! SAs and policies of the kernel by PF_KEY, as a gateway with many peers has them.

// No bench needs all of it.
#![allow(dead_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::batch::Batch;
use pfkey_rs::capi::{pfkey_recv, pfkey_send_dump};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa, SadbXPolicy};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

/// One peer and one sequence number for each SA: with equal ones the kernel's own search for a larval is linear.
pub fn message(buffer: &mut [u8; 512], msg_type: MessageType, n: u32) -> usize {
    let peer = SockaddrBytes::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 0);
    let host = SockaddrBytes::new([192, 0, 2, 1].into(), 0);
    let mut w = Writer::new(buffer, Header::new(msg_type, SaType::ESP, n + 1, std::process::id()), Profile::Linux);
    w.sa(SadbSa { spi: (0x1000 + n).into(), replay: 4, state: 1, auth: 3, encrypt: 12, ..Default::default() });
    let lifetime = |add: u64| SadbLifetime { addtime: add.into(), ..Default::default() };
    w.lifetime(Ext::LIFETIME_HARD, lifetime(36_000)).lifetime(Ext::LIFETIME_SOFT, lifetime(30_000));
    w.address(Ext::ADDRESS_SRC, 0, 32, host.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, peer.as_bytes());
    w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    w.finish().expect("it fits").len()
}

pub fn message_of(msg_type: MessageType, n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let len = message(&mut buffer, msg_type, n);
    buffer[..len].to_vec()
}

/// A policy for one peer, ESP in transport mode.
pub fn policy(n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let peer = SockaddrBytes::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 0);
    let host = SockaddrBytes::new([192, 0, 2, 1].into(), 0);
    let mut w = Writer::new(
        &mut buffer,
        Header::new(MessageType::X_SPDADD, SaType::UNSPEC, 1, std::process::id()),
        Profile::Linux,
    );
    w.address(Ext::ADDRESS_SRC, 255, 32, host.as_bytes()).address(Ext::ADDRESS_DST, 255, 32, peer.as_bytes());
    // struct sadb_x_ipsecrequest: 16 bytes, ESP, transport, require.
    let mut requests = Vec::from(16_u16.to_ne_bytes());
    requests.extend(50_u16.to_ne_bytes());
    requests.extend([1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    w.policy(SadbXPolicy { policy_type: 2.into(), dir: 2, ..Default::default() }, &requests);
    w.finish().expect("it fits").to_vec()
}

/// Sends and takes the answer.
pub fn request(fd: RawFd, bytes: &[u8]) {
    let mut answer = [0; 1024];
    socket::send(fd, bytes).expect("a request");
    let len = recv(fd, &mut answer, MsgFlags::empty()).expect("its answer");
    assert_eq!(Header::read(&answer[..len]).map(|h| h.errno), Some(0));
}

/// Empties the kernel's SAs and policies, and the descriptor.
pub fn flush(fd: &OwnedFd) {
    for (msg_type, satype) in [(MessageType::FLUSH, SaType::ESP), (MessageType::X_SPDFLUSH, SaType::UNSPEC)] {
        let mut buffer = [0; 16];
        Writer::new(&mut buffer, Header::new(msg_type, satype, 1, 1), Profile::Linux).finish().expect("a header");
        socket::send(fd.as_raw_fd(), &buffer).expect("a request");
    }
    while recv(fd.as_raw_fd(), &mut [0; 1024], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

pub fn add(fd: RawFd, sas: std::ops::Range<u32>) {
    let mut buffer = [0; 512];
    for n in sas {
        let len = message(&mut buffer, MessageType::ADD, n);
        request(fd, &buffer[..len]);
    }
}

/// `pfkey_send_dump` and `pfkey_recv`, as a program calls them.
pub fn dump(fd: RawFd) -> u32 {
    // SAFETY: the descriptor is open; what pfkey_recv gives is freed.
    unsafe {
        assert!(pfkey_send_dump(fd, SaType::ESP.0.into()) > 0);
        let mut count = 0;
        loop {
            let message = pfkey_recv(fd);
            assert!(!message.is_null());
            let seq = std::slice::from_raw_parts(message.cast::<u8>(), 16)[8..12].iter().any(|byte| *byte != 0);
            libc::free(message.cast::<c_void>());
            count += 1;
            if !seq {
                return count;
            }
        }
    }
}

pub fn send_together(fd: &OwnedFd, messages: &[Vec<u8>]) {
    let mut batch = Batch::default();
    messages.iter().for_each(|message| batch.push(message).expect("a message"));
    assert_eq!(batch.send(fd.as_fd(), |_, errno, _| panic!("{errno}")), Ok(0));
}

/// Whether this kernel takes an ESP SA.
pub fn has_esp() -> bool {
    let fd = socket::open_with(&Backend::Xfrm).expect("a descriptor");
    flush(&fd);
    socket::send(fd.as_raw_fd(), &message_of(MessageType::ADD, 0)).expect("a request");
    let mut answer = [0; 1024];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("its answer");
    flush(&fd);
    Header::read(&answer[..len]).is_some_and(|header| header.errno == 0)
}
