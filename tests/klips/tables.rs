//! Which extensions go with which message: every message with every extension, in both directions.
//!
//! The rows are Openswan's `pfkey_v2_ext_bits.c`.

use pfkey_rs::klips::number::*;
use pfkey_rs::klips::table::{Direction, Set, extensions};
use pfkey_rs::klips::{MSG_PARSERS, Refusal};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::framing::refusal;
use crate::world::*;

/// What the columns' letters stand for.
fn numbers(words: &str) -> Vec<u16> {
    let mut list: Vec<u16> = words
        .split_whitespace()
        .flat_map(|word| match word {
            "SA" => vec![1],
            "C" => vec![2],
            "H" => vec![3],
            "F" => vec![4],
            "S" => vec![5],
            "D" => vec![6],
            "P" => vec![7],
            "A" => vec![8],
            "E" => vec![9],
            "ID" => vec![10, 11],
            "Z" => vec![12],
            "PROPOSAL" => vec![13],
            "SUPPORTED" => vec![14, 15],
            "SPIRANGE" => vec![16],
            "SATYPE2" => vec![18],
            "SA2" => vec![19],
            "DST2" => vec![20],
            "4F" => vec![21, 22, 23, 24],
            "DEBUG" => vec![25],
            "PROTOCOL" => vec![26],
            "NATTYPE" => vec![27],
            "NATSPORT" => vec![28],
            "NATDPORT" => vec![29],
            "NATOA" => vec![30],
            "1-20" => (1..=20).collect(),
            _ => panic!("{word}?"),
        })
        .collect();
    list.sort_unstable();
    list
}

/// Number; what comes in may and must have; what goes out may and must have.
const ROWS: [(u8, &str, &str, &str, &str); 17] = [
    (1, "S D P SPIRANGE", "S D SPIRANGE", "SA S D", "SA S D"),
    (2, "SA C H F S D P A E ID Z NATSPORT NATDPORT", "SA S D", "SA C H F S D P ID Z NATSPORT NATDPORT", "SA S D"),
    (
        3,
        "SA H F S D P A E ID Z NATTYPE NATSPORT NATDPORT NATOA",
        "SA S D",
        "SA H F S D ID Z NATTYPE NATSPORT NATDPORT NATOA",
        "SA S D",
    ),
    (4, "SA S D", "SA S D", "SA S D", "SA S D"),
    (5, "SA S D", "SA S D", "SA C H F S D P A E ID Z NATTYPE NATSPORT NATDPORT NATOA", "SA S D"),
    (6, "S D P ID Z PROPOSAL", "S D PROPOSAL", "S D P ID Z PROPOSAL", "S D PROPOSAL"),
    (7, "", "", "SUPPORTED", ""),
    (8, "", "", "SA C H F S D", "SA C S D"),
    (9, "", "", "", ""),
    (10, "", "", "SA C H F S D P A E ID Z NATTYPE NATSPORT NATDPORT NATOA", "SA S D A E"),
    (11, "1-20", "1-20", "1-20", "1-20"),
    (12, "1-20", "1-20", "1-20", "1-20"),
    (13, "SA D SATYPE2 SA2 DST2", "SA D", "SA D SATYPE2 SA2 DST2", "SA D"),
    (14, "SA S D 4F ID PROTOCOL", "SA D 4F", "SA S D 4F PROTOCOL", "SA D 4F"),
    (15, "SA 4F ID PROTOCOL", "", "SA 4F PROTOCOL", "4F"),
    (16, "DEBUG", "DEBUG", "DEBUG", "DEBUG"),
    (
        17,
        "SA S D NATSPORT NATDPORT",
        "SA S D NATSPORT NATDPORT",
        "SA S D NATSPORT NATDPORT",
        "SA S D NATSPORT NATDPORT",
    ),
];

/// A well-formed body of an extension.
pub fn sample(ext: u16) -> Vec<u8> {
    match ext {
        1 | 19 => Sa { state: 1, auth: 2, encrypt: 3, ..Sa::spi(SPI) }.body(),
        2..=4 => lifetime(0, 0, 60, 0, 0),
        23 | 24 => address("255.255.255.255", 0),
        5 | 6 | 7 | 20..=22 | 30 => address(A, 0),
        8 => key(128, 16),
        9 => key(192, 24),
        10 | 11 => identity(2, 0, "host.example"),
        12 => vec![0; 12],
        13..=15 => vec![0; 4],
        16 => [300_u32.to_be_bytes(), 400_u32.to_be_bytes(), [0; 4]].concat(),
        18 => vec![3, 0, 0, 0],
        25 => vec![0; 52],
        17 | 26 => vec![0; 4],
        27 => vec![2, 0, 0, 0],
        28 | 29 => vec![0x94, 0x11, 0, 0],
        _ => panic!("extension {ext}?"),
    }
}

