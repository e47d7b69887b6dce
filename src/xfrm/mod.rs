//! A key engine over NETLINK_XFRM: PF_KEY on a kernel without AF_KEY. SAs and policies are the kernel's own.
//!
//! XFRM copies the sequence number and process id of a netlink request into the notification that the request
//! causes. Here they are PF_KEY's, so that every listener, also of another process, hears what AF_KEY would say. What
//! XFRM cannot say is in [`shadow`].
#![deny(unsafe_code)]

mod acquire;
mod algorithm;
mod attribute;
pub mod direct;
mod dump;
mod event;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gone;
mod inbox;
mod layout;
mod netlink;
mod parts;
mod policy;
mod probe;
mod sa;
mod sa_request;
mod shadow;
mod spd_request;
mod together;
mod value;

use std::os::fd::{AsFd, BorrowedFd};

use zeroize::Zeroize;

use crate::afkey::message::{self, BUFFER_LEN, Shown};
use crate::afkey::policy::Policy;
use crate::afkey::sa::{Sa, Said};
use crate::keyd::{Audience, Context, DumpStep, Errno, KeyEngine, Supported, Time};
use crate::wire::{Extras, Header, Message, MessageType, Profile, WireError};
use attribute::{Received, Writer, split};
pub use dump::XfrmDump;
use gone::Gone;
use inbox::Inbox;
use netlink::{Group, Netlink, RECEIVE_BUFFER};
use shadow::{Shadow, Unused};

/// Bytes of events that may wait. A skb is charged four times what it carries; AF_KEY's sockets hold 238 ADDs.
const EVENT_BUFFER: usize = 4 << 20;

/// An SA request of ours whose notification is on its way.
struct Own {
    said: Said,
    seq: u32,
    pid: u32,
    /// An UPDATE found an SA in use, of which it changes the limits only.
    mature: bool,
    unused: Option<Box<Unused>>,
}

/// A key engine over NETLINK_XFRM.
pub struct XfrmEngine {
    /// Requests and their answers; hears no group, so that no answer is lost.
    requests: Netlink,
    /// Hears the groups; absent only while an event is looked at.
    inbox: Option<Inbox>,
    /// A dump's socket that is free: the kernel fills large datagrams on one that was used.
    spare: Option<Netlink>,
    writer: Writer,
    /// Changes that travel together.
    gathered: Writer,
    /// The messages that answered the last request.
    answer: Vec<u8>,
    receive_buffer: Box<[u8]>,
    /// PF_KEY messages are built here.
    buffer: Box<[u8]>,
    shadow: Shadow,
    gone: Gone,
    /// The shadow holds every SA, not only those that were added while it watched.
    complete: bool,
    own: Option<Own>,
    /// Sequence number and process id of the change whose notification is awaited.
    awaited: Option<(u32, u32)>,
    /// The error of that change, when something else was asked of the kernel before it was looked at.
    failed: Option<Errno>,
    /// Security labels were seen: policies' notifications have to be asked for them.
    labelled: bool,
    probed: probe::Probed,
    extras: Extras,
    next_reqid: u32,
    /// How often the kernel had to drop events.
    overruns: u64,
}

impl XfrmEngine {
    /// Opens the engine in this thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EAFNOSUPPORT on a kernel without XFRM_USER.
    pub fn new() -> Result<Self, Errno> {
        let events = Netlink::open()?;
        for group in [Group::Sa, Group::Policy, Group::Migrate, Group::Expire] {
            events.join(group)?;
        }
        events.set_receive_buffer(EVENT_BUFFER);
        Ok(Self::over(Netlink::open()?, events))
    }

    /// An engine that asks and hears over these sockets.
    fn over(requests: Netlink, events: Netlink) -> Self {
        Self {
            requests,
            inbox: Some(Inbox::new(events)),
            spare: None,
            writer: Writer::default(),
            // Pages that are not written to are not there.
            gathered: Writer::with_room(2 * together::BYTES),
            answer: Vec::new(),
            receive_buffer: vec![0; RECEIVE_BUFFER].into(),
            buffer: vec![0; BUFFER_LEN].into(),
            shadow: Shadow::default(),
            gone: Gone::default(),
            complete: false,
            own: None,
            awaited: None,
            failed: None,
            labelled: false,
            probed: probe::Probed::default(),
            extras: Extras::default(),
            next_reqid: 0,
            overruns: 0,
        }
    }

