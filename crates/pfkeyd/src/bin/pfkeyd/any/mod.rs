//! PF_KEY for any program, however it was built: `pfkeyd --any -- PROGRAM` installs a filter of system calls and becomes
//! the program, and a process that was started before answers the calls that the filter picks.

pub mod agent;
mod call;
mod filter;
mod open;
mod policy;
mod program;
mod rights;
mod supervisor;
mod sys;

use std::ffi::{CString, OsString};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, execvp};
use pfkey_socket::{Backend, goes_beyond_af_key, kernel_serves};
use pfkeyd::log::log;

use super::child::{close_all_but, fork_with, ignore_signals};
use super::link::{Heard, Kind, Link};
use supervisor::Supervisor;
use sys::Listener;

/// Becomes the program. Returns only if that fails.
pub fn run(command: &[OsString]) -> io::Result<ExitCode> {
    if !is_needed() {
        return Ok(execute(command));
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE)?.0;
    let numbers = filter::numbers(limit);
    let Some(filter) = filter::program(&numbers) else {
        return Err(unsupported("--any: the system calls of this architecture are not known here"));
    };
    let (ours, theirs) = Link::pair()?;
    let supervisor = start_supervisor(&ours, theirs, numbers)?;
    sys::allow_reader(supervisor);
    match install_for(&filter, &ours) {
        Ok(()) => {}
        // Under a supervisor already: there is one listener in a chain of filters. Another's would not answer so.
        Err(Errno::EBUSY) if is_served_already() => return Ok(execute(command)),
        Err(Errno::EBUSY) => return Err(unsupported("--any: another program is told of this one's system calls")),
        Err(Errno::ENOSYS | Errno::EINVAL) => {
            return Err(unsupported("--any: the kernel does not tell programs of system calls (Linux 5.14 does)"));
        }
        Err(errno) => return Err(errno.into()),
    }
    match ours.hear(true)? {
        Some(Heard { kind: Kind::Serving, .. }) => Ok(execute(command)),
        _ => Err(unsupported(
            "--any: the supervisor ended; can the kernel give descriptors to programs (Linux 5.14 can)?",
        )),
    }
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// Where the kernel has AF_KEY, and it is what is asked for, there is nothing to add.
fn is_needed() -> bool {
    let Ok(backend) = Backend::from_environment() else { return true };
    !(goes_beyond_af_key().is_ok_and(|beyond| !beyond) && kernel_serves(&backend))
}

/// A process that is nobody's child, in a session of its own.
fn start_supervisor(ours: &Link, theirs: Link, numbers: RangeInclusive<u32>) -> io::Result<Pid> {
    let mut theirs = Some(theirs);
    let middle = fork_with(|| {
        let forked = fork_with(|| match theirs.take() {
            Some(link) => supervise(link, numbers.clone()),
            None => 1,
        });
        u8::from(forked.is_err())
    })?;
    drop(theirs.take());
    waitpid(middle, None)?;
    match ours.hear(true)? {
        Some(Heard { kind: Kind::Serving, value, .. }) => Ok(Pid::from_raw(value as i32)),
        _ => Err(unsupported("--any: the supervisor cannot be started")),
    }
}

/// The supervisor's process, from its fork on.
fn supervise(link: Link, numbers: RangeInclusive<u32>) -> u8 {
    let Ok(link) = detach(link) else { return 1 };
    let prepared = link.say(Kind::Serving, std::process::id(), &[], true);
    let Ok(Some(Heard { kind: Kind::Listener, fds, .. })) = prepared.and_then(|()| link.hear(true)) else { return 1 };
    let Some(fd) = fds.into_iter().next() else { return 1 };
    let Ok(supervisor) = Listener::new(fd).map_err(io::Error::from).and_then(|l| Supervisor::new(l, numbers)) else {
        return 1;
    };
    // The program waits for this word.
    if link.say(Kind::Serving, 0, &[], true).is_err() {
        return 1;
    }
    drop(link);
    u8::from(supervisor.run().is_err())
}

/// Of the program's surroundings it keeps the environment, which says who serves, and standard error if `PFKEY_DEBUG` asks for
/// it: whoever waits for the end of the program's output must not wait for this process.
fn detach(link: Link) -> io::Result<Link> {
    nix::unistd::setsid()?;
    // What stops a daemon and everything of its unit at once must not take the daemon's PF_KEY before it has deleted its SAs.
    ignore_signals();
    // Messages with keys pass through its memory.
    nix::sys::prctl::set_dumpable(false)?;
    close_all_but(&[link.as_fd()]);
    // One for each call that waits. They may be as many as before.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    if std::env::var_os("PFKEY_DEBUG").is_none() {
        nix::unistd::dup2_stderr(&null)?;
    }
    // A directory of the program's must not stay busy, unless a path in the environment begins there.
    let is_relative = |name: &str, prefix: &str| {
        let value = std::env::var_os(name).unwrap_or_default();
        value.as_bytes().strip_prefix(prefix.as_bytes()).is_some_and(|path| path.first().is_some_and(|c| *c != b'/'))
    };
    if !is_relative("PFKEYD", "") && !is_relative("PFKEY_BACKEND", "unix:") {
        nix::unistd::chdir("/")?;
    }
    Ok(link)
}

/// Installs the filter and hands its listener to the supervisor: by a thread without the filter, or the kernel would ask the
/// supervisor, which has no listener yet, whether that may be sent.
fn install_for(filter: &[libc::sock_filter], supervisor: &Link) -> nix::Result<()> {
    std::thread::scope(|scope| {
        let (hand, handed) = std::sync::mpsc::channel::<Listener>();
        let sender = scope.spawn(move || match handed.recv() {
            Ok(listener) => supervisor.say(Kind::Listener, 0, &[listener.as_fd()], true),
            Err(_) => Ok(()),
        });
        let installed = install(filter).map(|listener| hand.send(listener).is_ok());
        drop(hand);
        let sent = sender.join().unwrap_or(Err(Errno::EPIPE));
        installed.and(sent)
    })
}

/// Without no_new_privs where that can be, so that set-user-ID programs have their rights.
fn install(filter: &[libc::sock_filter]) -> nix::Result<Listener> {
    match Listener::install(filter) {
        Err(Errno::EACCES) => {
            nix::sys::prctl::set_no_new_privs()?;
            Listener::install(filter)
        }
        other => other,
    }
}

/// Whether `socket(AF_KEY, …)` is answered by a supervisor of ours.
fn is_served_already() -> bool {
    sys::af_key_socket().is_ok_and(|fd| pfkey_socket::is_served(fd.as_raw_fd()))
}

/// Executes the program in this process; the exit status that says why not.
fn execute(command: &[OsString]) -> ExitCode {
    let arguments: Result<Vec<CString>, _> = command.iter().map(|argument| CString::new(argument.as_bytes())).collect();
    let errno = match arguments.as_deref() {
        Ok([program, ..]) => {
            sys::default_sigpipe();
            execvp(program, arguments.as_deref().unwrap_or_default()).map_or_else(|errno| errno, |never| match never {})
        }
        _ => Errno::EINVAL,
    };
    let name = command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    log(&format!("pfkeyd: {name}: {}", errno.desc()));
    ExitCode::from(if errno == Errno::ENOENT { 127 } else { 126 })
}
