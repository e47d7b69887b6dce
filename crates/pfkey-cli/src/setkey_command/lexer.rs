//! Tokens as ipsec-tools' setkey cuts them: the longest match wins, so that an option's value may be glued to it, and what a word is
//! depends on the option before it. Its messages quote the token that was cut last, which is kept.

use crate::model::names::{self, Tables};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is over.
    End,
    /// `;`
    Semicolon,
    /// `/`
    Slash,
    /// `[`
    Open,
    /// `]`
    Close,
    /// A word or an option that the language knows.
    Keyword(&'static str),
    /// `-4`, `-6`, `-n`, together or alone.
    AddressFlags,
    /// An algorithm's name behind `-E` or `-A`.
    Algorithm,
    /// Decimal digits.
    Decimal,
    /// Hexadecimal digits, without the `0x` before them.
    Hexadecimal,
    /// What stood in double quotes.
    Quoted,
    /// What stands behind `-P`, up to the `;`.
    Policy,
    /// Any other word.
    Text,
}

/// A token and its text.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A character that begins no token.
#[derive(Debug, PartialEq, Eq)]
pub struct Stray;

/// Words of the language, wherever they stand.
const WORDS: &[&str] = &[
    "add",
    "update",
    "delete",
    "deleteall",
    "get",
    "getspi",
    "flush",
    "dump",
    "exit",
    "quit",
    "bye",
    "spdadd",
    "spdupdate",
    "spddelete",
    "spddump",
    "spdflush",
    "tagged",
    "ah",
    "esp",
    "ah-old",
    "esp-old",
    "esp-udp",
    "ipcomp",
    "tcp",
    "oui",
    "deflate",
    "lzs",
    "transport",
    "tunnel",
    "beet",
    "random-pad",
    "seq-pad",
    "zero-pad",
    "nopmtudisc",
    "decap-dscp",
    "noecn",
    "nocyclic-seq",
    "any",
];
/// Options, longer ones first. `-uh` to `-X` are not ipsec-tools'.
const OPTIONS: &[&str] = &[
    "-proxy", "-ctx", "-lh", "-ls", "-bh", "-bs", "-uh", "-us", "-ph", "-ps", "-P", "-A", "-E", "-C", "-R", "-m", "-u",
    "-f", "-r", "-X", "-k",
];

/// What the next token may be besides.
#[derive(Clone, Copy)]
enum State {
    Initial,
    /// Behind `-P`.
    Policy,
    /// Behind `-E`.
    Encrypt,
    /// Behind `-A`.
    Auth,
    /// Behind `-X`.
    Attribute,
}

const TCP_MD5: &[u8] = b"tcp-md5";

/// The word that a text begins with, or nothing.
fn word(text: &[u8]) -> &[u8] {
    let begins = text.first().is_some_and(|first| first.is_ascii_alphanumeric() || *first == b':');
    let len = run(text, |b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'%' | b'.' | b'-'));
    text.get(..len).filter(|_| begins).unwrap_or_default()
}

/// Cuts a text.
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
    /// Where the token that is quoted begins and ends.
    quoted: (usize, usize),
    /// A policy, which is quoted together with the token behind it.
    more: Option<usize>,
    /// The line, from 1.
    pub line: usize,
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !belongs(*b)).unwrap_or(bytes.len())
}

const fn is_policy(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-' | b'_' | b'/' | b' ' | b'\n' | b'\t')
}

