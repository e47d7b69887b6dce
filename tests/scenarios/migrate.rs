//! X_MIGRATE: policies and SAs whose ends move.

use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, request, sockaddr};
use crate::catalogue::{A6, B6, Build, Scenario};

type Ends = (&'static str, &'static str);

const OLD: Ends = ("192.0.2.1", "198.51.100.2");
const NEW: Ends = ("192.0.2.7", "198.51.100.9");
const SIX: Ends = (A6, B6);

fn pair(mode: u8, reqid: u32, old: Ends, new: Ends) -> Vec<u8> {
    [request(50, mode, 2, reqid, Some(old)), request(50, mode, 2, reqid, Some(new))].concat()
}

fn selector(msg_type: M) -> Msg {
    Msg::new(msg_type, S::UNSPEC, 21).address(Ext::ADDRESS_SRC, "10.0.0.0", 0, 255, 24).address(
        Ext::ADDRESS_DST,
        "10.1.0.0",
        0,
        255,
        24,
    )
}

fn migrate(requests: &[u8]) -> Msg {
    selector(M::X_MIGRATE).policy(2, 2, 0, 0, requests)
}

fn esp(spi: u32, mode: u8, reqid: u32, ends: Ends) -> Msg {
    Msg::new(M::ADD, S::ESP, 22)
        .sa(spi, 3, 12)
        .pair(ends.0, ends.1)
        .key(Ext::KEY_AUTH, 20)
        .key(Ext::KEY_ENCRYPT, 16)
        .sa2(mode, reqid)
}

/// A tunnel policy with an SA for it.
fn tunnel(name: &str) -> Build {
    Build::new(format!("migrate/{name}"))
        .send(selector(M::X_SPDADD).policy(2, 2, 0, 0, &request(50, 2, 3, 5, Some(OLD))))
        .send(esp(0x300, 2, 5, OLD).lifetimes(100, 80))
}

fn after(build: Build, all: &mut Vec<Scenario>) {
    build.send(Msg::new(M::DUMP, S::UNSPEC, 23)).send(Msg::new(M::X_SPDDUMP, S::UNSPEC, 24)).done(all);
}

