//! The scenarios: each message with each part missing or broken, and what SAs, policies and listeners go through.

use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::build::{Msg, request};
use crate::network::Packet;

pub enum Step {
    Open(&'static str),
    Close(&'static str),
    Send(&'static str, Vec<u8>),
    Wait(u64),
    /// As `Send`, with the sequence number of the last ACQUIRE.
    Answer(&'static str, Vec<u8>),
    Packet(Packet),
    /// ESP in UDP arrives from this port.
    Arrives(u16),
    /// As `Send`, but nobody receives yet.
    Quietly(&'static str, Vec<u8>),
    /// Receives so many messages at most.
    Receive(&'static str, usize),
    /// Sets SO_RCVBUF.
    Buffer(&'static str, usize),
}

pub struct Scenario {
    pub name: String,
    pub steps: Vec<Step>,
    /// The kernel chooses SPIs at random: they are masked.
    pub any_spi: bool,
}

impl Scenario {
    /// Whether seconds pass.
    pub fn waits(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Wait(_)))
    }

    /// Whether packets pass, for which a backend needs a data plane.
    pub fn has_packets(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Packet(_) | Step::Arrives(_)))
    }

    /// How many sockets it opens.
    pub fn sockets(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Open(_))).count()
    }

    /// Whether the size of receive queues matters, which are the kernel's own elsewhere.
    pub fn has_queues(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Buffer(..)))
    }
}

pub const A: &str = "10.0.0.1";
pub const B: &str = "10.0.0.2";
pub const A6: &str = "2001:db8::1";
pub const B6: &str = "2001:db8::2";

fn esp(msg_type: M, spi: u32) -> Msg {
    Msg::new(msg_type, S::ESP, 7).sa(spi, 3, 12).pair(A, B).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16)
}

fn ah(msg_type: M, spi: u32) -> Msg {
    Msg::new(msg_type, S::AH, 8).sa(spi, 3, 0).pair(A, B).key(Ext::KEY_AUTH, 20)
}

fn ipcomp(msg_type: M, spi: u32) -> Msg {
    Msg::new(msg_type, S::X_IPCOMP, 9).sa(spi, 0, 2).pair(A, B)
}

fn named(msg_type: M, satype: S, spi: u32) -> Msg {
    Msg::new(msg_type, satype, 10).sa(spi, 0, 0).pair(A, B)
}

fn getspi(satype: S, min: u32, max: u32) -> Msg {
    Msg::new(M::GETSPI, satype, 11).pair(A, B).range(min, max)
}

fn selector(msg_type: M) -> Msg {
    Msg::new(msg_type, S::UNSPEC, 12).address(Ext::ADDRESS_SRC, "10.0.0.0", 0, 255, 24).address(
        Ext::ADDRESS_DST,
        "10.1.0.0",
        0,
        255,
        24,
    )
}

fn spd(msg_type: M, dir: u8) -> Msg {
    selector(msg_type).policy(2, dir, 0, 0x8000_0000, &request(50, 1, 2, 0, None))
}

fn bare(msg_type: M, satype: u8) -> Msg {
    Msg::new(msg_type, S(satype), 13)
}

/// Builds one scenario step by step; `a` sends, `b` listens.
pub struct Build {
    name: String,
    steps: Vec<Step>,
    any_spi: bool,
}

impl Build {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), steps: vec![Step::Open("a"), Step::Open("b")], any_spi: false }
    }

    pub fn send(self, message: Msg) -> Self {
        self.send_bytes("a", message.recorded())
    }

    pub fn by(self, name: &'static str, message: Msg) -> Self {
        self.send_bytes(name, message.recorded())
    }

    /// Bytes as a little-endian machine has them.
    pub fn send_bytes(mut self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.steps.push(Step::Send(name, bytes));
        self
    }

    pub fn open(mut self, name: &'static str) -> Self {
        self.steps.push(Step::Open(name));
        self
    }

    pub fn close(mut self, name: &'static str) -> Self {
        self.steps.push(Step::Close(name));
        self
    }

    pub fn wait(mut self, seconds: u64) -> Self {
        self.steps.push(Step::Wait(seconds));
        self
    }

    pub fn quietly(mut self, name: &'static str, message: Msg) -> Self {
        self.steps.push(Step::Quietly(name, message.recorded()));
        self
    }

    pub fn receive(mut self, name: &'static str, most: usize) -> Self {
        self.steps.push(Step::Receive(name, most));
        self
    }

    pub fn buffer(mut self, name: &'static str, bytes: usize) -> Self {
        self.steps.push(Step::Buffer(name, bytes));
        self
    }

    /// Answers the last ACQUIRE.
    pub fn answer(mut self, message: Msg) -> Self {
        self.steps.push(Step::Answer("a", message.recorded()));
        self
    }

    pub fn packet(mut self, packet: Packet) -> Self {
        self.steps.push(Step::Packet(packet));
        self
    }

    pub fn arrives(mut self, from: u16) -> Self {
        self.steps.push(Step::Arrives(from));
        self
    }

    /// A packet beyond a hard limit: the kernel's timer, which removes the SA, takes a moment.
    pub fn packet_that_ends(self, packet: Packet) -> Self {
        self.packet(packet).wait(1)
    }

    pub fn any_spi(mut self) -> Self {
        self.any_spi = true;
        self
    }

    pub fn done(self, all: &mut Vec<Scenario>) {
        all.push(Scenario { name: self.name, steps: self.steps, any_spi: self.any_spi });
    }
}

