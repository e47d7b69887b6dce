//! The listing, held against the book.

use super::*;
use crate::Utc;
use crate::wire::{MessageType, Profile, SaType, SockaddrBytes, Writer};

const UTC: Utc = Utc { now: 1_700_003_600 };

fn message(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut writer = Writer::new(&mut buffer, Header::new(MessageType::DUMP, SaType::AH, 0, 20623), Profile::Linux);
    fill(&mut writer);
    writer.finish().unwrap().to_vec()
}

fn listed(message: &[u8], style: Style) -> String {
    String::from_utf8(listing(message, style, &UTC).unwrap().to_vec()).unwrap()
}

#[test]
fn an_sa_is_listed_as_in_the_book() {
    let message = message(|writer| {
        let sa = SadbSa { spi: 0x9876.into(), state: 1, auth: 2, flags: SaFlags::PFS.0.into(), ..Default::default() };
        let lifetime = SadbLifetime { addtime: 1_700_000_000.into(), bytes: 36.into(), ..Default::default() };
        let hard = SadbLifetime { addtime: 3600.into(), usetime: 60.into(), ..Default::default() };
        let address = |text: &str, port| SockaddrBytes::new(text.parse().unwrap(), port);
        writer
            .sa(sa)
            .lifetime(ExtensionType::LIFETIME_CURRENT, lifetime)
            .lifetime(ExtensionType::LIFETIME_HARD, hard)
            .address(ExtensionType::ADDRESS_SRC, 255, 32, address("192.168.1.2", 0).as_bytes())
            .address(ExtensionType::ADDRESS_DST, 6, 0, address("2001:db8::1", 80).as_bytes())
            .key(ExtensionType::KEY_AUTH, 12, &[0x12, 0x30])
            .sa2(1, 0)
            .supported(ExtensionType::SUPPORTED_ENCRYPT, &[]);
    });
    let expected = "\
SADB Message Dump, errno 0, satype IPsec AH, seq 0, pid 20623
 SA: SPI=39030 Replay Window=0 State=Mature
  Authentication Algorithm: HMAC-MD5
  Encryption Algorithm: None
  Perfect Forward Secrecy
 Current lifetime:
  0 allocations, 36 bytes
  added at Nov 14 22:13:20 2023, never used
 Hard lifetime:
  0 allocations, 0 bytes, 3600 addtime, 60 usetime
 Source address:   192.168.1.2/32 (IP proto 255)
 Dest address:   [2001:db8::1]:80 (TCP)
 Authentication key, 12 bits: 0x1230
 [unknown extension 19]
 Supported encryption algorithms:
  None
";
    assert_eq!(listed(&message, Style::Corrected), expected);
    let swapped = u32::from_ne_bytes([0, 0, 0x98, 0x76]);
    let book = expected.replace("39030", &swapped.to_string()).replace("bytes, 3600", "bytes3600");
    assert_eq!(listed(&message, Style::Book), book);
}

#[test]
fn an_error_has_its_text() {
    let mut message = message(|_| {});
    message[2] = 2;
    assert_eq!(
        listed(&message, Style::Corrected),
        "SADB Message Dump, errno 2, satype IPsec AH, seq 0, pid 20623\n errno No such file or directory\n"
    );
}

#[test]
fn what_is_no_message_is_an_error_and_what_is_no_extension_ends_the_list() {
    let whole = message(|writer| {
        writer.sa2(1, 0);
    });
    let error = listing(&whole[..24], Style::Corrected, &UTC).unwrap_err();
    assert_eq!(error.to_string(), "SADB Message length (32) doesn't match msglen (24)");
    let mut version = whole.clone();
    version[0] = 3;
    assert_eq!(listing(&version, Style::Corrected, &UTC).unwrap_err(), ListingError::Version);
    // A length of 0 keeps the book's program busy for ever.
    let mut empty = whole;
    empty[16..18].fill(0);
    assert!(listed(&empty, Style::Corrected).ends_with("\n [malformed extension 19, length 0]\n"));
}

/// Only the header differs: type, SA type, errno.
fn head(msg_type: u8, satype: u8, errno: u8) -> String {
    let mut bytes = message(|_| {});
    (bytes[1], bytes[2], bytes[3]) = (msg_type, errno, satype);
    listed(&bytes, Style::Corrected)
}

#[test]
fn message_and_sa_types_are_the_books() {
    let types =
        ["Reserved", "Get SPI", "Update", "Add", "Delete", "Get", "Acquire", "Register", "Expire", "Flush", "Dump"];
    for (number, name) in types.iter().enumerate() {
        let line = head(number as u8, 0, 0);
        assert_eq!(line, format!("SADB Message {name}, errno 0, satype Unspecified, seq 0, pid 20623\n"));
    }
    assert!(head(11, 0, 0).starts_with("SADB Message [Unknown type 11], "));
    for (number, name) in [
        (1, "[Unknown satype 1]"),
        (2, "IPsec AH"),
        (3, "IPsec ESP"),
        (4, "[Unknown satype 4]"),
        (5, "RSVP"),
        (6, "OSPFv2"),
        (7, "RIPv2"),
        (8, "Mobile IP"),
        (9, "[Unknown satype 9]"),
    ] {
        assert!(head(10, number, 0).contains(&format!(", satype {name}, ")), "{number}");
    }
    assert!(head(3, 2, 17).ends_with("pid 20623\n errno File exists\n"));
}