impl<'a> Lexer<'a> {
    /// At the start of a text.
    pub const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, state: State::Initial, quoted: (0, 0), more: None, line: 1 }
    }

    /// The token that was cut last, as messages quote it.
    pub fn quoted(&self) -> &'a [u8] {
        self.text.get(self.quoted.0..self.quoted.1).unwrap_or_default()
    }

    /// The next token.
    pub fn next(&mut self) -> Result<Token<'a>, Stray> {
        loop {
            let start = self.more.take().unwrap_or(self.at);
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(&first) = rest.first() else {
                self.quoted = (self.at, self.at);
                return Ok(Token { kind: Kind::End, bytes: &[] });
            };
            if matches!(self.state, State::Policy) && is_policy(first) {
                let len = run(rest, |b| is_policy(b) || matches!(b, b'%' | b'+' | b'[' | b']'));
                self.line += rest.iter().take(len).filter(|b| **b == b'\n').count();
                self.more = Some(start);
                return Ok(self.token(Kind::Policy, start, len));
            }
            match first {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' => self.at += run(rest, |b| matches!(b, b' ' | b'\t' | b'\r')),
                b'#' => self.at += run(rest, |b| b != b'\n'),
                // Linux has no such algorithm: setkey for Linux is built to pass over its name.
                b't' if matches!(self.state, State::Auth) && word(rest) == TCP_MD5 => self.at += TCP_MD5.len(),
                _ => return self.cut(start, rest, first),
            }
        }
    }

    fn token(&mut self, kind: Kind, start: usize, len: usize) -> Token<'a> {
        let bytes = self.text.get(self.at..self.at + len).unwrap_or_default();
        self.at += len;
        self.quoted = (start, self.at);
        Token { kind, bytes }
    }

    fn cut(&mut self, start: usize, rest: &'a [u8], first: u8) -> Result<Token<'a>, Stray> {
        let single = match first {
            b';' => Some(Kind::Semicolon),
            b'/' => Some(Kind::Slash),
            b'[' => Some(Kind::Open),
            b']' => Some(Kind::Close),
            _ => None,
        };
        if matches!(self.state, State::Attribute) && first != b';' {
            self.state = State::Initial;
            return Ok(self.token(Kind::Text, start, run(rest, |b| !b.is_ascii_whitespace() && b != b';')));
        }
        if let Some(kind) = single {
            if kind == Kind::Semicolon {
                self.state = State::Initial;
            }
            return Ok(self.token(kind, start, 1));
        }
        match first {
            b'"' => {
                let body = rest.get(1..).unwrap_or_default();
                let len = run(body, |b| b != b'"');
                if len < body.len() {
                    self.at += len + 2;
                    // Without the quotes.
                    self.quoted = (self.at - len - 1, self.at - 1);
                    return Ok(Token { kind: Kind::Quoted, bytes: body.get(..len).unwrap_or_default() });
                }
            }
            b'-' => {
                if let Some(option) = OPTIONS.iter().find(|option| rest.starts_with(option.as_bytes())) {
                    self.state = match *option {
                        "-P" => State::Policy,
                        "-E" => State::Encrypt,
                        "-A" => State::Auth,
                        "-X" => State::Attribute,
                        _ => self.state,
                    };
                    return Ok(self.token(Kind::Keyword(option), start, option.len()));
                }
                let flags = run(rest.get(1..).unwrap_or_default(), |b| matches!(b, b'n' | b'4' | b'6'));
                if flags > 0 {
                    return Ok(self.token(Kind::AddressFlags, start, flags + 1));
                }
            }
            _ => {
                let word = word(rest).len();
                // ICMP's type and code.
                let pair = run(rest, |b| b.is_ascii_digit() || b == b',');
                if pair > word {
                    return Ok(self.token(Kind::Text, start, pair));
                }
                if word > 0 {
                    let kind = self.kind(rest.get(..word).unwrap_or_default());
                    let token = self.token(kind, start, word);
                    let digits = if kind == Kind::Hexadecimal { 2 } else { 0 };
                    return Ok(Token { bytes: token.bytes.get(digits..).unwrap_or_default(), ..token });
                }
            }
        }
        self.token(Kind::Text, start, 1);
        Err(Stray)
    }

    /// What a word is.
    fn kind(&mut self, word: &[u8]) -> Kind {
        let tables: Tables = match self.state {
            State::Encrypt => names::ENCRYPT,
            State::Auth => names::AUTH,
            _ => &[],
        };
        let is_name = |name: &&'static str| name.as_bytes() == word;
        if names::all(tables).any(|algorithm| algorithm.names.iter().any(is_name)) {
            self.state = State::Initial;
            return Kind::Algorithm;
        }
        if let Some(known) = WORDS.iter().find(|known| known.as_bytes() == word) {
            return Kind::Keyword(known);
        }
        match word {
            [b'0', b'x' | b'X', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) => {
                Kind::Hexadecimal
            }
            digits if digits.iter().all(u8::is_ascii_digit) => Kind::Decimal,
            _ => Kind::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(Kind, String)> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            if token.kind == Kind::End {
                return tokens;
            }
            tokens.push((token.kind, String::from_utf8_lossy(token.bytes).into_owned()));
        }
    }

    #[test]
    fn a_value_may_be_glued_to_its_option() {
        use Kind::{Algorithm, Decimal, Keyword, Policy, Semicolon};
        let kinds = |text| all(text).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds("-mtransport"), [Keyword("-m"), Keyword("transport")]);
        assert_eq!(kinds("-u4 -lh100"), [Keyword("-u"), Decimal, Keyword("-lh"), Decimal]);
        assert_eq!(kinds("-Enull"), [Keyword("-E"), Algorithm]);
        assert_eq!(kinds("-Pin none;"), [Keyword("-P"), Policy, Semicolon]);
        assert_eq!(kinds("null"), [Kind::Text]);
    }

    #[test]
    fn words() {
        use Kind::{AddressFlags, Hexadecimal, Quoted, Text};
        let tokens = all("-n46 0x1a 0x 1,2 135,0 fd00::1 \"a;b\" #x\n any");
        let expected = [
            (AddressFlags, "-n46"),
            (Hexadecimal, "1a"),
            (Text, "0x"),
            (Text, "1,2"),
            (Text, "135,0"),
            (Text, "fd00::1"),
            (Quoted, "a;b"),
            (Kind::Keyword("any"), "any"),
        ];
        assert_eq!(tokens, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn a_policy_is_quoted_with_what_follows() {
        let mut lexer = Lexer::new(b"-P out none;\nflush");
        lexer.next().unwrap();
        lexer.next().unwrap();
        assert_eq!(lexer.quoted(), b" out none");
        lexer.next().unwrap();
        assert_eq!(lexer.quoted(), b" out none;");
        lexer.next().unwrap();
        assert_eq!((lexer.quoted(), lexer.line), (&b"flush"[..], 2));
    }

    #[test]
    fn what_begins_no_token() {
        for text in ["\"abc", "-z", "_", "$"] {
            assert_eq!(Lexer::new(text.as_bytes()).next().unwrap_err(), Stray, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_to_an_end(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut lexer = Lexer::new(&text);
            // Each token has a byte at least.
            let ends = (0..=text.len()).any(|_| lexer.next().is_ok_and(|token| token.kind == Kind::End));
            proptest::prop_assert!(ends);
        }
    }
}
