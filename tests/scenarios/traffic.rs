//! What packets cause: ACQUIRE, counting, limits by volume and by use.
//!
//! Sequence numbers of requests are large: the kernel counts its ACQUIREs from 1 through all namespaces.

use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, request};
use crate::catalogue::{A, A6, B, B6, Build, Scenario};
use crate::network::Packet;

const SEQ: u32 = 5000;
const PORTS: (u16, u16) = (1111, 2222);

fn packet(len: usize) -> Packet {
    Packet { src: (A, PORTS.0), dst: (B, PORTS.1), len }
}

fn other_port() -> Packet {
    Packet { src: (A, 3333), ..packet(10) }
}

fn v6_packet() -> Packet {
    Packet { src: (A6, PORTS.0), dst: (B6, PORTS.1), len: 10 }
}

fn esp(msg_type: M, spi: u32) -> Msg {
    Msg::new(msg_type, S::ESP, SEQ).sa(spi, 3, 12).pair(A, B).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16)
}

fn get(spi: u32) -> Msg {
    Msg::new(M::GET, S::ESP, SEQ).sa(spi, 0, 0).pair(A, B)
}

fn policy(policy_type: u16, priority: u32, requests: &[u8]) -> Msg {
    Msg::new(M::X_SPDADD, S::UNSPEC, SEQ)
        .address(Ext::ADDRESS_SRC, "10.0.0.0", 0, 255, 24)
        .address(Ext::ADDRESS_DST, "10.0.0.0", 0, 255, 24)
        .policy(policy_type, 2, 0, priority, requests)
}

/// A scenario whose policy asks for ESP in transport mode; `b` is registered.
fn transport(name: &str) -> Build {
    registered(name).send(policy(2, 0, &request(50, 1, 2, 0, None)))
}

fn registered(name: &str) -> Build {
    Build::new(format!("traffic/{name}")).by("b", Msg::new(M::REGISTER, S::ESP, SEQ))
}

fn dump() -> Msg {
    Msg::new(M::DUMP, S::UNSPEC, SEQ)
}

fn policies(all: &mut Vec<Scenario>) {
    registered("no-policy").packet(packet(10)).done(all);
    registered("discard").send(policy(0, 0, &[])).packet(packet(10)).done(all);
    registered("none").send(policy(1, 0, &[])).packet(packet(10)).done(all);
    registered("the-smaller-priority-decides")
        .send(policy(0, 20, &[]))
        .send(
            Msg::new(M::X_SPDADD, S::UNSPEC, SEQ)
                .address(Ext::ADDRESS_SRC, A, 0, 255, 32)
                .address(Ext::ADDRESS_DST, B, PORTS.1, 17, 32)
                .policy(1, 2, 0, 10, &[]),
        )
        .packet(packet(10))
        .packet(Packet { dst: (B, 9), ..packet(10) })
        .done(all);
    registered("use-shows-in-the-policy")
        .send(policy(1, 0, &[]))
        .packet(packet(10))
        // The kernel counts the route of the packet as one more reference until it is gone.
        .wait(1)
        .send(Msg::new(M::X_SPDGET, S::UNSPEC, SEQ).policy(0, 0, 1, 0, &[]))
        .done(all);
    registered("other-family").send(policy(0, 0, &[])).packet(v6_packet()).done(all);
}