/// Every request with a handler, whole, with what has to exist before it.
fn bases() -> Vec<(&'static str, Vec<Msg>, Msg)> {
    vec![
        ("getspi", vec![], getspi(S::ESP, 0x200, 0x200).sa2(1, 5)),
        ("add-esp", vec![], esp(M::ADD, 0x1000).lifetimes(100, 80).sa2(2, 5)),
        ("add-ah", vec![], ah(M::ADD, 0x1000).sa2(1, 5)),
        ("add-ipcomp", vec![], ipcomp(M::ADD, 0x1000)),
        ("add-natt", vec![], esp(M::ADD, 0x1000).nat_t(2, 4500, 4501)),
        ("update-larval", vec![getspi(S::ESP, 0x1000, 0x1000)], esp(M::UPDATE, 0x1000)),
        ("update-mature", vec![esp(M::ADD, 0x1000)], esp(M::UPDATE, 0x1000).lifetimes(100, 80)),
        ("delete", vec![esp(M::ADD, 0x1000)], named(M::DELETE, S::ESP, 0x1000)),
        ("get", vec![esp(M::ADD, 0x1000)], named(M::GET, S::ESP, 0x1000)),
        ("acquire", vec![], bare(M::ACQUIRE, 3)),
        ("flush", vec![esp(M::ADD, 0x1000)], bare(M::FLUSH, 3)),
        ("dump", vec![esp(M::ADD, 0x1000), ah(M::ADD, 0x1000)], bare(M::DUMP, 0)),
        ("dump-filter", vec![esp(M::ADD, 0x1000)], bare(M::DUMP, 3).filter(2, [10, 0, 0, 0], 8, [10, 0, 0, 2], 32)),
        ("promisc", vec![], bare(M::X_PROMISC, 1)),
        ("spdadd", vec![], spd(M::X_SPDADD, 2).lifetimes(100, 0)),
        ("spdupdate", vec![spd(M::X_SPDADD, 2)], spd(M::X_SPDUPDATE, 2)),
        ("spdsetidx", vec![], spd(M::X_SPDSETIDX, 1)),
        ("spddelete", vec![spd(M::X_SPDADD, 2)], selector(M::X_SPDDELETE).policy(0, 2, 0, 0, &[])),
        ("spdget", vec![spd(M::X_SPDADD, 2)], bare(M::X_SPDGET, 0).policy(0, 0, 1, 0, &[])),
        ("spddelete2", vec![spd(M::X_SPDADD, 2)], bare(M::X_SPDDELETE2, 0).policy(0, 0, 1, 0, &[])),
        ("spddump", vec![spd(M::X_SPDADD, 2), spd(M::X_SPDADD, 1)], bare(M::X_SPDDUMP, 0)),
        ("spdflush", vec![spd(M::X_SPDADD, 2)], bare(M::X_SPDFLUSH, 0)),
    ]
}

