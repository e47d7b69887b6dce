//! A key engine over NETLINK_XFRM.
//!
//! XFRM copies the sequence number and process id of a netlink request into the notification that the request
//! causes. Here they are PF_KEY's, so that every listener, in other processes too, can send AF_KEY's notification. What
//! XFRM's messages leave out is in `shadow`.

mod acquire;
mod apply;
mod batch;
mod change;
mod dump;
mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inbox;
mod probe;
mod removals;
mod reqid;
mod requests;
mod sa_request;
mod session;
mod shadow;
mod spd_request;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd};

use change::{Changes, is_one_change};
pub use dump::XfrmDump;
use inbox::Inbox;
use pfkey_hub::{Context, DumpMessage, DumpStep, Errno, KeyEngine, Supported, Time};
use pfkey_model::judge::Judge;
use pfkey_model::policy::Policy;
use pfkey_model::request::Request;
use pfkey_model::sa::SaId;
use pfkey_wire::hello::EVENT_BUFFER;
use pfkey_wire::{Extras, Message};
use removals::Removals;
use reqid::Reqids;
use requests::Requests;
use session::OwnSockets;
pub use session::SessionSockets;
use shadow::Shadow;

use crate::attribute::Writer;
use crate::netlink::{Group, Netlink};

/// A key engine over NETLINK_XFRM.
pub struct XfrmEngine {
    /// Requests and their answers. It joins no group, so that no answer is lost.
    requests: Requests,
    /// Notifications: joins the groups.
    inbox: Inbox,
    /// The socket of a dump that ended. On a used socket the kernel sends larger datagrams.
    spare: Option<Netlink>,
    /// Its own two, while it acts through those of a session.
    lent: Option<OwnSockets>,
    /// It is of another network namespace than this process, where it can open no socket.
    elsewhere: bool,
    writer: Writer,
    /// The messages of a batch.
    gathered: Writer,
    shadow: Shadow,
    removals: Removals,
    /// The larval that is being removed because a key manager gave it up.
    given_up: Option<SaId>,
    /// The shadow holds every SA, not only those that were added while it watched.
    complete: bool,
    /// Events were lost and the shadow is not yet reconciled.
    behind: bool,
    /// When events were taken last; `None`: that was before something that may have taken long.
    looked: Option<Time>,
    changes: Changes,
    /// Security labels were seen. Notifications of policies lack them, so that each policy has to be asked for.
    labelled: bool,
    probed: probe::Probed,
    extras: Extras,
    reqids: Reqids,
    /// How often the kernel had to drop events.
    overruns: u64,
    /// Why the last request was refused, in words.
    why: Option<String>,
}

/// A socket that receives the events which an engine takes. They wait in it while no engine has it.
#[derive(Debug)]
pub struct Events(Netlink);

impl Events {
    /// Opens one in this thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EAFNOSUPPORT on a kernel without XFRM_USER.
    pub fn open() -> Result<Self, Errno> {
        let socket = Netlink::open()?;
        // AF_KEY's sockets hold 238 ADDs.
        socket.set_receive_buffer(EVENT_BUFFER);
        Self::of(socket)
    }

