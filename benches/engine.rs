//! What the embedded engine does in a second, in one process on one core, at a thousand, a hundred thousand and a
//! million SAs. `cargo bench --bench engine`
//!
//! Every figure includes checking the request, doing it, and building the answer for one session, which counts it
//! and throws it away.

#[path = "support/row.rs"]
mod row;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pfkey_rs::engine::{Engine, LINUX};
use pfkey_rs::hub::{Hub, Service as _, SessionId, Sink};
use pfkey_rs::wire::layout::{SadbLifetime, SadbSa};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};
use row::{Goal, Row};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// What reading the clock around each request costs.
static CLOCK_COST: LazyLock<Duration> = LazyLock::new(clock_cost);
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Counts messages and their errors.
#[derive(Default)]
struct Count {
    messages: u64,
    errors: u64,
}

impl Sink for Count {
    fn deliver(&mut self, _to: SessionId, message: &[u8]) -> bool {
        self.messages += 1;
        self.errors += u64::from(message[2] != 0);
        true
    }
}

/// Its addresses: pairs of hosts, as on a gateway with many peers.
fn ends(n: u32) -> (SockaddrBytes, SockaddrBytes) {
    let peer = std::net::Ipv4Addr::from(0x0a00_0000 + n % 0x00ff_ffff);
    (SockaddrBytes::new([192, 0, 2, 1].into(), 0), SockaddrBytes::new(peer.into(), 0))
}

fn message(buffer: &mut [u8; 512], msg_type: MessageType, n: u32) -> usize {
    let (src, dst) = ends(n);
    let mut w = Writer::new(buffer, Header::new(msg_type, SaType::ESP, 0, 1), Profile::Linux);
    if msg_type == MessageType::GETSPI {
        w.address(Ext::ADDRESS_SRC, 0, 32, src.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, dst.as_bytes());
        w.spirange(0x100, 0x0fff_ffff);
        return w.finish().map_or(0, |m| m.len());
    }
    // Spread, as key managers' random SPIs are.
    let spi = (n + 1).wrapping_mul(0x9e37_79b1) | 0x100;
    w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 3, encrypt: 12, ..Default::default() });
    if msg_type == MessageType::ADD {
        let lifetime = |add: u64| SadbLifetime { addtime: add.into(), ..Default::default() };
        w.lifetime(Ext::LIFETIME_HARD, lifetime(3600 + u64::from(n % 600)));
        w.lifetime(Ext::LIFETIME_SOFT, lifetime(3000 + u64::from(n % 600)));
    }
    w.address(Ext::ADDRESS_SRC, 0, 32, src.as_bytes()).address(Ext::ADDRESS_DST, 0, 32, dst.as_bytes());
    if msg_type == MessageType::ADD {
        w.key(Ext::KEY_AUTH, 160, &[7; 20]).key(Ext::KEY_ENCRYPT, 128, &[9; 16]);
    }
    w.finish().map_or(0, |m| m.len())
}

/// How often the requests of a column are made, so that each row has 200 000 of them: a thousand take half a millisecond.
fn repeats(n: u32) -> u32 {
    (200_000 / n).max(1)
}

/// Time for `count` requests, spread over `n` SAs.
fn spent(hub: &mut Hub<Engine>, id: SessionId, msg_type: MessageType, n: u32, count: u32) -> Duration {
    let mut sink = Count::default();
    let mut buffer = [0; 512];
    let mut spent = Duration::ZERO;
    for i in 0..count {
        let len = message(&mut buffer, msg_type, if count == n { i } else { i.wrapping_mul(0x9e37_79b1) % n });
        let start = Instant::now();
        hub.receive(id, &buffer[..len], NOW, &mut sink).expect("a message");
        spent += start.elapsed();
    }
    assert_eq!(sink.errors, 0, "{msg_type:?} at {n}");
    spent.saturating_sub(*CLOCK_COST * count)
}

/// What reading the clock around a request costs: the least of a few tries, so that no interruption is taken off.
fn clock_cost() -> Duration {
    const READS: u32 = 10_000;
    let tries = (0..20).map(|_| {
        let mut spent = Duration::ZERO;
        for _ in 0..READS {
            let start = Instant::now();
            spent += start.elapsed();
        }
        spent / READS
    });
    tries.min().unwrap_or_default()
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: f64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096.0
}

fn column(n: u32) {
    let (mut add, mut get, mut getspi, mut delete) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut dumped, mut dumping, mut bytes) = (0, Duration::ZERO, 0.0);
    let some = n.clamp(10_000, 100_000);
    for round in 0..repeats(n) {
        let before = resident();
        let mut hub = Hub::new(Engine::with_seed(&LINUX, 1));
        let id = hub.open();
        add += spent(&mut hub, id, MessageType::ADD, n, n);
        if round == 0 {
            bytes = (resident() - before) / f64::from(n);
        }
        get += spent(&mut hub, id, MessageType::GET, n, some);
        getspi += spent(&mut hub, id, MessageType::GETSPI, n, n.min(100_000));

        let mut dump = [0; 16];
        let len = Writer::new(&mut dump, Header::new(MessageType::DUMP, SaType::UNSPEC, 1, 1), Profile::Linux)
            .finish()
            .map_or(0, |m| m.len());
        let (mut sink, start) = (Count::default(), Instant::now());
        while sink.messages < u64::from(1_000_000 / repeats(n)) {
            hub.receive(id, &dump[..len], NOW, &mut sink).expect("a message");
        }
        dumping += start.elapsed();
        dumped += sink.messages;
        delete += spent(&mut hub, id, MessageType::DELETE, n, n);
    }
    let rate = |count: u32, spent: Duration| f64::from(count) * f64::from(repeats(n)) / spent.as_secs_f64() / 1e6;
    let show = |work: &str, unit: &str, figure: f64, goal: Goal| {
        let work = format!("{work}, {n} SAs");
        let goal = if n == SIZES[2] { goal } else { Goal::None };
        Row { work: &work, unit, ours: vec![figure], limit: None, goal }.show();
    };
    show("engine: ADD", "M/s", rate(n, add), Goal::Least(1.5));
    show("engine: GET", "M/s", rate(some, get), Goal::None);
    show("engine: GETSPI", "M/s", rate(n.min(100_000), getspi), Goal::Least(1.0));
    show("engine: DELETE", "M/s", rate(n, delete), Goal::None);
    show("engine: messages of a dump", "M/s", dumped as f64 / dumping.as_secs_f64() / 1e6, Goal::Least(15.0));
    // Smaller ones are in memory that larger ones had.
    if n == SIZES[2] {
        show("engine: resident, with keys of 36 bytes, each of", "bytes", bytes, Goal::Most(320.0));
    }
}

fn main() {
    row::heading();
    // The largest first, in memory that nobody has had.
    SIZES.into_iter().rev().for_each(column);
}
