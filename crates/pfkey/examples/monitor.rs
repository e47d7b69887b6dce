//! Shows what a key engine tells registered programs, until a time has passed: `monitor [SECONDS]`.

use std::time::{Duration, Instant};

use pfkey::{Client, SaType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
    let deadline = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let mut keys = Client::open()?;
    for satype in [SaType::AH, SaType::ESP, SaType::X_IPCOMP] {
        keys.register(satype)?;
    }
    println!("registered");
    while let Some(event) = keys.next_event(deadline)? {
        println!("{event:?}");
    }
    Ok(())
}
