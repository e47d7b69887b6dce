//! The machine's pfkeyd: a hub for each network namespace that has sessions.
//!
//! A program says which namespace is meant, and that it may, by the netlink sockets that it brings (`pfkey_wire::hello`). All
//! requests of its session go through these. Programs that want different things beyond AF_KEY have different hubs: what is
//! written for one would be wrong for the other.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use pfkey_hub::{Errno, Hub};
use pfkey_wire::hello::{Hello, LACKS_SOCKETS, PROTOCOL, Welcome};
use pfkey_wire::{Extras, WireError};
use pfkey_xfrm::{Events, Netlink, SessionSockets, XfrmEngine};

use super::{Service, SessionId, SessionState, Sink, Sources, Time, limits};
use pfkey_hub::SessionStatistics;

/// Namespaces whose news are looked for at once.
const AT_ONCE: usize = 16;

/// A network namespace with sessions.
struct Namespace {
    /// `SO_NETNS_COOKIE`.
    cookie: u64,
    extras: Extras,
    hub: Hub<XfrmEngine>,
    sessions: usize,
}

/// A session after its hello.
struct Member {
    /// The number of its namespace.
    namespace: u32,
    /// `None` while it is acted for.
    sockets: Option<SessionSockets>,
}

/// What another worker's engine had: the sockets for events and for its own questions.
struct Left {
    number: u32,
    cookie: u64,
    events: Netlink,
    own: Netlink,
}

