//! Where clients of the machine's pfkeyd say hello.
//!
//! A hello carries descriptors, and anybody may send one. Whoever receives it has to close them, which can take as long as its
//! sender likes: a TCP socket lingers, a file of FUSE is flushed by whoever serves it. So a process of its own receives hellos.
//! It hands on what nobody has to wait for, netlink sockets in which the kernel said what it has to say; where something else
//! came it ends, because no socket lingers in a process that ends, and because nobody waits for this one. The guardian makes
//! another. Clients of root have one, all others another: no user can keep root out.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use pfkey_socket::peek_with_descriptors;
use pfkey_wire::hello::{ALL_SOCKETS, Hello, MEETING_LEN, PROTOCOL, QUESTION, SOCKETS, Welcome};
use pfkey_xfrm::{Netlink, NetlinkFd};
use pfkeyd::limits;

use super::child::{close_all_but, fork_with};
use super::link::{Heard, Kind, Link, SHORTAGE};

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Clients that may be silent at once: then the one that has been longest is given up for the next.
const STRANGERS: usize = 128;
/// Processes that may be ending at once.
const ENDING: usize = 8;

/// The guardian's side.
#[derive(Default)]
pub struct Door {
    process: Option<(Link, Option<Pid>)>,
    /// Clients that it has not heard of.
    pub untold: VecDeque<u32>,
    ending: Vec<Pid>,
}

impl Door {
    /// Where it says something, if it is there.
    pub fn link(&self) -> Option<&Link> {
        self.process.as_ref().map(|(link, _)| link)
    }

    /// No client can come: too many are ending.
    pub fn is_stuck(&self) -> bool {
        self.process.is_none() && self.ending.len() >= ENDING
    }

    /// Its process, which is started if there is none.
    ///
    /// # Errors
    /// Those of `socketpair` and `fork`; EBUSY if it [`Door::is_stuck`].
    pub fn open(&mut self) -> std::io::Result<&Link> {
        if self.is_stuck() {
            return Err(Errno::EBUSY.into());
        }
        if self.process.is_none() {
            let (ours, theirs) = Link::pair()?;
            let pid = fork_with(|| {
                close_all_but(&[theirs.as_fd()]);
                serve(&theirs)
            })?;
            drop(theirs);
            // Its copies of connections are gone before one here is closed: they must not be the last.
            let _ = ours.hear(true);
            self.process = Some((ours, Some(pid)));
        }
        self.link().ok_or_else(|| Errno::EBUSY.into())
    }

    /// Its process has said that it ends.
    pub fn ends(&mut self) {
        self.ending.extend(self.process.take().and_then(|(_, pid)| pid));
    }

    /// A process of the guardian's has ended.
    pub fn has_ended(&mut self, ended: Pid) {
        self.ending.retain(|pid| *pid != ended);
        if let Some((_, pid)) = self.process.as_mut().filter(|(_, pid)| *pid == Some(ended)) {
            *pid = None;
        }
    }
}

/// A client that has not said hello.
struct Stranger {
    slot: u32,
    fd: OwnedFd,
    until: Instant,
}

/// What came from a client.
enum Said {
    Nothing,
    /// Its end, or what cannot be received.
    Bye,
    /// No session for it.
    No(Errno),
    Hello(Vec<OwnedFd>),
    Question,
    /// Descriptors that must not be closed before this process ends.
    Strange(Vec<OwnedFd>),
}

/// The process. It drops no connection in which something may wait while it is the last to have it, and ends with what it has.
fn serve(link: &Link) -> u8 {
    let _ = link.say(Kind::Serving, std::process::id(), &[], true);
    let mut strangers: ManuallyDrop<VecDeque<Stranger>> = ManuallyDrop::default();
    while let Some((news, ready)) = wait(link, &strangers) {
        if news && !hear(link, &mut strangers) {
            break;
        }
        for slot in ready {
            let Some(at) = strangers.iter().position(|stranger| stranger.slot == slot) else { continue };
            let said = strangers.get(at).map_or(Said::Nothing, |stranger| listen(&stranger.fd));
            if matches!(said, Said::Nothing) {
                continue;
            }
            let Some(stranger) = strangers.remove(at) else { continue };
            match said {
                Said::Nothing | Said::Bye => let_go(link, stranger),
                Said::Question => {
                    drop(stranger);
                    let _ = link.say(Kind::Question, slot, &[], true);
                }
                Said::No(errno) => {
                    refuse(&stranger.fd, errno);
                    let_go(link, stranger);
                }
                Said::Hello(sockets) => {
                    // The guardian has it, too.
                    drop(stranger);
                    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                    let _ = link.say(Kind::Sockets, slot, &sockets, true);
                }
                Said::Strange(descriptors) => {
                    std::mem::forget(descriptors);
                    refuse(&stranger.fd, Errno::EINVAL);
                    // The other end may not be free for as long as this process ends.
                    strangers.clear();
                    let_go(link, stranger);
                    link.end();
                    return 0;
                }
            }
        }
        while strangers.len() > STRANGERS || strangers.front().is_some_and(|one| one.until <= Instant::now()) {
            let Some(stranger) = strangers.pop_front() else { break };
            if stranger.until > Instant::now() {
                limits::refuse(stranger.fd.as_fd());
            }
            let_go(link, stranger);
        }
    }
    0
}

