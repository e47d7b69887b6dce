//! A client and a key manager against the embedded engine.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use pfkey::{
    Acquire, Backend, Batch, Cipher, Client, Compression, Direction, Ends, Errno, Error, Event, Hmac, IpsecProtocol,
    KeyManager, Limits, Migration, Mode, Move, Policy, Prefix, Request, Rule, Sa, SaId, SaType, Selector, SpiRange,
    State, Xfrm,
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
    let raw = Request::Raw(pfkey::wire::Header::new(pfkey::MessageType::GET, SaType::ESP, 0, 0), &[]);
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
    manager.install(&acquire, &inbound, &esp(0x1000).if_id(43)).expect("both SAs");
    let infos: Vec<_> = manager.client().dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA")).collect();
    let scopes = infos.iter().map(|sa| (sa.spi, sa.attached.xfrm.mark().value, sa.attached.xfrm.if_id()));
    let mut scopes: Vec<_> = scopes.collect();
    scopes.sort_by_key(|(of, ..)| *of == spi);
    assert_eq!(scopes, [(0x1000, 0x10, 43), (spi, 0x10, 42)]);
}
