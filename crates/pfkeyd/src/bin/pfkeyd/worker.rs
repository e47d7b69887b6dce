//! The worker: serves the clients that the guardian holds.

use pfkey_hub::Service;
use pfkeyd::Sources;
use pfkeyd::log::log;
use pfkeyd::server::Server;

use super::link::Kind;
use super::notes::Notes;

/// Serves until the guardian has ended and nobody is left. `ready` hears 0 when it can, or the errno that keeps it from
/// serving. Gives the process's exit status.
pub fn serve<S: Service + Sources>(service: S, notes: Notes, ready: impl FnOnce(i32) -> bool) -> u8 {
    let link = std::rc::Rc::clone(&notes.link);
    let mut server = match Server::with_keeper(service, notes) {
        Ok(server) => server,
        Err(error) => {
            if !ready(error.raw_os_error().unwrap_or(libc::EIO)) {
                log(&format!("pfkeyd: {error}"));
            }
            return 1;
        }
    };
    // The guardian first: it must not take this process for one that never served when its clients believe that it does.
    // Without a guardian there is nobody to tell.
    let _ = link.say(Kind::Serving, std::process::id(), &[], true);
    ready(0);
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
