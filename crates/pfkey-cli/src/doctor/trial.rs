//! SAs and policies that are added where they harm nobody: in a network namespace of a child process.
//!
//! The child says what became of each, a line each: what, errno, and in words why.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use pfkey::Backend;
use pfkey_wire::Extras;

use super::cases;
use crate::algorithms;
use crate::channel::Channel;
use crate::execute::execute;
use crate::failure::{Failure, errno_text};
use crate::output::{Out, Value, View};
use crate::setkey;

/// Seconds after which a trial is given up.
const LIMIT: u32 = 30;
/// The lines that are about no case.
const APART: &str = "namespace";
const OPENED: &str = "opened";

/// Why something was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// In words.
    pub why: String,
}

/// What became of a trial.
pub struct Trial {
    /// It had to be root in a user namespace of its own.
    pub as_root_of_its_own: bool,
    /// AF_KEY served it.
    pub af_key: bool,
    /// Of each case.
    pub results: BTreeMap<String, Result<(), Refusal>>,
}

/// Why there was no trial.
pub enum NoTrial {
    /// No namespace for it.
    Namespace(String),
    /// Nothing serves PF_KEY in it.
    Unserved(String),
}

/// Tries what a backend can do.
pub fn run(backend: &Backend) -> Result<Trial, NoTrial> {
    let failed = |error: std::io::Error| NoTrial::Namespace(format!("the trial cannot start: {error}"));
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pfkey").args(["doctor", "--trial"]).stdin(Stdio::null()).stderr(Stdio::null());
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root && matches!(backend, Backend::Service(_)) {
        // In a user namespace of its own it does not see that the service is root's. The service speaks XFRM, too.
        command.env("PFKEY_BACKEND", "xfrm");
    }
    // The same of the file: a program of root's is there one of nobody's, which is not executed. A copy is its own.
    let copy = if is_root { None } else { pfkey_socket::find_pfkeyd().ok().and_then(|path| own_copy(&path).ok()) };
    if let Some(copy) = &copy {
        command.env("PFKEYD", format!("/proc/self/fd/{}", copy.as_raw_fd()));
    }
    let output = command.output().map_err(failed)?;
    read(&String::from_utf8_lossy(&output.stdout))
}

