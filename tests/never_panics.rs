//! Any bytes through everything that reads bytes: nothing panics, nothing loops, and what one part writes the
//! next one reads back.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pfkey_rs::align;
use pfkey_rs::engine::{Engine, LINUX, RFC2367};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::klips;
use pfkey_rs::policy::{self, PolicySpec, RequestSpec};
use pfkey_rs::print::{self, SocketPolicyFilter, Style, Utc};
use pfkey_rs::wire::{ExtensionType, Message, Mode, PolicyDirection, PolicyLevel, PolicyType, Profile, Requests};
use proptest::prelude::*;

const UTC: Utc = Utc { now: 1_700_003_600 };

/// An extension whose length is right, unless the message is changed afterwards.
fn extension() -> impl Strategy<Value = Vec<u8>> {
    // Address families and small lengths are likely, so that the code behind the first checks is reached.
    let byte = prop_oneof![any::<u8>(), prop_oneof![Just(0u8), Just(2), Just(10), Just(16), Just(48), Just(72)]];
    let words = prop::collection::vec(prop::array::uniform8(byte), 1..13);
    (0u16..32, words).prop_map(|(ext_type, words)| {
        let mut bytes = words.concat();
        let len = (bytes.len() / 8) as u16;
        bytes[..2].copy_from_slice(&len.to_ne_bytes());
        bytes[2..4].copy_from_slice(&ext_type.to_ne_bytes());
        bytes
    })
}

/// Bytes that pass for a message: some are arbitrary, most have a good header and whole extensions, some of
/// which are changed in one place or cut.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let header = (0u8..27, 0u8..12, any::<[u8; 8]>());
    let built =
        (header, prop::collection::vec(extension(), 0..6)).prop_map(|((msg_type, satype, tail), extensions)| {
            let mut bytes = vec![2, msg_type, 0, satype, 0, 0, 0, 0];
            bytes.extend_from_slice(&tail);
            bytes.extend(extensions.concat());
            let len = (bytes.len() / 8) as u16;
            bytes[4..6].copy_from_slice(&len.to_ne_bytes());
            bytes
        });
    let damaged = (built, any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>(), any::<[bool; 2]>())
        .prop_map(|(mut bytes, at, value, end, [change, cut])| {
            if change {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 9 => damaged]
}

/// Text made of the language's words and of anything else.
fn policy_text() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &str = "in out fwd prio low def high + - / discard none ipsec bypass esp ah ipcomp transport tunnel \
        me any default use require unique unique:5 unique:99999999999999999999 10.0.0.1 2001:db8::1 fe80::1%lo \
        fe80::1% 0x 08.1 [500] [99999999999999999999] [ ] ; % 4294967296 1073741825 2147483649";
    let word = prop::sample::select(WORDS.split(' ').collect::<Vec<_>>()).prop_map(|w| w.as_bytes().to_vec());
    let piece = prop_oneof![8 => word, 1 => prop::collection::vec(any::<u8>(), 0..6)];
    (prop::collection::vec(piece, 0..24), any::<bool>())
        .prop_map(|(pieces, blanks)| pieces.join(if blanks { &b" "[..] } else { &b""[..] }))
}

/// A request that text can say: a reqid only with level `unique`, and not so large that it is shown behind `#`.
fn request() -> impl Strategy<Value = RequestSpec> {
    let pair = prop_oneof![
        any::<([u8; 4], u16, [u8; 4], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q)))),
        any::<([u16; 8], u16, [u16; 8], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q)))),
    ];
    let protocol = prop::sample::select(vec![policy::ESP, policy::AH, policy::IPCOMP]);
    (protocol, prop::option::of(pair), any::<bool>(), 0u8..4, 0u32..=0x3fff).prop_map(
        |(protocol, addresses, tunnel, level, reqid)| {
            let mode = if tunnel && addresses.is_some() { Mode::TUNNEL } else { Mode::TRANSPORT };
            let level = PolicyLevel(level);
            let reqid = if level == PolicyLevel::UNIQUE { reqid } else { 0 };
            RequestSpec { protocol, mode, level, reqid, addresses }
        },
    )
}

const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Everything that a session was told is a message of its dialect.
fn well_formed(queues: &mut Queues, ids: &[SessionId], profile: Profile, name: &str) {
    for &id in ids {
        while let Some(message) = queues.pop(id) {
            // A copy for a promiscuous listener is whatever was sent.
            let parsed = Message::parse(&message, profile);
            assert!(parsed.is_ok() || message.get(1) == Some(&11), "{name}: {message:02x?}");
        }
    }
}

/// Sends messages to an engine of each dialect, one after the other, and lets time pass.
fn told(messages: &[Vec<u8>]) {
    for dialect in [&LINUX, &RFC2367] {
        let mut hub = Hub::new(Engine::with_seed(dialect, 1));
        let (ids, mut queues) = ([hub.open(), hub.open()], Queues::new());
        for message in messages {
            let _ = hub.receive(ids[0], message, NOW, &mut queues);
        }
        hub.receive_all(ids[1], &messages.concat(), NOW, &mut queues);
        hub.advance(NOW + Duration::from_secs(100), &mut queues);
        ids.iter().for_each(|&id| hub.close(id, NOW));
        if !messages.iter().any(|m| m.get(1) == Some(&11)) {
            well_formed(&mut queues, &ids, Profile::Linux, &format!("{dialect:?}"));
        }
    }
    let mut hub = klips::Hub::new(klips::Engine::with_seed(1));
    let (ids, mut queues) = ([hub.open(), hub.open()], Queues::new());
    for message in messages {
        let _ = hub.receive(ids[0], message, NOW, &mut queues);
    }
    ids.iter().for_each(|&id| hub.close(id, NOW));
    well_formed(&mut queues, &ids, Profile::Klips, "klips");
}

