//! The socket, the header, extensions in general (sections 1.3, 1.4, 2.1–2.3).

use libc::{EINVAL, EMSGSIZE, ESRCH};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, PID};
use crate::world::*;

#[test]
fn c005_each_answer_is_one_message() {
    let mut w = World::new(1);
    w.send(0, &ah());
    w.send(0, &named(M::GET));
    assert_eq!(w.heard(0).len(), 2);
}

#[test]
fn c006_shorter_than_a_header_is_emsgsize() {
    assert_eq!(World::new(1).send_bytes(0, &bare(M::FLUSH, S::AH).bytes()[..15]), Err(EMSGSIZE));
}

#[test]
fn c007_the_length_must_be_that_of_the_message() {
    let mut w = World::new(1);
    let whole = ah().bytes();
    assert_eq!(w.send_bytes(0, &whole[..whole.len() - 8]), Err(EMSGSIZE));
    for stray in [4, 8] {
        assert_eq!(w.send_bytes(0, &[whole.clone(), vec![0; stray]].concat()), Err(EMSGSIZE));
    }
}

/// A header with one byte changed.
fn changed(at: usize, to: u8) -> Vec<u8> {
    let mut bytes = bare(M::FLUSH, S::AH).bytes();
    bytes[at] = to;
    bytes
}

#[test]
fn c008_another_version_is_einval() {
    for version in [0, 1, 3] {
        assert_eq!(World::new(1).send_bytes(0, &changed(0, version)), Err(EINVAL));
    }
}

#[test]
fn c009_type_0_and_unknown_types_are_einval() {
    for msg_type in [0, 25, 255] {
        assert_eq!(World::new(1).send_bytes(0, &changed(1, msg_type)), Err(EINVAL));
    }
}

#[test]
fn c010_the_reserved_field_is_zero() {
    let mut w = World::new(1);
    assert_eq!(w.send_bytes(0, &changed(6, 1)), Err(EINVAL));
    assert_eq!(header(&w.ask(&ah())).reserved, 0);
}

#[test]
fn c011_an_errno_comes_with_acquire_only() {
    let mut message = ah();
    message.header.errno = 5;
    assert_eq!(World::new(1).errno(&message), EINVAL);
}

#[test]
fn c012_nobody_else_hears_of_a_malformed_message() {
    let mut w = World::new(2);
    w.send(0, &ah().broken(1, |e| e[0] = 0));
    assert_eq!((w.heard(0).len(), w.heard(1).len()), (1, 0));
}

#[test]
fn c013_an_error_is_a_header_that_all_listeners_see() {
    let mut w = World::new(2);
    w.send(0, &named(M::GET));
    for socket in [0, 1] {
        let heard = w.heard(socket);
        assert_eq!(heard.len(), 1);
        let h = header(&heard[0]);
        assert_eq!((heard[0].len(), i32::from(h.errno)), (16, ESRCH));
        assert_eq!((h.msg_type, h.satype, h.seq, h.pid), (M::GET, S::AH, 8, PID));
    }
}

#[test]
fn c014_an_error_comes_once() {
    let mut w = World::new(1);
    assert_eq!(w.send_bytes(0, &named(M::GET).bytes()), Ok(()), "either as a message …");
    assert_eq!(w.heard(0).len(), 1);
    assert!(w.send_bytes(0, &changed(0, 9)).is_err(), "… or as the error of send");
    assert_eq!(w.heard(0).len(), 0);
}

#[test]
fn c015_an_answer_has_the_requests_pid_and_seq() {
    let h = header(&World::new(1).ask(&ah()));
    assert_eq!((h.pid, h.seq), (PID, 7));
}

#[test]
fn c016_what_the_engine_begins_has_pid_0() {
    let mut w = World::new(1);
    assert_eq!(header(&w.acquire()).pid, 0);
    w.done(&hard(0, 5, 0));
    w.pass(5);
    assert_eq!(header(&w.heard(0)[0]).pid, 0);
}

#[test]
fn c017_a_full_queue_loses_its_own_messages_only() {
    let mut w = World::new(3);
    w.queue_limit(1, 1000);
    for spi in 0..50 {
        w.send(0, &Msg { extensions: ah().extensions, ..ah() }.broken(0, |e| e[7] = spi));
    }
    assert_eq!((w.heard(0).len(), w.heard(2).len()), (50, 50));
    assert!(w.heard(1).len() < 5);
}

#[test]
fn c018_a_loss_can_be_seen() {
    let mut w = World::new(2);
    w.queue_limit(1, 1000);
    for spi in 0..50 {
        w.send(0, &ah().broken(0, |e| e[7] = spi));
    }
    assert_eq!(w.dropped(1) + w.heard(1).len() as u64, 50);
    assert_eq!(w.dropped(0), 0);
}

#[test]
fn c019_closing_ends_registration_promiscuity_and_dump() {
    let mut w = World::new(3);
    w.send(1, &bare(M::REGISTER, S::AH));
    w.send(1, &bare(M::X_PROMISC, S(1)));
    w.send(1, &bare(M::DUMP, S::UNSPEC));
    w.close(1);
    w.heard(0);
    w.send(0, &Msg::new(M::ACQUIRE, S::AH, 1).pair(A, B).raw(vec![1, 0, 13, 0, 32, 0, 0, 0]));
    assert_eq!(header(&w.heard(0)[0]).errno, libc::EPROTONOSUPPORT as u8, "nobody is registered any more");
}