/// Keeps the sockets of the engine with this number for another worker; none: it is gone.
pub type KeepEngine = Box<dyn FnMut(u32, &[BorrowedFd<'_>])>;

/// The hubs of all network namespaces.
pub struct Machine {
    /// The namespace of this process.
    here: u64,
    /// By numbers that say the extras in their last two bits.
    namespaces: BTreeMap<u32, Namespace>,
    /// `None`: there was no hello yet.
    sessions: BTreeMap<SessionId, Option<Member>>,
    next_session: u32,
    next_namespace: u32,
    /// The events' sockets of all namespaces.
    news: Epoll,
    keep: KeepEngine,
    left: Vec<Left>,
    /// The session that came back last, and is about to be resumed.
    back: Option<SessionId>,
}

impl Machine {
    /// Without sessions.
    ///
    /// # Errors
    /// EAFNOSUPPORT on a kernel without XFRM_USER, EOPNOTSUPP before Linux 5.14.
    pub fn new(keep: KeepEngine) -> Result<Self, Errno> {
        let here = Netlink::open()?.namespace()?;
        let news = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| Errno::from_raw(errno as i32))?;
        Ok(Self {
            here,
            namespaces: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
            next_namespace: 0,
            news,
            keep,
            left: Vec::new(),
            back: None,
        })
    }

    /// Acts for a session, through its sockets.
    fn turn<R>(&mut self, id: SessionId, act: impl FnOnce(&mut Hub<XfrmEngine>) -> R) -> Option<R> {
        let member = self.sessions.get_mut(&id)?.as_mut()?;
        let hub = &mut self.namespaces.get_mut(&member.namespace)?.hub;
        hub.engine_mut().lend(member.sockets.take()?);
        let done = act(hub);
        member.sockets = hub.engine_mut().give_back();
        Some(done)
    }

    fn hub(&self, id: SessionId) -> Option<&Hub<XfrmEngine>> {
        let member = self.sessions.get(&id)?.as_ref()?;
        self.namespaces.get(&member.namespace).map(|namespace| &namespace.hub)
    }

    /// Makes a session one of its namespace's. `engine` gives the sockets of the engine, if there is none yet.
    fn join(
        &mut self,
        id: SessionId,
        [requests, dump]: [Netlink; 2],
        extras: Extras,
        engine: impl FnOnce(u64, bool) -> Result<(Events, Netlink), Errno>,
    ) -> Result<(), Errno> {
        let cookie = requests.namespace()?;
        if dump.namespace()? != cookie {
            return Err(Errno::EINVAL);
        }
        if cookie != self.here && !self.has_place(cookie) {
            return Err(Errno::ENOBUFS);
        }
        let known = self.namespaces.iter().find(|(_, one)| one.cookie == cookie && one.extras == extras);
        let number = match known.map(|(number, _)| *number) {
            Some(number) => number,
            None => self.found(cookie, extras, engine)?,
        };
        let namespace = self.namespaces.get_mut(&number).ok_or(Errno::EINVAL)?;
        namespace.hub.open_as(id);
        namespace.sessions += 1;
        let sockets = Some(SessionSockets::new(requests, dump));
        self.sessions.insert(id, Some(Member { namespace: number, sockets }));
        Ok(())
    }

    /// Whether one more session of another namespace than this process's may come: root in a container is root for the
    /// guardian. An eighth of the places is for each, and half for all.
    fn has_place(&self, cookie: u64) -> bool {
        let sessions = |counts: &dyn Fn(&Namespace) -> bool| -> usize {
            self.namespaces.values().filter(|one| counts(one)).map(|one| one.sessions).sum()
        };
        let most = limits::sessions();
        sessions(&|one| one.cookie == cookie) < most / 8 && sessions(&|one| one.cookie != self.here) < most / 2
    }

    /// A hub for another namespace.
    fn found(
        &mut self,
        cookie: u64,
        extras: Extras,
        engine: impl FnOnce(u64, bool) -> Result<(Events, Netlink), Errno>,
    ) -> Result<u32, Errno> {
        let left = self.left.iter().position(|left| left.cookie == cookie && left.number & 3 == extras.bits().into());
        let (number, events, own) = match left.map(|at| self.left.swap_remove(at)) {
            Some(left) => (left.number, Events::of(left.events)?, left.own),
            None => {
                let (events, own) = engine(cookie, cookie == self.here)?;
                let number = self.free_number(extras);
                (self.keep)(number, &[events.as_fd(), own.as_fd()]);
                (number, events, own)
            }
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number.into());
        self.news.add(events.as_fd(), event).map_err(|errno| Errno::from_raw(errno as i32))?;
        let mut engine = XfrmEngine::with_sockets(events, own, cookie != self.here);
        engine.set_extras(extras);
        self.namespaces.insert(number, Namespace { cookie, extras, hub: Hub::new(engine), sessions: 0 });
        Ok(number)
    }

    /// A number that no engine has.
    fn free_number(&mut self, extras: Extras) -> u32 {
        loop {
            self.next_namespace = self.next_namespace.wrapping_add(1);
            let number = self.next_namespace << 2 | u32::from(extras.bits());
            if !self.namespaces.contains_key(&number) && self.left.iter().all(|left| left.number != number) {
                return number;
            }
        }
    }

    /// A session of a namespace has gone.
    fn leave(&mut self, number: u32) {
        let Some(namespace) = self.namespaces.get_mut(&number) else { return };
        namespace.sessions -= 1;
        if namespace.sessions == 0 {
            let _ = self.news.delete(namespace.hub.engine().as_fd());
            self.namespaces.remove(&number);
            (self.keep)(number, &[]);
        }
    }

    /// What a client brought was looked at before it came here.
    fn hello(&mut self, id: SessionId, hello: &[u8], sockets: Vec<OwnedFd>) -> Result<(), Errno> {
        let hello = Hello::read(hello).ok_or(Errno::EINVAL)?;
        if hello.protocol != PROTOCOL {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let mut sockets = sockets.into_iter().map(Netlink::known);
        let mut next = || sockets.next();
        let (Some(requests), Some(dump), events, own) = (next(), next(), next(), next()) else {
            return Err(Errno::EINVAL);
        };
        let session = [requests, dump];
        self.join(id, session, hello.extras, |cookie, here| {
            // Here nobody else needs to have them. Elsewhere no other can be had.
            if here {
                return Ok((Events::open()?, Netlink::open()?));
            }
            let (Some(events), Some(own)) = (events, own) else {
                return Err(Errno::from_raw(LACKS_SOCKETS as i32));
            };
            if events.namespace()? != cookie || own.namespace()? != cookie {
                return Err(Errno::EINVAL);
            }
            Ok((Events::of(events)?, own))
        })
    }
}

impl Sources for Machine {
    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.news.0.as_fd()]
    }

    fn meet(&mut self, id: SessionId, hello: &[u8], sockets: Vec<OwnedFd>) -> Welcome {
        let errno = self.hello(id, hello, sockets).map_or_else(|errno| errno.to_raw(), |()| 0);
        Welcome { protocol: PROTOCOL, errno: errno as u32 }
    }

    fn come_back(&mut self, sockets: Vec<OwnedFd>, extras: Extras) -> Option<SessionId> {
        let mut sockets = sockets.into_iter().map(Netlink::known);
        let session = [sockets.next()?, sockets.next()?];
        let id = self.open();
        // Its engine's sockets are gone where the guardian had no descriptors for them.
        let engine = |_, here: bool| {
            if here { Ok((Events::open()?, Netlink::open()?)) } else { Err(Errno::ENOBUFS) }
        };
        if self.join(id, session, extras, engine).is_err() {
            self.sessions.remove(&id);
            return None;
        }
        self.back = Some(id);
        Some(id)
    }

    fn engine_left(&mut self, number: u32, sockets: Vec<OwnedFd>) {
        self.next_namespace = self.next_namespace.max(number >> 2);
        let mut sockets = sockets.into_iter().map(Netlink::known);
        if let (Some(events), Some(own)) = (sockets.next(), sockets.next()) {
            if let Ok(cookie) = own.namespace() {
                self.left.push(Left { number, cookie, events, own });
            }
        }
    }

    fn all_are_back(&mut self, now: Time) {
        for left in self.left.drain(..) {
            (self.keep)(left.number, &[]);
        }
        self.namespaces.values_mut().for_each(|namespace| namespace.hub.all_are_restored(now));
    }
}

