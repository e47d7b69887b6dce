//! The agent of a container runtime (`listenerPath` in the OCI runtime specification): a runtime hands the listener of a
//! container's filter over a stream socket, beside the container's state as JSON; a supervisor for each answers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use pfkeyd::log::log;

use super::super::child::{close_all_but, fork_with, ignore_signals};
use super::super::listening::Listening;
use super::filter::NUMBERS;
use super::supervisor::Supervisor;
use super::sys::{Listener, receive};

/// A container's state is some kilobytes.
const LONGEST_STATE: usize = 1 << 20;
/// How long a runtime may take to say it.
const PATIENCE: i64 = 10;

/// Listens until a signal ends it. Supervisors go on until their containers end.
pub fn run(path: &Path) -> io::Result<ExitCode> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signalled = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (_listening, socket) = Listening::start(path, SockType::Stream, 0o600)?;
    loop {
        let mut ready =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(signalled.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while let Ok(Some(signal)) = signalled.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(ExitCode::SUCCESS);
            }
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        let runtime = match pfkey_socket::accept(socket.as_fd()) {
            Ok(runtime) => runtime,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                std::thread::sleep(super::super::link::SHORTAGE);
                continue;
            }
            Err(_) => continue,
        };
        // A runtime that says nothing keeps nobody else waiting.
        if let Err(error) = fork_with(|| serve(&runtime)) {
            log(&format!("pfkeyd: a container is not served: {error}"));
        }
    }
}

/// The process of one container.
fn serve(runtime: &OwnedFd) -> u8 {
    ignore_signals();
    let supervisor = SigSet::empty()
        .thread_set_mask()
        .and_then(|()| nix::sys::prctl::set_dumpable(false))
        .map_err(io::Error::from)
        .and_then(|()| handed_over(runtime))
        .and_then(|listener| {
            close_all_but(&[listener.as_fd()]);
            Supervisor::new(listener, NUMBERS)
        });
    match supervisor.and_then(Supervisor::run) {
        Ok(()) => 0,
        Err(error) => {
            log(&format!("pfkeyd: a container is not served: {error}"));
            1
        }
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Receives the container's state with its descriptors; gives the listener among them. Root and this process's own user may
/// hand one over.
fn handed_over(runtime: &OwnedFd) -> io::Result<Listener> {
    let peer = getsockopt(runtime, sockopt::PeerCredentials)?.uid();
    if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
        return Err(refused("it is another user's"));
    }
    setsockopt(runtime, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    let (mut state, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let received = receive(runtime.as_fd(), &mut state, &mut descriptors)?;
        match serde_json::from_slice::<serde_json::Value>(&state) {
            Ok(state) => return listener_of(&state, descriptors),
            Err(error) if received && error.is_eof() && state.len() < LONGEST_STATE => {}
            Err(_) => return Err(refused("its state is no JSON")),
        }
    }
}

/// The descriptor that the state names `seccompFd`: they come in the order of their names.
fn listener_of(state: &serde_json::Value, descriptors: Vec<OwnedFd>) -> io::Result<Listener> {
    let names = state.get("fds").and_then(serde_json::Value::as_array).map_or(&[][..], Vec::as_slice);
    let place = names.iter().position(|name| name == "seccompFd");
    let place = place.ok_or_else(|| refused("its state names no seccompFd"))?;
    let fd = descriptors.into_iter().nth(place).ok_or_else(|| refused("its seccompFd did not come"))?;
    Listener::new(fd).map_err(|errno| match errno {
        Errno::EOPNOTSUPP => refused("the kernel gives no descriptors to programs (Linux 5.14 does)"),
        _ => refused("its seccompFd is no listener"),
    })
}
