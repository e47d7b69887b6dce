//! The worker: serves the clients that the guardian holds.

use pfkey_rs::keyd::Service;
use pfkey_rs::keyd::log::log;
use pfkey_rs::keyd::server::Server;

use super::link::Kind;
use super::notes::Notes;

/// Serves until the guardian has ended and nobody is left. Gives the process's exit status.
pub fn serve<S: Service>(service: S, notes: Notes) -> u8 {
    let link = std::rc::Rc::clone(&notes.link);
    let mut server = match Server::with_keeper(service, notes) {
        Ok(server) => server,
        Err(error) => {
            log(&format!("pfkeyd: {error}"));
            return 1;
        }
    };
    // Without a guardian there is nobody to tell.
    let _ = link.say(Kind::Serving, std::process::id(), None, true);
    match server.run() {
        Ok(()) => 0,
        Err(error) => {
            log(&format!("pfkeyd: {error}"));
            1
        }
    }
}

/// A panic is the end of the process, as any other fault: nothing is unwound, whose state nobody knows. The guardian
/// starts another.
pub fn end_at_panic() {
    std::panic::set_hook(Box::new(|info| {
        log(&format!("pfkeyd: {info}"));
        std::process::abort();
    }));
}
