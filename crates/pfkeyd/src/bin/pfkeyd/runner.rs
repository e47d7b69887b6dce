//! A daemon that listens, or that is around a command: this process keeps its user, takes signals and removes the socket;
//! all that clients reach is the guardian's and the worker's.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::socket::SockType;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::about::About;
use super::child::fork_with;
use super::guardian::Gate;
use super::link::{Kind, Link};
use super::listening::{self, Listening};
use super::store::Store;
use super::systemd::{self, Notify, Passed};
use super::watchdog::Watchdog;

/// Signals that this process waits for.
const SIGNALS: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];

/// The process that guards the clients of a listening socket.
struct Served {
    guardian: Pid,
    lifeline: Link,
    _listening: Option<Listening>,
}

impl Served {
    /// Starts it; `guard` runs in it.
    fn start(path: &Path, mode: Option<u32>, guard: impl FnOnce(Gate, Link) -> u8) -> io::Result<Self> {
        let (listening, listener) = Listening::start(path, SockType::SeqPacket, mode.unwrap_or(0o600))?;
        let owner = mode.is_none().then(|| nix::unistd::geteuid().as_raw());
        let gate = Gate { listener, owner, shared: None, watchdog: None, store: None, kept: Vec::new() };
        Self::start_behind(gate, Some(listening), guard)
    }

    /// The same with a socket that listens.
    fn start_behind(
        gate: Gate,
        listening: Option<Listening>,
        guard: impl FnOnce(Gate, Link) -> u8,
    ) -> io::Result<Self> {
        let (ours, theirs) = Link::pair()?;
        let mut lifeline = Some(ours);
        let guardian = fork_with(|| {
            // Or it would keep itself alive.
            drop(lifeline.take());
            guard(gate, theirs)
        })?;
        let lifeline = lifeline.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        // What the guardian closes is closed: this process has no copy of it any more.
        let _ = lifeline.say(Kind::Alive, 0, &[], true);
        Ok(Self { guardian, lifeline, _listening: listening })
    }

    fn want_statistics(&self) {
        let _ = self.lifeline.say(Kind::Statistics, 0, &[], false);
    }

    /// Ends it and waits for its end.
    fn end(self) {
        let Self { guardian, lifeline, _listening } = self;
        drop(lifeline);
        let _ = nix::sys::wait::waitpid(guardian, None);
    }
}

fn watched() -> SigSet {
    SIGNALS.into_iter().collect()
}

/// Listens until a signal ends it.
pub fn listen(path: &Path, mode: Option<u32>, guard: impl FnOnce(Gate, Link) -> u8) -> io::Result<ExitCode> {
    let signals = watched();
    signals.thread_block()?;
    run(Served::start(path, mode, guard)?, signals)
}

/// Serves the machine until a signal ends it: on the socket that systemd passed, or on one of its own in a directory of root's.
pub fn service(path: &Path, guard: impl FnOnce(Gate, Link) -> u8) -> io::Result<ExitCode> {
    let signals = watched();
    signals.thread_block()?;
    let notify = Notify::from_environment();
    let watchdog = systemd::watchdog().zip(notify.clone()).map(|(interval, notify)| Watchdog::new(notify, interval));
    let store = notify.map(|notify| Store::new(notify, systemd::room()));
    let Passed { listener, kept } = systemd::passed();
    let (listening, listener) = match listener {
        Some(listener) => (None, listener),
        None => {
            listening::prepare_directory(path)?;
            let (listening, listener) = Listening::start(path, SockType::SeqPacket, 0o666)?;
            (Some(listening), listener)
        }
    };
    let shared = Some(About::this(listener.as_fd()));
    let gate = Gate { listener, owner: None, shared, watchdog, store, kept };
    run(Served::start_behind(gate, listening, guard)?, signals)
}

fn run(served: Served, signals: SigSet) -> io::Result<ExitCode> {
    // What is left to do needs no right but that of a file's owner.
    nix::sys::prctl::set_no_new_privs()?;
    pfkey_socket::drop_capabilities()?;
    loop {
        match signals.wait()? {
            Signal::SIGUSR1 => served.want_statistics(),
            // The guardian gave up, and said why.
            Signal::SIGCHLD if has_ended(served.guardian) => {
                served.end();
                return Ok(ExitCode::FAILURE);
            }
            Signal::SIGCHLD => {}
            _ => break,
        }
    }
    served.end();
    Ok(ExitCode::SUCCESS)
}

fn has_ended(process: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(process), flags), Ok(WaitStatus::StillAlive))
}

/// Runs a command with a daemon around it.
pub fn command(command: &[OsString], guard: impl FnOnce(Gate, Link) -> u8) -> io::Result<ExitCode> {
    let directory = PrivateDirectory::new()?;
    let path = directory.0.join("pfkeyd.sock");
    let signals = watched();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))?;
    let served = Served::start(&path, None, guard)?;
    let mut backend = OsString::from("unix:");
    backend.push(&path);
    let mut child = match spawn(command, &backend, before) {
        Ok(child) => child,
        Err(error) => {
            pfkeyd::log::log(&format!("pfkeyd: {}: {error}", command[0].to_string_lossy()));
            served.end();
            let missing = error.kind() == io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if missing { 127 } else { 126 }));
        }
    };
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(1);
        }
        match signals.wait()? {
            Signal::SIGUSR1 => served.want_statistics(),
            Signal::SIGCHLD => {}
            // The command decides what the signal means; its end is ours.
            signal => drop(kill(Pid::from_raw(child.id() as i32), signal)),
        }
    };
    served.end();
    Ok(ExitCode::from(code as u8))
}

/// The command has the signal mask that this process had.
#[allow(unsafe_code)]
fn spawn(command: &[OsString], backend: &OsString, mask: SigSet) -> io::Result<Child> {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).env("PFKEY_BACKEND", backend);
    // SAFETY: sigprocmask on a live set is safe after fork.
    unsafe { child.pre_exec(move || Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?)) };
    child.spawn()
}

/// A directory of our own for a socket, removed when dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> io::Result<Self> {
        // Its mode is 0700.
        Ok(Self(nix::unistd::mkdtemp(&std::env::temp_dir().join("pfkeyd-XXXXXX"))?))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
