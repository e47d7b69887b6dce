//! Messages to two XFRM engines on the kernel, in a network namespace of their own. Needs root.
#![no_main]
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use nix::sched::{CloneFlags, unshare};
use pfkey_fuzz::splitmix::Random;
use pfkey_fuzz::{drawn_message, told};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::wire::{Header, Message, MessageType, Profile, SaType, Writer};
use pfkey_rs::xfrm::{XfrmEngine, fuzzing};

/// A pfkeyd with two sessions.
struct Side {
    hub: Hub<XfrmEngine>,
    queues: Queues,
    ids: [SessionId; 2],
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn header_only(msg_type: MessageType) -> [u8; 16] {
    let mut bytes = [0; 16];
    let header = Header::new(msg_type, SaType::UNSPEC, 1, 1);
    Writer::new(&mut bytes, header, Profile::Linux).finish().expect("a header fits");
    bytes
}

impl Side {
    fn new() -> Self {
        let mut hub = Hub::new(XfrmEngine::new().expect("NETLINK_XFRM"));
        let ids = [hub.open(), hub.open()];
        Self { hub, queues: Queues::with_limit(1 << 20), ids }
    }

    /// Takes what a session hears. An answer to what it asked is about what it asked.
    fn hear(&mut self, id: SessionId, asked: Option<&Message<'_>>) {
        loop {
            while let Some(mut bytes) = self.queues.pop(id) {
                let (Some(asked), Ok(answer)) = (asked, told(&mut bytes, Profile::Linux)) else { continue };
                let question = asked.header();
                let answered = answer.header();
                if answered.errno != 0
                    || (answered.msg_type, answered.seq, answered.pid)
                        != (question.msg_type, question.seq, question.pid)
                {
                    continue;
                }
                match question.msg_type {
                    MessageType::GET => {
                        let spi = |message: &Message<'_>| message.sa().map(|sa| sa.spi.get());
                        assert_eq!(spi(asked), spi(&answer), "another SA's answer");
                    }
                    MessageType::X_SPDGET => {
                        let number = |message: &Message<'_>| message.policy().map(|(policy, _)| policy.id.get());
                        assert_eq!(number(asked), number(&answer), "another policy's answer");
                    }
                    _ => {}
                }
            }
            if !self.hub.is_dumping(id) {
                return;
            }
            self.hub.writable(id, now(), &mut self.queues);
        }
    }

    fn settled(&mut self) {
        assert!(!fuzzing::has_left_over_answer(self.hub.engine_mut()), "an answer is left over");
    }

    fn send(&mut self, which: usize, bytes: &[u8]) {
        let id = self.ids[which];
        self.hear(id, None);
        let _ = self.hub.receive(id, bytes, now(), &mut self.queues);
        self.settled();
        self.hear(id, Message::parse(bytes, Profile::Linux).ok().as_ref());
    }

    fn send_all(&mut self, which: usize, bytes: &[u8]) {
        self.hub.receive_all(self.ids[which], bytes, now(), &mut self.queues);
        self.settled();
        self.hear(self.ids[which], None);
    }

    /// Empties the kernel's tables and leaves.
    fn end(mut self) {
        self.send(0, &header_only(MessageType::FLUSH));
        self.send(0, &header_only(MessageType::X_SPDFLUSH));
        for id in self.ids {
            self.hear(id, None);
            self.hub.close(id, now());
        }
        self.settled();
    }
}

/// The lowest descriptor that is free.
fn lowest_free() -> i32 {
    std::fs::File::open("/dev/null").map_or(-1, |file| file.as_raw_fd())
}

/// A message, but REGISTER not often: the kernel looks for modules.
fn message(r: &mut Random<'_>) -> Vec<u8> {
    let mut bytes = drawn_message(r);
    match bytes.get_mut(1) {
        Some(msg_type) if *msg_type == MessageType::REGISTER.0 && r.below(64) != 1 => *msg_type = MessageType::DUMP.0,
        _ => {}
    }
    bytes
}

/// Enters a network namespace; with the argument `--why-not` says what is missing for that, and ends.
fn enter() {
    let missing = match unshare(CloneFlags::CLONE_NEWNET) {
        Err(errno) => Some(format!("no network namespace of its own without root ({errno})")),
        Ok(()) => XfrmEngine::new().err().map(|errno| format!("no NETLINK_XFRM ({errno})")),
    };
    if std::env::args().any(|argument| argument == "--why-not") {
        println!("{}", missing.as_deref().unwrap_or_default());
        std::process::exit(i32::from(missing.is_none()));
    }
    assert_eq!(missing, None);
}

fuzz_target!(init: enter(), |bytes: &[u8]| {
    let mut r = Random(bytes);
    let free = lowest_free();
    {
        let mut sides = [Side::new(), Side::new()];
        for _ in 0..32 {
            if r.is_empty() {
                break;
            }
            let (side, which) = (r.below(2), r.below(2));
            match r.below(12) {
                0..=7 => sides[side].send(which, &message(&mut r)),
                8 => {
                    let messages: Vec<Vec<u8>> = (0..1 + r.below(6)).map(|_| message(&mut r)).collect();
                    sides[side].send_all(which, &messages.concat());
                }
                // Both ask, and then both listen.
                9 | 10 => {
                    let messages = [message(&mut r), message(&mut r)];
                    for (side, bytes) in sides.iter_mut().zip(&messages) {
                        let _ = side.hub.receive(side.ids[which], bytes, now(), &mut side.queues);
                    }
                    for side in &mut sides {
                        side.hub.event(now(), &mut side.queues);
                        side.settled();
                    }
                }
                _ => {
                    let Side { hub, ids, .. } = &mut sides[side];
                    hub.close(ids[which], now());
                    ids[which] = hub.open();
                }
            }
        }
        for side in sides {
            side.end();
        }
    }
    assert_eq!(lowest_free(), free, "a descriptor stayed open");
});
