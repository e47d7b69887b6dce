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
        let mut ready = manager.readable_mut().await?;
        // All that waits, and then the runtime is told that no more does.
        while let Some(event) = ready.get_inner_mut().try_next()? {
            println!("{event:?}");
            if matches!(event, Event::SasFlushed(_)) {
                return Ok(());
            }
        }
        ready.clear_ready();
    }
}
