//! Tokens of setkey's file language.

use std::borrow::Cow;

use super::Complaint;
use super::host_name::is_like_key;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything without blanks and punctuation.
    Word,
    /// Between double quotes, which are not part of it.
    Quoted,
    /// `;`
    Semicolon,
    /// `[`
    Open,
    /// `]`
    Close,
    /// `/`
    Slash,
    /// The text is over.
    End,
}

/// A token, and where it starts.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its bytes; keys in quotes may be any.
    pub bytes: &'a [u8],
    /// Where it starts, in bytes.
    pub at: usize,
}

impl<'a> Token<'a> {
    /// Its text, for words and diagnostics.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes)
    }

    /// Whether it is this word.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.bytes == word.as_bytes()
    }

    /// For diagnostics. A word may be a key that stands in the wrong place: no more than its first letters.
    pub fn shown(&self) -> String {
        match self.kind {
            Kind::End => "the end".to_owned(),
            Kind::Quoted => "a quoted string".to_owned(),
            _ if is_like_key(self.bytes) => "a hexadecimal string".to_owned(),
            _ => {
                let text = self.text();
                let short: String = text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
                let more = if text.chars().count() > 40 { "…" } else { "" };
                format!("'{short}{more}'")
            }
        }
    }
}

/// Cuts a text into tokens.
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl<'a> Lexer<'a> {
    /// At the start of a text.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        while let Some(&byte) = self.rest().first() {
            if byte == b'#' {
                self.at += self.rest().iter().position(|b| *b == b'\n').unwrap_or(self.rest().len());
            } else if is_blank(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// The next token.
    pub fn next(&mut self) -> Result<Token<'a>, Complaint> {
        self.skip();
        let at = self.at;
        let rest = self.rest();
        let Some(&first) = rest.first() else { return Ok(Token { kind: Kind::End, bytes: &[], at }) };
        let single = match first {
            b';' => Some(Kind::Semicolon),
            b'[' => Some(Kind::Open),
            b']' => Some(Kind::Close),
            b'/' => Some(Kind::Slash),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Ok(Token { kind, bytes: rest.get(..1).unwrap_or_default(), at });
        }
        if first == b'"' {
            let body = rest.get(1..).unwrap_or_default();
            let Some(len) = body.iter().position(|b| *b == b'"') else {
                self.at = self.text.len();
                return Err(Complaint { at, text: "this string is not closed".to_owned() });
            };
            self.at += len + 2;
            return Ok(Token { kind: Kind::Quoted, bytes: body.get(..len).unwrap_or_default(), at });
        }
        let ends = |b: &u8| is_blank(*b) || matches!(b, b';' | b'[' | b']' | b'/' | b'"' | b'#');
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += len;
        Ok(Token { kind: Kind::Word, bytes: rest.get(..len).unwrap_or_default(), at })
    }

    /// The text up to the next `;`, which is left, and where it starts. Comments become blanks, so that positions
    /// in it stay true.
    pub fn policy(&mut self) -> Result<(Vec<u8>, usize), Complaint> {
        self.skip();
        let start = self.at;
        let mut text = Vec::new();
        let mut comment = false;
        for (i, &byte) in self.rest().iter().enumerate() {
            comment = (comment || byte == b'#') && byte != b'\n';
            match byte {
                _ if comment => text.push(b' '),
                b';' => {
                    self.at += i;
                    return Ok((text, start));
                }
                b if is_blank(b) => text.push(b' '),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(byte),
                b':' | b'.' | b'-' | b'+' | b'_' | b'/' | b'%' | b'[' | b']' => text.push(byte),
                _ => {
                    let wrong = char::from(byte);
                    let shown =
                        if byte.is_ascii_graphic() { format!("'{wrong}'") } else { format!("byte {byte:#04x}") };
                    let at = start + i;
                    self.at = at;
                    return Err(Complaint { at, text: format!("{shown} has no place in a policy") });
                }
            }
        }
        self.at = self.text.len();
        Err(Complaint { at: self.text.len(), text: "';' expected after the policy".to_owned() })
    }

    /// Goes on at a place, in bytes.
    pub const fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Behind the next `;`, for going on after an error. Strings are passed over whole.
    pub fn recover(&mut self) {
        loop {
            match self.next() {
                Ok(token) if matches!(token.kind, Kind::Semicolon | Kind::End) => return,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, String)> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut all = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            if token.kind == Kind::End {
                return all;
            }
            all.push((token.kind, token.text().into_owned()));
        }
    }

    #[test]
    fn tokens() {
        let words = |text: &str| kinds(text).into_iter().map(|(_, t)| t).collect::<Vec<_>>();
        assert_eq!(
            words("add 10.0.0.0/24[any];# x\r\nflush"),
            ["add", "10.0.0.0", "/", "24", "[", "any", "]", ";", "flush"]
        );
        assert_eq!(kinds("\"a;#b\nc\""), [(Kind::Quoted, "a;#b\nc".to_owned())]);
        assert_eq!(words("#only\n \t\n"), Vec::<String>::new());
    }

    #[test]
    fn a_string_that_is_not_closed() {
        let mut lexer = Lexer::new(b"  \"abc");
        assert_eq!(lexer.next().unwrap_err().at, 2);
        assert_eq!(lexer.next().unwrap().kind, Kind::End);
    }

    #[test]
    fn policies_keep_their_positions() {
        let mut lexer = Lexer::new(b" out # why;\n none ;x");
        let (text, start) = lexer.policy().unwrap();
        assert_eq!((text.as_slice(), start), (&b"out         none "[..], 1));
        assert_eq!(lexer.next().unwrap().kind, Kind::Semicolon);
        assert_eq!(Lexer::new(b"out \"x\";").policy().unwrap_err().at, 4);
        assert_eq!(Lexer::new(b"out none").policy().unwrap_err().at, 8);
    }
}
