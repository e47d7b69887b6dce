//! The cases.

use pfkey_rs::wire::layout::SadbXPolicy;
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};
use zerocopy::IntoBytes as _;

use crate::build::{Msg, request};
use crate::world::{Case, DEVICE, Datagram, Setting, Step};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8::2";
const GATE: (&str, &str) = ("192.0.2.1", "198.51.100.2");
/// Kernels count their own ACQUIREs from 1.
const SEQ: u32 = 5000;

/// `sadb_x_policy_type`.
const DISCARD: u16 = 0;
const NONE: u16 = 1;
const IPSEC: u16 = 2;
/// `sadb_x_ipsecrequest_level`.
const USE: u8 = 1;
const REQUIRE: u8 = 2;
const UNIQUE: u8 = 3;
/// `sadb_x_ipsecrequest_mode`.
const TRANSPORT: u8 = 1;
const TUNNEL: u8 = 2;
const ESP: u16 = 50;
const AH: u16 = 51;
const IPCOMP: u16 = 108;

/// Algorithms by number, and the length of their key.
const MD5: (u8, usize) = (2, 16);
const SHA1: (u8, usize) = (3, 20);
const SHA256: (u8, usize) = (5, 32);
const SHA512: (u8, usize) = (7, 64);
const NO: (u8, usize) = (0, 0);
const DES: (u8, usize) = (2, 8);
const DES3: (u8, usize) = (3, 24);
const NULL: (u8, usize) = (11, 0);
const AES: (u8, usize) = (12, 16);
const AESCTR: (u8, usize) = (13, 20);

struct Cases(Vec<Case>);

struct Steps<'c> {
    all: &'c mut Cases,
    name: &'static str,
    steps: Vec<Step>,
}

impl Cases {
    fn case(&mut self, name: &'static str) -> Steps<'_> {
        Steps { all: self, name, steps: Vec::new() }
    }
}

fn datagram(len: usize) -> Datagram {
    Datagram { src: (A, 1000), dst: (B, 2000), len, mark: 0 }
}

fn v6(len: usize) -> Datagram {
    Datagram { src: (A6, 1000), dst: (B6, 2000), len, mark: 0 }
}

impl Steps<'_> {
    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn send(self, message: Msg) -> Self {
        self.step(Step::Send(message))
    }

    fn udp(self, len: usize) -> Self {
        self.step(Step::Udp(datagram(len), None))
    }

    fn datagram(self, datagram: Datagram) -> Self {
        self.step(Step::Udp(datagram, None))
    }

    fn marked(self, mark: u32) -> Self {
        self.datagram(Datagram { mark, ..datagram(100) })
    }

    fn with_policy(self, policy: Vec<u8>) -> Self {
        self.step(Step::Udp(datagram(100), Some(policy)))
    }

    fn mtu(self) -> Self {
        self.step(Step::PathMtu(datagram(0)))
    }

    fn register(self) -> Self {
        self.step(Step::Register)
    }

    fn set(self, setting: Setting) -> Self {
        self.step(Step::Set(setting))
    }

    fn done(self) {
        self.all.0.push(Case { name: self.name, steps: self.steps });
    }
}

fn policy_between(net: &str, plen: u8, policy_type: u16, priority: u32, requests: &[u8]) -> Msg {
    Msg::new(M::X_SPDADD, S::UNSPEC, SEQ)
        .address(Ext::ADDRESS_SRC, net, 0, 255, plen)
        .address(Ext::ADDRESS_DST, net, 0, 255, plen)
        .policy(policy_type, 2, 0, priority, requests)
}

/// A policy for everybody of 10.0.0.0/24.
fn policy(policy_type: u16, requests: &[u8]) -> Msg {
    policy_between("10.0.0.0", 24, policy_type, 100, requests)
}

fn ipsec(requests: &[u8]) -> Msg {
    policy(IPSEC, requests)
}

fn esp_wanted() -> Vec<u8> {
    request(ESP, TRANSPORT, REQUIRE, 0, None)
}

