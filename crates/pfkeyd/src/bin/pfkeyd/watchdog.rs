//! Telling systemd that pfkeyd lives (`sd_watchdog_enabled(3)`).
//!
//! The guardian asks the worker, and tells systemd when its loop has answered: then both go round. A worker that does not answer is
//! replaced, as one that died, and its sessions go on; only if that does not help the word stays out and systemd starts the
//! service anew.

use std::time::{Duration, Instant};

use super::link::{Kind, Link};
use super::systemd::Notify;

/// What the guardian knows of the worker's loop.
pub struct Watchdog {
    notify: Notify,
    /// A quarter of what systemd waits: between an answer and the next question, and how long an answer may take.
    period: Duration,
    /// When the next question is due, or since when its answer is missing.
    since: Instant,
    asked: bool,
}

impl Watchdog {
    /// `interval`: how often systemd wants to hear.
    pub fn new(notify: Notify, interval: Duration) -> Self {
        Self { notify, period: interval / 4, since: Instant::now(), asked: false }
    }

    /// When [`Watchdog::watch`] has something to do.
    pub fn due(&self) -> Instant {
        if self.asked { self.since + self.period } else { self.since }
    }

    /// Asks when it is time to. False: the worker has not answered.
    pub fn watch(&mut self, worker: &Link) -> bool {
        let now = Instant::now();
        if now < self.due() {
            return true;
        }
        if !self.asked {
            self.since = now;
            self.asked = worker.say(Kind::Alive, 0, &[], false).is_ok();
            if !self.asked {
                // There is no room: it has other words to hear first.
                self.since += self.period / 4;
            }
            return true;
        }
        // Who came much too late was stopped, perhaps with the worker.
        let stopped = now > self.due() + self.period;
        self.since = now;
        stopped
    }

    /// The worker has answered.
    pub fn answered(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.since = Instant::now() + self.period;
            self.notify.say("WATCHDOG=1");
        }
    }

    /// There is another worker.
    pub fn start_over(&mut self) {
        (self.asked, self.since) = (false, Instant::now());
    }
}
