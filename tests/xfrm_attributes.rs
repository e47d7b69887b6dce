//! XFRM's attributes in PF_KEY, in memory: who is shown them, what is refused, and what marks and XFRM interfaces decide. Over a
//! kernel: `tests/kernel/attributes`.

use std::net::IpAddr;
use std::time::Duration;

use pfkey_rs::engine::{Engine, Flow, LINUX, Outbound, RFC2367};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::model::policy::Policy;
use pfkey_rs::model::sa::Sa;
use pfkey_rs::model::view::{PolicyView, SaView};
use pfkey_rs::wire::layout::{SadbSa, SadbXIpsecrequest, SadbXPolicy};
use pfkey_rs::wire::xfrm::{self, Mark, ReplayEsn, attribute};
use pfkey_rs::wire::{
    Ends, ExtensionType as Ext, Header, Message, MessageType as M, Mode, Profile, SaType, SockaddrBytes, Writer,
};
use zerocopy::IntoBytes as _;

const NOW: Duration = Duration::from_secs(1_700_000_000);
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

struct World {
    hub: Hub<Engine>,
    queues: Queues,
}

/// Attributes as netlink has them.
fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    list.iter().for_each(|(number, payload)| xfrm::push(&mut bytes, *number, payload));
    bytes
}

fn mark(value: u32, mask: u32) -> Vec<u8> {
    attributes(&[(attribute::MARK, Mark { value, mask }.as_bytes())])
}

fn if_id(n: u32) -> Vec<u8> {
    attributes(&[(attribute::IF_ID, &n.to_ne_bytes())])
}

fn message(msg_type: M, satype: u8, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 128 * 1024];
    let mut writer = Writer::new(&mut buffer, Header::new(msg_type, SaType(satype), 7, 4242), Profile::Linux);
    write(&mut writer);
    writer.finish().unwrap().to_vec()
}

fn ends(writer: &mut Writer<'_>, proto: u8) {
    for (ext, ip) in [(Ext::ADDRESS_SRC, A), (Ext::ADDRESS_DST, B)] {
        writer.address(ext, proto, 32, SockaddrBytes::new(ip.into(), 0).as_bytes());
    }
}

fn sa(msg_type: M, spi: u32, said: &[u8]) -> Vec<u8> {
    message(msg_type, 3, |writer| {
        writer.sa(SadbSa { spi: spi.into(), auth: 5, encrypt: 12, state: 1, ..Default::default() });
        ends(writer, 0);
        if msg_type == M::ADD || msg_type == M::UPDATE {
            writer.key(Ext::KEY_AUTH, 256, &[1; 32]).key(Ext::KEY_ENCRYPT, 128, &[2; 16]);
        }
        if !said.is_empty() {
            writer.xfrm(0, 0, said);
        }
    })
}

fn policy(msg_type: M, id: u32, priority: u32, said: &[u8]) -> Vec<u8> {
    let request = SadbXIpsecrequest { len: 16.into(), proto: 50.into(), mode: 1, level: 2, ..Default::default() };
    let fixed =
        SadbXPolicy { policy_type: 2.into(), dir: 2, id: id.into(), priority: priority.into(), ..Default::default() };
    message(msg_type, 0, |writer| {
        ends(writer, 255);
        writer.policy(fixed, request.as_bytes());
        if !said.is_empty() {
            writer.xfrm(0, 0, said);
        }
    })
}

impl World {
    fn new() -> Self {
        Self { hub: Hub::new(Engine::with_seed(&LINUX, 1)), queues: Queues::new() }
    }

    /// A session, which is shown extensions or not.
    fn open(&mut self, shown: bool) -> SessionId {
        let id = self.hub.open();
        if shown {
            assert_eq!(self.ask(id, &message(M::X_XFRM, 1, |_| ())).len(), 1);
        }
        id
    }

    /// What a session receives after it sent something.
    fn ask(&mut self, id: SessionId, request: &[u8]) -> Vec<Vec<u8>> {
        self.hub.receive(id, request, NOW, &mut self.queues).unwrap();
        self.drain(id)
    }

    /// What waits for a session, without the reference counts that Linux shows of policies and no message may have.
    fn drain(&mut self, id: SessionId) -> Vec<Vec<u8>> {
        let mut all: Vec<_> = std::iter::from_fn(|| self.queues.pop(id)).collect();
        all.iter_mut().for_each(|bytes| bytes[6..8].fill(0));
        all
    }

    /// The errno of the last answer.
    fn errno(&mut self, id: SessionId, request: &[u8]) -> i32 {
        i32::from(self.ask(id, request).last().expect("an answer")[2])
    }

    fn outbound(&mut self, mark: u32, if_id: u32) -> Option<Vec<u32>> {
        self.outbound_flow(Flow { mark, if_id, ..plain_flow() })
    }

    fn outbound_by(&mut self, device: u32) -> Option<Vec<u32>> {
        self.outbound_flow(Flow { device, ..plain_flow() })
    }

