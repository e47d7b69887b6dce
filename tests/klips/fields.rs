//! The rules on single extensions, each with the value that just breaks it (Openswan `pfkey_v2_parse.c`).

use pfkey_rs::hub::Errno;
use pfkey_rs::klips::Refusal;
use pfkey_rs::klips::number::*;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::framing::refusal;
use crate::world::*;

/// An extension of another body in a message; the errno that it is refused with.
fn errno(message: &Msg, ext: Ext, body: &[u8]) -> Option<Errno> {
    match refusal(&message.clone().without(ext).ext(ext, body)) {
        None => None,
        Some(Refusal::Field(t, errno)) if t == ext.0 => Some(errno),
        other => panic!("extension {ext:?}: {other:?}"),
    }
}

fn with(mut body: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    body[at..at + bytes.len()].copy_from_slice(bytes);
    body
}

const EINVAL: Option<Errno> = Some(Errno::EINVAL);

#[test]
fn an_sa_is_24_bytes_and_its_fields_are_in_range() {
    let delete = named(M::DELETE, S::ESP, SPI);
    let good = Sa::spi(SPI).body();
    assert_eq!(errno(&delete, Ext::SA, &good), None);
    assert_eq!(errno(&delete, Ext::SA, &good[..12]), EINVAL, "Linux's 16 bytes");
    assert_eq!(errno(&delete, Ext::SA, &[&good[..], &[0; 8]].concat()), EINVAL, "32 bytes");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 4, &[64])), None, "replay");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 4, &[65])), EINVAL, "replay");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 5, &[2])), None, "DYING");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 5, &[3])), EINVAL, "DEAD");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 5, &[4])), EINVAL, "no state");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 6, &[251])), None, "SADB_AALG_MAX");
    assert_eq!(errno(&delete, Ext::SA, &with(good.clone(), 6, &[252])), EINVAL, "above it");
    let saref = |saref: u32| with(good.clone(), 12, &saref.to_ne_bytes());
    assert_eq!(errno(&delete, Ext::SA, &saref(0xffff)), None);
    assert_eq!(errno(&delete, Ext::SA, &saref(0x10000)), EINVAL, "beyond the table");
    assert_eq!(errno(&delete, Ext::SA, &saref(u32::MAX)), None, "none");
}

#[test]
fn a_lifetime_is_40_bytes() {
    let add = esp(SPI);
    let good = lifetime(0, 1, 2, 3, 4);
    assert_eq!(errno(&add, Ext::LIFETIME_HARD, &good), None);
    assert_eq!(errno(&add, Ext::LIFETIME_HARD, &good[..28]), EINVAL, "Linux's 32 bytes");
}

#[test]
fn an_address_has_no_prefix_and_the_length_of_its_family() {
    let delete = named(M::DELETE, S::ESP, SPI);
    let (v4, v6) = (address(A, 0), address("2001:db8::1", 0));
    for good in [&v4, &v6] {
        assert_eq!(errno(&delete, Ext::ADDRESS_SRC, good), None);
        assert_eq!(
            errno(&delete, Ext::ADDRESS_SRC, &with(good.clone(), 1, &[32])),
            Some(Errno::EAFNOSUPPORT),
            "prefix"
        );
        assert_eq!(errno(&delete, Ext::ADDRESS_SRC, &with(good.clone(), 2, &[1])), EINVAL, "reserved");
        assert_eq!(errno(&delete, Ext::ADDRESS_SRC, &[&good[..], &[0; 8]].concat()), EINVAL, "too long");
    }
    assert_eq!(errno(&delete, Ext::ADDRESS_SRC, &v6[..20]), EINVAL, "a short IPv6");
    assert_eq!(errno(&delete, Ext::ADDRESS_SRC, &v4[..12]), EINVAL, "a short IPv4");
    let unix = with(v4, 4, &1_u16.to_ne_bytes());
    assert_eq!(errno(&delete, Ext::ADDRESS_SRC, &unix), Some(Errno::EPFNOSUPPORT));
}

#[test]
fn a_key_has_bits_and_their_length() {
    let add = esp(SPI);
    assert_eq!(errno(&add, Ext::KEY_AUTH, &key(128, 16)), None);
    assert_eq!(errno(&add, Ext::KEY_AUTH, &key(121, 16)), None, "16 bytes hold 121 bits");
    assert_eq!(errno(&add, Ext::KEY_AUTH, &key(0, 0)), EINVAL, "no bits");
    assert_eq!(errno(&add, Ext::KEY_AUTH, &key(128, 24)), EINVAL, "too long");
    assert_eq!(errno(&add, Ext::KEY_AUTH, &key(192, 16)), EINVAL, "too short");
    assert_eq!(errno(&add, Ext::KEY_AUTH, &with(key(128, 16), 2, &[1])), EINVAL, "reserved");
}

