//! Receives that fail, on the kernel of this machine. Needs root.

use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use zerocopy::IntoBytes as _;

use super::event::{Event, Origin};
use super::reqid::Reqids;
use super::{Events, XfrmEngine};
use crate::attribute::{DUMP, REQUEST, Writer as Netmessages};
use crate::layout::message;
use crate::netlink::Netlink;
use nix::sys::socket::{setsockopt, sockopt};
use pfkey_hub::{Errno, Hub, KeyEngine as _, Queues, Service as _, SessionId};
use pfkey_model::migrate::Migration;
use pfkey_model::sa::Selector;
use pfkey_wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use pfkey_wire::xfrm::attribute::IF_ID;
use pfkey_wire::{
    ExtensionType as Ext, Header, MessageType as M, PolicyDirection, Prefix, Profile, SaType, SockaddrBytes, Writer,
};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const PID: u32 = 4242;

/// An engine in a network namespace of this thread's own, and a session.
struct World {
    hub: Hub<XfrmEngine>,
    queues: Queues,
    session: SessionId,
}

impl World {
    /// `None`: no namespace or no XFRM is to be had.
    fn new() -> Option<Self> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("skipped: a network namespace needs root");
            return None;
        }
        let engine = match XfrmEngine::new() {
            Err(Errno::EAFNOSUPPORT) => {
                eprintln!("skipped: this kernel has no XFRM");
                return None;
            }
            engine => engine.unwrap(),
        };
        Some(Self::of(engine))
    }

    fn of(engine: XfrmEngine) -> Self {
        let mut hub = Hub::new(engine);
        let session = hub.open();
        Self { hub, queues: Queues::new(), session }
    }

    /// The next receives of answers fail.
    fn fail(&mut self, times: usize, errno: Errno) {
        self.hub.engine_mut().requests.netlink.failing.set((times, Some(errno)));
    }

    /// Sends a request and returns what the session receives.
    fn ask(&mut self, msg_type: M, seq: u32, write: impl FnOnce(&mut Writer<'_>)) -> Vec<Vec<u8>> {
        let mut buffer = [0; 512];
        let mut writer = Writer::new(&mut buffer, Header::new(msg_type, SaType::ESP, seq, PID), Profile::Linux);
        write(&mut writer);
        let message = writer.finish().unwrap();
        self.hub.receive(self.session, message, NOW, &mut self.queues).unwrap();
        std::iter::from_fn(|| self.queues.pop(self.session)).collect()
    }

    /// The policy of this id: the last byte of its destination.
    fn policy(&mut self, id: u32) -> Result<u8, Errno> {
        let fixed = SadbXPolicy { id: id.into(), ..Default::default() };
        let mut heard = self.ask(M::X_SPDGET, 0, |writer| {
            writer.policy(fixed, &[]);
        });
        assert_eq!(heard.len(), 1);
        match heard[0][2] {
            // Headers, the source, and a sockaddr's address.
            0 => Ok(heard.remove(0)[16 + 24 + 8 + 7]),
            errno => Err(Errno::from_raw(errno.into())),
        }
    }

    fn add_policy(&mut self, n: u8, level: u8) -> Vec<u8> {
        let heard = self.ask(M::X_SPDADD, 0, |writer| write_policy(writer, n, level));
        heard.into_iter().next().expect("an answer")
    }

    /// The errnos of what the session receives when these policies are added at once.
    fn add_policies(&mut self, policies: impl Iterator<Item = u8>) -> Vec<u8> {
        self.add_policies_at(NOW, policies).iter().map(|message| message[2]).collect()
    }

    fn add_policies_at(&mut self, now: Duration, policies: impl Iterator<Item = u8>) -> Vec<Vec<u8>> {
        let batch: Vec<Vec<u8>> = policies
            .map(|n| {
                let mut buffer = [0; 512];
                let header = Header::new(M::X_SPDADD, SaType::UNSPEC, n.into(), PID);
                let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
                write_policy(&mut writer, n, 2);
                writer.finish().unwrap().to_vec()
            })
            .collect();
        if let [one] = &batch[..] {
            self.hub.receive(self.session, one, now, &mut self.queues).unwrap();
        } else {
            assert_eq!(self.hub.receive_all(self.session, &batch.concat(), now, &mut self.queues), 0);
        }
        std::iter::from_fn(|| self.queues.pop(self.session)).collect()
    }

    /// A larval of this SPI; its SPI.
    fn getspi(&mut self, spi: u32, reqid: u32) -> Result<u32, Errno> {
        let heard = self.ask(M::GETSPI, 0, |writer| {
            for (ext, last) in [(Ext::ADDRESS_SRC, 0), (Ext::ADDRESS_DST, 1)] {
                writer.address(ext, 0, 32, SockaddrBytes::new([10, 0, 0, last].into(), 0).as_bytes());
            }
            writer.spirange(spi, spi).sa2(1, reqid);
        });
        match heard[0][2] {
            0 => Ok(u32::from_be_bytes(*heard[0][20..].first_chunk().unwrap())),
            errno => Err(Errno::from_raw(errno.into())),
        }
    }
}

