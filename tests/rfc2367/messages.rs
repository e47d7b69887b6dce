//! The messages (section 3.1).

use libc::{EEXIST, EINVAL, ENOENT, EOPNOTSUPP, ESRCH};
use pfkey_rs::engine::SaId;
use pfkey_rs::wire::{ExtensionType as Ext, IpsecProtocol, MessageType as M, SaState, SaType as S};

use crate::build::{Msg, PID, recorded_extensions};
use crate::world::*;

fn spi_of(message: &[u8]) -> u32 {
    parse(message).sa().map_or(0, |sa| sa.spi.get())
}

#[test]
fn describing_an_sa_is_a_get_without_its_keys() {
    let mut w = World::new(1);
    // NULL has no key.
    w.done(&esp(11, 0).lifetime(Ext::LIFETIME_HARD, 0, 0, 5, 0).sa2(2, 9));
    let mut get = Msg::new(M::GET, S::ESP, 0).sa(SPI, 0, 0).pair(A, B);
    get.header.pid = 0;
    let got = w.ask(&get);
    let id = SaId::new([10, 0, 0, 2].into(), SPI, IpsecProtocol::ESP);
    assert_eq!(w.hub.engine().describe(&id), Some(got));
}

#[test]
fn c070_an_spi_is_of_the_range() {
    let mut w = World::new(1);
    assert_eq!(w.errno(&getspi(0x300, 0x2ff)), EINVAL);
    for _ in 0..16 {
        let answer = w.ask(&getspi(0x300, 0x30f));
        assert!((0x300..=0x30f).contains(&spi_of(&answer)));
    }
}

#[test]
fn c071_a_full_range_is_eexist() {
    let mut w = World::new(1);
    for _ in 0..4 {
        w.done(&getspi(0x300, 0x303));
    }
    assert_eq!(w.errno(&getspi(0x300, 0x303)), EEXIST);
}

#[test]
fn c072_an_spi_alone_is_larval_and_carries_nothing() {
    let mut w = World::new(1);
    w.done(&getspi(SPI, SPI));
    let answer = w.ask(&bare(M::DUMP, S::AH));
    assert_eq!(parse(&answer).sa().map(|sa| SaState(sa.state)), Some(SaState::LARVAL));
    assert!(w.count(SPI, 1).is_err());
}

#[test]
fn c073_a_larval_dies() {
    let mut w = World::new(1);
    w.done(&getspi(SPI, SPI));
    w.pass(31);
    w.heard(0);
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
}

#[test]
fn c074_everybody_hears_of_a_new_spi() {
    let mut w = World::new(2);
    w.send(0, &getspi(SPI, SPI));
    for socket in [0, 1] {
        assert_eq!(extensions(&w.heard(socket)[0]), [1, 5, 6]);
    }
}

#[test]
fn c076_update_of_nothing_is_esrch() {
    assert_eq!(World::new(1).errno(&update()), ESRCH);
}

#[test]
fn c077_update_completes_a_larval() {
    let mut w = World::new(1);
    w.done(&getspi(SPI, SPI));
    w.done(&update());
    let answer = w.ask(&named(M::GET));
    assert_eq!(parse(&answer).sa().map(|sa| SaState(sa.state)), Some(SaState::MATURE));
    assert_eq!(w.count(SPI, 1), Ok(()));
}

#[test]
fn c078_update_of_an_sa_in_use_changes_its_limits_only() {
    let mut w = World::new(1);
    w.done(&ah());
    w.done(&update().lifetime(Ext::LIFETIME_HARD, 0, 0, 77, 0));
    let answer = w.ask(&named(M::GET));
    assert_eq!(parse(&answer).lifetime(Ext::LIFETIME_HARD).map(|l| l.addtime.get()), Some(77));
    assert_eq!(w.errno(&update().broken(3, |e| e[8] ^= 1)), EINVAL, "another key");
    assert_eq!(w.errno(&update().broken(0, |e| e[10] = 2)), EINVAL, "another algorithm");
}

