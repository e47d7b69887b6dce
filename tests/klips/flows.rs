//! X_ADDFLOW, X_DELFLOW, and what packets meet.

use pfkey_rs::hub::Errno;
use pfkey_rs::klips::number::*;
use pfkey_rs::klips::{Flow, Outcome, PacketId, Released, Said};
use pfkey_rs::wire::{ExtensionType as Ext, MessageType as M, SaType as S};

use crate::world::*;

const SRC: &str = "10.0.0.0/8";
const DST: &str = "11.0.0.0/8";

fn with_flags(mut message: Msg, spi: u32, flags: u32) -> Msg {
    for (ext, body) in &mut message.extensions {
        if *ext == Ext::SA.0 {
            *body = Sa::flagged(spi, flags).body();
        }
    }
    message
}

fn replace(message: Msg, spi: u32) -> Msg {
    with_flags(message, spi, 2)
}

#[test]
fn addflow_tells_everybody() {
    let mut w = World::new(2);
    let add = eroute(S::ESP, SPI, SRC, DST)
        .address(Ext::ADDRESS_SRC, A)
        .protocol(6)
        .ext(Ext::IDENTITY_SRC, &identity(2, 0, "a.example"));
    assert_eq!(w.send(0, &add), Ok(()));
    let heard = w.heard(1);
    assert_eq!(w.heard(0), heard);
    assert_eq!(types(&heard[0]), [1, 5, 6, 21, 22, 23, 24], "neither identities nor the protocol");
    assert_eq!(body(&heard[0], X_EXT_ADDRESS_DST_FLOW), address("11.0.0.0", 0));
    assert_eq!(body(&heard[0], X_EXT_ADDRESS_DST_MASK), address("255.0.0.0", 0));
    assert_eq!(w.fails(&add), Errno::EEXIST);
    assert_eq!(w.engine().eroutes().len(), 1);
}

/// The SA need not be there yet.
#[test]
fn addflow_of_a_missing_sa_drops_packets() {
    let mut w = World::new(1);
    w.ask(&eroute(S::ESP, SPI, SRC, DST));
    assert_eq!(w.udp(1, "10.1.1.1", "11.1.1.1", 9), Outcome::Drop);
    w.ask(&esp(SPI));
    assert!(matches!(w.udp(1, "10.1.1.1", "11.1.1.1", 9), Outcome::Apply(_)));
}

#[test]
fn addflow_with_inflow_sets_what_a_tunnel_lets_in() {
    let mut w = World::new(2);
    let inflow = |w: &mut World, satype, spi| w.send(0, &with_flags(eroute(satype, spi, SRC, DST), spi, 8));
    assert_eq!(inflow(&mut w, S::ESP, SPI), Err(Errno::ENOENT), "no such SA");
    w.ask_clear(&esp(SPI));
    assert_eq!(inflow(&mut w, S::ESP, SPI), Err(Errno::ENOENT), "no tunnel in the group");
    w.ask_clear(&tunnel(SPI));
    w.ask_clear(&group(X_SATYPE_IPIP, SPI, S::ESP, SPI));
    assert_eq!(inflow(&mut w, S::ESP, SPI), Ok(()));
    let said = Said { dst: B.parse().unwrap(), spi: SPI, proto: 4 };
    let lets_in =
        |w: &mut World, src: &str, dst: &str| w.engine().lets_in(&said, src.parse().unwrap(), dst.parse().unwrap());
    assert!(lets_in(&mut w, "10.255.0.1", "11.0.0.1"));
    assert!(!lets_in(&mut w, "12.0.0.1", "11.0.0.1") && !lets_in(&mut w, "10.0.0.1", "12.0.0.1"));
    let tunnel = w.engine().sadb().get(&said).unwrap();
    let flow = tunnel.flow.unwrap();
    assert_eq!((flow.src, flow.dst_mask), ([10, 0, 0, 0].into(), [255, 0, 0, 0].into()));
    assert_eq!(tunnel.flags & 8, 8);
    assert!(w.engine().eroutes().is_empty(), "it is no eroute");
}

#[test]
fn addflow_with_replaceflow_takes_the_place_of_the_same_flow() {
    let mut w = World::new(1);
    let pass = |src| replace(shunt(spi::PASS, src, DST), spi::PASS);
    assert_eq!(w.fails(&pass(SRC)), Errno::ENOENT);
    w.ask(&shunt(spi::DROP, SRC, DST));
    assert_eq!(w.fails(&pass("10.0.0.0/9")), Errno::ENOENT, "another mask is another flow");
    w.ask(&pass(SRC));
    assert_eq!(w.udp(1, "10.1.1.1", "11.1.1.1", 9), Outcome::Clear);
}

#[test]
fn delflow_removes_the_very_flow() {
    let mut w = World::new(2);
    w.ask(&shunt(spi::PASS, SRC, DST));
    for other in [("10.0.0.0/9", DST), ("12.0.0.0/8", DST), (SRC, "11.0.0.0/7")] {
        assert_eq!(w.fails(&delflow(other.0, other.1)), Errno::ENOENT);
    }
    let answer = w.ask(&delflow("10.9.9.9/8", DST));
    assert_eq!(types(&answer), [1, 21, 22, 23, 24]);
    assert_eq!(w.fails(&delflow(SRC, DST)), Errno::ENOENT);
}

