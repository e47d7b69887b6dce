//! The process that answers the system calls that a filter picks.
//!
//! One loop, in which nothing waits: a request is sent on, and its `send` returns when pfkeyd has consumed it. What takes
//! longer (to start a pfkeyd, to change namespaces, several messages, a module to load) is done by a process that is forked for it.
//! No call stays without an answer: when such a process ends without one, the loop gives it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use pfkey_socket::{SETTLE_LIMIT, SPIN, check_framing, file_behind, is_served, is_settled, settle};

use super::super::child::{close_all_but, fork_with};
use super::super::link::{Heard, Kind, Link};
use super::call::{self, Call, Message};
use super::open::{Opened, flags, open};
use super::policy;
use super::program::{Program, name_of};
use super::rights::sender;
use super::sys::{Listener, Notification, kill, process};

/// What the listener has in epoll, where calls have their notification's number; the kernel does not give this one.
const LISTENER: u64 = u64::MAX;
/// How long a forked process may take; the longest wait in it is half as long.
const FORKED_LIMIT: Duration = Duration::from_secs(60);
/// What an AF_UNIX socket keeps of its buffer for itself, and AF_KEY's too (`pfkey_sendmsg`).
const BUFFER_RESERVE: u64 = 32;

/// A call that waits.
struct Waiting {
    until: Instant,
    /// The process that was forked for it.
    child: Option<OwnedFd>,
    what: What,
}

enum What {
    /// For pfkeyd, on this socket; then this is the call's result.
    Consumed(OwnedFd, i64),
    /// For room on a socket, which is this file: others have sent, and pfkeyd has not consumed it yet. One of those that wait for
    /// the same watches it.
    Room { file: (u64, u64), call: Notification, watched: Option<OwnedFd> },
    /// For a process that opens a descriptor.
    Opening(Link, Notification, i32),
    /// For a process that answers by itself, or ends.
    Forked { _link: Link },
}

pub struct Supervisor {
    listener: Listener,
    numbers: RangeInclusive<u32>,
    epoll: Epoll,
    waiting: BTreeMap<u64, Waiting>,
}