pub fn sa(proto: S, spi: u32, ends: (&str, &str), auth: (u8, usize), encrypt: (u8, usize)) -> Msg {
    let mut message = Msg::new(M::ADD, proto, SEQ).sa(spi, auth.0, encrypt.0).pair(ends.0, ends.1);
    if auth.1 > 0 {
        message = message.key(Ext::KEY_AUTH, auth.1);
    }
    // NULL has a key as well, of no bits.
    if encrypt.0 != 0 {
        message = message.key(Ext::KEY_ENCRYPT, encrypt.1);
    }
    message
}

fn esp(spi: u32) -> Msg {
    sa(S::ESP, spi, (A, B), SHA1, AES)
}

/// With a hard and a soft limit in bytes, 0 = none.
fn limited(spi: u32, hard: u64, soft: u64) -> Msg {
    esp(spi).lifetime(Ext::LIFETIME_HARD, 0, hard, 0, 0).lifetime(Ext::LIFETIME_SOFT, 0, soft, 0, 0)
}

fn ah(spi: u32) -> Msg {
    sa(S::AH, spi, (A, B), SHA1, NO)
}

fn delete(spi: u32) -> Msg {
    Msg::new(M::DELETE, S::ESP, SEQ).sa(spi, 0, 0).pair(A, B)
}

/// What `setsockopt` takes.
pub fn own_policy(policy_type: u16, requests: &[u8]) -> Vec<u8> {
    let fixed = SadbXPolicy {
        len: ((16 + requests.len()) as u16 / 8).into(),
        exttype: (Ext::X_POLICY.0).into(),
        policy_type: policy_type.into(),
        dir: 2,
        ..Default::default()
    };
    [fixed.as_bytes(), requests].concat()
}

/// The rows of the decision table.
fn decisions(all: &mut Cases) {
    all.case("no policy").udp(100).mtu().done();
    all.case("discard").send(policy(DISCARD, &[])).udp(100).udp(100).done();
    all.case("none").send(policy(NONE, &[])).udp(100).done();
    all.case("no SA and nobody to ask").send(ipsec(&esp_wanted())).udp(100).udp(100).done();
    all.case("no SA and a key manager")
        .register()
        .send(ipsec(&esp_wanted()))
        .udp(100)
        .udp(100)
        .datagram(Datagram { src: (A, 1001), ..datagram(100) })
        .send(esp(0x1000))
        .udp(100)
        .done();
    all.case("packets wait and are released in order")
        .set(Setting::LarvalDrop(false))
        .register()
        .send(ipsec(&esp_wanted()))
        .udp(100)
        .udp(300)
        .datagram(Datagram { src: (A, 1001), ..datagram(500) })
        .send(esp(0x1000))
        .step(Step::Released(3))
        .udp(100)
        .done();
    let mut many = all.case("so many packets wait").set(Setting::LarvalDrop(false)).send(ipsec(&esp_wanted()));
    for _ in 0..104 {
        many = many.udp(100);
    }
    many.send(esp(0x1000)).step(Step::Released(101)).done();
    all.case("a socket's policy without an SA")
        .register()
        .with_policy(own_policy(IPSEC, &esp_wanted()))
        .with_policy(own_policy(IPSEC, &esp_wanted()))
        .done();
    all.case("a socket's policy without an SA, where packets wait")
        .set(Setting::LarvalDrop(false))
        .register()
        .with_policy(own_policy(IPSEC, &esp_wanted()))
        .done();
    all.case("a socket's policy with an SA")
        .send(esp(0x1000))
        .with_policy(own_policy(IPSEC, &esp_wanted()))
        .udp(100)
        .done();
    all.case("a socket's policy discards").with_policy(own_policy(DISCARD, &[])).udp(100).done();
    all.case("a socket's policy of none over a discarding one")
        .send(policy(DISCARD, &[]))
        .with_policy(own_policy(NONE, &[]))
        .udp(100)
        .done();
    all.case("a socket's policy may go without an SA")
        .register()
        .send(policy(DISCARD, &[]))
        .with_policy(own_policy(IPSEC, &request(ESP, TRANSPORT, USE, 0, None)))
        .done();
    all.case("use, without an SA and with one")
        .register()
        .send(ipsec(&request(ESP, TRANSPORT, USE, 0, None)))
        .udp(100)
        .udp(100)
        .send(esp(0x1000))
        .udp(100)
        .send(delete(0x1000))
        .udp(100)
        .done();
    all.case("an SA").send(ipsec(&esp_wanted())).send(esp(0x1000)).udp(100).udp(101).udp(0).mtu().done();
    all.case("an SA goes and another comes")
        .send(ipsec(&esp_wanted()))
        .send(esp(0x1000))
        .udp(100)
        .send(delete(0x1000))
        .udp(100)
        .send(sa(S::ESP, 0x2000, (A, B), SHA1, NULL))
        .udp(100)
        .done();
    all.case("over a hard limit")
        .register()
        .send(ipsec(&esp_wanted()))
        .send(limited(0x1000, 300, 0))
        .udp(100)
        .udp(100)
        .udp(100)
        .udp(100)
        .udp(100)
        .done();
    all.case("over a soft limit, with an older SA beside it")
        .send(ipsec(&esp_wanted()))
        .send(sa(S::ESP, 0x1000, (A, B), SHA1, NULL))
        .send(limited(0x2000, 0, 300))
        .udp(100)
        .udp(100)
        .udp(100)
        .udp(100)
        .udp(100)
        .done();
    all.case("refused unless a policy takes it")
        .set(Setting::DefaultBlock)
        .udp(100)
        .datagram(Datagram { dst: (A, 2000), ..datagram(100) })
        .send(policy(NONE, &[]))
        .udp(100)
        .done();
    all.case("a device without policies").send(policy(DISCARD, &[])).set(Setting::Untransformed).udp(100).done();
}

