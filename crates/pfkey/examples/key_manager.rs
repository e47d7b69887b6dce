//! A key manager without a peer: it answers each ACQUIRE with a pair of SAs whose keys come from the kernel's generator,
//! renews an SA when its soft limit has passed, and ends after so many seconds: `key_manager [SECONDS]`.
//!
//! Of two hosts each needs the other's SPIs and keys; that is what IKE is for.

use std::io::Read as _;
use std::time::{Duration, Instant};

use pfkey::{Acquire, Cipher, Ends, Errno, Event, Hmac, KeyManager, Limits, Mode, Sa, SaType, SpiRange};

const HARD: Limits = Limits { add_seconds: 3600, ..Limits::NONE };
const SOFT: Limits = Limits { add_seconds: 3000, ..Limits::NONE };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
    let deadline = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let mut manager = KeyManager::register(SaType::ESP)?;
    if !manager.algorithms().has_cipher(Cipher::AesCbc) || !manager.algorithms().has_hmac(Hmac::Sha256) {
        return Err("the key engine lacks AES-CBC or HMAC-SHA256".into());
    }
    println!("registered");
    while let Some(event) = manager.next(deadline)? {
        match event {
            Event::Acquire(acquire) => match answer(&mut manager, &acquire) {
                Ok(()) => println!("answered {}: {} -> {}", acquire.seq, acquire.ends.src(), acquire.ends.dst()),
                Err(error) => {
                    eprintln!("{error}");
                    manager.give_up(&acquire, Errno::EHOSTUNREACH)?;
                }
            },
            Event::Expired { sa, hard: false } => {
                // The old one carries packets until its hard limit.
                let spi = manager.client().allocate_spi(&SpiRange { reqid: sa.reqid, ..wanted(sa.ends, sa.mode) })?;
                manager.client().update(&esp(sa.ends, spi, sa.mode)?.reqid(sa.reqid))?;
                println!("renewed {:#x}: {spi:#x}", sa.spi);
            }
            Event::Expired { sa, hard: true } => println!("expired {:#x}", sa.spi),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the pair of SAs that the kernel wants.
fn answer(manager: &mut KeyManager, acquire: &Acquire) -> Result<(), Box<dyn std::error::Error>> {
    let mode = Mode::TRANSPORT;
    let inbound = manager.allocate_spi(acquire, mode)?;
    // A peer would have told its own.
    let outbound = inbound ^ 0x8000_0000;
    let (to_us, to_peer) = (acquire.ends.reversed(), acquire.ends);
    manager.install(acquire, &esp(to_us, inbound, mode)?, &esp(to_peer, outbound, mode)?)?;
    Ok(())
}

fn wanted(ends: Ends, mode: Mode) -> SpiRange {
    SpiRange::any(SaType::ESP, ends, mode)
}

/// An SA with new keys.
fn esp(ends: Ends, spi: u32, mode: Mode) -> Result<Sa, std::io::Error> {
    let mut random = std::fs::File::open("/dev/urandom")?;
    let (mut cipher, mut hmac) = ([0; 32], [0; 32]);
    random.read_exact(&mut cipher)?;
    random.read_exact(&mut hmac)?;
    let sa = Sa::esp(ends.src(), ends.dst(), spi).mode(mode).replay_window(32).hard(HARD).soft(SOFT);
    Ok(sa.encrypt(Cipher::AesCbc, &cipher).authenticate(Hmac::Sha256, &hmac))
}