impl Service for Machine {
    fn open(&mut self) -> SessionId {
        // Those that are in use are passed over: one of a daemon outlives very many of others.
        while self.sessions.contains_key(&SessionId(self.next_session)) {
            self.next_session = self.next_session.wrapping_add(1);
        }
        let id = SessionId(self.next_session);
        self.next_session = self.next_session.wrapping_add(1);
        self.sessions.insert(id, None);
        id
    }

    fn resume(&mut self, id: SessionId, state: &SessionState, now: Time) -> SessionId {
        if self.back.take() == Some(id) && self.turn(id, |hub| hub.restore(id, state, now)).is_some() {
            return id;
        }
        self.open()
    }

    fn state(&self, id: SessionId) -> SessionState {
        let member = self.sessions.get(&id).and_then(Option::as_ref);
        let namespace = member.and_then(|member| self.namespaces.get(&member.namespace));
        namespace.map_or_else(SessionState::default, |namespace| SessionState {
            extras: namespace.extras,
            ..namespace.hub.state(id)
        })
    }

    fn close(&mut self, id: SessionId, now: Time) {
        self.turn(id, |hub| hub.close(id, now));
        if let Some(member) = self.sessions.remove(&id).flatten() {
            self.leave(member.namespace);
        }
    }

    fn receive(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> Result<(), WireError> {
        self.turn(id, |hub| hub.receive(id, bytes, now, sink)).unwrap_or(Ok(()))
    }

    fn receive_all(&mut self, id: SessionId, bytes: &[u8], now: Time, sink: &mut impl Sink) -> u64 {
        self.turn(id, |hub| hub.receive_all(id, bytes, now, sink)).unwrap_or(0)
    }

    fn writable(&mut self, id: SessionId, now: Time, sink: &mut impl Sink) {
        self.turn(id, |hub| hub.writable(id, now, sink));
    }

    fn is_dumping(&self, id: SessionId) -> bool {
        self.hub(id).is_some_and(|hub| hub.is_dumping(id))
    }

    fn event(&mut self, now: Time, sink: &mut impl Sink) {
        let mut ready = [EpollEvent::empty(); AT_ONCE];
        let Ok(n) = self.news.wait(&mut ready, EpollTimeout::ZERO) else { return };
        for event in ready.iter().take(n) {
            if let Some(namespace) = self.namespaces.get_mut(&(event.data() as u32)) {
                namespace.hub.event(now, sink);
            }
        }
    }

    fn statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.hub(id).and_then(|hub| hub.statistics(id))
    }

    fn all_statistics(&self) -> Vec<(SessionId, SessionStatistics)> {
        let mut all: Vec<_> = self.namespaces.values().flat_map(|namespace| namespace.hub.all_statistics()).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn take_refusal(&mut self) -> Option<String> {
        self.namespaces.values_mut().find_map(|namespace| namespace.hub.take_refusal())
    }

    fn engine_statistics(&self) -> Option<String> {
        let line = |namespace: &Namespace| {
            let Namespace { cookie, extras, sessions, hub } = namespace;
            let engine = hub.engine_statistics().unwrap_or_default();
            format!("network namespace {cookie}: {sessions} sessions, extras \"{extras}\"; {engine}")
        };
        Some(self.namespaces.values().map(line).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Option<Machine> {
        let machine = Machine::new(Box::new(|_, _| {})).ok();
        if machine.is_none() {
            eprintln!("skipped: it needs XFRM");
        }
        machine
    }

    #[test]
    fn the_number_of_a_session_is_given_to_no_other() {
        let Some(mut machine) = machine() else { return };
        let first = machine.open();
        machine.next_session = u32::MAX;
        let others = [machine.open(), machine.open()];
        assert!(!others.contains(&first), "{others:?}");
    }

    #[test]
    fn the_number_of_a_namespace_is_given_to_no_other() {
        let Some(mut machine) = machine() else { return };
        let (events, own) = (Netlink::open().unwrap(), Netlink::open().unwrap());
        machine.left.push(Left { number: 1 << 2, cookie: 0, events, own });
        machine.next_namespace = u32::MAX >> 2;
        let numbers = [machine.free_number(Extras::default()), machine.free_number(Extras::default())];
        assert_eq!(numbers, [0, 2 << 2]);
    }
}