/// Which policy, which SAs.
fn choices(all: &mut Cases) {
    let to_b = |policy_type, priority| {
        Msg::new(M::X_SPDADD, S::UNSPEC, SEQ)
            .address(Ext::ADDRESS_SRC, A, 0, 17, 32)
            .address(Ext::ADDRESS_DST, B, 2000, 17, 32)
            .policy(policy_type, 2, 0, priority, &[])
    };
    all.case("the smaller priority")
        .send(policy(DISCARD, &[]))
        .send(to_b(NONE, 101))
        .udp(100)
        .send(to_b(NONE, 99).update())
        .udp(100)
        .datagram(Datagram { dst: (B, 2001), ..datagram(100) })
        .done();
    all.case("of equal priority the older").send(to_b(NONE, 100)).send(policy(DISCARD, &[])).udp(100).done();
    all.case("a policy goes")
        .send(policy(DISCARD, &[]))
        .udp(100)
        .send(Msg::new(M::X_SPDFLUSH, S::UNSPEC, SEQ))
        .udp(100)
        .done();
    let chain: Vec<u8> = (1..=5).flat_map(|reqid| request(ESP, TRANSPORT, UNIQUE, reqid, None)).collect();
    let mut five = all.case("five SAs").send(ipsec(&chain));
    for reqid in 1..=5 {
        five = five.send(sa(S::ESP, 0x1000 + reqid, (A, B), MD5, NULL).sa2(TRANSPORT, reqid));
    }
    five.udp(100).mtu().done();
    all.case("six SAs").register().send(ipsec(&request(ESP, TRANSPORT, REQUIRE, 0, None).repeat(6))).udp(100).done();
    all.case("one of two SAs is missing")
        .register()
        .send(ipsec(&[request(AH, TRANSPORT, REQUIRE, 0, None), esp_wanted()].concat()))
        .send(ah(0x1000))
        .udp(100)
        .send(esp(0x2000))
        .udp(100)
        .mtu()
        .done();
    all.case("the optional one of two is missing")
        .register()
        .send(ipsec(&[request(IPCOMP, TRANSPORT, USE, 0, None), esp_wanted()].concat()))
        .send(esp(0x1000))
        .udp(100)
        .done();
    all.case("an SA for another port")
        .register()
        .send(ipsec(&esp_wanted()))
        .send(esp(0x1000).address(Ext::ADDRESS_PROXY, A, 9, 17, 32))
        .udp(100)
        .done();
    all.case("an SA with the policy's reqid")
        .send(ipsec(&request(ESP, TRANSPORT, UNIQUE, 7, None)))
        .send(esp(0x1000))
        .udp(100)
        .send(sa(S::ESP, 0x2000, (A, B), SHA1, NULL).sa2(TRANSPORT, 7))
        .udp(100)
        .done();
}