impl Supervisor {
    pub fn new(listener: Listener, numbers: RangeInclusive<u32>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self { listener, numbers, epoll, waiting: BTreeMap::new() })
    }

    /// Serves until no program is left.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
            for event in events.iter().take(count) {
                if event.data() != LISTENER {
                    self.look_at(event.data());
                } else if event.events().contains(EpollFlags::EPOLLIN) {
                    match self.listener.receive() {
                        Ok(notification) => self.answer(&notification),
                        // Who called ended meanwhile.
                        Err(Errno::ENOENT | Errno::EINTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                } else {
                    return Ok(());
                }
            }
            self.expire();
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(first) = self.waiting.values().map(|waiting| waiting.until).min() else { return EpollTimeout::NONE };
        let left = first.saturating_duration_since(Instant::now()).as_millis();
        EpollTimeout::try_from(left as i32 + 1).unwrap_or(EpollTimeout::NONE)
    }

    fn answer(&mut self, n: &Notification) {
        // None: in a pid namespace that this process does not see.
        let Some(program) = Program::new(n) else { return self.listener.go_on(n.id) };
        match call::read(&n.call, &program) {
            Ok(Call::Socket { kind, protocol }) => self.open(n, kind, protocol),
            Ok(Call::Send { fd, message, flags }) => self.send(n, &program, fd, message, flags),
            Ok(Call::SendSeveral { fd, at, count, flags }) => {
                self.fork(n, |listener| send_several(listener, n.id, &program, fd, (at, count), flags));
            }
            Ok(Call::SetPolicy { fd, v6, at, len }) => {
                self.fork(n, |listener| match policy::set(listener, n.id, &program, (fd, v6), (at, len)) {
                    Ok(Some(())) => listener.respond(n.id, Ok(0)),
                    Ok(None) => listener.go_on(n.id),
                    Err(errno) => listener.respond(n.id, Err(errno)),
                })
            }
            Err(Errno::EFAULT) => self.listener.respond(n.id, Err(Errno::EFAULT)),
            Ok(Call::Other) | Err(_) => self.listener.go_on(n.id),
        }
    }

    fn send(&mut self, n: &Notification, program: &Program, fd: RawFd, message: Message, flags: i32) {
        // What is no PF_KEY socket (any more), or may not be looked at, is between the program and the kernel.
        let Ok(socket) = program.socket(fd) else { return self.listener.go_on(n.id) };
        match send_one(&self.listener, n.id, program, &socket, message, flags) {
            Some(Ok(Sent { len, waits: true })) => self.settle(n.id, socket, len),
            Some(Err(Errno::EAGAIN)) => self.wait_for_room(n, socket),
            other => {
                drop(socket);
                finish(&self.listener, n.id, other.map(|sent| sent.map(|sent| sent.len)));
            }
        }
    }

    /// Answers when pfkeyd has consumed what was sent. The processor is pfkeyd's for a moment first, unless others wait.
    fn settle(&mut self, id: u64, socket: OwnedFd, len: i64) {
        let began = Instant::now();
        while self.waiting.is_empty() && began.elapsed() <= SPIN {
            std::thread::yield_now();
            if is_settled(socket.as_fd()) {
                drop(socket);
                return self.listener.respond(id, Ok(len));
            }
        }
        // A socket tells each time that a buffer of its was consumed, though it was writable all the time: epoll,
        // edge-triggered, hears it, and once in the beginning.
        let event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, id);
        if self.epoll.add(&socket, event).is_err() {
            settle(socket.as_raw_fd());
            drop(socket);
            return self.listener.respond(id, Ok(len));
        }
        let what = What::Consumed(socket, len);
        self.waiting.insert(id, Waiting { until: Instant::now() + SETTLE_LIMIT, child: None, what });
    }

    /// Tries a call again when there is room: net.unix.max_dgram_qlen messages of all who send on a socket may wait.
    fn wait_for_room(&mut self, call: &Notification, socket: OwnedFd) {
        let Some(file) = file_behind(socket.as_raw_fd()) else {
            return self.listener.respond(call.id, Err(Errno::ENOBUFS));
        };
        let watches = |waiting: &Waiting| matches!(&waiting.what, What::Room { file: other, watched: Some(_), .. } if *other == file);
        let mut watched = None;
        if !self.waiting.values().any(watches) {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, call.id);
            if self.epoll.add(&socket, event).is_err() {
                drop(socket);
                return self.listener.respond(call.id, Err(Errno::ENOBUFS));
            }
            watched = Some(socket);
        }
        let what = What::Room { file, call: *call, watched };
        self.waiting.insert(call.id, Waiting { until: Instant::now() + SETTLE_LIMIT, child: None, what });
    }

    /// There may be room: whoever waits for it tries again, in the order of their coming, until there is none.
    fn try_again(&mut self, file: (u64, u64)) {
        let same = |(id, waiting): (&u64, &Waiting)| {
            matches!(&waiting.what, What::Room { file: other, .. } if *other == file).then_some(*id)
        };
        let ids: Vec<u64> = self.waiting.iter().filter_map(same).collect();
        for id in ids {
            let Some(Waiting { until, what: What::Room { call, watched, .. }, .. }) = self.forget(id) else { continue };
            drop(watched);
            self.answer(&call);
            if let Some(waiting @ Waiting { what: What::Room { .. }, .. }) = self.waiting.get_mut(&id) {
                waiting.until = until;
                return;
            }
        }
    }

    fn open(&mut self, n: &Notification, kind: i32, protocol: i32) {
        let flags = match flags(kind) {
            Ok(flags) => flags,
            Err(errno) => return self.listener.respond(n.id, Err(errno)),
        };
        let notification = *n;
        self.fork_as(
            n,
            |link| What::Opening(link, notification, flags),
            |listener, link| {
                let _ = match open(listener, &notification, kind, protocol) {
                    Ok(Opened::Descriptor(fd)) => link.say(Kind::Opened, 0, &[fd.as_fd()], true),
                    Ok(Opened::Kernel) => link.say(Kind::Opened, 0, &[], true),
                    Err(errno) => link.say(Kind::Opened, errno as u32, &[], true),
                };
            },
        );
    }

    fn fork(&mut self, n: &Notification, work: impl FnOnce(&Listener)) {
        self.fork_as(n, |_link| What::Forked { _link }, |listener, _| work(listener));
    }

    /// Starts a process for one call.
    fn fork_as(&mut self, n: &Notification, what: impl FnOnce(Link) -> What, work: impl FnOnce(&Listener, &Link)) {
        let forked = (|| {
            let (ours, theirs) = Link::pair()?;
            self.epoll.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, n.id))?;
            let supervisor = nix::unistd::getpid();
            let child = fork_with(|| {
                // Other calls' links would not end with their own processes.
                close_all_but(&[self.listener.as_fd(), theirs.as_fd()]);
                // Or calls would wait for it when nobody answers the others any more.
                let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                if nix::unistd::getppid() == supervisor {
                    work(&self.listener, &theirs);
                }
                0
            })?;
            io::Result::Ok((ours, process(child).ok()))
        })();
        match forked {
            Ok((link, child)) => {
                let waiting = Waiting { until: Instant::now() + FORKED_LIMIT, child, what: what(link) };
                self.waiting.insert(n.id, waiting);
            }
            Err(_) => self.listener.respond(n.id, Err(Errno::ENOBUFS)),
        }
    }

    /// Something happened to what a call waits for.
    fn look_at(&mut self, id: u64) {
        let Some(waiting) = self.waiting.get(&id) else { return };
        match &waiting.what {
            What::Consumed(socket, len) => {
                if !is_settled(socket.as_fd()) {
                    return;
                }
                self.listener.respond(id, Ok(*len));
            }
            What::Room { file, .. } => return self.try_again(*file),
            What::Opening(link, notification, flags) => match link.hear(false) {
                Err(Errno::EAGAIN) => return,
                Ok(Some(Heard { kind: Kind::Opened, value, fds })) => match (fds.first(), value) {
                    (Some(fd), _) => self.give(notification, fd, *flags),
                    (None, 0) => self.listener.go_on(id),
                    (None, errno) => self.listener.respond(id, Err(Errno::from_raw(errno as i32))),
                },
                _ => self.listener.respond(id, Err(Errno::EAFNOSUPPORT)),
            },
            // It ended. Nobody waits if it has answered.
            What::Forked { .. } => self.listener.respond(id, Err(Errno::ENOBUFS)),
        }
        self.forget(id);
    }

    /// Nothing is waited for any more for this call.
    fn forget(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if let What::Consumed(socket, _) | What::Room { watched: Some(socket), .. } = &waiting.what {
            // The program has the socket, too: it would stay among what epoll watches, under a number that the next copy gets.
            let _ = self.epoll.delete(socket);
        }
        Some(waiting)
    }

    /// Hands a descriptor to the program, at a number where sending on it is told of, if one is free. Numbers are chosen here
    /// alone, so that no two calls get the same.
    fn give(&self, n: &Notification, fd: &OwnedFd, flags: i32) {
        let flags = if flags & libc::SOCK_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
        let number = self.free_number(n);
        // Its limit may be lower by now.
        let given = match self.listener.give(n.id, fd.as_fd(), number, flags) {
            Err(Errno::EBADF) if number.is_some() => self.listener.give(n.id, fd.as_fd(), None, flags),
            other => other,
        };
        if let Err(errno) = given {
            self.listener.respond(n.id, Err(errno));
        }
    }

    /// A number of ours that the program does not use. From above: what it opens by itself comes from below.
    fn free_number(&self, n: &Notification) -> Option<RawFd> {
        let thread = n.thread()?;
        let numbers = self.numbers.clone().rev().filter_map(|number| RawFd::try_from(number).ok());
        for number in numbers {
            match name_of(thread, number) {
                Ok(_) => {}
                Err(Errno::EBADF) => return Some(number),
                Err(_) => return None,
            }
        }
        None
    }

    /// A pfkeyd that does not come to its requests, because it is stopped, does them when it goes on; its answers come then.
    fn expire(&mut self) {
        let now = Instant::now();
        let expired: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| waiting.until <= now).map(|(id, _)| *id).collect();
        for id in expired {
            let Some(Waiting { child, what, .. }) = self.forget(id) else { continue };
            if let Some(child) = child {
                kill(child.as_fd());
            }
            match what {
                What::Consumed(socket, len) => {
                    drop(socket);
                    self.listener.respond(id, Ok(len));
                }
                What::Room { file, watched, .. } => {
                    drop(watched);
                    self.listener.respond(id, Err(Errno::ENOBUFS));
                    // Another has to watch.
                    self.try_again(file);
                }
                What::Opening(..) => self.listener.respond(id, Err(Errno::EAFNOSUPPORT)),
                What::Forked { .. } => self.listener.respond(id, Err(Errno::ENOBUFS)),
            }
        }
    }
}