    fn outbound_flow(&mut self, flow: Flow) -> Option<Vec<u32>> {
        match self.hub.with_engine(NOW, None, &mut self.queues, |engine, cx| engine.outbound(&flow, cx)) {
            Ok(Outbound::Apply(sas)) => Some(sas.iter().map(|(id, _)| id.spi).collect()),
            Ok(Outbound::Pass) => Some(Vec::new()),
            _ => None,
        }
    }
}

fn plain_flow() -> Flow {
    Flow::new(Ends::new(IpAddr::from(A), IpAddr::from(B)).unwrap(), 17, 1, 2)
}

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes, Profile::Linux).unwrap()
}

/// The attributes of a message, without padding behind them.
fn said_by(bytes: &[u8]) -> Vec<u8> {
    attributes(&parse(bytes).xfrm().attributes.collect::<Vec<_>>())
}

/// An extension reaches those who asked for it, in notifications, answers and dumps; nobody else, not even those who hear everything.
#[test]
fn who_does_not_ask_is_shown_nothing() {
    let mut w = World::new();
    let (old, promiscuous) = (w.open(false), w.open(false));
    w.ask(promiscuous, &message(M::X_PROMISC, 1, |_| ()));
    w.drain(old);
    w.open(true);
    assert!(
        w.drain(promiscuous).iter().all(|bytes| parse(bytes).header().msg_type == M::X_PROMISC),
        "nobody hears of it"
    );
    let said = if_id(42);
    for asked in [false, true] {
        let new = w.open(asked);
        let spi = 0x1000 + u32::from(asked);
        let dump = message(M::DUMP, 0, |_| ());
        let mut of_new = w.ask(new, &sa(M::ADD, spi, &said));
        of_new.extend(w.ask(new, &sa(M::GET, spi, &[])));
        of_new.extend(w.ask(new, &dump));
        of_new.extend(w.ask(new, &policy(M::X_SPDADD, 0, spi, &if_id(spi))));
        of_new.extend(w.ask(new, &message(M::X_SPDDUMP, 0, |_| ())));
        let whole = of_new.iter().map(|bytes| parse(bytes)).filter(|m| m.has(Ext::ADDRESS_SRC)).collect::<Vec<_>>();
        assert!(whole.len() > 4 && whole.iter().all(|m| m.has(Ext::X_XFRM) == asked), "{asked}");
        let mut of_old = w.drain(old);
        of_old.extend(w.ask(old, &dump));
        of_old.extend(w.drain(promiscuous));
        assert!(of_old.len() > 10 && !of_old.iter().any(|bytes| parse(bytes).has(Ext::X_XFRM)), "{asked}");
        if asked {
            // What it was shown is what was said, at the message's end.
            let shown = whole[0].extension(Ext::X_XFRM).unwrap();
            assert_eq!((&shown.bytes[8..16], shown.offset + 16), (&said[..], whole[0].bytes().len()));
            // And no more when it has had enough.
            w.ask(new, &message(M::X_XFRM, 0, |_| ()));
            assert!(!w.ask(new, &dump).iter().any(|bytes| parse(bytes).has(Ext::X_XFRM)));
        }
    }
    assert_eq!(w.errno(old, &message(M::X_XFRM, 2, |_| ())), libc::EINVAL);
}

/// What one engine shows, another takes, and shows the same: byte for byte but for counters.
#[test]
fn what_is_shown_can_be_said() {
    let esn = [ReplayEsn::of_window(64).as_bytes(), &[0; 8]].concat();
    let said = attributes(&[
        (attribute::MARK, Mark { value: 5, mask: 0xff }.as_bytes()),
        (attribute::REPLAY_ESN_VAL, &esn),
        (attribute::SET_MARK, &7_u32.to_ne_bytes()),
        (attribute::SA_DIR, &[2]),
        (attribute::TFCPAD, &100_u32.to_ne_bytes()),
    ]);
    let mut w = World::new();
    let session = w.open(true);
    let shown = w.ask(session, &sa(M::ADD, 0x1000, &said)).remove(0);
    let mut of_sa = parse(&shown).xfrm().attributes.collect::<Vec<_>>();
    of_sa.sort_unstable();
    let mut expected = xfrm::Attributes(&said).collect::<Vec<_>>();
    expected.sort_unstable();
    assert_eq!(of_sa, expected);
    let view = SaView::of_message(&parse(&shown)).unwrap();
    assert_eq!((view.id().mark, view.attached.xfrm.mark()), (5, Mark { value: 5, mask: 0xff }));
    let shown = w.ask(session, &policy(M::X_SPDADD, 0, 0, &if_id(9))).remove(0);
    let parsed = parse(&shown);
    let view = PolicyView::of_message(&parsed).unwrap();
    assert_eq!(view.attached.xfrm.attributes.payload(attribute::IF_ID), Some(&9_u32.to_ne_bytes()[..]));
}

