//! What the machine's pfkeyd says of itself.
#![forbid(unsafe_code)]

use std::fmt;

/// An answer to [`pfkey_wire::hello::QUESTION`]: a text, so that newer versions can say more.
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
    /// When it started, in seconds since 1970; an older pfkeyd does not say.
    pub since: Option<u64>,
    /// What it has counted; an older pfkeyd does not say.
    pub counted: Option<Counted>,
    /// Those of its sessions that whoever asked may know of.
    pub sessions: Vec<Session>,
}

/// What a pfkeyd has counted, and those before it whose state it took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that a session lost, because its queue was full.
    pub dropped: u64,
    /// Clients that were not let in, because there were too many.
    pub refused: u64,
    /// Workers that died, or did not answer, and were replaced.
    pub workers: u64,
    /// Starts that went on with the sessions of the pfkeyd before.
    pub restarts: u64,
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
        let Self { version, pid, pids, namespace, since, counted, sessions } = self;
        writeln!(f, "pfkeyd {version} {pid} {pids} {namespace}")?;
        since.iter().try_for_each(|since| writeln!(f, "since {since}"))?;
        if let Some(Counted { dropped, refused, workers, restarts }) = counted {
            writeln!(f, "counted {dropped} {refused} {workers} {restarts}")?;
        }
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
        let counted = |line: &str| {
            let mut words = line.strip_prefix("counted ")?.split(' ');
            let mut next = || number(words.next());
            Some(Counted { dropped: next()?, refused: next()?, workers: next()?, restarts: next()? })
        };
        Some(Self {
            version,
            pid,
            pids,
            namespace,
            since: lines.clone().find_map(|line| number(line.strip_prefix("since "))),
            counted: lines.clone().find_map(counted),
            sessions: lines.filter_map(session).collect(),
        })
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
        let counted = Counted { dropped: 1, refused: 2, workers: 3, restarts: u64::MAX };
        let report = Report {
            version: "1.2.3".into(),
            pid: 7,
            pids: 4,
            namespace: 1,
            since: Some(1_700_000_000),
            counted: Some(counted),
            sessions: vec![session; 2],
        };
        assert_eq!(Report::read(&report.to_string()), Some(report.clone()));
        assert_eq!(Report::read(&format!("{report}news of a later version\n")), Some(report));
    }

    #[test]
    fn an_older_one_says_less() {
        let report = Report::read("pfkeyd 0.2.0 7 4 1\nsession 1 2 3\n").unwrap();
        assert_eq!((report.since, report.counted, report.sessions.len()), (None, None, 1));
    }

    #[test]
    fn what_is_none_is_not_read() {
        for text in ["", "session 1 2 3\n", "pfkeyd\n", "pfkeyd 1.0 x 4 1\n", "pfkeyd 1.0 -1 4 1\n"] {
            assert_eq!(Report::read(text), None, "{text}");
        }
    }
}