fn acquiring(all: &mut Vec<Scenario>) {
    transport("acquire").packet(packet(10)).packet(packet(10)).packet(other_port()).send(dump()).done(all);
    Build::new("traffic/nobody-registered")
        .send(policy(2, 0, &request(50, 1, 2, 0, None)))
        .packet(packet(10))
        .send(dump())
        .done(all);
    let ends = Some(("192.0.2.1", "198.51.100.2"));
    for (name, requests) in [
        ("tunnel", request(50, 2, 2, 0, ends)),
        ("tunnel-v6-outside", request(50, 2, 2, 0, Some((A6, B6)))),
        ("beet", request(50, 3, 2, 0, ends)),
        ("unique", request(50, 1, 3, 77, None)),
        ("ah", request(51, 1, 2, 0, None)),
        ("ipcomp", request(108, 1, 2, 0, None)),
        ("optional", request(50, 1, 1, 0, None)),
        ("two", [request(51, 1, 2, 0, None), request(50, 1, 2, 0, None)].concat()),
        ("two-the-first-optional", [request(108, 1, 1, 0, None), request(50, 1, 2, 0, None)].concat()),
        ("six", request(50, 1, 2, 0, None).repeat(6)),
        ("five", request(50, 1, 2, 0, None).repeat(5)),
    ] {
        registered(&format!("acquire-{name}"))
            .send(policy(2, 5, &requests))
            .packet(packet(10))
            .packet(other_port())
            .send(dump())
            .done(all);
    }
    registered("acquire-v6")
        .send(
            Msg::new(M::X_SPDADD, S::UNSPEC, SEQ)
                .address(Ext::ADDRESS_SRC, "2001:db8::", 0, 255, 64)
                .address(Ext::ADDRESS_DST, "2001:db8::", 0, 255, 64)
                .policy(2, 2, 0, 0, &request(50, 1, 2, 0, None)),
        )
        .packet(v6_packet())
        .send(dump())
        .done(all);
    transport("acquire-expires").packet(packet(10)).wait(3).packet(packet(10)).done(all);
    let spi = |m: M| Msg::new(m, S::ESP, SEQ).pair(A, B).range(0x700, 0x700);
    transport("acquire-answered")
        .packet(packet(10))
        .answer(spi(M::GETSPI))
        .packet(packet(10))
        .packet(other_port())
        .answer(esp(M::UPDATE, 0x700))
        .packet(packet(100))
        .send(get(0x700))
        .send(dump())
        .done(all);
    transport("acquire-answered-by-add").packet(packet(10)).answer(esp(M::ADD, 0x700)).send(dump()).done(all);
    transport("acquire-answered-without-seq").packet(packet(10)).send(esp(M::ADD, 0x700)).send(dump()).done(all);
    let mut refusal = Msg::new(M::ACQUIRE, S::ESP, SEQ);
    refusal.header.errno = 110;
    transport("acquire-refused")
        .packet(packet(10))
        .answer(refusal.clone())
        .send(dump())
        .packet(packet(10))
        .packet(other_port())
        .wait(3)
        .packet(packet(10))
        .done(all);
    // A larval that was given up in one mode does not stop the other.
    registered("acquire-refused-in-another-mode")
        .send(policy(2, 0, &request(50, 1, 2, 0, None)))
        .packet(packet(10))
        .answer(refusal)
        .send(policy(2, 0, &request(50, 2, 2, 0, Some((A, B)))).update())
        .packet(packet(10))
        .done(all);
    registered("acquire-label")
        .send(policy(2, 0, &request(50, 1, 2, 0, None)).context(1, 1, b"system_u:object_r:ipsec_spd_t:s0"))
        .packet(packet(10))
        .done(all);
}