#[test]
fn what_is_wrong_has_an_errno() {
    let mut w = World::new();
    let session = w.open(true);
    let four = 1_u32.to_ne_bytes();
    for (list, errno) in [
        (attributes(&[(attribute::IF_ID, &four[..3])]), libc::EINVAL),
        (attributes(&[(attribute::IF_ID, &four), (attribute::IF_ID, &four)]), libc::EINVAL),
        // XFRMA_ALG_CRYPT, XFRMA_ENCAP: PF_KEY has extensions for these.
        (attributes(&[(2, &[0; 68])]), libc::EINVAL),
        (attributes(&[(4, &[0; 24])]), libc::EINVAL),
        (attributes(&[(attribute::LASTUSED, &[0; 8])]), libc::EINVAL),
        // This engine does not do it, and nobody knows what 999 is.
        (attributes(&[(attribute::OFFLOAD_DEV, &[0; 8])]), libc::EOPNOTSUPP),
        (attributes(&[(attribute::SA_PCPU, &four)]), libc::EOPNOTSUPP),
        (attributes(&[(attribute::MODE, &[xfrm::MODE_IPTFS])]), libc::EOPNOTSUPP),
        (attributes(&[(attribute::MODE, &[1])]), libc::EINVAL),
        (attributes(&[(attribute::POLICY_TYPE, &xfrm::POLICY_TYPE_SUB)]), libc::EINVAL),
        (attributes(&[(999, &four)]), libc::EOPNOTSUPP),
        // Cut off, of no length, longer than the extension.
        (vec![12, 0, 31, 0], libc::EINVAL),
        (vec![0, 0, 31, 0, 1, 0, 0, 0], libc::EINVAL),
        (vec![0xff, 0xff, 31, 0, 1, 0, 0, 0], libc::EINVAL),
        (attributes(&[(0xff, &[0; 60_000])]), libc::ENOBUFS),
    ] {
        assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &list)), errno, "{:?}", &list[..4]);
    }
    // An integrity value's length, where there is none.
    let icv = xfrm::Truncation { icv_bits: 128.into(), ..Default::default() };
    let without_auth = message(M::ADD, 3, |writer| {
        writer.sa(SadbSa { spi: 0x1000.into(), encrypt: 12, state: 1, ..Default::default() });
        ends(writer, 0);
        writer.key(Ext::KEY_ENCRYPT, 128, &[2; 16]).xfrm(
            0,
            0,
            &attributes(&[(attribute::ALG_AUTH_TRUNC, icv.as_bytes())]),
        );
    });
    assert_eq!(w.errno(session, &without_auth), libc::EINVAL);
    // Nothing of it was added, and what names something has no other attributes.
    assert_eq!(w.errno(session, &message(M::DUMP, 0, |_| ())), libc::ENOENT);
    assert_eq!(w.errno(session, &sa(M::GET, 0x1000, &if_id(1))), libc::EINVAL);
    assert_eq!(w.errno(session, &sa(M::DELETE, 0x1000, &mark(1, 1))), libc::ESRCH);
    // Whoever means the SAs of an interface would lose all.
    for msg_type in [M::FLUSH, M::X_SPDFLUSH, M::DUMP, M::X_SPDDUMP] {
        let request = message(msg_type, 0, |writer| {
            writer.xfrm(0, 0, &if_id(1));
        });
        assert_eq!(w.errno(session, &request), libc::EOPNOTSUPP, "{msg_type:?}");
    }
}

/// `xfrm_state_lookup` and `xfrm_state_add`: an SA is found by packets of its mark, and one without a mark by all.
#[test]
fn the_mark_is_a_part_of_an_sas_name() {
    let mut w = World::new();
    let session = w.open(true);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &mark(1, 0xff))), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &mark(2, 0xff))), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &mark(2, 0xff))), libc::EEXIST);
    assert_eq!(w.errno(session, &sa(M::GET, 0x1000, &[])), libc::ESRCH);
    let found = w.ask(session, &sa(M::GET, 0x1000, &mark(2, u32::MAX))).remove(0);
    assert_eq!(SaView::of_message(&parse(&found)).unwrap().id().mark, 2);
    assert_eq!(w.errno(session, &sa(M::DELETE, 0x1000, &mark(1, 0xff))), 0);
    assert_eq!(w.errno(session, &sa(M::GET, 0x1000, &mark(1, 0xff))), libc::ESRCH);
    assert_eq!(w.errno(session, &sa(M::UPDATE, 0x1000, &mark(2, 0xff))), 0);
    // One without a mark is every mark's, so that no other can come beside it.
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &[])), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &mark(3, 0xff))), libc::EEXIST);
}