fn kmaddress(mut addresses: Vec<u8>, words: u16) -> Vec<u8> {
    let mut bytes = words.to_ne_bytes().to_vec();
    bytes.extend(25_u16.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.append(&mut addresses);
    bytes
}

/// Scenarios of X_MIGRATE.
pub fn all(all: &mut Vec<Scenario>) {
    after(tunnel("tunnel").send(migrate(&pair(2, 5, OLD, NEW))), all);
    after(tunnel("any-reqid").send(migrate(&pair(2, 0, OLD, NEW))), all);
    after(tunnel("another-reqid").send(migrate(&pair(2, 6, OLD, NEW))), all);
    after(tunnel("another-mode").send(migrate(&pair(1, 5, OLD, NEW))), all);
    after(tunnel("mode-0").send(migrate(&pair(0, 5, OLD, NEW))), all);
    after(tunnel("mode-9").send(migrate(&pair(9, 5, OLD, NEW))), all);
    after(tunnel("other-addresses").send(migrate(&pair(2, 5, NEW, OLD))), all);
    after(tunnel("to-itself").send(migrate(&pair(2, 5, OLD, OLD))), all);
    after(tunnel("source-only").send(migrate(&pair(2, 5, OLD, (NEW.0, OLD.1)))), all);
    after(tunnel("to-v6").send(migrate(&pair(2, 5, OLD, SIX))), all);
    after(tunnel("to-nowhere").send(migrate(&pair(2, 5, OLD, ("0.0.0.0", NEW.1)))), all);
    // IPv6 only: with IPv4 the kernel compares what its stack held before, too.
    after(tunnel("twice-the-same").send(migrate(&pair(2, 5, SIX, (B6, A6)).repeat(2))), all);
    after(tunnel("two-pairs").send(migrate(&[pair(2, 5, OLD, NEW), pair(2, 6, NEW, OLD)].concat())), all);
    after(tunnel("no-pairs").send(migrate(&[])), all);
    after(tunnel("half-a-pair").send(migrate(&request(50, 2, 2, 5, Some(OLD)))), all);
    after(tunnel("without-addresses").send(migrate(&request(50, 2, 2, 5, None).repeat(2))), all);
    let seven: Vec<u8> = (1..=7).flat_map(|reqid| pair(2, reqid, OLD, NEW)).collect();
    after(tunnel("seven-pairs").send(migrate(&seven)), all);
    let six: Vec<u8> = (1..=6).flat_map(|reqid| pair(2, reqid, OLD, NEW)).collect();
    after(tunnel("six-pairs").send(migrate(&six)), all);
    let unlike = [request(50, 2, 2, 5, Some(OLD)), request(50, 2, 2, 6, Some(NEW))].concat();
    after(tunnel("unlike-pair").send(migrate(&unlike)), all);
    for dir in [0, 1, 3, 4] {
        let message = selector(M::X_MIGRATE).policy(2, dir, 0, 0, &pair(2, 5, OLD, NEW));
        after(tunnel(&format!("direction-{dir}")).send(message), all);
    }
    after(
        tunnel("addresses-inside-the-selector").send(
            Msg::new(M::X_MIGRATE, S::UNSPEC, 21)
                .address(Ext::ADDRESS_SRC, "10.0.0.9", 5, 17, 32)
                .address(Ext::ADDRESS_DST, "10.1.0.9", 7, 17, 32)
                .policy(2, 2, 0, 0, &pair(2, 5, OLD, NEW)),
        ),
        all,
    );
    after(
        tunnel("of-another-selector").send(
            Msg::new(M::X_MIGRATE, S::UNSPEC, 21)
                .address(Ext::ADDRESS_SRC, "10.7.0.0", 0, 255, 24)
                .address(Ext::ADDRESS_DST, "10.1.0.0", 0, 255, 24)
                .policy(2, 2, 0, 0, &pair(2, 5, OLD, NEW)),
        ),
        all,
    );
    // A policy of ports is found by a request that names them.
    let of_ports = |msg_type, sport, dport| {
        let source = Msg::new(msg_type, S::UNSPEC, 21).address(Ext::ADDRESS_SRC, "10.0.0.0", sport, 17, 24);
        source.address(Ext::ADDRESS_DST, "10.1.0.0", dport, 17, 24)
    };
    for (name, sport, dport) in [("ports", 500, 53), ("other-ports", 500, 54), ("no-ports", 0, 0)] {
        after(
            Build::new(format!("migrate/{name}"))
                .send(of_ports(M::X_SPDADD, 500, 53).policy(2, 2, 0, 0, &request(50, 2, 3, 5, Some(OLD))))
                .send(esp(0x300, 2, 5, OLD).lifetimes(100, 80))
                .send(of_ports(M::X_MIGRATE, sport, dport).policy(2, 2, 0, 0, &pair(2, 5, OLD, NEW))),
            all,
        );
    }
    let managers = [sockaddr("192.0.2.1", 500), sockaddr("198.51.100.2", 500)].concat();
    after(tunnel("kmaddress").send(migrate(&pair(2, 5, OLD, NEW)).native(kmaddress(managers.clone(), 5))), all);
    after(
        tunnel("kmaddress-mixed")
            .send(migrate(&pair(2, 5, OLD, NEW)).native(kmaddress([sockaddr(A6, 0), sockaddr(OLD.0, 0)].concat(), 7))),
        all,
    );
    after(tunnel("kmaddress-short").send(migrate(&pair(2, 5, OLD, NEW)).native(kmaddress(sockaddr(OLD.0, 0), 3))), all);
    let whole = migrate(&pair(2, 5, OLD, NEW));
    for n in 0..whole.extensions.len() {
        after(tunnel(&format!("without-{:?}", whole.ext_type(n))).send(whole.without(n)), all);
    }
    after(tunnel("two-sas").send(esp(0x301, 2, 5, OLD)).send(migrate(&pair(2, 5, OLD, NEW))), all);
    after(tunnel("taken").send(esp(0x300, 2, 9, NEW)).send(migrate(&pair(2, 5, OLD, NEW))), all);
    after(
        Build::new("migrate/larval")
            .send(selector(M::X_SPDADD).policy(2, 2, 0, 0, &request(50, 2, 3, 5, Some(OLD))))
            .send(Msg::new(M::GETSPI, S::ESP, 22).pair(OLD.0, OLD.1).range(0x300, 0x300).sa2(2, 5))
            .send(migrate(&pair(2, 5, OLD, NEW))),
        all,
    );
    after(
        Build::new("migrate/transport")
            .send(selector(M::X_SPDADD).policy(2, 2, 0, 0, &request(50, 1, 2, 0, None)))
            .send(esp(0x300, 1, 0, OLD))
            .send(migrate(&pair(1, 0, OLD, NEW))),
        all,
    );
    after(
        Build::new("migrate/policy-only")
            .send(selector(M::X_SPDADD).policy(2, 2, 0, 0, &request(50, 2, 2, 0, Some(OLD))))
            .send(migrate(&pair(2, 0, OLD, NEW))),
        all,
    );
    after(
        Build::new("migrate/nat-t")
            .send(selector(M::X_SPDADD).policy(2, 2, 0, 0, &request(50, 2, 2, 0, Some(OLD))))
            .send(esp(0x300, 2, 0, OLD).nat_t(2, 4500, 4500))
            .send(migrate(&pair(2, 0, OLD, NEW))),
        all,
    );
}
