//! A client and a key manager against the embedded engine.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use pfkey::wire::{Header, Profile, Writer};
use pfkey::{
    Acquire, Backend, Batch, Calls, Cipher, Client, Compression, Direction, Ends, Errno, Error, Event, Hmac,
    IpsecProtocol, KeyManager, Limits, MessageType, Migration, Mode, Move, Policy, Prefix, Received, Reply, Request,
    Rule, Sa, SaId, SaType, Selector, SpiRange, State, Xfrm,
};

mod support;
use support::Daemon;

const SRC: [u8; 4] = [192, 0, 2, 1];
const DST: [u8; 4] = [192, 0, 2, 2];

fn client() -> Client {
    Client::open_with(&Backend::Embedded).expect("an embedded engine")
}

fn ends() -> Ends {
    Ends::new(SRC.into(), DST.into()).expect("one family")
}

fn id(spi: u32) -> SaId {
    SaId::new(DST.into(), spi, IpsecProtocol::ESP)
}

fn esp(spi: u32) -> Sa {
    Sa::esp(SRC, DST, spi).encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32])
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn tunnel_policy() -> Policy {
    Policy::new(Direction::OUTBOUND, prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))
        .rule(Rule::esp().tunnel(SRC, DST).unique(7))
}

#[test]
fn what_is_added_is_read_back() {
    let mut keys = client();
    let limits = Limits { bytes: 1 << 40, add_seconds: 3600, ..Limits::NONE };
    let soft = Limits { bytes: 1 << 39, add_seconds: 3000, ..Limits::NONE };
    let sa = esp(0x1000).tunnel().reqid(7).replay_window(32).hard(limits).soft(soft).udp(4500, 4501);
    keys.add(&sa).expect("ADD");
    let info = keys.get(id(0x1000)).expect("GET").expect("it is there");
    assert_eq!((info.ends, info.spi, info.state, info.mode), (ends(), 0x1000, State::Mature, Mode::TUNNEL));
    assert_eq!((info.reqid, info.replay, info.hard, info.soft), (7, 32, limits, soft));
    assert_eq!((&info.encrypt_key.bytes[..], &info.auth_key.bytes[..]), (&[1; 16][..], &[2; 32][..]));
    assert_eq!(info.encap.map(|encap| (encap.sport, encap.dport)), Some((4500, 4501)));
    assert_eq!(info.to_string(), "ESP 192.0.2.1 -> 192.0.2.2 spi 0x1000 TUNNEL Mature aes-cbc hmac-sha256 reqid 7");
    assert!(!format!("{sa:?} {info:?}").contains("1, 1, 1"), "no key is shown");
    assert_eq!(keys.add(&sa).unwrap_err().errno(), Some(Errno::EEXIST));
    assert!(keys.delete(id(0x1000)).expect("DELETE"));
    assert!(!keys.delete(id(0x1000)).expect("DELETE"));
    assert!(keys.get(id(0x1000)).expect("GET").is_none());
}

#[test]
fn an_spi_is_allocated_and_its_sa_completed() {
    let mut keys = client();
    let wanted = SpiRange::any(SaType::ESP, ends(), Mode::TRANSPORT).within(0x4000..=0x4001);
    let spi = keys.allocate_spi(&wanted).expect("GETSPI");
    assert!((0x4000..=0x4001).contains(&spi));
    assert_eq!(keys.get(id(spi)).expect("GET").map(|sa| sa.state), Some(State::Larval));
    keys.update(&esp(spi)).expect("UPDATE");
    assert_eq!(keys.get(id(spi)).expect("GET").map(|sa| sa.state), Some(State::Mature));
}

#[test]
fn a_dump_is_complete_and_may_be_left() {
    let mut keys = client();
    assert_eq!(keys.dump(SaType::ESP).expect("DUMP").count(), 0);
    for spi in 0x1000..0x1100 {
        keys.add(&esp(spi)).expect("ADD");
    }
    keys.add(&Sa::ah(SRC, DST, 0x1000).authenticate(Hmac::Sha1, &[3; 20])).expect("ADD");
    keys.add(&Sa::ipcomp(SRC, DST, 0x1000, Compression::Deflate)).expect("ADD");
    let mut spis: Vec<u32> = keys.dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA").spi).collect();
    spis.sort_unstable();
    assert_eq!(spis, (0x1000..0x1100).collect::<Vec<_>>());
    // Its rest is not taken for answers to what comes then.
    let first = keys.dump(SaType::UNSPEC).expect("DUMP").next().expect("an entry").expect("an SA");
    assert!(keys.get(first.id()).expect("GET").is_some());
    assert_eq!(keys.dump(SaType::UNSPEC).expect("DUMP").count(), 258);
    assert!(keys.try_event().expect("none").is_none_or(|event| !matches!(event, Event::Other(..))));
    keys.flush(SaType::UNSPEC).expect("FLUSH");
    keys.flush(SaType::UNSPEC).expect("FLUSH of nothing");
    assert_eq!(keys.dump(SaType::UNSPEC).expect("DUMP").count(), 0);
}