/// `xfrm_policy_insert`, `xfrm_policy_match`, `xfrm_state_find`: two policies with one selector, each for its own packets and SAs.
#[test]
fn marks_and_interfaces_decide_which_policy_and_sa_a_packet_takes() {
    let mut w = World::new();
    let session = w.open(true);
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &mark(1, 0xff))), 0);
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &mark(1, 0xff))), libc::EEXIST);
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &if_id(42))), 0);
    assert_eq!(w.outbound(0, 0), Some(vec![]), "no policy is for it");
    assert_eq!(w.outbound(1, 0), None, "there is no SA");
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1001, &mark(1, 0xff))), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1042, &if_id(42))), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1000, &[])), 0);
    assert_eq!(w.outbound(1, 0), Some(vec![0x1000]), "an SA without a mark is for every mark, and it is the newest");
    assert_eq!(w.errno(session, &sa(M::DELETE, 0x1000, &[])), 0);
    assert_eq!(w.outbound(0x101, 0), Some(vec![0x1001]), "the mask");
    assert_eq!((w.outbound(2, 0), w.outbound(0, 7)), (Some(vec![]), Some(vec![])));
    assert_eq!(w.outbound(0, 42), Some(vec![0x1042]));
    // By number only together with the interface.
    let shown = w.ask(session, &message(M::X_SPDDUMP, 0, |_| ())).remove(0);
    let id = PolicyView::of_message(&parse(&shown)).unwrap().id;
    assert_eq!(w.errno(session, &policy(M::X_SPDGET, id, 0, &[])), libc::ENOENT);
    assert_eq!(w.errno(session, &policy(M::X_SPDGET, id, 0, &if_id(42))), 0);
    assert_eq!(w.errno(session, &policy(M::X_SPDDELETE, 0, 0, &[])), libc::ENOENT);
    assert_eq!(w.errno(session, &policy(M::X_SPDDELETE, 0, 0, &if_id(42))), 0);
    assert_eq!((w.outbound(0, 42), w.outbound(1, 0)), (Some(vec![]), Some(vec![0x1001])));
}

/// `__xfrm4_selector_match`: a policy, and an SA, for the packets of one network interface.
#[test]
fn a_network_interface_decides_as_a_selector_does() {
    let mut w = World::new();
    let session = w.open(true);
    let dev = |number: u32| attributes(&[(attribute::DEV, &number.to_ne_bytes())]);
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &dev(5))), 0);
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &dev(6))), 0, "another selector");
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1006, &dev(6))), 0);
    assert_eq!(w.outbound_by(5), None, "the SA is for another interface");
    assert_eq!(w.outbound_by(6), Some(vec![0x1006]));
    assert_eq!(w.outbound_by(7), Some(vec![]));
    assert_eq!(w.errno(session, &policy(M::X_SPDDELETE, 0, 0, &[])), libc::ENOENT);
    assert_eq!(w.errno(session, &policy(M::X_SPDDELETE, 0, 0, &dev(5))), 0);
    assert_eq!(w.outbound_by(5), Some(vec![]));
}

/// `xfrm_state_look_at`, `xfrm_state_find`: which SA each processor's packets take, for an engine that is a copy of a kernel's.
#[test]
fn each_processor_has_sas_of_its_own() {
    let mut engine = Engine::with_seed(&LINUX, 1);
    let known = |bytes: &[u8]| Sa { mode: Mode::TRANSPORT, ..Sa::from(&SaView::of_message(&parse(bytes)).unwrap()) };
    let pcpu = |number: u32| attributes(&[(attribute::SA_PCPU, &number.to_ne_bytes())]);
    for (spi, said) in [(0x1003, pcpu(3)), (0x1000, Vec::new()), (0x1004, pcpu(4))] {
        engine.know_sa(known(&sa(M::ADD, spi, &said)));
    }
    let mut acquires = policy(M::X_SPDADD, 8, 1, &if_id(0));
    let flags = acquires.len() - 12;
    acquires[flags] = xfrm::FLAG_POLICY_CPU_ACQUIRE;
    engine.know_policy(Policy::from(&PolicyView::of_message(&parse(&acquires)).unwrap()));
    let chosen = |cpu: u32| {
        let flow = Flow { cpu, ..plain_flow() };
        let step = engine.explain(&flow, 1500).steps[0];
        (step.chosen.unwrap().spi, step.asks)
    };
    assert_eq!(chosen(3), (0x1003, false));
    assert_eq!(chosen(4), (0x1004, false));
    assert_eq!(chosen(5), (0x1000, true), "that of all, and one of its own is asked for");
    assert_eq!(chosen(Flow::ANY_CPU), (0x1000, true));
}

/// A session that is shown none does not learn of policies of type sub, which AF_KEY does not show, and can make none.
#[test]
fn sub_policies_are_for_those_who_are_shown_attributes() {
    let mut w = World::new();
    let (shown, plain) = (w.open(true), w.open(false));
    let sub = attributes(&[(attribute::POLICY_TYPE, &xfrm::POLICY_TYPE_SUB)]);
    // This engine's sub policies are its owner's.
    assert_eq!(w.errno(shown, &policy(M::X_SPDADD, 0, 1, &sub)), libc::EOPNOTSUPP);
    assert_eq!(w.errno(plain, &policy(M::X_SPDADD, 0, 1, &sub)), libc::EOPNOTSUPP);
    let main = attributes(&[(attribute::POLICY_TYPE, &[0; 6])]);
    assert_eq!(w.errno(plain, &policy(M::X_SPDADD, 0, 1, &main)), libc::EOPNOTSUPP);
    assert_eq!(w.drain(shown), Vec::<Vec<u8>>::new());
}

