//! Lifetimes, expiry, and asking for SAs (sections 2.3.2, 3.1.6, 3.1.8).

use libc::{EINVAL, ENOENT, EPROTONOSUPPORT, ESRCH};
use pfkey_rs::engine::Outbound;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaState, SaType as S};

use crate::build::Msg;
use crate::world::*;

fn state(message: &[u8]) -> Option<SaState> {
    parse(message).sa().map(|sa| SaState(sa.state))
}

#[test]
fn c040_hard_and_soft_limits_are_independent() {
    World::new(1).done(&hard(0, 5, 0));
    World::new(1).done(&ah().lifetime(Ext::LIFETIME_SOFT, 0, 0, 5, 0));
}

#[test]
fn c041_without_limits_an_sa_stays() {
    let mut w = World::new(1);
    w.done(&ah());
    w.pass(10_000_000);
    w.done(&named(M::GET));
}

#[test]
fn c042_current_is_the_engines() {
    let mut w = World::new(1);
    assert_eq!(w.errno(&ah().lifetime(Ext::LIFETIME_CURRENT, 1, 2, 3, 4)), EINVAL);
    w.done(&ah());
    let answer = w.ask(&named(M::GET));
    assert_eq!(parse(&answer).lifetime(Ext::LIFETIME_CURRENT).map(|l| l.addtime.get()), Some(w.now.as_secs()));
}

#[test]
fn c043_each_limit_alone_ends_an_sa() {
    for (allocations, bytes, add, usetime) in [(2, 0, 0, 0), (0, 200, 0, 0), (0, 0, 5, 0), (0, 0, 0, 5)] {
        let mut w = World::new(1);
        w.done(&ah().lifetime(Ext::LIFETIME_HARD, allocations, bytes, add, usetime));
        for _ in 0..3 {
            let _ = w.count(SPI, 100);
        }
        w.pass(5);
        assert_eq!(header(&w.heard(0)[0]).msg_type, M::EXPIRE);
        assert_eq!(w.errno(&named(M::GET)), ESRCH);
    }
}

#[test]
fn limits_beyond_a_signed_number_of_seconds_are_never_reached() {
    let mut w = World::new(1);
    w.done(&hard(0, u64::MAX, 1 << 63).lifetime(Ext::LIFETIME_SOFT, 0, u64::MAX, u64::MAX, 1 << 63));
    w.count(SPI, 1).expect("an SA");
    w.pass(10_000_000);
    assert_eq!(state(&w.ask(&named(M::GET))), Some(SaState::MATURE));
    let bytes = |message: &[u8]| parse(message).lifetime(Ext::LIFETIME_SOFT).map(|l| l.bytes.get());
    assert_eq!(bytes(&w.ask(&named(M::GET))), Some(u64::MAX), "as it was given");
}

#[test]
fn c044_a_soft_limit_makes_an_sa_dying_and_usable() {
    let mut w = World::new(1);
    w.done(&ah().lifetime(Ext::LIFETIME_SOFT, 0, 0, 5, 0));
    w.pass(5);
    let heard = w.heard(0);
    assert_eq!((extensions(&heard[0]), state(&heard[0])), (vec![1, 2, 4, 5, 6], Some(SaState::DYING)));
    assert_eq!(w.count(SPI, 1), Ok(()));
}

#[test]
fn c045_a_hard_limit_ends_it() {
    let mut w = World::new(1);
    w.done(&hard(0, 5, 0));
    w.pass(5);
    let heard = w.heard(0);
    assert_eq!((extensions(&heard[0]), state(&heard[0])), (vec![1, 2, 3, 5, 6], Some(SaState::DEAD)));
    assert_eq!(w.errno(&named(M::GET)), ESRCH);
    assert_eq!(w.errno(&bare(M::DUMP, S::AH)), ENOENT);
}

#[test]
fn c046_of_equal_limits_only_the_hard_one_is_told() {
    let mut w = World::new(1);
    w.done(&hard(0, 5, 0).lifetime(Ext::LIFETIME_SOFT, 0, 0, 5, 0));
    w.pass(9);
    let heard = w.heard(0);
    assert_eq!(heard.len(), 1);
    assert!(extensions(&heard[0]).contains(&3) && !extensions(&heard[0]).contains(&4));
}

#[test]
fn c047_a_soft_limit_above_the_hard_one_never_fires() {
    let mut w = World::new(1);
    w.done(&hard(0, 5, 0).lifetime(Ext::LIFETIME_SOFT, 0, 0, 8, 0));
    w.pass(20);
    assert_eq!(w.heard(0).len(), 1);
}

#[test]
fn c048_expiry_of_one_sa_leaves_the_others() {
    let mut w = World::new(1);
    w.done(&hard(0, 5, 0));
    w.done(&ah().broken(0, |e| e[7] = 1));
    w.pass(5);
    w.heard(0);
    w.done(&named(M::GET).broken(0, |e| e[7] = 1));
}

