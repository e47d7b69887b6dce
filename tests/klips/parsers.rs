//! The parsers that do little: debug, dump, promisc, pchange, nat_t_new_mapping; and the switch of the last slot.

use pfkey_rs::hub::{Errno, Time};
use pfkey_rs::klips::number::*;
use pfkey_rs::klips::parse::{check_framing, parse};
use pfkey_rs::klips::table::Direction;
use pfkey_rs::klips::{Context, Engine, MSG_PARSERS, Sockets};
use pfkey_rs::wire::{MessageType as M, SaType as S};

use crate::world::*;

#[test]
fn dump_is_not_implemented() {
    assert_eq!(World::new(2).fails(&Msg::new(M::DUMP, S::ESP)), Errno::ENOSYS);
}

/// Nobody is there.
struct NoSockets;

impl Sockets for NoSockets {
    fn tell_all(&mut self, _: &[u8]) {
        panic!("there is nothing to tell");
    }

    fn tell_requester(&mut self, _: &[u8]) {
        panic!("there is nothing to tell");
    }

    fn tell_registered(&mut self, _: S, _: &[u8]) -> bool {
        panic!("there is nothing to tell");
    }

    fn register(&mut self, _: S) {}
}

/// Their parsers say ENOSYS, but no message gets there: they need KMPRIVATE, which is never taken.
#[test]
fn promisc_and_pchange_are_not_implemented() {
    for number in [11, 12] {
        assert_eq!(World::new(2).fails(&Msg::new(M(number), S::UNSPEC)), Errno::EINVAL);
        let bytes = Msg::new(M::FLUSH, S::ESP).bytes();
        let request = parse(&bytes, check_framing(&bytes).unwrap(), Direction::In, true).unwrap();
        let mut cx = Context { now: Time::ZERO, sockets: &mut NoSockets };
        let run = MSG_PARSERS[number as usize].unwrap().run;
        assert_eq!(run(&mut Engine::with_seed(1), &request, &mut cx), Err(Errno::ENOSYS));
    }
}

/// The body of X_DEBUG: twelve masks, four bytes of zeros.
fn masks(masks: [u32; 12]) -> Msg {
    let mut body = masks.map(u32::to_ne_bytes).concat();
    body.extend([0; 4]);
    Msg::new(X_DEBUG, S::UNSPEC).ext(X_EXT_DEBUG, &body)
}

#[test]
fn debug_adds_bits_or_leaves_only_some() {
    const ADD: u32 = 0x8000_0000;
    let mut w = World::new(2);
    let all =
        ["tunnel", "netlink", "xform", "eroute", "spi", "radij", "esp", "ah", "rcv", "pfkey", "ipcomp", "verbose"];
    assert_eq!(w.send(0, &masks([1, ADD | 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])), Ok(()));
    for (index, name) in all.into_iter().enumerate() {
        assert_eq!(w.engine().debug().get(name), Some(index as u32 + 1), "{name}");
    }
    assert_eq!(w.send(0, &masks([0x10, ADD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), Ok(()));
    assert_eq!(w.engine().debug().get("tunnel"), Some(0x11));
    assert_eq!(w.send(0, &masks([0x10, 0, 1, !ADD, 0, 0, 0, 0, 0, 0, 0, 0])), Ok(()));
    let left = all.map(|name| w.engine().debug().get(name).unwrap());
    assert_eq!(left, [0x10, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(w.heard(0).is_empty() && w.heard(1).is_empty(), "there is no answer");
}

#[test]
fn nat_t_new_mapping_is_not_for_programs() {
    let ask = named(X_NAT_T_NEW_MAPPING, S::ESP, SPI).ext(X_EXT_NAT_T_SPORT, &[0; 4]).ext(X_EXT_NAT_T_DPORT, &[0; 4]);
    assert_eq!(World::new(2).fails(&ask), Errno::EINVAL);
}

/// Built without NAT-T, the last slot is empty and the last four extensions are unknown.
#[test]
fn the_last_slot_can_be_switched_off() {
    let mut w = World::new(1);
    let add = esp(SPI).ext(X_EXT_NAT_T_TYPE, &[2, 0, 0, 0]);
    w.engine().set_nat_t(false);
    assert_eq!(w.fails(&add), Errno::EINVAL);
    let mapping = named(X_NAT_T_NEW_MAPPING, S::ESP, SPI);
    assert_eq!(w.fails(&mapping), Errno::EINVAL);
    w.engine().set_nat_t(true);
    w.ask(&add);
}
