//! Random sequences of messages, made from a seed.

use pfkey_rs::wire::MessageType as M;

use crate::catalogue::{Scenario, Step};
pub use crate::message::{Kernel, SPIS};
use crate::message::{chance, message};
use crate::splitmix::Random;

/// Makes of a message one that XFRM does not know better than AF_KEY.
fn as_xfrm_knows(bytes: &mut [u8]) {
    // A larval of no protocol.
    if let [_, 1, _, satype @ 0, ..] = bytes {
        *satype = 3;
    }
    let ipcomp = matches!(bytes, [_, 2 | 3, _, 9, ..]);
    let mut at = 16;
    while let Some([len @ 1..=255, _, exttype, 0, rest @ ..]) = bytes.get_mut(at..) {
        match (*exttype, rest) {
            // IPComp SPIs have 16 bits.
            (1, [high, next, ..]) if ipcomp => (*high, *next) = (0, 0),
            // A wrong label is one error among several, which XFRM looks for in another order.
            (24, [alg, doi, ..]) => (*alg, *doi) = (1, 1),
            _ => {}
        }
        at += usize::from(*len) * 8;
    }
}

/// The sequence of a seed: three sockets, up to sixteen messages.
pub fn scenario(seed: u64, kernel: Kernel) -> Scenario {
    let mut r = Random(seed);
    let mut steps = vec![Step::Open("a"), Step::Open("b"), Step::Open("c")];
    for _ in 0..1 + r.below(16) {
        let name = r.of(&["a", "a", "b", "c"]);
        let mut bytes = message(&mut r, kernel).recorded();
        // What a broken range makes the kernel choose is chance.
        if chance(&mut r, 10) && bytes[1] != M::GETSPI.0 {
            let at = r.below(bytes.len());
            bytes[at] ^= 1 << r.below(8);
            let left_out = match M(bytes[1]) {
                M::REGISTER => kernel.old || kernel.slow_register,
                M::X_MIGRATE => kernel.old,
                _ => false,
            };
            if left_out {
                bytes[1] = M::DUMP.0;
            }
        } else if chance(&mut r, 3) {
            let len = r.below(bytes.len());
            bytes.truncate(len);
        }
        if kernel.xfrm {
            as_xfrm_knows(&mut bytes);
        }
        steps.push(Step::Send(name, bytes));
    }
    Scenario { name: format!("seed {seed}"), steps, any_spi: true }
}
