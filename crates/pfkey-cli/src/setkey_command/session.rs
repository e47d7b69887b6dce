//! The descriptor: requests go out as setkey writes them, and what comes back is printed as setkey prints it.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use pfkey::Backend;
use pfkey_print::error::Code;
use pfkey_wire::{ExtensionType, Extras, HEADER_LEN, Header, MAX_MESSAGE_LEN, Message, MessageType, Profile, SaType};
use zeroize::Zeroizing;

use super::brief;
use super::options::{Options, Scope};
use super::printer::{Printer, Then, errno_text, warn};
use super::registered::Registered;
use crate::channel::header_only;
use crate::failure::{Failure, Unwritable};

/// How long an answer is waited for.
const PATIENCE: i64 = 1;
/// Between two dumps of `-l`.
const PERIOD: Duration = Duration::from_secs(1);

/// A descriptor and what was asked of this run.
pub struct Session {
    fd: OwnedFd,
    pub printer: Printer,
    /// What keys are checked against; nothing before [`Self::register`].
    pub registered: Registered,
    /// libipsec's error code, which a failed policy may leave as it was.
    pub code: Code,
    request: Zeroizing<Vec<u8>>,
    answer: Zeroizing<Vec<u8>>,
}

impl Session {
    /// Opens the backend that `PFKEY_BACKEND` names, with AEADs where a pfkeyd serves it.
    pub fn open(options: Options) -> Result<Self, Failure> {
        let backend = Backend::from_environment()?;
        if !pfkey_socket::kernel_serves(&backend) {
            pfkey_socket::set_extras(Some(Extras { aead: true, ..pfkey_socket::extras()? }));
        }
        let fd = pfkey_socket::open_with_cloexec(&backend)?;
        // Keys pass through this process: no core dumps, no ptrace by others.
        let _ = nix::sys::prctl::set_dumpable(false);
        let buffer = || Zeroizing::new(vec![0; MAX_MESSAGE_LEN]);
        Ok(Self {
            fd,
            printer: Printer::new(options),
            registered: Registered::default(),
            code: Code::NoError,
            request: buffer(),
            answer: buffer(),
        })
    }

    /// Asks for the algorithms.
    pub fn register(&mut self) -> Result<(), String> {
        let len = header_only(MessageType::REGISTER, SaType::UNSPEC, 0, std::process::id(), &mut self.request)
            .map_err(|error| error.to_string())?;
        self.send(len).map_err(|errno| errno.desc().to_owned())?;
        loop {
            let len = self.receive(MsgFlags::empty()).map_err(|errno| errno.desc().to_owned())?;
            let bytes = self.answer.get(..len).unwrap_or_default();
            let header = Header::read(bytes).ok_or("Unknown error")?;
            if header.msg_type == MessageType::REGISTER && header.pid == std::process::id() {
                if let Ok(message) = Message::parse(bytes, Profile::Linux) {
                    self.registered = Registered::of(&message);
                }
                return Ok(());
            }
        }
    }

    /// Sends a request that `write` writes from a sequence number and a pid, and prints what comes back. A failure is told and
    /// ends nothing.
    pub fn exchange(&mut self, write: impl FnOnce(u32, u32, &mut [u8]) -> Result<usize, Unwritable>) -> io::Result<()> {
        let len = match write(0, std::process::id(), &mut self.request) {
            Ok(len) => len,
            Err(error) => {
                warn(error);
                return Ok(());
            }
        };
        if self.printer.options.not_really {
            return Ok(());
        }
        if let Err(errno) = setsockopt(&self.fd, ReceiveTimeout, &TimeVal::seconds(PATIENCE)) {
            warn(format_args!("setsockopt: {}", errno_text(errno as i32)));
            return Ok(());
        }
        self.show_request(len)?;
        if let Err(errno) = self.send(len) {
            warn(format_args!("send: {}", errno_text(errno as i32)));
            return Ok(());
        }
        self.answers(|printer, header, bytes| printer.print(header, bytes))
    }

    /// A request that is a header only.
    pub fn header(&mut self, msg_type: MessageType, satype: SaType) -> io::Result<()> {
        self.exchange(|seq, pid, buffer| header_only(msg_type, satype, seq, pid, buffer))
    }

    /// Dumps the SAD or the SPD; with `-l` for ever.
    pub fn dump(&mut self, msg_type: MessageType) -> io::Result<()> {
        if self.printer.options.scope != Scope::Any
            && msg_type == MessageType::X_SPDDUMP
            && !self.printer.options.not_really
        {
            self.show_interfaces();
        }
        if !self.printer.options.forever {
            return self.header(msg_type, SaType::UNSPEC);
        }
        brief::heading(&mut self.printer.out)?;
        loop {
            self.header(msg_type, SaType::UNSPEC)?;
            self.printer.out.flush()?;
            std::thread::sleep(PERIOD);
        }
    }