fn sub_policies(all: &mut Cases) {
    let sub = |block, proto| Setting::SubPolicy { v6: false, block, proto };
    all.case("a sub policy that blocks").set(sub(true, None)).send(policy(NONE, &[])).udp(100).done();
    all.case("a sub policy that allows over a main one that blocks")
        .set(sub(false, None))
        .udp(100)
        .send(policy(DISCARD, &[]))
        .udp(100)
        .done();
    all.case("a sub and a main policy that each want an SA")
        .set(sub(false, Some(51)))
        .send(ipsec(&esp_wanted()))
        .send(esp(0x1000))
        .udp(100)
        .send(ah(0x2000))
        .udp(100)
        .mtu()
        .done();
    all.case("a sub and a main policy for IPv6, whose SAs are sorted")
        .set(Setting::SubPolicy { v6: true, block: false, proto: Some(51) })
        .send(policy_between("2001:db8::", 64, IPSEC, 0, &esp_wanted()))
        .send(sa(S::ESP, 0x1000, (A6, B6), SHA1, AES))
        .send(sa(S::AH, 0x2000, (A6, B6), SHA1, NO))
        .datagram(v6(100))
        .done();
    all.case("one and five SAs are too many")
        .set(sub(false, Some(51)))
        .send(ah(0x2000))
        .send(ipsec(&esp_wanted().repeat(5)))
        .send(esp(0x1000))
        .udp(100)
        .done();
}

/// An X_XFRM extension with a mark, of which the bits of the mask count.
fn mark(value: u32, mask: u32) -> Vec<u8> {
    const XFRMA_MARK: u16 = 21;
    let halves = |halves: &[u16]| halves.iter().flat_map(|half| half.to_ne_bytes()).collect::<Vec<u8>>();
    let extension = halves(&[3, Ext::X_XFRM.0, 0, 0, 12, XFRMA_MARK]);
    [&extension[..], &value.to_ne_bytes(), &mask.to_ne_bytes(), &[0; 4]].concat()
}

/// Marks of packets, policies and SAs.
fn marks(all: &mut Cases) {
    all.case("a marked policy that blocks")
        .send(policy(DISCARD, &[]).native(mark(1, 0xff)))
        .udp(100)
        .marked(1)
        .marked(0x101)
        .marked(2)
        .done();
    all.case("the stronger of a marked policy and one without")
        .send(policy(DISCARD, &[]))
        .send(policy_between("10.0.0.0", 24, NONE, 50, &[]).native(mark(1, u32::MAX)))
        .udp(100)
        .marked(1)
        .marked(2)
        .done();
    all.case("two policies that differ by their marks")
        .send(policy(DISCARD, &[]).native(mark(1, u32::MAX)))
        .send(policy(NONE, &[]).native(mark(2, u32::MAX)))
        .marked(1)
        .marked(2)
        .done();
    all.case("a marked policy takes no SA of another mark")
        .send(ipsec(&esp_wanted()).native(mark(1, 0xff)))
        .send(esp(0x1002).native(mark(2, 0xff)))
        .marked(1)
        .send(sa(S::ESP, 0x1001, (A, B), SHA512, AES).native(mark(1, 0xff)))
        .marked(1)
        .done();
    all.case("a marked policy takes an SA without a mark")
        .send(ipsec(&esp_wanted()).native(mark(1, 0xff)))
        .send(esp(0x1000))
        .marked(1)
        .udp(100)
        .done();
    all.case("a policy without a mark takes no marked SA")
        .send(ipsec(&esp_wanted()))
        .send(esp(0x1001).native(mark(1, 0xff)))
        .udp(100)
        .marked(1)
        .send(esp(0x1000))
        .marked(1)
        .done();
    all.case("a key manager is asked for each mark")
        .register()
        .send(ipsec(&esp_wanted()).native(mark(1, u32::MAX)))
        .send(ipsec(&esp_wanted()).native(mark(2, u32::MAX)))
        .marked(1)
        .marked(2)
        .marked(1)
        .done();
}

