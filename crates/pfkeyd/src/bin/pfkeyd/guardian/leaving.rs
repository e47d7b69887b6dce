//! The end of a guardian whose clients wait for the next, and that one's beginning.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use pfkeyd::log::log;

use super::super::link::{Kind, Link, SHORTAGE, is_readable_before};
use super::super::notes::was_left;
use super::super::store::{Left, Returned};
use super::Guardian;
use super::clients::{Client, uid_of};
use super::doors::door_of;

/// How long doors and worker may take to end. A turn of a client takes milliseconds, but one that looks at every SA.
const PATIENCE: Duration = Duration::from_secs(5);

impl<W: FnMut(Link) -> u8> Guardian<W> {
    /// Takes over what another guardian had. The worker has heard of nobody.
    pub(super) fn go_on_with(&mut self, left: Left) {
        self.untold_engines = left.engines.keys().copied().collect();
        self.engines = left.engines;
        let slots = left.clients.iter().map(|client| client.slot as usize + 1).max().unwrap_or(0);
        self.clients.resize_with(slots, || None);
        for Returned { slot, fd, sockets } in left.clients {
            let Some(place) = self.clients.get_mut(slot as usize) else { continue };
            let (uid, is_stranger) = (uid_of(&fd), sockets.is_empty());
            *place = Some(Client { fd, sockets, uid, is_stranger });
            self.order.push(slot);
            let untold = if is_stranger { &mut self.doors[door_of(uid)].untold } else { &mut self.untold };
            untold.push_back(slot);
        }
    }

    /// Lets doors and worker end in good order, and leaves everybody for the next guardian, if there can be one.
    pub(super) fn leave(&mut self) {
        let Some(store) = self.gate.as_mut().and_then(|gate| gate.store.take()) else { return };
        let end = Instant::now() + PATIENCE;
        for door in 0..2 {
            self.end_door(door, end);
        }
        self.let_worker_end(end);
        let clients = self.order.iter().filter_map(|slot| {
            let client = self.clients.get(*slot as usize)?.as_ref()?;
            Some((*slot, &client.fd, &client.sockets[..]))
        });
        store.leave(&self.engines, &clients.collect::<Vec<_>>());
    }

    /// Hears what a door has to say of hellos: the answers to their primers are taken, so that nobody can hear them again.
    fn end_door(&mut self, door: usize, end: Instant) {
        if let Some(link) = self.doors[door].link() {
            link.stop_saying();
        }
        while self.doors[door].link().is_some_and(|link| is_readable_before(link.as_fd(), end)) {
            self.hear_door(door);
        }
    }

    fn let_worker_end(&mut self, end: Instant) {
        while self.worker.say(Kind::Leave, 0, &[], false) == Err(Errno::EAGAIN) && Instant::now() < end {
            // There is no room: it has other words to hear first.
            std::thread::sleep(SHORTAGE);
        }
        while is_readable_before(self.worker.as_fd(), end) {
            if self.hear_worker() {
                continue;
            }
            // It has nothing more to do but to end.
            if let Some(pid) = self.pid.filter(|_| was_left(&self.memory)) {
                let _ = waitpid(pid, None);
                self.pid = None;
            }
            return self.end_worker();
        }
        log("pfkeyd: the worker does not answer");
        self.end_worker();
    }
}
