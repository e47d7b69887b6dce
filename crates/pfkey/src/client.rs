//! A PF_KEY descriptor, used for requests and their answers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno as System;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use zeroize::{Zeroize, Zeroizing};

use crate::calls::{Call, Calls};
use crate::dump::{Policies, Sas};
use crate::error::Error;
use crate::event::{Algorithms, Event};
use crate::model::migrate::Migration;
use crate::model::policy::Policy as PolicyInfo;
use crate::model::sa::{Sa as SaInfo, SaId};
use crate::model::view::{PolicyView, SaView};
use crate::policy::Policy;
use crate::received::Received;
use crate::request::{Request, SpiRange};
use crate::sa::Sa;
use crate::socket::{self, Backend, OpenError};
use crate::wire::{Errno, Header, MAX_MESSAGE_LEN, MessageType, SaType};

/// How long an answer may take. AF_KEY and a pfkeyd have it ready when `send` returns.
const LIMIT: Duration = Duration::from_secs(5);

/// A PF_KEY descriptor. A request waits for its answer; what else arrives meanwhile is kept for
/// [`Client::next_event`].
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    calls: Calls,
    /// Both ways carry keys.
    buffer: Zeroizing<Vec<u8>>,
    kept: VecDeque<Zeroizing<Vec<u8>>>,
    limit: Duration,
    /// A dump whose rest was not read.
    pub(crate) unread: Option<Call>,
    promiscuous: bool,
    /// A request of which a copy will come, because this descriptor is promiscuous.
    copied: Option<Call>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<OwnedFd> for Client {
    /// A client on a PF_KEY descriptor that was opened elsewhere.
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            calls: Calls::new(),
            buffer: Zeroizing::default(),
            kept: VecDeque::new(),
            limit: LIMIT,
            unread: None,
            promiscuous: false,
            copied: None,
        }
    }
}

impl From<Client> for OwnedFd {
    fn from(client: Client) -> Self {
        client.fd
    }
}