#[test]
fn delflow_with_clearflow_empties_the_table() {
    let mut w = World::new(2);
    w.ask(&shunt(spi::PASS, SRC, DST));
    w.ask(&shunt(spi::PASS, "10.0.0.0/9", DST));
    let answer = w.ask(&Msg::new(X_DELFLOW, S::UNSPEC).sa(Sa::flagged(0, 4)));
    assert_eq!(types(&answer), [1], "there is no flow to show");
    assert!(w.engine().eroutes().is_empty());
    w.ask(&Msg::new(X_DELFLOW, S::UNSPEC).sa(Sa::flagged(0, 4)));
}

#[test]
fn what_packets_meet() {
    let mut w = World::new(1);
    for (magic, dst) in [(spi::PASS, "11.1.0.0/16"), (spi::DROP, "11.2.0.0/16"), (spi::REJECT, "11.3.0.0/16")] {
        w.ask(&shunt(magic, SRC, dst));
    }
    w.ask(&shunt(999, SRC, "11.4.0.0/16"));
    w.ask(&tunnel(SPI));
    w.ask(&esp(SPI));
    w.ask(&group(X_SATYPE_IPIP, SPI, S::ESP, SPI));
    w.ask(&eroute(X_SATYPE_IPIP, SPI, SRC, "11.5.0.0/16"));
    w.ask(&Msg::new(M::GETSPI, S::ESP).ends().range(0x300, 0x300));
    w.ask(&eroute(S::ESP, 0x300, SRC, "11.6.0.0/16"));
    let said = |proto| Said { dst: B.parse().unwrap(), spi: SPI, proto };
    let expected = [
        ("11.1.1.1", Outcome::Clear),
        ("11.2.1.1", Outcome::Drop),
        ("11.3.1.1", Outcome::Reject),
        ("11.4.1.1", Outcome::Drop),
        ("11.5.1.1", Outcome::Apply(vec![said(4), said(50)])),
        ("11.6.1.1", Outcome::Drop),
        ("12.0.0.1", Outcome::Drop),
    ];
    for (dst, outcome) in expected {
        assert_eq!(w.udp(1, "10.1.1.1", dst, 9), outcome, "{dst}");
    }
    w.engine().set_default_shunt(spi::PASS);
    assert_eq!(w.udp(1, "10.1.1.1", "12.0.0.1", 9), Outcome::Clear);
}

/// IKE of this host passes, whatever the eroute, if it goes to the eroute's peer; its ESP and AH pass where there is none.
#[test]
fn this_hosts_own_ike_passes() {
    let mut w = World::new(1);
    let flow = |src: &str, dst: &str, proto, sport| Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        proto,
        sport,
        dport: 500,
    };
    let ike = flow(A, B, 17, 500);
    assert_eq!(w.outbound(ike, 1), Outcome::Drop, "somebody else's");
    w.engine().set_local(vec![A.parse().unwrap()]);
    for port in [500, 4500] {
        assert_eq!(w.outbound(flow(A, B, 17, port), 1), Outcome::Clear);
    }
    assert_eq!(w.outbound(flow(A, B, 17, 501), 1), Outcome::Drop);
    assert_eq!(w.outbound(flow(A, B, 6, 500), 1), Outcome::Drop, "not UDP");
    for (proto, outcome) in [(50, Outcome::Clear), (51, Outcome::Clear), (108, Outcome::Drop)] {
        assert_eq!(w.outbound(flow(A, B, proto, 0), 1), outcome, "{proto}");
    }
    w.ask(&esp(SPI));
    w.ask(&eroute(S::ESP, SPI, "10.0.0.0/8", "0.0.0.0/0"));
    assert_eq!(w.outbound(ike, 1), Outcome::Clear, "to the peer");
    assert!(matches!(w.outbound(flow(A, "10.0.0.3", 17, 500), 1), Outcome::Apply(_)), "to somebody else");
    w.ask(&shunt(spi::DROP, "10.0.0.0/8", "10.0.0.0/8"));
    assert_eq!(w.outbound(ike, 1), Outcome::Clear, "a shunt has no peer");
}

