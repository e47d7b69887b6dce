//! Lines of standard input. They may hold keys: no buffer that had one is left behind.

use std::io;

use nix::errno::Errno;
use nix::unistd::read;
use zeroize::Zeroizing;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Adds bytes to a text, which is wiped where it does not stay.
pub fn append(text: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    if text.capacity() - text.len() < bytes.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * text.capacity() + bytes.len()));
        larger.extend_from_slice(text);
        *text = larger;
    }
    text.extend_from_slice(bytes);
}

/// Standard input, line by line.
pub struct Lines {
    chunk: Zeroizing<Vec<u8>>,
    /// What of the chunk is not given yet.
    left: std::ops::Range<usize>,
    line: Zeroizing<Vec<u8>>,
}

impl Lines {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self { chunk: Zeroizing::new(vec![0; CHUNK]), left: 0..0, line: Zeroizing::default() }
    }

    /// The next line without its end; `None` at the end of the input.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        loop {
            let left = self.chunk.get(self.left.clone()).unwrap_or_default();
            if let Some(len) = left.iter().position(|byte| *byte == b'\n') {
                append(&mut self.line, left.get(..len).unwrap_or_default());
                self.left.start += len + 1;
                return Ok(Some(&self.line));
            }
            append(&mut self.line, left);
            self.left = 0..loop {
                match read(io::stdin(), &mut self.chunk) {
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                    Ok(len) => break len,
                }
            };
            if self.left.is_empty() {
                // A line without an end is one.
                return Ok(if self.line.is_empty() { None } else { Some(&self.line) });
            }
        }
    }
}
