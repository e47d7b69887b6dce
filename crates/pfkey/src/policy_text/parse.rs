//! The grammar of `ipsec_set_policy`.
//!
//! libipsec's parser is LALR(1) with default reductions: a phrase that may end is ended before the next token is
//! judged, so that the checks on the phrase come first, and a token is read ahead only where the grammar needs
//! it. This parser decides in the same order; that order shows in which error wins, in the token that a
//! diagnostic quotes, and in which stray characters were echoed by then.

use std::fmt;
use std::net::SocketAddr;

use crate::wire::{MAX_MESSAGE_LEN, Mode, PolicyLevel, PolicyType};

use super::address;
use super::error::{PolicyError, PolicyErrorKind};
use super::lexer::{Lexeme, Lexer, Token};
use super::{PolicySpec, RequestSpec, priority};

/// The outcome of a policy text, with everything that `ipsec_set_policy` does besides returning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The policy, or what is wrong with the text.
    pub result: Result<PolicySpec, PolicyError>,
    /// What libipsec copies to standard output: the characters that belong to no token.
    pub echoed: Vec<u8>,
    /// What libipsec writes to standard error: one line with its newline.
    pub diagnostic: Option<String>,
    /// Whether libipsec sets its error code. If not, the code of an earlier call stays, unless that was success.
    pub sets_code: bool,
    /// The text that goes with libipsec's "system error".
    pub system_text: Option<&'static str>,
}

/// The same of [`parse_with`], which allocates nothing but the policy's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<'t> {
    /// As in [`Outcome`].
    pub result: Result<PolicySpec, PolicyError>,
    /// As in [`Outcome`].
    pub diagnostic: Option<Diagnostic<'t>>,
    /// As in [`Outcome`].
    pub sets_code: bool,
    /// As in [`Outcome`].
    pub system_text: Option<&'static str>,
}

/// What libipsec writes to standard error: one line with its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnostic<'t> {
    what: &'static str,
    /// The token that was read last.
    quoted: &'t str,
}

impl fmt::Display for Diagnostic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "libipsec: {} while parsing \"{}\"", self.what, self.quoted)
    }
}

/// Reads a policy text, up to its first NUL.
///
/// ```
/// use pfkey::policy_text as policy;
/// let policy = policy::parse(b"out ipsec esp/transport//require").result.unwrap();
/// assert_eq!(policy.to_string(), "out prio def ipsec esp/transport//require");
/// let error = policy::parse(b"out ipsec esp/tunnel//require").result.unwrap_err();
/// assert_eq!(error.to_string(), "policy, at byte 10 (length 19): tunnel without addresses");
/// ```
#[must_use]
pub fn parse(text: &[u8]) -> Outcome {
    let mut echoed = Vec::new();
    let Parsed { result, diagnostic, sets_code, system_text } = parse_with(text, &mut |byte| echoed.push(byte));
    Outcome { result, echoed, diagnostic: diagnostic.map(|line| line.to_string()), sets_code, system_text }
}

/// Reads a policy text, up to its first NUL. `echo` receives each character that belongs to no token, which libipsec
/// copies to standard output.
pub fn parse_with<'t>(text: &'t [u8], echo: &mut dyn FnMut(u8)) -> Parsed<'t> {
    let lexer = Lexer::new(text, echo);
    let mut parser = Parser { lexer, ahead: None, last: None, header_made: false };
    let result = parser.policy();
    let quoted = parser.last.map(|lexeme| lexeme.as_str()).unwrap_or_default();
    let (diagnostic, sets_code, system_text) = match result {
        Ok(_) => (None, true, None),
        Err(error) => match error.kind {
            PolicyErrorKind::Syntax { .. } => {
                let line = Diagnostic { what: "syntax error", quoted };
                (Some(line), parser.header_made, None)
            }
            PolicyErrorKind::Address(cause) => {
                let line = Diagnostic { what: "invalid IP address", quoted };
                (Some(line), true, Some(cause.text()))
            }
            _ => (None, true, None),
        },
    };
    Parsed { result, diagnostic, sets_code, system_text }
}

