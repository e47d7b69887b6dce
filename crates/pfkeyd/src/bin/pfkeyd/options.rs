//! pfkeyd's arguments.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use pfkey_socket::XfrmText;
use pfkey_wire::Extras;

pub const USAGE: &str = "\
usage: pfkeyd [options] --listen PATH
       pfkeyd [options] -- COMMAND [ARGUMENT...]
       pfkeyd --any -- COMMAND [ARGUMENT...]
       pfkeyd --seccomp-agent PATH
       pfkeyd --service [PATH]

Serves PF_KEY sockets from userspace. The first form listens on a socket; programs reach it with
PFKEY_BACKEND=unix:PATH. The second form starts such a daemon, runs COMMAND with it, and ends it afterwards. The third
becomes COMMAND, whose PF_KEY system calls are answered by a process beside it: see pfkey-run(1). The fourth does that
for containers whose seccomp profile has PATH as its listenerPath. The fifth is the service of the whole machine: if the
kernel has no AF_KEY, every program opens its sockets there.

  --engine ENGINE    embedded (default): a key engine in this process; it protects no packet
                     copy: the same, and accepts what only a kernel can do (offload, IP-TFS, ...), to try a configuration
                     xfrm: the kernel's SAs and policies, over XFRM netlink
  --profile DIALECT  of the embedded engine: linux (default), as Linux's AF_KEY; rfc2367, to the letter of the RFC;
                     klips, as Openswan's KLIPS, with its own numbers and eroutes
  --algorithms LIST  offer more than AF_KEY: aead (AES-CCM, AES-GCM, AES-GMAC, ChaCha20-Poly1305), sha256-128
                     (SHA2-256 with 128 bits, RFC 4868), or both with a comma between
  --xfrm LIST        XFRM attributes for the SAs and policies of all clients, such as if_id=42,out:set-mark=0x10 (see
                     pfkeyd(8)). With if_id or mark clients see and change no others. A client's own PFKEY_XFRM
                     replaces LIST
  --mode OCTAL       with --listen: the mode of the socket's file. Without it the mode is 0600, and only root and the
                     user who started pfkeyd are served; with it everybody who can connect
  --service [PATH]   serve the kernel's SAs and policies to every program that may open an AF_KEY socket, in its own
                     network namespace; on the socket that systemd passes, or on PATH (/run/pfkeyd/pfkeyd.sock)
  --unconfined       do not install the filter of system calls: for debuggers and sanitizers
  --fd N             serve the connected socket N, and end when it is closed
  --status N         write 0, or the errno of a failed start, to the pipe or socket N as a native 32-bit number
  -h, --help         this text
  -V, --version      the version

SIGUSR1 prints statistics of each session on stderr. SIGTERM, SIGINT and SIGHUP end a daemon that listens; with -- COMMAND
they are passed to COMMAND. With --fd only SIGKILL ends it.

exit status: 0; that of COMMAND, or 128+N if signal N killed it; 1 if the daemon could not do its work; 2 for wrong
arguments; 126 or 127 if COMMAND cannot be executed or found.
";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    Embedded,
    /// An embedded one that takes what only a kernel does.
    Copy,
    Xfrm,
}

/// Whose PF_KEY an embedded engine speaks.
#[derive(Clone, Copy)]
pub enum Profile {
    Linux,
    Rfc2367,
    Klips,
}

/// Whom it serves.
pub enum Clients {
    Fd(i32),
    Listen(PathBuf),
    Command(Vec<OsString>),
    Service(PathBuf),
}

pub struct Options {
    pub engine: EngineKind,
    pub profile: Profile,
    pub extras: Extras,
    /// With numbers for network interfaces.
    pub xfrm: Option<String>,
    pub clients: Clients,
    pub mode: Option<u32>,
    pub filter: bool,
    pub status: Option<i32>,
}

/// What the arguments ask for.
pub enum Asked {
    Serve(Options),
    /// To become this program, with PF_KEY for it.
    Any(Vec<OsString>),
    /// To do that for the containers that a runtime names on this socket.
    Agent(PathBuf),
    Help,
    Version,
}

