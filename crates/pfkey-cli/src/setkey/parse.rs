//! The commands of setkey's file language.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, ToSocketAddrs};

use pfkey::policy_text::address;
use pfkey_model::xfrm::Xfrm;
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{PolicyDirection, SaType};

use super::host_name::is_host_name;
use super::lexer::{Kind, Lexer, Token};
use super::{Action, Command, Complaint, Lines, silent};
use crate::model::sa::NatT;
use crate::model::{names, xfrm};

/// Errors after which the rest of a text is not looked at.
const MAX_ERRORS: usize = 20;
/// Every command.
const COMMANDS: &[&str] = &[
    "add",
    "update",
    "getspi",
    "get",
    "delete",
    "deleteall",
    "flush",
    "dump",
    "spdadd",
    "spdupdate",
    "spddelete",
    "spdflush",
    "spddump",
    "exit",
    "quit",
    "bye",
];

/// What a text says.
#[derive(Default)]
pub struct Parsed {
    /// Its commands, if there are no errors.
    pub commands: Vec<Command>,
    /// What makes it unusable.
    pub errors: Vec<Complaint>,
    /// What its author may want to know.
    pub warnings: Vec<Complaint>,
}

pub(super) type Result<T> = std::result::Result<T, Complaint>;

/// Which addresses a command takes (`-4`, `-6`, `-n`), and `-k`.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    family: Option<u8>,
    numeric: bool,
    /// No copy of an inbound policy for forwarded packets.
    pub exact: bool,
}

/// A protocol, and what its name says besides.
pub(super) struct Protocol {
    pub satype: SaType,
    pub nat_t: Option<NatT>,
    pub old: bool,
    pub at: usize,
}

/// Reads one token ahead.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token<'a>>,
    /// Addresses of host names that were asked for.
    hosts: HashMap<String, Vec<SocketAddr>>,
    pub warnings: Vec<Complaint>,
}

/// Reads a text. With `kernel` inbound policies get no copies for forwarded packets (setkey's `-k`).
pub fn parse(text: &[u8], kernel: bool) -> Parsed {
    parse_files(text, &[text.len()], kernel)
}

/// Reads a text that is put together from files, of which each ends at one of `ends`. An `exit` ends its own file only; which
/// policies get copies for forwarded packets is decided from all of them.
pub fn parse_files(text: &[u8], ends: &[usize], kernel: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut commands = Vec::new();
    let mut start = 0;
    for end in ends {
        let file = parse_file(text.get(start..*end).unwrap_or_default());
        let moved = |complaint: Complaint| Complaint { at: start + complaint.at, ..complaint };
        parsed.errors.extend(file.errors.into_iter().map(moved));
        parsed.warnings.extend(file.warnings.into_iter().map(moved));
        commands.extend(file.commands.into_iter().map(|(c, forward)| (Command { at: start + c.at, ..c }, forward)));
        start = *end;
    }
    if parsed.errors.is_empty() {
        parsed.commands = if kernel { commands.into_iter().map(|(c, _)| c).collect() } else { forward(commands) };
    }
    parsed
}

/// What one file says by itself.
#[derive(Default)]
struct OfFile {
    /// Each with whether a copy for forwarded packets goes with it.
    commands: Vec<(Command, bool)>,
    errors: Vec<Complaint>,
    warnings: Vec<Complaint>,
}

fn parse_file(text: &[u8]) -> OfFile {
    let mut parser = Parser { lexer: Lexer::new(text), ahead: None, hosts: HashMap::new(), warnings: Vec::new() };
    let mut file = OfFile::default();
    loop {
        match parser.command(&mut file.commands) {
            Ok(true) => {}
            Ok(false) => break,
            Err(complaint) => {
                file.errors.push(complaint);
                if file.errors.len() == MAX_ERRORS {
                    break;
                }
                parser.recover();
            }
        }
    }
    file.warnings = parser.warnings;
    file.warnings.extend(silent::duplicates(&file.commands, &Lines::new(text)));
    file.warnings.sort_by_key(|warning| warning.at);
    file
}

/// Adds the copies for forwarded packets, but where the text itself has a policy for those packets.
fn forward(commands: Vec<(Command, bool)>) -> Vec<Command> {
    let own: HashSet<_> = commands
        .iter()
        .filter_map(|(command, _)| match &command.action {
            Action::SpdAdd(p) | Action::SpdUpdate(p) if p.spec.direction == PolicyDirection::FWD => Some(p.selector()),
            _ => None,
        })
        .collect();
    let mut all = Vec::with_capacity(commands.len());
    for (command, forward) in commands {
        let at = command.at;
        let copy = match &command.action {
            Action::SpdAdd(p) if forward => Some((Box::new(p.forwarded()), Action::SpdAdd as fn(_) -> _)),
            Action::SpdUpdate(p) if forward => Some((Box::new(p.forwarded()), Action::SpdUpdate as fn(_) -> _)),
            Action::SpdDelete(p, _) if forward => {
                Some((Box::new(p.forwarded()), (|p| Action::SpdDelete(p, true)) as fn(_) -> _))
            }
            _ => None,
        };
        all.push(command);
        if let Some((policy, action)) = copy.filter(|(policy, _)| !own.contains(&policy.selector())) {
            all.push(Command { at, action: action(policy) });
        }
    }
    all
}