/// Each request whole, and with each of its parts missing or broken.
fn matrix(all: &mut Vec<Scenario>) {
    for (name, before, base) in bases() {
        let start = |variant: &str| {
            before.iter().fold(Build::new(format!("{name}/{variant}")), |build, message| build.send(message.clone()))
        };
        start("whole").send(base.clone()).done(all);
        for n in 0..base.extensions.len() {
            let ext = format!("{:?}", base.ext_type(n)).to_lowercase();
            let without = start(&format!("without-{ext}")).send(base.without(n));
            let without = if base.ext_type(n) == Ext::SPIRANGE { without.any_spi() } else { without };
            // AF_KEY shows what was in memory where it was not told a port.
            if !matches!(base.ext_type(n), Ext::X_NAT_T_SPORT | Ext::X_NAT_T_DPORT) {
                without.done(all);
            }
            start(&format!("{ext}-twice")).send(base.clone().raw(base.extensions[n].clone())).done(all);
            start(&format!("{ext}-empty")).send(base.broken(n, |e| e[..2].fill(0))).done(all);
            start(&format!("{ext}-overruns")).send(base.broken(n, |e| e[0] = 0xff)).done(all);
            if base.extensions[n].len() > 8 {
                let cut = base.broken(n, |e| {
                    e.truncate(8);
                    e[0] = 1;
                });
                start(&format!("{ext}-short")).send(cut).done(all);
            }
            start(&format!("{ext}-type-0")).send(base.broken(n, |e| e[2..4].fill(0))).done(all);
        }
        for satype in [0, 1, 2, 3, 5, 9, 10] {
            let mut other = base.clone();
            other.header.satype = S(satype);
            start(&format!("satype-{satype}")).send(other).done(all);
        }
        let whole = base.recorded();
        start("stray-bytes").send_bytes("a", [&whole[..], &[0; 4]].concat()).done(all);
        start("unknown-extension").send(base.clone().raw(vec![1, 0, 99, 0, 1, 2, 3, 4])).done(all);
        let header = |change: fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            bytes
        };
        start("version-1").send_bytes("a", header(|b| b[0] = 1)).done(all);
        start("reserved").send_bytes("a", header(|b| b[6] = 1)).done(all);
        start("errno").send_bytes("a", header(|b| b[2] = 9)).done(all);
        start("length-short").send_bytes("a", header(|b| b[4] -= 1)).done(all);
    }
    for msg_type in [M::EXPIRE, M::X_PCHANGE, M::X_SPDACQUIRE, M::X_SPDEXPIRE, M::X_NAT_T_NEW_MAPPING] {
        let name = format!("{msg_type:?}").to_lowercase();
        Build::new(format!("{name}/bare")).send(bare(msg_type, 3)).done(all);
        Build::new(format!("{name}/with-sa")).send(named(msg_type, S::ESP, 0x1000)).done(all);
    }
    for msg_type in [0, 25, 255] {
        Build::new(format!("type-{msg_type}")).send(bare(M(msg_type), 0)).done(all);
    }
    for len in [0, 4, 15] {
        Build::new(format!("short-{len}")).send_bytes("a", vec![2; len]).done(all);
    }
}

