//! The guardian: holds the clients' descriptors and the listener, and starts the worker anew when it dies.
//!
//! A client of a pfkeyd that dies has no way to get its descriptor back, and a key manager has only the one; AF_KEY cannot
//! die. So whoever reads what clients send is another process than whoever holds their sockets. This one reads nothing
//! of theirs.

mod clients;
mod doors;
mod leaving;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use pfkeyd::log::log;

use super::about::About;
use super::closing::Closing;
use super::counters::Counters;
use super::door::Door;
use super::link::{Heard, Kind, Link, SHORTAGE};
use super::memory::Memory;
use super::record;
use super::store::{Left, Store};
use super::watchdog::Watchdog;

pub use clients::Client;
use workers::spawn;

/// Where clients come from.
pub struct Gate {
    pub listener: OwnedFd,
    /// Clients of this uid and of root are let in; of any, if the socket's mode was chosen so.
    pub owner: Option<u32>,
    /// It is the machine's: for all users, and none shall shut out the others: see [`Guardian::has_place`].
    pub shared: Option<About>,
    /// Who wants to hear that it lives.
    pub watchdog: Option<Watchdog>,
    /// Where its clients wait when it is stopped, and by name what one before left there.
    pub store: Option<Store>,
    pub kept: Vec<(String, OwnedFd)>,
}

/// Whom a guardian begins with.
pub enum First {
    Nobody,
    Client(OwnedFd),
    Left(Left),
}

/// Who has something to say.
#[derive(Default)]
struct Ready {
    worker: bool,
    standby: bool,
    lifeline: bool,
    gate: bool,
    doors: [bool; 2],
}

/// The guardian's state.
pub struct Guardian<W: FnMut(Link) -> u8> {
    /// What a worker does; runs in its process.
    work: W,
    gate: Option<Gate>,
    /// Its end is ours.
    lifeline: Option<Link>,
    clients: Vec<Option<Client>>,
    /// The sockets of a worker's engines, by their numbers.
    engines: BTreeMap<u32, Vec<OwnedFd>>,
    /// Where strangers are, if a client has to say hello: root's and others.
    doors: [Door; 2],
    /// Engines that the worker has not heard of.
    untold_engines: VecDeque<u32>,
    /// Slots in the order of their coming.
    order: Vec<u32>,
    /// Clients that the worker has not heard of.
    untold: VecDeque<u32>,
    /// The worker was told that it has heard of all clients of the one before.
    complete: bool,
    worker: Link,
    /// The worker's process, until its end was taken; of one that a standby started, from when it says that it serves.
    pid: Option<Pid>,
    standby: Option<(Link, Pid)>,
    /// A worker has served.
    served: bool,
    /// When this one began to.
    serving_since: Option<Instant>,
    /// Somebody killed it.
    killed: bool,
    /// Workers that died one after another, without reason.
    deaths: u32,
    memory: Rc<Memory>,
    /// Where somebody can ask for them.
    counters: Option<Counters>,
    /// Clients that fit.
    room: usize,
    /// When it was said that a client was refused.
    said_full: Option<Instant>,
    /// The last client could not be let in: descriptors or memory ran out.
    short: bool,
    /// Connections of clients that are gone.
    closing: Closing,
    /// Nobody is let in until then, because descriptors ran out.
    closed_until: Option<Instant>,
}

impl<W: FnMut(Link) -> u8> Guardian<W> {
    /// Starts the first worker.
    pub fn start(
        mut work: W,
        (memory, counters): (Rc<Memory>, Option<Counters>),
        gate: Option<Gate>,
        lifeline: Option<Link>,
        mut first: First,
        room: usize,
    ) -> io::Result<Self> {
        // A standby is a worker's child, a worker perhaps a standby's, and each may outlive the other.
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut closing = Closing::default();
        if let First::Left(left) = &mut first {
            // Before there is a worker, which has copies for a moment.
            left.rest.drain(..).for_each(|fd| closing.close(fd));
            closing.go_on();
        }
        let (worker, pid) = spawn(&mut work)?;
        let mut guardian = Self {
            work,
            gate,
            lifeline,
            clients: Vec::new(),
            engines: BTreeMap::new(),
            doors: <[Door; 2]>::default(),
            untold_engines: VecDeque::new(),
            order: Vec::new(),
            untold: VecDeque::new(),
            complete: false,
            worker,
            pid: Some(pid),
            standby: None,
            served: false,
            serving_since: None,
            killed: false,
            deaths: 0,
            memory,
            counters,
            room,
            said_full: None,
            short: false,
            closing,
            closed_until: None,
        };
        match first {
            First::Nobody => {}
            First::Client(client) => guardian.admit(client, 0),
            First::Left(left) => guardian.go_on_with(left),
        }
        // Before the worker says that it serves: whoever kills this process then leaves it with its client.
        guardian.tell_untold();
        Ok(guardian)
    }

