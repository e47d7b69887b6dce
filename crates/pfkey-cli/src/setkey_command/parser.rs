//! The language as ipsec-tools' setkey reads it: each command is carried out when its `;` is read, and the first error ends the
//! text. Its grammar is LALR(1) with default reductions, which shows in the token that a message quotes: a token is read ahead only
//! where the grammar needs it.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};

use pfkey::policy_text::address::{self, AddressError};
use pfkey_print::error::Code;
use pfkey_wire::{MessageType, SaType};

use super::lexer::{Kind, Lexer, Stray, Token};
use super::printer::warn;
use super::session::{Session, is_between};
use crate::model::names;
use crate::model::sa::Sa;
use crate::setkey::is_host_name;

/// Why a text ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// An error, which was told.
    Error,
    /// A character that begins no token, which was told: the whole run ends.
    Stray,
    /// `exit`
    Exit,
    /// Nothing can be written.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, Stop>;

/// Which addresses a name stands for, and whether names are looked up at all.
#[derive(Clone, Copy, Default)]
pub(super) struct AddressFlags {
    family: Option<u8>,
    numeric: bool,
    /// `-k`: no copy of an inbound policy.
    pub exact: bool,
}

/// Reads a text and carries it out.
pub struct Parser<'a, 's> {
    lexer: Lexer<'a>,
    ahead: Option<Token<'a>>,
    pub(super) session: &'s mut Session,
}

impl<'a, 's> Parser<'a, 's> {
    /// Of a text.
    pub fn new(text: &'a [u8], session: &'s mut Session) -> Self {
        Self { lexer: Lexer::new(text), ahead: None, session }
    }

    /// Carries out every command.
    ///
    /// # Errors
    /// [`Stop`], with the line at which it stopped.
    pub fn run(mut self) -> std::result::Result<(), (Stop, usize)> {
        loop {
            match self.command() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(stop) => return Err((stop, self.lexer.line)),
            }
        }
    }

    pub(super) fn peek(&mut self) -> Result<Token<'a>> {
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        let token = match self.lexer.next() {
            Ok(token) => token,
            Err(Stray) => {
                self.complain("Syntax error");
                return Err(Stop::Stray);
            }
        };
        // What is told from now on is told of this line.
        if let Some((_, line)) = &mut self.session.printer.place {
            *line = self.lexer.line;
        }
        self.ahead = Some(token);
        Ok(token)
    }

    pub(super) fn take(&mut self) -> Result<Token<'a>> {
        let token = self.peek()?;
        self.ahead = None;
        Ok(token)
    }

    /// Takes the next token if it is of this kind.
    pub(super) fn accept(&mut self, kind: Kind) -> Result<bool> {
        let found = self.peek()?.kind == kind;
        if found {
            self.ahead = None;
        }
        Ok(found)
    }

    /// Takes the next token, which must be of this kind.
    pub(super) fn expect(&mut self, kind: Kind) -> Result<Token<'a>> {
        if self.peek()?.kind == kind { self.take() } else { self.syntax_error() }
    }

    pub(super) fn syntax_error<T>(&mut self) -> Result<T> {
        self.error("syntax error")
    }

    /// Says what is wrong with the token that was read last.
    pub(super) fn error<T>(&mut self, text: &str) -> Result<T> {
        self.complain(text);
        Err(Stop::Error)
    }

    /// The same, and goes on.
    pub(super) fn complain(&mut self, text: &str) {
        let quoted = self.lexer.quoted();
        match &self.session.printer.place {
            Some((file, _)) => {
                let quoted = String::from_utf8_lossy(quoted);
                warn(format_args!("{file},{}: {text} at `{quoted}'", self.lexer.line));
            }
            None => {
                let _ = write!(self.session.printer.out, "{text} at `");
                let _ = self.session.printer.out.write_all(quoted);
                let _ = self.session.printer.out.write_all(b"'");
            }
        }
    }

    /// Says what libipsec's code means.
    pub(super) fn code<T>(&mut self, code: Code) -> Result<T> {
        self.session.code = code;
        self.error(code.text())
    }

    /// One command with its `;`; false at the end of the text.
    fn command(&mut self) -> Result<bool> {
        let name = match self.peek()?.kind {
            Kind::End => return Ok(false),
            Kind::Keyword(name) => name,
            _ => return self.syntax_error(),
        };
        match name {
            "add" | "update" | "getspi" | "get" | "delete" => {
                self.take()?;
                self.sa(name)?;
            }
            "deleteall" => {
                self.take()?;
                self.delete_all()?;
            }
            "flush" | "dump" => {
                self.take()?;
                let mut sa = unnamed();
                self.protocol(&mut sa, AddressFlags::default())?;
                self.expect(Kind::Semicolon)?;
                let msg_type = if name == "flush" { MessageType::FLUSH } else { MessageType::DUMP };
                self.session.header(msg_type, sa.satype)?;
            }
            "spdadd" | "spdupdate" | "spddelete" => {
                self.take()?;
                self.policy(name)?;
            }
            "spdflush" | "spddump" => {
                self.take()?;
                self.expect(Kind::Semicolon)?;
                let msg_type = if name == "spdflush" { MessageType::X_SPDFLUSH } else { MessageType::X_SPDDUMP };
                self.session.header(msg_type, SaType::UNSPEC)?;
            }
            "exit" | "quit" | "bye" => {
                self.take()?;
                self.expect(Kind::Semicolon)?;
                return Err(Stop::Exit);
            }
            _ => return self.syntax_error(),
        }
        Ok(true)
    }

    /// Linux deletes SAs one by one only.
    fn delete_all(&mut self) -> Result<()> {
        let flags = self.address_flags()?;
        let srcs = self.host(flags)?;
        let dsts = self.host(flags)?;
        let mut sa = unnamed();
        self.protocol(&mut sa, flags)?;
        self.expect(Kind::Semicolon)?;
        let satype = sa.satype;
        let spis = self.session.spis(satype, |message| is_between(message, satype, &srcs, &dsts))?;
        for spi in spis {
            sa.spi = spi;
            self.send_each(MessageType::DELETE, &sa, &srcs, &dsts)?;
        }
        Ok(())
    }

    /// Sends a request for each pair of addresses of one family.
    pub(super) fn send_each(
        &mut self,
        msg_type: MessageType,
        sa: &Sa,
        srcs: &[SocketAddr],
        dsts: &[SocketAddr],
    ) -> Result<()> {
        let mut sent = false;
        for src in srcs {
            for dst in dsts.iter().filter(|dst| dst.is_ipv4() == src.is_ipv4()) {
                let sa = Sa { src: *src, dst: *dst, ..sa.clone() };
                self.session.exchange(|seq, pid, buffer| sa.write(msg_type, seq, pid, buffer))?;
                sent = true;
            }
        }
        // setkey has no words for it.
        if sent { Ok(()) } else { Err(Stop::Error) }
    }

    /// `-4`, `-6`, `-n`, and `-k`, which is not ipsec-tools'.
    pub(super) fn address_flags(&mut self) -> Result<AddressFlags> {
        let mut flags = AddressFlags::default();
        loop {
            let token = self.peek()?;
            match token.kind {
                Kind::AddressFlags => {
                    for letter in token.bytes {
                        match letter {
                            b'4' => flags.family = Some(4),
                            b'6' => flags.family = Some(6),
                            b'n' => flags.numeric = true,
                            _ => {}
                        }
                    }
                }
                Kind::Keyword("-k") => flags.exact = true,
                _ => return Ok(flags),
            }
            self.take()?;
        }
    }

    /// An address or a name, which is looked up before anything more is read.
    pub(super) fn host(&mut self, flags: AddressFlags) -> Result<Vec<SocketAddr>> {
        let name = self.expect(Kind::Text)?;
        self.resolve(name.bytes, None, flags)
    }

    /// The same with a port.
    pub(super) fn host_port(&mut self, flags: AddressFlags) -> Result<Vec<SocketAddr>> {
        let name = self.expect(Kind::Text)?;
        let port = self.port()?;
        self.resolve(name.bytes, port.as_deref(), flags)
    }

    /// `[PORT]`, `[any]`, `[NAME]` or nothing.
    pub(super) fn port(&mut self) -> Result<Option<String>> {
        if !self.accept(Kind::Open)? {
            return Ok(None);
        }
        let token = self.peek()?;
        let port = match token.kind {
            Kind::Keyword("any") => "0".to_owned(),
            Kind::Decimal => self.number()?.to_string(),
            Kind::Text => String::from_utf8_lossy(token.bytes).into_owned(),
            _ => return self.syntax_error(),
        };
        self.ahead = None;
        self.expect(Kind::Close)?;
        Ok(Some(port))
    }

    /// A decimal number, as large as there are.
    pub(super) fn number(&mut self) -> Result<u64> {
        let token = self.expect(Kind::Decimal)?;
        Ok(std::str::from_utf8(token.bytes).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
    }

    /// Every address of a name.
    pub(super) fn resolve(&mut self, name: &[u8], port: Option<&str>, flags: AddressFlags) -> Result<Vec<SocketAddr>> {
        match resolve(name, port, flags) {
            Ok(found) => Ok(found),
            Err(text) => self.error(&text),
        }
    }
}

