//! The order of eroutes, against the meaning of KLIPS's tree: the longest match in the order source, destination, protocol,
//! source port, destination port.

use std::time::Duration;

use pfkey_rs::hub::Errno;
use pfkey_rs::klips::Said;
use pfkey_rs::klips::eroute::{Bits, Eroute, Eroutes, Selector};

const FULL: Bits = Bits { src: u32::MAX, dst: u32::MAX, proto: 255, sport: 0xffff, dport: 0xffff };
const PACKET: Bits = Bits { src: 0x0a01_0203, dst: 0x0b01_0203, proto: 17, sport: 1111, dport: 9 };

fn bits(len: u32) -> u32 {
    u32::MAX.checked_shl(32 - len).unwrap_or(0)
}

/// A mask of prefix lengths, and whether it covers protocol and ports.
fn mask(src: u32, dst: u32, proto: bool, sport: bool, dport: bool) -> Bits {
    let when = |covers: bool, value: u16| if covers { value } else { 0 };
    Bits {
        src: bits(src),
        dst: bits(dst),
        proto: when(proto, 255) as u8,
        sport: when(sport, 0xffff),
        dport: when(dport, 0xffff),
    }
}

fn eroute(number: u32) -> Eroute {
    Eroute::new(Said::magic(number), 0, Duration::ZERO)
}

#[test]
fn the_longest_match_in_klipss_order_wins() {
    // Each is stronger than all before it.
    let order = [
        mask(0, 0, false, false, false),
        mask(0, 0, false, false, true),
        mask(0, 0, false, true, false),
        mask(0, 0, true, false, false),
        mask(0, 0, true, true, true),
        mask(0, 8, false, false, false),
        mask(0, 32, true, true, true),
        mask(8, 0, false, false, false),
        mask(8, 8, false, false, false),
        mask(8, 8, true, false, false),
        mask(16, 0, false, false, false),
        mask(32, 0, false, false, false),
        mask(32, 24, false, false, false),
        mask(32, 32, false, false, false),
        FULL,
    ];
    for upwards in [true, false] {
        let mut table = Eroutes::default();
        let mut numbers: Vec<usize> = (0..order.len()).collect();
        if !upwards {
            numbers.reverse();
        }
        for number in numbers {
            table.insert(Selector::new(PACKET, order[number]), eroute(number as u32)).unwrap();
        }
        for number in (0..order.len()).rev() {
            let (selector, found) = table.lookup(PACKET).expect("one is left");
            assert_eq!(found.said.spi, number as u32);
            table.remove(&selector).unwrap();
        }
        assert!(table.lookup(PACKET).is_none() && table.is_empty());
    }
}

#[test]
fn bits_outside_the_mask_do_not_matter() {
    let mut table = Eroutes::default();
    let mask = mask(8, 8, false, false, false);
    table.insert(Selector::new(PACKET, mask), eroute(1)).unwrap();
    let other = Bits { src: 0x0aff_ffff, ..PACKET };
    assert_eq!(table.insert(Selector::new(other, mask), eroute(2)).unwrap_err(), Errno::EEXIST);
    assert!(table.lookup(Bits { dport: 1, ..other }).is_some());
    assert!(table.lookup(Bits { dst: 0x0c00_0000, ..other }).is_none());
    assert!(table.remove(&Selector::new(other, mask)).is_ok());
    assert_eq!(table.remove(&Selector::new(other, mask)).unwrap_err(), Errno::ENOENT);
}

/// A mask with holes: of two, the one whose first bits are set wins.
#[test]
fn masks_may_have_holes() {
    let mut table = Eroutes::default();
    let holes = Bits { src: 0xff00_00ff, ..Bits::default() };
    table.insert(Selector::new(PACKET, holes), eroute(1)).unwrap();
    table.insert(Selector::new(PACKET, mask(16, 0, false, false, false)), eroute(2)).unwrap();
    assert_eq!(table.lookup(PACKET).unwrap().1.said.spi, 2);
    assert_eq!(table.lookup(Bits { src: 0x0a99_9903, ..PACKET }).unwrap().1.said.spi, 1);
}

/// The same answers as looking at every eroute, for many tables and packets.
#[test]
fn the_table_agrees_with_looking_at_all() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut table = Eroutes::default();
        let mut all: Vec<(Selector, u32)> = Vec::new();
        for number in 0..30 {
            let few = |random: &mut dyn FnMut(u64) -> u64| Bits {
                src: (random(4) as u32) << 30 | random(2) as u32,
                dst: (random(4) as u32) << 30,
                proto: [6, 17][random(2) as usize],
                sport: random(2) as u16,
                dport: random(2) as u16,
            };
            let mask = mask(
                [0, 1, 2, 32][random(4) as usize],
                random(3) as u32,
                random(2) == 0,
                random(2) == 0,
                random(2) == 0,
            );
            let selector = Selector::new(few(&mut random), mask);
            if table.insert(selector, eroute(number)).is_ok() {
                all.push((selector, number));
            }
            let packet = few(&mut random);
            let matching = all.iter().filter(|(s, _)| packet.masked(s.mask()) == s.key());
            let best = matching.max_by_key(|(s, _)| s.mask()).map(|(_, number)| *number);
            assert_eq!(table.lookup(packet).map(|(_, e)| e.said.spi), best);
        }
    }
}
