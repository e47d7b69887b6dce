//! The SA, its addresses and its keys (sections 2.3.1, 2.3.3, 2.3.4).

use libc::{EINVAL, EMSGSIZE};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::Msg;
use crate::world::*;

#[test]
fn c032_a_submitted_sa_is_mature() {
    for state in [0, 2, 3] {
        let message = Msg { extensions: ah().extensions[1..].to_vec(), ..ah() }.sa_with(sa(state, 3, 0));
        assert_eq!(World::new(1).errno(&message), EINVAL);
    }
}

#[test]
fn c033_an_sa_has_both_addresses() {
    for n in [1, 2] {
        assert_eq!(World::new(1).errno(&ah().without(n)), EINVAL);
    }
}

#[test]
fn c034_reserved_spis_are_refused() {
    for spi in [0, 1, 255] {
        let mut w = World::new(1);
        assert_eq!(w.errno(&ah().broken(0, |e| e[4..8].copy_from_slice(&u32::to_be_bytes(spi)))), EINVAL);
        assert_eq!(w.errno(&getspi(spi, spi)), EINVAL);
    }
}

#[test]
fn c035_unknown_flags_are_masked() {
    let mut w = World::new(1);
    w.done(&ah().broken(0, |e| e[12..16].copy_from_slice(&u32::MAX.to_le_bytes())));
    let answer = w.ask(&named(M::GET));
    assert_eq!(parse(&answer).sa().map(|sa| sa.flags.get()), Some(1), "PFS is the only flag of the RFC");
}

fn with_algorithms(satype: S, auth: u8, encrypt: u8) -> Msg {
    Msg::new(M::ADD, satype, 1).sa_with(sa(1, auth, encrypt)).pair(A, B)
}

#[test]
fn c036_an_unsupported_algorithm_is_einval() {
    assert_eq!(World::new(1).errno(&with_algorithms(S::AH, 4, 0).key(Ext::KEY_AUTH, 20)), EINVAL);
    assert_eq!(World::new(1).errno(&with_algorithms(S::ESP, 0, 99).key(Ext::KEY_ENCRYPT, 16)), EINVAL);
}

#[test]
fn c037_none_is_for_types_without_the_transform() {
    let keys = |m: Msg| m.key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16);
    assert_eq!(World::new(1).errno(&keys(with_algorithms(S::AH, 3, 12))), EINVAL);
    assert_eq!(World::new(1).errno(&with_algorithms(S::AH, 0, 0)), EINVAL);
    assert_eq!(World::new(1).errno(&with_algorithms(S::ESP, 3, 0).key(Ext::KEY_AUTH, 20)), EINVAL);
}

#[test]
fn c038_a_cpi_has_16_bits() {
    let ipcomp = |spi: u32| {
        Msg::new(M::ADD, S::X_IPCOMP, 1)
            .sa_with(SadbSa { spi: spi.into(), state: 1, encrypt: 2, ..Default::default() })
            .pair(A, B)
    };
    let mut w = World::new(1);
    assert_eq!(w.errno(&ipcomp(0x1_0000)), EINVAL);
    let answer = w.ask(&ipcomp(0xffff));
    assert_eq!(answer[20..24], [0, 0, 0xff, 0xff]);
}

#[test]
fn c050_addresses_are_of_one_family() {
    let mixed = Msg::new(M::ADD, S::AH, 1)
        .sa_with(sa(1, 3, 0))
        .address(Ext::ADDRESS_SRC, A, 0, 0, 32)
        .address(Ext::ADDRESS_DST, "2001:db8::1", 0, 0, 128)
        .key(Ext::KEY_AUTH, 20);
    assert_eq!(World::new(1).errno(&mixed), EINVAL);
}

fn from(ip: &str, port: u16, proto: u8, prefixlen: u8) -> Msg {
    Msg::new(M::ADD, S::AH, 1)
        .sa_with(sa(1, 3, 0))
        .address(Ext::ADDRESS_SRC, ip, port, proto, prefixlen)
        .address(Ext::ADDRESS_DST, B, 0, 0, 32)
        .key(Ext::KEY_AUTH, 20)
}

#[test]
fn c051_a_port_needs_a_protocol() {
    assert_eq!(World::new(1).errno(&from(A, 80, 0, 32)), EINVAL);
}

#[test]
fn c052_ports_are_zero_in_answers() {
    let mut w = World::new(1);
    let answer = w.ask(&from(A, 80, 6, 32));
    let m = parse(&answer);
    for ext in [Ext::ADDRESS_SRC, Ext::ADDRESS_DST] {
        assert_eq!(m.address(ext).map(|(fixed, s)| (fixed.proto, s.port())), Some((0, 0)));
    }
}

#[test]
fn c053_the_rest_of_a_sockaddr_is_zero_in_answers() {
    let mut w = World::new(1);
    let answer = w.ask(&ah().broken(1, |e| e[16..24].fill(7)));
    let m = parse(&answer);
    let ext = m.extension(Ext::ADDRESS_SRC).expect("a source");
    assert_eq!(ext.bytes[16..24], [0; 8]);
}