/// In an engine that stands for a kernel's, policies of both types may have one selector; those of type sub come first.
#[test]
fn sub_policies_of_a_copy_are_policies_of_their_own() {
    let mut w = World::new();
    w.hub.engine_mut().set_copy();
    let (shown, plain) = (w.open(true), w.open(false));
    let sub = attributes(&[(attribute::POLICY_TYPE, &xfrm::POLICY_TYPE_SUB)]);
    assert_eq!(w.errno(plain, &policy(M::X_SPDADD, 0, 1, &sub)), libc::EOPNOTSUPP, "whom it would not be shown");
    for (said, again) in [(&[][..], libc::EEXIST), (&sub, libc::EEXIST)] {
        assert_eq!(w.errno(shown, &policy(M::X_SPDADD, 0, 1, said)), 0);
        assert_eq!(w.errno(shown, &policy(M::X_SPDADD, 0, 1, said)), again);
    }
    assert_eq!(w.drain(plain).len(), 1, "of the one");
    let dumped = |w: &mut World, id| -> Vec<(u32, bool)> {
        let all = w.ask(id, &message(M::X_SPDDUMP, 0, |_| ()));
        let views = all.iter().map(|bytes| parse(bytes)).map(|message| {
            let view = PolicyView::of_message(&message).unwrap();
            (message.policy().unwrap().0.id.get(), Policy::from(&view).attached.xfrm.is_sub())
        });
        views.collect()
    };
    let all = dumped(&mut w, shown);
    let [(of_sub, true), (of_main, false)] = all[..] else { panic!("{all:?}") };
    assert_ne!(of_sub, of_main);
    assert_eq!(dumped(&mut w, plain), [(of_main, false)]);
    // By number each is found in its type alone; what replaces one keeps its number.
    for (id, said, errno) in
        [(of_sub, &sub[..], 0), (of_main, &[][..], 0), (of_sub, &[][..], libc::ENOENT), (of_main, &sub, libc::ENOENT)]
    {
        assert_eq!(w.errno(shown, &policy(M::X_SPDGET, id, 0, said)), errno, "{id} {said:?}");
    }
    assert_eq!(w.errno(shown, &policy(M::X_SPDUPDATE, 0, 7, &sub)), 0);
    assert_eq!(dumped(&mut w, shown), all);
    // A flush is of type main, as AF_KEY's.
    assert_eq!(w.errno(shown, &message(M::X_SPDFLUSH, 0, |_| ())), 0);
    assert_eq!(dumped(&mut w, shown), [(of_sub, true)]);
    assert_eq!(w.errno(shown, &policy(M::X_SPDDELETE2, of_sub, 0, &sub)), 0);
    assert_eq!(w.errno(shown, &policy(M::X_SPDDELETE, 0, 0, &sub)), libc::ENOENT);
}

/// The policy's mark and interface are what a key manager has to give the SA.
#[test]
fn an_acquire_says_for_whom() {
    let mut w = World::new();
    let session = w.open(true);
    w.ask(session, &message(M::REGISTER, 3, |_| ()));
    let said = [mark(1, 0xff), if_id(42)].concat();
    assert_eq!(w.errno(session, &policy(M::X_SPDADD, 0, 1, &said)), 0);
    assert_eq!(w.outbound(1, 42), None);
    let acquire = w.drain(session).remove(0);
    let parsed = parse(&acquire);
    assert_eq!((parsed.header().msg_type, said_by(&acquire)), (M::ACQUIRE, said.clone()));
    // The larval of the answer has them too.
    let getspi = message(M::GETSPI, 3, |writer| {
        ends(writer, 0);
        writer.spirange(0x1000, 0x1000).xfrm(0, 0, &said);
    });
    let larval = w.ask(session, &getspi).remove(0);
    assert_eq!(said_by(&larval), said);
    assert_eq!(w.errno(session, &sa(M::UPDATE, 0x1000, &said)), 0);
    assert_eq!(w.outbound(1, 42), Some(vec![0x1000]));
}

/// One that knows PF_KEY alone: the SA that it makes has no mark, and is for every mark (`__xfrm_find_acq_byseq`).
#[test]
fn a_key_manager_without_marks_answers_an_acquire() {
    let mut w = World::new();
    let manager = w.open(false);
    w.ask(manager, &message(M::REGISTER, 3, |_| ()));
    assert_eq!(w.errno(manager, &policy(M::X_SPDADD, 0, 1, &mark(1, 0xff))), 0);
    assert_eq!(w.outbound(1, 0), None);
    let acquire = w.drain(manager).remove(0);
    let mut getspi = message(M::GETSPI, 3, |writer| {
        ends(writer, 0);
        writer.spirange(0x1000, 0x1000);
    });
    getspi[8..12].copy_from_slice(&acquire[8..12]);
    assert_eq!(w.errno(manager, &getspi), 0);
    assert_eq!(w.errno(manager, &sa(M::UPDATE, 0x1000, &[])), 0);
    assert_eq!(w.outbound(1, 0), Some(vec![0x1000]));
}

