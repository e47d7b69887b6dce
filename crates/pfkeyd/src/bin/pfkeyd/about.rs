//! What the machine's pfkeyd says of itself to `pfkey doctor`.
//!
//! Anybody may ask. Who is told of a session knows what program of whom uses IPsec: root is told of all, but in another network
//! namespace than pfkeyd's, where root may be a container's, of that one's only; other users of their own. Counts of all together say
//! nothing of anybody.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};
use pfkey_socket::report::{Counted, Report, Session};
use pfkey_xfrm::namespace;

use super::guardian::Client;

/// What is known when it starts and may not be looked up later.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pid: u32,
    pids: u64,
    namespace: u64,
    since: Option<u64>,
}

impl About {
    /// Of this process, which listens there, and of those that it will fork.
    pub fn this(listener: BorrowedFd<'_>) -> Self {
        let pids = std::fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        Self { pid: std::process::id(), pids, namespace: namespace(listener).unwrap_or(0), since }
    }

    /// Answers one who has asked.
    pub fn tell<'a>(&self, who: &Client, counted: Counted, clients: impl Iterator<Item = &'a Client>) {
        // A connection is of the network namespace of whoever connected.
        let Some(from) = namespace(who.fd.as_fd()) else { return };
        let may_know = |session: &Session| who.uid != 0 || from == self.namespace || from == session.namespace;
        let sessions = clients.filter(|client| who.uid == 0 || who.uid == client.uid).filter_map(session);
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.pid,
            pids: self.pids,
            namespace: self.namespace,
            since: self.since,
            counted: Some(counted),
            sessions: sessions.filter(may_know).collect(),
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // What does not arrive is an end of the connection, which says that there is no answer.
        let _ = send(who.fd.as_raw_fd(), report.to_string().as_bytes(), flags);
    }
}

/// `None` for a client that has none yet.
fn session(client: &Client) -> Option<Session> {
    let namespace = namespace(client.sockets.first()?.as_fd())?;
    let pid = getsockopt(&client.fd, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
    Some(Session { pid: u32::try_from(pid).unwrap_or(0), uid: client.uid, namespace })
}