/// Algorithms, keys, limits and modes of ADD.
fn adding(all: &mut Vec<Scenario>) {
    for auth in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 251, 252] {
        Build::new(format!("add/auth-{auth}"))
            .send(Msg::new(M::ADD, S::AH, 1).sa(0x300, auth, 0).pair(A, B).key(Ext::KEY_AUTH, 16))
            .done(all);
    }
    for encrypt in [0, 1, 2, 3, 6, 7, 11, 12, 13, 14, 18, 20, 22, 23, 252, 253, 254] {
        for len in [0, 8, 16, 24, 36] {
            Build::new(format!("add/encrypt-{encrypt}-key-{len}"))
                .send(Msg::new(M::ADD, S::ESP, 1).sa(0x300, 0, encrypt).pair(A, B).key(Ext::KEY_ENCRYPT, len))
                .done(all);
        }
    }
    for bits in [1, 7, 9, 40, 127] {
        Build::new(format!("add/key-bits-{bits}"))
            .send(ah(M::ADD, 0x300).without(3).key_bits(Ext::KEY_AUTH, bits, usize::from(bits).div_ceil(8)))
            .done(all);
    }
    for calg in [0, 1, 2, 3, 4, 5] {
        Build::new(format!("add/compress-{calg}"))
            .send(Msg::new(M::ADD, S::X_IPCOMP, 1).sa(0x300, 0, calg).pair(A, B))
            .done(all);
    }
    // Its key, which netlink says twice, takes more than a page.
    let long = |msg_type| Msg::new(msg_type, S::AH, 1).sa(0x300, 3, 0).pair(A, B).key(Ext::KEY_AUTH, 2000);
    Build::new("add/longer-than-a-page")
        .send(esp(M::ADD, 0x100))
        .send(long(M::ADD))
        .send(bare(M::DUMP, 0))
        .send(named(M::GET, S::AH, 0x300))
        .send(long(M::UPDATE))
        .send(named(M::GET, S::AH, 0x301))
        .send(named(M::DELETE, S::AH, 0x300))
        .done(all);
    for mode in 0..=5 {
        Build::new(format!("add/mode-{mode}")).send(esp(M::ADD, 0x300).sa2(mode, 9)).done(all);
        Build::new(format!("add/ipcomp-mode-{mode}")).send(ipcomp(M::ADD, 0x300).sa2(mode, 9)).done(all);
    }
    for spi in [0, 1, 255, 256, 0xffff, 0x1_0000, u32::MAX] {
        Build::new(format!("add/spi-{spi}"))
            .send(esp(M::ADD, spi))
            .send(named(M::GET, S::ESP, spi))
            .send(bare(M::DUMP, 0))
            .done(all);
        Build::new(format!("add/ipcomp-spi-{spi}")).send(ipcomp(M::ADD, spi)).done(all);
    }
    for (name, sa) in [
        ("replay-64", SadbSa { spi: 0x300.into(), replay: 64, auth: 3, encrypt: 12, ..Default::default() }),
        ("flags-all", SadbSa { spi: 0x300.into(), flags: u32::MAX.into(), auth: 3, encrypt: 12, ..Default::default() }),
        ("state-dead", SadbSa { spi: 0x300.into(), state: 3, auth: 3, encrypt: 12, ..Default::default() }),
    ] {
        let message = esp(M::ADD, 0x300).without(0).sa_with(sa);
        Build::new(format!("add/{name}")).send(message).send(bare(M::DUMP, 0)).done(all);
    }
    for encap in [0, 1, 2, 7, 9] {
        Build::new(format!("add/encap-{encap}")).send(esp(M::ADD, 0x300).nat_t(encap, 1, 2)).done(all);
        Build::new(format!("add/ah-encap-{encap}")).send(ah(M::ADD, 0x300).nat_t(encap, 1, 2)).done(all);
        Build::new(format!("add/ipcomp-encap-{encap}")).send(ipcomp(M::ADD, 0x300).nat_t(encap, 1, 2)).done(all);
    }
    // What Linux takes for infinite, and 32 bits that it does not.
    let everything = |ext: Ext| (ext, u32::MAX, u64::MAX);
    for (name, (ext, packets, bytes), (other, ..)) in [
        ("hard", everything(Ext::LIFETIME_HARD), everything(Ext::LIFETIME_SOFT)),
        ("soft", everything(Ext::LIFETIME_SOFT), everything(Ext::LIFETIME_HARD)),
    ] {
        let limited =
            |message: Msg| message.lifetime(ext, packets, bytes, 0, 0).lifetime(other, packets - 1, bytes - 1, 0, 0);
        Build::new(format!("add/infinite-bytes-{name}")).send(limited(esp(M::ADD, 0x300))).done(all);
        Build::new(format!("spdadd/infinite-bytes-{name}")).send(limited(spd(M::X_SPDADD, 2))).done(all);
    }
    Build::new("add/hard-only").send(esp(M::ADD, 0x300).lifetime(Ext::LIFETIME_HARD, 1, 2, 3, 4)).done(all);
    Build::new("add/soft-only").send(esp(M::ADD, 0x300).lifetime(Ext::LIFETIME_SOFT, 1, 2, 3, 4)).done(all);
    Build::new("add/all-limits")
        .send(esp(M::ADD, 0x300).lifetime(Ext::LIFETIME_HARD, 100, 200, 300, 400).lifetime(
            Ext::LIFETIME_SOFT,
            10,
            20,
            30,
            40,
        ))
        .done(all);
    for (name, proxy, plen) in [("same", A, 32), ("other", "10.7.7.7", 24), ("v6", A6, 64), ("any", "0.0.0.0", 0)] {
        for mode in [1, 2] {
            Build::new(format!("add/proxy-{name}-mode-{mode}"))
                .send(esp(M::ADD, 0x300).sa2(mode, 0).address(Ext::ADDRESS_PROXY, proxy, 5, 6, plen))
                .done(all);
        }
    }
    Build::new("add/v6")
        .send(Msg::new(M::ADD, S::ESP, 1).sa(9, 3, 12).pair(A6, B6).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("add/v6-with-v4").send(ah(M::ADD, 9).without(1).address(Ext::ADDRESS_SRC, A6, 0, 0, 128)).done(all);
    Build::new("add/port-and-proto")
        .send(
            Msg::new(M::ADD, S::AH, 1)
                .sa(9, 3, 0)
                .address(Ext::ADDRESS_SRC, A, 500, 17, 24)
                .address(Ext::ADDRESS_DST, B, 500, 17, 24)
                .key(Ext::KEY_AUTH, 20),
        )
        .done(all);
    for (doi, alg, text) in [(1, 1, &b"u:r:t"[..]), (1, 1, b"u:r:t\0"), (2, 1, b"x"), (1, 2, b"x"), (1, 1, b"")] {
        Build::new(format!("add/context-{doi}-{alg}-{}", text.len()))
            .send(esp(M::ADD, 0x300).context(doi, alg, text))
            .done(all);
        Build::new(format!("spdadd/context-{doi}-{alg}-{}", text.len()))
            .send(spd(M::X_SPDADD, 2).context(doi, alg, text))
            .done(all);
    }
    // Up to a page is a message, and a page is more than a label may have.
    for len in [4095, 4096, 4097] {
        let text = vec![b'x'; len];
        Build::new(format!("add/context-of-{len}")).send(esp(M::ADD, 0x300).context(1, 1, &text)).done(all);
        Build::new(format!("spdadd/context-of-{len}")).send(spd(M::X_SPDADD, 2).context(1, 1, &text)).done(all);
        Build::new(format!("spddelete/context-of-{len}"))
            .send(selector(M::X_SPDDELETE).policy(0, 2, 0, 0, &[]).context(1, 1, &text))
            .done(all);
    }
    Build::new("add/context-of-4096-of-another-module").send(esp(M::ADD, 0x300).context(2, 1, &[b'x'; 4096])).done(all);
}