impl<'a> Parser<'a> {
    pub fn peek(&mut self) -> Result<Token<'a>> {
        match self.ahead {
            Some(token) => Ok(token),
            None => Ok(*self.ahead.insert(self.lexer.next()?)),
        }
    }

    pub fn take(&mut self) -> Result<Token<'a>> {
        let token = self.peek()?;
        self.ahead = None;
        Ok(token)
    }

    /// Takes the next token if it is of this kind.
    fn accept_kind(&mut self, kind: Kind) -> Result<bool> {
        let found = self.peek()?.kind == kind;
        if found {
            self.ahead = None;
        }
        Ok(found)
    }

    /// The next token is not what it should be.
    pub fn expected<T>(&mut self, what: &str) -> Result<T> {
        let token = self.peek()?;
        Err(Complaint { at: token.at, text: format!("{what} expected, not {}", token.shown()) })
    }

    /// The next token is not one of these names.
    pub fn unknown<'n, T>(&mut self, what: &str, names: impl IntoIterator<Item = &'n str>) -> Result<T> {
        let token = self.peek()?;
        if token.kind != Kind::Word {
            let article = if what.starts_with(['a', 'e', 'o', 'u']) { "an" } else { "a" };
            return self.expected(&format!("{article} {what}"));
        }
        let hint = names::nearest(&token.text(), names).map_or_else(String::new, |n| format!("; did you mean '{n}'?"));
        Err(Complaint { at: token.at, text: format!("unknown {what} {}{hint}", token.shown()) })
    }

    /// The next token is only the first `len` bytes of what it was.
    pub(super) fn cut(&mut self, len: usize) {
        if let Some(token) = &mut self.ahead {
            token.bytes = token.bytes.get(..len).unwrap_or(token.bytes);
            self.lexer.go_to(token.at + len);
        }
    }

    fn recover(&mut self) {
        // The offending token is still ahead: it may be the very ';'.
        let ended = self.ahead.take().is_some_and(|t| matches!(t.kind, Kind::Semicolon | Kind::End));
        if !ended {
            self.lexer.recover();
        }
    }

    pub fn end(&mut self) -> Result<()> {
        if self.accept_kind(Kind::Semicolon)? { Ok(()) } else { self.expected("';'") }
    }

    /// The raw text of a policy, up to its `;`.
    pub fn policy_text(&mut self) -> Result<(Vec<u8>, usize)> {
        self.lexer.policy()
    }

    /// One command with its `;`; false at the end of the text.
    fn command(&mut self, commands: &mut Vec<(Command, bool)>) -> Result<bool> {
        // A lone ';' is an empty command.
        while self.accept_kind(Kind::Semicolon)? {}
        let token = self.peek()?;
        if token.kind == Kind::End {
            return Ok(false);
        }
        let name = token.text();
        if !COMMANDS.contains(&name.as_ref()) || token.kind != Kind::Word {
            return self.unknown("command", COMMANDS.iter().copied());
        }
        self.take()?;
        let at = token.at;
        let mut push = |action, forward| commands.push((Command { at, action }, forward));
        match name.as_ref() {
            "exit" | "quit" | "bye" => {
                self.end()?;
                return Ok(false);
            }
            "flush" | "dump" => {
                let satype = match self.peek()?.kind {
                    Kind::Word => self.protocol()?.satype,
                    _ => SaType::UNSPEC,
                };
                self.end()?;
                push(if name == "flush" { Action::Flush(satype) } else { Action::Dump(satype) }, false);
            }
            "spdflush" | "spddump" => {
                self.end()?;
                push(if name == "spdflush" { Action::SpdFlush } else { Action::SpdDump }, false);
            }
            "deleteall" => {
                let flags = self.flags()?;
                let src = self.one_host(flags)?;
                let dst = self.one_host(flags)?;
                let protocol = self.protocol_or_none()?;
                same_family(src, dst, protocol.at)?;
                self.end()?;
                push(Action::DeleteAll(protocol.satype, src, dst), false);
            }
            "spdadd" | "spdupdate" if self.peek()?.is("tagged") => {
                push(Action::SpdTagged(name == "spdupdate", self.tagged()?), false);
            }
            "spdadd" | "spdupdate" | "spddelete" => {
                let delete = name == "spddelete";
                let (policy, flags) = self.policy(delete)?;
                let forward = policy.spec.direction == PolicyDirection::INBOUND && !flags.exact;
                let policy = Box::new(policy);
                let action = match name.as_ref() {
                    "spdadd" => Action::SpdAdd(policy),
                    "spdupdate" => Action::SpdUpdate(policy),
                    _ => Action::SpdDelete(policy, false),
                };
                push(action, forward);
            }
            _ => {
                let sas = self.sa(&name)?;
                for sa in sas.into_iter().map(Box::new) {
                    let action = match name.as_ref() {
                        "add" => Action::Add(sa),
                        "update" => Action::Update(sa),
                        "getspi" => Action::GetSpi(sa),
                        "get" => Action::Get(sa),
                        _ => Action::Delete(sa),
                    };
                    push(action, false);
                }
            }
        }
        Ok(true)
    }

    /// `-4`, `-6`, `-n`, `-k`, alone or together.
    pub fn flags(&mut self) -> Result<Flags> {
        let mut flags = Flags::default();
        loop {
            let token = self.peek()?;
            match token.bytes {
                [b'-', word @ ..] if token.kind == Kind::Word => {
                    let len = word.iter().position(|b| !b"46nk".contains(b)).unwrap_or(word.len());
                    let (letters, rest) = word.split_at(len);
                    // An address may be glued to them.
                    let is_address = std::str::from_utf8(rest).is_ok_and(|rest| address::resolve(rest, None).is_ok());
                    if letters.is_empty() || !(rest.is_empty() || is_address) {
                        return Ok(flags);
                    }
                    for letter in letters {
                        match letter {
                            b'4' => flags.family = Some(4),
                            b'6' => flags.family = Some(6),
                            b'n' => flags.numeric = true,
                            _ => flags.exact = true,
                        }
                    }
                    self.cut(1 + len);
                    self.take()?;
                }
                _ => return Ok(flags),
            }
        }
    }

    /// An address or a host's name; all its addresses.
    pub fn hosts(&mut self, flags: Flags) -> Result<Vec<SocketAddr>> {
        let token = self.peek()?;
        let digits_only = token.bytes.iter().all(u8::is_ascii_digit);
        if token.kind != Kind::Word || digits_only || token.bytes.starts_with(b"-") {
            return self.expected("an address");
        }
        let name = token.text().into_owned();
        let at = token.at;
        let found = match address::resolve(&name, None) {
            Ok(address) => {
                self.warnings.extend(silent::address(&name, at));
                vec![address]
            }
            Err(_) if flags.numeric || name.contains(':') => {
                return Err(Complaint { at, text: format!("{} is no numeric address", token.shown()) });
            }
            // A resolver tells other machines what it is asked for; it is never asked for a key.
            Err(_) if !is_host_name(token.bytes) => {
                return Err(Complaint { at, text: format!("{} is no address and no host's name", token.shown()) });
            }
            Err(_) => match self.hosts.get(&name) {
                Some(found) => found.clone(),
                None => {
                    let mut found: Vec<SocketAddr> = Vec::new();
                    let resolved = (name.as_str(), 0).to_socket_addrs().map_err(|error| Complaint {
                        at,
                        text: format!("{} is no address, and no host of that name is known ({error})", token.shown()),
                    })?;
                    for address in resolved {
                        if !found.contains(&address) {
                            found.push(address);
                        }
                    }
                    self.hosts.insert(name, found.clone());
                    found
                }
            },
        };
        let fits = |a: &SocketAddr| flags.family.is_none_or(|f| (f == 4) == a.is_ipv4());
        let found: Vec<_> = found.into_iter().filter(fits).collect();
        if found.is_empty() {
            let family = if flags.family == Some(4) { "IPv4" } else { "IPv6" };
            return Err(Complaint { at, text: format!("{} has no {family} address", token.shown()) });
        }
        self.take()?;
        Ok(found)
    }

    /// An address, or a name with one address.
    pub fn one_host(&mut self, flags: Flags) -> Result<SocketAddr> {
        let token = self.peek()?;
        match self.hosts(flags)?.as_slice() {
            [one] => Ok(*one),
            _ => Err(Complaint { at: token.at, text: format!("{} has several addresses", token.shown()) }),
        }
    }

    /// `[PORT]`, `[any]`, `[NAME]` or nothing.
    pub fn port(&mut self) -> Result<Option<u16>> {
        if !self.accept_kind(Kind::Open)? {
            return Ok(None);
        }
        let token = self.peek()?;
        let text = token.text();
        let port = if token.kind != Kind::Word {
            return self.expected("a port");
        } else if text == "any" {
            0
        } else if token.bytes.iter().all(u8::is_ascii_digit) {
            text.parse().map_err(|_| Complaint { at: token.at, text: format!("{text}: ports go up to 65535") })?
        } else {
            names::service(&text)
                .ok_or_else(|| Complaint { at: token.at, text: format!("unknown service {}", token.shown()) })?
        };
        self.take()?;
        if !self.accept_kind(Kind::Close)? {
            return self.expected("']'");
        }
        Ok(Some(port))
    }

    /// `/LEN` or nothing.
    pub fn prefix(&mut self, width: u8) -> Result<u8> {
        if !self.accept_kind(Kind::Slash)? {
            return Ok(width);
        }
        Ok(self.number("a prefix length", width.into())? as u8)
    }

    /// A decimal number up to `max`.
    pub fn number(&mut self, what: &str, max: u64) -> Result<u64> {
        let token = self.peek()?;
        if token.kind != Kind::Word || !token.bytes.iter().all(u8::is_ascii_digit) {
            return self.expected(&format!("{what} (a decimal number)"));
        }
        match token.text().parse() {
            Ok(number) if number <= max => {
                self.take()?;
                Ok(number)
            }
            _ => Err(Complaint { at: token.at, text: format!("{}: {what} goes up to {max}", token.shown()) }),
        }
    }

    /// An IPsec protocol, or none: all of them, where there is a choice.
    pub fn protocol_or_none(&mut self) -> Result<Protocol> {
        let token = self.peek()?;
        if token.kind == Kind::Word && !token.bytes.first().is_some_and(u8::is_ascii_digit) {
            return self.protocol();
        }
        Ok(Protocol { satype: SaType::UNSPEC, nat_t: None, old: false, at: token.at })
    }

    /// An IPsec protocol.
    pub fn protocol(&mut self) -> Result<Protocol> {
        let token = self.peek()?;
        if token.is("tcp") {
            return Err(Complaint { at: token.at, text: "Linux has no SAs for TCP-MD5".to_owned() });
        }
        let name = token.text();
        let Some((name, satype)) = names::PROTOCOLS.iter().find(|(n, _)| *n == name && token.kind == Kind::Word) else {
            return self.unknown("protocol", names::PROTOCOLS.iter().map(|(n, _)| *n));
        };
        self.take()?;
        let nat_t = if *name == "esp-udp" {
            // The peer's original address may follow; an SPI is no address.
            let next = self.peek()?;
            let original = address::resolve(&next.text(), None).ok();
            let is_one = next.kind == Kind::Word && next.bytes.iter().any(|b| matches!(b, b'.' | b':'));
            let original = original.filter(|_| is_one);
            if original.is_some() {
                self.take()?;
            }
            Some(NatT { encap_type: crate::model::sa::ESP_IN_UDP, original })
        } else {
            None
        };
        Ok(Protocol { satype: *satype, nat_t, old: name.ends_with("-old"), at: token.at })
    }

    /// `-X NAME=VALUE` or `-X NAME`, behind its first word. A value may have slashes in it.
    pub fn xfrm(&mut self, settings: &mut Xfrm, carrier: Carrier) -> Result<()> {
        let first = self.peek()?;
        if first.kind != Kind::Word {
            return self.expected("NAME=VALUE, an attribute of XFRM's");
        }
        self.take()?;
        let mut word = first.text().into_owned();
        while self.accept_kind(Kind::Slash)? {
            let part = self.peek()?;
            if part.kind != Kind::Word {
                return self.expected("the rest of a value");
            }
            self.take()?;
            word.push('/');
            word.push_str(&part.text());
        }
        xfrm::parse(settings, carrier, &word).map_err(|text| Complaint { at: first.at, text })
    }

    /// `-ctx DOI ALGORITHM "LABEL"`, behind its first word.
    pub fn context(&mut self) -> Result<crate::model::attached::Context> {
        let doi = self.number("a domain of interpretation", 255)? as u8;
        let alg = self.number("a label's algorithm", 255)? as u8;
        let token = self.peek()?;
        if token.kind != Kind::Quoted {
            return self.expected("a label in double quotes");
        }
        if token.bytes.len() > 4095 {
            return Err(Complaint { at: token.at, text: "a label has at most 4095 bytes".to_owned() });
        }
        self.take()?;
        let mut text = token.bytes.to_vec();
        text.push(0);
        Ok(crate::model::attached::Context { doi, alg, text })
    }
}

/// Both addresses are of one family.
pub(super) fn same_family(src: SocketAddr, dst: SocketAddr, at: usize) -> Result<()> {
    if src.is_ipv4() == dst.is_ipv4() {
        return Ok(());
    }
    Err(Complaint { at, text: "one address is IPv4 and the other IPv6".to_owned() })
}
