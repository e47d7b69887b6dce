//! The guardian's worker and its standby: told of clients, heard, and replaced when they die.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pfkey_wire::hello::SOCKETS;
use pfkeyd::log::log;

use super::super::child::fork_with;
use super::super::counters::Counters;
use super::super::link::{Heard, Kind, Link};
use super::super::watchdog::Watchdog;
use super::Guardian;

/// Deaths in a row after which the next start waits. Who dies of something that lasts, such as a system call that a filter does not
/// allow it, says that it serves, too, and dies at once.
const HASTY: u32 = 3;
/// Who has served so long did not die of that.
const STEADY: Duration = Duration::from_secs(1);
/// How long it waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl<W: FnMut(Link) -> u8> Guardian<W> {
    fn watchdog(&mut self) -> Option<&mut Watchdog> {
        self.gate.as_mut()?.watchdog.as_mut()
    }

    /// False if the worker does not answer.
    pub(super) fn watch(&mut self) -> bool {
        let watchdog = self.gate.as_mut().and_then(|gate| gate.watchdog.as_mut());
        let answers = watchdog.is_none_or(|watchdog| watchdog.watch(&self.worker));
        if !answers {
            log("pfkeyd: the worker does not answer");
        }
        answers
    }

    /// Takes the worker's words; false if it is dead.
    pub(super) fn hear_worker(&mut self) -> bool {
        loop {
            match self.worker.hear(false) {
                Ok(Some(Heard { kind: Kind::Serving, value, .. })) => {
                    self.pid = Some(Pid::from_raw(value as i32));
                    self.served = true;
                    self.serving_since = Some(Instant::now());
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

    /// Tells the worker of clients, as far as there is room.
    pub(super) fn tell_untold(&mut self) {
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

    /// A standby says nothing; when it has died the worker makes another.
    pub(super) fn hear_standby(&mut self) {
        self.standby = None;
        self.reap();
        let _ = self.worker.say(Kind::Standby, 0, &[], false);
    }

    /// The worker is dead: the standby, or a new process, goes on with its clients.
    pub(super) fn replace_worker(&mut self) {
        let served = self.serving_since.take();
        let killed = std::mem::take(&mut self.killed);
        let was_steady = served.is_some_and(|since| killed || since.elapsed() >= STEADY);
        self.deaths = if was_steady { 0 } else { self.deaths + 1 };
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

    /// Sees to it that the worker is dead, of which nothing can be heard any more: two would serve the same clients.
    pub(super) fn end_worker(&mut self) {
        self.reap();
        // Its number is nobody else's before its end was taken.
        if let Some(pid) = self.pid {
            let _ = kill(pid, Signal::SIGKILL);
            if let Ok(status) = waitpid(pid, None) {
                self.note_end(status);
            }
        }
    }

    /// Takes the ends of dead processes.
    pub(super) fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            self.note_end(status);
        }
    }

    /// Ends worker and standby with the guardian.
    pub(super) fn end_processes(&mut self) {
        let standby = self.standby.as_ref().map(|(_, pid)| *pid);
        for pid in standby.into_iter().chain(self.pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // Not `note_end`, which says that a worker died: these were meant to. The worker writes nothing any more afterwards.
        if let Some(pid) = self.pid.take() {
            let _ = waitpid(pid, None);
        }
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
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
            self.killed = signal == Signal::SIGKILL;
            log(&format!("pfkeyd: the worker was killed by {signal}; another goes on with its clients"));
        }
    }
}

/// A new worker and its link.
pub(super) fn spawn(work: &mut impl FnMut(Link) -> u8) -> io::Result<(Link, Pid)> {
    let (ours, theirs) = Link::pair()?;
    let mut theirs = Some(theirs);
    let pid = fork_with(|| theirs.take().map_or(1, &mut *work))?;
    Ok((ours, pid))
}