/// What its dump holds back may have been written while another was shown extensions.
#[test]
fn a_dump_that_waited_shows_nothing_either() {
    const SAS: u32 = 2000;
    let mut w = World::new();
    let new = w.open(true);
    for spi in 0x1000..0x1000 + SAS {
        assert_eq!(w.errno(new, &sa(M::ADD, spi, &if_id(42))), 0);
    }
    let old = w.hub.open();
    w.hub.receive(old, &message(M::DUMP, 0, |_| ()), NOW, &mut w.queues).unwrap();
    assert!(w.hub.is_dumping(old), "the queue is full");
    w.hub.close(new, NOW);
    let mut dumped = Vec::new();
    loop {
        dumped.extend(w.drain(old));
        if !w.hub.is_dumping(old) {
            break;
        }
        w.hub.writable(old, NOW, &mut w.queues);
    }
    dumped.extend(w.drain(old));
    assert_eq!((dumped.len(), dumped.iter().any(|bytes| parse(bytes).has(Ext::X_XFRM))), (SAS as usize, false));
}

/// A session is shown extensions by another worker too, which learns of it from the session's state.
#[test]
fn what_a_session_asked_for_outlives_a_worker() {
    let mut w = World::new();
    let session = w.open(true);
    let state = w.hub.state(session);
    let mut other = World::new();
    let resumed = other.hub.resume(SessionId(99), &state, NOW);
    let answer = other.ask(resumed, &sa(M::ADD, 0x1000, &if_id(1))).remove(0);
    assert!(parse(&answer).has(Ext::X_XFRM));
}

#[test]
fn rfc_2367s_profile_has_them_too() {
    let mut w = World { hub: Hub::new(Engine::with_seed(&RFC2367, 1)), queues: Queues::new() };
    let session = w.open(true);
    let answer = w.ask(session, &sa(M::ADD, 0x1000, &mark(1, 1))).remove(0);
    assert_eq!((answer[2], said_by(&answer)), (0, mark(1, 1)));
    assert_eq!(w.errno(session, &sa(M::GET, 0x1000, &[])), libc::ESRCH);
    assert_eq!(w.errno(session, &sa(M::GET, 0x1000, &mark(1, 1))), 0);
    assert_eq!(w.errno(session, &sa(M::ADD, 0x1001, &[])), 0);
    let cut_off = attributes(&[(attribute::MARK, &[1, 0, 0, 0])]);
    assert_eq!(w.errno(session, &sa(M::DELETE, 0x1001, &cut_off)), libc::EINVAL);
    let refused = w.ask(session, &sa(M::DELETE, 0x1001, &if_id(7))).remove(0);
    let why = parse(&refused).xfrm().why().map(|why| why.to_string());
    assert_eq!(why.as_deref(), Some("attribute 31 (XFRMA_IF_ID) does not belong to this message"));
    let gone = w.ask(session, &sa(M::DELETE, 0x1000, &mark(1, 1))).remove(0);
    assert_eq!((gone[2], said_by(&gone)), (0, mark(1, 1)), "who hears of it learns which");
}

/// X_XFRM with a text, as the library sends it for `PFKEY_XFRM`.
fn settings(text: &str) -> Vec<u8> {
    message(M::X_XFRM, 2, |writer| {
        writer.xfrm(0, 0, &attributes(&[(0, text.as_bytes())]));
    })
}

impl World {
    /// A session with settings.
    fn open_in(&mut self, text: &str) -> SessionId {
        let id = self.hub.open();
        assert_eq!(self.errno(id, &settings(text)), 0, "{text}");
        id
    }

    /// Types of the messages that wait for a session.
    fn heard(&mut self, id: SessionId) -> Vec<M> {
        self.drain(id).iter().map(|bytes| parse(bytes).header().msg_type).collect()
    }

    fn spis(&mut self, id: SessionId) -> Vec<u32> {
        let shown = self.ask(id, &message(M::DUMP, 0, |_| ()));
        let dumped = shown.iter().map(|bytes| parse(bytes)).filter(|message| message.header().msg_type == M::DUMP);
        let mut spis: Vec<_> = dumped.filter_map(|message| Some(message.sa()?.spi.get())).collect();
        spis.sort_unstable();
        spis
    }
}