/// An outbound policy for packets to 10.0.0.n.
fn write_policy(writer: &mut Writer<'_>, n: u8, level: u8) {
    let request = SadbXIpsecrequest { len: 16.into(), proto: 50.into(), mode: 1, level, ..Default::default() };
    let fixed = SadbXPolicy { policy_type: 2.into(), dir: 2, ..Default::default() };
    for (ext, last) in [(Ext::ADDRESS_SRC, 0), (Ext::ADDRESS_DST, n)] {
        writer.address(ext, 255, 32, SockaddrBytes::new([10, 0, 0, last].into(), 0).as_bytes());
    }
    writer.policy(fixed, request.as_bytes());
}

/// A socket that takes no message.
fn mute() -> Netlink {
    Netlink::known(std::fs::File::open("/dev/null").unwrap().into())
}

/// The id of the n-th policy of a namespace whose policies are all outbound.
const fn id(n: u32) -> u32 {
    if n == 0 { 1 } else { 8 * n + 1 }
}

#[test]
fn after_a_receive_that_failed_every_question_gets_its_own_answer() {
    let Some(mut world) = World::new() else { return };
    for n in 0..4 {
        assert_eq!(world.add_policy(n, 2)[2], 0);
    }
    let mut spis = 0x1000..;
    for errno in [Errno::ENOBUFS, Errno::ENOMEM] {
        for times in 1..8 {
            // A question, whose answer stays where it is.
            world.fail(times, errno);
            let answer = world.policy(id(0));
            assert!([Ok(0), Err(errno)].contains(&answer), "{answer:?}");
            // A change that fails, whose error does.
            world.fail(times, errno);
            let failed = Errno::from_raw(world.add_policy(1, 2)[2].into());
            assert!([Errno::EEXIST, errno].contains(&failed), "{failed:?}");
            world.fail(times, errno);
            let spi = spis.next().unwrap();
            let got = world.getspi(spi, 0);
            assert!([Ok(spi), Err(errno)].contains(&got), "{got:?}");
            world.fail(0, errno);
            for n in [3, 1, 2, 0] {
                assert_eq!(world.policy(id(n)), Ok(n as u8), "{errno} {times} times");
                let spi = spis.next().unwrap();
                assert_eq!(world.getspi(spi, 0), Ok(spi));
                assert_eq!(world.policy(id(40)), Err(Errno::ENOENT));
                assert_eq!(world.add_policy(n as u8, 2)[2], libc::EEXIST as u8);
            }
        }
    }
}

#[test]
fn a_dump_that_cannot_begin_leaves_no_request_behind() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.add_policy(0, 2)[2], 0);
    for dump in [M::DUMP, M::X_SPDDUMP] {
        // The dump's socket takes no message.
        world.hub.engine_mut().spare = Some(mute());
        let heard = world.ask(dump, 0, |_| ());
        assert_eq!(heard.iter().map(|message| message[2]).collect::<Vec<_>>(), [libc::ENOTSOCK as u8]);
        assert_eq!(world.policy(id(0)), Ok(0), "the next question is answered");
        let left = world.hub.engine_mut().requests.netlink.receive(&mut [0; 4096]).map(|left| left.is_some());
        assert_eq!(left, Ok(false), "and nothing else");
    }
}

