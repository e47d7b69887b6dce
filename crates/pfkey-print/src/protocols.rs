//! The names of IP protocols, as `/etc/protocols` has them.
//!
//! glibc's `getprotobynumber` asks whatever `nsswitch.conf` names. On its first call it needs memory, without which it ends
//! the process (2.36: a null pointer, an assertion), and locks. The file is what it finds the names in.

use std::fs::File;
use std::io::{ErrorKind, Read};

use crate::Short;

/// Longer lines are cut; a name and a number stand in front.
const LINE: usize = 256;

/// The name of a protocol.
#[must_use]
pub fn name(protocol: u8) -> Option<Short> {
    find(File::open("/etc/protocols").ok()?, protocol)
}

fn find(mut file: impl Read, protocol: u8) -> Option<Short> {
    let (mut line, mut len) = ([0; LINE], 0);
    let mut chunk = [0; 1024];
    loop {
        let read = match file.read(&mut chunk) {
            Ok(0) => return entry(line.get(..len)?, protocol),
            Ok(read) => chunk.get(..read)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        for &byte in read {
            if byte == b'\n' {
                if let Some(name) = entry(line.get(..len)?, protocol) {
                    return Some(name);
                }
                len = 0;
            } else if let Some(place) = line.get_mut(len) {
                *place = byte;
                len += 1;
            }
        }
    }
}

/// The name in a line `NAME NUMBER [ALIAS …] [# COMMENT]` about this protocol.
fn entry(line: &[u8], protocol: u8) -> Option<Short> {
    let line = line.split(|&byte| byte == b'#').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (name, number) = (words.next()?, words.next()?);
    let number: u8 = std::str::from_utf8(number).ok()?.parse().ok()?;
    (number == protocol).then(|| Short::lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at once.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = self.0.len().min(7).min(buffer.len());
            let (now, later) = self.0.split_at(len);
            buffer[..len].copy_from_slice(now);
            self.0 = later;
            Ok(len)
        }
    }

    #[test]
    fn the_first_line_with_the_number_names_it() {
        let long = "x".repeat(2000);
        let text = format!(
            "# 6 a comment\n\nhopopt\t0\tHOPOPT # ...\n  tcp 6 TCP\nother 6\nbroken\nworse six\nlong 300\n\
             # {long} 17\nudp 17{long}\nudp\t17 # {long}\nlast 255 LAST"
        );
        for (protocol, name) in
            [(0, Some("hopopt")), (6, Some("tcp")), (17, Some("udp")), (44, None), (255, Some("last"))]
        {
            let found = find(Slow(text.as_bytes()), protocol);
            assert_eq!(found.as_ref().map(Short::as_str), name, "{protocol}");
        }
    }
}