    /// Asks that policies are told with their interface: AF_KEY cannot, and an older pfkeyd says nothing.
    fn show_interfaces(&mut self) {
        let header = Header::new(MessageType::X_XFRM, SaType(1), 0, std::process::id());
        let written = crate::channel::finish(pfkey_wire::Writer::new(&mut self.request, header, Profile::Linux));
        let sent = written.ok().and_then(|len| self.send(len).ok());
        let _ = setsockopt(&self.fd, ReceiveTimeout, &TimeVal::milliseconds(500));
        if sent.is_some() {
            let _ = self.receive(MsgFlags::empty());
        }
    }

    /// SPIs of the SAs between two of these addresses.
    pub fn spis(&mut self, satype: SaType, wanted: impl Fn(&Message<'_>) -> bool) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        if self.printer.options.not_really {
            return Ok(found);
        }
        let _ = setsockopt(&self.fd, ReceiveTimeout, &TimeVal::seconds(PATIENCE));
        let pid = std::process::id();
        let Ok(len) = header_only(MessageType::DUMP, satype, 0, pid, &mut self.request) else { return Ok(found) };
        self.show_request(len)?;
        if let Err(errno) = self.send(len) {
            warn(format_args!("send: {}", errno_text(errno as i32)));
            return Ok(found);
        }
        let mut failed = false;
        self.answers(|_, header, bytes| {
            if header.errno != 0 {
                warn("error encountered");
                failed = true;
                return Ok(Then::Done);
            }
            if let Ok(message) = Message::parse(bytes, Profile::Linux) {
                if let Some(sa) = message.sa().filter(|_| wanted(&message)) {
                    found.push(sa.spi.get());
                }
            }
            Ok(Then::More)
        })?;
        if failed {
            found.clear();
        }
        Ok(found)
    }

    /// Shows every message as it happens, until it is killed.
    pub fn promiscuous(&mut self) -> Result<(), String> {
        let len = header_only(MessageType::X_PROMISC, SaType(1), 0, std::process::id(), &mut self.request)
            .map_err(|error| error.to_string())?;
        self.send(len).map_err(|errno| format!("send: {}", errno_text(errno as i32)))?;
        loop {
            let len = self.receive(MsgFlags::empty()).map_err(|errno| format!("recv: {}", errno_text(errno as i32)))?;
            if len < HEADER_LEN {
                return Err("recv: nobody serves this socket any more".to_owned());
            }
            let bytes = self.answer.get(..len).unwrap_or_default();
            self.printer.watched(bytes).map_err(|error| error.to_string())?;
        }
    }

    /// `-v` and `-H` of a request.
    fn show_request(&mut self, len: usize) -> io::Result<()> {
        self.printer.request(self.request.get(..len).unwrap_or_default())
    }

    fn send(&self, len: usize) -> Result<(), Errno> {
        let bytes = self.request.get(..len).unwrap_or_default();
        let sent = pfkey_socket::send(self.fd.as_raw_fd(), bytes);
        sent.map(drop).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<usize, Errno> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.answer, flags) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Gives each message that answers the last request to `each`: up to an error, or to one with sequence number 0.
    fn answers(&mut self, mut each: impl FnMut(&mut Printer, Header, &[u8]) -> io::Result<Then>) -> io::Result<()> {
        let Some(asked) = Header::read(&self.request) else { return Ok(()) };
        loop {
            let len = match self.receive(MsgFlags::empty()) {
                Ok(len) => len,
                Err(errno) => {
                    warn(format_args!("recv: {}", errno_text(errno as i32)));
                    return Ok(());
                }
            };
            let bytes = self.answer.get(..len).unwrap_or_default();
            let header = match Header::read(bytes) {
                Some(header) if usize::from(header.len) * 8 == len => header,
                _ => {
                    warn("invalid keymsg length");
                    return Ok(());
                }
            };
            // What others did is told to every socket.
            if (header.msg_type, header.pid) != (asked.msg_type, asked.pid) {
                continue;
            }
            if self.printer.options.verbose {
                self.printer.debug(bytes)?;
            }
            if each(&mut self.printer, header, bytes)? == Then::Done || header.seq == 0 {
                return Ok(());
            }
        }
    }
}

/// Whether a message tells of an SA between these addresses.
pub fn is_between(
    message: &Message<'_>,
    satype: SaType,
    src: &[std::net::SocketAddr],
    dst: &[std::net::SocketAddr],
) -> bool {
    let end = |ext: ExtensionType| message.address(ext).and_then(|(_, address)| crate::model::socket_addr(address));
    let is = |ext, of: &[std::net::SocketAddr]| end(ext).is_some_and(|found| of.iter().any(|a| a.ip() == found.ip()));
    message.header().satype == satype && is(ExtensionType::ADDRESS_SRC, src) && is(ExtensionType::ADDRESS_DST, dst)
}