#[test]
fn an_algorithm_is_known_whatever_receive_fails() {
    let Some(mut world) = World::new() else { return };
    let expected = world.hub.engine_mut().probe_all().unwrap();
    assert!(!expected.auth.is_empty() && !expected.encrypt.is_empty());
    for times in 1..8 {
        world.fail(times, Errno::ENOBUFS);
        let _ = world.hub.engine_mut().probe_all();
        world.fail(0, Errno::ENOBUFS);
        assert_eq!(world.hub.engine_mut().probe_all(), Ok(expected.clone()));
    }
}

#[test]
fn a_unique_reqid_is_neither_a_policys_nor_an_sas() {
    let Some(mut world) = World::new() else { return };
    let reqid = |answer: &[u8]| u32::from_ne_bytes(*answer[answer.len() - 8..].first_chunk().unwrap());
    world.hub.engine_mut().reqids = Reqids::after(20_000);
    assert_eq!(reqid(&world.add_policy(1, 3)), 20_001);
    assert_eq!(world.getspi(0x1000, 20_002), Ok(0x1000));
    // As another program's engine that begins there: it asks the kernel.
    world.hub.engine_mut().reqids = Reqids::after(20_000);
    assert_eq!(reqid(&world.add_policy(2, 3)), 20_003);
    // The kernel reports what others add afterwards.
    let mut other = World::of(XfrmEngine::new().unwrap());
    other.hub.engine_mut().reqids = Reqids::after(20_003);
    assert_eq!(reqid(&other.add_policy(3, 3)), 20_004);
    world.hub.event(NOW, &mut world.queues);
    while world.queues.pop(world.session).is_some() {}
    assert_eq!(reqid(&world.add_policy(4, 3)), 20_005);
}

#[test]
fn an_attribute_is_known_whatever_receive_fails() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.policy(id(0)), Err(Errno::ENOENT));
    // All three answers are lost.
    world.fail(3, Errno::ENOBUFS);
    assert_eq!(world.hub.engine_mut().attribute(IF_ID), Err(Errno::ENOBUFS));
    world.fail(0, Errno::ENOBUFS);
    assert_eq!(world.hub.engine_mut().attribute(IF_ID), Ok(()));
}

#[test]
fn an_answer_is_not_kept() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.add_policy(7, 2)[2], 0);
    assert_eq!(world.policy(id(0)), Ok(7));
    assert!(world.hub.engine().requests.answer().is_none(), "it may hold keys");
}

#[test]
fn a_batch_is_carried_out_however_little_the_socket_takes_at_once() {
    let Some(mut world) = World::new() else { return };
    // Some ten policies.
    setsockopt(&world.hub.engine().requests.netlink, sockopt::SndBuf, &2304).unwrap();
    assert_eq!(world.add_policies(0..40), [0; 40]);
    let eexist = libc::EEXIST as u8;
    assert_eq!(world.add_policies((38..42).chain([40])), [eexist, eexist, 0, 0, eexist]);
    assert_eq!(world.policy(id(41)), Ok(41));
}

#[test]
fn a_worker_reads_nothing_of_the_dump_at_which_another_ended() {
    const LARVALS: u32 = 300;
    let Some(mut world) = World::new() else { return };
    (0..LARVALS).for_each(|n| assert_eq!(world.getspi(0x1000 + n, 0x5000 + n), Ok(0x1000 + n)));
    // Of another namespace there is one socket for everything, which stays with the guardian.
    let own = Netlink::open().unwrap();
    for seq in [1, std::process::id().rotate_left(16) + 1] {
        let mut request = Netmessages::default();
        request.message(message::GETSA, REQUEST | DUMP, seq, 0, &[0_u8; 0]);
        own.send(request.bytes()).unwrap();
        let left = own.try_clone().unwrap();
        let mut next = XfrmEngine::with_sockets(Events::open().unwrap(), left, true);
        let in_use = next.reqids_in_use().expect("its own dumps");
        assert_eq!(in_use.len(), LARVALS as usize);
    }
}