/// Whether the guardian says something, and which strangers do. `None`: nothing can be waited for.
fn wait(link: &Link, strangers: &VecDeque<Stranger>) -> Option<(bool, Vec<u32>)> {
    let mut fds = vec![PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    fds.extend(strangers.iter().map(|stranger| PollFd::new(stranger.fd.as_fd(), PollFlags::POLLIN)));
    let left = strangers.front().map(|stranger| stranger.until.saturating_duration_since(Instant::now()));
    let timeout = left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left.as_millis() as i32 + 1).unwrap_or(PollTimeout::ZERO)
    });
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(Errno::ENOMEM) => std::thread::sleep(SHORTAGE),
        Err(_) => return None,
    }
    let mut says = fds.iter().map(|fd| fd.any().unwrap_or(false));
    let news = says.next().unwrap_or(false);
    let ready = strangers.iter().zip(says).filter(|(_, says)| *says).map(|(stranger, _)| stranger.slot).collect();
    Some((news, ready))
}

/// Takes new clients; false: the guardian has ended.
fn hear(link: &Link, strangers: &mut VecDeque<Stranger>) -> bool {
    loop {
        match link.hear(false) {
            Ok(Some(Heard { kind: Kind::Client, value: slot, fds })) => match fds.into_iter().next() {
                Some(fd) => strangers.push_back(Stranger { slot, fd, until: Instant::now() + SILENCE }),
                // There was no number for it.
                None => drop(link.say(Kind::Released, slot, &[], true)),
            },
            Ok(Some(_)) => {}
            Err(Errno::EAGAIN) => return true,
            Ok(None) | Err(_) => return false,
        }
    }
}

/// The guardian closes the connection, of which this process has no copy any more.
fn let_go(link: &Link, Stranger { slot, fd, .. }: Stranger) {
    drop(fd);
    let _ = link.say(Kind::Released, slot, &[], true);
}

fn refuse(fd: &OwnedFd, errno: Errno) {
    let welcome = Welcome { protocol: PROTOCOL, errno: errno as u32 };
    let _ = send(fd.as_raw_fd(), &welcome.to_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

/// Looks at what a client said, which stays there unless it is refused and carries nothing that has to be waited for.
fn listen(fd: &OwnedFd) -> Said {
    // One byte more, so that what is longer is no hello.
    let mut bytes = [0; MEETING_LEN + 1];
    // First without what it carries.
    let asks = match recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Said::Nothing,
        Ok(0) | Err(_) => return Said::Bye,
        Ok(len) => match bytes.get(..len).unwrap_or_default() {
            said if said == QUESTION => true,
            said => match Hello::read(said) {
                None => return Said::No(Errno::EINVAL),
                Some(hello) if hello.protocol != PROTOCOL => return Said::No(Errno::EPROTONOSUPPORT),
                Some(_) => false,
            },
        },
    };
    let seen = match peek_with_descriptors(fd.as_fd(), &mut bytes) {
        Ok(seen) => seen,
        Err(Errno::EAGAIN | Errno::EINTR) => return Said::Nothing,
        Err(_) => return Said::Bye,
    };
    let (mut sockets, mut strange) = (Vec::new(), Vec::new());
    for fd in seen.descriptors {
        match NetlinkFd::of(fd) {
            Ok(socket) => sockets.push(socket),
            Err(fd) => strange.push(fd),
        }
    }
    if !strange.is_empty() {
        return Said::Strange(strange);
    }
    let nothing = !seen.more && sockets.is_empty();
    let refused = if asks || seen.more || !matches!(sockets.len(), SOCKETS | ALL_SOCKETS) {
        Errno::EINVAL
    } else {
        let adopted = sockets.into_iter().map(Netlink::adopt).collect::<Result<Vec<_>, _>>();
        match adopted {
            Ok(sockets) => return Said::Hello(sockets.into_iter().map(OwnedFd::from).collect()),
            Err(errno) => Errno::from_raw(errno.to_raw()),
        }
    };
    if !seen.more {
        // What is left unread when a socket closes is told to its peer before the answer.
        let _ = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
    }
    if asks && nothing { Said::Question } else { Said::No(refused) }
}
