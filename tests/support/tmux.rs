//! A terminal of tmux's.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::c;

/// A terminal with a command in it; ended when dropped.
pub struct Terminal {
    directory: PathBuf,
}

impl Terminal {
    /// Starts a shell's command in one; `None`, which it says, without a tmux.
    pub fn start(name: &str, command: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: needs tmux");
            return None;
        }
        let terminal = Self { directory: c::scratch(name) };
        let started = terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        assert!(started.status.success(), "{started:?}");
        Some(terminal)
    }

    /// A command of tmux's.
    pub fn tmux(&self, arguments: &[&str]) -> Output {
        // A server of its own, of which nobody's settings are.
        let socket = self.directory.join("tmux");
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-S", socket.to_str().unwrap()]).args(arguments).env("LC_ALL", "C.UTF-8");
        tmux.env_remove("TMUX").output().unwrap()
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// The numbers of the colours on the screen (ECMA-48, SGR).
    pub fn colours(&self) -> BTreeSet<u8> {
        let screen = self.tmux(&["capture-pane", "-e", "-p"]).stdout;
        let screen = String::from_utf8_lossy(&screen).into_owned();
        let selected = screen.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
        // 38;5;N is the N-th colour, in another way.
        let selected = selected.map(|(numbers, _)| numbers.replace("38;5;", "3").replace("48;5;", "4"));
        let numbers: Vec<u8> =
            selected.flat_map(|n| n.split(';').map(|n| n.parse().unwrap_or(0)).collect::<Vec<_>>()).collect();
        numbers.into_iter().filter(|n| matches!(n, 30..=37 | 40..=47 | 90..=107)).collect()
    }

    /// What tmux says of its pane.
    pub fn about(&self, format: &str) -> String {
        String::from_utf8_lossy(&self.tmux(&["display-message", "-p", format]).stdout).trim().to_owned()
    }

    /// Waits until this is on the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait(|| Some(self.screen()).filter(|screen| screen.contains(text)), text)
    }

    /// Waits until something is found.
    #[track_caller]
    pub fn wait<T>(&self, look: impl Fn() -> Option<T>, what: &str) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no {what}: {}", self.screen());
        }
    }

    /// Types keys, by tmux's names of them.
    pub fn keys(&self, keys: &[&str]) {
        assert!(self.tmux(&[&["send-keys"], keys].concat()).status.success());
    }

    /// The first process that the shell in it started.
    pub fn pid(&self) -> Pid {
        let shell = self.about("#{pane_pid}");
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Whether it is on the screen of its own.
    #[track_caller]
    pub fn wait_alternate(&self, on: &str) {
        self.wait(|| (self.about("#{alternate_on}") == on).then_some(()), "other screen");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