#[test]
fn a_reconciliation_that_failed_is_repeated() {
    let Some(mut world) = World::new() else { return };
    let fails = |world: &mut World| world.hub.engine_mut().spare = Some(mute());
    let events = |world: &mut World| world.hub.event(NOW, &mut world.queues);
    fails(&mut world);
    world.ask(M::REGISTER, 1, |_| ());
    // Another event is lost before it can be repeated.
    world.hub.engine_mut().inbox.netlink().failing.set((1, Some(Errno::ENOBUFS)));
    events(&mut world);
    assert!(!world.hub.engine().complete);
    world.hub.engine_mut().spare = None;
    events(&mut world);
    assert!(world.hub.engine().complete);
    // The same when SAs moved.
    fails(&mut world);
    let prefix = Prefix { address: [10, 0, 0, 1].into(), len: 32 };
    let migration = Migration {
        dir: PolicyDirection::OUTBOUND,
        selector: Selector { src: prefix, dst: prefix, proto: 0, sport: 0, dport: 0 },
        managers: None,
        moves: Vec::new(),
    };
    world.hub.with_engine(NOW, None, &mut world.queues, |engine, cx| {
        engine.apply(Origin { seq: 0, pid: 0 }, Event::Migrated(migration), cx).unwrap();
    });
    assert!(world.hub.engine().behind);
    world.hub.engine_mut().spare = None;
    events(&mut world);
    assert!(!world.hub.engine().behind);
}

/// The sockets of this namespace that listen to NETLINK_XFRM's ACQUIREs: the kernel wants SAs.
fn listeners() -> usize {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let columns = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let groups = columns.filter(|row| row[1] == "6").map(|row| u32::from_str_radix(row[3], 16).unwrap());
    groups.filter(|groups| groups & 1 != 0).count()
}

#[test]
fn a_registration_that_fails_leaves_no_listener_behind() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.policy(id(0)), Err(Errno::ENOENT));
    world.fail(3, Errno::ENOBUFS);
    assert_eq!(world.ask(M::REGISTER, 1, |_| ())[0][2], libc::ENOBUFS as u8);
    assert_eq!(listeners(), 0, "the kernel wants no SAs of nobody");
    world.fail(0, Errno::ENOBUFS);
    assert_eq!(world.ask(M::REGISTER, 1, |_| ())[0][2], 0);
    assert_eq!(listeners(), 1);
}

#[test]
fn a_worker_does_not_listen_for_a_session_that_went_with_another() {
    let Some(_world) = World::new() else { return };
    let events = Events::open().unwrap();
    let mut before = World::of(XfrmEngine::with_events(Events(events.0.try_clone().unwrap())).unwrap());
    before.ask(M::REGISTER, 1, |_| ());
    drop(before);
    let mut next = World::of(XfrmEngine::with_events(events).unwrap());
    assert_eq!(listeners(), 1);
    next.hub.all_are_restored(NOW);
    assert_eq!(listeners(), 0);
    next.ask(M::REGISTER, 1, |_| ());
    next.hub.all_are_restored(NOW);
    assert_eq!(listeners(), 1);
}

/// The events of others fill the socket of a pfkeyd that is held up. Before it asks for a change it makes room: of what does not
/// find any the kernel tells nothing, and whoever asked would wait for the answer in vain.
#[test]
fn a_change_is_told_of_whatever_filled_the_socket_of_events_before() {
    let Some(mut world) = World::new() else { return };
    world.hub.engine().inbox.netlink().set_receive_buffer(16 * 1024);
    assert_eq!(world.add_policies(200..201), [0]);
    let mut other = World::of(XfrmEngine::new().unwrap());
    for (n, own) in [201..202, 202..204].into_iter().enumerate() {
        let others = 100 * n as u8..100 * (n as u8 + 1);
        assert_eq!(other.add_policies(others).iter().filter(|errno| **errno == 0).count(), 100 + n);
        let seconds = Duration::from_secs(1 + n as u64);
        let answers = world.add_policies_at(NOW + seconds, own.clone());
        let told = answers.iter().filter(|bytes| own.contains(&(Header::read(bytes).unwrap().seq as u8)));
        assert_eq!(told.count(), own.len());
        assert_eq!(world.hub.engine().overruns(), 1 + n as u64, "all events fit: there was no overrun");
    }
}