fn choosing(all: &mut Vec<Scenario>) {
    transport("one").send(esp(M::ADD, 0x300)).packet(packet(100)).send(get(0x300)).done(all);
    registered("tunnel")
        .send(policy(2, 0, &request(50, 2, 2, 0, Some((A, B)))))
        .send(esp(M::ADD, 0x300).sa2(2, 0))
        .packet(packet(100))
        .send(get(0x300))
        .done(all);
    transport("another-reqid").send(esp(M::ADD, 0x300).sa2(1, 9)).packet(packet(10)).done(all);
    transport("another-mode").send(esp(M::ADD, 0x300).sa2(2, 0)).packet(packet(10)).done(all);
    transport("the-newest")
        .send(esp(M::ADD, 0x300))
        .send(esp(M::ADD, 0x301))
        .packet(packet(10))
        .send(get(0x300))
        .send(get(0x301))
        .done(all);
    transport("not-the-dying")
        .send(esp(M::ADD, 0x300))
        .wait(1)
        .send(esp(M::ADD, 0x301).lifetimes(100, 1))
        .packet(packet(10))
        .wait(1)
        .packet(packet(10))
        .send(get(0x300))
        .send(get(0x301))
        .done(all);
    transport("proxy-of-others")
        .send(esp(M::ADD, 0x300).address(Ext::ADDRESS_PROXY, "10.9.0.0", 0, 0, 24))
        .packet(packet(10))
        .send(dump())
        .done(all);
    transport("proxy-of-the-flow")
        .send(esp(M::ADD, 0x300).address(Ext::ADDRESS_PROXY, "10.0.0.0", 0, 0, 24))
        .packet(packet(10))
        .send(get(0x300))
        .done(all);
    transport("source-zero")
        .send(
            Msg::new(M::ADD, S::ESP, SEQ)
                .sa(0x300, 3, 12)
                .pair("0.0.0.0", B)
                .key(Ext::KEY_AUTH, 20)
                .key(Ext::KEY_ENCRYPT, 16),
        )
        .packet(packet(10))
        .send(get(0x300))
        .done(all);
    transport("deleted")
        .send(esp(M::ADD, 0x300))
        .packet(packet(10))
        .send(Msg { header: Msg::new(M::DELETE, S::ESP, SEQ).header, ..get(0x300) })
        .packet(packet(10))
        .done(all);
}

fn volume(all: &mut Vec<Scenario>) {
    let limited = |hard: (u32, u64, u64), soft: (u32, u64, u64)| {
        esp(M::ADD, 0x300).lifetime(Ext::LIFETIME_HARD, hard.0, hard.1, 0, hard.2).lifetime(
            Ext::LIFETIME_SOFT,
            soft.0,
            soft.1,
            0,
            soft.2,
        )
    };
    transport("bytes")
        .send(limited((0, 250, 0), (0, 100, 0)))
        .packet(packet(92))
        .packet(packet(42))
        .packet(packet(92))
        .packet_that_ends(packet(10))
        .send(dump())
        .done(all);
    transport("packets")
        .send(limited((3, 0, 0), (1, 0, 0)))
        .packet(packet(10))
        .packet(packet(10))
        .packet(packet(10))
        .packet_that_ends(packet(10))
        .packet(packet(10))
        .done(all);
    transport("use-time")
        .send(limited((0, 0, 8), (0, 0, 2)))
        .wait(3)
        .send(get(0x300))
        .packet(packet(10))
        .wait(3)
        .send(get(0x300))
        .wait(6)
        .send(dump())
        .done(all);
    let update = |hard, soft| {
        let mut m = limited(hard, soft);
        m.header.msg_type = M::UPDATE;
        m
    };
    transport("update-below-use-soft")
        .send(esp(M::ADD, 0x300))
        .packet(packet(192))
        .send(update((0, 1000, 0), (0, 100, 0)))
        .send(get(0x300))
        .done(all);
    transport("update-keeps-counters")
        .send(limited((0, 1000, 0), (0, 100, 0)))
        .packet(packet(192))
        .packet(packet(2))
        .send(update((0, 3000, 0), (0, 2000, 0)))
        .send(get(0x300))
        .packet(packet(2))
        .send(get(0x300))
        .done(all);
    transport("nat-t").send(esp(M::ADD, 0x300).nat_t(2, 4500, 4500)).packet(packet(100)).send(get(0x300)).done(all);
}

/// NAT traversal: the peer sends from another port or address than the SA says.
fn mapping(all: &mut Vec<Scenario>) {
    let sa = |src| {
        Msg::new(M::ADD, S::ESP, SEQ)
            .sa(crate::network::NAT_T.2, 0, 11)
            .pair(src, crate::network::NAT_T.0)
            .key(Ext::KEY_ENCRYPT, 0)
            .nat_t(2, 4500, 4500)
    };
    registered("new-port").send(sa("127.0.0.1")).arrives(5555).done(all);
    registered("new-address").send(sa("192.0.2.9")).arrives(5555).done(all);
}

/// Scenarios with packets.
pub fn all(all: &mut Vec<Scenario>) {
    policies(all);
    acquiring(all);
    choosing(all);
    volume(all);
    mapping(all);
}