#[test]
fn c054_a_source_is_no_group() {
    assert_eq!(World::new(1).errno(&from("224.0.0.5", 0, 0, 32)), EINVAL);
    World::new(1).done(&from("0.0.0.0", 0, 0, 32));
}

#[test]
fn c055_a_prefix_is_no_longer_than_the_address() {
    assert_eq!(World::new(1).errno(&from(A, 0, 0, 33)), EINVAL);
}

#[test]
fn c056_an_unknown_family_or_a_short_sockaddr_is_einval() {
    assert_eq!(World::new(1).errno(&ah().broken(1, |e| e[8] = 77)), EINVAL);
    let short = |e: &mut Vec<u8>| {
        e.truncate(16);
        e[0] = 2;
    };
    assert_eq!(World::new(1).errno(&ah().broken(1, short)), EINVAL);
}

#[test]
fn c057_a_proxy_may_be_of_another_family() {
    let mut w = World::new(1);
    w.done(&ah().address(Ext::ADDRESS_PROXY, "2001:db8::", 0, 0, 32));
    let answer = w.ask(&named(M::GET));
    let m = parse(&answer);
    let proxy = m.address(Ext::ADDRESS_PROXY).and_then(|(_, s)| s.ip()).map(|ip| ip.to_string());
    assert_eq!(proxy.as_deref(), Some("2001:db8::"));
}

#[test]
fn c058_a_destination_may_be_a_group() {
    for dst in ["224.0.0.5", "255.255.255.255"] {
        World::new(1).done(&Msg::new(M::ADD, S::AH, 1).sa_with(sa(1, 3, 0)).pair(A, dst).key(Ext::KEY_AUTH, 20));
    }
}

#[test]
fn c060_no_bits_are_no_key() {
    assert_eq!(World::new(1).errno(&ah().without(3).key_bits(Ext::KEY_AUTH, 0, 0)), EINVAL);
}

#[test]
fn c061_a_key_has_the_algorithms_length() {
    for len in [1, 16, 19, 21, 24] {
        assert_eq!(World::new(1).errno(&ah().without(3).key(Ext::KEY_AUTH, len)), EINVAL, "{len}");
    }
    assert_eq!(World::new(1).errno(&ah().broken(3, |e| e[4..6].copy_from_slice(&500_u16.to_le_bytes()))), EINVAL);
    // Lengths that do not agree are the frame's error.
    assert_eq!(World::new(1).send_bytes(0, &ah().bytes()[..40]), Err(EMSGSIZE));
}

#[test]
fn c062_des_keys_have_64_and_192_bits() {
    for (algorithm, right, wrong) in [(2, 8, 7), (3, 24, 21)] {
        assert_eq!(World::new(1).errno(&esp(algorithm, wrong)), EINVAL);
        World::new(1).done(&esp(algorithm, right));
    }
}

#[test]
fn c063_weak_des_keys_are_refused() {
    for weak in [0x01, 0x00, 0xfe, 0xff] {
        assert_eq!(World::new(1).errno(&esp(2, 8).broken(3, |e| e[8..16].fill(weak))), EINVAL, "{weak:02x}");
    }
}

#[test]
fn c064_a_keyed_algorithm_needs_its_key() {
    assert_eq!(World::new(1).errno(&ah().without(3)), EINVAL);
    assert_eq!(World::new(1).errno(&esp(12, 16).without(3)), EINVAL);
    World::new(1).done(&esp(11, 0).without(3));
}

#[test]
fn c065_keys_are_in_no_message_to_all() {
    let mut w = World::new(2);
    w.done(&getspi(SPI, SPI));
    w.send(0, &update());
    w.send(0, &update().lifetime(Ext::LIFETIME_HARD, 0, 0, 5, 0));
    w.pass(5);
    w.send(0, &ah());
    w.send(0, &named(M::DELETE));
    let heard = w.heard(1);
    let types: Vec<M> = heard.iter().map(|m| header(m).msg_type).collect();
    assert_eq!(types, [M::UPDATE, M::UPDATE, M::EXPIRE, M::ADD, M::DELETE]);
    for message in heard {
        assert!(!extensions(&message).iter().any(|t| matches!(t, 8 | 9)), "{:?}", header(&message).msg_type);
    }
}

#[test]
fn c066_get_and_dump_give_keys_to_the_asker() {
    let mut w = World::new(2);
    w.done(&ah());
    for message in [named(M::GET), bare(M::DUMP, S::AH)] {
        assert!(extensions(&w.ask(&message)).contains(&8));
        assert_eq!(w.heard(1).len(), 0);
    }
}

#[test]
fn c068_keys_of_a_chain_are_kept_in_order() {
    let mut w = World::new(1);
    let key: Vec<u8> = (1..=24).collect();
    w.done(&esp(3, 24));
    let answer = w.ask(&Msg { header: bare(M::GET, S::ESP).header, ..named(M::GET) });
    assert_eq!(parse(&answer).key(Ext::KEY_ENCRYPT).map(|(bits, bytes)| (bits, bytes.to_vec())), Some((192, key)));
}
