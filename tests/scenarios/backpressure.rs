//! Dumps to a reader with a small queue: where they stop, where they go on, and what happens meanwhile.
//!
//! A marker (an ADD from `b`) stands in `a`'s queue where the dump stood when it was sent, so that the order of
//! what `a` receives shows both gates.

use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::Msg;
use crate::catalogue::{A, B, Build, Scenario};

fn esp(msg_type: M, spi: u32) -> Msg {
    Msg::new(msg_type, S::ESP, 40).sa(spi, 3, 12).pair(A, B).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16)
}

fn ah(spi: u32) -> Msg {
    Msg::new(M::ADD, S::AH, 43).sa(spi, 2, 0).pair(A, B).key(Ext::KEY_AUTH, 16)
}

fn delete(spi: u32) -> Msg {
    Msg::new(M::DELETE, S::ESP, 41).sa(spi, 0, 0).pair(A, B)
}

fn dump(satype: S) -> Msg {
    Msg::new(M::DUMP, satype, 42)
}

/// `a` has asked for the SAs 0x311 … 0x300 and read nothing yet; its queue has room for a few.
fn parked(name: &str) -> Build {
    let build =
        (0x300..0x312).fold(Build::new(format!("backpressure/{name}")), |b, spi| b.quietly("a", esp(M::ADD, spi)));
    build.receive("a", 1000).buffer("a", 4096).quietly("a", dump(S::ESP))
}

/// Everything that is left.
fn drained(build: Build, all: &mut Vec<Scenario>) {
    build.receive("a", 1000).done(all);
}

/// Scenarios with small queues.
pub fn all(all: &mut Vec<Scenario>) {
    drained(parked("complete"), all);
    drained(parked("added").quietly("b", esp(M::ADD, 0x400)), all);
    drained(parked("added-and-deleted").quietly("b", esp(M::ADD, 0x400)).quietly("b", delete(0x400)), all);
    drained(parked("deleted-after-it-was-dumped").quietly("b", delete(0x311)), all);
    drained(parked("deleted-before-it-was-dumped").quietly("b", delete(0x301)), all);
    for spi in 0x307..0x30d {
        drained(parked(&format!("deleted-{spi:x}")).quietly("b", delete(spi)), all);
    }
    let rest = (0x300..0x30a).fold(parked("the-rest-deleted"), |b, spi| b.quietly("b", delete(spi)));
    drained(rest, all);
    drained(parked("flushed").quietly("b", Msg::new(M::FLUSH, S::ESP, 44)), all);
    drained(parked("flushed-by-itself").quietly("a", Msg::new(M::FLUSH, S::ESP, 44)), all);
    drained(parked("a-second-dump").quietly("a", dump(S::UNSPEC)), all);
    drained(parked("updated").quietly("b", esp(M::UPDATE, 0x302).lifetimes(100, 80)), all);
    drained(parked("another-reader").open("c").buffer("c", 4096).quietly("c", dump(S::ESP)).receive("c", 1000), all);
    // One marker after each message read: the dump goes on when a third of the queue is used.
    let markers = (0..12).fold(parked("the-lower-gate"), |b, n| b.receive("a", 1).quietly("b", ah(0x500 + n)));
    drained(markers, all);
    // More than the queue takes: what is lost is lost for `a` only.
    drained((0..12).fold(parked("broadcasts-are-lost"), |b, n| b.quietly("b", ah(0x500 + n))), all);
    // Messages of other sizes are charged otherwise.
    for len in [16, 40, 64, 96, 200, 600] {
        let big = |spi| Msg::new(M::ADD, S::AH, 45).sa(spi, 3, 0).pair(A, B).key(Ext::KEY_AUTH, len);
        let build = Build::new(format!("backpressure/keys-of-{len}")).buffer("b", 4096);
        drained((0..20).fold(build, |b, n| b.quietly("a", big(0x600 + n))).receive("b", 1000), all);
    }
    let policies = (0..20).fold(Build::new("backpressure/policies"), |b, n| {
        b.quietly(
            "a",
            Msg::new(M::X_SPDADD, S::UNSPEC, 46)
                .address(Ext::ADDRESS_SRC, A, 0, 255, 32)
                .address(Ext::ADDRESS_DST, &format!("10.0.1.{n}"), 0, 255, 32)
                .policy(1, 2, 0, 0, &[]),
        )
    });
    let build = policies.receive("a", 1000).buffer("a", 4096).quietly("a", Msg::new(M::X_SPDDUMP, S::UNSPEC, 47));
    drained(build.quietly("b", ah(0x500)).quietly("b", Msg::new(M::X_SPDFLUSH, S::UNSPEC, 48)), all);
    drained(Build::new("backpressure/empty").buffer("a", 4096).quietly("a", dump(S::ESP)), all);
}
