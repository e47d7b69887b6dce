//! Starting the private pfkeyd behind a descriptor.
//!
//! The caller makes a pair of sockets, the hand-over, and a process that becomes pfkeyd ([`sys::spawn`]). That process makes
//! the pair of the served descriptor itself, so that no other process of the caller ever holds pfkeyd's end of it, and
//! sends the client's end over the hand-over. pfkeyd then says there whether it serves.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socketpair};

use super::error::{OpenError, Step};
use super::place::{self, PathBuffer};
use super::sys;
use super::sys::spawn::{Handed, receive_handed, spawn_detached};

/// pfkeyd serves within some milliseconds. Of thirty that start at once on a busy host some have taken more than ten
/// seconds.
pub(super) const START_LIMIT: Duration = Duration::from_secs(30);

/// Gives a socket a name with the prefix that [`super::is_served`] knows.
pub(super) fn name(fd: &OwnedFd, kind: &CStr, count: &AtomicU32) -> io::Result<()> {
    use std::io::Write as _;
    let kind = kind.to_str().unwrap_or_default();
    loop {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let mut buffer = [0_u8; 96];
        let mut rest = buffer.as_mut_slice();
        write!(rest, "pfkey/{kind}/{}/{n}", std::process::id())?;
        let len = 96 - rest.len();
        match bind(fd.as_raw_fd(), &UnixAddr::new_abstract(buffer.get(..len).unwrap_or_default())?) {
            Ok(()) => return Ok(()),
            // A process of another pid namespace may have taken it.
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Starts a pfkeyd that serves one descriptor, and gives that descriptor. It ends when the last copy of the
/// descriptor is closed.
///
/// Not inlined: who opens otherwise has no use for a path's page of stack.
#[inline(never)]
pub(super) fn open(
    engine: &'static CStr,
    algorithms: Option<&'static CStr>,
    kind: &CStr,
) -> Result<OwnedFd, OpenError> {
    if sys::next_child_is_init() {
        return Err(OpenError::NewPidNamespace);
    }
    let mut path = PathBuffer::new();
    let program = place::find(&mut path)?;
    start(program, &path, engine, algorithms, kind)
}

fn start(
    program: OwnedFd,
    path: &PathBuffer,
    engine: &'static CStr,
    algorithms: Option<&'static CStr>,
    kind: &CStr,
) -> Result<OwnedFd, OpenError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let system = |errno: Errno| OpenError::System(errno.into());
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(system)?;
    let extra = algorithms.map(|list| [c"--algorithms", list]);
    let arguments = [path.c_str(), c"--fd", c"3", c"--status", c"4", c"--engine", engine];
    let arguments = arguments.iter().copied().chain(extra.iter().flatten().copied());
    let spawned = spawn_detached(program.as_fd(), arguments, theirs.as_fd());
    drop(theirs);
    let failed = |step, source: io::Error| match place::try_owned(path.path()) {
        Ok(program) => OpenError::Start { program, step, source },
        Err(no_memory) => no_memory,
    };
    spawned.map_err(|error| failed(Step::Clone, error))?;
    let fd = handed_over(&ours).map_err(|(step, source)| match (step, source.raw_os_error()) {
        (Step::Serve, Some(libc::EAFNOSUPPORT)) => OpenError::NoXfrm,
        // As AF_KEY, which has no program to speak of.
        (Step::Serve, Some(libc::EPERM)) => OpenError::System(source),
        _ => failed(step, source),
    })?;
    drop((ours, program));
    let fd = lowest(fd);
    name(&fd, kind, &COUNT).map_err(OpenError::System)?;
    Ok(fd)
}

/// `socket` gives the lowest number that is free, and programs know it: what was needed to get here is closed now.
fn lowest(fd: OwnedFd) -> OwnedFd {
    // Not by OwnedFd's try_clone, which leaves out 0 to 2.
    match sys::duplicate(fd.as_raw_fd()) {
        Ok(lower) if lower.as_raw_fd() < fd.as_raw_fd() => lower,
        _ => fd,
    }
}

/// Waits for the client's end and for pfkeyd's word that it serves.
fn handed_over(ours: &OwnedFd) -> Result<OwnedFd, (Step, io::Error)> {
    let end = Instant::now() + START_LIMIT;
    let mut fd = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() as i32).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err((Step::Wait, io::Error::from_raw_os_error(libc::ETIMEDOUT))),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err((Step::Wait, errno.into())),
        }
        match receive_handed(ours.as_fd()).map_err(|error| (Step::Wait, error))? {
            Handed::Nothing => {}
            Handed::Descriptor(client) => fd = Some(client),
            Handed::Failed(step, errno) => return Err((step, io::Error::from_raw_os_error(errno))),
            Handed::Serves(0) => {
                return fd.ok_or_else(|| (Step::HandOver, io::Error::from_raw_os_error(libc::EPROTO)));
            }
            Handed::Serves(errno) => return Err((Step::Serve, io::Error::from_raw_os_error(errno))),
            Handed::Ended => return Err((Step::Ended, io::Error::from_raw_os_error(libc::ECHILD))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_is_executed_even_if_its_name_is_anothers_by_then() {
        let directory = std::env::temp_dir().join(format!("pfkey-start-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("pfkeyd");
        std::fs::copy("/bin/true", &path).unwrap();
        let mut name = PathBuffer::new();
        let program = place::program_at(&path, &mut name).unwrap();
        std::fs::rename(&path, directory.join("before")).unwrap();
        std::fs::write(&path, "no program").unwrap();
        match start(program, &name, c"embedded", None, c"embedded") {
            Err(OpenError::Start { step: Step::Ended, .. }) => {}
            other => panic!("true ends at once, and this is no program: {other:?}"),
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