/// Reads the arguments.
///
/// # Errors
/// A line that names what is wrong.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut arguments = arguments.peekable();
    let mut clients = Vec::new();
    let (mut engine, mut profile, mut extras) = (EngineKind::Embedded, Profile::Linux, Extras::default());
    let (mut engine_named, mut profile_named) = (false, false);
    let (mut xfrm, mut mode, mut filter, mut status) = (None, None, true, None);
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
            "-V" | "--version" => return Ok(Asked::Version),
            "--engine" => (engine, engine_named) = (parse_engine(&value()?)?, true),
            "--profile" => (profile, profile_named) = (parse_profile(&value()?)?, true),
            "--algorithms" => {
                extras = value()?.to_string_lossy().parse().map_err(|error| format!("--algorithms: {error}"))?;
            }
            "--xfrm" => {
                let text = value()?;
                let text = text.to_string_lossy();
                let asked = XfrmText::new(&text).map_err(|why| format!("--xfrm: {}", why.about(&text)))?;
                xfrm = Some(asked.as_str().to_owned()).filter(|asked| !asked.is_empty());
            }
            "--mode" => mode = Some(parse_mode(&value()?)?),
            "--unconfined" => filter = false,
            "--listen" => clients.push(Clients::Listen(value()?.into())),
            "--any" => return parse_any(arguments),
            "--seccomp-agent" => {
                let path = PathBuf::from(value()?);
                return match arguments.next() {
                    None => Ok(Asked::Agent(path)),
                    Some(more) => Err(format!("--seccomp-agent PATH takes no {more:?}")),
                };
            }
            "--service" => {
                let path = arguments.next_if(|next| !next.as_encoded_bytes().starts_with(b"-"));
                clients.push(Clients::Service(path.unwrap_or_else(|| pfkey_socket::SERVICE_PATH.into()).into()));
            }
            "--fd" => clients.push(Clients::Fd(number(&name, &value()?)?)),
            "--status" => status = Some(number(&name, &value()?)?),
            "--" => {
                let command: Vec<_> = arguments.by_ref().collect();
                if command.is_empty() {
                    return Err("no command after --".into());
                }
                clients.push(Clients::Command(command));
            }
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    if matches!(clients.last(), Some(Clients::Service(_))) {
        if engine_named || profile_named || !extras.is_none() || xfrm.is_some() {
            return Err(
                "--service is over XFRM, and offers each program what it asks for: no other option is for it".into()
            );
        }
        engine = EngineKind::Xfrm;
    }
    if engine != EngineKind::Embedded && !matches!(profile, Profile::Linux) {
        return Err("--profile is for the embedded engine".into());
    }
    if matches!(profile, Profile::Klips) && !extras.is_none() {
        return Err("--algorithms is not for --profile klips, whose algorithms are KLIPS's".into());
    }
    if matches!(profile, Profile::Klips) && xfrm.is_some() {
        return Err("--xfrm is not for --profile klips, which has none of XFRM's attributes".into());
    }
    let (one, more) = (clients.pop(), !clients.is_empty());
    let clients = match one {
        None => return Err("nothing to serve: give --listen PATH, --service or -- COMMAND".into()),
        Some(_) if more => return Err("--listen, --service, --fd and -- COMMAND exclude each other".into()),
        Some(clients) => clients,
    };
    if matches!(clients, Clients::Fd(fd) if status == Some(fd)) {
        return Err("--fd and --status are two descriptors".into());
    }
    if mode.is_some() && !matches!(clients, Clients::Listen(_)) {
        return Err("--mode is for --listen".into());
    }
    Ok(Asked::Serve(Options { engine, profile, extras, xfrm, clients, mode, filter, status }))
}

/// `--any` takes no other option: the environment says who serves.
fn parse_any(mut arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    if arguments.next().is_none_or(|argument| argument != "--") {
        return Err("--any is followed by -- COMMAND".into());
    }
    let command: Vec<_> = arguments.collect();
    if command.is_empty() { Err("no command after --".into()) } else { Ok(Asked::Any(command)) }
}

fn parse_engine(value: &OsStr) -> Result<EngineKind, String> {
    match value.to_string_lossy().as_ref() {
        "embedded" => Ok(EngineKind::Embedded),
        "copy" => Ok(EngineKind::Copy),
        "xfrm" => Ok(EngineKind::Xfrm),
        other => Err(format!("--engine {other}: expected embedded, copy or xfrm")),
    }
}

fn parse_profile(value: &OsStr) -> Result<Profile, String> {
    match value.to_string_lossy().as_ref() {
        "linux" => Ok(Profile::Linux),
        "rfc2367" => Ok(Profile::Rfc2367),
        "klips" => Ok(Profile::Klips),
        other => Err(format!("--profile {other}: expected linux, rfc2367 or klips")),
    }
}

fn parse_mode(value: &OsStr) -> Result<u32, String> {
    let text = value.to_string_lossy();
    u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("--mode {text}: expected an octal number up to 777"))
}

fn number(name: &str, value: &OsStr) -> Result<i32, String> {
    let text = value.to_string_lossy();
    match text.parse() {
        Ok(n) if n >= 0 => Ok(n),
        _ => Err(format!("{name} {text}: not a descriptor")),
    }
}
