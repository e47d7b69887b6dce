//! The text that is being written.

use core::fmt::{self, Write};

use zeroize::Zeroizing;

use crate::policy::address::Lossy;

/// A text as bytes, because security contexts and delimiters need not be UTF-8. It may hold keys in hexadecimal,
/// so it is wiped when dropped.
pub type Text = Zeroizing<Vec<u8>>;

/// Takes a text piece by piece. The printers allocate nothing; what takes their pieces may.
pub type Sink<'s> = dyn FnMut(&[u8]) + 's;

/// Writes to a [`Sink`].
pub(super) struct Out<'a, 's>(pub &'a mut Sink<'s>);

impl Out<'_, '_> {
    /// Adds formatted text.
    pub fn put(&mut self, args: fmt::Arguments<'_>) {
        let _ = self.write_fmt(args);
    }

    /// Adds bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        (self.0)(bytes);
    }

    /// Adds [`hexdump`]'s text.
    pub fn hex(&mut self, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            if i != 0 && i % 32 == 0 {
                self.raw(b"\n");
            }
            if i % 4 == 0 {
                self.raw(b" ");
            }
            self.put(format_args!("{byte:02x}"));
        }
    }
}

impl Write for Out<'_, '_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.raw(s.as_bytes());
        Ok(())
    }
}

/// Adds formatted text to an [`Out`].
macro_rules! put {
    ($out:expr, $($args:tt)*) => { $out.put(format_args!($($args)*)) };
}
pub(super) use put;

/// The text that `write` gives, in memory with room for the text of a message of `len` bytes, so that the buffer rarely
/// moves. Where it does, what it leaves is wiped.
pub(super) fn collect<R>(len: usize, write: impl FnOnce(&mut Sink<'_>) -> R) -> (Text, R) {
    let mut text = Zeroizing::new(Vec::with_capacity(1024 + len.saturating_mul(8)));
    let result = write(&mut |piece| {
        if text.capacity() - text.len() < piece.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * text.capacity() + piece.len()));
            larger.extend_from_slice(&text);
            text = larger;
        }
        text.extend_from_slice(piece);
    });
    (text, result)
}

/// `ipsec_hexdump`: a space before every 4 bytes, a newline before every further 32, none at the end.
#[must_use]
pub fn hexdump(bytes: &[u8]) -> Text {
    collect(bytes.len(), |sink| hexdump_to(bytes, sink)).0
}

/// [`hexdump`], piece by piece.
pub fn hexdump_to(bytes: &[u8], sink: &mut Sink<'_>) {
    Out(sink).hex(bytes);
}

/// A text of up to 63 bytes; what is longer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    bytes: [u8; 63],
    len: u8,
}

impl Default for Short {
    fn default() -> Self {
        Self { bytes: [0; 63], len: 0 }
    }
}

impl Short {
    /// From bytes, of which those that are no UTF-8 are replaced.
    #[must_use]
    pub fn lossy(bytes: &[u8]) -> Self {
        let mut text = Self::default();
        let _ = write!(text, "{}", Lossy(bytes));
        text
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes.get(..usize::from(self.len)).unwrap_or_default()).unwrap_or_default()
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let start = usize::from(self.len);
            match self.bytes.get_mut(start..start + c.len_utf8()) {
                Some(room) => self.len += c.encode_utf8(room).len() as u8,
                None => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexdump_groups_by_4_and_breaks_after_32() {
        assert_eq!(hexdump(&[]).as_slice(), b"");
        assert_eq!(hexdump(&[0, 1, 2, 3, 0xff]).as_slice(), b" 00010203 ff");
        let expected = [b" 00000000".repeat(8), b"\n 00".to_vec()].concat();
        assert_eq!(*hexdump(&[0; 33]), expected);
        assert!(!hexdump(&[0; 32]).ends_with(b"\n"));
    }

    #[test]
    fn a_short_text_is_cut_between_characters() {
        assert_eq!(Short::lossy(b"ospf\xff").as_str(), "ospf\u{fffd}");
        assert_eq!(Short::lossy("é".repeat(40).as_bytes()).as_str(), "é".repeat(31));
    }
}
