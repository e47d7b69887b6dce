//! What a daemon says on standard error.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

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

/// Lines in a minute of what every client can cause as often as it likes.
const A_MINUTE: u64 = 10;

/// Lines that are said so often and no more.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the minute began, and the lines that there were since.
    minute: Option<(Instant, u64)>,
}

impl Seldom {
    /// What is to be said of a line that is due now, if anything.
    pub fn line(&mut self, text: &str, now: Instant) -> Option<String> {
        let (began, lines) = match self.minute {
            Some((began, lines)) if now.saturating_duration_since(began) < Duration::from_secs(60) => (began, lines),
            Some((_, lines)) if lines > A_MINUTE => {
                self.minute = Some((now, 1));
                return Some(format!("pfkeyd: {} lines like this one were left out\npfkeyd: {text}", lines - A_MINUTE));
            }
            _ => (now, 0),
        };
        self.minute = Some((began, lines + 1));
        (lines < A_MINUTE).then(|| format!("pfkeyd: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_said_seldom() {
        let (mut seldom, began) = (Seldom::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let said = (0..1000).filter_map(|n| seldom.line("no", at(n % 60))).count();
        assert_eq!(said as u64, A_MINUTE);
        let line = "pfkeyd: 990 lines like this one were left out\npfkeyd: yes";
        assert_eq!(seldom.line("yes", at(61)).as_deref(), Some(line));
        assert_eq!(seldom.line("yes", at(62)).as_deref(), Some("pfkeyd: yes"));
        assert_eq!(seldom.line("yes", at(200)).as_deref(), Some("pfkeyd: yes"));
    }
}