#[test]
fn c020_an_extension_of_length_0_is_einval() {
    assert_eq!(World::new(1).errno(&ah().broken(0, |e| e[0] = 0)), EINVAL);
}

#[test]
fn c021_an_extension_beyond_the_message_is_einval() {
    assert_eq!(World::new(1).errno(&ah().broken(3, |e| e[0] = 200)), EINVAL);
}

#[test]
fn c022_a_fragment_of_an_extension_is_einval() {
    // Lengths count words of 8 bytes: the smallest fragment is a header's worth of zeros.
    assert_eq!(World::new(1).errno(&ah().raw(vec![0; 8])), EINVAL);
}

#[test]
fn c023_an_extension_twice_is_einval() {
    for n in 0..ah().extensions.len() {
        let twice = ah().extensions[n].clone();
        assert_eq!(World::new(1).errno(&ah().raw(twice)), EINVAL);
    }
}

#[test]
fn c024_an_unknown_extension_is_passed_over() {
    let answer = World::new(1).ask(&ah().raw(vec![1, 0, 200, 0, 1, 2, 3, 4]));
    assert_eq!(header(&answer).errno, 0);
    assert!(!extensions(&answer).contains(&200));
}

#[test]
fn c025_an_extension_shorter_than_its_fixed_part_is_einval() {
    let fixed = [16, 32, 32, 32, 8, 8, 8, 8, 8, 16, 16, 16, 8, 8, 8, 16, 8];
    for (ext_type, fixed) in (1_u8..).zip(fixed) {
        if fixed > 8 {
            let short = vec![1, 0, ext_type, 0, 0, 0, 0, 0];
            assert_eq!(World::new(1).errno(&bare(M::FLUSH, S::AH).raw(short)), EINVAL, "type {ext_type}");
        }
    }
}

#[test]
fn c026_extension_type_0_is_einval() {
    assert_eq!(World::new(1).errno(&ah().broken(0, |e| e[2] = 0)), EINVAL);
}

/// The messages that an SA with everything causes.
fn everything() -> Vec<Vec<u8>> {
    let mut w = World::new(1);
    let identity = |ext: u8| vec![3, 0, ext, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0];
    let full = hard(1000, 60, 30)
        .lifetime(Ext::LIFETIME_SOFT, 0, 500, 40, 20)
        .address(Ext::ADDRESS_PROXY, "10.1.0.0", 0, 0, 16)
        .raw(identity(10))
        .raw(identity(11))
        .raw(vec![2, 0, 17, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    let mut messages = vec![w.acquire(), w.ask(&full), w.ask(&named(M::GET)), w.ask(&getspi(0x200, 0x300))];
    w.send(0, &bare(M::DUMP, S::AH));
    messages.extend(w.heard(0));
    messages.extend({
        w.pass(60);
        w.heard(0)
    });
    messages
}

#[test]
fn c027_extensions_ascend_in_what_the_engine_says() {
    for message in everything() {
        assert!(extensions(&message).is_sorted(), "{:?}: {:?}", header(&message).msg_type, extensions(&message));
    }
}

#[test]
fn c028_any_order_is_taken() {
    let mut message = ah();
    message.extensions.reverse();
    World::new(1).done(&message);
}

#[test]
fn c029_padding_and_reserved_bytes_are_zero() {
    for message in everything() {
        for ext in parse(&message).extensions() {
            let reserved = match ext.ext_type.0 {
                5..=7 => vec![6..8, 16..24],
                8 | 9 => vec![6..8, 28..32],
                10 | 11 => vec![6..8, 20..24],
                13 => std::iter::once(5..8).collect(),
                _ => vec![],
            };
            for range in reserved {
                assert!(ext.bytes[range].iter().all(|b| *b == 0), "{:?}", ext.ext_type);
            }
        }
    }
}

#[test]
fn c030_lengths_are_multiples_of_8_and_add_up() {
    for message in everything() {
        let sum: usize = parse(&message).extensions().map(|e| e.bytes.len()).sum();
        assert_eq!((16 + sum, message.len() % 8), (message.len(), 0));
        assert_eq!(usize::from(header(&message).len) * 8, message.len());
    }
}

#[test]
fn c031_the_spi_is_in_network_byte_order() {
    let answer = World::new(1).ask(&ah());
    assert_eq!(answer[20..24], SPI.to_be_bytes());
}

#[test]
fn c039_structures_have_the_rfcs_sizes() {
    assert_eq!(size_of::<SadbSa>(), 16);
    let answer = &everything()[1];
    let sizes: Vec<(u16, usize)> =
        parse(answer).extensions().map(|e| (e.ext_type.0, e.bytes.len())).filter(|(t, _)| *t < 5).collect();
    assert_eq!(sizes, [(1, 16), (3, 32), (4, 32)]);
    assert_eq!(size_of::<pfkey_rs::wire::layout::SadbComb>(), 72);
}
