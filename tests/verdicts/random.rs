//! That the flow cache cannot be noticed: random changes and packets, once with it and once without.

use std::time::Duration;

use pfkey_rs::engine::resolve::lookup::Resolver;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, request};
use crate::embedded::Embedded;
use crate::world::{Datagram, Setting, World};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const A: &str = "10.0.0.1";
const PEERS: [&str; 3] = ["10.0.0.2", "10.0.0.3", "10.0.1.2"];
const SEQ: u32 = 5000;

enum Step {
    Send(Msg),
    Udp(Datagram),
    Set(Setting),
    Wait(u64),
}

fn step(random: &mut Random) -> Step {
    let peer = random.of(&PEERS);
    let spi = 0x1000 + random.below(4) as u32;
    let sa = |m| Msg::new(m, S::ESP, SEQ).sa(spi, 3, 12).pair(A, peer);
    let policy = |m, plen: u8, policy_type, priority, requests: &[u8]| {
        Msg::new(m, S::UNSPEC, SEQ)
            .address(Ext::ADDRESS_SRC, A, 0, 255, 32)
            .address(Ext::ADDRESS_DST, peer, 0, 255, plen)
            .policy(policy_type, 2, 0, priority, requests)
    };
    match random.below(24) {
        0..=3 => {
            let mut add = sa(random.of(&[M::ADD, M::ADD, M::UPDATE])).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16);
            add = match random.below(4) {
                0 => add.lifetimes(3, 1),
                1 => add.lifetime(Ext::LIFETIME_HARD, 0, 900, 0, 0).lifetime(Ext::LIFETIME_SOFT, 0, 300, 0, 0),
                _ => add,
            };
            Step::Send(if random.below(4) == 0 { add.sa2(1, 7) } else { add })
        }
        4 => Step::Send(sa(M::DELETE)),
        5..=7 => {
            let level = random.of(&[1, 2, 3]);
            let policy_type = random.of(&[0, 1, 2, 2, 2]);
            let requests = if policy_type == 2 { request(50, 1, level, 7, None) } else { Vec::new() };
            let message = random.of(&[M::X_SPDADD, M::X_SPDUPDATE]);
            Step::Send(policy(message, random.of(&[24, 32]), policy_type, random.of(&[1, 2]), &requests))
        }
        8 => Step::Send(policy(M::X_SPDDELETE, random.of(&[24, 32]), 0, 0, &[])),
        9 => Step::Wait(random.below(4) as u64),
        10 if random.below(8) == 0 => Step::Send(Msg::new(random.of(&[M::FLUSH, M::X_SPDFLUSH]), S::UNSPEC, SEQ)),
        11 if random.below(4) == 0 => Step::Set(Setting::Mtu(random.of(&[1400, 1500]))),
        _ => Step::Udp(Datagram { src: (A, 1000), dst: (peer, random.of(&[1, 2])), len: random.of(&[10, 100]) }),
    }
}

fn run(seed: u64, resolver: Resolver) -> (Vec<String>, u64) {
    let mut random = Random(seed);
    let mut world = Embedded::new(resolver);
    world.register();
    let mut lines = Vec::new();
    for _ in 0..300 {
        let outcome = match step(&mut random) {
            Step::Send(message) => i32::from(world.send(&message)),
            Step::Udp(datagram) => world.udp(&datagram, None),
            Step::Wait(seconds) => {
                world.wait(Duration::from_secs(seconds));
                0
            }
            Step::Set(setting) => {
                world.set(setting);
                0
            }
        };
        let bundles = world.bundle(&Datagram { src: (A, 1000), dst: (PEERS[0], 1), len: 10 });
        lines.push(format!("{outcome} {:?} {} {:?} {bundles}", world.left(), world.acquires(), world.counters()));
    }
    (lines, world.cache_hits())
}

#[test]
fn the_flow_cache_cannot_be_noticed() {
    let mut hits = 0;
    for seed in 0..200 {
        let (with, of_this) = run(seed, Resolver::default());
        let (without, _) = run(seed, Resolver::without_cache());
        for (at, (with, without)) in with.iter().zip(&without).enumerate() {
            assert_eq!(with, without, "seed {seed}, step {at}");
        }
        hits += of_this;
    }
    assert!(hits > 10_000, "the cache was used: {hits} hits");
}