/// An SA of which nothing is known yet.
pub(super) fn unnamed() -> Sa {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    Sa::new(SaType::UNSPEC, any, any, 0)
}

/// What `getaddrinfo` gives, or its text.
fn resolve(name: &[u8], port: Option<&str>, flags: AddressFlags) -> std::result::Result<Vec<SocketAddr>, String> {
    let no_name = || AddressError::NoName.text().to_owned();
    let name = std::str::from_utf8(name).map_err(|_| no_name())?;
    let port = match port {
        Some(text) => match address::resolve("0.0.0.0", Some(text)) {
            Ok(address) => address.port(),
            Err(error) => names::service(text).ok_or_else(|| error.text().to_owned())?,
        },
        None => 0,
    };
    let mut found: Vec<SocketAddr> = match address::resolve(name, None) {
        Ok(address) => vec![address],
        // A resolver tells other machines what it is asked for; it is never asked for a key.
        Err(_) if flags.numeric || name.contains(':') || !is_host_name(name.as_bytes()) => return Err(no_name()),
        Err(_) => {
            let resolved = (name, 0).to_socket_addrs().map_err(|error| {
                let text = error.to_string();
                text.rsplit("failed to lookup address information: ").next().unwrap_or_default().to_owned()
            })?;
            let mut found = Vec::new();
            for address in resolved {
                if !found.contains(&address) {
                    found.push(address);
                }
            }
            found
        }
    };
    let is_literal = found.len() == 1 && address::resolve(name, None).is_ok();
    found.retain(|address| flags.family.is_none_or(|family| (family == 4) == address.is_ipv4()));
    if found.is_empty() {
        // EAI_ADDRFAMILY of an address, EAI_NODATA of a name.
        let text = if is_literal {
            "Address family for hostname not supported"
        } else {
            "No address associated with hostname"
        };
        return Err(text.to_owned());
    }
    found.iter_mut().for_each(|address| address.set_port(port));
    Ok(found)
}
