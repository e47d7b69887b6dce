//! PF_KEY sockets in front of a key engine.
//!
//! [`KeyEngine`] is what stands behind the sockets: the embedded engine, or XFRM. The hub stands between: it
//! knows the sessions (open PF_KEY sockets), checks requests, keeps registrations and promiscuity, decides who
//! hears what, and feeds dumps under back-pressure. Neither does I/O or reads a clock: bytes and a time go in,
//! (session, bytes) come out through a [`Sink`].
//!
//! ```
//! use pfkey_hub::{Context, DumpMessage, DumpStep, Errno, Hub, KeyEngine, Queues, Service as _, Supported, Time};
//! use pfkey_wire::{Header, Message, MessageType, Profile, SaType, Writer};
//!
//! /// It has nothing and takes nothing.
//! struct Nothing;
//!
//! impl KeyEngine for Nothing {
//!     type Dump = ();
//!
//!     fn request(&mut self, _: &Message<'_>, _: &mut Context<'_>) -> Result<(), Errno> {
//!         Err(Errno::ENOSYS)
//!     }
//!     fn dump(&mut self, _: &Message<'_>, _: Time) -> Result<(), Errno> {
//!         Ok(())
//!     }
//!     fn dump_next(&mut self, (): &mut (), _: Time, _: &mut DumpMessage<'_>) -> Result<DumpStep, Errno> {
//!         Ok(DumpStep::End)
//!     }
//!     fn dump_end(&mut self, (): ()) {}
//!     fn supported(&mut self) -> Result<Supported, Errno> {
//!         Ok(Supported::default())
//!     }
//! }
//!
//! let (mut hub, mut queues) = (Hub::new(Nothing), Queues::new());
//! let client = hub.open();
//! let mut buffer = [0; 16];
//! let header = Header::new(MessageType::FLUSH, SaType::ESP, 1, 4242);
//! let request = Writer::new(&mut buffer, header, Profile::Linux).finish().unwrap();
//! hub.receive(client, request, Time::from_secs(1_700_000_000), &mut queues).unwrap();
//! let answer = Header::read(&queues.pop(client).unwrap()).unwrap();
//! assert_eq!(answer.errno, Errno::ENOSYS.to_wire());
//! ```
#![forbid(unsafe_code)]

mod dialect;
mod dump;
mod hub;
mod outbox;
mod queue;
pub mod random;
mod service;
mod sessions;
mod settings;
mod sockets;

use std::time::Duration;

pub use dialect::{Dialect, LINUX, PromiscuousCopy, RFC2367};
pub use hub::{Hub, MAX_OBJECTS};
pub use outbox::{Audience, Context, DumpMessage, MessageBuffer, Outbox};
pub use queue::{Queues, truesize};
pub use service::{Service, SessionState};
pub use sessions::{Session, SessionStatistics, Sessions};

pub use pfkey_wire::Errno;

use pfkey_wire::Message;
use pfkey_wire::layout::SadbAlg;

/// A point in time: the duration since the Unix epoch. Whoever drives a hub supplies it.
pub type Time = Duration;

/// An open PF_KEY socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// Where a hub's messages go: a descriptor, a queue, a test's transcript.
pub trait Sink {
    /// Queues one message for a session. `false` = its queue is full and the message was not taken.
    fn deliver(&mut self, to: SessionId, message: &[u8]) -> bool;

    /// Queues a message of a dump for the session that asked for it. It may be kept for a while, so that several travel
    /// together; whoever drives the hub sees to it that they do. `false` as for [`Sink::deliver`].
    fn deliver_dumped(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.deliver(to, message)
    }

    /// Queues a promiscuous session's copy of a message, which may be one that it sent itself. `false` as for
    /// [`Sink::deliver`].
    fn deliver_copy(&mut self, to: SessionId, message: &[u8]) -> bool {
        self.deliver(to, message)
    }

    /// Whether a dump may go on: AF_KEY pauses one while more than two thirds of the receive buffer are used.
    /// A paused dump is resumed by the hub's `writable`.
    fn may_dump(&mut self, to: SessionId) -> bool {
        let _ = to;
        true
    }
}

