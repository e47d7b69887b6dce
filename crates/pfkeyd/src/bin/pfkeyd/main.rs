//! pfkeyd: serves PF_KEY sockets from userspace.
//!
//! Up to six processes, each with as little as it needs:
//! - the runner, of a daemon that listens or is around a command: signals, and the socket's file;
//! - the guardian: the clients' descriptors;
//! - the worker: reads what clients send, and is started anew when it dies;
//! - two doors, of the machine's pfkeyd: where clients say hello;
//! - a standby, of an embedded engine whose record was full once: its state.
//!
//! and for a moment one that closes what a client left.
#![deny(unsafe_code)]

mod about;
mod any;
mod bpf;
mod child;
mod closing;
mod confine;
mod counters;
mod door;
mod guardian;
mod link;
mod listening;
mod memory;
mod notes;
mod options;
mod record;
mod runner;
mod store;
mod systemd;
mod watchdog;
mod worker;

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use pfkey_engine::{Dialect, Engine, LINUX, RFC2367};
use pfkey_hub::{Hub, KeyEngine, Service};
use pfkey_klips as klips;
use pfkey_model::settings::Settings;
use pfkey_socket::{inherited, lacks_xfrm};
use pfkey_xfrm::{Events, XfrmEngine};
use pfkeyd::log::log;
use pfkeyd::machine::{KeepEngine, Machine};
use pfkeyd::{Sources, limits};

use counters::Counters;
use guardian::{First, Gate, Guardian};
use link::Link;
use memory::Memory;
use notes::{Notes, WORDS};
use options::{Asked, Clients, EngineKind, Options, Profile};
use record::Recorded;
use store::Left;
use systemd::Notify;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Serve(options)) => options,
        Ok(Asked::Any(command)) => return any(any::run(&command)),
        Ok(Asked::Agent(path)) => {
            let named = |error| io::Error::other(format!("{}: {error}", path.display()));
            return any(any::agent::run(&path).map_err(named));
        }
        Ok(Asked::Help) => return print(options::USAGE),
        Ok(Asked::Version) => return print(&format!("pfkeyd {}\n", env!("CARGO_PKG_VERSION"))),
        Err(message) => {
            log(&format!("pfkeyd: {message}\nTry 'pfkeyd --help'."));
            return ExitCode::from(2);
        }
    };
    let status = match options.status.map(status_descriptor).transpose() {
        Ok(status) => Rc::new(RefCell::new(status)),
        Err(error) => return failed(&options, &error, None),
    };
    match serve(&options, &status) {
        Ok(code) => code,
        Err(error) => {
            let status = status.borrow_mut().take();
            failed(&options, &error, status)
        }
    }
}

/// What became of a program that was to be executed (it was not), or of an agent.
fn any(outcome: io::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        log(&format!("pfkeyd: {error}"));
        ExitCode::FAILURE
    })
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn failed(options: &Options, error: &io::Error, status: Option<OwnedFd>) -> ExitCode {
    if !report(status, error.raw_os_error().unwrap_or(libc::EIO)) {
        match &options.clients {
            Clients::Listen(path) | Clients::Service(path) => log(&format!("pfkeyd: {}: {error}", path.display())),
            _ => log(&format!("pfkeyd: {error}")),
        }
    }
    ExitCode::FAILURE
}

/// Where whoever started us hears how the start went. What is neither pipe nor socket was not made for that.
#[allow(unsafe_code)]
fn status_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: whoever started us hands it over, before anything here has opened a descriptor.
    let fd = unsafe { inherited(number) }?;
    let kind = nix::sys::stat::fstat(&fd)?.st_mode & libc::S_IFMT;
    if matches!(kind, libc::S_IFIFO | libc::S_IFSOCK) { Ok(fd) } else { Err(refused("--status", "no pipe")) }
}

/// A client's descriptor: whatever else has this number is not ours to serve.
#[allow(unsafe_code)]
fn client_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: as above; --status is another one.
    let fd = unsafe { inherited(number) }?;
    let is_unix = |fd: &OwnedFd| {
        use std::os::fd::AsRawFd;
        let name = getsockname::<SockaddrStorage>(fd.as_raw_fd());
        name.is_ok_and(|name| name.family() == Some(AddressFamily::Unix))
    };
    let is_packets = getsockopt(&fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket);
    if is_packets && is_unix(&fd) { Ok(fd) } else { Err(refused("--fd", "no AF_UNIX socket of type SOCK_SEQPACKET")) }
}

fn refused(option: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{option}: {why}"))
}

/// Tells whoever started us how the start went; false if nobody asked.
fn report(status: Option<OwnedFd>, errno: i32) -> bool {
    status.is_some_and(|fd| std::fs::File::from(fd).write_all(&errno.to_ne_bytes()).is_ok())
}

