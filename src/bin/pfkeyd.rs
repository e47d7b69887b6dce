//! pfkeyd: serves PF_KEY sockets from userspace.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, socket};
use nix::unistd::Pid;
use pfkey_rs::engine::Engine;
use pfkey_rs::keyd::server::{Ended, Server};
use pfkey_rs::keyd::{Hub, Service};
use pfkey_rs::klips;
use pfkey_rs::socket::{become_unprivileged, inherited};
use pfkey_rs::wire::{Extras, Profile};
use pfkey_rs::xfrm::XfrmEngine;

const USAGE: &str = "\
usage: pfkeyd [options] --listen PATH
       pfkeyd [options] -- COMMAND [ARGUMENT...]

Serves PF_KEY sockets from userspace. The first form listens on a socket; programs reach it with
PFKEY_BACKEND=unix:PATH. The second form runs COMMAND with such a daemon around it and ends it afterwards.

  --engine ENGINE    embedded (default): a key engine in this process; it protects no packet
                     xfrm: the kernel's SAs and policies, over XFRM netlink
  --profile DIALECT  of the embedded engine: linux (default), as Linux's AF_KEY; rfc2367, to the letter of the RFC;
                     klips, as Openswan's KLIPS, with its own numbers and eroutes
  --algorithms LIST  offer more than AF_KEY: aead (AES-CCM, AES-GCM, AES-GMAC, ChaCha20-Poly1305), sha256-128
                     (SHA2-256 with 128 bits, RFC 4868), or both with a comma between
  --fd N             serve the connected socket N, and end when it is closed
  --status N         write 0, or the errno of a failed start, to descriptor N as a native 32-bit number
  -h, --help         this text
  -V, --version      the version

SIGUSR1 prints what each session received and lost on stderr. SIGTERM and SIGINT end the daemon.

exit status: 0; that of COMMAND, or 128+N if signal N killed it; 1 if the daemon could not do its work; 2 for an
argument that it does not understand; 126 or 127 if COMMAND cannot be executed or found.
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum EngineKind {
    Embedded,
    Xfrm,
}

struct Options {
    engine: EngineKind,
    profile: Profile,
    extras: Extras,
    listen: Option<PathBuf>,
    fd: Option<i32>,
    status: Option<i32>,
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pfkeyd: {message}\nTry 'pfkeyd --help'.");
            return ExitCode::from(2);
        }
    };
    let status = options.status;
    match serve(&options) {
        Ok(code) => code,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            if !report(status, errno) {
                match &options.listen {
                    Some(path) => eprintln!("pfkeyd: {}: {error}", path.display()),
                    None => eprintln!("pfkeyd: {error}"),
                }
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        engine: EngineKind::Embedded,
        profile: Profile::Linux,
        extras: Extras::default(),
        listen: None,
        fd: None,
        status: None,
        command: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "-h" | "--help" => {
                print!("{USAGE}");
                return Ok(None);
            }
            "-V" | "--version" => {
                println!("pfkeyd {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            "--engine" => {
                options.engine = match value()?.to_string_lossy().as_ref() {
                    "embedded" => EngineKind::Embedded,
                    "xfrm" => EngineKind::Xfrm,
                    other => return Err(format!("--engine {other}: expected embedded or xfrm")),
                }
            }
            "--profile" => {
                options.profile = match value()?.to_string_lossy().as_ref() {
                    "linux" => Profile::Linux,
                    "rfc2367" => Profile::Rfc2367,
                    "klips" => Profile::Klips,
                    other => return Err(format!("--profile {other}: expected linux, rfc2367 or klips")),
                }
            }
            "--algorithms" => {
                let list = value()?;
                options.extras = list.to_string_lossy().parse().map_err(|error| format!("--algorithms: {error}"))?;
            }
            "--listen" => options.listen = Some(value()?.into()),
            "--fd" => options.fd = Some(number(&name, &value()?)?),
            "--status" => options.status = Some(number(&name, &value()?)?),
            "--" => {
                options.command = arguments.collect();
                if options.command.is_empty() {
                    return Err("no command after --".into());
                }
                break;
            }
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    let forms = usize::from(options.listen.is_some())
        + usize::from(options.fd.is_some())
        + usize::from(!options.command.is_empty());
    if options.engine == EngineKind::Xfrm && options.profile != Profile::Linux {
        return Err("--profile is for the embedded engine".into());
    }
    if options.profile == Profile::Klips && !options.extras.is_none() {
        return Err("--algorithms is not for --profile klips, whose algorithms are KLIPS's".into());
    }
    match forms {
        1 => Ok(Some(options)),
        0 => Err("nothing to serve: give --listen PATH or -- COMMAND".into()),
        _ => Err("--listen, --fd and -- COMMAND exclude each other".into()),
    }
}

fn number(name: &str, value: &std::ffi::OsStr) -> Result<i32, String> {
    let text = value.to_string_lossy();
    match text.parse() {
        Ok(n) if n >= 0 => Ok(n),
        _ => Err(format!("{name} {text}: not a descriptor")),
    }
}

/// Tells whoever started us how the start went; false if nobody asked.
fn report(status: Option<i32>, errno: i32) -> bool {
    let Some(fd) = status else { return false };
    let Ok(mut file) = inherited(fd).map(std::fs::File::from) else { return false };
    file.write_all(&errno.to_ne_bytes()).is_ok()
}

fn serve(options: &Options) -> io::Result<ExitCode> {
    // Keys are in this process's memory: no core dumps, no ptrace by others.
    nix::sys::prctl::set_dumpable(false)?;
    match options.engine {
        EngineKind::Embedded if options.profile == Profile::Klips => {
            let mut engine = klips::Engine::new();
            engine.set_local(local_addresses());
            serve_with(klips::Hub::new(engine), options)
        }
        EngineKind::Embedded => {
            let mut engine = Engine::new(options.profile);
            engine.set_extras(options.extras);
            serve_with(Hub::new(engine, options.profile), options)
        }
        EngineKind::Xfrm => {
            let mut engine = XfrmEngine::new()?;
            engine.set_extras(options.extras);
            serve_with(Hub::new(engine, options.profile), options)
        }
    }
}

fn serve_with<H: Service>(hub: H, options: &Options) -> io::Result<ExitCode> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // The signalfd takes them; the command starts with an empty mask, as std gives it.
    signals.thread_block()?;
    let mut server = Server::new(hub)?;
    server.signals(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)?;

    if let Some(fd) = options.fd {
        server.add(inherited(fd)?)?;
        drop_privileges()?;
        report(options.status, 0);
        server.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &options.listen {
        let _socket = Listening::start(&mut server, path)?;
        report(options.status, 0);
        while server.run()? == Ended::Child {}
        return Ok(ExitCode::SUCCESS);
    }
    run_command(&mut server, &options.command)
}

/// The addresses of this host now. None where they cannot be read: then no SA is inbound.
fn local_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| interface.address);
    let v4 = |a: &SockaddrStorage| a.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
    let v6 = |a: &SockaddrStorage| a.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
    addresses.filter_map(|address| v4(&address).or_else(|| v6(&address))).collect()
}

