//! More changes of the kernel's SAs at once than its socket holds events. Run by `tests/kernel/overrun`, inside a kernel.

use std::process::{Command, Stdio};
use std::time::Duration;

use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::model::sa::SaId;
use pfkey_rs::wire::{ExtensionType as Ext, Header, IpsecProtocol, Message, MessageType, Profile, SaType, Writer};
use pfkey_rs::xfrm::{Netlink, XfrmEngine};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const SAS: u32 = 100_000;

/// Commands of `ip`, 10 000 at a time: one process for all of them takes minutes in 7.2.
fn ip_batch(commands: impl Iterator<Item = String>) {
    use std::io::Write as _;
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let lines: String = commands.by_ref().take(10_000).map(|command| command + "\n").collect();
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }
}

fn name(n: u32) -> String {
    format!("src 192.0.2.1 dst 10.{}.{}.{} proto esp spi {:#x}", n >> 16, n >> 8 & 255, n & 255, 0x1000 + n)
}

fn request(hub: &mut Hub<XfrmEngine>, queues: &mut Queues, session: SessionId, msg_type: MessageType) {
    let mut buffer = [0; 16];
    Writer::new(&mut buffer, Header::new(msg_type, SaType::ESP, 1, 1), Profile::Linux).finish().unwrap();
    hub.receive(session, &buffer, NOW, queues).unwrap();
}

/// The names of the kernel's SAs, from a DUMP.
fn dumped(hub: &mut Hub<XfrmEngine>, queues: &mut Queues) -> Vec<SaId> {
    let session = hub.open();
    request(hub, queues, session, MessageType::DUMP);
    let mut names = Vec::new();
    loop {
        let bytes = queues.pop(session).expect("the rest of the dump");
        let message = Message::parse(&bytes, Profile::Linux).unwrap();
        if message.header().msg_type == MessageType::DUMP {
            let dst = message.address(Ext::ADDRESS_DST).unwrap().1.ip().unwrap();
            names.push(SaId::new(dst, message.sa().unwrap().spi.get(), IpsecProtocol::ESP));
            if message.header().seq == 0 {
                hub.close(session, NOW);
                return names;
            }
        }
        if queues.may_resume(session) {
            hub.writable(session, NOW, queues);
        }
    }
}

/// What the engine remembers is what the kernel has.
fn assert_equal(hub: &mut Hub<XfrmEngine>, queues: &mut Queues, expected: u32) {
    let names = dumped(hub, queues);
    let engine = hub.engine();
    println!("{} SAs in the kernel, {} remembered, {} overruns", names.len(), engine.remembered(), engine.overruns());
    assert_eq!(names.len(), expected as usize);
    assert_eq!(engine.remembered(), names.len());
    assert!(names.iter().all(|id| engine.remembers(id)));
}

#[test]
fn what_is_remembered_is_what_the_kernel_has() {
    if std::env::var_os("PFKEY_OVERRUN").is_none() {
        return eprintln!("skipped: an overrun is made by tests/kernel/overrun, inside real kernels");
    }
    let mut hub = Hub::new(XfrmEngine::new().expect("XFRM netlink"));
    let mut queues = Queues::new();
    let listener = hub.open();
    request(&mut hub, &mut queues, listener, MessageType::REGISTER);
    // It is told of no EXPIRE, and needs to remember nothing.
    let mut unregistered = Hub::new(XfrmEngine::new().expect("XFRM netlink"));

    // Nobody takes events while these happen.
    let add = |n: u32| format!("xfrm state add {} mode transport enc cipher_null ''", name(n));
    ip_batch((0..SAS).map(add));
    hub.event(NOW, &mut queues);
    assert!(hub.engine().overruns() > 0, "so many events fit: no overrun was made");
    assert_equal(&mut hub, &mut queues, SAS);
    unregistered.event(NOW, &mut queues);
    assert!(unregistered.engine().overruns() > 0);
    assert_eq!(unregistered.engine().remembered(), 0, "what went unseen would be remembered for ever");

    // What goes, and what else comes, while nobody looks.
    let before = hub.engine().overruns();
    let delete = |n: u32| format!("xfrm state delete {}", name(n));
    ip_batch((0..SAS).step_by(2).map(delete).chain((SAS..SAS + 10).map(add)));
    hub.event(NOW, &mut queues);
    assert!(hub.engine().overruns() > before);
    assert_equal(&mut hub, &mut queues, SAS / 2 + 10);

    // The listener missed most of it, and that is counted.
    let statistics = hub.statistics(listener).unwrap();
    println!("the listener: {} delivered, {} dropped", statistics.delivered, statistics.dropped);
    assert!(statistics.dropped > 0);
}

/// `XFRM_MSG_MIGRATE_STATE`: the SA moves to 10.255.0.1. False: this kernel does not have it.
fn move_alone(spi: u32) -> bool {
    let address = |bytes: [u8; 4]| [&bytes[..], &[0; 12]].concat();
    let named = [&address([10, 0, 0, 1])[..], &spi.to_be_bytes(), &2_u16.to_ne_bytes(), &[50, 0]].concat();
    let ends = [address([10, 255, 0, 1]), address([192, 0, 2, 1])].concat();
    // No mark. A selector without addresses.
    let selector = [&[0; 8 + 40][..], &2_u16.to_ne_bytes(), &[0; 14]].concat();
    let rest = [&7_u32.to_ne_bytes()[..], &[0; 4], &2_u16.to_ne_bytes(), &[0; 2]].concat();
    let body = [named, ends, selector, rest].concat();
    let len = (16 + body.len()) as u32;
    let head = [&len.to_ne_bytes()[..], &0x29_u16.to_ne_bytes(), &5_u16.to_ne_bytes(), &[0; 8]].concat();
    let socket = Netlink::open().expect("XFRM netlink");
    socket.send(&[head, body].concat()).expect("a request");
    let mut answer = [0; 4096];
    let answer = socket.receive(&mut answer).expect("an answer").expect("an answer");
    let errno = i32::from_ne_bytes(*answer[16..].first_chunk().expect("an errno"));
    assert!([0, -libc::EINVAL].contains(&errno), "{errno}");
    errno == 0
}

#[test]
fn an_sa_that_moves_alone_is_remembered_by_its_new_name() {
    if std::env::var_os("PFKEY_OVERRUN").is_none() {
        return eprintln!("skipped: SAs are made by tests/kernel/overrun, inside real kernels");
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let mut hub = Hub::new(XfrmEngine::new().expect("XFRM netlink"));
    let mut queues = Queues::new();
    let listener = hub.open();
    request(&mut hub, &mut queues, listener, MessageType::REGISTER);
    let (old, new) = ([10, 0, 0, 1], [10, 255, 0, 1]);
    let id = |dst: [u8; 4]| SaId::new(dst.into(), 0x1001, IpsecProtocol::ESP);
    ip_batch(std::iter::once(format!("xfrm state add {} mode transport enc cipher_null ''", name(1))));
    hub.event(NOW, &mut queues);
    assert!(hub.engine().remembers(&id(old)));
    while queues.pop(listener).is_some() {}
    if !move_alone(0x1001) {
        return eprintln!("skipped: this kernel has no XFRM_MSG_MIGRATE_STATE");
    }
    hub.event(NOW, &mut queues);
    assert_eq!([old, new].map(|dst| hub.engine().remembers(&id(dst))), [false, true]);
    assert_eq!(queues.pop(listener), None, "af_key says nothing of it");
}
