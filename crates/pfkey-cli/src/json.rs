//! JSON, written as it is made: no tree in memory that would hold copies of keys.

use std::io::{self, Write};

/// Writes one JSON text. The caller keeps to the grammar; commas and escapes are done here.
pub struct Json<'w> {
    out: &'w mut dyn Write,
    /// Whether the innermost array or object has an element already.
    filled: bool,
}

impl<'w> Json<'w> {
    /// A text that goes to `out`.
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, filled: false }
    }

    fn comma(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.filled, true) { self.out.write_all(b",") } else { Ok(()) }
    }

    /// `[` or `{`.
    pub fn open(&mut self, bracket: char) -> io::Result<()> {
        self.comma()?;
        self.filled = false;
        write!(self.out, "{bracket}")
    }

    /// `]` or `}`.
    pub fn close(&mut self, bracket: char) -> io::Result<()> {
        self.filled = true;
        write!(self.out, "{bracket}")
    }

    /// A member's name; its value comes next.
    pub fn name(&mut self, name: &str) -> io::Result<()> {
        self.string(name)?;
        self.filled = false;
        self.out.write_all(b":")
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> io::Result<()> {
        self.comma()?;
        self.out.write_all(b"\"")?;
        for c in text.chars() {
            match c {
                '"' => self.out.write_all(b"\\\"")?,
                '\\' => self.out.write_all(b"\\\\")?,
                c if c < ' ' => write!(self.out, "\\u{:04x}", c as u32)?,
                c => write!(self.out, "{c}")?,
            }
        }
        self.out.write_all(b"\"")
    }

    /// A number.
    pub fn number(&mut self, number: u64) -> io::Result<()> {
        self.comma()?;
        write!(self.out, "{number}")
    }

    /// `null`.
    pub fn null(&mut self) -> io::Result<()> {
        self.comma()?;
        self.out.write_all(b"null")
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn commas_and_escapes() {
        let mut bytes = Vec::new();
        let mut json = Json::new(&mut bytes);
        json.open('{').unwrap();
        json.name("a").unwrap();
        json.open('[').unwrap();
        json.number(1).unwrap();
        json.string("\"\\\n é").unwrap();
        json.open('{').unwrap();
        json.close('}').unwrap();
        json.close(']').unwrap();
        json.name("b").unwrap();
        json.null().unwrap();
        json.close('}').unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"a":[1,"\"\\\u000a é",{}],"b":null}"#);
    }
}