    /// Makes a socket hear the events of its network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN there.
    pub fn of(socket: Netlink) -> Result<Self, Errno> {
        for group in [Group::Sa, Group::Policy, Group::Migrate, Group::Expire] {
            socket.join(group)?;
        }
        Ok(Self(socket))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl XfrmEngine {
    /// Opens the engine in this thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EAFNOSUPPORT on a kernel without XFRM_USER.
    pub fn new() -> Result<Self, Errno> {
        Self::with_events(Events::open()?)
    }

    /// As [`XfrmEngine::new`], with a socket that another engine may have had, in another process: this one begins with the
    /// events that the other did not take.
    ///
    /// # Errors
    /// As [`XfrmEngine::new`].
    pub fn with_events(events: Events) -> Result<Self, Errno> {
        Ok(Self::over(Netlink::open()?, events.0))
    }

    /// An engine over these sockets.
    fn over(requests: Netlink, events: Netlink) -> Self {
        Self {
            requests: Requests::new(requests),
            inbox: Inbox::new(events),
            spare: None,
            lent: None,
            elsewhere: false,
            writer: Writer::default(),
            // Pages that are never written take no memory.
            gathered: Writer::with_room(2 * batch::BYTES),
            shadow: Shadow::default(),
            removals: Removals::default(),
            given_up: None,
            complete: false,
            behind: false,
            looked: None,
            changes: Changes::default(),
            labelled: false,
            probed: probe::Probed::default(),
            extras: Extras::default(),
            reqids: Reqids::default(),
            overruns: 0,
            why: None,
        }
    }

    /// As [`XfrmEngine::with_events`], with a socket for its own questions. `elsewhere`: both are of another network namespace
    /// than this process.
    #[must_use]
    pub fn with_sockets(events: Events, own: Netlink, elsewhere: bool) -> Self {
        Self { elsewhere, ..Self::over(own, events.0) }
    }

    /// Sets what is offered beyond AF_KEY.
    pub const fn set_extras(&mut self, extras: Extras) {
        self.extras = extras;
    }

    /// How often the kernel dropped events because they were not taken in time. The engine reconciled what it knows each
    /// time; clients missed notifications, as they do on a full AF_KEY socket.
    #[must_use]
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Number of SAs in the shadow.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shadow.len()
    }

    /// Whether an SA is in the shadow.
    #[must_use]
    pub fn remembers(&self, id: &SaId) -> bool {
        self.shadow.has(id)
    }

    /// The reference count of a policy that Linux shows in a dump: one more while its timer is armed, which it is in the
    /// first second, and for policies with a limit.
    fn references(&self, policy: &Policy, now: Time) -> u16 {
        if policy.ends().is_some() || self.shadow.is_young(policy.id, now) { 2 } else { 1 }
    }
}

impl XfrmEngine {
    /// Does what a request asks.
    fn handle(&mut self, message: &Message<'_>, request: Request, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = message.header();
        drop(self.requests.take_said());
        let flushes = matches!(request, Request::Flush(_) | Request::PolicyFlush | Request::Migrate(_));
        let outcome = match request {
            Request::GetSpi(wanted) => self.getspi(header, &wanted, cx),
            Request::Get(id) => self.get(header, &id, cx),
            Request::GiveUp(seq) => {
                seq.into_iter().for_each(|seq| self.give_up(header, seq, cx));
                Ok(())
            }
            Request::Flush(proto) => self.flush(header, proto, cx),
            Request::PolicyGet(id) => self.spd_get(header, id, cx),
            Request::PolicyFlush => self.spd_flush(header, cx),
            Request::Migrate(migration) => self.migrate(&migration),
            Request::Add(_)
            | Request::Update(_)
            | Request::Delete(_)
            | Request::PolicyAdd(_)
            | Request::PolicyUpdate(_)
            | Request::PolicyDelete(_)
            | Request::PolicyDeleteById(_) => self.change(message, &request, cx),
        };
        if outcome.is_err() {
            // Before anything else is asked.
            self.why = self.requests.take_said().remove(&0);
        }
        // A change that succeeded took the events already.
        if flushes || is_one_change(header.msg_type) && outcome.is_err() {
            self.take_events(cx);
        }
        outcome
    }
}

/// What becomes readable when the kernel has news for it.
impl AsFd for XfrmEngine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }
}

impl KeyEngine for XfrmEngine {
    type Dump = XfrmDump;

    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let read = Request::read(request, cx.now.as_secs(), self);
        // Notifications of earlier events come before the answer. A change takes them itself.
        if read.is_err() || !is_one_change(request.header().msg_type) {
            self.take_events(cx);
        }
        let outcome = read.and_then(|read| self.handle(request, read, cx));
        self.requests.forget();
        outcome
    }

    fn why(&mut self) -> Option<String> {
        self.why.take()
    }

    fn request_all(&mut self, requests: &[Message<'_>], cx: &mut Context<'_>) {
        self.apply_batch(requests, cx);
        self.requests.forget();
    }

    fn dump(&mut self, request: &Message<'_>, now: Time) -> Result<XfrmDump, Errno> {
        self.start_dump(request, now)
    }

    fn dump_next(&mut self, dump: &mut XfrmDump, now: Time, message: &mut DumpMessage<'_>) -> Result<DumpStep, Errno> {
        self.continue_dump(dump, now, message)
    }

    fn dump_end(&mut self, dump: XfrmDump) {
        self.end_dump(dump);
    }

    fn supported(&mut self) -> Result<Supported, Errno> {
        self.as_itself(Self::probe_all)
    }

    fn attribute(&mut self, number: u16) -> Result<(), Errno> {
        Judge::attribute(self, number)
    }

    fn set_registered(&mut self, registered: bool, _now: Time) -> Result<(), Errno> {
        let events = self.inbox.netlink();
        if !registered {
            events.leave(Group::Acquire);
            events.leave(Group::Mapping);
            return Ok(());
        }
        events.join(Group::Acquire)?;
        events.join(Group::Mapping).inspect_err(|_| events.leave(Group::Acquire))?;
        // If that fails, it is repeated with the next events. The registration stays.
        if !self.complete {
            self.catch_up();
        }
        Ok(())
    }

    fn statistics(&self) -> Option<String> {
        Some(format!("the kernel dropped events {} times; SAs remembered: {}", self.overruns, self.remembered()))
    }

    fn event(&mut self, cx: &mut Context<'_>) {
        self.take_events(cx);
        self.requests.forget();
    }
}
