//! The command's PF_KEY descriptor: requests that it writes itself, and their answers.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
pub use pfkey::Received;
use pfkey::listing::{self, SaView};
use pfkey::{Backend, Batch, Client, Errno, Error, Outcomes, Request};
use pfkey_wire::{
    ExtensionType, Extras, HEADER_LEN, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType, Writer,
};
use zeroize::Zeroizing;

use crate::failure::{Failure, Unwritable};

/// How long an answer to X_XFRM is waited for. Sending returns when it is there.
const ASKING: Duration = Duration::from_millis(500);
/// The first sequence number of requests in batches: others than the client's own. The kernel keeps it, and `ip xfrm` shows it.
const FIRST_OF_BATCHES: u32 = 1 << 24;

/// A client and what is written for it.
pub struct Channel {
    client: Client,
    /// The key engine understands X_XFRM extensions, and shows them.
    xfrm: bool,
    buffer: Zeroizing<Vec<u8>>,
    /// This process.
    pid: u32,
    /// The sequence number of the next request in a batch. The kernel looks for a larval SA among those of one number.
    next: u32,
}

impl Channel {
    /// Opens the backend that `PFKEY_BACKEND` names. It has AEADs, unless it is AF_KEY, or a pfkeyd that listens on a path and
    /// offers what it was started with: nobody has to know a switch who says `aes-gcm-16`.
    pub fn open() -> Result<Self, Failure> {
        let backend = Backend::from_environment()?;
        if !pfkey_socket::kernel_serves(&backend) {
            pfkey_socket::set_extras(Some(Extras { aead: true, ..pfkey_socket::extras()? }));
        }
        Self::open_with(&backend)
    }

    /// Opens it as other programs do, whom it is to hear.
    pub fn open_as_others() -> Result<Self, Failure> {
        Self::open_with(&Backend::from_environment()?)
    }

    /// Opens a given backend.
    pub fn open_with(backend: &Backend) -> Result<Self, Failure> {
        let mut client = Client::open_with(backend)?;
        // Keys pass through this process: no core dumps, no ptrace by others.
        let _ = nix::sys::prctl::set_dumpable(false);
        // AF_KEY has no such message; an older pfkeyd throws it away.
        let limit = client.limit();
        client.set_limit(ASKING);
        let xfrm = client.show_xfrm(true).is_ok();
        client.set_limit(limit);
        let buffer = Zeroizing::new(vec![0; MAX_MESSAGE_LEN]);
        Ok(Self { client, xfrm, buffer, pid: std::process::id(), next: FIRST_OF_BATCHES })
    }

    /// Whether a pfkeyd serves the descriptor.
    pub fn is_served(&self) -> bool {
        pfkey_socket::is_served(self.client.as_raw_fd())
    }

    /// Whether the key engine tells what XFRM has beyond PF_KEY.
    pub const fn shows_xfrm(&self) -> bool {
        self.xfrm
    }

    /// Whether it is the machine's.
    pub fn is_of_service(&self) -> bool {
        pfkey_socket::is_service(self.client.as_fd())
    }