/// An X_XFRM extension with the number of a network interface.
fn device(number: u32) -> Vec<u8> {
    const PFKEY_XFRMA_DEV: u16 = 0x3000;
    let halves: Vec<u8> =
        [2, Ext::X_XFRM.0, 0, 0, 8, PFKEY_XFRMA_DEV].iter().flat_map(|half| half.to_ne_bytes()).collect();
    [&halves[..], &number.to_ne_bytes()].concat()
}

/// Policies for one network interface.
fn devices(all: &mut Cases) {
    all.case("a policy for another network interface").send(policy(DISCARD, &[]).native(device(1))).udp(100).done();
    all.case("a policy for the packet's network interface")
        .send(policy(DISCARD, &[]).native(device(DEVICE)))
        .udp(100)
        .done();
    all.case("the stronger of a policy for the packet's network interface and one for all")
        .send(policy(DISCARD, &[]))
        .send(policy_between("10.0.0.0", 24, NONE, 50, &[]).native(device(DEVICE)))
        .udp(100)
        .done();
}

/// Lengths and path MTUs.
fn lengths(all: &mut Cases) {
    let one = |all: &mut Cases, name, wanted: &[u8], sa: Msg| {
        all.case(name).send(ipsec(wanted)).send(sa).udp(100).udp(107).mtu().done();
    };
    let transport = esp_wanted();
    for (name, auth, encrypt) in [
        ("ESP 3DES SHA1", SHA1, DES3),
        ("ESP 3DES MD5", MD5, DES3),
        ("ESP AES SHA1", SHA1, AES),
        ("ESP AES SHA256", SHA256, AES),
        ("ESP AES SHA512", SHA512, AES),
        ("ESP AES-CTR SHA1", SHA1, AESCTR),
        ("ESP NULL SHA1", SHA1, NULL),
        ("ESP DES", NO, DES),
    ] {
        one(all, name, &transport, sa(S::ESP, 0x1000, (A, B), auth, encrypt));
    }
    one(all, "ESP in UDP", &transport, sa(S::ESP, 0x1000, (A, B), SHA1, DES3).nat_t(2, 4500, 4500));
    one(all, "AH SHA1", &request(AH, TRANSPORT, REQUIRE, 0, None), ah(0x1000));
    one(all, "AH SHA256", &request(AH, TRANSPORT, REQUIRE, 0, None), sa(S::AH, 0x1000, (A, B), SHA256, NO));
    one(all, "AH SHA512", &request(AH, TRANSPORT, REQUIRE, 0, None), sa(S::AH, 0x1000, (A, B), SHA512, NO));
    let tunnel = request(ESP, TUNNEL, REQUIRE, 0, Some(GATE));
    one(all, "ESP tunnel", &tunnel, sa(S::ESP, 0x1000, GATE, SHA1, DES3).sa2(TUNNEL, 0));
    let ah_tunnel = request(AH, TUNNEL, REQUIRE, 0, Some(GATE));
    one(all, "AH tunnel", &ah_tunnel, sa(S::AH, 0x1000, GATE, SHA1, NO).sa2(TUNNEL, 0));
    all.case("ESP, then AH")
        .send(ipsec(&[esp_wanted(), request(AH, TRANSPORT, REQUIRE, 0, None)].concat()))
        .send(sa(S::ESP, 0x1000, (A, B), SHA1, DES3))
        .send(ah(0x2000))
        .udp(100)
        .mtu()
        .done();
    all.case("ESP tunnel, then AH between the gateways")
        .send(ipsec(&[tunnel.clone(), request(AH, TRANSPORT, REQUIRE, 0, None)].concat()))
        .send(sa(S::ESP, 0x1000, GATE, SHA1, AES).sa2(TUNNEL, 0))
        .send(sa(S::AH, 0x2000, GATE, SHA1, NO))
        .udp(100)
        .mtu()
        .done();
    all.case("ESP in IPv6")
        .send(policy_between("2001:db8::", 64, IPSEC, 0, &esp_wanted()))
        .send(sa(S::ESP, 0x1000, (A6, B6), SHA1, AES))
        .datagram(v6(100))
        .step(Step::PathMtu(v6(0)))
        .done();
    let six = ("2001:db8::1", "2001:db8:1::9");
    for (name, proxy) in [
        ("IPv4 in an IPv6 tunnel, by an SA that does not say so", None),
        ("IPv4 in an IPv6 tunnel", Some(("0.0.0.0", 0))),
    ] {
        let mut sa = sa(S::ESP, 0x1000, six, SHA1, AES).sa2(TUNNEL, 0);
        if let Some((any, plen)) = proxy {
            sa = sa.address(Ext::ADDRESS_PROXY, any, 0, 0, plen);
        }
        all.case(name).send(ipsec(&request(ESP, TUNNEL, REQUIRE, 0, Some(six)))).send(sa).udp(100).done();
    }
    for (name, proxy) in
        [("IPv6 in an IPv4 tunnel, by an SA that does not say so", None), ("IPv6 in an IPv4 tunnel", Some(("::", 0)))]
    {
        let mut sa = sa(S::ESP, 0x1000, GATE, SHA1, AES).sa2(TUNNEL, 0);
        if let Some((any, plen)) = proxy {
            sa = sa.address(Ext::ADDRESS_PROXY, any, 0, 0, plen);
        }
        all.case(name).send(policy_between("2001:db8::", 64, IPSEC, 0, &tunnel)).send(sa).datagram(v6(100)).done();
    }
    all.case("path MTUs of tunnels between families")
        .send(ipsec(&request(ESP, TUNNEL, REQUIRE, 0, Some(six))))
        .send(sa(S::ESP, 0x1000, six, SHA1, AES).sa2(TUNNEL, 0).address(Ext::ADDRESS_PROXY, "0.0.0.0", 0, 0, 0))
        .mtu()
        .send(policy_between("2001:db8::", 64, IPSEC, 0, &tunnel))
        .send(sa(S::ESP, 0x2000, GATE, SHA1, AES).sa2(TUNNEL, 0).address(Ext::ADDRESS_PROXY, "::", 0, 0, 0))
        .step(Step::PathMtu(v6(0)))
        .done();
    all.case("a device with a small MTU")
        .send(ipsec(&tunnel))
        .send(sa(S::ESP, 0x1000, GATE, SHA1, AES).sa2(TUNNEL, 0))
        .mtu()
        .set(Setting::Mtu(1400))
        .mtu()
        .udp(100)
        .done();
}