#[test]
fn an_identity_ends_with_zero() {
    let add = esp(SPI);
    let good = identity(2, 9, "host.example");
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &good), None);
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &good[..12]), None, "no text");
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &good[..4]), EINVAL, "shorter than its structure");
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &with(good.clone(), 0, &4_u16.to_ne_bytes())), None, "a connection");
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &with(good.clone(), 0, &5_u16.to_ne_bytes())), EINVAL, "no type");
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &with(good.clone(), 2, &[1])), EINVAL, "reserved");
    let last = good.len() - 1;
    assert_eq!(errno(&add, Ext::IDENTITY_SRC, &with(good, last, &[1])), EINVAL, "no zero behind it");
}

/// 80 bytes: two algorithms, flags, four lengths of keys, reserved, then soft before hard of each limit.
fn comb() -> Vec<u8> {
    let mut comb = vec![0; 80];
    comb[0] = 2;
    comb[1] = 3;
    for (at, bits) in [(4, 128_u16), (6, 128), (8, 168), (10, 168)] {
        comb[at..at + 2].copy_from_slice(&bits.to_ne_bytes());
    }
    comb
}

#[test]
fn a_proposal_holds_whole_and_sensible_combinations() {
    let acquire = Msg::new(M::ACQUIRE, S::ESP).ends();
    let proposal = |replay: u8, combs: &[u8]| [&[replay, 0, 0, 0], combs].concat();
    let judge = |body: &[u8]| errno(&acquire, Ext::PROPOSAL, body);
    let of = |at: usize, bytes: &[u8]| judge(&proposal(32, &with(comb(), at, bytes)));
    assert_eq!(judge(&proposal(64, &[comb(), comb()].concat())), None);
    assert_eq!(judge(&proposal(65, &comb())), EINVAL, "replay");
    assert_eq!(judge(&with(proposal(32, &comb()), 3, &[1])), EINVAL, "reserved");
    assert_eq!(judge(&proposal(32, &comb()[..72])), EINVAL, "Linux's 72 bytes");
    assert_eq!(of(0, &[252]), EINVAL, "no authentication algorithm");
    assert_eq!(of(0, &[0]), EINVAL, "bits without authentication");
    assert_eq!(of(4, &[0, 0, 0, 0]), EINVAL, "authentication without bits");
    assert_eq!(of(4, &129_u16.to_ne_bytes()), EINVAL, "least above most");
    assert_eq!(of(1, &[0]), EINVAL, "bits without encryption");
    assert_eq!(of(8, &[0, 0, 0, 0]), EINVAL, "encryption without bits");
    assert_eq!(of(12, &[1]), EINVAL, "reserved");
    // Allocations are 4 bytes at 16 and 20, packets at 72 and 76; the others are 8 bytes.
    for (soft, width) in [(16, 4), (24, 8), (40, 8), (56, 8), (72, 4)] {
        let both = |soft_value: u8, hard_value: u8| {
            let comb = with(with(comb(), soft, &[soft_value]), soft + width, &[hard_value]);
            judge(&proposal(32, &comb))
        };
        assert_eq!(both(5, 5), None, "limit at {soft}");
        assert_eq!(both(5, 0), None, "no hard limit at {soft}");
        assert_eq!(both(6, 5), EINVAL, "soft above hard at {soft}");
    }
}

#[test]
fn an_spi_range_is_above_255_in_network_order() {
    let getspi = Msg::new(M::GETSPI, S::ESP).ends();
    let range = |min: u32, max: u32, reserved: u8| [min.to_be_bytes(), max.to_be_bytes(), [reserved, 0, 0, 0]].concat();
    let judge = |body: &[u8]| errno(&getspi, Ext::SPIRANGE, body);
    assert_eq!(judge(&range(256, 256, 0)), None);
    assert_eq!(judge(&range(255, 256, 0)), Some(Errno::EEXIST));
    assert_eq!(judge(&range(300, 299, 0)), EINVAL);
    assert_eq!(judge(&range(255, 254, 0)), EINVAL, "the order is looked at first");
    assert_eq!(judge(&range(256, 256, 1)), EINVAL);
    // In host byte order on a little-endian host this would be 0x00010000.
    assert_eq!(judge(&[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]), None);
}