/// Two programs on one machine, each with its own interface, and one that sees everything.
#[test]
fn a_program_in_a_world_of_its_own_touches_and_hears_of_nothing_else() {
    let mut w = World::new();
    let (one, two, marked, all) = (w.open_in("if_id=1"), w.open_in("if_id=2"), w.open_in("mark=5/0xff"), w.open(false));
    for (id, spi) in [(all, 0x1000), (one, 0x1001), (two, 0x1002), (marked, 0x1005)] {
        assert_eq!(w.errno(id, &sa(M::ADD, spi, &[])), 0);
        assert_eq!(w.errno(id, &policy(M::X_SPDADD, 0, 1, &[])), 0, "another policy, though its selector is the same");
    }
    assert_eq!((w.heard(one), w.heard(two), w.heard(marked)), (vec![], vec![], vec![]));
    assert_eq!(w.heard(all), [M::ADD, M::X_SPDADD, M::ADD, M::X_SPDADD, M::ADD, M::X_SPDADD]);
    let own = [(one, 0x1001), (two, 0x1002), (marked, 0x1005)];
    for (id, spi) in own {
        assert_eq!(w.spis(id), [spi]);
        let policies = w.ask(id, &message(M::X_SPDDUMP, 0, |_| ()));
        assert_eq!(
            policies.iter().map(|bytes| parse(bytes).header().seq).collect::<Vec<_>>(),
            [0],
            "one, and the last"
        );
        assert!(policies.iter().all(|bytes| !parse(bytes).has(Ext::X_XFRM)), "it did not ask to be shown");
        // Its own are found, others' are not there.
        for (_, other) in own {
            let expected = if spi == other { 0 } else { libc::ESRCH };
            assert_eq!(w.errno(id, &sa(M::GET, other, &[])), expected, "{spi:#x} {other:#x}");
            assert_eq!(w.errno(id, &sa(M::UPDATE, other, &[])), expected, "{spi:#x} {other:#x}");
            if spi != other {
                assert_eq!(w.errno(id, &sa(M::DELETE, other, &[])), libc::ESRCH);
            }
        }
    }
    w.heard(all);
    // A flush is of its own; others of everything hear what became of each.
    let flushed = w.ask(one, &message(M::FLUSH, 0, |_| ()));
    assert_eq!(flushed.iter().map(|bytes| parse(bytes).header().msg_type).collect::<Vec<_>>(), [M::FLUSH, M::DELETE]);
    assert_eq!(w.errno(one, &message(M::X_SPDFLUSH, 0, |_| ())), 0);
    assert_eq!((w.heard(all), w.heard(two)), (vec![M::DELETE, M::X_SPDDELETE2], vec![]));
    assert_eq!((w.spis(one), w.spis(two), w.spis(marked)), (vec![], vec![0x1002], vec![0x1005]));
    assert_eq!(w.spis(all), [0x1000, 0x1002, 0x1005]);
    assert_eq!(w.errno(two, &sa(M::DELETE, 0x1002, &[])), 0);
    assert_eq!(w.errno(marked, &message(M::FLUSH, 2, |_| ())), 0);
    assert_eq!(w.spis(all), [0x1000, 0x1005]);
    // Nobody moves others' policies, or says that something is another world's.
    assert_eq!(w.errno(one, &message(M::X_MIGRATE, 0, |_| ())), libc::EOPNOTSUPP);
    assert_eq!(w.errno(one, &sa(M::ADD, 0x1001, &if_id(2))), libc::EINVAL);
    // Who flushes all flushes every world, and each hears of it.
    w.heard(two);
    assert_eq!(w.errno(all, &message(M::FLUSH, 0, |_| ())), 0);
    assert_eq!((w.heard(two), w.spis(all)), (vec![M::FLUSH], vec![]));
}

#[test]
fn an_acquire_reaches_the_key_manager_of_its_interface() {
    let mut w = World::new();
    let (one, two) = (w.open_in("if_id=1"), w.open_in("if_id=2"));
    for id in [one, two] {
        w.ask(id, &message(M::REGISTER, 3, |_| ()));
        assert_eq!(w.errno(id, &policy(M::X_SPDADD, 0, 1, &[])), 0);
    }
    w.drain(one);
    assert_eq!(w.outbound(0, 2), None);
    assert_eq!((w.heard(one), w.heard(two)), (vec![], vec![M::ACQUIRE]));
    // Its SA is made as with any key manager.
    let getspi = message(M::GETSPI, 3, |writer| {
        ends(writer, 0);
        writer.spirange(0x1000, 0x1000);
    });
    assert_eq!(w.errno(two, &getspi), 0);
    assert_eq!(w.errno(two, &sa(M::UPDATE, 0x1000, &[])), 0);
    assert_eq!((w.outbound(0, 2), w.outbound(0, 1)), (Some(vec![0x1000]), None));
}