/// What SAs go through.
fn lives(all: &mut Vec<Scenario>) {
    Build::new("life/add-twice").send(esp(M::ADD, 0x300)).send(esp(M::ADD, 0x300)).done(all);
    Build::new("life/add-same-spi-other-protocol").send(esp(M::ADD, 0x300)).send(ah(M::ADD, 0x300)).done(all);
    Build::new("life/add-other-source")
        .send(ah(M::ADD, 0x300))
        .send(Msg::new(M::ADD, S::AH, 8).sa(0x300, 3, 0).pair("10.0.0.9", B).key(Ext::KEY_AUTH, 20))
        .done(all);
    Build::new("life/update-absent").send(esp(M::UPDATE, 0x300)).done(all);
    Build::new("life/delete-twice")
        .send(ah(M::ADD, 0x300))
        .send(named(M::DELETE, S::AH, 0x300))
        .send(named(M::DELETE, S::AH, 0x300))
        .done(all);
    Build::new("life/delete-from-another-source")
        .send(ah(M::ADD, 0x300))
        .send(Msg::new(M::DELETE, S::AH, 8).sa(0x300, 0, 0).pair("10.0.0.9", B))
        .done(all);
    Build::new("life/delete-larval").send(getspi(S::AH, 0x300, 0x300)).send(named(M::DELETE, S::AH, 0x300)).done(all);
    Build::new("life/getspi-update-dump")
        .send(getspi(S::ESP, 0x300, 0x300))
        .send(esp(M::UPDATE, 0x300))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("life/getspi-add-same-spi").send(getspi(S::ESP, 0x300, 0x300)).send(esp(M::ADD, 0x300)).done(all);
    Build::new("life/add-leaves-larvals-with-spi")
        .send(getspi(S::ESP, 0x300, 0x300))
        .send(esp(M::ADD, 0x400))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("life/add-takes-larval-without-spi")
        .send(getspi(S::ESP, 0x300, 0x200))
        .send(bare(M::DUMP, 0))
        .send(esp(M::ADD, 0x400))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("life/update-mature-other-keys")
        .send(esp(M::ADD, 0x300))
        .send(
            Msg::new(M::UPDATE, S::ESP, 7).sa(0x300, 2, 3).pair(A, B).key(Ext::KEY_AUTH, 16).key(Ext::KEY_ENCRYPT, 24),
        )
        .send(named(M::GET, S::ESP, 0x300))
        .done(all);
    Build::new("life/update-mature-ports")
        .send(esp(M::ADD, 0x300).nat_t(2, 4500, 4500))
        .send(esp(M::UPDATE, 0x300).nat_t(2, 5500, 5600))
        .send(named(M::GET, S::ESP, 0x300))
        .send(esp(M::UPDATE, 0x300))
        .done(all);
    Build::new("life/update-mature-gets-encap")
        .send(esp(M::ADD, 0x300))
        .send(esp(M::UPDATE, 0x300).nat_t(2, 5500, 5600))
        .done(all);
    for (min, max) in [(0, 0), (1, 1), (255, 255), (0x300, 0x2ff), (u32::MAX, u32::MAX)] {
        let build = Build::new(format!("getspi/{min}-{max}")).send(getspi(S::ESP, min, max)).send(bare(M::DUMP, 0));
        let build = if min < max { build.any_spi() } else { build };
        build.done(all);
    }
    Build::new("getspi/again-same-addresses")
        .send(getspi(S::ESP, 0x300, 0x300))
        .send(getspi(S::ESP, 0x301, 0x301))
        .done(all);
    Build::new("getspi/taken")
        .send(esp(M::ADD, 0x300))
        .send(getspi(S::ESP, 0x300, 0x300))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("getspi/taken-for-another-destination")
        .send(esp(M::ADD, 0x300))
        .send(Msg::new(M::GETSPI, S::ESP, 1).pair(A, "10.0.0.77").range(0x300, 0x300))
        .done(all);
    Build::new("getspi/chosen")
        .send(getspi(S::ESP, 0x0a00_0000, 0x0aff_ffff))
        .send(bare(M::DUMP, 0))
        .any_spi()
        .done(all);
    Build::new("getspi/ipcomp").send(getspi(S::X_IPCOMP, 0x300, 0x300)).done(all);
    Build::new("getspi/ipcomp-without-range").send(Msg::new(M::GETSPI, S::X_IPCOMP, 1).pair(A, B)).done(all);
    Build::new("getspi/ipcomp-large").send(getspi(S::X_IPCOMP, 0x300, 0x10000)).done(all);
    Build::new("getspi/unspec-leaves-a-larval")
        .send(getspi(S::UNSPEC, 0x300, 0x300))
        .send(bare(M::DUMP, 0))
        .send(bare(M::FLUSH, 0))
        .send(bare(M::DUMP, 0))
        .done(all);
    for mode in 0..=4 {
        Build::new(format!("getspi/mode-{mode}")).send(getspi(S::ESP, 0x300, 0x300).sa2(mode, 77)).done(all);
    }
    Build::new("getspi/v6").send(Msg::new(M::GETSPI, S::ESP, 1).pair(A6, B6).range(0x300, 0x300)).done(all);
    for (errno, seq) in [(0, 1), (5, 0), (5, 99)] {
        let mut message = bare(M::ACQUIRE, 3);
        message.header.errno = errno;
        message.header.seq = seq;
        Build::new(format!("acquire/errno-{errno}-seq-{seq}")).send(message).done(all);
    }
    Build::new("flush/one-type")
        .send(esp(M::ADD, 0x300))
        .send(ah(M::ADD, 0x300))
        .send(bare(M::FLUSH, 2))
        .send(bare(M::FLUSH, 2))
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("dump/order")
        .send(esp(M::ADD, 1))
        .send(ah(M::ADD, 2))
        .send(ipcomp(M::ADD, 3))
        .send(getspi(S::ESP, 4, 4))
        .send(bare(M::DUMP, 0))
        .send(bare(M::DUMP, 3))
        .send(bare(M::DUMP, 9))
        .done(all);
    for (name, family, saddr, splen, daddr, dplen) in [
        ("all", 0, [0; 4], 0, [0; 4], 0),
        ("v6", 10, [0; 4], 0, [0; 4], 0),
        ("family-7", 7, [0; 4], 0, [0; 4], 0),
        ("source", 2, [10, 0, 0, 1], 32, [0; 4], 0),
        ("other-source", 2, [10, 0, 0, 9], 32, [0; 4], 0),
        ("prefix", 2, [10, 0, 0, 9], 24, [10, 9, 9, 9], 8),
        ("splen-129", 2, [0; 4], 129, [0; 4], 0),
        ("dplen-129", 2, [0; 4], 0, [0; 4], 129),
    ] {
        Build::new(format!("dump/filter-{name}"))
            .send(esp(M::ADD, 1))
            .send(Msg::new(M::ADD, S::AH, 1).sa(9, 3, 0).pair(A6, B6).key(Ext::KEY_AUTH, 20))
            .send(bare(M::DUMP, 0).filter(family, saddr, splen, daddr, dplen))
            .done(all);
    }
    let many = (0..40).fold(Build::new("dump/forty"), |build, n| build.send(ah(M::ADD, 0x300 + n)));
    many.send(bare(M::DUMP, 0)).done(all);
}