struct Parser<'t, 'e> {
    lexer: Lexer<'t, 'e>,
    /// The token that was read ahead.
    ahead: Option<Lexeme<'t>>,
    /// The token that was read last: the one that diagnostics quote.
    last: Option<Lexeme<'t>>,
    /// Whether the policy's header was made, which resets libipsec's error code.
    header_made: bool,
}

/// An error about the bytes `from..to`.
fn error<T>(from: usize, to: usize, kind: PolicyErrorKind) -> Result<T, PolicyError> {
    Err(PolicyError { position: from, length: to.saturating_sub(from), kind })
}

/// An error about one token.
fn error_at<T>(lexeme: Lexeme<'_>, kind: PolicyErrorKind) -> Result<T, PolicyError> {
    error(lexeme.offset, lexeme.end(), kind)
}

/// The addresses of a request, and which bytes of the text they are.
struct Addresses {
    pair: Option<(SocketAddr, SocketAddr)>,
    from: usize,
    to: usize,
}

const REQUEST_OR_END: &str = "esp, ah, ipcomp or the end";
const LEVEL: &str = "default, use, require, unique or unique:NUMBER";

impl<'t> Parser<'t, '_> {
    fn peek(&mut self) -> Lexeme<'t> {
        *self.ahead.get_or_insert_with(|| {
            let lexeme = self.lexer.next();
            self.last = Some(lexeme);
            lexeme
        })
    }

    fn take(&mut self) -> Lexeme<'t> {
        let lexeme = self.peek();
        self.ahead = None;
        lexeme
    }

    fn syntax<T>(&mut self, expected: &'static str) -> Result<T, PolicyError> {
        let lexeme = self.peek();
        error_at(lexeme, PolicyErrorKind::Syntax { expected })
    }

    fn expect(&mut self, token: Token, expected: &'static str) -> Result<Lexeme<'t>, PolicyError> {
        if self.peek().token == token { Ok(self.take()) } else { self.syntax(expected) }
    }

    /// `policy = dir [ [ prio ] action { request } ]`
    fn policy(&mut self) -> Result<PolicySpec, PolicyError> {
        let Token::Direction(direction) = self.peek().token else {
            return self.syntax("in, out or fwd");
        };
        self.take();
        let priority = match self.peek().token {
            Token::Priority => self.priority()?,
            Token::Action(_) => (priority::DEFAULT, None),
            _ => {
                // A direction alone is a policy.
                self.header_made = true;
                self.expect(Token::End, "prio, discard, none, ipsec, entrust, bypass or the end")?;
                return Ok(PolicySpec {
                    direction,
                    policy_type: PolicyType::DISCARD,
                    priority: 0,
                    requests: Vec::new(),
                });
            }
        };
        let Token::Action(policy_type) = self.peek().token else {
            return self.syntax("discard, none, ipsec, entrust or bypass");
        };
        self.take();
        // The range of the priority is judged only now.
        if let (_, Some(error)) = priority {
            return Err(error);
        }
        self.header_made = true;
        let mut policy = PolicySpec { direction, policy_type, priority: priority.0, requests: Vec::new() };
        let mut len = super::HEADER_LEN;
        loop {
            match self.peek().token {
                Token::Protocol(protocol) => {
                    let at = self.peek();
                    let request = self.request(&policy, protocol, &mut len)?;
                    if policy.requests.try_reserve(1).is_err() {
                        return error_at(at, PolicyErrorKind::NoMemory);
                    }
                    policy.requests.push(request);
                }
                Token::End => return Ok(policy),
                _ => return self.syntax(REQUEST_OR_END),
            }
        }
    }

    /// `prio = "prio" ( NUMBER | "-" NUMBER | base [ ( "+" | "-" ) NUMBER ] )`: the number, and an error to
    /// report once the action has been read.
    fn priority(&mut self) -> Result<(u32, Option<PolicyError>), PolicyError> {
        self.take();
        let (base, stronger) = match self.peek().token {
            Token::Base(base) => {
                self.take();
                match self.peek().token {
                    Token::Plus => (Some(base), true),
                    Token::Hyphen => (Some(base), false),
                    _ => return Ok((base, None)),
                }
            }
            Token::Hyphen => (None, false),
            Token::Number => (None, true),
            _ => return self.syntax("a number, low, def or high"),
        };
        if self.peek().token != Token::Number {
            self.take();
        }
        let number = self.expect(Token::Number, "a number")?;
        let offset = priority::saturating_number(number.text);
        match priority::shifted(base.unwrap_or(priority::DEFAULT), base.is_some(), stronger, offset) {
            Some(priority) => Ok((priority, None)),
            None => {
                let kind = match base {
                    None => PolicyErrorKind::PriorityOffset,
                    Some(_) => PolicyErrorKind::PriorityBaseOffset,
                };
                Ok((0, Some(PolicyError { position: number.offset, length: number.text.len(), kind })))
            }
        }
    }

    /// `request = proto "/" mode [ "/" ( [ addrs [ "/" [ level ] ] ] | "/" level ) ]`, then the checks on it.
    fn request(&mut self, policy: &PolicySpec, protocol: u8, len: &mut usize) -> Result<RequestSpec, PolicyError> {
        let start = self.take();
        self.request_part(Token::Slash, "/")?;
        let Token::Mode(mode) = self.peek().token else {
            return self.few("transport or tunnel");
        };
        let mut end = self.take().end();
        let mut addresses = None;
        let mut level = None;
        if self.peek().token == Token::Slash {
            end = self.take().end();
            match self.peek().token {
                Token::Slash => {
                    self.take();
                    match self.level() {
                        Some(found) => level = Some(found),
                        None => return self.syntax(LEVEL),
                    }
                }
                Token::Address | Token::Me | Token::Any => {
                    let found = self.addresses(policy)?;
                    end = found.to;
                    addresses = Some(found);
                    if self.peek().token == Token::Slash {
                        end = self.take().end();
                        level = self.level();
                    }
                }
                _ => {}
            }
        }
        let (level, reqid, end) = level.unwrap_or((PolicyLevel::DEFAULT, 0, end));
        let pair = addresses.as_ref().and_then(|a| a.pair);
        if policy.policy_type == PolicyType::IPSEC {
            match (pair, &addresses) {
                (None, _) if mode == Mode::TUNNEL => {
                    return error(start.offset, end, PolicyErrorKind::TunnelWithoutAddresses);
                }
                (Some((a, b)), Some(at)) if a.is_ipv4() != b.is_ipv4() => {
                    return error(at.from, at.to, PolicyErrorKind::FamilyMismatch);
                }
                _ => {}
            }
        }
        let request = RequestSpec { protocol, mode, level, reqid, addresses: pair };
        *len = len.saturating_add(request.len());
        if *len > MAX_MESSAGE_LEN {
            return error(start.offset, end, PolicyErrorKind::TooLong);
        }
        Ok(request)
    }

    /// A part of a request without which it "has too few arguments".
    fn request_part(&mut self, token: Token, expected: &'static str) -> Result<(), PolicyError> {
        if self.peek().token != token {
            return self.few(expected);
        }
        self.take();
        Ok(())
    }

    fn few<T>(&mut self, expected: &'static str) -> Result<T, PolicyError> {
        let lexeme = self.peek();
        error_at(lexeme, PolicyErrorKind::FewArguments { expected })
    }

    /// A level, its reqid, and where it ends; `None` and nothing taken if there is none.
    fn level(&mut self) -> Option<(PolicyLevel, u32, usize)> {
        let lexeme = self.peek();
        let (level, reqid) = match lexeme.token {
            Token::Level(level) => (level, 0),
            Token::UniqueReqid => {
                let digits = lexeme.text.strip_prefix(b"unique:").unwrap_or_default();
                // The low half of the number, as the C assignment cuts it.
                (PolicyLevel::UNIQUE, priority::saturating_number(digits) as u32)
            }
            _ => return None,
        };
        self.take();
        Some((level, reqid, lexeme.end()))
    }

    /// `addrs = ADDRESS "-" ADDRESS | ADDRESS PORT "-" ADDRESS PORT | "me" "-" "any" | "any" "-" "me"`
    fn addresses(&mut self, policy: &PolicySpec) -> Result<Addresses, PolicyError> {
        use crate::wire::PolicyDirection;
        let first = self.take();
        let from = first.offset;
        let (other, expected, direction) = match first.token {
            Token::Me => (Token::Any, "any", PolicyDirection::OUTBOUND),
            Token::Any => (Token::Me, "me", PolicyDirection::INBOUND),
            _ => {
                let first_port = if self.peek().token == Token::Port { Some(self.take()) } else { None };
                let source = resolve(first, first_port)?;
                self.expect(Token::Hyphen, "- and another address")?;
                let second = self.expect(Token::Address, "an address")?;
                let second_port = match first_port {
                    Some(_) => Some(self.expect(Token::Port, "a port in brackets")?),
                    None => None,
                };
                let destination = resolve(second, second_port)?;
                let to = second_port.unwrap_or(second).end();
                return Ok(Addresses { pair: Some((source, destination)), from, to });
            }
        };
        self.expect(Token::Hyphen, "-")?;
        let to = self.expect(other, expected)?.end();
        if policy.direction != direction {
            return error(from, to, PolicyErrorKind::Direction);
        }
        Ok(Addresses { pair: None, from, to })
    }
}