#[test]
fn policies() {
    let mut keys = client();
    assert_eq!(keys.policies().expect("X_SPDDUMP").count(), 0);
    let policy = tunnel_policy().priority(9).protocol(17).ports(0, 53);
    let id = keys.add_policy(&policy).expect("X_SPDADD");
    let info = keys.policy(id).expect("X_SPDGET").expect("it is there");
    assert_eq!((info.id, info.dir, info.priority, info.selector.proto), (id, Direction::OUTBOUND, 9, 17));
    assert_eq!(info.selector.dport, 53);
    assert_eq!((info.templates[0].ends, info.templates[0].reqid), (ends(), 7));
    let text = format!("policy {id} OUTBOUND 10.1.0.0/16 -> 10.2.0.0/16 protocol 17 ports 0 -> 53");
    assert_eq!(info.to_string(), format!("{text} ESP 192.0.2.1 -> 192.0.2.2 reqid 7"));
    assert_eq!(keys.add_policy(&policy).unwrap_err().errno(), Some(Errno::EEXIST));
    let discards = Policy::of(Direction::OUTBOUND, info.selector).priority(9).discard();
    let id = keys.update_policy(&discards).expect("X_SPDUPDATE");
    let all: Vec<_> = keys.policies().expect("X_SPDDUMP").map(|policy| policy.expect("a policy")).collect();
    assert_eq!(all.iter().map(|policy| (policy.id, policy.block)).collect::<Vec<_>>(), [(id, true)]);
    assert!(keys.delete_policy(&discards).expect("X_SPDDELETE"));
    assert!(!keys.delete_policy(&discards).expect("X_SPDDELETE"));
    let id = keys.add_policy(&tunnel_policy()).expect("X_SPDADD");
    assert!(keys.delete_policy_by_id(id).expect("X_SPDDELETE2"));
    assert!(!keys.delete_policy_by_id(id).expect("X_SPDDELETE2"));
    keys.add_policy(&tunnel_policy()).expect("X_SPDADD");
    keys.flush_policies().expect("X_SPDFLUSH");
    assert!(keys.policy(id).expect("X_SPDGET").is_none());
}

#[test]
fn an_sa_and_its_policy_move() {
    let mut keys = client();
    let id = keys.add_policy(&tunnel_policy()).expect("X_SPDADD");
    keys.add(&esp(0x1000).tunnel().reqid(7)).expect("ADD");
    let new = Ends::new([198, 51, 100, 1].into(), DST.into()).expect("one family");
    let selector = keys.policy(id).expect("X_SPDGET").expect("it is there").selector;
    let one = Move { proto: IpsecProtocol::ESP, mode: Mode::TUNNEL, reqid: 7, old: ends(), new };
    let migration = Migration { dir: Direction::OUTBOUND, selector, managers: None, moves: vec![one] };
    keys.migrate(&migration).expect("X_MIGRATE");
    assert_eq!(keys.migrate(&migration).unwrap_err().errno(), Some(Errno::ENODATA), "it has moved already");
    assert_eq!(keys.get(self::id(0x1000)).expect("GET").map(|sa| sa.ends), Some(new));
    let moved = keys.policies().expect("X_SPDDUMP").map(|policy| policy.expect("a policy").templates[0].ends);
    assert_eq!(moved.collect::<Vec<_>>(), [new]);
}

/// Its ports are a part of a policy's name.
#[test]
fn a_policy_with_ports_moves() {
    let mut keys = client();
    let policy = tunnel_policy().protocol(17).ports(500, 53);
    let id = keys.add_policy(&policy).expect("X_SPDADD");
    let selector = keys.policy(id).expect("X_SPDGET").expect("it is there").selector;
    let new = Ends::new([198, 51, 100, 1].into(), DST.into()).expect("one family");
    let one = Move { proto: IpsecProtocol::ESP, mode: Mode::TUNNEL, reqid: 7, old: ends(), new };
    let migration = Migration { dir: Direction::OUTBOUND, selector, managers: None, moves: vec![one] };
    keys.migrate(&migration).expect("X_MIGRATE");
    let moved = keys.policies().expect("X_SPDDUMP").map(|policy| policy.expect("a policy").templates[0].ends);
    assert_eq!(moved.collect::<Vec<_>>(), [new]);
}

