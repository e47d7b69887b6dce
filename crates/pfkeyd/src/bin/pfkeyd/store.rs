//! What a guardian that is stopped leaves in systemd's file descriptor store (`FDSTORE=1`, `sd_pid_notify_with_fds(3)`), and the
//! next one, of the same pfkeyd or of a newer one, goes on with.
//!
//! Three descriptors: the memory in which workers note what their sessions are, and one end of a link, in which all that it has of clients
//! and engines waits to be heard; and counters, which are not needed. A descriptor for each would be looked at by systemd beside each of the others, which takes
//! seconds for a thousand sessions. Their names say the version: what a pfkeyd of another one left is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt,
};
use pfkey_wire::hello::{ALL_SOCKETS, SOCKETS};
use pfkey_xfrm::Netlink;
use pfkeyd::log::log;

use super::counters::{self, Counters};
use super::link::{Heard, Kind, Link};
use super::memory::Memory;
use super::notes::{self, SLOTS, WORDS};
use super::systemd::Notify;

/// The version of what is left: of what is said in the link, of what is noted in memory (`notes.rs`), and of what is spoken with
/// clients (`pfkey_wire::hello`). It goes up with a change of any of them.
const FORMAT: u32 = 1;
/// The memory's name before the version, and the link's.
const STATE: &str = "state-";
const CLIENTS: &str = "clients-";
/// Descriptors that have to be left.
const PARTS: usize = 2;
/// Sockets of a session, and of an engine.
const OWN: usize = 2;
/// Bytes that the kernel may charge for what waits in the link: less than 1024 a client.
const LINK_BUFFER: usize = 2 << 20;
/// How often the link is filled, if one client keeps it from being left.
const ATTEMPTS: usize = 3;

/// A client that another guardian had.
#[derive(Debug)]
pub struct Returned {
    pub slot: u32,
    pub fd: OwnedFd,
    /// None, if it has not said hello; all that it brought, if no worker has looked at them; or those of its session.
    pub sockets: Vec<OwnedFd>,
}

/// What another guardian had.
#[derive(Debug, Default)]
pub struct Left {
    /// In the order of their coming.
    pub clients: Vec<Returned>,
    pub engines: BTreeMap<u32, Vec<OwnedFd>>,
    /// What is of no use. To close it may take long.
    pub rest: Vec<OwnedFd>,
}

/// Where a guardian leaves what it has.
pub struct Store {
    notify: Notify,
    /// Descriptors that there is room for, if that is known.
    room: Option<usize>,
    /// The file of the memory.
    state: Option<OwnedFd>,
    /// The file of the counters.
    counters: Option<OwnedFd>,
}

impl Store {
    pub const fn new(notify: Notify, room: Option<usize>) -> Self {
        Self { notify, room, state: None, counters: None }
    }

    /// The memory and the counters of the guardian before and what else it left, or new ones. There is room for clients in so many slots.
    ///
    /// # Errors
    /// Those of `memfd_create` and `mmap`.
    pub fn take(&mut self, kept: Vec<(String, OwnedFd)>, room: usize) -> io::Result<(Rc<Memory>, Counters, Left)> {
        self.forget(&kept);
        let (mut counted, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(name, _)| name == counters::NAME);
        let (counters, file) = Counters::take(counted.pop().map(|(_, fd)| fd))?;
        self.counters = Some(file);
        let (state, mut left) = look(kept, room);
        left.rest.extend(counted.into_iter().map(|(_, fd)| fd));
        if state.is_some() {
            counters.restart();
        }
        let (memory, file) = state.map_or_else(|| Memory::with_file(WORDS), Ok)?;
        self.state = Some(file);
        Ok((Rc::new(memory), counters, left))
    }