#[test]
fn settings_are_for_what_they_name() {
    let mut w = World::new();
    let all = w.open(true);
    let text = "out:set-mark=0x10 in:set-mark=0x20 esp:replay-window=64 ah:tfcpad=9 icv=128 policy:localok esn";
    let id = w.open_in(text);
    w.ask(id, &sa(M::ADD, 0x1000, &[]));
    let shown = w.drain(all).remove(0);
    let said = parse(&shown).xfrm();
    let number =
        |number| said.attributes.payload(number).map(|payload| u32::from_ne_bytes(*payload.first_chunk().unwrap()));
    assert_eq!((number(attribute::SET_MARK), number(attribute::TFCPAD)), (Some(0x10), None));
    assert_eq!((number(attribute::REPLAY_ESN_VAL), said.fixed.flags), (Some(2), xfrm::FLAG_ESN));
    assert_eq!(parse(&shown).sa().unwrap().replay, 0, "the wider window is the only one");
    assert!(said.attributes.payload(attribute::ALG_AUTH_TRUNC).is_some());
    // What the program says itself goes before.
    let own = attributes(&[(attribute::SET_MARK, &7_u32.to_ne_bytes())]);
    w.ask(id, &sa(M::ADD, 0x1001, &own));
    let shown = w.drain(all).remove(0);
    assert_eq!(parse(&shown).xfrm().attributes.payload(attribute::SET_MARK), Some(&7_u32.to_ne_bytes()[..]));
    w.ask(id, &sa(M::UPDATE, 0x1001, &[]));
    let shown = w.drain(all).remove(0);
    assert_eq!(parse(&shown).xfrm().attributes.payload(attribute::SET_MARK), Some(&0x20_u32.to_ne_bytes()[..]));
    w.ask(id, &policy(M::X_SPDADD, 0, 1, &[]));
    let shown = w.drain(all).remove(0);
    assert_eq!((parse(&shown).xfrm().fixed.flags, said_by(&shown)), (1, vec![]));
    // It has no world, and sees everything.
    assert_eq!(w.spis(id), [0x1000, 0x1001]);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let mut w = World::new();
    let id = w.open(false);
    for text in ["if_id", "no", "if_id=1 if_id=2", "\u{1f511}=1", &"esn ".repeat(200)] {
        assert_eq!(w.errno(id, &settings(text)), libc::EINVAL, "{text}");
    }
    // The engine lacks it; the answer says which.
    w.hub.receive(id, &settings("if_id=3 pcpu=1"), NOW, &mut w.queues).unwrap();
    let answer = Header::read(&w.queues.pop(id).unwrap()).unwrap();
    assert_eq!((answer.errno, answer.reserved), (libc::EOPNOTSUPP as u8, attribute::SA_PCPU));
    w.ask(id, &sa(M::ADD, 0x1000, &[]));
    assert_eq!(w.spis(id), [0x1000], "nothing of it was set");
    // None are none.
    assert_eq!(w.errno(id, &settings("if_id=3")), 0);
    assert_eq!(w.spis(id), []);
    assert_eq!(w.errno(id, &settings("")), 0);
    assert_eq!(w.spis(id), [0x1000]);
}

#[test]
fn settings_outlive_a_worker() {
    let mut w = World::new();
    let session = w.open_in("if_id=7");
    let state = w.hub.state(session);
    let mut other = World::new();
    let resumed = other.hub.resume(SessionId(99), &state, NOW);
    let all = other.open(true);
    other.ask(resumed, &sa(M::ADD, 0x1000, &[]));
    assert_eq!(said_by(&other.drain(all).remove(0)), if_id(7));
    // Also where the other ended between its answer and its note.
    let state = pfkey_rs::hub::SessionState::default().after(&settings("if_id=8"));
    let resumed = other.hub.resume(SessionId(100), &state, NOW);
    assert_eq!(other.spis(resumed), []);
}

/// An error report has words for who asked, alone and in a batch, and is AF_KEY's sixteen bytes for everybody else.
#[test]
fn who_asked_is_told_why() {
    let mut w = World::new();
    let refused = sa(M::ADD, 0x1000, &attributes(&[(attribute::SA_PCPU, &[0; 4])]));
    let twice = [if_id(1), if_id(2)].concat();
    let twice = sa(M::ADD, 0x1000, &twice);
    for asked in [true, false] {
        let id = w.open(asked);
        let mut expected = Header::read(&refused).unwrap();
        (expected.len, expected.errno) = (2, 95);
        let answers = w.ask(id, &refused);
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        let why = |bytes: &[u8]| parse(bytes).xfrm().why().map(|why| why.to_string());
        if !asked {
            let mut plain = [0; 16];
            let writer = Writer::new(&mut plain, expected, Profile::Linux);
            assert_eq!(answer, writer.finish().unwrap());
            continue;
        }
        assert_eq!(answer[2], 95);
        assert_eq!(why(answer).as_deref(), Some("attribute 35 (XFRMA_SA_PCPU): only a kernel does this"));
        assert_eq!(why(&w.ask(id, &twice)[0]).as_deref(), Some("attribute 31 (XFRMA_IF_ID) is there twice"));
        // The words are of this request alone.
        let nothing = message(M::GET, 3, |writer| {
            writer.sa(SadbSa { spi: 0x9999.into(), ..Default::default() });
            ends(writer, 0);
        });
        assert_eq!(why(&w.ask(id, &nothing)[0]), None);
        w.hub.receive_all(id, &[&refused[..], &nothing].concat(), NOW, &mut w.queues);
        let answers = w.drain(id);
        assert_eq!((why(&answers[0]).is_some(), why(&answers[1])), (true, None));
        let said = w.hub.take_refusal().unwrap();
        assert!(
            said.ends_with("XFRMA_SA_PCPU): only a kernel does this") && said.contains("ADD of process 4242: "),
            "{said}"
        );
        assert_eq!(w.hub.take_refusal(), None);
    }
}