#[test]
fn a_request_that_makes_no_sense_is_not_sent() {
    let v6: IpAddr = "2001:db8::1".parse().expect("an address");
    let soft = Limits { bytes: 2, ..Limits::NONE };
    let hard = Limits { bytes: 1, ..Limits::NONE };
    for (sa, error) in [
        (Sa::esp(SRC, v6, 0x1000), "destination: of another family than the source"),
        (esp(0xff), "SPI: 0xff: RFC 4303 reserves 0 to 255"),
        (esp(0x1000).mode(Mode(9)), "mode: transport, tunnel or BEET"),
        (Sa::esp(SRC, DST, 0x1000), "encryption: ESP needs it, if only null"),
        (Sa::ah(SRC, DST, 0x1000), "authentication: AH needs it"),
        (Sa::ah(SRC, DST, 0x1000).encrypt(Cipher::Null, &[]), "encryption: AH has none"),
        (
            esp(0x1000).encrypt(Cipher::AesCbc, &[0; 15]),
            "encryption key: aes-cbc takes 128 or 192 or 256 bits, not 120",
        ),
        (esp(0x1000).authenticate(Hmac::Sha1, &[]), "authentication key: hmac-sha1 takes 160 bits, not 0"),
        (esp(0x1000).encrypt(Cipher::AesGcm16, &[0; 20]), "authentication: aes-gcm-16 authenticates already"),
        (esp(0x1000).hard(hard).soft(soft), "soft bytes: 2 are more than the hard limit's 1"),
        (Sa::ah(SRC, DST, 256).authenticate(Hmac::Null, &[]).udp(1, 2), "UDP ports: only ESP is encapsulated in UDP"),
        (esp(0x1000).label(""), "label: 1 to 4095 bytes, none of them zero"),
        (esp(0x1000).inner_source(Prefix { address: v6, len: 129 }), "inner source: 2001:db8::1/129: 128 bits at most"),
    ] {
        assert_eq!(sa.check().expect_err(error).to_string(), error);
    }
    let (a, b) = (prefix("10.0.0.0/8"), prefix("2001:db8::/32"));
    for (policy, error) in [
        (Policy::new(Direction::ANY, a, a), "direction: in, out or fwd"),
        (Policy::new(Direction::OUTBOUND, a, b), "destination: of another family than the source"),
        (Policy::new(Direction::INBOUND, Prefix { len: 33, ..a }, a), "source: 10.0.0.0/33: 32 bits at most"),
        (tunnel_policy().discard(), "rules: a policy that discards has none"),
        (tunnel_policy().rule(Rule::ah().unique(16384)), "request id: 16384: 1 to 16383 may be chosen"),
        (tunnel_policy().rule(Rule::ah().optional().unique(7)), "level: optional and unique are two"),
        (tunnel_policy().rule(Rule::ah().unique(7).optional()), "level: optional and unique are two"),
        (tunnel_policy().rule(Rule::ah().tunnel(SRC, v6)), "tunnel: between addresses of two families"),
        (tunnel_policy().rule(Rule::ah().tunnel(SRC, DST).optional()), "tunnel: an optional one cannot be outbound"),
    ] {
        assert_eq!(policy.check().expect_err(error).to_string(), error);
    }
    let mut keys = client();
    assert!(matches!(keys.add(&esp(1)), Err(Error::Invalid(_))));
    let wanted = SpiRange::any(SaType::ESP, ends(), Mode::TRANSPORT).within(1..=2);
    assert!(matches!(keys.allocate_spi(&wanted), Err(Error::Invalid(_))));
    assert!(matches!(keys.register(SaType::RSVP), Err(Error::Invalid(_))));
}

/// Both ends of a connection on whose other side nobody answers as a key engine does.
fn silent() -> (Client, OwnedFd) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
    (Client::from(ours), theirs)
}

#[test]
fn an_answer_that_does_not_come_is_an_error() {
    let (mut keys, theirs) = silent();
    keys.set_limit(Duration::from_millis(1));
    assert!(matches!(keys.flush(SaType::ESP), Err(Error::NoAnswer { .. })));
    assert!(matches!(keys.dump(SaType::ESP).expect("it is sent").next(), Some(Err(Error::NoAnswer { .. }))));
    drop(theirs);
    // The end is seen however late that is.
    keys.set_limit(Duration::from_secs(60));
    assert!(matches!(keys.flush(SaType::ESP), Err(Error::Closed)));
    assert!(matches!(keys.next_event(None), Err(Error::Closed)));
}

