//! Random messages: valid, nearly valid and broken ones. Who asks says where the numbers come from: a seed, or the bytes
//! of a fuzzer.

use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, request};
use crate::splitmix::Random;

pub fn chance(random: &mut Random, percent: usize) -> bool {
    random.below(100) < percent
}

/// What is left out, because the two sides are known to differ there.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// HMAC-RIPEMD160 exists, and SPIs are unique for each destination only (before 6.12).
    pub old: bool,
    /// The other side is XFRM: what `explained-xfrm.txt` names.
    pub xfrm: bool,
    /// REGISTER takes more than a second, after which policies have another reference count: 6.1 looks for modules.
    pub slow_register: bool,
}

const V4: [&str; 3] = ["10.0.0.1", "10.0.0.2", "192.0.2.9"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
/// The SPIs that sequences name; the kernel may choose others.
pub const SPIS: [u32; 5] = [0, 0x100, 0x101, 0x300, 0x1_0000];

fn addresses(r: &mut Random) -> (&'static str, &'static str) {
    match r.below(12) {
        0..=8 => (r.of(&V4), r.of(&V4)),
        9 | 10 => (r.of(&V6), r.of(&V6)),
        _ => (r.of(&V4), r.of(&V6)),
    }
}

fn satype(r: &mut Random) -> S {
    S(r.of(&[2, 2, 2, 3, 3, 3, 3, 9, 9, 0, 1, 5, 10]))
}

/// An SA with algorithms that go together, mostly.
fn sa(r: &mut Random, msg_type: M, kernel: Kernel) -> Msg {
    let (src, dst) = addresses(r);
    let satype = satype(r);
    // An old kernel has HMAC-RIPEMD160 (8), which the engine has not, and takes keys of any length for XCBC (9).
    let auth = r.of(if kernel.old { &[0, 2, 3, 5, 6, 7, 251, 4] } else { &[0, 2, 3, 5, 6, 7, 8, 9, 251, 4] });
    let encrypt = r.of(&[0, 2, 3, 7, 11, 12, 12, 13, 20, 22, 99]);
    let mut m = Msg::new(msg_type, satype, r.below(4) as u32);
    let (auth, encrypt) = match (satype, chance(r, 85)) {
        (S::AH, true) => (if auth == 0 { 3 } else { auth }, 0),
        (S::X_IPCOMP, true) => (0, 2),
        _ => (auth, encrypt),
    };
    m = m.sa(r.of(&SPIS), auth, encrypt).pair(src, dst);
    if auth != 0 && chance(r, 90) {
        m = m.key(Ext::KEY_AUTH, r.of(&[0, 16, 16, 20, 32]));
    }
    if encrypt != 0 && satype != S::X_IPCOMP && chance(r, 90) {
        let len = match encrypt {
            2 => 8,
            3 => 24,
            11 => 0,
            13 => 20,
            _ => 16,
        };
        m = m.key(Ext::KEY_ENCRYPT, if chance(r, 90) { len } else { 9 });
    }
    if chance(r, 40) {
        m = m.sa2(r.below(5) as u8, r.of(&[0, 0, 5, 0x5000]));
    }
    if chance(r, 30) {
        m = m.lifetimes(1000, 800);
    } else if chance(r, 5) {
        m = m.lifetime(Ext::LIFETIME_HARD, 1, 2, 1000, 2000);
    }
    if chance(r, 15) {
        // An old kernel takes encapsulation type 1 (ESP in UDP, non-IKE), too.
        let encap = r.of(if kernel.old { &[2, 2, 2, 0][..] } else { &[2, 2, 2, 1, 0] });
        m = m.nat_t(encap, r.below(3) as u16, 4500);
    }
    if chance(r, 10) {
        m = m.address(Ext::ADDRESS_PROXY, r.of(&V4), 0, 0, 24);
    }
    if chance(r, 5) {
        m = m.context(r.of(&[1, 1, 2]), 1, b"u:r:t");
    }
    m
}

fn policy(r: &mut Random, msg_type: M) -> Msg {
    let v6 = chance(r, 15);
    let addresses: &[&str] = if v6 { &V6 } else { &V4 };
    let plen = r.of(if v6 { &[64, 128, 0][..] } else { &[8, 24, 32, 0] });
    let proto = r.of(&[255, 255, 0, 6, 17]);
    let port = if proto == 6 { r.of(&[0, 80]) } else { 0 };
    let mut requests = Vec::new();
    for _ in 0..r.of(&[0, 1, 1, 1, 2, 3]) {
        let ends = chance(r, 40).then(|| (r.of(&V4), r.of(&V4)));
        let mode = if ends.is_some() { 2 } else { 1 };
        let mode = if chance(r, 92) { mode } else { r.below(5) as u8 };
        requests.extend(request(r.of(&[50, 50, 51, 108]), mode, r.of(&[2, 2, 3, 1, 0]), r.of(&[0, 5, 0x5000]), ends));
    }
    let dir = r.of(&[1, 1, 2, 2, 3, 0, 4]);
    let id = r.of(&[1, 8, 9, 17, 18, 0]);
    let mut m = Msg::new(msg_type, S(r.of(&[0, 0, 3])), r.below(4) as u32)
        .address(Ext::ADDRESS_SRC, r.of(addresses), port, proto, plen)
        .address(Ext::ADDRESS_DST, r.of(addresses), port, proto, plen)
        .policy(r.of(&[2, 2, 2, 1, 0, 3]), dir, id, r.of(&[0, 7, 0x8000_0000]), &requests);
    if chance(r, 10) {
        m = m.lifetimes(1000, 0);
    }
    m
}

/// A pair of tunnel ends and where they move, of policies and SAs that sequences make.
fn migrate(r: &mut Random) -> Msg {
    let (mode, reqid, proto) = (r.of(&[2, 2, 2, 1, 3]), r.of(&[0, 0, 5]), r.of(&[50, 50, 51]));
    let requests: Vec<u8> = (0..2).flat_map(|_| request(proto, mode, 2, reqid, Some((r.of(&V4), r.of(&V4))))).collect();
    let dir = r.of(&[1, 2, 2, 3, 0, 4]);
    Msg::new(M::X_MIGRATE, S::UNSPEC, 1)
        .address(Ext::ADDRESS_SRC, r.of(&V4), 0, r.of(&[255, 0, 6]), r.of(&[8, 24, 32]))
        .address(Ext::ADDRESS_DST, r.of(&V4), 0, 255, r.of(&[8, 24, 32]))
        .policy(2, dir, 0, 0, &requests)
}

/// A request of any kind.
pub fn message(r: &mut Random, kernel: Kernel) -> Msg {
    let about = |r: &mut Random, msg_type: M| {
        let (src, dst) = addresses(r);
        Msg::new(msg_type, satype(r), r.below(4) as u32).sa(r.of(&SPIS), 0, 0).pair(src, dst)
    };
    // An old kernel keeps the encapsulation of an SA that moves, which the engine, as a new one, does not.
    match r.below(if kernel.old { 32 } else { 34 }) {
        0..=8 => sa(r, M::ADD, kernel),
        9..=11 => sa(r, M::UPDATE, kernel),
        12 | 13 => {
            let (src, dst) = addresses(r);
            let mut m = Msg::new(M::GETSPI, satype(r), r.below(4) as u32);
            // To an old kernel an SPI is taken for one destination only: ask for one destination, and for SPIs that no
            // ADD takes.
            let (src, dst) = if kernel.old { (V4[0], V4[1]) } else { (src, dst) };
            m = m.pair(src, dst);
            let spi = if kernel.old { r.of(&[0x7001, 0x7002]) } else { r.of(&SPIS) };
            m = m.range(spi, if chance(r, 90) { spi } else { spi.saturating_sub(1) });
            if chance(r, 40) { m.sa2(r.below(5) as u8, r.of(&[0, 5])) } else { m }
        }
        14..=16 => about(r, M::DELETE),
        17 | 18 => about(r, M::GET),
        // The algorithms of an old kernel's answer are not the engine's.
        19 if kernel.old || kernel.slow_register => Msg::new(M::DUMP, satype(r), 1),
        19 => Msg::new(M::REGISTER, satype(r), 1),
        20 => Msg::new(M::FLUSH, satype(r), 1),
        21 => Msg::new(M::DUMP, satype(r), 1),
        22 => {
            let mut m = Msg::new(M::ACQUIRE, satype(r), r.below(3) as u32);
            m.header.errno = r.of(&[0, 5]);
            m
        }
        23 => Msg::new(M::X_PROMISC, S(r.below(3) as u8), 1),
        24 | 25 => policy(r, M::X_SPDADD),
        26 => policy(r, M::X_SPDUPDATE),
        27 => policy(r, M::X_SPDDELETE),
        28 => policy(r, M::X_SPDGET),
        29 => policy(r, M::X_SPDDELETE2),
        30 => Msg::new(M::X_SPDDUMP, S::UNSPEC, 1),
        32 | 33 => migrate(r),
        _ => Msg::new(r.of(&[M::X_SPDFLUSH, M::X_SPDSETIDX, M::EXPIRE, M::X_PCHANGE, M(25)]), S::UNSPEC, 1),
    }
}