/// A file in memory with a program that this user may execute.
fn own_copy(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let mut copy = std::fs::File::from(memfd_create("pfkeyd", MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut std::fs::File::open(path)?, &mut copy)?;
    fchmod(&copy, Mode::S_IRUSR | Mode::S_IXUSR)?;
    // The child's.
    fcntl(&copy, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(copy)
}

/// What a child said.
fn read(text: &str) -> Result<Trial, NoTrial> {
    let mut trial = Trial { as_root_of_its_own: false, af_key: false, results: BTreeMap::new() };
    let mut opened = false;
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (what, errno, why) = (fields.next(), fields.next(), fields.next().unwrap_or_default());
        let (Some(what), Some(Ok(errno))) = (what, errno.map(str::parse)) else { continue };
        match (what, errno) {
            (APART, 0) => trial.as_root_of_its_own = why == "user",
            (APART, _) => return Err(NoTrial::Namespace(why.to_owned())),
            (OPENED, 0) => (opened, trial.af_key) = (true, why == "afkey"),
            (OPENED, _) => return Err(NoTrial::Unserved(why.to_owned())),
            (_, 0) if why.is_empty() => drop(trial.results.insert(what.to_owned(), Ok(()))),
            _ => drop(trial.results.insert(what.to_owned(), Err(Refusal { why: why.to_owned() }))),
        }
    }
    if opened && !trial.results.is_empty() {
        return Ok(trial);
    }
    Err(NoTrial::Namespace(format!("the trial ended early, or took more than {LIMIT} s")))
}

/// The trial itself, in the child.
pub fn child(view: View) -> Result<(), Failure> {
    nix::unistd::alarm::set(LIMIT);
    let mut out = Out::new();
    let backend = Backend::from_environment()?;
    // An engine of its own is apart from everything already.
    let apart = if matches!(backend, Backend::Embedded) { Ok("memory") } else { own_namespace() };
    match apart {
        Ok(way) => say(&mut out, APART, 0, way)?,
        Err(errno) => return say(&mut out, APART, errno as i32, &hint_of_namespaces(errno)),
    }
    let mut channel = match Channel::open_with(&backend) {
        Ok(channel) => channel,
        Err(failure) => {
            let why = failure.to_string();
            return say(&mut out, OPENED, libc::EIO, why.lines().next().unwrap_or_default());
        }
    };
    let served = channel.is_served();
    say(&mut out, OPENED, 0, if served { "pfkeyd" } else { "afkey" })?;
    let mut listed = algorithms_of(&mut channel)?;
    if served {
        // What it can have, whether or not others are started with it.
        pfkey_socket::set_extras(Some(Extras { aead: true, ..pfkey_socket::extras()? }));
        channel = Channel::open_with(&backend)?;
        listed = algorithms_of(&mut channel)?;
    }
    let mut has_esp = true;
    for case in cases::all(&listed, served) {
        if !has_esp && case.is_algorithm() {
            // No SA says it; what the engine lists is what the kernel answered to it.
            let errno = if listed.contains(&case.name) { 0 } else { libc::ENOSYS };
            say(&mut out, &case.name, errno, if errno == 0 { "" } else { "not listed" })?;
            continue;
        }
        let commands = setkey::parse(case.text.as_bytes(), false).commands;
        let done =
            commands.iter().try_for_each(|command| execute(&mut channel, &mut Out::new(), view, &command.action));
        has_esp &= done.is_ok() || case.name != cases::PLAIN_ESP;
        match done {
            Ok(()) => say(&mut out, &case.name, 0, "")?,
            Err(Failure::Refused { errno, why, .. }) => {
                let why = why.map_or_else(|| errno_text(errno), |why| format!("{}: {why}", errno_text(errno)));
                say(&mut out, &case.name, errno, &why)?;
            }
            Err(failure) => say(&mut out, &case.name, 0, &failure.to_string())?,
        }
    }
    Ok(())
}

fn say(out: &mut Out, what: &str, errno: i32, why: &str) -> Result<(), Failure> {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    writeln!(out, "{what}\t{errno}\t{why}")?;
    Ok(out.flush()?)
}

/// The names of the algorithms that the engine lists.
fn algorithms_of(channel: &mut Channel) -> Result<BTreeSet<String>, Failure> {
    let records = algorithms::list(channel)?;
    let name = |record: &crate::output::Record| {
        record.iter().find_map(|field| match field {
            ("name", Value::Text(name)) => Some(name.clone()),
            _ => None,
        })
    };
    Ok(records.iter().filter_map(name).collect())
}

/// Goes into a network namespace that is nobody else's; who may not make one makes a user namespace for it.
fn own_namespace() -> Result<&'static str, Errno> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok("root");
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    };
    // Without it an unprivileged process may map no group (user_namespaces(7)). A kernel before 3.19 has no such file.
    let _ = write("setgroups", "deny".to_owned());
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))?;
    Ok("user")
}

/// Why there is no namespace, and what to do.
fn hint_of_namespaces(errno: Errno) -> String {
    let hint = match errno {
        Errno::EPERM | Errno::EACCES => "user namespaces are not for this user here: try as root",
        Errno::ENOSPC => "no more namespaces: /proc/sys/user/max_user_namespaces and max_net_namespaces",
        Errno::EINVAL | Errno::ENOSYS => "the kernel has no namespaces (NET_NS, USER_NS)",
        _ => "no namespace",
    };
    format!("{hint} ({})", errno.desc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says() {
        let trial =
            read("namespace\t0\tuser\nopened\t0\tpfkeyd\nESP tunnel IPv4\t0\t\nAH tunnel IPv4\t93\tno\nrest").ok();
        let trial = trial.unwrap();
        assert!(trial.as_root_of_its_own && !trial.af_key && trial.results.len() == 2);
        assert!(trial.results["ESP tunnel IPv4"].is_ok());
        assert_eq!(trial.results["AH tunnel IPv4"].as_ref().unwrap_err().why, "no");
    }

    #[test]
    fn a_child_that_says_nothing_is_no_trial() {
        for text in ["", "namespace\t0\troot\n", "namespace\t1\tno\n", "opened\t0\tafkey\n", "\t\t\n\u{0}"] {
            assert!(matches!(read(text), Err(NoTrial::Namespace(_))), "{text:?}");
        }
        assert!(matches!(read("opened\t5\twhy\n"), Err(NoTrial::Unserved(why)) if why == "why"));
    }
}