type Status = Rc<RefCell<Option<OwnedFd>>>;

fn serve(options: &Options, status: &Status) -> io::Result<ExitCode> {
    worker::end_at_panic();
    // Whoever started us may have blocked or ignored signals.
    SigSet::empty().thread_set_mask()?;
    let code = |outcome: io::Result<bool>| match outcome {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            log(&format!("pfkeyd: {error}"));
            1
        }
    };
    match &options.clients {
        Clients::Fd(number) => {
            let client = client_descriptor(*number)?;
            Ok(ExitCode::from(code(guard(options, status, None, Some(client)))))
        }
        Clients::Listen(path) => {
            let guard = |gate, lifeline| code(guard(options, status, Some((gate, lifeline)), None));
            runner::listen(path, options.mode, guard)
        }
        Clients::Service(path) => {
            raise_limit();
            let guard = |gate, lifeline| code(guard(options, status, Some((gate, lifeline)), None));
            runner::service(path, guard)
        }
        Clients::Command(command) => {
            runner::command(command, |gate, lifeline| code(guard(options, status, Some((gate, lifeline)), None)))
        }
    }
}

/// As many descriptors as may be had: each session brings some.
fn raise_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The guardian's process. Gives false if no worker ever served, who has said why.
fn guard(options: &Options, status: &Status, gate: Option<(Gate, Link)>, client: Option<OwnedFd>) -> io::Result<bool> {
    SigSet::empty().thread_set_mask()?;
    child::ignore_signals();
    let (gate, lifeline) = gate.unzip();
    let first = client.map_or(First::Nobody, First::Client);
    let start = Start { options, status, gate, lifeline, first };
    if matches!(options.clients, Clients::Service(_)) {
        return start.with_namespaces();
    }
    match (options.engine, options.profile) {
        (EngineKind::Xfrm, _) => start.with_kernel(),
        (EngineKind::Embedded, Profile::Klips) => {
            let mut engine = klips::Engine::new();
            engine.set_local(local_addresses());
            start.with_memory(klips::Hub::new(engine))
        }
        (EngineKind::Copy, _) | (EngineKind::Embedded, Profile::Linux) => start.with_memory(hub(&LINUX, options)?),
        (EngineKind::Embedded, Profile::Rfc2367) => start.with_memory(hub(&RFC2367, options)?),
    }
}

/// An embedded engine, behind a hub.
fn hub(dialect: &'static Dialect, options: &Options) -> io::Result<Hub<Engine>> {
    let mut engine = Engine::new(dialect);
    engine.set_extras(options.extras);
    if options.engine == EngineKind::Copy {
        engine.set_copy();
    }
    let mut hub = Hub::new(engine);
    set_settings(&mut hub, options.xfrm.as_deref())?;
    Ok(hub)
}

/// What the SAs and policies of all clients have.
fn set_settings(hub: &mut Hub<impl KeyEngine>, text: Option<&str>) -> io::Result<()> {
    let Some(text) = text else { return Ok(()) };
    let refused = |why: String| io::Error::new(io::ErrorKind::InvalidInput, format!("--xfrm: {why}"));
    // It was checked before.
    let settings = Settings::new(text).map_err(|why| refused(why.about(text).to_string()))?;
    hub.set_settings(settings).map_err(|number| refused(lacks_xfrm(number)))
}

/// A guardian about to start its first worker.
struct Start<'a> {
    options: &'a Options,
    status: &'a Status,
    gate: Option<Gate>,
    lifeline: Option<Link>,
    first: First,
}

