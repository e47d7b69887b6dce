//! What a program may do, asked by somebody who may more: this process must do nothing for it that the kernel would not.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::UnixCredentials;
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use super::sys;

/// User namespaces in each other, at most (`create_user_ns`).
const MAX_DEPTH: usize = 33;

/// One of a thread's namespaces.
///
/// # Errors
/// ENOENT if it is gone.
pub fn namespace(thread: Pid, kind: &str) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{thread}/ns/{kind}"))?.into())
}

fn is_same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> nix::Result<bool> {
    let (a, b) = (fstat(a)?, fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Whether a thread has CAP_NET_ADMIN over a network namespace, as the kernel decides (`cap_capable`): it is effective, and
/// the thread's user namespace is the one that the network namespace belongs to, or one around that.
///
/// # Errors
/// The thread is gone.
pub fn may_administer(thread: Pid, network: BorrowedFd<'_>) -> io::Result<bool> {
    if !pfkey_socket::thread_has_net_admin(thread.as_raw())? {
        return Ok(false);
    }
    let own = namespace(thread, "user")?;
    // Who may not know it is not in a namespace around it, and neither is a program that it started.
    let mut owner = sys::user_namespace_of(network);
    for _ in 0..MAX_DEPTH {
        let Ok(namespace) = owner else { return Ok(false) };
        if is_same(namespace.as_fd(), own.as_fd())? {
            return Ok(true);
        }
        owner = sys::parent_of(namespace.as_fd());
    }
    Ok(false)
}

/// Moves this process, which has one thread, into another's network namespace.
///
/// # Errors
/// EPERM without the rights for it.
pub fn join_network(thread: Pid, network: BorrowedFd<'_>) -> io::Result<()> {
    if is_same(network, namespace(Pid::this(), "net")?.as_fd())? {
        return Ok(());
    }
    match setns(network, CloneFlags::CLONE_NEWNET) {
        // A user's own namespaces: this process gains rights over them by entering the user namespace first.
        Err(Errno::EPERM) => {
            setns(namespace(thread, "user")?, CloneFlags::CLONE_NEWUSER)?;
            Ok(setns(network, CloneFlags::CLONE_NEWNET)?)
        }
        other => Ok(other?),
    }
}

/// The user that a thread is.
struct User {
    real: (Uid, Gid),
    effective: (Uid, Gid),
    groups: Vec<Gid>,
}

impl User {
    fn of(thread: Pid) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        // Real, effective, saved, and that of file systems.
        let (uids, gids) = (numbers("Uid:").ok_or_else(gone)?, numbers("Gid:").ok_or_else(gone)?);
        let user = |at: usize| {
            let (uid, gid) = (uids.get(at).ok_or_else(gone)?, gids.get(at).ok_or_else(gone)?);
            io::Result::Ok((Uid::from_raw(*uid), Gid::from_raw(*gid)))
        };
        let groups = numbers("Groups:").ok_or_else(gone)?.into_iter().map(Gid::from_raw).collect();
        Ok(Self { real: user(0)?, effective: user(1)?, groups })
    }
}

/// As whom a thread's messages are sent, if that is not as this process's: whoever receives them can ask (SO_PASSCRED).
///
/// # Errors
/// The thread is gone.
pub fn sender(thread: Pid) -> io::Result<Option<UnixCredentials>> {
    let (uid, gid) = User::of(thread)?.real;
    let same = (nix::unistd::getuid(), nix::unistd::getgid()) == (uid, gid);
    let credentials = libc::ucred { pid: thread.as_raw(), uid: uid.as_raw(), gid: gid.as_raw() };
    Ok((!same).then(|| credentials.into()))
}

/// Makes this process the user that a thread is, for whom files and servers have other rules.
///
/// # Errors
/// EPERM if this process is another user, and may not become that one.
pub fn become_user_of(thread: Pid) -> io::Result<()> {
    let User { effective: (uid, gid), groups, .. } = User::of(thread)?;
    let same = nix::unistd::geteuid() == uid && nix::unistd::getegid() == gid;
    match setgroups(&groups).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid)) {
        // Who has no right to change them has the groups that whoever it started has.
        Err(Errno::EPERM) if same => Ok(()),
        other => Ok(other?),
    }
}