fn resolve(host: Lexeme<'_>, port: Option<Lexeme<'_>>) -> Result<SocketAddr, PolicyError> {
    let digits = port.map(|p| p.as_str().trim_start_matches('[').trim_end_matches(']'));
    address::resolve(host.as_str(), digits).or_else(|cause| {
        let at = match (cause, port) {
            (address::AddressError::NoService, Some(port)) => port,
            _ => host,
        };
        error_at(at, PolicyErrorKind::Address(cause))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The piece of the text that an error points at, and the error.
    fn refused(text: &str) -> (&str, PolicyErrorKind) {
        let error = parse(text.as_bytes()).result.unwrap_err();
        (&text[error.position..error.position + error.length], error.kind)
    }

    #[test]
    fn an_error_points_at_what_is_wrong() {
        use PolicyErrorKind as K;
        for (text, piece, matches) in [
            ("in bogus", "bogus", (|k| matches!(k, K::Syntax { .. })) as fn(K) -> bool),
            ("out ipsec esp/transport//require; in", "in", |k| matches!(k, K::Syntax { .. })),
            ("out ipsec esp transport", "transport", |k| matches!(k, K::FewArguments { .. })),
            ("in prio 4294967295 none", "4294967295", |k| k == K::PriorityOffset),
            ("in prio low - 1073741824 none", "1073741824", |k| k == K::PriorityBaseOffset),
            ("out ipsec esp/transport/any-me/use", "any-me", |k| k == K::Direction),
            ("out ipsec ah/tunnel//use", "ah/tunnel//use", |k| k == K::TunnelWithoutAddresses),
            ("out ipsec esp/tunnel/10.0.0.1-::1/use", "10.0.0.1-::1", |k| k == K::FamilyMismatch),
            ("out ipsec esp/tunnel/10.0.0.1-10.0.0.256", "10.0.0.256", |k| matches!(k, K::Address(_))),
            ("out ipsec esp/tunnel/1.1.1.1[4294967295]-", "[4294967295]", |k| matches!(k, K::Address(_))),
        ] {
            let (found, kind) = refused(text);
            assert_eq!(found, piece, "{text}");
            assert!(matches(kind), "{text}: {kind}");
        }
    }

    #[test]
    fn the_end_of_the_text_is_a_position_too() {
        let error = parse(b"in prio  ").result.unwrap_err();
        assert_eq!((error.position, error.length), (9, 0));
        assert_eq!(error.to_string(), "policy, at byte 9 (length 0): a number, low, def or high expected");
    }

    #[test]
    fn a_stale_code_stays_until_the_header_is_made() {
        assert!(!parse(b"bogus").sets_code);
        assert!(parse(b"in bogus").sets_code);
        assert!(parse(b"in none").sets_code);
    }

    #[test]
    fn more_requests_than_the_length_field_can_count_are_refused() {
        let mut text = b"out ipsec".to_vec();
        for _ in 0..32768 {
            text.extend_from_slice(b" esp/transport");
        }
        assert_eq!(parse(&text).result.map_err(|error| error.kind), Err(PolicyErrorKind::TooLong));
        text.truncate(text.len() - 2 * " esp/transport".len());
        assert!(parse(&text).result.is_ok());
    }
}
