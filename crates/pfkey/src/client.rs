//! A PF_KEY descriptor, used for requests and their answers.

mod exchange;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

use self::exchange::{Moving, transmit};
use crate::batch::{Batch, Outcomes};
use crate::calls::{Call, Calls, Reply, is_dump};
use crate::dump::{Policies, Sas};
use crate::error::{Error, Invalid};
use crate::event::{Algorithms, Event};
use crate::model::migrate::Migration;
use crate::model::policy::Policy as PolicyInfo;
use crate::model::sa::{Sa as SaInfo, SaId};
use crate::model::xfrm::Xfrm;
use crate::policy::Policy;
use crate::received::Received;
use crate::request::{Request, SpiRange};
use crate::sa::Sa;
use crate::socket::{self, Backend, OpenError};
use crate::transport::{Transport as _, reply_to};
use crate::wire::{Errno, Header, SaType};

/// How long an answer may take. AF_KEY and a pfkeyd have it ready when `send` returns.
const LIMIT: Duration = Duration::from_secs(5);

/// A PF_KEY descriptor. A request waits for its answer; what else arrives meanwhile is kept for
/// [`Client::next_event`]: every descriptor hears what others change.
pub struct Client {
    fd: OwnedFd,
    calls: Calls,
    /// A request, or the message that was received last. Both carry keys.
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes of that message; 0: it was read and wiped.
    len: usize,
    kept: VecDeque<Zeroizing<Vec<u8>>>,
    /// Messages were lost, which nobody was told.
    has_lost: bool,
    limit: Duration,
    /// When the answer that is awaited has to be there.
    deadline: Option<Instant>,
    /// A dump whose rest was not read.
    pub(crate) unread: Option<Call>,
    promiscuous: bool,
    /// Requests of which copies will come, because this descriptor is promiscuous.
    copied: Vec<Call>,
    /// The entry of a dump that was read last, of which a copy will come for the same reason.
    dumped: Option<Header>,
    /// Batches are taken: it has answered to X_XFRM, which no pfkeyd did before there were batches.
    takes_batches: bool,
}

