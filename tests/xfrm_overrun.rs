//! More changes of the kernel's SAs at once than its socket holds events. Run by `tests/kernel/overrun`, inside a kernel.

use std::process::{Command, Stdio};
use std::time::Duration;

use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::model::sa::SaId;
use pfkey_rs::wire::{ExtensionType as Ext, Header, IpsecProtocol, Message, MessageType, Profile, SaType, Writer};
use pfkey_rs::xfrm::XfrmEngine;

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

    // Nobody takes events while these happen.
    let add = |n: u32| format!("xfrm state add {} mode transport enc cipher_null ''", name(n));
    ip_batch((0..SAS).map(add));
    hub.event(NOW, &mut queues);
    assert!(hub.engine().overruns() > 0, "so many events fit: no overrun was made");
    assert_equal(&mut hub, &mut queues, SAS);

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