impl Start<'_> {
    /// The kernel holds the SAs and policies; a new worker reads them from there. What the kernel reports meanwhile waits in
    /// a socket that outlives workers.
    fn with_kernel(self) -> io::Result<bool> {
        let memory = Rc::new(Memory::new(WORDS, 0)?);
        let (extras, xfrm, status) = (self.options.extras, self.options.xfrm.clone(), Rc::clone(self.status));
        let events = match Events::open() {
            Ok(events) => events,
            Err(errno) => {
                no_engine(&status, errno.to_raw());
                return Ok(false);
            }
        };
        // Taken in the worker's process only.
        let mut events = Some(events);
        self.run(Rc::clone(&memory), None, move |link| {
            let Some(events) = events.take() else { return 1 };
            close_others(&link, &status, Some(events.as_fd()));
            let engine = match XfrmEngine::with_events(events) {
                Ok(engine) => engine,
                Err(errno) => return no_engine(&status, errno.to_raw()),
            };
            let mut hub = Hub::new(engine);
            hub.engine_mut().set_extras(extras);
            if let Err(error) = set_settings(&mut hub, xfrm.as_deref()) {
                if !report(status.borrow_mut().take(), libc::EOPNOTSUPP) {
                    log(&format!("pfkeyd: {error}"));
                }
                return 1;
            }
            let notes = Notes { link: Rc::new(link), memory: Rc::clone(&memory), counters: None };
            worker::serve(hub, notes, |errno| report(status.borrow_mut().take(), errno))
        })
    }

    /// As `with_kernel`, in every network namespace of whose programs a session comes. The guardian has the sockets of each.
    fn with_namespaces(mut self) -> io::Result<bool> {
        let (memory, counters) = self.take_up()?;
        let (notify, status) = (Notify::from_environment(), Rc::clone(self.status));
        // What every session needs.
        if let Err(errno) = Events::open() {
            no_engine(&status, errno.to_raw());
            return Ok(false);
        }
        self.run(Rc::clone(&memory), Some(counters.clone()), move |link| {
            close_others(&link, &status, None);
            let link = Rc::new(link);
            let keep: KeepEngine = {
                let notes = Notes { link: Rc::clone(&link), memory: Rc::clone(&memory), counters: None };
                Box::new(move |number, sockets| notes.keep_engine(number, sockets))
            };
            let machine = match Machine::new(keep) {
                Ok(machine) => machine,
                Err(errno) => return no_engine(&status, errno.to_raw()),
            };
            let notes = Notes { link, memory: Rc::clone(&memory), counters: Some(counters.clone()) };
            worker::serve(machine, notes, |errno| {
                if let Some(notify) = notify.as_ref().filter(|_| errno == 0) {
                    notify.say("READY=1");
                }
                report(status.borrow_mut().take(), errno)
            })
        })
    }

    /// The memory for notes, counters, and what a guardian before this one left.
    fn take_up(&mut self) -> io::Result<(Rc<Memory>, Counters)> {
        if let Some(lifeline) = &self.lifeline {
            let _ = lifeline.hear(true);
        }
        let new = || Ok((Rc::new(Memory::new(WORDS, 0)?), Counters::new()?));
        let Some(gate) = &mut self.gate else { return new() };
        let kept = std::mem::take(&mut gate.kept);
        let Some(store) = &mut gate.store else {
            let rest = kept.into_iter().map(|(_, fd)| fd).collect();
            self.first = First::Left(Left { rest, ..Left::default() });
            return new();
        };
        let (memory, counters, left) = store.take(kept, limits::sessions())?;
        self.first = First::Left(left);
        Ok((memory, counters))
    }

    /// The SAs and policies are the worker's own, and recorded.
    fn with_memory(self, service: impl Service + Sources) -> io::Result<bool> {
        let memory = Rc::new(Memory::new(record::RECORD_WORDS, record::BYTES)?);
        let status = Rc::clone(self.status);
        // Taken in the worker's process only: this one keeps it as it was in the beginning.
        let mut service = Some(service);
        self.run(Rc::clone(&memory), None, move |link| {
            close_others(&link, &status, None);
            let Some(service) = service.take() else { return 1 };
            let mut recorded = Recorded::new(service, Rc::new(link), Rc::clone(&memory));
            recorded.serve(|errno| report(status.borrow_mut().take(), errno))
        })
    }

    fn run(self, memory: Rc<Memory>, counters: Option<Counters>, work: impl FnMut(Link) -> u8) -> io::Result<bool> {
        // Known before it may not be asked any more.
        let room =
            if matches!(self.options.clients, Clients::Service(_)) { limits::sessions() } else { limits::clients() };
        let confined = confine::confine(self.options.filter)?;
        if self.options.filter && !confined.filtered {
            log(&format!("pfkeyd: {confined}"));
        }
        let guardian = Guardian::start(work, (memory, counters), self.gate, self.lifeline, self.first, room)?;
        // This process ends after it, and its end closes what clients left without waiting.
        let mut guardian = ManuallyDrop::new(guardian);
        // The first worker has it.
        drop(self.status.borrow_mut().take());
        guardian.run()
    }
}

/// A worker holds its link, the descriptor for the word that it serves, if it is the first, and its engine's.
fn close_others(link: &Link, status: &Status, engine: Option<BorrowedFd<'_>>) {
    let status = status.borrow();
    let kept: Vec<_> = [Some(link.as_fd()), status.as_ref().map(AsFd::as_fd), engine].into_iter().flatten().collect();
    child::close_all_but(&kept);
}

fn no_engine(status: &Status, errno: i32) -> u8 {
    if !report(status.borrow_mut().take(), errno) {
        log(&format!("pfkeyd: {}", io::Error::from_raw_os_error(errno)));
    }
    1
}

/// The addresses of this host now. None where they cannot be read: then no SA is inbound.
fn local_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| interface.address);
    let v4 = |a: &SockaddrStorage| a.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
    let v6 = |a: &SockaddrStorage| a.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
    addresses.filter_map(|address| v4(&address).or_else(|| v6(&address))).collect()
}