#[test]
fn the_answer_to_another_request_is_kept_and_not_taken_for_this_ones() {
    use nix::sys::socket::{MsgFlags, recv, send};
    use std::os::fd::AsRawFd;
    let (mut keys, theirs) = silent();
    let engine = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let len = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a request");
        for change in [(8, 77), (12, 77)] {
            // Another sequence number, another pid.
            let mut other = buffer[..len].to_vec();
            other[change.0] ^= change.1;
            send(theirs.as_raw_fd(), &other, MsgFlags::empty()).expect("it is sent");
        }
        send(theirs.as_raw_fd(), &buffer[..len], MsgFlags::empty()).expect("it is sent");
        theirs
    });
    keys.flush(SaType::AH).expect("FLUSH");
    let _theirs = engine.join().expect("it answers");
    for _ in 0..2 {
        assert!(matches!(keys.try_event(), Ok(Some(Event::SasFlushed(SaType::AH)))));
    }
    assert!(matches!(keys.try_event(), Ok(None)));
}

#[test]
fn a_key_manager_receives_what_others_do() {
    let daemon = Daemon::start();
    let backend = daemon.backend();
    let mut manager = KeyManager::register_with(&backend, &[SaType::ESP, SaType::AH]).expect("REGISTER");
    assert!(manager.algorithms().has_cipher(Cipher::AesCbc) && manager.algorithms().has_hmac(Hmac::Sha256));
    assert!(manager.client().register(SaType::ESP).is_ok());
    let mut other = Client::open_with(&backend).expect("a client");
    other.add(&esp(0x1000)).expect("ADD");
    let wanted = SpiRange::any(SaType::ESP, ends(), Mode::TRANSPORT);
    let spi = other.allocate_spi(&wanted).expect("GETSPI");
    other.update(&esp(spi)).expect("UPDATE");
    other.delete(id(0x1000)).expect("DELETE");
    other.add_policy(&tunnel_policy()).expect("X_SPDADD");
    other.flush(SaType::ESP).expect("FLUSH");
    other.flush_policies().expect("X_SPDFLUSH");
    let raw = Request::Raw(Header::new(MessageType::GET, SaType::ESP, 0, 0), &[]);
    assert_eq!(other.call(&raw, |_| ()).unwrap_err().errno(), Some(Errno::EINVAL));
    let _ = manager.as_fd();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut next = || manager.next(Some(deadline)).expect("events").expect("an event");
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::PoliciesFlushed)) {
        events.push(next());
    }
    let mut events = events.into_iter().filter(|event| !matches!(event, Event::Registered(..)));
    assert!(matches!(events.next(), Some(Event::SaAdded(sa)) if sa.spi == 0x1000));
    assert!(matches!(events.next(), Some(Event::SaUpdated(sa)) if sa.spi == spi));
    assert!(matches!(events.next(), Some(Event::SaDeleted(name)) if name == id(0x1000)));
    assert!(matches!(events.next(), Some(Event::PolicyAdded(policy)) if policy.templates.len() == 1));
    assert!(matches!(events.next(), Some(Event::SasFlushed(SaType::ESP))));
}

#[test]
fn selectors_are_public() {
    let selector = Selector { src: prefix("10.0.0.1"), dst: prefix("10.0.0.2/31"), proto: 6, sport: 0, dport: 22 };
    let mut keys = client();
    let id = keys.add_policy(&Policy::of(Direction::INBOUND, selector)).expect("X_SPDADD");
    assert_eq!(keys.policy(id).expect("X_SPDGET").map(|policy| policy.selector), Some(selector));
}

/// A promiscuous descriptor receives a copy of its own request before the answer.
#[test]
fn the_copy_of_a_request_is_not_taken_for_its_answer() {
    let mut keys = client();
    keys.set_promiscuous(true).expect("X_PROMISC");
    keys.add(&esp(0x1000)).expect("ADD");
    assert_eq!(keys.add(&esp(0x1000)).unwrap_err().errno(), Some(Errno::EEXIST));
    let dumped: Vec<_> = keys.dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA").spi).collect();
    assert_eq!(dumped, [0x1000]);
    keys.set_promiscuous(false).expect("X_PROMISC");
    assert!(keys.get(id(0x1000)).expect("GET").is_some());
}