/// Gives a call its result; none: the kernel does what was asked of it.
fn finish(listener: &Listener, id: u64, result: Option<Result<i64, Errno>>) {
    match result {
        Some(result) => listener.respond(id, result),
        None => listener.go_on(id),
    }
}

/// What was sent.
struct Sent {
    len: i64,
    /// Its answers are not there yet.
    waits: bool,
}

/// Sends a program's message. None if that is between the program and the kernel; EAGAIN if there is no room now.
fn send_one(
    listener: &Listener,
    id: u64,
    program: &Program,
    socket: &OwnedFd,
    message: Message,
    flags: i32,
) -> Option<Result<Sent, Errno>> {
    if !is_served(socket.as_raw_fd()) {
        return None;
    }
    let buffer = getsockopt(socket, sockopt::SndBuf).unwrap_or(0) as u64;
    let bytes = match program.message(message, flags, buffer.saturating_sub(BUFFER_RESERVE)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Some(Ok(Sent { len: 0, waits: false })),
        Err(Errno::EPERM | Errno::ESRCH) => return None,
        Err(errno) => return Some(Err(errno)),
    };
    if let Err(error) = check_framing(&bytes) {
        return Some(Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))));
    }
    let Ok(sender) = sender(program.thread) else { return None };
    if !listener.is_valid(id) {
        return None;
    }
    let sender = sender.as_ref().map(ControlMessage::ScmCredentials);
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Some(match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], sender.as_slice(), flags, None) {
        Ok(len) => Ok(Sent { len: len as i64, waits: true }),
        Err(errno) => Err(errno),
    })
}

