//! The guardian: holds the clients' descriptors and the listener, and starts the worker anew when it dies.
//!
//! A client of a pfkeyd that dies has no way to get its descriptor back, and a key manager has only the one; AF_KEY cannot
//! die. So whoever reads what clients send is another process than whoever holds their sockets. This one reads nothing
//! of theirs.

mod leaving;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pfkey_wire::hello::{ALL_SOCKETS, SOCKETS};
use pfkeyd::limits;
use pfkeyd::log::log;

use super::about::About;
use super::child::fork_with;
use super::closing::Closing;
use super::counters::Counters;
use super::door::Door;
use super::link::{Heard, Kind, Link, SHORTAGE};
use super::memory::Memory;
use super::notes::REFUSED;
use super::record;
use super::store::{Left, Store};
use super::watchdog::Watchdog;

/// Deaths in a row, without a word that it serves, after which the next start waits.
const HASTY: u32 = 3;
/// How long it waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// When something is tried again that the kernel refused for want of descriptors, memory or processes.
const RETRY: Duration = Duration::from_millis(100);

/// How long it is not said again that clients are refused.
const SAID_FOR: Duration = Duration::from_secs(60);

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

/// A client that was let in.
pub struct Client {
    pub fd: OwnedFd,
    /// What it brought.
    pub sockets: Vec<OwnedFd>,
    pub uid: u32,
    /// It has not said hello, and has to.
    is_stranger: bool,
}

