//! A scenario's run as text, with what varies from run to run masked: times, process ids, SPIs that the kernel
//! chose, reqids that it generated.

use std::fmt::Write as _;

use pfkey_rs::wire::{ExtensionType, Header, MessageType};

use crate::backend::Backend;
use crate::build::{native, recorded_extensions};
use crate::catalogue::{Scenario, Step};

/// `IPSEC_MANUAL_REQID_MAX`.
const MANUAL_REQID: u32 = 0x3fff;

/// The sequence numbers of the ACQUIREs, which the kernel counts through all namespaces.
#[derive(Default)]
struct Acquires(Vec<u32>);

impl Acquires {
    fn show(&mut self, header: Header) -> String {
        // Dumps count their messages.
        let dump = matches!(header.msg_type, MessageType::DUMP | MessageType::X_SPDDUMP);
        let known = self.0.iter().position(|&seq| seq == header.seq && !dump);
        match known {
            Some(n) => format!("ACQUIRE-{}", n + 1),
            None if header.msg_type == MessageType::ACQUIRE && header.pid == 0 && header.seq != 0 => {
                self.0.push(header.seq);
                format!("ACQUIRE-{}", self.0.len())
            }
            None => header.seq.to_string(),
        }
    }
}

pub fn run(scenario: &Scenario, backend: &mut impl Backend) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    let mut acquires = Acquires::default();
    for step in &scenario.steps {
        match step {
            Step::Open(name) => {
                backend.open(name);
                open.push(name);
                continue;
            }
            Step::Close(name) => {
                backend.close(name);
                open.retain(|n| n != name);
                let _ = writeln!(text, "{name} closes");
            }
            Step::Send(name, message) => {
                let errno = backend.send(name, &native(message.clone()));
                let _ = writeln!(text, "{name} > {}", summary(message));
                if errno != 0 {
                    let _ = writeln!(text, "  send: errno {errno}");
                }
            }
            Step::Quietly(name, message) => {
                let errno = backend.send(name, &native(message.clone()));
                let _ = writeln!(text, "{name} > {}: errno {errno}", summary(message));
                continue;
            }
            Step::Receive(name, most) => {
                let messages = backend.receive(name, *most);
                let _ = writeln!(text, "{name} receives {}", messages.len());
                for message in messages {
                    let _ = writeln!(text, "  {name} < {}", heading(&message));
                }
                continue;
            }
            Step::Buffer(name, bytes) => {
                backend.set_buffer(name, *bytes);
                let _ = writeln!(text, "{name} has a buffer of {bytes}");
                continue;
            }
            Step::Answer(name, message) => {
                let mut bytes = native(message.clone());
                bytes[8..12].copy_from_slice(&acquires.0.last().copied().unwrap_or(0).to_ne_bytes());
                let errno = backend.send(name, &bytes);
                let _ = writeln!(text, "{name} > {}, answers", summary(message));
                if errno != 0 {
                    let _ = writeln!(text, "  send: errno {errno}");
                }
            }
            Step::Arrives(from) => {
                backend.arrives(*from);
                let _ = writeln!(text, "ESP in UDP arrives from port {from}");
            }
            Step::Packet(packet) => {
                let errno = backend.packet(packet);
                let (src, dst) = (packet.src, packet.dst);
                let _ = writeln!(text, "packet {} {} > {} {}: errno {errno}", src.0, src.1, dst.0, dst.1);
            }
            Step::Wait(seconds) => {
                backend.wait(*seconds);
                let _ = writeln!(text, "{seconds} s pass");
            }
        }
        for name in &open {
            for message in backend.receive(name, usize::MAX) {
                let _ = writeln!(text, "  {name} < {}", describe(&message, scenario.any_spi, &mut acquires));
            }
        }
    }
    text
}

/// What was sent, shortly: a change of a scenario shows as a change of its transcript.
fn summary(message: &[u8]) -> String {
    let sum = message.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let name = message.get(1).map_or("?".to_owned(), |t| format!("{:?}", pfkey_rs::wire::MessageType(*t)));
    format!("{name}, {} bytes, sum {sum:08x}", message.len())
}

/// What a message is, shortly: type, SPI, sequence number.
fn heading(message: &[u8]) -> String {
    let Some(h) = Header::read(message) else { return hex(message) };
    let sa =
        message.get(16..24).filter(|ext| ext[2..4] == 1_u16.to_ne_bytes()).map_or("-".to_owned(), |ext| hex(&ext[4..]));
    format!("{:?} errno {} sa {sa} seq {} bytes {}", h.msg_type, h.errno, h.seq, message.len())
}

fn describe(message: &[u8], any_spi: bool, acquires: &mut Acquires) -> String {
    let Some(h) = Header::read(message) else { return hex(message) };
    let pid = match h.pid {
        0 => "0",
        crate::build::PID => "P",
        _ => "?",
    };
    // AF_KEY miscounts a policy whose last requests are of two families: its header then says a few words more or
    // less than the message has. The engine says what is there.
    let policy = (13..=22).contains(&h.msg_type.0);
    let words = if policy { message.len() / 8 } else { h.len.into() };
    let mut text = format!(
        "{:?} errno {} satype {} words {} reserved {} seq {} pid {pid}",
        h.msg_type,
        h.errno,
        h.satype.0,
        words,
        h.reserved,
        acquires.show(h)
    );
    if words * 8 != message.len() {
        let _ = write!(text, " ({} bytes)", message.len());
    }
    let mut at = 16;
    while let Some(head) = message.get(at..at + 4) {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]])) * 8;
        let ext_type = ExtensionType(u16::from_ne_bytes([head[2], head[3]]));
        let Some(ext) = message.get(at..at + len).filter(|_| len != 0) else {
            let _ = write!(text, "\n      broken: {}", hex(&recorded_extensions(message[at..].to_vec())));
            break;
        };
        let _ = write!(
            text,
            "\n      {ext_type:?} {}",
            extension(ext_type, &recorded_extensions(ext.to_vec())[4..], any_spi)
        );
        at += len;
    }
    text
}

/// An extension's bytes behind its header, as a little-endian machine has them, in hexadecimal, what varies masked.
fn extension(ext_type: ExtensionType, body: &[u8], any_spi: bool) -> String {
    let mut body = body.to_vec();
    match ext_type {
        ExtensionType::LIFETIME_CURRENT if body.len() >= 28 => {
            for field in [12..20, 20..28] {
                if body[field.clone()] != [0; 8] {
                    body[field].copy_from_slice(&[0xee; 8]);
                }
            }
        }
        ExtensionType::SA if any_spi && body.len() >= 4 => {
            let spi = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
            if !crate::random::SPIS.contains(&spi) {
                body[..4].copy_from_slice(&[0xee; 4]);
            }
        }
        ExtensionType::X_POLICY => {
            let mut at = 12;
            while let Some(request) = body.get(at..at + 16) {
                let len = usize::from(u16::from_le_bytes([request[0], request[1]]));
                let reqid = u32::from_le_bytes([request[8], request[9], request[10], request[11]]);
                if reqid > MANUAL_REQID {
                    body[at + 8..at + 12].copy_from_slice(&[0xee; 4]);
                }
                at += len.max(16);
            }
        }
        _ => {}
    }
    hex(&body)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if i % 4 == 0 && i > 0 {
            text.push(' ');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