#[test]
fn what_xfrm_has_beyond_pf_key() {
    let mut keys = client();
    let marked = Xfrm::default().with_mark(0x10, 0xff).with_if_id(42);
    // Nobody is shown it who does not ask.
    keys.add(&esp(0x1000).xfrm(marked.clone())).expect("ADD");
    let named = SaId { mark: 0x10, ..id(0x1000) };
    assert!(keys.get(named).expect("GET").expect("it is there").attached.xfrm.is_empty());
    keys.show_xfrm(true).expect("X_XFRM");
    assert_eq!(keys.get(named).expect("GET").expect("it is there").attached.xfrm, marked);
    assert!(keys.get(id(0x1000)).expect("GET").is_none(), "the mark is a part of the name");
    assert!(!keys.delete(SaId { mark: 0x11, ..named }).expect("DELETE"));
    assert!(keys.delete(named).expect("DELETE"));

    let wanted = SpiRange { xfrm: marked.clone(), ..SpiRange::any(SaType::ESP, ends(), Mode::TRANSPORT) };
    let spi = keys.allocate_spi(&wanted).expect("GETSPI");
    assert_eq!(keys.update(&esp(spi)).unwrap_err().errno(), Some(Errno::ESRCH));
    keys.update(&esp(spi).xfrm(marked.clone()).esn(64)).expect("UPDATE");
    let info = keys.get(SaId { mark: 0x10, ..id(spi) }).expect("GET").expect("it is there");
    assert!(info.attached.xfrm.is_esn() && info.attached.xfrm.mark() == marked.mark());

    let policy = tunnel_policy().xfrm(marked.clone());
    let policy_id = keys.add_policy(&policy).expect("X_SPDADD");
    keys.add_policy(&tunnel_policy()).expect("X_SPDADD of another");
    assert!(keys.policy(policy_id).expect("X_SPDGET").is_none());
    let info = keys.policy_of(policy_id, &marked).expect("X_SPDGET").expect("it is there");
    assert_eq!(info.attached.xfrm, marked);
    assert!(keys.delete_policy_of(policy_id, &marked).expect("X_SPDDELETE2"));
    assert!(!keys.delete_policy(&policy).expect("X_SPDDELETE"));
    assert!(keys.delete_policy(&tunnel_policy()).expect("X_SPDDELETE"));

    // Why, in words, to those who are shown it: alone and in a batch.
    let why = "ADD: Operation not supported (os error 95): attribute 35 (XFRMA_SA_PCPU): only a kernel does this";
    let sa = esp(0x2000).xfrm(Xfrm::default().with_pcpu(1));
    assert_eq!(keys.add(&sa).unwrap_err().to_string(), why);
    let mut batch = Batch::default();
    batch.add(&esp(0x2001)).expect("a request").add(&sa).expect("a request");
    let outcomes = keys.run(&batch).expect("a batch");
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), why);

    keys.show_xfrm(false).expect("X_XFRM");
    assert_eq!(keys.add(&sa).unwrap_err().why(), None);
    assert!(keys.dump(SaType::ESP).expect("DUMP").all(|sa| sa.expect("an SA").attached.xfrm.is_empty()));
}

/// Of two SAs with one SPI the mark says which it was.
#[test]
fn a_deleted_sa_is_named_with_its_mark() {
    let daemon = Daemon::start();
    let mut listener = Client::open_with(&daemon.backend()).expect("a client");
    listener.show_xfrm(true).expect("X_XFRM");
    let mut keys = Client::open_with(&daemon.backend()).expect("another");
    let named = SaId { mark: 0x10, ..id(0x1000) };
    keys.add(&esp(0x1000).mark(0x10, 0xff)).expect("ADD");
    assert!(keys.delete(named).expect("DELETE"));
    assert!(matches!(listener.try_event(), Ok(Some(Event::SaAdded(sa))) if sa.id() == named));
    assert!(matches!(listener.try_event(), Ok(Some(Event::SaDeleted(deleted))) if deleted == named));
}

/// Before anything is sent.
#[test]
fn attributes_that_cannot_be_are_named() {
    let said = |sa: Sa| sa.check().unwrap_err().to_string();
    assert_eq!(
        said(esp(0x1000).replay_window(4).esn(64)),
        "attributes of XFRM's: attribute 23 (XFRMA_REPLAY_ESN_VAL) says what PF_KEY says in another place"
    );
    assert!(said(esp(0x1000).esn(4097)).contains("wrong length"));
    assert!(said(esp(0x1000).icv(100)).contains("ALG_AUTH_TRUNC"));
    assert!(said(esp(0x1000).xfrm(Xfrm::default().with(999, &[0; 4096]))).contains("at most 4096"));
    let policy = tunnel_policy().xfrm(Xfrm::default().with_tfcpad(1));
    assert!(policy.check().unwrap_err().to_string().contains("(XFRMA_TFCPAD) does not belong to this message"));
}