/// Policies.
fn policies(all: &mut Vec<Scenario>) {
    for policy_type in 0..=5 {
        Build::new(format!("spd/type-{policy_type}"))
            .send(selector(M::X_SPDADD).policy(policy_type, 2, 0, 0, &request(50, 1, 2, 0, None)))
            .done(all);
    }
    for dir in 0..=6 {
        Build::new(format!("spd/direction-{dir}"))
            .send(spd(M::X_SPDADD, dir))
            .send(selector(M::X_SPDDELETE).policy(0, dir, 0, 0, &[]))
            .done(all);
    }
    let ends = Some(("192.0.2.1", "198.51.100.2"));
    let requests: Vec<(&str, Vec<u8>)> = vec![
        ("none", vec![]),
        ("tunnel", request(50, 2, 2, 0, ends)),
        ("tunnel-without-addresses", request(50, 2, 2, 0, None)),
        ("tunnel-v6", request(50, 2, 2, 0, Some((A6, B6)))),
        ("tunnel-mixed", request(50, 2, 2, 0, Some((A6, "198.51.100.2")))),
        ("transport-with-addresses", request(50, 1, 2, 0, ends)),
        ("beet", request(50, 3, 2, 0, ends)),
        ("mode-0", request(50, 0, 2, 0, None)),
        ("mode-4", request(50, 4, 2, 0, None)),
        ("proto-6", request(6, 1, 2, 0, None)),
        ("proto-43", request(43, 1, 2, 0, None)),
        ("proto-60", request(60, 1, 2, 0, None)),
        ("ah", request(51, 1, 2, 0, None)),
        ("ipcomp", request(108, 1, 2, 0, None)),
        ("level-0", request(50, 1, 0, 5, None)),
        ("level-use", request(50, 1, 1, 5, None)),
        ("level-use-tunnel", request(50, 2, 1, 5, ends)),
        ("level-unique", request(50, 1, 3, 5, None)),
        ("level-unique-0", request(50, 1, 3, 0, None)),
        ("level-unique-large", request(50, 1, 3, 0x4000, None)),
        ("level-9", request(50, 1, 9, 5, None)),
        ("two", [request(51, 1, 2, 0, None), request(50, 2, 3, 7, ends)].concat()),
        ("six", request(50, 1, 2, 0, None).repeat(6)),
        ("seven", request(50, 1, 2, 0, None).repeat(7)),
        ("stray", [request(50, 1, 2, 0, None), vec![0; 8]].concat()),
        ("length-8", {
            let mut r = request(50, 1, 2, 0, None);
            r[..2].copy_from_slice(&8_u16.to_ne_bytes());
            r
        }),
        ("length-beyond", {
            let mut r = request(50, 1, 2, 0, None);
            r[..2].copy_from_slice(&99_u16.to_ne_bytes());
            r
        }),
    ];
    for (name, bytes) in &requests {
        for (direction, dir) in [("out", 2), ("in", 1)] {
            Build::new(format!("spd/request-{name}-{direction}"))
                .send(selector(M::X_SPDADD).policy(2, dir, 0, 0, bytes))
                .done(all);
        }
    }
    Build::new("spd/requests-of-none-are-not-read").send(selector(M::X_SPDADD).policy(1, 2, 0, 0, &[1; 16])).done(all);
    Build::new("spd/twice").send(spd(M::X_SPDADD, 2)).send(spd(M::X_SPDADD, 2)).done(all);
    Build::new("spd/same-selector-other-direction").send(spd(M::X_SPDADD, 2)).send(spd(M::X_SPDADD, 1)).done(all);
    Build::new("spd/host-bits-differ")
        .send(spd(M::X_SPDADD, 2))
        .send(
            Msg::new(M::X_SPDADD, S::UNSPEC, 1)
                .address(Ext::ADDRESS_SRC, "10.0.0.1", 0, 255, 24)
                .address(Ext::ADDRESS_DST, "10.1.0.0", 0, 255, 24)
                .policy(1, 2, 0, 0, &[]),
        )
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
    Build::new("spd/ids")
        .send(spd(M::X_SPDADD, 2))
        .send(spd(M::X_SPDADD, 1))
        .send(spd(M::X_SPDADD, 3))
        .send(selector(M::X_SPDDELETE).policy(0, 2, 0, 0, &[]))
        .send(spd(M::X_SPDADD, 2))
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
    Build::new("spd/update-keeps-the-id")
        .send(spd(M::X_SPDADD, 2))
        .send(spd(M::X_SPDADD, 1))
        .send(selector(M::X_SPDUPDATE).policy(0, 2, 99, 5, &[]))
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
    for id in [0, 1, 3, 7, 8, 9, 100] {
        Build::new(format!("spd/get-{id}"))
            .send(spd(M::X_SPDADD, 2))
            .send(spd(M::X_SPDADD, 1))
            .send(bare(M::X_SPDGET, 0).policy(0, 0, id, 0, &[]))
            .done(all);
        Build::new(format!("spd/delete2-{id}"))
            .send(spd(M::X_SPDADD, 2))
            .send(spd(M::X_SPDADD, 1))
            .send(bare(M::X_SPDDELETE2, 0).policy(0, 0, id, 0, &[]))
            .done(all);
    }
    for (src_proto, dst_proto, sport, dport) in
        [(6, 6, 1000, 80), (17, 6, 0, 53), (0, 0, 0, 0), (255, 1, 8, 0), (47, 47, 1, 2)]
    {
        Build::new(format!("spd/protocols-{src_proto}-{dst_proto}-{sport}-{dport}"))
            .send(
                Msg::new(M::X_SPDADD, S::UNSPEC, 1)
                    .address(Ext::ADDRESS_SRC, "10.0.0.0", sport, src_proto, 24)
                    .address(Ext::ADDRESS_DST, "10.1.0.0", dport, dst_proto, 24)
                    .policy(1, 2, 0, 7, &[]),
            )
            .done(all);
    }
    Build::new("spd/v6")
        .send(
            Msg::new(M::X_SPDADD, S::UNSPEC, 1)
                .address(Ext::ADDRESS_SRC, "2001:db8::", 0, 255, 32)
                .address(Ext::ADDRESS_DST, "2001:db8:1::", 0, 58, 48)
                .policy(2, 1, 0, 7, &request(50, 2, 3, 9, Some((A6, B6)))),
        )
        .done(all);
    Build::new("spd/flush-twice")
        .send(spd(M::X_SPDADD, 2))
        .send(bare(M::X_SPDFLUSH, 0))
        .send(bare(M::X_SPDFLUSH, 3))
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
    Build::new("spd/delete-absent").send(selector(M::X_SPDDELETE).policy(0, 2, 0, 0, &[])).done(all);
    Build::new("spd/limits")
        .send(spd(M::X_SPDADD, 2).lifetime(Ext::LIFETIME_HARD, 1, 2, 300, 400).lifetime(
            Ext::LIFETIME_SOFT,
            3,
            4,
            30,
            40,
        ))
        .done(all);
}

