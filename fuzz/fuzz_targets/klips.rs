//! Messages of several sessions to KLIPS's hub, and packets.
#![no_main]
#![forbid(unsafe_code)]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pfkey_fuzz::splitmix::Random;
use pfkey_fuzz::{drawn_message, with_length};
use pfkey_rs::hub::{Queues, Service as _};
use pfkey_rs::klips::{Engine, Flow, Format, Hub, Packet, PacketId, Said};
use pfkey_rs::wire::{Message, Profile};

const START: Duration = Duration::from_secs(1_700_000_000);

const ADDRESSES: [[u8; 4]; 4] = [[10, 0, 0, 1], [10, 0, 0, 2], [192, 0, 2, 9], [10, 0, 2, 9]];

fn extension(r: &mut Random<'_>, number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0, 0, number, 0], body].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes[0] = (bytes.len() / 8) as u8;
    if r.below(32) == 1 {
        let at = r.below(bytes.len());
        bytes[at] = r.byte();
    }
    bytes
}

/// A message with KLIPS's extensions: `ipsec/pfkeyv2.h` of Openswan has their numbers and layouts.
fn klips_message(r: &mut Random<'_>) -> Vec<u8> {
    let msg_type = r.of(&[1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 14, 14, 15, 15, 16, 17]);
    let satype = r.of(&[2, 3, 3, 3, 9, 9, 10, 11, 11, 0]);
    let mut bytes = vec![2, msg_type, 0, satype, 0, 0, 0, 0];
    bytes.extend([r.byte(), 0, 0, 0, 1, 0, 0, 0]);
    let numbers: &[u8] = match msg_type {
        1 | 2 | 3 => &[1, 5, 6, 8, 9],
        13 => &[1, 5, 6, 18, 19, 20],
        14 => &[1, 5, 6, 21, 22, 23, 24],
        15 => &[21, 22, 23, 24],
        _ => &[1, 5, 6],
    };
    let mut numbers = numbers.to_vec();
    for _ in 0..r.below(3) {
        numbers.push(1 + r.below(32) as u8);
    }
    if r.below(8) == 1 {
        numbers.remove(r.below(numbers.len()));
    }
    for number in numbers {
        let body = match number {
            // SA, SA2: SPI, replay window, state, algorithms, flags; KLIPS's has more behind it.
            1 | 19 => {
                let spi = r.of(&[0_u32, 0x100, 0x101, 0x102, 0x1000, 0xffff]).to_be_bytes();
                let mut body = spi.to_vec();
                body.extend([r.of(&[0, 4, 64]), r.of(&[0, 1, 1, 1, 2]), r.of(&[2, 3, 0]), r.of(&[3, 2, 0, 11])]);
                body.extend(r.of(&[0_u32, 1, 2, 0x200, 0x800]).to_ne_bytes());
                body.extend([0; 8]);
                body
            }
            // Addresses: source, destination, proxy, second destination, flow's four.
            5..=7 | 20..=24 => {
                let mut body = vec![r.of(&[0, 6, 17]), 0, 0, 0, 2, 0];
                body.extend(r.of(&[0_u16, 80, 500]).to_be_bytes());
                body.extend(if matches!(number, 23 | 24) {
                    r.of(&[[255; 4], [255, 255, 255, 0]])
                } else {
                    r.of(&ADDRESSES)
                });
                body.extend([0; 8]);
                body
            }
            8 => [&[128, 0, 0, 0][..], &[1; 16]].concat(),
            9 => [&[192, 0, 0, 0][..], &[2; 24]].concat(),
            18 => vec![satype, 0, 0, 0],
            _ => {
                let len = r.below(40);
                r.take(len).to_vec()
            }
        };
        let one = extension(r, number, &body);
        bytes.extend(one);
    }
    with_length(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    // Names of SAs are text, too.
    let text = String::from_utf8_lossy(bytes);
    if let Ok(said) = text.parse::<Said>() {
        for format in [Format::Plain, Format::Fixed, Format::Prefixed, Format::Decimal] {
            assert_eq!(said.text(format).parse::<Said>().ok(), Some(said), "{text}");
        }
    }
    let mut r = Random(bytes);
    let mut engine = Engine::with_seed(1);
    engine.set_local(vec![ADDRESSES[0].into()]);
    engine.set_nat_t(r.below(4) != 1);
    engine.set_default_shunt(r.word());
    let (mut hub, mut queues, mut now) = (Hub::new(engine), Queues::new(), START);
    let mut ids = vec![hub.open(), hub.open()];
    for n in 0..64 {
        if r.is_empty() {
            break;
        }
        let which = r.below(ids.len());
        match r.below(16) {
            0..=7 => drop(hub.receive(ids[which], &klips_message(&mut r), now, &mut queues)),
            8..=10 => drop(hub.receive(ids[which], &drawn_message(&mut r), now, &mut queues)),
            11 => {
                hub.close(ids[which], now);
                queues.close(ids[which]);
                ids[which] = hub.open();
            }
            12 => now = now.saturating_add(Duration::from_nanos(r.long())),
            13 => {
                let engine = hub.engine();
                let _ = (engine.eroute_text(), engine.group_text(), engine.sa_text(), hub.registered_text());
            }
            _ => {
                let flow = Flow {
                    src: r.of(&ADDRESSES).into(),
                    dst: r.of(&ADDRESSES).into(),
                    proto: r.of(&[6, 17, 1, 50, 51]),
                    sport: r.of(&[0, 80, 500]),
                    dport: r.of(&[0, 80, 500]),
                };
                let packet = Packet { id: PacketId(n), bytes: r.long() };
                hub.with_engine(now, &mut queues, |engine, cx| {
                    let _ = engine.outbound(&flow, packet, cx);
                    engine.take_released()
                });
            }
        }
        for id in &ids {
            while let Some(message) = queues.pop(*id) {
                assert!(Message::parse(&message, Profile::Klips).is_ok(), "{message:02x?}");
            }
        }
    }
});