impl Client {
    /// Opens a descriptor on the backend that `PFKEY_BACKEND` names: AF_KEY, or XFRM where the kernel has none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        Self::open_with(&Backend::from_environment()?)
    }

    /// Opens a descriptor on a backend. It is closed over exec.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(backend: &Backend) -> Result<Self, OpenError> {
        socket::open_with_cloexec(backend).map(Self::from)
    }

    /// Changes how long an answer, or an entry of a dump, may take: 5 seconds.
    pub const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Adds an SA.
    ///
    /// # Errors
    /// [`Error::Invalid`]; EEXIST if there is one with its name.
    pub fn add(&mut self, sa: &Sa) -> Result<(), Error> {
        self.call(&Request::Add(sa), |_| ())
    }

    /// Completes a larval SA, whose SPI [`Client::allocate_spi`] returned, or changes the limits of another.
    ///
    /// # Errors
    /// [`Error::Invalid`]; ESRCH if there is none with its name.
    pub fn update(&mut self, sa: &Sa) -> Result<(), Error> {
        self.call(&Request::Update(sa), |_| ())
    }

    /// The SA with a name, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn get(&mut self, id: SaId) -> Result<Option<SaInfo>, Error> {
        let request = Request::Get(id);
        let found =
            self.call(&request, |answer| answer.message.as_ref().and_then(SaView::of_message).map(|sa| (&sa).into()));
        match found {
            Ok(None) => Err(Error::Incomplete { request: request.msg_type(), missing: "SA" }),
            other => unless(other, Errno::ESRCH, None),
        }
    }

    /// Deletes the SA with a name. False: there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn delete(&mut self, id: SaId) -> Result<bool, Error> {
        unless(self.call(&Request::Delete(id), |_| true), Errno::ESRCH, false)
    }

    /// Makes a larval SA and returns its SPI.
    ///
    /// # Errors
    /// [`Error::Invalid`]; ENOENT if none is free.
    pub fn allocate_spi(&mut self, wanted: &SpiRange) -> Result<u32, Error> {
        let request = Request::GetSpi(wanted);
        let spi =
            self.call(&request, |answer| answer.message.and_then(|message| message.sa()).map(|sa| sa.spi.get()))?;
        spi.ok_or(Error::Incomplete { request: request.msg_type(), missing: "SPI" })
    }

    /// Deletes all SAs of a type; of every type for UNSPEC.
    ///
    /// # Errors
    /// [`Error`].
    pub fn flush(&mut self, satype: SaType) -> Result<(), Error> {
        // Linux refuses it where there is nothing.
        unless(self.call(&Request::Flush(satype), |_| ()), Errno::ESRCH, ())
    }

    /// All SAs of a type; of every type for UNSPEC.
    ///
    /// # Errors
    /// [`Error`]; EBUSY while another dump of this descriptor runs.
    pub fn dump(&mut self, satype: SaType) -> Result<Sas<'_>, Error> {
        Sas::begin(self, &Request::Dump(satype))
    }

    /// A dump whose messages are read by `each`, until it fails.
    ///
    /// # Errors
    /// [`Error`], or that of `each`.
    pub fn for_each<E: From<Error>>(
        &mut self,
        request: &Request<'_>,
        each: impl FnMut(&Received<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        crate::dump::for_each(self, request, each)
    }

    /// Adds a policy and returns its id.
    ///
    /// # Errors
    /// [`Error::Invalid`]; EEXIST if there is one with its selector.
    pub fn add_policy(&mut self, policy: &Policy) -> Result<u32, Error> {
        self.policy_id(&Request::AddPolicy(policy))
    }

    /// Adds a policy, in the place of one with its selector if there is one, and returns its id.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn update_policy(&mut self, policy: &Policy) -> Result<u32, Error> {
        self.policy_id(&Request::UpdatePolicy(policy))
    }

    fn policy_id(&mut self, request: &Request<'_>) -> Result<u32, Error> {
        let id = self
            .call(request, |answer| answer.message.and_then(|message| message.policy()).map(|(ext, _)| ext.id.get()))?;
        id.ok_or(Error::Incomplete { request: request.msg_type(), missing: "policy" })
    }

    /// The policy with an id, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn policy(&mut self, id: u32) -> Result<Option<PolicyInfo>, Error> {
        let request = Request::Policy(id);
        let read =
            |answer: &Received<'_>| answer.message.as_ref().and_then(PolicyView::of_message).map(|p| (&p).into());
        match self.call(&request, read) {
            Ok(None) => Err(Error::Incomplete { request: request.msg_type(), missing: "policy" }),
            other => unless(other, Errno::ENOENT, None),
        }
    }

    /// Deletes the policy with the selector, direction and label of another. False: there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn delete_policy(&mut self, policy: &Policy) -> Result<bool, Error> {
        unless(self.call(&Request::DeletePolicy(policy), |_| true), Errno::ENOENT, false)
    }

    /// Deletes the policy with an id. False: there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn delete_policy_by_id(&mut self, id: u32) -> Result<bool, Error> {
        unless(self.call(&Request::DeletePolicyById(id), |_| true), Errno::ENOENT, false)
    }

    /// Deletes all policies.
    ///
    /// # Errors
    /// [`Error`].
    pub fn flush_policies(&mut self) -> Result<(), Error> {
        unless(self.call(&Request::FlushPolicies, |_| ()), Errno::ESRCH, ())
    }

    /// All policies.
    ///
    /// # Errors
    /// [`Error`]; EBUSY while another dump of this descriptor runs.
    pub fn policies(&mut self) -> Result<Policies<'_>, Error> {
        Policies::begin(self, &Request::DumpPolicies)
    }

    /// Moves SAs and a policy's tunnels.
    ///
    /// # Errors
    /// [`Error::Invalid`]; that of the key engine.
    pub fn migrate(&mut self, migration: &Migration) -> Result<(), Error> {
        let call = self.send(&Request::Migrate(migration))?;
        // Refused, it is answered. Otherwise there is only the notification that everybody receives, and that may be of
        // another's: what else waits is read first.
        let mut deadline = self.deadline();
        let mut has_moved = false;
        while let Some(message) = self.next_message(deadline)? {
            if let Some(header) = Header::read(&message) {
                if call.answers(&header) {
                    return call.outcome_of(&header);
                }
                if (header.msg_type, header.seq) == (MessageType::X_MIGRATE, 0) {
                    (deadline, has_moved) = (Some(Instant::now()), true);
                }
            }
            self.kept.push_back(message);
        }
        if has_moved { Ok(()) } else { Err(Error::NoAnswer { request: call.request(), limit: self.limit }) }
    }

    /// Makes this descriptor one of a key manager's for a type of SA: it receives ACQUIRE and EXPIRE. Returns what
    /// algorithms there are.
    ///
    /// # Errors
    /// [`Error::Invalid`]; EEXIST if it is registered already.
    pub fn register(&mut self, satype: SaType) -> Result<Algorithms, Error> {
        self.call(&Request::Register(satype), |answer| answer.message.as_ref().map(Algorithms::of).unwrap_or_default())
    }

    /// Receives a copy of every message of every socket from now on, or not any more.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_promiscuous(&mut self, promiscuous: bool) -> Result<(), Error> {
        self.call(&Request::Promiscuous(promiscuous), |_| ())?;
        self.promiscuous = promiscuous;
        Ok(())
    }

    /// Tells the kernel that no SA will come for its ACQUIRE with this sequence number. There is no answer.
    ///
    /// # Errors
    /// [`Error`].
    pub fn give_up(&mut self, satype: SaType, seq: u32, errno: Errno) -> Result<(), Error> {
        self.send(&Request::GiveUp(satype, seq, errno)).map(drop)
    }

    /// Sends a request, waits for its answer and reads it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn call<T>(&mut self, request: &Request<'_>, read: impl FnOnce(&Received<'_>) -> T) -> Result<T, Error> {
        let call = self.send(request)?;
        let deadline = self.deadline();
        self.answer(call, deadline, read)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Refused`] for what `send` refuses, [`Error::Closed`], [`Error::Io`].
    pub fn send(&mut self, request: &Request<'_>) -> Result<Call, Error> {
        let (call, message) = self.calls.begin(request, &mut self.buffer)?;
        let sent = socket::send(self.fd.as_raw_fd(), message);
        message.zeroize();
        match sent {
            Ok(_) => {
                self.copied = Some(call).filter(|_| self.promiscuous);
                Ok(call)
            }
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Error::Closed,
                Some(errno @ (libc::EINVAL | libc::EMSGSIZE)) => {
                    Error::Refused { request: call.request(), errno: Errno::from_raw(errno) }
                }
                _ => Error::Io(error),
            }),
        }
    }

    /// Reads the next answer to a call; keeps what else arrives.
    pub(crate) fn answer<T>(
        &mut self,
        call: Call,
        deadline: Option<Instant>,
        read: impl FnOnce(&Received<'_>) -> T,
    ) -> Result<T, Error> {
        loop {
            let Some(mut message) = self.next_message(deadline)? else {
                return Err(Error::NoAnswer { request: call.request(), limit: self.limit });
            };
            if Header::read(&message).is_some_and(|header| call.answers(&header)) {
                if let Some(answer) = Received::read(&mut message) {
                    return call.outcome(&answer).map(|()| read(&answer));
                }
            } else if !self.is_unread(&message) {
                self.kept.push_back(message);
            }
        }
    }

    /// Whether a message is of a dump that nobody reads any more.
    fn is_unread(&mut self, message: &[u8]) -> bool {
        let Some((call, header)) = self.unread.zip(Header::read(message)) else { return false };
        let is = call.answers(&header);
        if is && (header.errno != 0 || header.seq == 0) {
            self.unread = None;
        }
        is
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.limit)
    }

    /// The next message that answers no request, whoever caused it; `None` if the deadline passes first, at once for one that
    /// has passed.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Io`].
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        self.next_received(deadline, Event::of)
    }

    /// As [`Client::next_event`], for messages of which [`Event`] does not say enough.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn next_received<T>(
        &mut self,
        deadline: Option<Instant>,
        read: impl FnOnce(&Received<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        loop {
            let mut message = match self.kept.pop_front() {
                Some(message) => message,
                None => match self.next_message(deadline)? {
                    Some(message) => message,
                    None => return Ok(None),
                },
            };
            if self.is_unread(&message) {
                continue;
            }
            if let Some(received) = Received::read(&mut message) {
                return Ok(Some(read(&received)));
            }
        }
    }

    /// The next event, if one waits: after poll, epoll or a runtime said that the descriptor is readable, until this
    /// returns `None`.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn try_event(&mut self) -> Result<Option<Event>, Error> {
        self.next_event(Some(Instant::now()))
    }

    /// The next message that is no copy of this client's own request; `None` if the deadline passes first.
    fn next_message(&mut self, deadline: Option<Instant>) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        loop {
            let Some(len) = self.receive(deadline)? else { return Ok(None) };
            let bytes = self.buffer.get_mut(..len).unwrap_or_default();
            let message = Zeroizing::new(bytes.to_vec());
            bytes.zeroize();
            if self.copied.is_some_and(|call| call.is_copied_by(&message)) {
                self.copied = None;
                self.kept.push_back(message);
            } else {
                return Ok(Some(message));
            }
        }
    }

    /// Receives a message into the buffer; `None` if the deadline passes first.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<usize>, Error> {
        self.buffer.resize(MAX_MESSAGE_LEN, 0);
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(System::ECONNRESET) => return Err(Error::Closed),
                Ok(len) => return Ok(Some(len)),
                Err(System::EAGAIN) => {}
                Err(System::EINTR) => continue,
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(None),
                // Rounded up, so that the last millisecond is slept through.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(System::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }
}

/// The outcome, in which being refused with an errno is a value.
fn unless<T>(outcome: Result<T, Error>, errno: Errno, value: T) -> Result<T, Error> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(value),
        other => other,
    }
}