/// SAs that answer an ACQUIRE have its mark and its interface, unless they say others.
#[test]
fn a_key_manager_answers_for_the_interface_that_asks() {
    let daemon = Daemon::start();
    let mut manager = KeyManager::register_with(&daemon.backend(), &[SaType::ESP]).expect("a key manager");
    manager.show_xfrm(true).expect("X_XFRM");
    let scope = Xfrm::default().with_mark(0x10, 0xff).with_if_id(42);
    let acquire = Acquire {
        seq: 7,
        satype: SaType::ESP,
        ends: ends(),
        policy: 1,
        dir: Direction::OUTBOUND,
        offers: Vec::new(),
        label: None,
        xfrm: scope.clone(),
    };
    let spi = manager.allocate_spi(&acquire, Mode::TRANSPORT).expect("GETSPI");
    let inbound = Sa::esp(DST, SRC, spi).encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32]);
    // One that makes no sense keeps both from being sent.
    let nonsense = manager.install(&acquire, &inbound, &esp(0x1000).encrypt(Cipher::AesCbc, &[1; 15]));
    assert!(matches!(nonsense, Err(Error::Invalid(_))));
    let states = manager.client().dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA").state);
    assert_eq!(states.collect::<Vec<_>>(), [State::Larval]);
    manager.install(&acquire, &inbound, &esp(0x1000).if_id(43)).expect("both SAs");
    let infos: Vec<_> = manager.client().dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA")).collect();
    let scopes = infos.iter().map(|sa| (sa.spi, sa.attached.xfrm.mark().value, sa.attached.xfrm.if_id()));
    let mut scopes: Vec<_> = scopes.collect();
    scopes.sort_by_key(|(of, ..)| *of == spi);
    assert_eq!(scopes, [(0x1000, 0x10, 43), (spi, 0x10, 42)]);
}

/// A byte of which every key here consists, as `Debug` would show it.
const SHOWN: &str = "90, 90";

fn secret(spi: u32) -> Sa {
    Sa::esp(SRC, DST, spi).encrypt(Cipher::AesCbc, &[90; 16]).authenticate(Hmac::Sha256, &[90; 32])
}

#[test]
fn no_debug_shows_a_key() {
    let mut keys = client();
    keys.set_promiscuous(true).expect("X_PROMISC");
    // A copy of it is kept.
    keys.add(&secret(0x1000)).expect("ADD");
    let shown = format!("{keys:?}");
    assert!(shown.len() < 100 && !shown.contains(SHOWN), "{} bytes", shown.len());
    let dump = format!("{:?}", keys.dump(SaType::ESP).expect("DUMP"));
    assert!(!dump.contains(SHOWN), "{} bytes", dump.len());

    let mut buffer = Vec::new();
    let (_, message) = Calls::new().begin(&Request::Add(&secret(0x1000)), &mut buffer).expect("it makes sense");
    let header = Header::read(message).expect("a header");
    assert!(!format!("{:?}", Request::Raw(header, &message[16..])).contains(SHOWN));
    // As those receive it who are promiscuous by RFC 2367.
    let outer = Header::new(MessageType::X_PROMISC, SaType(1), 0, 0);
    let mut wrapped = vec![0; 16 + message.len()];
    let mut writer = Writer::new(&mut wrapped, outer, Profile::Linux);
    writer.raw(message);
    writer.finish().expect("there is room");
    let received = Received::read(&mut wrapped).expect("a header");
    let event = Event::of(&received);
    assert!(matches!(&event, Event::Other(_, bytes) if **bytes == *received.bytes && bytes.len() == message.len()));
    assert!(!format!("{received:?} {event:?}").contains(SHOWN));
    assert!(!format!("{:?}", Writer::new(message, outer, Profile::Linux)).contains(SHOWN));
}

#[test]
fn a_dump_whose_reader_is_gone_is_no_part_of_the_next() {
    let mut keys = client();
    for spi in 0x1000..0x1010 {
        keys.add(&esp(spi)).expect("ADD");
    }
    let mut dump = keys.dump(SaType::ESP).expect("DUMP");
    assert!(dump.next().is_some_and(|sa| sa.is_ok()));
    std::mem::forget(dump);
    assert_eq!(keys.dump(SaType::ESP).expect("DUMP").count(), 16);
    for last in [1, 16] {
        let mut read = 0;
        let each = |_: &Received<'_>| -> Result<(), Error> {
            read += 1;
            if read == last { panic!("a reader's own fault") } else { Ok(()) }
        };
        let run = std::panic::AssertUnwindSafe(|| keys.for_each(&Request::Dump(SaType::ESP), each));
        assert!(std::panic::catch_unwind(run).is_err());
        assert_eq!(keys.dump(SaType::ESP).expect("DUMP").count(), 16, "after {last}");
    }
}