/// The longest message that the length field allows: one extension, as many as fit, and one that is as long as that.
#[test]
fn the_longest_messages() {
    let words = u16::MAX;
    for msg_type in 0..=25 {
        let mut header = [2, msg_type, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
        header[4..6].copy_from_slice(&words.to_ne_bytes());
        let body = usize::from(words) * 8 - 16;
        let mut one = vec![0; body];
        one[..2].copy_from_slice(&(words - 2).to_ne_bytes());
        let extension = [1_u16.to_ne_bytes(), 99_u16.to_ne_bytes(), [0; 2], [0; 2]].concat();
        // A key, and a security label.
        for ext in [8_u16, 24] {
            one[2..4].copy_from_slice(&ext.to_ne_bytes());
            told(&[[&header[..], &one].concat()]);
        }
        told(&[[&header[..], &extension.repeat(body / 8)].concat()]);
        told(&[[&header[..], &vec![0; body]].concat()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_message_is_read_or_refused(bytes in message()) {
        for profile in [Profile::Linux, Profile::Klips] {
            let Ok(message) = Message::parse(&bytes, profile) else { continue };
            prop_assert_eq!(message.extensions().map(|e| e.bytes.len()).sum::<usize>() + 16, bytes.len());
            for t in (0..40).map(ExtensionType) {
                let _ = (message.extension(t), message.lifetime(t), message.address(t), message.key(t));
                let _ = message.nat_t_port(t);
            }
            let _ = (message.sa(), message.sa2(), message.spirange(), message.nat_t_type(), message.sec_ctx());
            let _ = (message.filter(), message.kmaddress());
            if let Some((_, requests)) = message.policy() {
                prop_assert!(Requests::new(requests).count() <= requests.len() / 16);
            }
        }
        let mut slots = [None; align::SLOTS];
        let _ = align::align(&bytes, &mut slots);
        for at in slots.iter().flatten() {
            prop_assert!(*at <= bytes.len());
        }
    }

    #[test]
    fn any_sequence_of_messages_is_answered(messages in prop::collection::vec(message(), 1..8)) {
        told(&messages);
    }

    #[test]
    fn any_message_is_printed(bytes in message()) {
        let mut filter = SocketPolicyFilter::default();
        for with_ports in [false, true] {
            let _ = print::sadump(&bytes, with_ports, &UTC);
            let _ = print::spdump(&bytes, with_ports, &mut filter, &UTC);
        }
        let _ = print::kdebug_sadb(&bytes);
        for style in [Style::Corrected, Style::Book] {
            let _ = print::listing(&bytes, style, &UTC);
        }
        // Every part of a message may be asked for as a policy or as hexadecimal.
        for start in (0..bytes.len()).step_by(8) {
            let _ = policy::dump(&bytes[start..], b" ", true);
        }
        prop_assert_eq!(print::hexdump(&bytes).iter().filter(|b| b.is_ascii_hexdigit()).count(), 2 * bytes.len());
    }

    #[test]
    fn any_policy_text_is_read_or_refused(text in policy_text()) {
        let outcome = policy::parse(&text);
        match outcome.result {
            Ok(spec) => {
                let bytes = spec.to_bytes().unwrap();
                let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])) * 8;
                prop_assert_eq!(len, bytes.len());
                prop_assert!(policy::dump(&bytes, b" ", true).is_ok());
            }
            // The position lies in the text, or at its end.
            Err(error) => prop_assert!(error.position + error.length <= text.len()),
        }
    }

    #[test]
    fn a_policy_comes_back_from_bytes_and_text(
        direction in 1u8..4,
        // 0 is not shown, and read as `def`.
        priority in 1u32..,
        requests in prop::collection::vec(request(), 0..5),
    ) {
        let same_family = |r: &RequestSpec| r.addresses.is_none_or(|(a, b)| a.is_ipv4() == b.is_ipv4());
        prop_assert!(requests.iter().all(same_family));
        let spec =
            PolicySpec { direction: PolicyDirection(direction), policy_type: PolicyType::IPSEC, priority, requests };
        let text = policy::dump(&spec.to_bytes().unwrap(), b"\n\t", true).unwrap();
        prop_assert_eq!(policy::parse(&text).result, Ok(spec));
    }

    #[test]
    fn a_numeric_address_comes_back_from_its_text(ip in any::<IpAddr>(), port in any::<u16>()) {
        let text = match ip {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => policy::address::ipv6_text(v6, 0).to_string(),
        };
        prop_assert_eq!(policy::address::resolve(&text, Some(&port.to_string())), Ok(SocketAddr::new(ip, port)));
    }
}
