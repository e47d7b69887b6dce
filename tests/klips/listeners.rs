//! ACQUIRE, REGISTER, EXPIRE, and what the engine itself tells those who registered.

use pfkey_rs::hub::{Errno, Service as _};
use pfkey_rs::klips::Said;
use pfkey_rs::klips::number::*;
use pfkey_rs::klips::request::Endpoint;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::world::*;

/// `sadb_alg`: id, ivlen, minbits, maxbits, reserved.
fn algorithm(id: u8, ivlen: u8, bits: u16) -> Vec<u8> {
    [&[id, ivlen][..], &bits.to_ne_bytes(), &bits.to_ne_bytes(), &[0; 2]].concat()
}

/// The list behind the reserved word.
fn list(algorithms: &[Vec<u8>]) -> Vec<u8> {
    [&[0; 4][..], &algorithms.concat()].concat()
}

/// The static tables of `pfkey_init`; initialisation vectors count bits.
#[test]
fn register_lists_the_algorithms_of_the_sa_type() {
    let mut w = World::new(1);
    let auth = list(&[algorithm(2, 0, 128), algorithm(3, 0, 160)]);
    let cases = [
        (S::AH, vec![(14, auth.clone())]),
        (S::ESP, vec![(14, auth), (15, list(&[algorithm(3, 64, 168)]))]),
        (X_SATYPE_IPIP, vec![(15, list(&[algorithm(1, 0, 32)]))]),
        (X_SATYPE_COMP, vec![(15, list(&[algorithm(2, 0, 1)]))]),
        (X_SATYPE_INT, vec![]),
        (S::RSVP, vec![]),
    ];
    for (satype, expected) in cases {
        let answer = w.ask(&Msg::new(M::REGISTER, satype));
        assert_eq!(extensions(&answer), expected, "{satype:?}");
    }
    assert_eq!(w.fails(&Msg::new(M::REGISTER, S(12))), Errno::EINVAL);
}

#[test]
fn register_tells_those_registered_for_the_type() {
    let mut w = World::new(3);
    w.register(0, S::ESP);
    w.register(1, S::AH);
    assert_eq!(w.send(2, &Msg::new(M::REGISTER, S::ESP)), Ok(()));
    assert_eq!((w.heard(0).len(), w.heard(1).len(), w.heard(2).len()), (1, 0, 1));
}

/// There is no look whether a socket is registered already.
#[test]
fn register_twice_hears_twice() {
    let mut w = World::new(1);
    w.register(0, S::ESP);
    assert_eq!(w.send(0, &Msg::new(M::REGISTER, S::ESP)), Ok(()));
    assert_eq!(w.heard(0).len(), 2);
    assert_eq!(w.hub.registered_text(), "3         0\n3         0\n");
    let id = w.ids[0];
    w.hub.close(id, w.now);
    assert_eq!(w.hub.registered(S::ESP), []);
}

/// One with a proposal is not taken; one that says that there is none goes to those registered.
#[test]
fn acquire_forwards_a_failure() {
    let mut w = World::new(3);
    let failed = Msg::new(M::ACQUIRE, S::ESP).with_errno(111).ends();
    assert_eq!(w.fails(&failed), Errno::EPROTONOSUPPORT, "nobody registered");
    w.register(1, S::ESP);
    w.register(2, S::AH);
    assert_eq!(w.send(0, &failed), Ok(()));
    assert_eq!(w.heard(1), [failed.bytes()]);
    assert!(w.heard(0).is_empty() && w.heard(2).is_empty());
    let with_proposal = Msg::new(M::ACQUIRE, S::ESP).ends().ext(Ext::PROPOSAL, &[32, 0, 0, 0]);
    assert_eq!(w.fails(&with_proposal), Errno::EINVAL);
}

/// A program's EXPIRE may have no extension, so there is nothing that it could say.
#[test]
fn expire_is_echoed_bare_and_refused_otherwise() {
    let mut w = World::new(2);
    let bare = Msg::new(M::EXPIRE, S::ESP);
    assert_eq!(w.ask(&bare), bare.bytes());
    assert_eq!(w.fails(&named(M::EXPIRE, S::ESP, SPI)), Errno::EINVAL);
}

#[test]
fn a_new_mapping_is_told_to_those_registered_for_esp() {
    let mut w = World::new(3);
    let port = |port: u16| [&port.to_ne_bytes()[..], &[0, 0]].concat();
    let encapsulated = esp(SPI)
        .ext(X_EXT_NAT_T_TYPE, &[2, 0, 0, 0])
        .ext(X_EXT_NAT_T_SPORT, &port(4500))
        .ext(X_EXT_NAT_T_DPORT, &port(4501));
    w.ask(&encapsulated);
    w.ask(&ah(SPI));
    let moved = |w: &mut World, proto: u8| {
        let said = Said { dst: B.parse().unwrap(), spi: SPI, proto };
        let from = Endpoint { ip: "192.0.2.7".parse().unwrap(), port: 1234 };
        w.hub.with_engine(w.now, &mut w.queues, |engine, cx| engine.new_mapping(&said, from, cx))
    };
    assert_eq!(moved(&mut w, 50), Err(Errno::EPROTONOSUPPORT), "nobody registered");
    w.register(1, S::ESP);
    w.register(2, S::AH);
    assert_eq!(moved(&mut w, 51), Err(Errno::EINVAL), "not encapsulated");
    assert_eq!(moved(&mut w, 50), Ok(()));
    assert!(w.heard(0).is_empty() && w.heard(2).is_empty());
    let heard = w.heard(1);
    let message = &heard[0];
    assert_eq!((header(message).msg_type, header(message).satype, header(message).pid), (M(17), S::ESP, 0));
    assert_eq!(types(message), [1, 5, 6, 28, 29]);
    assert_eq!(body(message, Ext::ADDRESS_SRC)[8..12], [10, 0, 0, 1], "the old address");
    assert_eq!(body(message, X_EXT_NAT_T_SPORT), port(4500), "the old port, host byte order");
    assert_eq!(body(message, Ext::ADDRESS_DST)[8..12], [192, 0, 2, 7], "the new address");
    assert_eq!(body(message, X_EXT_NAT_T_DPORT), port(1234), "the new port");
}