/// The door that clients of a user come through.
fn door_of(uid: u32) -> usize {
    usize::from(uid != 0)
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
        let standby = self.standby.as_ref().map(|(_, pid)| *pid);
        for pid in standby.into_iter().chain(self.pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // Not `reap`, which says that a worker died: these were meant to.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
        // Requests with keys are recorded there.
        record::wipe(&self.memory);
        Ok(true)
    }

    fn watchdog(&mut self) -> Option<&mut Watchdog> {
        self.gate.as_mut()?.watchdog.as_mut()
    }

    /// False if the worker does not answer.
    fn watch(&mut self) -> bool {
        let watchdog = self.gate.as_mut().and_then(|gate| gate.watchdog.as_mut());
        let answers = watchdog.is_none_or(|watchdog| watchdog.watch(&self.worker));
        if !answers {
            log("pfkeyd: the worker does not answer");
        }
        answers
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

    /// Takes the worker's words; false if it is dead.
    fn hear_worker(&mut self) -> bool {
        loop {
            match self.worker.hear(false) {
                Ok(Some(Heard { kind: Kind::Serving, value, .. })) => {
                    self.pid = Some(Pid::from_raw(value as i32));
                    (self.served, self.deaths) = (true, 0);
                }
                Ok(Some(Heard { kind: Kind::Released, value, .. })) => self.release(value),
                Ok(Some(Heard { kind: Kind::Alive, .. })) => {
                    if let Some(watchdog) = self.watchdog() {
                        watchdog.answered();
                    }
                }
                // It had no descriptor to take it with.
                Ok(Some(Heard { kind: Kind::Client, value, .. })) => self.untold.push_back(value),
                Ok(Some(Heard { kind: Kind::Standby, value, fds })) => {
                    if let Some(fd) = fds.into_iter().next() {
                        // The one before ends with its link.
                        self.standby = Some((fd.into(), Pid::from_raw(value as i32)));
                    }
                }
                Ok(Some(Heard { kind: Kind::Sockets, value, .. })) => {
                    if let Some(client) = self.clients.get_mut(value as usize).and_then(Option::as_mut) {
                        client.sockets.truncate(SOCKETS);
                    }
                }
                Ok(Some(Heard { kind: Kind::Engine, value, fds })) => {
                    if fds.is_empty() {
                        self.engines.remove(&value);
                    } else {
                        self.engines.insert(value, fds);
                    }
                }
                Ok(Some(_)) => {}
                Err(Errno::EAGAIN) => return true,
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Takes a door's word: a client that said hello, or one that is to go.
    fn hear_door(&mut self, door: usize) {
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
    fn tell_doors(&mut self) {
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

    /// Tells a client that there is no room for it.
    fn refuse(&mut self, slot: u32) {
        if let Some(client) = self.clients.get(slot as usize).and_then(Option::as_ref) {
            limits::refuse(client.fd.as_fd());
        }
        self.release(slot);
    }

    /// A standby says nothing; when it has died the worker makes another.
    fn hear_standby(&mut self) {
        self.standby = None;
        self.reap();
        let _ = self.worker.say(Kind::Standby, 0, &[], false);
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

    /// Lets a client in.
    fn open_gate(&mut self) {
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
    fn log_shortage(&mut self, error: &dyn std::fmt::Display) {
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

    fn admit(&mut self, fd: OwnedFd, uid: u32) {
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
            self.memory.set_word(REFUSED, self.memory.word(REFUSED) + 1);
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

    fn release(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) {
            self.closing.close(client.fd);
        }
        self.order.retain(|other| *other != slot);
        let untold = self.doors.iter_mut().map(|door| &mut door.untold);
        untold.chain([&mut self.untold]).for_each(|untold| untold.retain(|other| *other != slot));
    }

    fn close_connections(&mut self) {
        self.reap();
        if !self.closing.go_on() {
            self.closed_until = Some(Instant::now() + RETRY);
        }
    }

    /// Tells the worker of clients, as far as there is room.
    fn tell_untold(&mut self) {
        while let Some(number) = self.untold_engines.front().copied() {
            let fds: Vec<_> = self.engines.get(&number).into_iter().flatten().map(AsFd::as_fd).collect();
            if !fds.is_empty() && self.worker.say(Kind::Engine, number, &fds, false).is_err() {
                return;
            }
            self.untold_engines.pop_front();
        }
        while let Some(slot) = self.untold.front().copied() {
            let client = self.clients.get(slot as usize).and_then(Option::as_ref);
            if let Some(client) = client {
                // A dead worker is replaced in the next round, and told then.
                let fds: Vec<_> = std::iter::once(&client.fd).chain(&client.sockets).map(AsFd::as_fd).collect();
                if self.worker.say(Kind::Client, slot, &fds, false).is_err() {
                    return;
                }
            }
            self.untold.pop_front();
        }
        self.complete = self.complete || self.worker.say(Kind::All, 0, &[], false).is_ok();
    }

    /// The worker is dead: the standby, or a new process, goes on with its clients.
    fn replace_worker(&mut self) {
        self.deaths += 1;
        if self.deaths > HASTY {
            let wait = Duration::from_millis(10 << (self.deaths - HASTY).min(7)).min(LONGEST_WAIT);
            log(&format!("pfkeyd: {} workers died one after another; the next in {wait:?}", self.deaths));
            std::thread::sleep(wait);
        }
        (self.worker, self.pid) = match self.worker_of_standby() {
            Some(worker) => (worker, None),
            None => match spawn(&mut self.work) {
                Ok((worker, pid)) => (worker, Some(pid)),
                Err(error) => {
                    // The dead one's link goes on saying that it is dead, and the next round tries again.
                    log(&format!("pfkeyd: no new worker: {error}"));
                    return;
                }
            },
        };
        self.counters.iter().for_each(Counters::worker);
        let is_stranger = |slot: u32| {
            self.clients.get(slot as usize).and_then(Option::as_ref).is_some_and(|client| client.is_stranger)
        };
        self.untold = self.order.iter().copied().filter(|slot| !is_stranger(*slot)).collect();
        self.untold_engines = self.engines.keys().copied().collect();
        self.complete = false;
        if let Some(watchdog) = self.watchdog() {
            watchdog.start_over();
        }
    }

    /// A worker that goes on from where the standby is. It says itself which process it is.
    fn worker_of_standby(&mut self) -> Option<Link> {
        let (standby, _) = self.standby.as_ref()?;
        let (ours, theirs) = Link::pair().ok()?;
        if standby.say(Kind::Activate, 0, &[theirs.as_fd()], false).is_err() {
            self.standby = None;
            return None;
        }
        Some(ours)
    }

    /// Takes the ends of dead processes.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            self.note_end(status);
        }
    }

    /// Sees to it that the worker is dead, of which nothing can be heard any more: two would serve the same clients.
    fn end_worker(&mut self) {
        self.reap();
        // Its number is nobody else's before its end was taken.
        if let Some(pid) = self.pid {
            let _ = kill(pid, Signal::SIGKILL);
            if let Ok(status) = waitpid(pid, None) {
                self.note_end(status);
            }
        }
    }

    fn note_end(&mut self, status: WaitStatus) {
        if let Some(pid) = status.pid() {
            self.closing.has_ended(pid);
            self.doors.iter_mut().for_each(|door| door.has_ended(pid));
        }
        if status.pid().is_none_or(|pid| self.pid != Some(pid)) {
            return;
        }
        self.pid = None;
        if let WaitStatus::Signaled(_, signal, _) = status {
            log(&format!("pfkeyd: the worker was killed by {signal}; another goes on with its clients"));
        }
    }
}

/// The user that a client is; nobody's number, if that cannot be had.
fn uid_of(client: &OwnedFd) -> u32 {
    let peer = || getsockopt(client, sockopt::PeerCredentials).map(|peer| peer.uid());
    peer().or_else(|_| peer()).unwrap_or(u32::MAX)
}

fn hears(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| events.intersects(!PollFlags::POLLOUT))
}

fn says(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(false)
}

/// A new worker and its link.
fn spawn(work: &mut impl FnMut(Link) -> u8) -> io::Result<(Link, Pid)> {
    let (ours, theirs) = Link::pair()?;
    let mut theirs = Some(theirs);
    let pid = fork_with(|| theirs.take().map_or(1, &mut *work))?;
    Ok((ours, pid))
}
