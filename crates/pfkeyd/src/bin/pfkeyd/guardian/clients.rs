//! The guardian's clients: let in, held, and given up.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt};
use pfkeyd::limits;
use pfkeyd::log::log;

use super::super::link::Link;
use super::super::notes::REFUSED;
use super::Guardian;
use super::doors::door_of;

/// When something is tried again that the kernel refused for want of descriptors, memory or processes.
const RETRY: Duration = Duration::from_millis(100);
/// How long it is not said again that clients are refused.
const SAID_FOR: Duration = Duration::from_secs(60);

/// A client that was let in.
pub struct Client {
    pub fd: OwnedFd,
    /// What it brought.
    pub sockets: Vec<OwnedFd>,
    pub uid: u32,
    /// It has not said hello, and has to.
    pub(super) is_stranger: bool,
}

impl<W: FnMut(Link) -> u8> Guardian<W> {
    /// Lets a client in.
    pub(super) fn open_gate(&mut self) {
        let Some(gate) = self.gate.as_ref() else { return };
        match accept4(gate.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => {
                let owner = gate.owner;
                // SAFETY: accept4 has just made it for this process.
                #[allow(unsafe_code)]
                let client = unsafe { OwnedFd::from_raw_fd(raw) };
                let uid = uid_of(&client);
                if owner.is_none_or(|owner| uid == 0 || uid == owner) {
                    self.admit(client, uid);
                } else {
                    self.closing.close(client);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => {
                // The listener would stay readable: look away for a while.
                self.log_shortage(&errno);
            }
        }
    }

    /// Out of descriptors or memory: nobody is let in for a while.
    pub(super) fn log_shortage(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.short, true) {
            log(&format!("pfkeyd: no client can be let in: {error}"));
        }
        self.closed_until = Some(Instant::now() + RETRY);
    }

    /// Whether a client of this user may come. Where all users may connect, an eighth of the places is for each, and half for all
    /// but root.
    fn has_place(&self, uid: u32) -> bool {
        if uid == 0 || self.gate.as_ref().is_none_or(|gate| gate.shared.is_none()) {
            return true;
        }
        let others = || self.clients.iter().flatten().filter(|client| client.uid != 0);
        others().count() < self.room / 2 && others().filter(|client| client.uid == uid).count() < self.room / 8
    }

    pub(super) fn admit(&mut self, fd: OwnedFd, uid: u32) {
        let says_hello = self.gate.as_ref().is_some_and(|gate| gate.shared.is_some());
        let free = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        let is_full = free >= self.room;
        if is_full || !self.has_place(uid) {
            // Clients who come and go, of one user who has no more places, must not fill the log.
            if self.said_full.is_none_or(|at| at.elapsed() > SAID_FOR) {
                let whose = if is_full { String::new() } else { format!(" of user {uid}") };
                log(&format!("pfkeyd: there are {} clients; others{whose} are refused", self.order.len()));
                self.said_full = Some(Instant::now());
            }
            self.memory.set_word(REFUSED, self.memory.word(REFUSED).saturating_add(1));
            limits::refuse(fd.as_fd());
            return self.closing.close(fd);
        }
        self.short = false;
        if free == self.clients.len() {
            self.clients.push(None);
        }
        if let Some(place) = self.clients.get_mut(free) {
            *place = Some(Client { fd, sockets: Vec::new(), uid, is_stranger: says_hello });
        }
        self.order.push(free as u32);
        let untold = if says_hello { &mut self.doors[door_of(uid)].untold } else { &mut self.untold };
        untold.push_back(free as u32);
    }

    pub(super) fn release(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) {
            self.closing.close(client.fd);
        }
        self.order.retain(|other| *other != slot);
        let untold = self.doors.iter_mut().map(|door| &mut door.untold);
        untold.chain([&mut self.untold]).for_each(|untold| untold.retain(|other| *other != slot));
    }

    /// Tells a client that there is no room for it.
    pub(super) fn refuse(&mut self, slot: u32) {
        if let Some(client) = self.clients.get(slot as usize).and_then(Option::as_ref) {
            limits::refuse(client.fd.as_fd());
        }
        self.release(slot);
    }

    pub(super) fn close_connections(&mut self) {
        self.reap();
        if !self.closing.go_on() {
            self.closed_until = Some(Instant::now() + RETRY);
        }
    }
}

/// The user that a client is; nobody's number, if that cannot be had.
pub(super) fn uid_of(client: &OwnedFd) -> u32 {
    let peer = || getsockopt(client, sockopt::PeerCredentials).map(|peer| peer.uid());
    peer().or_else(|_| peer()).unwrap_or(u32::MAX)
}
