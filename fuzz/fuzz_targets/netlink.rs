//! Any bytes as what the kernel says over NETLINK_XFRM.
#![no_main]
#![forbid(unsafe_code)]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pfkey_fuzz::splitmix::Random;
use pfkey_fuzz::told;
use pfkey_rs::hub::{Hub, Queues, Service as _};
use pfkey_rs::wire::{Extras, Header, MessageType, Profile, SaType, Writer};
use pfkey_rs::xfrm::fuzzing;

/// Netlink messages, each with a length that fits unless it is one in 16: type, body.
fn datagram(r: &mut Random<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !r.is_empty() {
        // XFRM_MSG_NEWSA and what follows it, NLMSG_ERROR and NLMSG_DONE.
        let msg_type = match r.below(32) {
            n @ 0..=27 => 0x10 + n as u16,
            28 => 2,
            29 => 3,
            _ => r.word() as u16,
        };
        let (broken, len) = (r.below(16) == 1, r.below(512));
        let body = r.take(len);
        let stated = if broken { r.word() } else { 16 + body.len() as u32 };
        bytes.extend(stated.to_ne_bytes());
        bytes.extend(msg_type.to_ne_bytes());
        bytes.extend([0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let made = datagram(&mut Random(bytes));
    // Decoding alone, which needs neither an engine nor a socket.
    let _ = fuzzing::decode(bytes);
    let _ = fuzzing::decode(&made);
    let mut engine = fuzzing::deaf_engine().expect("a /dev/null");
    engine.set_extras(Extras { aead: true, sha256_128: true });
    let mut hub = Hub::new(engine);
    let (id, mut queues, now) = (hub.open(), Queues::new(), Duration::from_secs(1_700_000_000));
    // A session that hears everything.
    let mut promisc = [0; 16];
    let header = Header::new(MessageType::X_PROMISC, SaType(1), 1, 1);
    let promisc = Writer::new(&mut promisc, header, Profile::Linux).finish().expect("a header fits");
    let _ = hub.receive(id, promisc, now, &mut queues);
    hub.with_engine(now, Some(id), &mut queues, |engine, cx| {
        fuzzing::hear(engine, bytes, cx);
        fuzzing::hear(engine, &made, cx);
    });
    while let Some(mut message) = queues.pop(id) {
        assert!(told(&mut message, Profile::Linux).is_ok(), "{message:02x?}");
    }
});