/// Who hears what.
fn audiences(all: &mut Vec<Scenario>) {
    for satype in [0, 1, 2, 3, 4, 5, 8, 9, 10, 255] {
        Build::new(format!("register/{satype}")).send(bare(M::REGISTER, satype)).done(all);
    }
    Build::new("register/twice").send(bare(M::REGISTER, 3)).send(bare(M::REGISTER, 3)).done(all);
    Build::new("register/others-hear-it")
        .by("b", bare(M::REGISTER, 2))
        .send(bare(M::REGISTER, 3))
        .close("b")
        .send(bare(M::REGISTER, 2))
        .done(all);
    Build::new("promisc/everything")
        .open("p")
        .by("p", bare(M::X_PROMISC, 1))
        .send(ah(M::ADD, 0x300))
        .send(named(M::GET, S::AH, 0x300))
        .send(bare(M::DUMP, 0))
        .send(bare(M::DUMP, 9))
        .send(bare(M::REGISTER, 3))
        .by("p", bare(M::X_PROMISC, 0))
        .send(bare(M::FLUSH, 0))
        .done(all);
    Build::new("promisc/the-asker-itself")
        .send(bare(M::X_PROMISC, 1))
        .send(ah(M::ADD, 0x300))
        .send(bare(M::X_PROMISC, 2))
        .send(ah(M::ADD, 0x300))
        .done(all);
    Build::new("promisc/broken-request-is-copied")
        .by("b", bare(M::X_PROMISC, 1))
        .send(ah(M::ADD, 0x300).broken(0, |e| e[0] = 0))
        .done(all);
    Build::new("audience/three")
        .open("c")
        .by("b", bare(M::REGISTER, 3))
        .send(ah(M::ADD, 0x300))
        .by("c", named(M::GET, S::AH, 0x300))
        .by("b", named(M::DELETE, S::AH, 0x300))
        .by("c", spd(M::X_SPDADD, 2))
        .by("c", bare(M::X_SPDGET, 0).policy(0, 0, 1, 0, &[]))
        .send(bare(M::X_SPDFLUSH, 0))
        .done(all);
}