/// Waits until there may be room; false if there is none in time.
fn has_room(socket: &OwnedFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    !matches!(poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], left), Ok(0)) && Instant::now() < until
}

/// `sendmmsg`, in a process of its own.
fn send_several(listener: &Listener, id: u64, program: &Program, fd: RawFd, (at, count): (u64, u32), flags: i32) {
    let Ok(socket) = program.socket(fd) else { return listener.go_on(id) };
    let result = send_all(listener, id, program, &socket, (at, count), flags);
    drop(socket);
    finish(listener, id, result);
}

/// The result of `sendmmsg`; none if it is between the program and the kernel.
fn send_all(
    listener: &Listener,
    id: u64,
    program: &Program,
    socket: &OwnedFd,
    (at, count): (u64, u32),
    flags: i32,
) -> Option<Result<i64, Errno>> {
    let mut done = 0;
    let mut failed = None;
    // UIO_MAXIOV.
    for index in 0..u64::from(count.min(1024)) {
        let header = at.saturating_add(index * program.header_len());
        let message = Message::Header { at: header };
        let mut sent = send_one(listener, id, program, socket, message, flags);
        let until = Instant::now() + SETTLE_LIMIT;
        while matches!(sent, Some(Err(Errno::EAGAIN))) {
            // A pfkeyd that is stopped, and whose queue is full.
            if !has_room(socket, until) {
                sent = Some(Err(Errno::ENOBUFS));
                break;
            }
            sent = send_one(listener, id, program, socket, message, flags);
        }
        match sent {
            None if done == 0 => return None,
            None => break,
            Some(Err(errno)) => {
                failed = Some(errno);
                break;
            }
            Some(Ok(Sent { len, waits })) => {
                if waits {
                    settle(socket.as_raw_fd());
                }
                if let Err(errno) = program.note_sent(header, len as u32) {
                    failed = Some(errno);
                    break;
                }
                done += 1;
            }
        }
    }
    // As the kernel: an error counts only if nothing was sent.
    Some(match failed {
        Some(errno) if done == 0 => Err(errno),
        _ => Ok(done),
    })
}