#[test]
fn c075_what_answers_an_acquire_has_its_number() {
    let mut w = World::new(1);
    let seq = header(&w.acquire()).seq;
    assert_ne!(seq, 0);
    let mut message = getspi(SPI, SPI);
    message.header.seq = seq;
    assert_eq!(header(&w.ask(&message)).seq, seq);
    let mut message = update();
    message.header.seq = seq;
    assert_eq!(header(&w.ask(&message)).seq, seq);
    assert!(matches!(w.outbound(), Ok(Outbound::Apply(_))));
}

#[test]
fn c085_acquire_goes_to_those_registered_for_its_type() {
    let mut w = World::new(2);
    w.send(1, &bare(M::REGISTER, S::ESP));
    w.heard(1);
    w.acquire();
    assert_eq!(w.heard(1).iter().filter(|m| header(m).msg_type == M::ACQUIRE).count(), 0);
}

#[test]
fn c086_one_acquire_is_enough() {
    let mut w = World::new(1);
    w.acquire();
    for _ in 0..10 {
        assert_eq!(w.outbound(), Ok(Outbound::Wait));
    }
    assert_eq!(w.heard(0).len(), 0);
}

#[test]
fn c087_acquire_shows_the_packet_and_a_proposal() {
    let message = World::new(1).acquire();
    assert_eq!(extensions(&message), [5, 6, 13]);
    let m = parse(&message);
    let end = |ext| m.address(ext).map(|(fixed, s)| (fixed.proto, s.port()));
    assert_eq!((end(Ext::ADDRESS_SRC), end(Ext::ADDRESS_DST)), (Some((17, 1111)), Some((17, 2222))));
    let (_, combinations) = m.proposal().expect("a proposal");
    let combinations: Vec<_> = combinations.collect();
    assert!(!combinations.is_empty());
    for c in combinations {
        assert!(c.auth != 0 && c.auth_minbits.get() != 0 && c.auth_minbits.get() <= c.auth_maxbits.get());
        assert_eq!((c.encrypt, c.encrypt_minbits.get(), c.encrypt_maxbits.get()), (0, 0, 0), "AH encrypts nothing");
    }
}

#[test]
fn c088_a_key_manager_that_gives_up_is_heard_by_all() {
    let mut w = World::new(2);
    let seq = header(&w.acquire()).seq;
    w.heard(1);
    for seq in [seq, 0xdead] {
        let mut message = Msg::new(M::ACQUIRE, S::AH, seq);
        message.header.errno = 110;
        w.send(0, &message);
        for socket in [0, 1] {
            let heard = w.heard(socket);
            assert_eq!((heard.len(), header(&heard[0]).errno, header(&heard[0]).seq), (1, 110, seq));
        }
    }
    assert_eq!(w.outbound(), Ok(Outbound::Wait));
    assert_eq!(w.heard(0).len(), 0, "the flow is not asked for again until the larval has died");
    w.pass(31);
    w.heard(0);
    assert_eq!(w.outbound(), Ok(Outbound::Wait));
    assert_eq!(header(&w.heard(0)[0]).msg_type, M::ACQUIRE);
}

#[test]
fn c089_a_consumers_acquire_is_forwarded() {
    let mut w = World::new(2);
    let want = Msg::new(M::ACQUIRE, S::OSPFV2, 5).pair(A, B).raw(vec![1, 0, 13, 0, 32, 0, 0, 0]);
    assert_eq!(w.errno(&want), EPROTONOSUPPORT);
    w.send(1, &bare(M::REGISTER, S::OSPFV2));
    w.heard(1);
    w.send(0, &want);
    assert_eq!(w.heard(1), [want.bytes()]);
    assert_eq!(w.errno(&want.without(2)), EINVAL, "it has a proposal");
}

#[test]
fn c090_register_lists_algorithms_to_the_registered() {
    let mut w = World::new(2);
    w.send(1, &bare(M::REGISTER, S::ESP));
    assert_eq!(extensions(&w.heard(1)[0]), [14, 15]);
    assert_eq!(w.heard(0).len(), 0);
    assert_eq!(extensions(&w.ask(&bare(M::REGISTER, S::AH))), [14], "AH encrypts nothing");
    assert_eq!(w.heard(1).len(), 0);
}

#[test]
fn c091_types_of_other_consumers_may_be_registered() {
    let mut w = World::new(1);
    for satype in [S::RSVP, S::OSPFV2, S::RIPV2, S::MIP] {
        assert_eq!(extensions(&w.ask(&bare(M::REGISTER, satype))), []);
    }
    for satype in [0, 10, 255] {
        assert_eq!(w.errno(&bare(M::REGISTER, S(satype))), EINVAL);
    }
}

#[test]
fn c092_registering_twice_is_harmless() {
    let mut w = World::new(1);
    w.done(&bare(M::REGISTER, S::AH));
    w.done(&bare(M::REGISTER, S::AH));
}

#[test]
fn c093_new_algorithms_are_announced_to_the_registered() {
    let mut w = World::new(2);
    w.done(&bare(M::REGISTER, S::ESP));
    w.hub.algorithms_changed(&mut w.queues).expect("the engine's algorithms");
    let heard = w.heard(0);
    assert_eq!((heard.len(), header(&heard[0]).msg_type, header(&heard[0]).pid), (1, M::REGISTER, 0));
    assert_eq!(w.heard(1).len(), 0);
}