/// A trap asks those registered for ESP, and holds the two addresses.
#[test]
fn a_trap_asks_and_holds() {
    let mut w = World::new(3);
    w.ask(&shunt(spi::TRAP, SRC, DST).ext(Ext::IDENTITY_SRC, &identity(2, 0, "a.example")));
    let send = |w: &mut World, id| w.udp(id, "10.1.1.1", "11.1.1.1", 9);
    assert_eq!(send(&mut w, 1), Outcome::Drop, "nobody to ask");
    w.register(1, S::ESP);
    w.register(2, S::AH);
    assert_eq!(send(&mut w, 2), Outcome::Hold);
    assert!(w.heard(0).is_empty() && w.heard(2).is_empty());
    let heard = w.heard(1);
    let acquire = &heard[0];
    assert_eq!((header(acquire).msg_type, header(acquire).satype, header(acquire).pid), (M::ACQUIRE, S::ESP, 0));
    assert_eq!(types(acquire), [5, 6, 10, 13]);
    assert_eq!(body(acquire, Ext::ADDRESS_SRC), address("10.1.1.1", 0));
    assert_eq!(body(acquire, Ext::ADDRESS_DST), address("11.1.1.1", 0));
    assert_eq!(body(acquire, Ext::PROPOSAL), proposal());
    assert_eq!(w.engine().eroutes().len(), 2);
    // The same two addresses meet the hold, which keeps the first and the last packet.
    assert_eq!((send(&mut w, 3), w.engine().take_released()), (Outcome::Hold, vec![]));
    assert_eq!((send(&mut w, 4), w.engine().take_released()), (Outcome::Hold, vec![Released::Drop(PacketId(3))]));
    assert!(w.heard(1).is_empty(), "it was asked once");
    // Another destination asks again.
    assert_eq!(w.udp(5, "10.1.1.1", "11.1.1.2", 9), Outcome::Hold);
    assert_eq!(w.heard(1).len(), 1);
    // The key manager puts an SA in the hold's place: what was held goes on.
    w.ask_clear(&esp(SPI));
    w.ask_clear(&replace(eroute(S::ESP, SPI, "10.1.1.1/32", "11.1.1.1/32"), SPI));
    assert_eq!(w.engine().take_released(), [Released::Resend(PacketId(2)), Released::Resend(PacketId(4))]);
    assert!(matches!(send(&mut w, 2), Outcome::Apply(_)));
    // Without one, what was held is lost.
    w.ask_clear(&delflow("10.1.1.1/32", "11.1.1.2/32"));
    assert_eq!(w.engine().take_released(), [Released::Drop(PacketId(5))]);
}

/// Two combinations of 80 bytes: 3DES 168 with HMAC-MD5 128 and with HMAC-SHA1 160, PFS, 16 and 24 hours, replay 64.
fn proposal() -> Vec<u8> {
    let comb = |auth: u8, bits: u16| {
        let mut comb = [&[auth, 3][..], &u16::to_ne_bytes(1)].concat();
        for bits in [bits, bits, 168, 168] {
            comb.extend(bits.to_ne_bytes());
        }
        comb.extend([0; 4 + 4 + 4 + 8 + 8]);
        for seconds in [57_600_u64, 86_400, 57_600, 86_400] {
            comb.extend(seconds.to_ne_bytes());
        }
        comb.extend([0; 8]);
        comb
    };
    [vec![64, 0, 0, 0], comb(2, 128), comb(3, 160)].concat()
}

/// A trap that looks at protocol and ports makes a hold and an ACQUIRE that do.
#[test]
fn a_trap_with_ports_holds_that_connection() {
    let mut w = World::new(1);
    w.register(0, S::ESP);
    let trap = Msg::new(X_ADDFLOW, X_SATYPE_INT)
        .sa(Sa::spi(spi::TRAP))
        .address(Ext::ADDRESS_DST, "0.0.0.0")
        .flow_of(SRC, 0, DST, 9)
        .protocol(17);
    w.ask(&trap);
    assert_eq!(w.udp(1, "10.1.1.1", "11.1.1.1", 8), Outcome::Drop, "another port");
    assert_eq!(w.udp(1, "10.1.1.1", "11.1.1.1", 9), Outcome::Hold);
    let heard = w.heard(0);
    let mut dst = address("11.1.1.1", 9);
    dst[0] = 17;
    assert_eq!(body(&heard[0], Ext::ADDRESS_DST), dst);
    assert_eq!(body(&heard[0], Ext::ADDRESS_SRC)[6..8], [0, 0], "the trap does not look at the source's port");
    let text = w.engine().eroute_text();
    assert!(text.contains("10.1.1.1/32        -> 11.1.1.1/32:9      => %hold:17"), "{text}");
}

/// The trap of a subnet becomes a hold itself.
#[test]
fn a_trapsubnet_becomes_a_hold() {
    let mut w = World::new(1);
    w.register(0, S::ESP);
    w.ask(&shunt(spi::TRAPSUBNET, SRC, DST));
    assert_eq!(w.udp(1, "10.1.1.1", "11.1.1.1", 9), Outcome::Hold);
    assert_eq!(w.heard(0).len(), 1);
    assert_eq!(w.udp(2, "10.1.1.1", "11.1.1.2", 9), Outcome::Hold, "another destination meets the same hold");
    assert!(w.heard(0).is_empty());
    assert_eq!(w.engine().eroute_text(), "2          10.0.0.0/8         -> 11.0.0.0/8         => %hold\n");
    w.ask(&Msg::new(X_DELFLOW, S::UNSPEC).sa(Sa::flagged(0, 4)));
    assert_eq!(w.engine().take_released(), [Released::Drop(PacketId(1)), Released::Drop(PacketId(2))]);
}

impl World {
    /// As [`World::ask`], for a world with other messages under way.
    fn ask_clear(&mut self, message: &Msg) {
        (0..self.ids.len()).for_each(|socket| drop(self.heard(socket)));
        self.ask(message);
    }
}