    /// Sets what is offered beyond AF_KEY.
    pub const fn set_extras(&mut self, extras: Extras) {
        self.extras = extras;
    }

    /// How often the kernel dropped events because they were not taken in time. What the engine knows was made good
    /// each time; clients have missed notifications, as they do on a full AF_KEY socket.
    #[must_use]
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Number of SAs that the engine remembers something of.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shadow.len()
    }

    /// Whether it remembers something of an SA.
    #[must_use]
    pub fn remembers(&self, said: &Said) -> bool {
        self.shadow.has(said)
    }

    /// Sends what the writer holds, one request, and takes the answer up to the acknowledgement.
    fn transact(&mut self) -> Result<(), Errno> {
        self.answer.zeroize();
        if self.awaited.is_some() && self.failed.is_none() {
            self.failed = self.take_error().err();
        }
        let sent = self.requests.send(self.writer.bytes());
        self.writer.clear();
        sent?;
        self.take_acknowledgement()
    }

    /// Sends what the writer holds, one change without `NLM_F_ACK`, and tells of events up to its own. The kernel tells
    /// every listener of a change before `send` returns, this engine too; an error it tells the requester, so nothing
    /// else has to be received.
    fn change(&mut self, header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.awaited = Some((header.seq, header.pid));
        let sent = self.requests.send(self.writer.bytes());
        self.writer.clear();
        sent?;
        self.take_events(cx);
        match self.awaited.take() {
            None => Ok(()),
            // It failed, or its event was lost.
            Some(_) => self.failed.take().map_or_else(|| self.take_error(), Err),
        }
    }

    /// The error of a change, if there is one.
    fn take_error(&mut self) -> Result<(), Errno> {
        let Some(received) = self.requests.receive(&mut self.receive_buffer)? else { return Ok(()) };
        let errno = split(received).map_or(0, |(one, _)| one.error());
        received.zeroize();
        if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) }
    }

    /// Keeps what is answered; gives the errno of the next acknowledgement.
    fn take_acknowledgement(&mut self) -> Result<(), Errno> {
        loop {
            // The kernel answers within send. Only memory can be missing.
            let Some(received) = self.requests.receive(&mut self.receive_buffer)? else { return Err(Errno::ENOBUFS) };
            let mut rest: &[u8] = received;
            let mut acknowledged = None;
            while let Some((one, next)) = split(rest) {
                if one.msg_type == layout::message::ERROR {
                    acknowledged = Some(one.error());
                }
                rest = next;
            }
            if acknowledged.is_none() {
                self.answer.extend_from_slice(received);
            }
            received.zeroize();
            match acknowledged {
                None => {}
                Some(0) => return Ok(()),
                Some(errno) => return Err(Errno::from_raw(errno)),
            }
        }
    }

    /// The first message of the last answer.
    fn answered(&self) -> Option<Received<'_>> {
        split(&self.answer).map(|(received, _)| received)
    }

    /// Hands a message that `write` builds to an audience. The buffer is wiped, it may have held keys.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        audience: Audience,
        write: impl for<'b> FnOnce(&'b mut [u8]) -> Result<&'b mut [u8], WireError>,
    ) -> Result<usize, Errno> {
        let message = write(&mut self.buffer).map_err(|_| Errno::ENOBUFS)?;
        let takers = cx.out.deliver(audience, message);
        message.zeroize();
        Ok(takers)
    }

    fn send_header(&mut self, cx: &mut Context<'_>, audience: Audience, header: Header) -> Result<(), Errno> {
        self.send(cx, audience, |buffer| crate::wire::Writer::new(buffer, header, Profile::Linux).finish()).map(|_| ())
    }

    fn send_sa(
        &mut self,
        cx: &mut Context<'_>,
        audience: Audience,
        header: Header,
        sa: &Sa,
        shown: Shown,
    ) -> Result<(), Errno> {
        self.send(cx, audience, |buffer| message::write_sa(buffer, header, sa, shown)).map(|_| ())
    }

    fn send_policy(
        &mut self,
        cx: &mut Context<'_>,
        audience: Audience,
        header: Header,
        policy: &Policy,
    ) -> Result<(), Errno> {
        self.send(cx, audience, |buffer| message::write_policy(buffer, header, policy)).map(|_| ())
    }

    /// The reference count that Linux shows of a policy in a dump: one more while a timer is armed, which it is in the
    /// first second and for policies that end.
    fn references(&self, policy: &Policy, now: Time) -> u16 {
        if policy.ends().is_some() || self.shadow.is_young(policy.id, now) { 2 } else { 1 }
    }
}

