//! Many requests at once: what loads thousands of SAs or policies need not wait for each answer.
#![forbid(unsafe_code)]

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use zerocopy::IntoBytes as _;
use zeroize::{Zeroize, Zeroizing};

use crate::calls::{Call, Calls, Reply, next_seq};
use crate::error::Error;
use crate::model::sa::SaId;
use crate::policy::Policy;
use crate::request::Request;
use crate::sa::Sa;
use crate::socket::{self, Headers, REPORT_LEN};
use crate::transport::{self, Transport, reply_to};
use crate::wire::xfrm::{Said, Words};
use crate::wire::{BATCH, Errno, ExtensionType, HEADER_LEN, Header, MAX_MESSAGE_LEN, Profile, SaType, extensions};

/// Messages that travel together.
const MESSAGES: usize = 64;
/// Bytes after which no more are added.
const BYTES: usize = 48 * 1024;

/// Requests in order. They may hold keys, and are wiped. A batch may be done again, and by several clients: each time its requests
/// get sequence numbers of their own, but for those that answer an ACQUIRE or were written elsewhere.
///
/// ```no_run
/// use pfkey::{Batch, Cipher, Client, Hmac, Sa};
/// let mut batch = Batch::default();
/// for spi in 0x1000..0x2000 {
///     let sa = Sa::esp([192, 0, 2, 1], [192, 0, 2, 2], spi);
///     batch.add(&sa.encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32]))?;
/// }
/// Client::open()?.run(&batch)?.all()?;
/// # Ok::<(), pfkey::Error>(())
/// ```
#[derive(Default)]
pub struct Batch {
    requests: Requests,
    /// A typed one says what XFRM has beyond PF_KEY: AF_KEY would pass over it.
    pub(crate) is_beyond_pf_key: bool,
    /// Where a typed request is written.
    buffer: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} requests)", self.len())
    }
}

/// Messages, one behind the other.
#[derive(Default)]
struct Requests {
    bytes: Zeroizing<Vec<u8>>,
    ends: Vec<End>,
}

/// Where a message ends.
struct End {
    at: usize,
    /// Its sequence number and its pid are those that it has.
    is_named: bool,
}

/// A message, and whether it keeps its sequence number and its pid.
struct Kept<'b> {
    bytes: &'b [u8],
    is_named: bool,
}

impl Kept<'_> {
    /// Puts it behind others, for which there is room, and gives its call.
    fn append_to(&self, datagram: &mut Vec<u8>) -> Option<Call> {
        let mut header = Header::read(self.bytes)?;
        let start = datagram.len();
        datagram.extend_from_slice(self.bytes);
        if !self.is_named {
            // Asked each time: the process may have forked.
            (header.seq, header.pid) = (next_seq(), std::process::id());
            datagram.get_mut(start..start + HEADER_LEN)?.copy_from_slice(header.to_layout().as_bytes());
        }
        Some(Call::of(header))
    }
}

/// What became of each request of a batch, in order.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # fn main() -> Result<(), pfkey::Error> {
/// # let (mut keys, batch) = (pfkey::Client::open()?, pfkey::Batch::default());
/// keys.run(&batch)?; // refused or not?
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "each of the requests may have been refused"]
pub struct Outcomes(pub(crate) Vec<Result<(), Error>>);

impl Outcomes {
    /// Whether all of them were done.
    ///
    /// # Errors
    /// The first refusal.
    pub fn all(self) -> Result<(), Error> {
        self.0.into_iter().collect()
    }
}

impl Deref for Outcomes {
    type Target = [Result<(), Error>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl IntoIterator for Outcomes {
    type Item = Result<(), Error>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Requests {
    fn push(&mut self, message: &[u8], is_named: bool) -> Result<(), Errno> {
        Header::check(message, Profile::Linux).map_err(|error| error.rule.errno())?;
        // Stray bytes behind it are no part of it, and none of the next.
        let message = message.get(..message.len() / 8 * 8).unwrap_or_default();
        self.ends.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if self.bytes.capacity() - self.bytes.len() < message.len() {
            // Growing in place would leave copies of keys behind.
            let mut bytes = with_room((self.bytes.len() * 2).max(64 * 1024) + message.len())?;
            bytes.extend_from_slice(&self.bytes);
            self.bytes = Zeroizing::new(bytes);
        }
        self.bytes.extend_from_slice(message);
        self.ends.push(End { at: self.bytes.len(), is_named });
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = Kept<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end.at));
        let message =
            |(start, end): (usize, &End)| Some(Kept { bytes: self.bytes.get(start..end.at)?, is_named: end.is_named });
        starts.zip(&self.ends).filter_map(message)
    }
}

impl Batch {
    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.ends.is_empty()
    }