/// Expiry: real seconds on a kernel, so few.
fn expiry(all: &mut Vec<Scenario>) {
    Build::new("expire/soft-then-hard")
        .by("b", bare(M::REGISTER, 2))
        .send(esp(M::ADD, 0x300).lifetimes(4, 2))
        .wait(2)
        .send(named(M::GET, S::ESP, 0x300))
        .wait(2)
        .send(named(M::GET, S::ESP, 0x300))
        .done(all);
    Build::new("expire/hard-below-soft")
        .by("b", bare(M::REGISTER, 3))
        .send(esp(M::ADD, 0x300).lifetimes(2, 5).nat_t(2, 1, 2))
        .wait(2)
        .send(bare(M::DUMP, 0))
        .done(all);
    Build::new("expire/update-revives")
        .by("b", bare(M::REGISTER, 3))
        .send(esp(M::ADD, 0x300).lifetimes(100, 2))
        .wait(2)
        .send(named(M::GET, S::ESP, 0x300))
        .send(esp(M::UPDATE, 0x300).lifetimes(200, 150))
        .send(named(M::GET, S::ESP, 0x300))
        .done(all);
    // Linux reckons in signed seconds: what is beyond 2^63 is over.
    let ages = 1_u64 << 62;
    for (name, hard, soft) in [
        ("hard-add", (u64::MAX, 0), (100, 0)),
        ("hard-use", (0, 3 * ages), (0, 0)),
        ("soft-add", (100, 0), (3 * ages, 0)),
        ("soft-use", (0, 100), (0, u64::MAX)),
        ("not-yet", (2 * ages - 1, 2 * ages - 1), (2 * ages - 1, 2 * ages - 1)),
    ] {
        Build::new(format!("expire/ages-{name}"))
            .by("b", bare(M::REGISTER, 3))
            .send(esp(M::ADD, 0x300).lifetime(Ext::LIFETIME_HARD, 0, 0, hard.0, hard.1).lifetime(
                Ext::LIFETIME_SOFT,
                0,
                0,
                soft.0,
                soft.1,
            ))
            .send(named(M::GET, S::ESP, 0x300))
            .wait(2)
            .send(named(M::GET, S::ESP, 0x300))
            .done(all);
    }
    Build::new("expire/ages-of-policies")
        .send(spd(M::X_SPDADD, 1).lifetime(Ext::LIFETIME_HARD, 0, 0, u64::MAX, 0))
        .send(spd(M::X_SPDADD, 2).lifetime(Ext::LIFETIME_HARD, 0, 0, 0, 3 * ages))
        .send(spd(M::X_SPDADD, 3).lifetime(Ext::LIFETIME_HARD, 0, 0, 2 * ages - 1, 2 * ages - 1))
        .send(bare(M::X_SPDDUMP, 0))
        .wait(2)
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
    Build::new("expire/policy-in-silence")
        .by("b", bare(M::REGISTER, 3))
        .send(spd(M::X_SPDADD, 2).lifetime(Ext::LIFETIME_HARD, 0, 0, 2, 0))
        .wait(3)
        .send(bare(M::X_SPDDUMP, 0))
        .done(all);
}

/// Every scenario; names are unique.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    matrix(&mut all);
    adding(&mut all);
    lives(&mut all);
    policies(&mut all);
    audiences(&mut all);
    expiry(&mut all);
    crate::backpressure::all(&mut all);
    crate::migrate::all(&mut all);
    crate::traffic::all(&mut all);
    let mut names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "two scenarios of one name"));
    all
}