/// The algorithms of a REGISTER reply, in the order of the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supported {
    /// `SADB_EXT_SUPPORTED_AUTH`; the extension is absent when empty.
    pub auth: Vec<SadbAlg>,
    /// `SADB_EXT_SUPPORTED_ENCRYPT`; the extension is absent when empty.
    pub encrypt: Vec<SadbAlg>,
}

/// A step of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpStep {
    /// One more message was written.
    Entry,
    /// There are no more.
    End,
}

/// What stands behind PF_KEY sockets.
///
/// The hub has already made the checks common to all messages; it also answers REGISTER, X_PROMISC, types
/// without a handler, and keeps the sessions. Everything else is the engine's. An `Err` becomes the 16-byte error
/// report to the requester; messages delivered before it stay delivered.
pub trait KeyEngine {
    /// Where a dump stands.
    type Dump;

    /// The dialect that it speaks.
    fn dialect(&self) -> &'static Dialect {
        &LINUX
    }

    /// Handles GETSPI, UPDATE, ADD, DELETE, GET, ACQUIRE, FLUSH and the X_SPD… and X_MIGRATE requests (not the
    /// dumps), and delivers every answer and notification they cause before it returns.
    ///
    /// # Errors
    /// The errno of the error report.
    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno>;

    /// Handles several requests of a session in order, as if each came alone. The error report of one that fails is
    /// delivered to the requester.
    fn request_all(&mut self, requests: &[Message<'_>], cx: &mut Context<'_>) {
        for request in requests {
            if let Err(errno) = self.request(request, cx) {
                cx.report(request.header(), errno, self.why().as_deref());
            }
        }
    }

    /// Why the last request was refused, in words, if there are any beside the errno; taken once.
    fn why(&mut self) -> Option<String> {
        None
    }

    /// Starts a DUMP or X_SPDDUMP.
    ///
    /// # Errors
    /// The errno of the error report for an unusable request. An empty database is no error here.
    fn dump(&mut self, request: &Message<'_>, now: Time) -> Result<Self::Dump, Errno>;

    /// Writes the next message of a dump, complete but for seq and pid, which the hub fills in. Objects added since the dump
    /// began are not seen, removed ones are skipped.
    ///
    /// # Errors
    /// The dump cannot go on; it is ended with this errno.
    fn dump_next(&mut self, dump: &mut Self::Dump, now: Time, message: &mut DumpMessage<'_>)
    -> Result<DumpStep, Errno>;

    /// Gives back what a dump held; called exactly once for each, however it ended.
    fn dump_end(&mut self, dump: Self::Dump);

    /// SAs and policies that it holds in this process's memory; 0 if they are elsewhere.
    fn objects(&self) -> usize {
        0
    }

    /// The algorithms that a REGISTER reply lists.
    ///
    /// # Errors
    /// The errno of the error report.
    fn supported(&mut self) -> Result<Supported, Errno>;

    /// Whether it has an attribute of XFRM's (`XFRMA_*`).
    ///
    /// # Errors
    /// EOPNOTSUPP: it has not.
    fn attribute(&mut self, number: u16) -> Result<(), Errno> {
        let _ = number;
        Err(Errno::EOPNOTSUPP)
    }

    /// Called when the first session registers (`true`) and when the last registered one closes (`false`).
    ///
    /// # Errors
    /// The errno of the REGISTER's error report.
    fn set_registered(&mut self, registered: bool, now: Time) -> Result<(), Errno> {
        let _ = (registered, now);
        Ok(())
    }

    /// When [`KeyEngine::advance`] has to be called next.
    fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Does what is due: expiry, timers. It may do a part; [`KeyEngine::next_deadline`] has then passed already, and it is called
    /// again after others had their turn.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// A line about the engine itself for the daemon's statistics, if there is something to say.
    fn statistics(&self) -> Option<String> {
        None
    }

    /// Takes news that it hears of by itself.
    fn event(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }
}

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