/// Without its buffer and without messages that are kept: there may be keys.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(descriptor {}, {} messages kept)", self.fd.as_raw_fd(), self.kept.len())
    }
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
            len: 0,
            kept: VecDeque::new(),
            has_lost: false,
            limit: LIMIT,
            deadline: None,
            unread: None,
            promiscuous: false,
            copied: Vec::new(),
            dumped: None,
            takes_batches: false,
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

    /// Changes how long an answer, or an entry of a dump, may take once the request was sent: 5 seconds. Sending alone takes up to 30 seconds
    /// where a pfkeyd is stopped.
    pub const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// How long an answer is waited for.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
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
        match self.call(&request, |answer| answer.sa()) {
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
        self.call(&request, |answer| answer.spi())?
            .ok_or(Error::Incomplete { request: request.msg_type(), missing: "SPI" })
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
        self.call(request, |answer| answer.policy_id())?
            .ok_or(Error::Incomplete { request: request.msg_type(), missing: "policy" })
    }

    /// The policy with an id, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn policy(&mut self, id: u32) -> Result<Option<PolicyInfo>, Error> {
        self.get_policy(&Request::Policy(id))
    }

    fn get_policy(&mut self, request: &Request<'_>) -> Result<Option<PolicyInfo>, Error> {
        match self.call(request, |answer| answer.policy()) {
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

    /// The policy with an id, a mark and an XFRM interface, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn policy_of(&mut self, id: u32, xfrm: &Xfrm) -> Result<Option<PolicyInfo>, Error> {
        self.get_policy(&Request::PolicyOf(id, xfrm))
    }

    /// Deletes the policy with an id, a mark and an XFRM interface. False: there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn delete_policy_of(&mut self, id: u32, xfrm: &Xfrm) -> Result<bool, Error> {
        unless(self.call(&Request::DeletePolicyOf(id, xfrm), |_| true), Errno::ENOENT, false)
    }

    /// Is shown what XFRM has beyond PF_KEY from now on, or not any more: in SAs, policies and ACQUIREs (their field `xfrm`), and
    /// the kernel's own words in errors.
    ///
    /// # Errors
    /// EINVAL on AF_KEY, which has nothing of it; [`Error::NoAnswer`] of a pfkeyd that is older.
    pub fn show_xfrm(&mut self, shown: bool) -> Result<(), Error> {
        self.call(&Request::ShowXfrm(shown), |_| ())?;
        self.takes_batches = true;
        Ok(())
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
        let mut moving = Moving { client: self, has_moved: false };
        match reply_to(&call, &mut moving) {
            Ok(Reply::Refused(errno)) => {
                let why = Received::read(moving.message()).and_then(|answer| answer.why());
                Err(call.refused(errno, why))
            }
            Err(Error::NoAnswer { .. }) if moving.has_moved => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Makes this descriptor one of a key manager's for a type of SA: it receives ACQUIRE and EXPIRE. Returns what
    /// algorithms there are.
    ///
    /// # Errors
    /// [`Error::Invalid`]; EEXIST if it is registered already.
    pub fn register(&mut self, satype: SaType) -> Result<Algorithms, Error> {
        self.call(&Request::Register(satype), |answer| answer.algorithms())
    }

    /// Receives a copy of every message of every socket from now on, or not any more: of requests, too, done or not. Linux's
    /// copies look as what they are copies of: an [`Event::SaAdded`] may be of a request that is refused.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_promiscuous(&mut self, promiscuous: bool) -> Result<(), Error> {
        self.call(&Request::Promiscuous(promiscuous), |_| ())
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
    /// [`Error`]; [`Error::Invalid`] for a dump, which has many answers: [`Client::for_each`].
    pub fn call<T>(&mut self, request: &Request<'_>, read: impl FnOnce(&Received<'_>) -> T) -> Result<T, Error> {
        if is_dump(request.msg_type()) {
            return Err(Invalid::new("request", "a dump has many answers").into());
        }
        let call = self.send(request)?;
        self.answer(call, read).map(|(_, read)| read)
    }

    /// Does all requests of a batch in order, many of them with one message where a pfkeyd takes it, and returns the outcome of
    /// each. One that is refused does not keep the others from being done. A pfkeyd that listens on a path is known to take such
    /// messages once it has answered to [`Client::show_xfrm`].
    ///
    /// # Errors
    /// [`Error`]: how many requests were done is not known then. Answers that come later are told as events.
    pub fn run(&mut self, batch: &Batch) -> Result<Outcomes, Error> {
        self.check_beyond(batch.is_beyond_pf_key)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let are_together = self.takes_batches || socket::takes_batches(self.fd.as_fd());
        batch.run(self, are_together, |call, reply, answer| {
            outcomes.push(match reply {
                Reply::Refused(errno) => {
                    Err(call.refused(errno, Received::read(answer).and_then(|answer| answer.why())))
                }
                Reply::Entry | Reply::Last => Ok(()),
            });
        })?;
        self.wipe();
        Ok(Outcomes(outcomes))
    }

    /// AF_KEY would pass over what XFRM has beyond PF_KEY.
    fn check_beyond(&self, is_beyond_pf_key: bool) -> Result<(), Error> {
        if is_beyond_pf_key && socket::is_af_key(self.fd.as_raw_fd()) {
            return Err(Error::Invalid(Invalid::new("attributes of XFRM's", "AF_KEY has none")));
        }
        Ok(())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Refused`] for what `send` refuses, [`Error::Closed`], [`Error::Io`].
    pub fn send(&mut self, request: &Request<'_>) -> Result<Call, Error> {
        self.check_beyond(request.is_beyond_pf_key())?;
        self.make_room()?;
        let (call, message) = self.calls.begin(request, &mut self.buffer)?;
        let sent = transmit(self.fd.as_fd(), message, call.request());
        message.zeroize();
        sent?;
        self.expect_copies(&[call]);
        // However it was asked for: who does not know it takes copies for answers.
        self.promiscuous = request.promiscuous().unwrap_or(self.promiscuous);
        Ok(call)
    }

    /// The next message that answers no request, whoever caused it; `None` if the deadline passes first, at once for one that
    /// has passed.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Io`]. ENOBUFS says that messages were lost: others come.
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
        if std::mem::take(&mut self.has_lost) {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into());
        }
        loop {
            if let Some(kept) = self.kept.pop_front() {
                self.hold(&kept);
            } else if self.receive_until(deadline)? {
                // It is an event as any other, and is not awaited any more.
                self.is_own_copy();
            } else {
                return Ok(None);
            }
            if self.is_unread() {
                continue;
            }
            if let Some(received) = Received::read(self.message()) {
                let value = read(&received);
                self.wipe();
                return Ok(Some(value));
            }
        }
    }

    /// Forgets every event that is there. Whoever reads none does this now and then: what arrives before answers is kept.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn forget_events(&mut self) -> Result<(), Error> {
        let room = self.make_room();
        self.kept.clear();
        self.has_lost = false;
        room
    }

    /// The next event, if one waits: after poll, epoll or a runtime said that the descriptor is readable, until this
    /// returns `None`; and after each request, before the descriptor is waited for, because what arrived before its answer was
    /// read with it, and makes nothing readable any more.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn try_event(&mut self) -> Result<Option<Event>, Error> {
        self.next_event(Some(Instant::now()))
    }
}

/// The outcome, in which being refused with an errno is a value.
fn unless<T>(outcome: Result<T, Error>, errno: Errno, value: T) -> Result<T, Error> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(value),
        other => other,
    }
}