/// Tunnels and their routes.
fn routes(all: &mut Cases) {
    let anywhere = ("0.0.0.0", GATE.1);
    let from = ("10.0.0.1", GATE.1);
    all.case("a tunnel begins where its route does")
        .register()
        .send(ipsec(&request(ESP, TUNNEL, REQUIRE, 0, Some(anywhere))))
        .udp(100)
        .send(sa(S::ESP, 0x1000, from, SHA1, AES).sa2(TUNNEL, 0))
        .udp(100)
        .done();
    all.case("no route for a tunnel without a source")
        .set(Setting::NoDefaultRoute)
        .send(ipsec(&request(ESP, TUNNEL, REQUIRE, 0, Some(anywhere))))
        .udp(100)
        .done();
    all.case("no route for a tunnel with its SA")
        .set(Setting::NoDefaultRoute)
        .send(ipsec(&request(ESP, TUNNEL, REQUIRE, 0, Some(GATE))))
        .send(sa(S::ESP, 0x1000, GATE, SHA1, AES).sa2(TUNNEL, 0))
        .udp(100)
        .done();
    all.case("no route at all")
        .set(Setting::NoDefaultRoute)
        .datagram(Datagram { dst: ("203.0.113.1", 2000), ..datagram(100) })
        .done();
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut all = Cases(Vec::new());
    decisions(&mut all);
    choices(&mut all);
    sub_policies(&mut all);
    devices(&mut all);
    lengths(&mut all);
    routes(&mut all);
    marks(&mut all);
    all.0
}
