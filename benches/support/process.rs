//! What a process, and those that it started, have had and have.

// No bench needs all of it.
#![allow(dead_code)]

use nix::unistd::Pid;

fn file(pid: Pid, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// A figure of a process and of those that it started.
fn of_all(pid: Pid, figure: &dyn Fn(Pid) -> f64) -> f64 {
    let children = file(pid, &format!("task/{pid}/children"));
    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    figure(pid) + children.map(|child| of_all(child, figure)).sum::<f64>()
}

/// Seconds of processor that a process has had.
pub fn processor_time(pid: Pid) -> f64 {
    file(pid, "schedstat").split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// The same with those that it started.
pub fn processor_time_of_all(pid: Pid) -> f64 {
    of_all(pid, &processor_time)
}

/// KiB that they have for themselves alone.
pub fn private(pid: Pid) -> f64 {
    of_all(pid, &|pid| {
        let rollup = file(pid, "smaps_rollup");
        let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
        lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()).sum()
    })
}

/// How many they are, those included that ended and whose end nobody took.
pub fn count(pid: Pid) -> f64 {
    of_all(pid, &|_| 1.0)
}

/// Their open descriptors.
pub fn descriptors(pid: Pid) -> f64 {
    of_all(pid, &|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0.0, |fds| fds.count() as f64))
}

/// The process behind a descriptor.
pub fn server_of(fd: &std::os::fd::OwnedFd) -> Pid {
    use nix::sys::socket::{getsockopt, sockopt};
    Pid::from_raw(getsockopt(fd, sockopt::PeerCredentials).expect("its process").pid())
}
