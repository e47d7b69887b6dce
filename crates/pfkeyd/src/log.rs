//! What a daemon says on standard error.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// Writes text to standard error, line by line. A line that nobody takes is lost: neither a reader that is gone nor one
/// that does not read stops the daemon, which `eprintln!` would end with a panic or hold up.
pub fn log(text: &str) {
    let stderr = io::stderr();
    for line in text.lines() {
        // A pipe that says so has room for PIPE_BUF bytes, more than a line of ours.
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO) != Ok(1) {
            return;
        }
        let _ = write(&stderr, format!("{line}\n").as_bytes());
    }
}