    /// The next message, whoever caused it, read by `read`; `None` when `deadline` passes first.
    pub fn receive<T>(
        &mut self,
        deadline: Option<Instant>,
        read: impl FnOnce(&Received<'_>) -> T,
    ) -> Result<Option<T>, Failure> {
        self.client.next_received(deadline, read).map_err(|error| Failure::of("receive", error))
    }

    /// Sends a request, which `write` writes from a sequence number and a pid, and gives its answer to `read`.
    pub fn request<T>(
        &mut self,
        what: &str,
        write: impl FnOnce(u32, u32, &mut [u8]) -> Result<usize, Unwritable>,
        read: impl FnOnce(&Received<'_>) -> T,
    ) -> Result<T, Failure> {
        // The client chooses both.
        let len = write(0, 0, &mut self.buffer).map_err(|error| Failure::Usage(format!("{what}: {error}")))?;
        let message = self.buffer.get(..len).unwrap_or_default();
        let header = Header::read(message).ok_or_else(|| Failure::Usage(format!("{what}: no message")))?;
        self.check_xfrm(message, || what.to_owned())?;
        let request = Request::Raw(header, message.get(HEADER_LEN..).unwrap_or_default());
        self.client.call(&request, read).map_err(|error| Failure::of(what, error))
    }

    /// What XFRM has beyond PF_KEY would be passed over by a key engine that has none of it.
    fn check_xfrm(&self, message: &[u8], what: impl FnOnce() -> String) -> Result<(), Failure> {
        let says = |message| Message::parse(message, Profile::Linux).is_ok_and(|m| m.has(ExtensionType::X_XFRM));
        if self.xfrm || !says(message) {
            return Ok(());
        }
        Err(Failure::Told(format!("{}: this key engine has no attributes of XFRM's (-X); AF_KEY has none", what())))
    }

    /// Adds a request to a batch, as [`Self::request`] would send it.
    pub fn push(
        &mut self,
        batch: &mut Batch,
        what: impl Fn() -> String,
        write: impl FnOnce(u32, u32, &mut [u8]) -> Result<usize, Unwritable>,
    ) -> Result<(), Failure> {
        let (seq, pid) = (self.next, self.pid);
        let len = write(seq, pid, &mut self.buffer).map_err(|error| Failure::Usage(format!("{}: {error}", what())))?;
        let message = self.buffer.get(..len).unwrap_or_default();
        self.check_xfrm(message, &what)?;
        self.next = self.next.wrapping_add(1).max(FIRST_OF_BATCHES);
        let refused = |errno: Errno| Failure::Refused { what: what(), errno: errno.to_raw(), why: None };
        batch.push(message).map_err(refused)
    }

    /// Does all requests of a batch, and says what became of each.
    ///
    /// # Errors
    /// How many of them were done is not known then.
    pub fn run(&mut self, batch: &Batch) -> Result<Outcomes, Error> {
        self.client.run(batch)
    }

    /// Sends a request that is a header only, and reads its answer.
    pub fn header_request(&mut self, msg_type: MessageType, satype: SaType) -> Result<(), Failure> {
        self.request(&name(msg_type), |seq, pid, buffer| header_only(msg_type, satype, seq, pid, buffer), |_| ())
    }

    /// Shows every SA of a type, newest first, without a message for each where the kernel can be asked itself. Not for a
    /// descriptor that listens: what arrives meanwhile is lost.
    pub fn for_each_sa(
        &mut self,
        satype: SaType,
        visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        // A dump's messages are waited for, but not for ever.
        let limit = TimeVal::seconds(self.client.limit().as_secs() as i64);
        setsockopt(&self.client, sockopt::ReceiveTimeout, &limit)
            .map_err(|errno| Failure::io("the PF_KEY descriptor: SO_RCVTIMEO", errno))?;
        listing::for_each_sa(self.client.as_fd(), satype, visit).map_err(|errno| match errno {
            Errno::EAGAIN => Failure::NoAnswer { what: name(MessageType::DUMP) },
            _ => Failure::Refused { what: name(MessageType::DUMP), errno: errno.to_raw(), why: None },
        })
    }

    /// Throws away what others were told meanwhile: nobody reads it here, and it would be kept.
    pub fn forget_others(&mut self) -> Result<(), Failure> {
        while self.receive(Some(Instant::now()), |_| ())?.is_some() {}
        Ok(())
    }

    /// Hears every message of every socket from now on, or not any more. It registers for nothing: a registered listener would make the kernel
    /// believe that a key manager is there, and wait for SAs that nobody negotiates.
    pub fn listen(&mut self, on: bool) -> Result<(), Failure> {
        let satype = SaType(on.into());
        let turn = |seq, pid, buffer: &mut [u8]| header_only(MessageType::X_PROMISC, satype, seq, pid, buffer);
        self.request("listen", turn, |_| ())
    }

    /// Dumps the SAD or the SPD, entry by entry; nothing there is no error.
    pub fn dump(
        &mut self,
        msg_type: MessageType,
        satype: SaType,
        mut each: impl FnMut(&Received<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        /// Of the dump, or of what is done with it.
        enum Ended {
            Dump(Error),
            Each(Failure),
        }
        impl From<Error> for Ended {
            fn from(error: Error) -> Self {
                Self::Dump(error)
            }
        }
        let request = Request::Raw(Header::new(msg_type, satype, 0, 0), &[]);
        self.client.for_each(&request, |received| each(received).map_err(Ended::Each)).map_err(|ended| match ended {
            Ended::Dump(error) => Failure::of(&name(msg_type), error),
            Ended::Each(failure) => failure,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

fn name(msg_type: MessageType) -> String {
    msg_type.to_string().to_lowercase()
}

/// A request that is a header only.
pub fn header_only(
    msg_type: MessageType,
    satype: SaType,
    seq: u32,
    pid: u32,
    buffer: &mut [u8],
) -> Result<usize, Unwritable> {
    finish(Writer::new(buffer, Header::new(msg_type, satype, seq, pid), Profile::Linux))
}

/// The finished message's length.
pub fn finish(writer: Writer<'_>) -> Result<usize, Unwritable> {
    writer.finish().map(|message| message.len()).map_err(|_| Unwritable::TooLong)
}
