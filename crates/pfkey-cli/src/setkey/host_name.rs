//! What may be a host's name, and what looks like a key that stands in the wrong place: a resolver asks other machines.

/// Longest name (RFC 1035 section 3.1: 255 octets, of which the lengths take two).
const LONGEST_NAME: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
/// Hexadecimal digits of an SPI; whatever has more behind its `0x` is a key.
const SPI_DIGITS: usize = 8;
/// Hexadecimal digits of the shortest key in use (DES): as many without `0x` and without a dot are taken for a key.
const KEY_DIGITS: usize = 16;

/// Whether a word looks like a key in hexadecimal digits, with its `0x` or without.
pub fn is_like_key(word: &[u8]) -> bool {
    match word {
        [b'0', b'x' | b'X', digits @ ..] => digits.len() > SPI_DIGITS,
        digits => digits.len() >= KEY_DIGITS && digits.iter().all(u8::is_ascii_hexdigit),
    }
}

/// `0x` and hexadecimal digits, or nothing, behind it.
fn is_hexadecimal(label: &[u8]) -> bool {
    matches!(label, [b'0', b'x' | b'X', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit))
}

/// RFC 952 as RFC 1123 section 2.1 relaxes it, with the underscores that are in use.
fn is_label(label: &[u8]) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-')
}

/// Whether a word can be a host's name; a dot may end it.
pub fn is_host_name(word: &[u8]) -> bool {
    let name = word.strip_suffix(b".").unwrap_or(word);
    let mut labels = name.split(|b| *b == b'.');
    // RFC 1123 section 2.1: a name's last label is never a number, so that no address that is wrong becomes a name.
    let number = name.rsplit(|b| *b == b'.').next().is_some_and(|last| last.iter().all(u8::is_ascii_digit));
    let key = if name.contains(&b'.') {
        // There are domains such as 0xff.example.
        name.split(|b| *b == b'.').any(|label| is_hexadecimal(label) && is_like_key(label))
    } else {
        is_hexadecimal(name) || is_like_key(name)
    };
    name.len() <= LONGEST_NAME && labels.all(is_label) && !number && !key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        let label = "a".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        for name in
            ["gw", "vpn-1.example.org", "_esp.example.org.", "3com", "0xff.example", "0x0.st", "10.in-addr", &long]
        {
            assert!(is_host_name(name.as_bytes()), "{name}");
        }
        // Twelve digits are a container's name.
        assert!(is_host_name(b"4f2a9c01bd37"));
    }

    #[test]
    fn what_is_no_name_of_a_host() {
        let label = "a".repeat(64);
        let long = format!("{}.{}", "a.".repeat(100), "b".repeat(54));
        for name in ["", ".", "a..b", ".a", "-a", "a-", "a.-b", "a b", "a$b", "a,b", "a@b", "caf\u{e9}", &label, &long]
        {
            assert!(!is_host_name(name.as_bytes()), "{name}");
        }
        for number in ["10.0.0.256", "1.2.3.4.5", "300", "a.7"] {
            assert!(!is_host_name(number.as_bytes()), "{number}");
        }
    }

    #[test]
    fn keys_are_no_names() {
        for key in [
            "0x",
            "0x00",
            "0X1000",
            "0x00112233445566778899aabbccddeeff",
            "0x00112233445566778899aabbccddeeff.",
            "0x001122334455667788.example",
            "00112233445566778899aabbccddeeff",
            "0123456789ABCDEF",
        ] {
            assert!(!is_host_name(key.as_bytes()), "{key}");
        }
        assert!(is_like_key(b"0x123456789") && is_like_key(b"0X123456789") && !is_like_key(b"0x12345678"));
        // A digit that is none is a slip of a key's, too.
        assert!(is_like_key(b"0x00112233445566778899aabbccddeefg"));
    }
}
