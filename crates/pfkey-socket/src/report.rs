//! What the machine's pfkeyd says of itself.
#![forbid(unsafe_code)]

use std::fmt;

/// An answer to [`pfkey_wire::hello::Question`]: a text, so that newer versions can say more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its version.
    pub version: String,
    /// Its first process.
    pub pid: u32,
    /// The pid namespace in which all pids here are meant, as `/proc/self/ns/pid` has it.
    pub pids: u64,
    /// Its network namespace (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    /// Those of its sessions that whoever asked may know of.
    pub sessions: Vec<Session>,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who opened it; it may have been passed on.
    pub pid: u32,
    /// As whom.
    pub uid: u32,
    /// Its network namespace.
    pub namespace: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, pid, pids, namespace, sessions } = self;
        writeln!(f, "pfkeyd {version} {pid} {pids} {namespace}")?;
        sessions.iter().try_for_each(|Session { pid, uid, namespace }| writeln!(f, "session {pid} {uid} {namespace}"))
    }
}

impl Report {
    /// `None` for what is none. Lines that say something else are passed over.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        if words.next() != Some("pfkeyd") {
            return None;
        }
        let version = words.next()?.to_owned();
        let (pid, pids, namespace) = (number(words.next())?, number(words.next())?, number(words.next())?);
        let session = |line: &str| {
            let mut words = line.strip_prefix("session ")?.split(' ');
            Some(Session { pid: number(words.next())?, uid: number(words.next())?, namespace: number(words.next())? })
        };
        Some(Self { version, pid, pids, namespace, sessions: lines.filter_map(session).collect() })
    }
}

fn number<N: std::str::FromStr>(word: Option<&str>) -> Option<N> {
    word?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let session = Session { pid: 4711, uid: 1000, namespace: u64::MAX };
        let report = Report { version: "1.2.3".into(), pid: 7, pids: 4, namespace: 1, sessions: vec![session; 2] };
        assert_eq!(Report::read(&report.to_string()), Some(report.clone()));
        assert_eq!(Report::read(&format!("{report}news of a later version\n")), Some(report));
    }

    #[test]
    fn what_is_none_is_not_read() {
        for text in ["", "session 1 2 3\n", "pfkeyd\n", "pfkeyd 1.0 x 4 1\n", "pfkeyd 1.0 -1 4 1\n"] {
            assert_eq!(Report::read(text), None, "{text}");
        }
    }
}