    /// systemd gives what it keeps to every start, and keeps it all the same.
    fn forget(&self, kept: &[(String, OwnedFd)]) {
        let names: BTreeSet<&str> =
            kept.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty()).collect();
        let told =
            names.iter().try_for_each(|name| self.notify.say_with(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]));
        // A connection that it still has does not end when it is closed here.
        if !names.is_empty() && (told.is_err() || !self.notify.is_heard()) {
            log("pfkeyd: systemd does not take back what it kept");
        }
    }

    /// Leaves engines and clients, who are given in the order of their coming: slot, descriptor, sockets.
    pub fn leave(self, engines: &BTreeMap<u32, Vec<OwnedFd>>, clients: &[(u32, &OwnedFd, &[OwnedFd])]) {
        let sessions = clients.iter().filter(|(_, _, sockets)| !sockets.is_empty()).count();
        match self.try_to_leave(engines, clients) {
            Ok(0) => log(&format!("pfkeyd: {sessions} sessions wait for the next pfkeyd")),
            Ok(lost) => {
                log(&format!(
                    "pfkeyd: {} sessions wait for the next pfkeyd, {lost} end",
                    sessions.saturating_sub(lost)
                ));
            }
            Err(error) if sessions != 0 => {
                log(&format!("pfkeyd: {sessions} sessions end: they cannot be kept: {error}"))
            }
            Err(_) => {}
        }
    }

    /// Gives the number of sessions that end.
    fn try_to_leave(
        &self,
        engines: &BTreeMap<u32, Vec<OwnedFd>>,
        clients: &[(u32, &OwnedFd, &[OwnedFd])],
    ) -> io::Result<usize> {
        let state = self.state.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        if self.room.is_some_and(|room| room < PARTS) {
            return Err(io::Error::other("FileDescriptorStoreMax= is too small"));
        }
        let mut given = Err(Errno::ETOOMANYREFS);
        let mut lost = 0;
        for _ in 0..ATTEMPTS {
            let (ours, theirs) = Link::pair()?;
            lost = fill(&ours, engines, clients)?;
            given = self.give(CLIENTS, theirs.as_fd());
            if given != Err(Errno::ETOOMANYREFS) {
                break;
            }
        }
        given?;
        self.give(STATE, state.as_fd())?;
        // Where there is room for it, too.
        if let Some(counters) = self.counters.as_ref().filter(|_| self.room.is_none_or(|room| room > PARTS)) {
            let _ = self.give_as(counters::NAME, counters.as_fd());
        }
        // What a process that has ended said is thrown away.
        if self.notify.is_heard() { Ok(lost) } else { Err(io::Error::other("systemd does not answer")) }
    }

    fn give(&self, name: &str, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.give_as(&format!("{name}{FORMAT}"), fd)
    }

    fn give_as(&self, name: &str, fd: BorrowedFd<'_>) -> nix::Result<()> {
        // Without FDPOLL=0 it closes what has the end of its connection waiting, with all that was said before.
        self.notify.say_with(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[fd])
    }
}

/// Says all that there is into a link. Gives the number of sessions that found no room.
fn fill(
    link: &Link,
    engines: &BTreeMap<u32, Vec<OwnedFd>>,
    clients: &[(u32, &OwnedFd, &[OwnedFd])],
) -> nix::Result<usize> {
    if setsockopt(link, sockopt::SndBufForce, &LINK_BUFFER).is_err() {
        let _ = setsockopt(link, sockopt::SndBuf, &LINK_BUFFER);
    }
    for (number, sockets) in engines {
        link.say(Kind::Engine, *number, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>(), false)?;
    }
    let mut lost = 0;
    for (slot, fd, sockets) in clients {
        let all: Vec<_> = std::iter::once(*fd).chain(*sockets).map(AsFd::as_fd).collect();
        let is_kept = can_be_sent(fd) && link.say(Kind::Client, *slot, &all, false).is_ok();
        lost += usize::from(!is_kept && !sockets.is_empty());
    }
    Ok(lost)
}

/// Whether a link can be sent in which this waits. Linux before 6.10 refuses sockets in which sockets wait in which others wait, and
/// so on (ETOOMANYREFS): what one client has sent must not keep all of them from being left.
fn can_be_sent(fd: &OwnedFd) -> bool {
    let (Ok((to, link)), Ok((outer, _inner))) = (Link::pair(), Link::pair()) else { return false };
    let sends = |to: &Link, fd| to.say(Kind::Client, 0, &[fd], false).is_ok();
    sends(&to, fd.as_fd()) && sends(&outer, link.as_fd())
}

/// Finds out what was kept: the memory, and what belongs to it.
fn look(kept: Vec<(String, OwnedFd)>, room: usize) -> (Option<(Memory, OwnedFd)>, Left) {
    let (mut state, mut link, mut format) = (None, None, None);
    let mut left = Left::default();
    for (name, fd) in kept {
        let number = |kind| name.strip_prefix(kind).and_then(|number| number.parse::<u32>().ok());
        format = format.or_else(|| number(STATE));
        if number(STATE) == Some(FORMAT) && state.is_none() {
            match Memory::of_file(WORDS, &fd) {
                Ok(memory) => state = Some((memory, fd)),
                Err(_) => left.rest.push(fd),
            }
        } else if number(CLIENTS) == Some(FORMAT) && link.is_none() && is_connection(&fd) {
            link = Some(fd);
        } else {
            left.rest.push(fd);
        }
    }
    match (state, link) {
        (Some((memory, file)), Some(link)) => {
            hear(Link::from(link), &memory, room, &mut left);
            (Some((memory, file)), left)
        }
        (_, link) => {
            left.rest.extend(link);
            match format {
                Some(FORMAT) => log("pfkeyd: the sessions of the pfkeyd before end: not all of them was kept"),
                Some(format) => log(&format!(
                    "pfkeyd: the sessions of the pfkeyd before end: they are of format {format}, this is {FORMAT}"
                )),
                None => {}
            }
            (None, left)
        }
    }
}

