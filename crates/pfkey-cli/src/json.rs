//! JSON, written as it is serialised: no tree in memory that would hold copies of keys.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, Formatter};

/// Writes one JSON text without blanks.
pub fn write(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Numbered))?)
}

/// Control characters as numbers, also where JSON has letters for them.
struct Numbered;

impl Formatter for Numbered {
    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        let control = match escape {
            CharEscape::Quote => return out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return out.write_all(b"\\\\"),
            CharEscape::Solidus => b'/',
            CharEscape::Backspace => 0x08,
            CharEscape::Tab => b'\t',
            CharEscape::LineFeed => b'\n',
            CharEscape::FormFeed => 0x0c,
            CharEscape::CarriageReturn => b'\r',
            CharEscape::AsciiControl(byte) => byte,
        };
        write!(out, "\\u{control:04x}")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_numbers() {
        let mut bytes = Vec::new();
        super::write(&mut bytes, &("\"\\/\n\t\r\x08\x0c\x1f\x7f é", [1, 2], ())).unwrap();
        let expected = r#"["\"\\/\u000a\u0009\u000d\u0008\u000c\u001f@ é",[1,2],null]"#.replace('@', "\x7f");
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
