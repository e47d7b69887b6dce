//! As `monitor`, under tokio: the descriptor is one of the runtime's, and nothing of this library waits.

use pfkey::{Event, KeyManager, SaType};
use tokio::io::unix::AsyncFd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(monitor())
}

async fn monitor() -> Result<(), Box<dyn std::error::Error>> {
    let mut manager = AsyncFd::new(KeyManager::register(SaType::ESP)?)?;
    println!("registered");
    loop {
        // All that waits, at first what came while it registered, for which it is not readable.
        while let Some(event) = manager.get_mut().try_next()? {
            println!("{event:?}");
            if matches!(event, Event::SasFlushed(_)) {
                return Ok(());
            }
        }
        // Readable once more: what arrives from here on is told by the runtime again.
        manager.readable_mut().await?.clear_ready();
    }
}