#[test]
fn states_and_algorithms_are_the_books() {
    let sa = |state, auth, encrypt| {
        let bytes = message(|writer| {
            writer.sa(SadbSa { spi: 1.into(), replay: 32, state, auth, encrypt, ..Default::default() });
        });
        listed(&bytes, Style::Corrected).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let states = ["Larval", "Mature", "Dying", "Dead", "[Unknown SA state 4]"];
    for (state, name) in states.iter().enumerate() {
        assert_eq!(sa(state as u8, 0, 0)[0], format!(" SA: SPI=1 Replay Window=32 State={name}"));
    }
    for (number, name) in [
        (0, "None"),
        (1, "[Unknown authentication algorithm 1]"),
        (2, "HMAC-MD5"),
        (3, "HMAC-SHA-1"),
        (5, "SHA2-256"),
        (6, "SHA2-384"),
        (7, "SHA2-512"),
        (249, "Keyed MD5"),
        (250, "Keyed SHA-1"),
        (251, "Null"),
    ] {
        assert_eq!(sa(1, number, 0)[1], format!("  Authentication Algorithm: {name}"));
    }
    for (number, name) in [
        (0, "None"),
        (1, "[Unknown encryption algorithm 1]"),
        (2, "DES-CBC"),
        (3, "3DES-CBC"),
        (6, "CAST128-CBC"),
        (7, "Blowfish-CBC"),
        (11, "Null"),
        (12, "AES"),
    ] {
        assert_eq!(sa(1, 0, number)[2], format!("  Encryption Algorithm: {name}"));
    }
}

#[test]
fn addresses_are_written_as_in_the_book() {
    let line = |ext, proto, prefixlen, ip: &str, port| {
        let bytes = message(|writer| {
            writer.address(ext, proto, prefixlen, SockaddrBytes::new(ip.parse().unwrap(), port).as_bytes());
        });
        listed(&bytes, Style::Corrected).lines().nth(1).unwrap().to_owned()
    };
    use ExtensionType as E;
    assert_eq!(line(E::ADDRESS_SRC, 0, 32, "10.0.0.1", 0), " Source address:   10.0.0.1/32 ");
    assert_eq!(line(E::ADDRESS_SRC, 17, 0, "10.0.0.1", 53), " Source address:   10.0.0.1:53 (UDP)");
    assert_eq!(line(E::ADDRESS_DST, 6, 24, "10.0.0.0", 80), " Dest address:   10.0.0.0:80/24 (TCP)");
    assert_eq!(line(E::ADDRESS_DST, 1, 128, "2001:db8::1", 0), " Dest address:   2001:db8::1/128 (IP proto 1)");
    assert_eq!(line(E::ADDRESS_PROXY, 0, 0, "2001:db8::1", 9), " Proxy address:   [2001:db8::1]:9 ");
}

/// The book's sample of a REGISTER for AH, on a BSD, and what is listed by its name only.
#[test]
fn algorithms_and_the_rest_are_listed_as_in_the_book() {
    let algorithm = |id, ivlen, minbits: u16, maxbits: u16| SadbAlg {
        id,
        ivlen,
        minbits: minbits.into(),
        maxbits: maxbits.into(),
        ..Default::default()
    };
    let bytes = message(|writer| {
        writer.supported(
            ExtensionType::SUPPORTED_AUTH,
            &[
                algorithm(2, 0, 128, 128),
                algorithm(3, 0, 160, 160),
                algorithm(249, 0, 128, 128),
                algorithm(250, 0, 160, 160),
                algorithm(251, 0, 0, 2048),
                algorithm(5, 0, 256, 256),
            ],
        );
        writer.supported(ExtensionType::SUPPORTED_ENCRYPT, &[algorithm(2, 8, 64, 64), algorithm(12, 16, 128, 256)]);
        writer.spirange(256, 512).proposal(32, &[]);
    });
    let expected = " Supported authentication algorithms:
  HMAC-MD5 ivlen 0 bits 128-128
  HMAC-SHA-1 ivlen 0 bits 160-160
  Keyed MD5 ivlen 0 bits 128-128
  Keyed SHA-1 ivlen 0 bits 160-160
  Null ivlen 0 bits 0-2048
  SHA2-256 ivlen 0 bits 256-256
 Supported encryption algorithms:
  DES-CBC ivlen 8 bits 64-64
  AES ivlen 16 bits 128-256
 [spirange...]
 [proposal...]
";
    assert_eq!(listed(&bytes, Style::Corrected).split_once('\n').unwrap().1, expected);
    // Type 0 and those whose contents the book does not show.
    for (number, label) in [
        (0, "Reserved Extension"),
        (10, "[identity...]"),
        (11, "[identity...]"),
        (12, "[sensitivity...]"),
        (18, "[unknown extension 18]"),
    ] {
        let mut bytes = message(|writer| {
            writer.sa2(1, 0);
        });
        bytes[18..20].copy_from_slice(&u16::to_ne_bytes(number));
        assert_eq!(listed(&bytes, Style::Corrected).lines().nth(1), Some(format!(" {label}").as_str()));
    }
}
