//! pfkey_dump_foreach: the same SAs as a DUMP, on whatever backend there is.

#[path = "support/c.rs"]
mod c;

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::listing::for_each_sa;
use pfkey_rs::model::sa::State;
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{Ends, Errno, ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

fn add(fd: &OwnedFd, satype: SaType, spi: u32) {
    let mut buffer = [0; 512];
    let mut w = Writer::new(&mut buffer, Header::new(MessageType::ADD, satype, 0, 1), Profile::Linux);
    let encrypt = if satype == SaType::ESP { 12 } else { 0 };
    w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 3, encrypt, ..Default::default() });
    let hard = SadbLifetime { bytes: 9000.into(), addtime: 3600.into(), ..Default::default() };
    w.lifetime(Ext::LIFETIME_HARD, hard).lifetime(Ext::LIFETIME_SOFT, SadbLifetime::default());
    for (ext, last) in [(Ext::ADDRESS_SRC, 1), (Ext::ADDRESS_DST, 2)] {
        w.address(ext, 0, 32, SockaddrBytes::new([192, 0, 2, last].into(), 0).as_bytes());
    }
    w.key(Ext::KEY_AUTH, 160, &[7; 20]);
    if satype == SaType::ESP {
        w.key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
        w.nat_t(2, 4500, 4501);
    }
    w.sa2(2, 77);
    let message = w.finish().unwrap();
    socket::send(fd.as_raw_fd(), message).unwrap();
    let mut answer = [0; 512];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    assert_eq!(Header::read(&answer[..len]).unwrap().errno, 0);
}

fn shown(fd: &OwnedFd, satype: SaType, most: usize) -> Vec<(SaType, u32)> {
    let mut shown = Vec::new();
    for_each_sa(fd.as_fd(), satype, &mut |sa| {
        assert_eq!((sa.state, sa.auth.0, sa.mode.0, sa.reqid, sa.replay), (State::Mature, 3, 2, 77, 4));
        assert_eq!(Some(sa.ends), Ends::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
        assert_eq!(sa.auth_key, (160, &[7; 20][..]));
        assert_eq!((sa.hard.bytes, sa.hard.add_seconds, sa.soft.bytes, sa.usage.bytes), (9000, 3600, 0, 0));
        assert!(sa.usage.add_time > 1_600_000_000);
        if sa.satype() == SaType::ESP {
            assert_eq!((sa.encrypt.0, sa.encrypt_key), (12, (128, &[9; 16][..])));
            assert_eq!(sa.encap.map(|e| (e.encap_type, e.sport, e.dport)), Some((2, 4500, 4501)));
        } else {
            assert_eq!((sa.encrypt.0, sa.encrypt_key.0, sa.encap), (0, 0, None));
        }
        shown.push((sa.satype(), sa.spi));
        if shown.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    shown
}

fn on(backend: &Backend) {
    let fd = socket::open_with(backend).unwrap();
    assert_eq!(shown(&fd, SaType::UNSPEC, 9), []);
    add(&fd, SaType::ESP, 0x100);
    add(&fd, SaType::AH, 0x200);
    add(&fd, SaType::ESP, 0x300);
    let (esp, ah) = (SaType::ESP, SaType::AH);
    assert_eq!(shown(&fd, SaType::UNSPEC, 9), [(esp, 0x300), (ah, 0x200), (esp, 0x100)]);
    assert_eq!(shown(&fd, esp, 9), [(esp, 0x300), (esp, 0x100)]);
    assert_eq!(shown(&fd, SaType::UNSPEC, 2), [(esp, 0x300), (ah, 0x200)]);
    // What was stopped leaves nothing behind.
    assert_eq!(recv(fd.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT), Err(nix::errno::Errno::EAGAIN));
    assert_eq!(for_each_sa(fd.as_fd(), SaType(4), &mut |_| ControlFlow::Continue(())), Err(Errno::EINVAL));
}

#[test]
fn the_embedded_engine_is_asked_by_a_dump() {
    on(&Backend::Embedded);
}

/// Set by `tests/kernel/overrun`, inside a kernel.
#[test]
fn the_kernel_is_asked_by_netlink() {
    match std::env::var_os("PFKEY_IN_KERNEL") {
        Some(_) => on(&Backend::Auto),
        None => eprintln!("skipped: XFRM is asked by tests/kernel/overrun, inside real kernels"),
    }
}