/// A message with these extensions, of an SA type that goes with it.
fn message(number: u8, list: &[u16]) -> Msg {
    list.iter().fold(Msg::new(M(number), S::ESP), |message, ext| message.ext(Ext(*ext), &sample(*ext)))
}

#[test]
fn the_tables_say_what_openswans_say() {
    for (number, may_in, must_in, may_out, must_out) in ROWS {
        for (direction, may, must) in [(Direction::In, may_in, must_in), (Direction::Out, may_out, must_out)] {
            let rule = extensions(direction, M(number));
            let list = |set: Set| set.iter().map(|ext| ext.0).collect::<Vec<_>>();
            assert_eq!(list(rule.permitted), numbers(may), "message {number} {direction:?} may have");
            assert_eq!(list(rule.required), numbers(must), "message {number} {direction:?} must have");
        }
    }
}

/// Every message with every extension: one that it must not have is refused for that; one that it may have is not.
#[test]
fn an_extension_too_many_is_refused() {
    for (number, may, must, ..) in ROWS {
        let (may, must) = (numbers(may), numbers(must));
        for ext in 1..=30 {
            // The one in question first, so that it decides.
            let others: Vec<u16> = must.iter().copied().filter(|t| *t != ext).collect();
            let refusal = refusal(&message(number, &[&[ext], &others[..]].concat()));
            let refused = refusal == Some(Refusal::NotPermitted(ext));
            assert_eq!(refused, !may.contains(&ext), "message {number}, extension {ext}: {refusal:?}");
        }
    }
}

/// Every message without each of its required extensions.
#[test]
fn an_extension_too_few_is_refused() {
    let mut cases = 0;
    for (number, _, must, ..) in ROWS {
        let must = numbers(must);
        if must.is_empty() {
            continue;
        }
        // KMPRIVATE, which PROMISC and PCHANGE must have, is never taken: they cannot be asked for at all.
        if must.contains(&17) {
            let whole = refusal(&message(number, &must));
            assert_eq!(whole, Some(Refusal::Field(17, pfkey_rs::hub::Errno::EINVAL)), "message {number}");
            continue;
        }
        let whole = refusal(&message(number, &must));
        assert!(!matches!(whole, Some(Refusal::Missing(_))), "message {number}: {whole:?}");
        for missing in &must {
            let rest: Vec<u16> = must.iter().copied().filter(|t| t != missing).collect();
            let refusal = refusal(&message(number, &rest));
            assert_eq!(refusal, Some(Refusal::Missing(Set::of(&[Ext(*missing)]))), "message {number}");
            cases += 1;
        }
    }
    assert_eq!(cases, 32);
}

/// A DELFLOW names a flow wholly, or clears all.
#[test]
fn delflow_needs_four_addresses_or_clearflow() {
    let four = [21, 22, 23, 24];
    assert_eq!(refusal(&message(15, &four)), None);
    for missing in four {
        let rest: Vec<u16> = four.into_iter().filter(|ext| *ext != missing).collect();
        assert_eq!(refusal(&message(15, &rest)), Some(Refusal::Missing(Set::of(&[Ext(missing)]))));
        assert!(refusal(&message(15, &rest).sa(Sa::flagged(0, 2))).is_some(), "another flag");
        assert_eq!(refusal(&message(15, &rest).sa(Sa::flagged(0, 4))), None, "CLEARFLOW");
    }
    assert_eq!(refusal(&message(15, &[]).sa(Sa::flagged(0, 4))), None);
}

/// The 18 slots in KLIPS's order. (The seed's comments count from one; these are the indices.)
#[test]
fn msg_parsers_has_eighteen_slots() {
    let names: Vec<Option<&str>> = MSG_PARSERS.iter().map(|slot| slot.map(|parser| parser.name)).collect();
    let expected = [
        "getspi",
        "update",
        "add",
        "delete",
        "get",
        "acquire",
        "register",
        "expire",
        "flush",
        "dump",
        "x_promisc",
        "x_pchange",
        "x_grpsa",
        "x_addflow",
        "x_delflow",
        "x_msg_debug",
        "x_nat_t_new_mapping",
    ];
    assert_eq!(names.len(), 18);
    assert_eq!(names[0], None);
    for (index, name) in expected.into_iter().enumerate() {
        assert_eq!(names[index + 1], Some(format!("pfkey_{name}_parse").as_str()), "slot {}", index + 1);
    }
    assert_eq!(message_name(M(4)), Some("DELETE"));
    assert_eq!(message_name(M(17)), Some("X_NAT_T_NEW_MAPPING"));
    assert_eq!(message_name(M(18)), None);
}