impl KeyEngine for XfrmEngine {
    type Dump = XfrmDump;

    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let msg_type = request.header().msg_type;
        // What happened before is told before; of a change it is told with the change.
        let changes = matches!(
            msg_type,
            MessageType::ADD
                | MessageType::DELETE
                | MessageType::X_SPDADD
                | MessageType::X_SPDUPDATE
                | MessageType::X_SPDDELETE
                | MessageType::X_SPDDELETE2
        );
        if !changes {
            self.take_events(cx);
        }
        let outcome = match msg_type {
            MessageType::GETSPI => self.getspi(request, cx),
            MessageType::UPDATE | MessageType::ADD => self.add(request, cx),
            MessageType::DELETE => self.delete(request, cx),
            MessageType::GET => self.get(request, cx),
            MessageType::ACQUIRE => self.acquire_failed(request),
            MessageType::FLUSH => self.flush(request, cx),
            MessageType::X_SPDUPDATE | MessageType::X_SPDADD | MessageType::X_SPDSETIDX => self.spd_add(request, cx),
            MessageType::X_SPDDELETE => self.spd_delete(request, cx),
            MessageType::X_SPDGET => self.spd_get(request, cx),
            MessageType::X_SPDDELETE2 => self.spd_delete_by_id(request, cx),
            MessageType::X_SPDFLUSH => self.spd_flush(request, cx),
            MessageType::X_MIGRATE => self.migrate(request),
            _ => Err(Errno::EOPNOTSUPP),
        };
        self.own = None;
        // What was received with the notification waits in no socket any more.
        self.take_events(cx);
        outcome
    }

    fn request_all(&mut self, requests: &[Message<'_>], cx: &mut Context<'_>) {
        self.change_together(requests, cx);
    }

    fn dump(&mut self, request: &Message<'_>, now: Time) -> Result<XfrmDump, Errno> {
        self.start_dump(request, now)
    }

    fn dump_next(&mut self, dump: &mut XfrmDump, now: Time, message: &mut Vec<u8>) -> Result<DumpStep, Errno> {
        self.continue_dump(dump, now, message)
    }

    fn dump_end(&mut self, dump: XfrmDump) {
        self.end_dump(dump);
    }

    fn supported(&mut self) -> Result<Supported, Errno> {
        self.probe_all()
    }

    fn set_registered(&mut self, registered: bool, _now: Time) -> Result<(), Errno> {
        let events = self.inbox.as_ref().ok_or(Errno::EBUSY)?.netlink();
        if !registered {
            events.leave(Group::Acquire);
            events.leave(Group::Mapping);
            return Ok(());
        }
        events.join(Group::Acquire)?;
        events.join(Group::Mapping)?;
        if !self.complete {
            self.reconcile()?;
        }
        Ok(())
    }

    fn statistics(&self) -> Option<String> {
        Some(format!("the kernel dropped events {} times; SAs remembered: {}", self.overruns, self.remembered()))
    }

    fn event_sources(&self) -> Vec<BorrowedFd<'_>> {
        self.inbox.iter().map(AsFd::as_fd).collect()
    }

    fn event(&mut self, cx: &mut Context<'_>) {
        self.take_events(cx);
    }
}