#[test]
fn a_dump_is_not_called_for_its_first_entry() {
    let mut keys = client();
    for request in [Request::Dump(SaType::ESP), Request::DumpPolicies] {
        assert!(matches!(keys.call(&request, |_| ()), Err(Error::Invalid(_))), "{request:?}");
    }
    let raw = Request::Raw(Header::new(MessageType::DUMP, SaType::ESP, 0, 0), &[]);
    assert!(matches!(keys.call(&raw, |_| ()), Err(Error::Invalid(_))));
}

#[test]
fn only_a_dump_of_nothing_is_no_error() {
    let mut keys = client();
    let nothing = |_: &Received<'_>| -> Result<(), Error> { panic!("there is nothing") };
    keys.for_each(&Request::DumpPolicies, nothing).expect("no policy");
    let error = keys.for_each(&Request::Policy(100_001), nothing).expect_err("no policy");
    assert_eq!(error.errno(), Some(Errno::ENOENT));
}

#[test]
fn an_spi_of_ipcomp_is_a_cpi() {
    let mut keys = client();
    let wanted = SpiRange::any(SaType::X_IPCOMP, ends(), Mode::TRANSPORT);
    let cpi = keys.allocate_spi(&wanted).expect("GETSPI");
    assert!((0x100..=0xffff).contains(&cpi), "{cpi:#x}");
    let above = keys.allocate_spi(&wanted.clone().within(0x100..=0x10000)).expect_err("17 bits");
    assert_eq!(above.to_string(), "SPI range: 0x100 to 0x10000: 0x100 to 0xffff");
    assert_eq!(keys.allocate_spi(&wanted.within(0xffff..=0xffff)).expect("GETSPI"), 0xffff);
}

/// The kernel passes over an ACQUIRE without an errno, and over one without a number.
#[test]
fn what_gives_up_nothing_is_not_sent() {
    let mut keys = client();
    let refused = |gave_up: Result<(), Error>| gave_up.expect_err("nothing is given up").to_string();
    let number = keys.give_up(SaType::ESP, 0, Errno::EHOSTUNREACH);
    assert_eq!(refused(number), "sequence number: an ACQUIRE has another than 0");
    assert_eq!(refused(keys.give_up(SaType::ESP, 1, Errno::from_raw(0))), "errno: 0 is none");
}

#[test]
fn a_raw_header_keeps_its_errno() {
    let raw = Header { errno: 2, ..Header::new(MessageType::ACQUIRE, SaType::ESP, 5, 6) };
    let mut buffer = Vec::new();
    let (_, message) = Calls::new().begin(&Request::Raw(raw, &[]), &mut buffer).expect("it makes sense");
    assert_eq!(Header::read(message).map(|header| (header.errno, header.pid)), Some((2, std::process::id())));
}

#[test]
fn a_client_knows_that_it_is_promiscuous_however_it_was_asked_for() {
    for raw in [false, true] {
        let mut keys = client();
        let header = Header::new(MessageType::X_PROMISC, SaType(1), 0, 0);
        let request = if raw { Request::Raw(header, &[]) } else { Request::Promiscuous(true) };
        keys.call(&request, |_| ()).expect("X_PROMISC");
        keys.add(&esp(0x1000)).expect("ADD");
        // Not the copy of the request, which has no errno.
        assert_eq!(keys.add(&esp(0x1000)).unwrap_err().errno(), Some(Errno::EEXIST), "{request:?}");
    }
}

/// A promiscuous descriptor receives each entry of its own dump twice.
#[test]
fn the_copies_of_a_dumps_entries_are_no_entries() {
    let mut keys = client();
    for spi in 0x1000..0x1003 {
        keys.add(&esp(spi)).expect("ADD");
    }
    keys.set_promiscuous(true).expect("X_PROMISC");
    for _ in 0..2 {
        let mut spis: Vec<_> = keys.dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA").spi).collect();
        spis.sort_unstable();
        assert_eq!(spis, [0x1000, 0x1001, 0x1002]);
    }
    // They are not lost: two dumps were asked for, each with three entries.
    let mut copies = 0;
    while let Some(msg_type) = keys.next_received(Some(Instant::now()), |it| it.header.msg_type).expect("events") {
        copies += usize::from(msg_type == MessageType::DUMP);
    }
    assert_eq!(copies, 8);
}

#[test]
fn a_copy_that_arrives_is_an_event_at_once() {
    let mut keys = client();
    keys.set_promiscuous(true).expect("X_PROMISC");
    while keys.try_event().expect("events").is_some() {}
    // It has no answer; its copy is all that arrives.
    keys.give_up(SaType::ESP, 7, Errno::EHOSTUNREACH).expect("ACQUIRE");
    let next = keys.next_event(Some(Instant::now() + Duration::from_secs(30))).expect("events");
    assert!(matches!(next, Some(Event::GaveUp(7, Errno::EHOSTUNREACH))), "{next:?}");
}