/// What is left is the right to change SAs and policies, and nothing that this process might execute can gain more.
fn drop_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    become_unprivileged(65533).map(|_| ())
}

/// A socket file, removed when dropped.
struct Listening {
    path: PathBuf,
}

impl Listening {
    fn start<H: Service>(server: &mut Server<H>, path: &Path) -> io::Result<Self> {
        let fd =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        let address = UnixAddr::new(path)?;
        match bind(fd.as_raw_fd(), &address) {
            // A file that nobody listens on any more is in nobody's use.
            Err(nix::errno::Errno::EADDRINUSE) if is_stale(path) => {
                std::fs::remove_file(path)?;
                bind(fd.as_raw_fd(), &address)?;
            }
            other => other?,
        }
        let listening = Self { path: path.to_owned() };
        listen(&fd, Backlog::new(128)?)?;
        server.listen(fd)?;
        Ok(listening)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_stale(path: &Path) -> bool {
    let probe = || -> nix::Result<()> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        nix::sys::socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
    };
    probe() == Err(nix::errno::Errno::ECONNREFUSED)
}

/// A directory of our own for a socket, removed when dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> io::Result<Self> {
        let template = std::env::temp_dir().join("pfkeyd-XXXXXX");
        let path = nix::unistd::mkdtemp(&template)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run_command<H: Service>(server: &mut Server<H>, command: &[OsString]) -> io::Result<ExitCode> {
    let directory = PrivateDirectory::new()?;
    let path = directory.0.join("pfkeyd.sock");
    let _socket = Listening::start(server, &path)?;
    let mut backend = OsString::from("unix:");
    backend.push(&path);
    let mut child = match spawn(command, &backend) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("pfkeyd: {}: {error}", command[0].to_string_lossy());
            let missing = error.kind() == io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if missing { 127 } else { 126 }));
        }
    };
    loop {
        match server.run()? {
            Ended::Signal(signal) => {
                // The command decides what the signal means; its end is ours.
                let _ = kill(Pid::from_raw(child.id() as i32), signal);
            }
            Ended::Child | Ended::NoSessions => {}
        }
        if let Some(status) = child.try_wait()? {
            let code = status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(1);
            return Ok(ExitCode::from(code as u8));
        }
    }
}

fn spawn(command: &[OsString], backend: &OsString) -> io::Result<Child> {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).env("PFKEY_BACKEND", backend);
    child.spawn()
}