    /// Guards until the last client has gone and nobody can come, or the lifeline ends. False: no worker ever served.
    pub fn run(&mut self) -> io::Result<bool> {
        while self.gate.is_some() || !self.order.is_empty() {
            let ready = self.wait()?;
            if ready.lifeline && !self.hear_lifeline() {
                self.leave();
                break;
            }
            if ready.standby {
                self.hear_standby();
            }
            if ready.worker && !self.hear_worker() || !self.watch() {
                self.end_worker();
                if !self.served {
                    return Ok(false);
                }
                self.replace_worker();
            }
            for door in (0..2).filter(|door| ready.doors[*door]) {
                self.hear_door(door);
            }
            if ready.gate {
                self.open_gate();
            }
            self.tell_doors();
            self.tell_untold();
            self.close_connections();
        }
        self.end_processes();
        // Requests with keys are recorded there.
        record::wipe(&self.memory);
        Ok(true)
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(
            self.worker.as_fd(),
            if self.complete && self.untold.is_empty() && self.untold_engines.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLIN | PollFlags::POLLOUT
            },
        )];
        let mut watch_for = |fd, flags| {
            fds.push(PollFd::new(fd, flags));
            fds.len() - 1
        };
        let doors = self.doors.each_ref().map(|door| {
            let room = if door.untold.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            door.link().map(|link| watch_for(link.as_fd(), PollFlags::POLLIN | room))
        });
        let mut watch = |fd| watch_for(fd, PollFlags::POLLIN);
        let standby = self.standby.as_ref().map(|(link, _)| watch(link.as_fd()));
        let lifeline = self.lifeline.as_ref().map(|link| watch(link.as_fd()));
        let left = self.closed_until.map(|until| until.saturating_duration_since(Instant::now()));
        let open = left.is_none_or(|left| left.is_zero()) && self.untold.is_empty();
        let gate = self.gate.as_ref().filter(|_| open).map(|gate| watch(gate.listener.as_fd()));
        let watch = self.gate.as_ref().and_then(|gate| gate.watchdog.as_ref());
        let watch = watch.map(|watchdog| watchdog.due().saturating_duration_since(Instant::now()));
        let timeout = left.filter(|left| !left.is_zero()).into_iter().chain(watch).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            let millis = left.as_millis().saturating_add(1);
            PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::ZERO)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                // Without memory nothing can be waited for now, and clients are still held.
                log(&format!("pfkeyd: poll: {errno}"));
                std::thread::sleep(SHORTAGE);
                return Ok(Ready::default());
            }
        }
        let at = |index: Option<usize>| index.and_then(|index| fds.get(index));
        let says = |index| at(index).is_some_and(says);
        Ok(Ready {
            worker: fds.first().is_some_and(hears),
            standby: says(standby),
            lifeline: says(lifeline),
            gate: says(gate),
            doors: doors.map(|door| at(door).is_some_and(hears)),
        })
    }

    /// False at its end.
    fn hear_lifeline(&mut self) -> bool {
        match self.lifeline.as_ref().map(|link| link.hear(false)) {
            Some(Ok(Some(Heard { kind: Kind::Statistics, .. }))) => {
                let _ = self.worker.say(Kind::Statistics, 0, &[], false);
                true
            }
            Some(Ok(Some(_)) | Err(Errno::EAGAIN)) => true,
            _ => false,
        }
    }
}

fn hears(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| events.intersects(!PollFlags::POLLOUT))
}

fn says(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(false)
}