#[test]
fn klipss_own_extensions() {
    let group = group(S::ESP, 1, S::AH, 2);
    assert_eq!(errno(&group, X_EXT_SATYPE2, &[9, 0, 0, 0]), None);
    for wrong in [[0, 0, 0, 0], [12, 0, 0, 0], [5, 0, 0, 0], [3, 1, 0, 0], [3, 0, 0, 1]] {
        assert_eq!(errno(&group, X_EXT_SATYPE2, &wrong), EINVAL, "{wrong:?}");
    }
    let debug = Msg::new(X_DEBUG, S::UNSPEC);
    assert_eq!(errno(&debug, X_EXT_DEBUG, &[0; 52]), None);
    assert_eq!(errno(&debug, X_EXT_DEBUG, &[0; 44]), EINVAL);
    assert_eq!(errno(&debug, X_EXT_DEBUG, &with(vec![0; 52], 51, &[1])), EINVAL, "reserved");
    let flow = eroute(S::ESP, SPI, "10.0.0.0/8", "11.0.0.0/8");
    assert_eq!(errno(&flow, X_EXT_PROTOCOL, &[6, 1, 1, 0]), None);
    assert_eq!(errno(&flow, X_EXT_PROTOCOL, &[6, 0, 0, 1]), EINVAL, "reserved");
    assert_eq!(errno(&esp(SPI), X_EXT_NAT_T_SPORT, &[0; 12]), EINVAL, "16 bytes of port");
}

#[test]
fn algorithms_go_with_the_sa_type() {
    let with = |satype: S, auth: u8, encrypt: u8| {
        refusal(&Msg::new(M::ADD, satype).sa(Sa { state: 1, auth, encrypt, ..Sa::spi(SPI) }).ends())
    };
    let no = Some(Refusal::Algorithms);
    assert_eq!((with(S::AH, 2, 0), with(S::AH, 0, 0), with(S::AH, 2, 3)), (None, no, no));
    assert_eq!((with(S::ESP, 0, 3), with(S::ESP, 2, 0), with(S::ESP, 0, 11)), (None, no, no));
    assert_eq!(with(S::ESP, 2, 11), None, "NULL encryption with authentication");
    assert_eq!((with(X_SATYPE_COMP, 0, 2), with(X_SATYPE_COMP, 0, 0), with(X_SATYPE_COMP, 2, 2)), (None, no, no));
    assert_eq!((with(X_SATYPE_IPIP, 2, 3), with(X_SATYPE_INT, 0, 0)), (None, None));
}

#[test]
fn an_added_sa_is_mature_and_its_spi_free_for_use() {
    for msg_type in [M::ADD, M::UPDATE] {
        let with = |state: u8, spi: u32| {
            refusal(&Msg::new(msg_type, S::ESP).sa(Sa { state, auth: 2, encrypt: 3, ..Sa::spi(spi) }).ends())
        };
        assert_eq!(with(1, 256), None);
        assert_eq!(with(1, 255), Some(Refusal::Spi(255)));
        assert_eq!(with(0, 256), Some(Refusal::State(0)));
        assert_eq!(with(2, 256), Some(Refusal::State(2)));
    }
    assert_eq!(refusal(&named(M::DELETE, S::ESP, 1)), None, "other messages may name any SPI");
}

/// What is parsed but goes no further.
#[test]
fn some_extensions_are_understood_and_not_taken() {
    let mut w = World::new(1);
    w.ask(&esp(SPI));
    let mut update = esp(SPI).lifetime(Ext::LIFETIME_CURRENT, 0, 0, 0, 0);
    update.head[1] = M::UPDATE.0;
    assert_eq!(w.fails(&update), Errno::EINVAL, "current lifetime");
    assert_eq!(w.fails(&esp(2 * SPI).ext(Ext::SENSITIVITY, &[0; 12])), Errno::EINVAL, "sensitivity");
    w.register(0, S::ESP);
    let acquire = Msg::new(M::ACQUIRE, S::ESP).ends().ext(Ext::PROPOSAL, &[32, 0, 0, 0]);
    assert_eq!(w.fails(&acquire), Errno::EINVAL, "proposal");
    let encapsulated = |kind: u8| esp(2 * SPI).ext(X_EXT_NAT_T_TYPE, &[kind, 0, 0, 0]);
    assert_eq!(w.fails(&encapsulated(3)), Errno::EINVAL, "no such encapsulation");
    w.ask(&encapsulated(2));
    let v6 = Msg::new(X_ADDFLOW, S::ESP)
        .sa(Sa::spi(SPI))
        .address(Ext::ADDRESS_DST, B)
        .flow("10.0.0.0/8", "11.0.0.0/8")
        .without(X_EXT_ADDRESS_SRC_FLOW)
        .address(X_EXT_ADDRESS_SRC_FLOW, "2001:db8::");
    assert_eq!(w.fails(&v6), Errno::EPFNOSUPPORT, "eroutes are IPv4's");
    let clear = Msg::new(X_DELFLOW, S::UNSPEC).sa(Sa::flagged(0, 4)).protocol(6);
    assert_eq!(w.fails(&clear), Errno::EINVAL, "a protocol of no flow");
}
