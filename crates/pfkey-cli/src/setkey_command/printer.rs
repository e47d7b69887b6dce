//! What setkey prints of messages.

use std::io::{self, Write};

use pfkey_print::{Environment as _, SocketPolicyFilter, kdebug_sadb_to, sadump_to, spdump_to};
use pfkey_wire::{HEADER_LEN, Header, Message, MessageType, Profile};

use super::clock::Clock;
use super::options::Options;
use super::{NAME, brief, scope};
use crate::output::Out;

/// Whether more messages belong to a request.
#[derive(PartialEq, Eq)]
pub enum Then {
    /// They do.
    More,
    /// There are none.
    Done,
}

/// Says something on standard error, as `warnx` does.
pub fn warn(text: impl std::fmt::Display) {
    eprintln!("{NAME}: {text}");
}

/// An errno's text.
pub fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Standard output, and how things are shown there.
pub struct Printer {
    /// What was asked of this run.
    pub options: Options,
    /// Standard output.
    pub out: Out,
    clock: Clock,
    filter: SocketPolicyFilter,
    /// Where a command stands in a file: its name and line; messages about it go to standard error then.
    pub place: Option<(String, usize)>,
}

impl Printer {
    /// By the options of a command line.
    pub fn new(options: Options) -> Self {
        let filter = SocketPolicyFilter { hide: options.no_sockets, hidden: 0 };
        Self { options, out: Out::new(), clock: Clock::new(), filter, place: None }
    }

    /// Prints a message that was sent or told to somebody, with the time.
    pub fn watched(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (seconds, microseconds) = self.clock.time();
        if self.options.times > 1 {
            writeln!(self.out, "{seconds}.{microseconds:06} ")?;
        } else {
            let s = self.clock.local(seconds).rem_euclid(86_400);
            writeln!(self.out, "{:02}:{:02}:{:02}.{microseconds:06} ", s / 3600, s % 3600 / 60, s % 60)?;
        }
        if self.options.hexadecimal {
            brief::hexdump(&mut self.out, bytes)?;
        }
        let is_promiscuous = Header::read(bytes).is_some_and(|h| h.msg_type == MessageType::X_PROMISC);
        let shown = if is_promiscuous { bytes.get(HEADER_LEN..).unwrap_or_default() } else { bytes };
        if !shown.is_empty() {
            self.debug(shown)?;
        }
        self.out.flush()
    }

    /// `-v` and `-H` of a request.
    pub fn request(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.options.verbose {
            self.debug(bytes)?;
        }
        if self.options.hexadecimal {
            brief::hexdump(&mut self.out, bytes)?;
        }
        Ok(())
    }

    /// Every field of a message, and an empty line.
    pub fn debug(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = Ok(());
        kdebug_sadb_to(bytes, &mut |piece| put(&mut written, &mut self.out, piece));
        written?;
        writeln!(self.out)
    }

    /// Prints a file of messages.
    pub fn print_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(header) = Header::read(bytes) {
            let len = usize::from(header.len) * 8;
            let Some((message, rest)) = bytes.split_at_checked(len).filter(|_| len >= HEADER_LEN) else { break };
            self.print(header, message)?;
            bytes = rest;
        }
        Ok(())
    }

    pub fn print(&mut self, header: Header, bytes: &[u8]) -> io::Result<Then> {
        use MessageType as M;
        if header.errno != 0 {
            self.refused(header)?;
            return Ok(Then::Done);
        }
        match header.msg_type {
            M::GET => self.print_sa(bytes)?,
            M::DUMP => {
                let dead = Message::parse(bytes, Profile::Linux)
                    .is_ok_and(|message| message.sa().is_some_and(|sa| sa.state == 3));
                if dead && !self.options.all {
                    return Ok(Then::More);
                }
                if self.options.forever {
                    let now = self.clock.now();
                    brief::line(&mut self.out, bytes, now)?;
                } else {
                    self.print_sa(bytes)?;
                }
                if self.options.verbose {
                    // ipsec-tools' setkey shows what lies behind the message in its buffer: nothing, as a rule.
                    self.debug(&[0; HEADER_LEN])?;
                }
            }
            M::X_SPDGET | M::X_SPDDUMP => {
                if let Some(bytes) = scope::shown(bytes, self.options.scope) {
                    self.print_policy(&bytes)?;
                }
                let hidden = self.filter.hidden;
                if header.msg_type == M::X_SPDDUMP && header.seq == 0 && self.filter.hide && hidden > 0 {
                    let noun = if hidden == 1 { "policy" } else { "policies" };
                    writeln!(self.out, "{hidden} per-socket {noun} not shown (filtered by -N)")?;
                }
            }
            _ => {}
        }
        Ok(Then::More)
    }

    fn refused(&mut self, header: Header) -> io::Result<()> {
        use MessageType as M;
        let errno = i32::from(header.errno);
        let text = match (errno, header.msg_type) {
            (libc::ENOENT, M::DELETE | M::GET | M::X_SPDDELETE) => "No entry".to_owned(),
            (libc::ENOENT, M::DUMP) => "No SAD entries".to_owned(),
            (libc::ENOENT, M::X_SPDDUMP) => "No SPD entries".to_owned(),
            _ => errno_text(errno),
        };
        match &self.place {
            Some((file, line)) => {
                warn(format_args!("{file},{line}: {text}"));
                Ok(())
            }
            None => writeln!(self.out, "{text}."),
        }
    }

    fn print_sa(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = Ok(());
        let out = &mut self.out;
        let _ = sadump_to(bytes, self.options.ports, &self.clock, &mut |piece| put(&mut written, out, piece));
        written
    }

    fn print_policy(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = Ok(());
        let out = &mut self.out;
        let ports = self.options.ports;
        let sink = &mut |piece: &[u8]| put(&mut written, out, piece);
        let _ = spdump_to(bytes, ports, &mut self.filter, &self.clock, sink);
        written
    }
}

/// Writes a piece, unless one before it could not be written.
fn put(written: &mut io::Result<()>, out: &mut Out, piece: &[u8]) {
    if written.is_ok() {
        *written = out.write_all(piece);
    }
}
