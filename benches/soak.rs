//! Pairs of SAs that are exchanged for as long as is asked, while another program hears of each change:
//! `cargo bench --locked --bench soak -- SECONDS`, `PFKEY_BACKEND` chooses the backend. Latencies as percentiles; nothing may be lost; pfkeyd's memory,
//! descriptors and processes at the end beside those after the first tenth.

#[path = "support/process.rs"]
mod process;
#[path = "support/row.rs"]
mod row;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};
use process::{count as processes, descriptors, private, server_of};
use row::{Goal, Row};

/// Tunnels, each with an SA in and an SA out.
const TUNNELS: u32 = 1000;
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

struct Manager {
    fd: OwnedFd,
    seq: u32,
    /// Microseconds of each request.
    took: Vec<f32>,
    buffer: [u8; 2048],
}

impl Manager {
    /// A request about the SA from one address to the other; the SPI in its answer.
    fn ask(&mut self, msg_type: MessageType, (src, dst): (Ipv4Addr, Ipv4Addr), spi: u32) -> u32 {
        self.seq += 1;
        let mut bytes = [0; 512];
        let header = Header::new(msg_type, SaType::ESP, self.seq, std::process::id());
        let mut w = Writer::new(&mut bytes, header, Profile::Linux);
        let address = |ip: Ipv4Addr| SockaddrBytes::new(ip.into(), 0);
        if msg_type != MessageType::GETSPI {
            let auth = if msg_type == MessageType::DELETE { 0 } else { 3 };
            let encrypt = if msg_type == MessageType::DELETE { 0 } else { 12 };
            w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth, encrypt, ..Default::default() });
        }
        let has_keys = matches!(msg_type, MessageType::ADD | MessageType::UPDATE);
        if has_keys {
            let lifetime = |add: u64| SadbLifetime { addtime: add.into(), ..Default::default() };
            w.lifetime(Ext::LIFETIME_HARD, lifetime(36_000)).lifetime(Ext::LIFETIME_SOFT, lifetime(30_000));
        }
        w.address(Ext::ADDRESS_SRC, 0, 32, address(src).as_bytes()).address(
            Ext::ADDRESS_DST,
            0,
            32,
            address(dst).as_bytes(),
        );
        if has_keys {
            w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
        }
        if msg_type == MessageType::GETSPI {
            w.spirange(0x100, 0x0fff_ffff);
        }
        let request = w.finish().expect("it fits");
        let start = Instant::now();
        socket::send(self.fd.as_raw_fd(), request).expect("a request");
        let len = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()).expect("its answer");
        self.took.push(start.elapsed().as_secs_f32() * 1e6);
        let answer = Header::read(&self.buffer[..len]).expect("a header");
        assert_eq!((answer.msg_type, answer.seq, answer.errno), (msg_type, self.seq, 0));
        // struct sadb_sa follows the header: its SPI is in network byte order.
        u32::from_be_bytes([self.buffer[20], self.buffer[21], self.buffer[22], self.buffer[23]])
    }

    /// A new pair of SAs for a tunnel; removes the one before.
    fn exchange(&mut self, tunnel: u32, before: Option<(u32, u32)>) -> (u32, u32) {
        let peer = Ipv4Addr::from(0x0a00_0000 + tunnel);
        let inbound = self.ask(MessageType::GETSPI, (peer, OWN), 0);
        self.ask(MessageType::UPDATE, (peer, OWN), inbound);
        let outbound = 0x1000_0000 + self.seq;
        self.ask(MessageType::ADD, (OWN, peer), outbound);
        if let Some((old_inbound, old_outbound)) = before {
            self.ask(MessageType::DELETE, (peer, OWN), old_inbound);
            self.ask(MessageType::DELETE, (OWN, peer), old_outbound);
        }
        (inbound, outbound)
    }
}

/// Takes what the other program was told; how many messages.
fn hear(fd: &OwnedFd) -> u64 {
    let mut buffer = [0; 2048];
    let mut heard = 0;
    while recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {
        heard += 1;
    }
    heard
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let Some(seconds) = seconds.map(Duration::from_secs) else {
        return println!("soak: say how many seconds: cargo bench --locked --bench soak -- 1800");
    };
    row::heading();
    let backend = Backend::from_environment().expect("a backend");
    // An embedded engine is one program's: its other descriptor is the same.
    let mut manager =
        Manager { fd: socket::open_with(&backend).expect("a descriptor"), seq: 0, took: Vec::new(), buffer: [0; 2048] };
    let listener = (backend != Backend::Embedded).then(|| socket::open_with(&backend).expect("a descriptor"));
    let server = server_of(&manager.fd);
    let mut pairs = vec![None; TUNNELS as usize];
    let (mut changes, mut heard) = (0_u64, 0);
    let (start, mut first) = (Instant::now(), None);
    while start.elapsed() < seconds {
        for tunnel in 0..TUNNELS {
            let pair = &mut pairs[tunnel as usize];
            // UPDATE and ADD, and two DELETEs: GETSPI is told to its asker alone.
            changes += if pair.is_some() { 4 } else { 2 };
            *pair = Some(manager.exchange(tunnel, *pair));
            heard += listener.as_ref().map_or(0, hear);
        }
        if first.is_none() && start.elapsed() >= seconds / 10 {
            first = Some((private(server), descriptors(server), processes(server)));
        }
    }
    let (memory, open, alive) = first.unwrap_or_default();
    let show = |work: &str, unit: &str, figure: f64, limit: Option<(&str, f64)>, goal| {
        let limit = limit.map(|(name, figure)| (name, vec![figure]));
        Row { work, unit, ours: vec![figure], limit, goal }.show();
    };
    let count = manager.took.len();
    manager.took.sort_by(f32::total_cmp);
    let at = |thousandth: usize| f64::from(manager.took[(count * thousandth / 1000).min(count - 1)]);
    show("pairs exchanged a second", "/s", count as f64 / 5.0 / start.elapsed().as_secs_f64(), None, Goal::None);
    for (name, thousandth) in [("median", 500), ("99 of 100", 990), ("999 of 1000", 999), ("longest", 1000)] {
        show(&format!("a request and its answer, {name}"), "us", at(thousandth), None, Goal::None);
    }
    let after_a_tenth = |figure| Some(("after a tenth of the time", figure));
    show("private memory of pfkeyd at the end", "KiB", private(server), after_a_tenth(memory), Goal::Ratio(1.02));
    show("descriptors of pfkeyd at the end", "", descriptors(server), after_a_tenth(open), Goal::Ratio(1.0));
    show("processes of pfkeyd at the end", "", processes(server), after_a_tenth(alive), Goal::Ratio(1.0));
    if listener.is_some() {
        show(
            "changes that another program heard of",
            "",
            heard as f64,
            Some(("changes", changes as f64)),
            Goal::Least(changes as f64),
        );
    }
}
