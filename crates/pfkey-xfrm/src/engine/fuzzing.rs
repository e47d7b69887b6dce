//! For the fuzzers (`fuzz/`): the kernel's messages are any bytes, and no system call reaches a kernel.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use super::XfrmEngine;
use super::event::{Event, Origin};
use crate::attribute::{Attributes, split};
use crate::layout::{UserpolicyId, UserpolicyInfo, UsersaInfo};
use crate::netlink::Netlink;
use crate::{policy, sa};
use pfkey_hub::Context;
use pfkey_wire::Extras;

/// An engine whose sockets are /dev/null, where `send` and `recv` fail.
///
/// # Errors
/// There is no /dev/null.
pub fn deaf_engine() -> std::io::Result<XfrmEngine> {
    let null = || std::fs::File::open("/dev/null").map(|file| Netlink::known(OwnedFd::from(file)));
    Ok(XfrmEngine::over(null()?, null()?))
}

/// Passes a datagram to the engine as if the kernel had sent it: as events, as parts of dumps, as answers.
pub fn hear(engine: &mut XfrmEngine, datagram: &[u8], cx: &mut Context<'_>) {
    let mut rest = datagram;
    while let Some((one, next)) = split(rest) {
        assert!(next.len() < rest.len(), "reading goes on");
        rest = next;
        let _ = one.error();
        let extras = Extras { aead: true, sha256_128: true };
        if let Some(event) = Event::decode(&one, extras) {
            let _ = engine.apply(Origin::of(&one), event, cx);
        }
        engine.read_dumped(&one, cx);
        if let Some((info, attributes)) = one.fixed::<UsersaInfo>() {
            let _ = sa::read(&info, attributes, extras);
            let _ = sa::view(&info, attributes, sa::Reading { extras, judged_at: Some(cx.now) });
        }
        if let Some((info, attributes)) = one.fixed::<UserpolicyInfo>() {
            let _ = policy::read(&info, attributes);
        }
        if let Some((id, attributes)) = one.fixed::<UserpolicyId>() {
            let _ = policy::read_migration(&id, attributes);
        }
    }
    assert!(Attributes(datagram).count() <= datagram.len() / 4, "every attribute has a header");
}

/// Decodes every message of a datagram as an event: no engine, no socket. Returns the number of events.
#[must_use]
pub fn decode(datagram: &[u8]) -> usize {
    let (mut rest, mut events) = (datagram, 0);
    while let Some((one, next)) = split(rest) {
        for extras in [Extras::default(), Extras { aead: true, sha256_128: true }] {
            events += usize::from(Event::decode(&one, extras).is_some());
        }
        rest = next;
    }
    events
}

/// Whether an answer waits on the socket of an engine's requests after a request: the next question would receive it.
#[must_use]
pub fn has_left_over_answer(engine: &mut XfrmEngine) -> bool {
    !matches!(engine.requests.netlink.receive(&mut [0; 4096]), Ok(None))
}