#[test]
fn c079_any_socket_may_update_and_delete() {
    let mut w = World::new(2);
    w.done(&ah());
    w.send(1, &update());
    w.send(1, &named(M::DELETE));
    assert!(w.heard(1).iter().all(|m| header(m).errno == 0));
}

#[test]
fn c080_adding_twice_is_eexist() {
    let mut w = World::new(1);
    w.done(&ah());
    assert_eq!(w.errno(&ah()), EEXIST);
}

#[test]
fn c081_add_answers_without_proxy_and_keys() {
    let answer = World::new(1).ask(&hard(0, 9, 0).address(Ext::ADDRESS_PROXY, "10.1.0.0", 0, 0, 16));
    assert_eq!(extensions(&answer), [1, 3, 5, 6]);
}

#[test]
fn c082_delete_needs_the_very_sa() {
    let mut w = World::new(1);
    assert_eq!(w.errno(&named(M::DELETE)), ESRCH);
    w.done(&ah());
    let other = Msg { extensions: vec![], ..named(M::DELETE) }.sa(SPI, 0, 0).pair("10.0.0.9", B);
    assert_eq!(w.errno(&other), ESRCH, "another source");
    assert_eq!(extensions(&w.ask(&named(M::DELETE))), [1, 5, 6]);
    assert_eq!(w.errno(&named(M::DELETE)), ESRCH);
}

#[test]
fn c083_get_answers_the_asker() {
    let mut w = World::new(2);
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
    w.done(&ah());
    w.send(0, &named(M::GET));
    assert_eq!((w.heard(0).len(), w.heard(1).len()), (1, 0));
}

#[test]
fn c084_a_larval_can_be_got_and_deleted() {
    let mut w = World::new(1);
    w.done(&getspi(SPI, SPI));
    w.done(&named(M::GET));
    w.done(&named(M::DELETE));
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
}

#[test]
fn c094_expire_is_the_engines_to_send() {
    let mut w = World::new(1);
    w.done(&ah());
    let expire = named(M::EXPIRE).lifetimes(1, 1);
    assert_eq!(w.errno(&expire), EOPNOTSUPP);
    w.done(&named(M::GET));
}

#[test]
fn c095_flush_removes_its_type() {
    let mut w = World::new(2);
    w.done(&ah());
    w.done(&esp(12, 16));
    w.send(0, &bare(M::FLUSH, S::ESP));
    for socket in [0, 1] {
        assert_eq!(w.heard(socket).len(), 1, "one answer, to all");
    }
    w.done(&named(M::GET));
    w.done(&bare(M::FLUSH, S::UNSPEC));
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
}

#[test]
fn c096_a_dump_ends_with_number_0() {
    let mut w = World::new(1);
    for spi in 0..5 {
        w.done(&ah().broken(0, |e| e[7] = spi));
    }
    w.done(&esp(12, 16));
    w.send(0, &bare(M::DUMP, S::AH));
    let numbers: Vec<u32> = w.heard(0).iter().map(|m| header(m).seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 0]);
}

#[test]
fn c097_a_dump_is_the_askers() {
    let mut w = World::new(2);
    w.done(&ah());
    w.send(0, &bare(M::DUMP, S::AH));
    assert_eq!(w.heard(1).len(), 0);
}

#[test]
fn c098_a_dump_of_nothing_ends() {
    assert_eq!(World::new(1).errno(&bare(M::DUMP, S::UNSPEC)), ENOENT);
}