/// Hears what the guardian before said of its clients and engines.
fn hear(link: Link, memory: &Memory, room: usize, left: &mut Left) {
    let (mut slots, mut ends) = (BTreeSet::new(), 0);
    // An engine has a session.
    for _ in 0..2 * SLOTS + 1 {
        match link.hear(false) {
            Ok(Some(Heard { kind: Kind::Engine, value, fds })) if fds.len() == OWN && fds.iter().all(is_xfrm) => {
                left.engines.insert(value, fds);
            }
            Ok(Some(Heard { kind: Kind::Client, value: slot, fds })) => {
                if (slot as usize) < room && is_whole(&fds, notes::is_noted(memory, slot)) && slots.insert(slot) {
                    let mut fds = fds.into_iter();
                    left.clients.extend(fds.next().map(|fd| Returned { slot, fd, sockets: fds.collect() }));
                } else {
                    ends += 1;
                    left.rest.extend(fds);
                }
            }
            Ok(Some(Heard { fds, .. })) => left.rest.extend(fds),
            Err(Errno::EPROTO) => {}
            Ok(None) | Err(_) => break,
        }
    }
    left.rest.push(link.into());
    for slot in (0..SLOTS as u32).filter(|slot| !slots.contains(slot)) {
        notes::forget(memory, slot);
    }
    if ends != 0 {
        log(&format!("pfkeyd: {ends} sessions of the pfkeyd before end: not all of them was kept"));
    }
    let sessions = left.clients.iter().filter(|client| !client.sockets.is_empty()).count();
    log(&format!("pfkeyd: {sessions} sessions of the pfkeyd before go on"));
}

/// Whether this is a client's connection with what belongs to it.
fn is_whole(fds: &[OwnedFd], is_noted: bool) -> bool {
    let Some((fd, sockets)) = fds.split_first() else { return false };
    let fits = match sockets.len() {
        0 => !is_noted,
        len => matches!(len, SOCKETS | ALL_SOCKETS),
    };
    fits && is_connection(fd) && sockets.iter().all(is_xfrm)
}

fn is_connection(fd: &OwnedFd) -> bool {
    let name = getsockname::<SockaddrStorage>(fd.as_raw_fd());
    name.is_ok_and(|name| name.family() == Some(AddressFamily::Unix))
        && getsockopt(fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket)
        && !getsockopt(fd, sockopt::AcceptConn).unwrap_or(true)
}

fn is_xfrm(fd: &OwnedFd) -> bool {
    Netlink::is_one(fd.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::SLOT;

    /// Whoever changes what is noted changes FORMAT, and these numbers.
    #[test]
    fn this_is_what_format_1_notes() {
        assert_eq!((FORMAT, WORDS, SLOT, SLOTS), (1, 71685, 7, 1024));
    }

    fn kept(memory: OwnedFd, link: Link) -> Vec<(String, OwnedFd)> {
        vec![(format!("{STATE}{FORMAT}"), memory), (format!("{CLIENTS}{FORMAT}"), link.into())]
    }

    #[test]
    fn what_is_of_no_client_is_forgotten() {
        let (memory, file) = Memory::with_file(WORDS).unwrap();
        for word in 0..100 {
            memory.set_word(word, 1);
        }
        let (state, left) = look(kept(file, Link::pair().unwrap().1), SLOTS);
        let (memory, _) = state.unwrap();
        assert!(left.clients.is_empty() && (0..SLOTS as u32).all(|slot| !notes::is_noted(&memory, slot)));
    }

    /// Of as many clients as there can be.
    #[test]
    fn what_is_left_is_found_in_its_order() {
        let (ours, theirs) = Link::pair().unwrap();
        let pairs: Vec<_> = (0..SLOTS).map(|_| Link::pair().unwrap()).collect();
        let fds: Vec<OwnedFd> = pairs.into_iter().map(|(one, _)| one.into()).collect();
        let clients: Vec<_> = fds.iter().enumerate().rev().map(|(slot, fd)| (slot as u32, fd, &[][..])).collect();
        assert_eq!(fill(&ours, &BTreeMap::new(), &clients), Ok(0));
        drop(ours);
        let (_memory, file) = Memory::with_file(WORDS).unwrap();
        let (state, left) = look(kept(file, theirs), SLOTS);
        assert!(state.is_some());
        assert!(left.clients.iter().map(|client| client.slot).eq((0..SLOTS as u32).rev()));
    }
}