    /// As [`Client::add`](crate::Client::add).
    ///
    /// # Errors
    /// [`Error::Invalid`]; the batch is as before then.
    pub fn add(&mut self, sa: &Sa) -> Result<&mut Self, Error> {
        self.request(&Request::Add(sa))
    }

    /// As [`Client::update`](crate::Client::update).
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn update(&mut self, sa: &Sa) -> Result<&mut Self, Error> {
        self.request(&Request::Update(sa))
    }

    /// As [`Client::delete`](crate::Client::delete); ESRCH if there is none.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn delete(&mut self, id: SaId) -> Result<&mut Self, Error> {
        self.request(&Request::Delete(id))
    }

    /// As [`Client::flush`](crate::Client::flush); ESRCH where Linux has nothing to flush.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn flush(&mut self, satype: SaType) -> Result<&mut Self, Error> {
        self.request(&Request::Flush(satype))
    }

    /// As [`Client::add_policy`](crate::Client::add_policy), without its id.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn add_policy(&mut self, policy: &Policy) -> Result<&mut Self, Error> {
        self.request(&Request::AddPolicy(policy))
    }

    /// As [`Client::update_policy`](crate::Client::update_policy), without its id.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn update_policy(&mut self, policy: &Policy) -> Result<&mut Self, Error> {
        self.request(&Request::UpdatePolicy(policy))
    }

    /// As [`Client::delete_policy`](crate::Client::delete_policy); ENOENT if there is none.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn delete_policy(&mut self, policy: &Policy) -> Result<&mut Self, Error> {
        self.request(&Request::DeletePolicy(policy))
    }

    /// As [`Client::delete_policy_by_id`](crate::Client::delete_policy_by_id); ENOENT if there is none.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn delete_policy_by_id(&mut self, id: u32) -> Result<&mut Self, Error> {
        self.request(&Request::DeletePolicyById(id))
    }

    /// As [`Client::flush_policies`](crate::Client::flush_policies); ESRCH where Linux has nothing to flush.
    ///
    /// # Errors
    /// As [`Batch::add`].
    pub fn flush_policies(&mut self) -> Result<&mut Self, Error> {
        self.request(&Request::FlushPolicies)
    }

    fn request(&mut self, request: &Request<'_>) -> Result<&mut Self, Error> {
        let (_, message) = Calls::new().begin(request, &mut self.buffer)?;
        let pushed = self.requests.push(message, request.is_named());
        message.zeroize();
        pushed.map_err(|errno| io::Error::from_raw_os_error(errno.to_raw()))?;
        self.is_beyond_pf_key |= request.is_beyond_pf_key();
        Ok(self)
    }

    /// Adds a message that was written elsewhere, as it is.
    ///
    /// # Errors
    /// What AF_KEY's `send` would refuse: EINVAL or EMSGSIZE. ENOMEM; the batch is as before then.
    pub fn push(&mut self, message: &[u8]) -> Result<(), Errno> {
        self.requests.push(message, true)
    }

    /// Does all requests in order and reads their answers, on a descriptor without a client. What waits on it before is read and
    /// lost: it could be taken for answers. `failed`, which must not use the descriptor, receives the place of
    /// each that the key engine refused, and why; the others are done all the same. Returns the number of those that failed.
    ///
    /// A request's answer is the first message with its type, sequence number and process id: the descriptor must not be
    /// promiscuous, or copies of the requests are taken for their answers. What else arrives on it meanwhile is read and
    /// lost. [`Client::run`](crate::Client::run) knows copies, and keeps what else arrives.
    ///
    /// # Errors
    /// Sending or receiving failed, or an answer is missing (ENOBUFS: the descriptor was full of unread messages). How
    /// many requests were done is not known then. ENOMEM: none was sent; nor for EOPNOTSUPP: a typed one says what AF_KEY has not.
    pub fn send(
        self,
        fd: BorrowedFd<'_>,
        mut failed: impl FnMut(usize, Errno, Option<Words<'_>>),
    ) -> Result<usize, Errno> {
        let (mut place, mut failures) = (0, 0);
        if self.is_beyond_pf_key && socket::is_af_key(fd.as_raw_fd()) {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.is_empty() {
            transport::empty(fd, |_| {})?;
        }
        let mut answers = Answers { fd, waiting: Headers::default(), message: Zeroizing::new([0; REPORT_LEN]), len: 0 };
        self.run(&mut answers, socket::takes_batches(fd), |_, reply, message| {
            if let Reply::Refused(errno) = reply {
                failures += 1;
                let said = extensions(message).find(|extension| extension.ext_type == ExtensionType::X_XFRM);
                failed(place, errno, said.map(Said::of).and_then(Said::why));
            }
            place += 1;
        })?;
        Ok(failures)
    }

    /// Sends the requests, many in a datagram if they may travel together, and shows how each was answered, with the answer. This asks for no
    /// memory once the first was sent.
    pub(crate) fn run<T: Transport>(
        &self,
        transport: &mut T,
        are_together: bool,
        mut answered: impl FnMut(&Call, Reply, &mut [u8]),
    ) -> Result<(), T::Error> {
        let mut requests = self.requests.iter().peekable();
        let mut datagram = Zeroizing::new(with_room(BATCH.len() + BYTES + MAX_MESSAGE_LEN)?);
        if !are_together {
            for request in requests {
                datagram.clear();
                let Some(call) = request.append_to(&mut datagram) else { continue };
                transport.send(&datagram, &[call])?;
                let reply = last_reply_to(&call, transport)?;
                answered(&call, reply, transport.message());
            }
            return Ok(());
        }
        let mut calls = with_room(MESSAGES)?;
        while let Some(request) = requests.next() {
            if datagram.is_empty() {
                datagram.extend_from_slice(&BATCH);
            }
            calls.extend(request.append_to(&mut datagram));
            if calls.len() == MESSAGES || datagram.len() > BYTES || requests.peek().is_none() {
                transport.send(&datagram, &calls)?;
                datagram.clear();
                for call in calls.drain(..) {
                    let reply = last_reply_to(&call, transport)?;
                    answered(&call, reply, transport.message());
                }
            }
        }
        Ok(())
    }
}

/// The answer to a call, or the end of its dump.
fn last_reply_to<T: Transport>(call: &Call, transport: &mut T) -> Result<Reply, T::Error> {
    loop {
        match reply_to(call, transport)? {
            Reply::Entry => {}
            reply => return Ok(reply),
        }
    }
}

fn with_room<T>(len: usize) -> io::Result<Vec<T>> {
    let mut empty = Vec::new();
    empty.try_reserve_exact(len).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    Ok(empty)
}

/// What messages that arrive on a descriptor of a C program's begin with. What answers something else is lost, because there may be no
/// memory in which to keep it.
struct Answers<'fd> {
    fd: BorrowedFd<'fd>,
    waiting: Headers,
    /// The last one, or what there was of it.
    message: Zeroizing<[u8; REPORT_LEN]>,
    len: usize,
}

impl Transport for Answers<'_> {
    type Error = Errno;

    fn send(&mut self, bytes: &[u8], _: &[Call]) -> Result<(), Errno> {
        Ok(transport::send(self.fd, bytes)?)
    }

    fn receive(&mut self, _: &Call) -> Result<(), Errno> {
        loop {
            match self.waiting.take() {
                // pfkeyd is gone.
                Some([]) => return Err(Errno::EPIPE),
                Some(bytes) => {
                    self.len = bytes.len();
                    self.message.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                    return Ok(());
                }
                // Answers wait when `send` returns, so none that does not wait will come.
                None => match self.waiting.receive(self.fd) {
                    Ok(()) | Err(nix::errno::Errno::EINTR) => {}
                    Err(nix::errno::Errno::EAGAIN) => return Err(Errno::ENOBUFS),
                    Err(errno) => return Err(io::Error::from(errno).into()),
                },
            }
        }
    }

    fn message(&mut self) -> &mut [u8] {
        self.message.get_mut(..self.len).unwrap_or_default()
    }
}
