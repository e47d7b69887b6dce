//! `pfkey load` of 200 000 lines into an embedded engine, beside the same messages in a batch. `PFKEYD=FILE` measures another pfkeyd.

#[path = "../tests/support/program.rs"]
mod program;
#[path = "support/row.rs"]
mod row;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Instant;

use pfkey_rs::batch::Batch;
use pfkey_rs::socket::{Backend, open_with};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};
use row::{Goal, ROUNDS, Row};

const LINES: u32 = 200_000;

fn peer(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + n)
}

fn message(n: u32) -> Vec<u8> {
    let mut buffer = [0; 512];
    let address = |ip: Ipv4Addr| SockaddrBytes::new(ip.into(), 0);
    let mut w = Writer::new(&mut buffer, Header::new(MessageType::ADD, SaType::ESP, n + 1, 1), Profile::Linux);
    w.sa(SadbSa { spi: (0x1000 + n).into(), state: 1, auth: 3, encrypt: 12, ..Default::default() });
    w.address(Ext::ADDRESS_SRC, 0, 32, address(Ipv4Addr::new(192, 0, 2, 1)).as_bytes());
    w.address(Ext::ADDRESS_DST, 0, 32, address(peer(n)).as_bytes());
    w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    w.finish().expect("it fits").to_vec()
}

fn main() {
    row::heading();
    let mut text = String::new();
    for n in 0..LINES {
        let keys = ["07".repeat(20), "09".repeat(16)];
        let [auth, encrypt] = &keys;
        let spi = 0x1000 + n;
        writeln!(text, "add 192.0.2.1 {} esp {spi:#x} -E aes-cbc 0x{encrypt} -A hmac-sha1 0x{auth};", peer(n))
            .expect("text");
    }
    let file = std::env::temp_dir().join(format!("pfkey-load-{}.conf", std::process::id()));
    std::fs::write(&file, text).expect("a file");
    let messages: Vec<_> = (0..LINES).map(message).collect();
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let load =
            Command::new(program::program("pfkey")).arg("load").arg(&file).env("PFKEY_BACKEND", "embedded").output();
        let load = load.expect("pfkey");
        ours.push(start.elapsed().as_secs_f64());
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));

        let fd = open_with(&Backend::Embedded).expect("a pfkeyd");
        let start = Instant::now();
        let mut batch = Batch::default();
        messages.iter().for_each(|message| batch.push(message).expect("a message"));
        assert_eq!(batch.send(fd.as_fd(), |_, errno, _| panic!("{errno}")), Ok(0));
        limit.push(start.elapsed().as_secs_f64());
    }
    let _ = std::fs::remove_file(&file);
    let limit = Some(("the messages in a batch", limit));
    Row { work: "pfkey load, 200000 lines, embedded", unit: "s", ours, limit, goal: Goal::Ratio(1.5) }.show();
}