/// What others do is told to every descriptor: a queue that nobody reads is full in the end.
#[test]
fn an_answer_has_room_however_much_others_did() {
    let daemon = Daemon::start();
    let mut idle = Client::open_with(&daemon.backend()).expect("a client");
    idle.set_limit(Duration::from_secs(1));
    let mut busy = Client::open_with(&daemon.backend()).expect("another");
    busy.show_xfrm(true).expect("X_XFRM");
    for _ in 0..4 {
        let mut batch = Batch::default();
        for spi in 0x1000..0x3000 {
            batch.add(&esp(spi)).expect("it makes sense");
        }
        batch.flush(SaType::ESP).expect("it makes sense");
        busy.run(&batch).expect("it is done").all().expect("all are added");
        busy.forget_events().expect("events");
    }
    idle.add(&esp(0x1000)).expect("ADD");
    // Much was kept for whoever wants it, and may be forgotten.
    assert!(matches!(idle.try_event(), Ok(Some(Event::SaAdded(_)))));
    idle.forget_events().expect("events");
    assert!(matches!(idle.try_event(), Ok(None)));
}

/// The answer to one has the number that the other's will have.
#[test]
fn what_was_told_before_answers_nothing() {
    let daemon = Daemon::start();
    let mut clients = [(); 2].map(|()| Client::open_with(&daemon.backend()).expect("a client"));
    let sa = esp(0x1000).answering(7);
    clients[0].add(&sa).expect("ADD");
    assert_eq!(clients[1].add(&sa).unwrap_err().errno(), Some(Errno::EEXIST));
    assert!(matches!(clients[1].try_event(), Ok(Some(Event::SaAdded(sa))) if sa.seq == 7));
}

#[test]
fn a_key_manager_of_nothing_is_none() {
    assert!(matches!(KeyManager::register_with(&Backend::Embedded, &[]), Err(Error::Invalid(_))));
}

/// What a program does that has its own I/O: here on a descriptor that never waits.
#[test]
fn calls_on_a_descriptor_of_ones_own() {
    use nix::sys::socket::{MsgFlags, recv};
    let mut keys = client();
    keys.add(&esp(0x1000)).expect("ADD");
    keys.add_policy(&tunnel_policy()).expect("X_SPDADD");
    let fd = OwnedFd::from(keys);
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&fd, flags).expect("O_NONBLOCK");
    let (mut calls, mut buffer, mut arrived) = (Calls::new(), Vec::new(), vec![0; 65536]);
    let mut ask = |request: &Request<'_>, read: &mut dyn FnMut(&Received<'_>)| {
        let (call, message) = calls.begin(request, &mut buffer).expect("it makes sense");
        pfkey_socket::send(fd.as_raw_fd(), message).expect("it is sent");
        loop {
            let len = recv(fd.as_raw_fd(), &mut arrived, MsgFlags::empty()).expect("answers wait");
            let received = Received::read(&mut arrived[..len]).expect("a header");
            if call.is_answered_by(&received) {
                call.outcome(&received).expect("it is done");
                read(&received);
                if call.reply(&received.header) == Some(Reply::Last) {
                    return;
                }
            }
        }
    };
    let mut found = Vec::new();
    ask(&Request::Dump(SaType::ESP), &mut |it| found.push(it.sa().expect("an SA").spi));
    ask(&Request::DumpPolicies, &mut |it| found.push(it.policy().expect("a policy").priority));
    ask(&Request::Register(SaType::ESP), &mut |it| found.push(it.algorithms().has_cipher(Cipher::AesCbc).into()));
    let wanted = SpiRange::any(SaType::ESP, ends(), Mode::TRANSPORT).within(0x2000..=0x2000);
    ask(&Request::GetSpi(&wanted), &mut |it| found.push(it.spi().expect("an SPI")));
    assert_eq!(found, [0x1000, 0, 1, 0x2000]);
}

#[test]
fn threads_take_them() {
    const fn sent<T: Send>() {}
    const fn shared<T: Send + Sync>() {}
    sent::<pfkey::Sas<'_>>();
    sent::<pfkey::Policies<'_>>();
    shared::<Client>();
    shared::<KeyManager>();
    shared::<Batch>();
    shared::<pfkey::Outcomes>();
    shared::<Request<'_>>();
    shared::<Received<'_>>();
    shared::<Event>();
    shared::<Error>();
    shared::<Sa>();
    shared::<Policy>();
}
