//! The text that is being written.

use core::fmt::{self, Write};

use zeroize::Zeroizing;

/// A text as bytes, because security contexts and delimiters need not be UTF-8. It may hold keys in hexadecimal,
/// so it is wiped when dropped.
pub type Text = Zeroizing<Vec<u8>>;

/// Collects a [`Text`]. Writing never fails.
pub(super) struct Out(Text);

impl Out {
    /// With room for the text of a message of `len` bytes, so that the buffer rarely moves and leaves no copy of
    /// a key behind.
    pub fn for_message(len: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(1024 + len.saturating_mul(8))))
    }

    /// Adds formatted text.
    pub fn put(&mut self, args: fmt::Arguments<'_>) {
        let _ = self.write_fmt(args);
    }

    /// Adds bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
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

    pub fn into_text(self) -> Text {
        self.0
    }
}

impl Write for Out {
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

/// `ipsec_hexdump`: a space before every 4 bytes, a newline before every further 32, none at the end.
#[must_use]
pub fn hexdump(bytes: &[u8]) -> Text {
    let mut out = Out(Zeroizing::new(Vec::with_capacity(bytes.len().saturating_mul(3))));
    out.hex(bytes);
    out.into_text()
}

#[cfg(test)]
mod tests {
    use super::hexdump;

    #[test]
    fn hexdump_groups_by_4_and_breaks_after_32() {
        assert_eq!(hexdump(&[]).as_slice(), b"");
        assert_eq!(hexdump(&[0, 1, 2, 3, 0xff]).as_slice(), b" 00010203 ff");
        let expected = [b" 00000000".repeat(8), b"\n 00".to_vec()].concat();
        assert_eq!(*hexdump(&[0; 33]), expected);
        assert!(!hexdump(&[0; 32]).ends_with(b"\n"));
    }
}
