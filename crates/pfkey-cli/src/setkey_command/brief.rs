//! `-l`: an SA as a line. Also what `-H` shows of a message.

use std::io::{self, Write};

use pfkey::policy_text::address::{host_text, service_text};
use pfkey_wire::{ExtensionType, Message, Profile, SaType};

/// Shows bytes in hexadecimal, 16 a line.
pub fn hexdump(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for (row, line) in bytes.chunks(16).enumerate() {
        write!(out, "{:08x}: ", row * 16)?;
        for byte in line {
            write!(out, "{byte:02x} ")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The heading of the lines.
pub fn heading(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:<4} {:<3} {:<1} {:<8} {:<7} src -> dst", "time", "p", "s", "spi", "ltime")
}

/// An SA at a time.
pub fn line(out: &mut impl Write, bytes: &[u8], now: i64) -> io::Result<()> {
    let Ok(message) = Message::parse(bytes, Profile::Linux) else { return Ok(()) };
    let protocol = match message.header().satype {
        SaType::AH => "ah".to_owned(),
        SaType::ESP => "esp".to_owned(),
        other => format!("#{}", other.0),
    };
    write!(out, "{:02}{:02} {protocol:<3}", now.rem_euclid(3600) / 60, now.rem_euclid(60))?;
    match message.sa() {
        Some(sa) => {
            let state = match ["L", "M", "D", "d"].get(usize::from(sa.state)) {
                Some(name) => (*name).to_owned(),
                None => format!("#{}", sa.state),
            };
            write!(out, " {state:<1} {:08x}", sa.spi.get())?;
        }
        None => write!(out, "? {:<8}", "?")?,
    }
    let lifetime = |ext| message.lifetime(ext);
    let limits = lifetime(ExtensionType::LIFETIME_SOFT).and(lifetime(ExtensionType::LIFETIME_HARD));
    match (lifetime(ExtensionType::LIFETIME_CURRENT), limits) {
        (Some(current), Some(hard)) => {
            let created = current.addtime.get();
            // Unsigned: one whose creation is still to come is very old.
            let age = if created == 0 { 0 } else { (now as u64).wrapping_sub(created) as u32 };
            let number = |n: u32| if n >= 1000 { "big".to_owned() } else { n.to_string() };
            write!(out, " {:>3}/{:<3}", number(age), number(hard.addtime.get() as u32))?;
        }
        _ => write!(out, " ???/???")?,
    }
    write!(out, " ")?;
    end(out, &message, ExtensionType::ADDRESS_SRC)?;
    write!(out, " -> ")?;
    end(out, &message, ExtensionType::ADDRESS_DST)?;
    writeln!(out)
}

fn end(out: &mut impl Write, message: &Message<'_>, ext: ExtensionType) -> io::Result<()> {
    let Some((fixed, sockaddr)) = message.address(ext) else { return write!(out, "?") };
    if fixed.proto != 0 {
        write!(out, "{} ", upper(fixed.proto))?;
    }
    if let Some(host) = host_text(sockaddr) {
        write!(out, "{host}")?;
    }
    match service_text(sockaddr).map(|text| text.to_string()) {
        Some(port) if port != "0" => write!(out, "[{port}]"),
        _ => Ok(()),
    }
}

/// setkey's own names of protocols.
fn upper(protocol: u8) -> String {
    let name = match protocol {
        1 => "icmp",
        2 => "igmp",
        3 => "ggp",
        4 => "ip4",
        6 => "tcp",
        8 => "egp",
        17 => "udp",
        22 => "idp",
        29 => "tp",
        41 => "ip6",
        43 => "rt6",
        44 => "frag6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        59 => "none",
        60 => "dst6",
        other => return format!("#{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bytes_a_line() {
        let mut text = Vec::new();
        hexdump(&mut text, &(0..18).collect::<Vec<u8>>()).unwrap();
        let expected = "00000000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f \n00000010: 10 11 \n";
        assert_eq!(text, expected.as_bytes());
        let mut title = Vec::new();
        heading(&mut title).unwrap();
        assert_eq!(title, b"time p   s spi      ltime   src -> dst\n");
    }
}
