//! Splits a policy text into tokens, as libipsec's scanner does: the longest match wins, keywords are
//! case-sensitive, blanks separate and are never required.

use crate::wire::{Mode, PolicyDirection, PolicyLevel, PolicyType};

use super::priority;

/// What a piece of the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Direction(PolicyDirection),
    Priority,
    /// `low`, `def` or `high`: the number that it stands for.
    Base(u32),
    Plus,
    Hyphen,
    Slash,
    /// Decimal digits.
    Number,
    Action(PolicyType),
    /// `esp`, `ah`, `ipcomp`: the IP protocol.
    Protocol(u8),
    Mode(Mode),
    Me,
    Any,
    Level(PolicyLevel),
    /// `unique:` and digits.
    UniqueReqid,
    /// Anything that may be an address; not checked here.
    Address,
    /// Digits in square brackets.
    Port,
    End,
}

/// A token, its text, and where that starts in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme<'t> {
    pub token: Token,
    pub text: &'t [u8],
    pub offset: usize,
}

impl<'t> Lexeme<'t> {
    /// Just behind the text, in bytes.
    pub fn end(&self) -> usize {
        self.offset.saturating_add(self.text.len())
    }

    /// The text as a string. Every token is ASCII, so nothing is replaced.
    pub fn as_str(&self) -> &'t str {
        core::str::from_utf8(self.text).unwrap_or_default()
    }
}

/// The scanner. Characters that belong to no token are echoed, not refused.
pub(super) struct Lexer<'t, 'e> {
    text: &'t [u8],
    offset: usize,
    /// Takes what libipsec's scanner copies to standard output.
    echo: &'e mut dyn FnMut(u8),
}

impl<'t, 'e> Lexer<'t, 'e> {
    /// Over `text` up to its first NUL.
    pub fn new(text: &'t [u8], echo: &'e mut dyn FnMut(u8)) -> Self {
        let text = text.split(|&b| b == 0).next().unwrap_or_default();
        Self { text, offset: 0, echo }
    }

    /// The next token; [`Token::End`] again and again at the end.
    pub fn next(&mut self) -> Lexeme<'t> {
        loop {
            let rest = self.text.get(self.offset..).unwrap_or_default();
            let offset = self.offset;
            let Some(&first) = rest.first() else {
                return Lexeme { token: Token::End, text: &[], offset };
            };
            let (token, len) = match first {
                b' ' | b'\t' | b'\n' => {
                    self.offset += 1;
                    continue;
                }
                b'+' => (Token::Plus, 1),
                b'-' => (Token::Hyphen, 1),
                b'/' => (Token::Slash, 1),
                _ => match word(rest).or_else(|| port(rest)) {
                    Some(found) => found,
                    None => {
                        (self.echo)(first);
                        self.offset += 1;
                        continue;
                    }
                },
            };
            self.offset += len;
            return Lexeme { token, text: &rest[..len], offset };
        }
    }
}

/// How many bytes from the start of `text` satisfy `f`.
fn run(text: &[u8], f: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&b| f(b)).count()
}

/// A keyword, a number or an address: they share their characters, so that the longest run decides.
fn word(text: &[u8]) -> Option<(Token, usize)> {
    let len = run(text, |b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'_'));
    let (word, rest) = text.split_at(len);
    if word.is_empty() {
        return None;
    }
    if let Some((b'%', scope)) = rest.split_first() {
        let scope_len = run(scope, |b| b.is_ascii_alphanumeric());
        if scope_len > 0 {
            return Some((Token::Address, len + 1 + scope_len));
        }
    }
    let token = keyword(word).unwrap_or_else(|| match word.strip_prefix(b"unique:") {
        Some(number) if is_number(number) => Token::UniqueReqid,
        _ if is_number(word) => Token::Number,
        _ => Token::Address,
    });
    Some((token, len))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn port(text: &[u8]) -> Option<(Token, usize)> {
    let inner = text.strip_prefix(b"[")?;
    let digits = run(inner, |b| b.is_ascii_digit());
    (digits > 0 && inner.get(digits) == Some(&b']')).then_some((Token::Port, digits + 2))
}

fn keyword(word: &[u8]) -> Option<Token> {
    Some(match word {
        b"in" => Token::Direction(PolicyDirection::INBOUND),
        b"out" => Token::Direction(PolicyDirection::OUTBOUND),
        b"fwd" => Token::Direction(PolicyDirection::FWD),
        b"priority" | b"prio" => Token::Priority,
        b"low" => Token::Base(priority::LOW),
        b"def" => Token::Base(priority::DEFAULT),
        b"high" => Token::Base(priority::HIGH),
        b"discard" => Token::Action(PolicyType::DISCARD),
        b"none" => Token::Action(PolicyType::NONE),
        b"ipsec" => Token::Action(PolicyType::IPSEC),
        b"entrust" => Token::Action(PolicyType::ENTRUST),
        b"bypass" => Token::Action(PolicyType::BYPASS),
        b"esp" => Token::Protocol(super::ESP),
        b"ah" => Token::Protocol(super::AH),
        b"ipcomp" => Token::Protocol(super::IPCOMP),
        b"transport" => Token::Mode(Mode::TRANSPORT),
        b"tunnel" => Token::Mode(Mode::TUNNEL),
        b"me" => Token::Me,
        b"any" => Token::Any,
        b"default" => Token::Level(PolicyLevel::DEFAULT),
        b"use" => Token::Level(PolicyLevel::USE),
        b"require" => Token::Level(PolicyLevel::REQUIRE),
        b"unique" => Token::Level(PolicyLevel::UNIQUE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &[u8]) -> (Vec<(Token, String, usize)>, Vec<u8>) {
        let mut echoed = Vec::new();
        let mut echo = |byte| echoed.push(byte);
        let mut lexer = Lexer::new(text, &mut echo);
        let mut found = Vec::new();
        loop {
            let lexeme = lexer.next();
            if lexeme.token == Token::End {
                return (found, echoed);
            }
            found.push((lexeme.token, lexeme.as_str().to_owned(), lexeme.offset));
        }
    }

    #[test]
    fn a_word_glued_to_a_keyword_is_an_address() {
        let (found, _) = tokens(b"inbound unique:5 unique:x 5x fe80::1%eth0.5");
        let kinds: Vec<Token> = found.iter().map(|t| t.0).collect();
        use Token::*;
        // The scope ends before the dot, and what follows is another address.
        assert_eq!(kinds, [Address, UniqueReqid, Address, Address, Address, Address]);
        assert_eq!((found[4].1.as_str(), found[5].1.as_str(), found[5].2), ("fe80::1%eth0", ".5", 41));
    }

    #[test]
    fn what_is_no_token_is_echoed() {
        let (found, echoed) = tokens(b"in;[any][ 5][5]\xff%\0out");
        assert_eq!(echoed, b";[][]\xff%");
        assert_eq!(found.len(), 4);
        assert_eq!(found[3].0, Token::Port);
    }
}
