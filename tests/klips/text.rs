//! Text forms: ttosa(3)'s examples, and the views.

use pfkey_rs::klips::number::*;
use pfkey_rs::klips::{Engine, Format, Said, SaidError};
use pfkey_rs::wire::{MessageType, SaType as S};

use crate::world::*;

/// Text, what it means; the ones of ttosa(3) and of its test.
#[test]
fn an_sa_is_written_and_read() {
    let said = |dst: &str, spi, proto| Said { dst: dst.parse().unwrap(), spi, proto };
    let cases = [
        ("esp.5a7@1.2.3.4", said("1.2.3.4", 0x5a7, 50)),
        ("ah.507@1.2.3.0", said("1.2.3.0", 0x507, 51)),
        ("esp:101@::1", said("::1", 0x101, 50)),
        ("tun.1002@9.8.7.6", said("9.8.7.6", 0x1002, 4)),
        ("comp.4@1.2.3.4", said("1.2.3.4", 4, 108)),
        ("int.5@0.0.0.0", said("0.0.0.0", 5, 61)),
        ("%passthrough4", said("0.0.0.0", 0, 4)),
        ("%passthrough6", said("::", 0, 4)),
        ("%pass", Said::magic(256)),
        ("%drop", Said::magic(257)),
        ("%reject", Said::magic(258)),
        ("%hold", Said::magic(259)),
        ("%trap", Said::magic(260)),
        ("%trapsubnet", Said::magic(261)),
    ];
    for (text, said) in cases {
        assert_eq!(said.to_string(), text);
        assert_eq!(text.parse(), Ok(said), "{text}");
    }
    let esp = said("1.2.3.4", 0x101, 50);
    for (format, text) in [
        (Format::Fixed, "esp.00000101@1.2.3.4"),
        (Format::Prefixed, "esp0x101@1.2.3.4"),
        (Format::Decimal, "esp257@1.2.3.4"),
    ] {
        assert_eq!(esp.text(format), text);
        assert_eq!(text.parse(), Ok(esp));
    }
    assert_eq!("%passthrough".parse(), Ok(said("0.0.0.0", 0, 4)));
    assert_eq!("int256@0.0.0.0".parse(), Ok(Said::magic(256)));
    // What Openswan's own ttosa makes of these.
    assert_eq!("esp010@1.2.3.4".parse(), Ok(said("1.2.3.4", 8, 50)));
    assert_eq!("esp0@1.2.3.4".parse(), Ok(said("1.2.3.4", 0, 50)));
    assert_eq!("tun0@0.0.0.0".parse(), Ok(said("0.0.0.0", 0, 4)));
    assert_eq!("esp5@::1".parse(), Ok(said("::1", 5, 50)));
    assert_eq!(said("1.2.3.4", 256, 61).to_string(), "%pass", "whatever the address");
    assert_eq!(said("1.2.3.4", 7, 77).to_string(), "unk77.7@1.2.3.4");
}

#[test]
fn what_names_no_sa_is_refused() {
    let read = |text: &str| text.parse::<Said>().unwrap_err();
    assert_eq!(read("unk77.7@1.2.3.4"), SaidError::Protocol("unk77.7@1.2.3.4".into()));
    assert_eq!(read(""), SaidError::Protocol("".into()));
    assert_eq!(read("esp.101"), SaidError::Address(".101".into()));
    assert_eq!(read("esp.101@host"), SaidError::Address("host".into()));
    for spi in [".", ".x", ".123456789", "0x", "", "08", "+5", ".+5", "0x-1", "1a"] {
        assert_eq!(read(&format!("esp{spi}@1.2.3.4")), SaidError::Spi(spi.into()));
    }
    assert_eq!(read("esp.101@::1"), SaidError::Family);
    assert_eq!(read("esp:101@1.2.3.4"), SaidError::Family);
}

#[test]
fn the_tables_as_proc_shows_them() {
    let mut w = World::new(1);
    w.engine().set_local(vec![B.parse().unwrap()]);
    w.ask(&esp(SPI));
    w.ask(&shunt(spi::PASS, "10.0.0.0/8", "0.0.0.0/0"));
    w.ask(&eroute(S::ESP, SPI, "10.1.0.0/16", "11.0.0.0/8").protocol(6));
    w.udp(1, "10.2.0.1", "11.0.0.1", 9);
    assert_eq!(
        w.engine().eroute_text(),
        "1          10.0.0.0/8         -> 0.0.0.0/0          => %pass\n\
         0          10.1.0.0/16        -> 11.0.0.0/8         => esp0x1000@10.0.0.2:6\n"
    );
    assert_eq!(w.engine().sa_text(), "esp0x1000@10.0.0.2 dir=in src=10.0.0.1 ref=1\n");
    let supported = Engine::supported_text();
    let rows: Vec<Vec<&str>> = supported.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["satype", "exttype", "alg_id", "ivlen", "minbits", "maxbits"]);
    assert_eq!(rows[1], ["2", "14", "2", "0", "128", "128"]);
    assert_eq!(rows.len(), 1 + 2 + 3 + 1 + 1);
}

/// Openswan's numbers of SA types, and the protocols that they stand for; IPIP and the KAME's IPCOMP share 9.
#[test]
fn sa_types_are_klipss() {
    let expected = [(2, "AH", 51), (3, "ESP", 50), (9, "X_IPIP", 4), (10, "X_COMP", 108), (11, "X_INT", 61)];
    for number in 0..=255 {
        let found = expected.iter().find(|(n, ..)| *n == number);
        assert_eq!(protocol(S(number)), found.map(|(.., proto)| *proto), "{number}");
        if let Some((_, name, proto)) = found {
            assert_eq!((satype_name(S(number)), satype(*proto)), (Some(*name), Some(S(number))));
        }
    }
    assert_eq!(satype_name(S(8)), Some("MIP"));
    assert_eq!(message_name(MessageType(14)), Some("X_ADDFLOW"));
}
