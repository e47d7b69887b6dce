//! The guardian's doors: strangers go to them, and come back as clients.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use pfkey_wire::hello::{ALL_SOCKETS, SOCKETS};

use super::super::link::{Heard, Kind, Link};
use super::super::notes::REFUSED;
use super::Guardian;

/// The door that clients of a user come through.
pub(super) fn door_of(uid: u32) -> usize {
    usize::from(uid != 0)
}

impl<W: FnMut(Link) -> u8> Guardian<W> {
    /// Takes a door's word: a client that said hello, or one that is to go.
    pub(super) fn hear_door(&mut self, door: usize) {
        match self.doors[door].link().map_or(Ok(None), |link| link.hear(false)) {
            Ok(Some(Heard { kind: Kind::Sockets, value, fds })) if matches!(fds.len(), SOCKETS | ALL_SOCKETS) => {
                let client = self.clients.get_mut(value as usize).and_then(Option::as_mut);
                if let Some(client) = client.filter(|client| client.is_stranger) {
                    (client.sockets, client.is_stranger) = (fds, false);
                    self.untold.push_back(value);
                }
            }
            Ok(Some(Heard { kind: Kind::Sockets | Kind::Released, value, .. })) => self.release(value),
            Ok(Some(Heard { kind: Kind::Question, value, .. })) => {
                let client = self.clients.get(value as usize).and_then(Option::as_ref);
                let about = self.gate.as_ref().and_then(|gate| gate.shared);
                if let Some((client, about)) = client.filter(|client| client.is_stranger).zip(about) {
                    let refused = self.memory.word(REFUSED);
                    let counted = self.counters.as_ref().map(|counters| counters.read(refused));
                    about.tell(client, counted.unwrap_or_default(), self.clients.iter().flatten());
                }
                self.release(value);
            }
            Ok(Some(_)) | Err(Errno::EAGAIN) => {}
            Ok(None) | Err(_) => self.lose_door(door),
        }
    }

    /// A door has ended: its strangers go to the next.
    fn lose_door(&mut self, door: usize) {
        self.doors[door].ends();
        let strangers = |slot: &u32| {
            let client = self.clients.get(*slot as usize).and_then(Option::as_ref);
            client.is_some_and(|client| client.is_stranger && door_of(client.uid) == door)
        };
        self.doors[door].untold = self.order.iter().copied().filter(strangers).collect();
    }

    /// Sends strangers to their doors, as far as there is room.
    pub(super) fn tell_doors(&mut self) {
        for door in 0..2 {
            while let Some(slot) = self.doors[door].untold.front().copied() {
                if self.doors[door].is_stuck() {
                    self.refuse(slot);
                    continue;
                }
                let client = self.clients.get(slot as usize).and_then(Option::as_ref);
                let told = client.map(|client| {
                    let link = self.doors[door].open()?;
                    link.say(Kind::Client, slot, &[client.fd.as_fd()], false).map_err(io::Error::from)
                });
                if let Some(Err(error)) = told {
                    if self.doors[door].link().is_none() {
                        self.log_shortage(&error);
                    }
                    break;
                }
                self.doors[door].untold.pop_front();
            }
        }
    }
}