#[test]
fn c099_promiscuity_is_switched_and_told_to_all() {
    let mut w = World::new(2);
    for (satype, copies) in [(1, 1), (0, 0)] {
        w.send(0, &bare(M::X_PROMISC, S(satype)));
        assert_eq!(w.heard(1).len(), 1);
        w.heard(0);
        // An answer to socket 1 is no business of socket 0.
        w.send(1, &named(M::GET));
        w.heard(1);
        let seen = w.heard(0).iter().filter(|m| header(m).msg_type == M::X_PROMISC).count();
        assert_eq!(seen > 0, copies > 0);
    }
    assert_eq!(w.errno(&bare(M::X_PROMISC, S(2))), EINVAL);
}

#[test]
fn c100_a_promiscuous_copy_is_wrapped() {
    let mut w = World::new(2);
    w.send(1, &bare(M::X_PROMISC, S(1)));
    w.heard(1);
    w.send(0, &ah());
    let heard = w.heard(1);
    let h = header(&heard[0]);
    assert_eq!((h.msg_type, usize::from(h.len) * 8), (M::X_PROMISC, heard[0].len()));
    assert_eq!(heard[0][16..], ah().bytes());
}

#[test]
fn c101_a_wrapped_message_goes_to_a_process_as_it_is() {
    let mut w = World::new(2);
    let mut hello = bare(M::GET, S::AH);
    hello.header.pid = 4711;
    w.send(1, &hello);
    w.heard(0);
    w.heard(1);
    let inner = ah().bytes();
    let wrap = |w: &mut World, pid| {
        let mut bytes = [Msg::new(M::X_PROMISC, S::UNSPEC, pid).bytes(), inner.clone()].concat();
        let words = (bytes.len() / 8) as u16;
        bytes[4..6].copy_from_slice(&words.to_ne_bytes());
        w.send_bytes(0, &bytes).expect("a message");
        (w.heard(0), w.heard(1))
    };
    assert_eq!(wrap(&mut w, 4711), (vec![], vec![inner.clone()]));
    let everybody = wrap(&mut w, 0);
    assert_eq!((everybody.0.len(), everybody.1.len()), (1, 1));
    assert_eq!(header(&wrap(&mut w, 99).0[0]).errno, ESRCH as u8);
    assert_eq!(w.errno(&named(M::GET)), ESRCH, "it was not processed");
}

#[test]
fn c102_pchange_goes_to_the_registered() {
    let mut w = World::new(3);
    w.send(1, &bare(M::REGISTER, S::AH));
    w.heard(1);
    let change = Msg::new(M::X_PCHANGE, S::AH, 3).pair(A, B);
    w.send(0, &change);
    assert_eq!((w.heard(0).len(), w.heard(1), w.heard(2).len()), (0, vec![change.bytes()], 0));
}

#[test]
fn c103_what_is_private_to_key_managers_comes_back() {
    let mut w = World::new(1);
    let private = vec![2, 0, 17, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    w.done(&ah().raw(private.clone()));
    let answer = w.ask(&named(M::GET));
    assert_eq!(
        parse(&answer).extension(Ext::X_KMPRIVATE).map(|e| recorded_extensions(e.bytes.to_vec())),
        Some(private)
    );
}

#[test]
fn more_that_is_private_than_a_message_holds_is_refused_and_nothing_is_kept() {
    let mut w = World::new(1);
    let words = 3000_u16;
    let mut private = vec![0; usize::from(words) * 8];
    private[..4].copy_from_slice(&[words.to_le_bytes(), 17_u16.to_le_bytes()].concat());
    assert_eq!(w.errno(&ah().raw(private)), libc::ENOBUFS);
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
}

#[test]
fn c106_equal_numbers_of_two_sockets_do_not_mix() {
    let mut w = World::new(2);
    w.done(&ah());
    w.send(0, &named(M::GET));
    w.send(1, &bare(M::DUMP, S::AH));
    assert_eq!(w.heard(0).iter().map(|m| header(m).msg_type).collect::<Vec<_>>(), [M::GET]);
    assert_eq!(w.heard(1).iter().map(|m| (header(m).msg_type, header(m).pid)).collect::<Vec<_>>(), [(M::DUMP, PID)]);
}
