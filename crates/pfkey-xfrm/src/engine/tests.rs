//! Receives that fail, on the kernel of this machine. Needs root.

use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use zerocopy::IntoBytes as _;

use super::reqid::Reqids;
use super::{Events, XfrmEngine};
use crate::netlink::Netlink;
use pfkey_hub::{Errno, Hub, Queues, Service as _, SessionId};
use pfkey_wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use pfkey_wire::{ExtensionType as Ext, Header, MessageType as M, Profile, SaType, SockaddrBytes, Writer};

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
        let request = SadbXIpsecrequest { len: 16.into(), proto: 50.into(), mode: 1, level, ..Default::default() };
        let fixed = SadbXPolicy { policy_type: 2.into(), dir: 2, ..Default::default() };
        let heard = self.ask(M::X_SPDADD, 0, |writer| {
            for (ext, last) in [(Ext::ADDRESS_SRC, 0), (Ext::ADDRESS_DST, n)] {
                writer.address(ext, 255, 32, SockaddrBytes::new([10, 0, 0, last].into(), 0).as_bytes());
            }
            writer.policy(fixed, request.as_bytes());
        });
        heard.into_iter().next().expect("an answer")
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
        let null = std::fs::File::open("/dev/null").unwrap();
        world.hub.engine_mut().spare = Some(Netlink::known(null.into()));
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
