//! What has to hold before an SA is allocated: `xfrm_state_alloc` as a program over PF_KEY reaches it, or does not.

#[path = "scenarios/build.rs"]
#[allow(dead_code)]
mod build;
#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::process::Command;
use std::time::Duration;

use build::Msg;
use nix::libc::{EEXIST, EINVAL, EMSGSIZE, ENOSYS, ESRCH};
use pfkey_rs::engine::{Engine, LINUX, SaCounts};
use pfkey_rs::hub::{Hub, Queues, Service as _, SessionId};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType as M, SaType as S};

const NOW: Duration = Duration::from_secs(1_000_000);
const A: &str = "192.168.0.1";
const B: &str = "192.168.0.2";

/// SA, source, destination, key: all that AH needs.
fn ah(msg_type: M) -> Msg {
    Msg::new(msg_type, S::AH, 1).sa(0x10001, 3, 0).pair(A, B).key(Ext::KEY_AUTH, 20)
}

/// SA, source, destination, both keys.
fn esp() -> Msg {
    Msg::new(M::ADD, S::ESP, 1).sa(0x10001, 3, 12).pair(A, B).key(Ext::KEY_AUTH, 20).key(Ext::KEY_ENCRYPT, 16)
}

fn with_satype(satype: u8, message: Msg) -> Msg {
    Msg { header: Header { satype: S(satype), ..message.header }, ..message }
}

fn with_algorithms(auth: u8, encrypt: u8, message: Msg) -> Msg {
    message.broken(0, |sa| (sa[10], sa[11]) = (auth, encrypt))
}

/// How far a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It has not all that an SA needs.
    Nothing,
    /// An SA is allocated, and thrown away.
    Allocation,
    /// It is in the SADB.
    Sadb,
}
use Reached::{Allocation, Nothing, Sadb};

/// What is wrong with a request, the request, its errno, and how far it comes.
type Row = (&'static str, Msg, i32, Reached);

/// One row for each condition, in the order in which `pfkey_msg2xfrm_state` looks at them.
fn rows() -> Vec<Row> {
    let lifetime = |ext| ah(M::ADD).lifetime(ext, 0, 0, 60, 0);
    vec![
        ("nothing", ah(M::ADD), 0, Sadb),
        ("nothing, ESP", esp(), 0, Sadb),
        // Before the allocation.
        ("no SA", ah(M::ADD).without(0), EINVAL, Nothing),
        ("an SA extension of no type", ah(M::ADD).broken(0, |sa| sa[2] = 0), EINVAL, Nothing),
        ("no source", ah(M::ADD).without(1), EINVAL, Nothing),
        ("no destination", ah(M::ADD).without(2), EINVAL, Nothing),
        ("two families", ah(M::ADD).without(2).address(Ext::ADDRESS_DST, "2001:db8::1", 0, 0, 128), EINVAL, Nothing),
        (
            "a prefix longer than its address",
            ah(M::ADD).without(1).address(Ext::ADDRESS_SRC, A, 0, 0, 33),
            EINVAL,
            Nothing,
        ),
        ("ESP without a key for encryption", esp().without(4), EINVAL, Nothing),
        ("AH without a key for authentication", ah(M::ADD).without(3), EINVAL, Nothing),
        ("hard limits without soft ones", lifetime(Ext::LIFETIME_HARD), EINVAL, Nothing),
        ("soft limits without hard ones", lifetime(Ext::LIFETIME_SOFT), EINVAL, Nothing),
        ("an SA type that has no protocol", with_satype(S::RSVP.0, ah(M::ADD)), EINVAL, Nothing),
        ("an SA type that does not exist", with_satype(10, ah(M::ADD)), EINVAL, Nothing),
        ("authentication above SADB_AALG_MAX", with_algorithms(252, 0, ah(M::ADD)), EINVAL, Nothing),
        ("encryption above SADB_EALG_MAX", with_algorithms(3, 254, esp()), EINVAL, Nothing),
        ("compression above SADB_X_CALG_MAX", with_algorithms(0, 5, with_satype(9, ah(M::ADD))), EINVAL, Nothing),
        ("a key of 0 bits", ah(M::ADD).without(3).key_bits(Ext::KEY_AUTH, 0, 0), EINVAL, Nothing),
        // After it.
        ("a label of no LSM", ah(M::ADD).context(9, 1, b"label"), EINVAL, Allocation),
        ("authentication that nobody has", with_algorithms(200, 0, ah(M::ADD)), ENOSYS, Allocation),
        ("encryption that nobody has", with_algorithms(3, 200, esp()), ENOSYS, Allocation),
        ("a mode that does not exist", ah(M::ADD).sa2(4, 0), EINVAL, Allocation),
        ("AH without authentication", with_algorithms(0, 0, ah(M::ADD)), EINVAL, Allocation),
        ("a key too long for its cipher", esp().without(4).key(Ext::KEY_ENCRYPT, 33), EINVAL, Allocation),
        ("nothing to update", ah(M::UPDATE), ESRCH, Allocation),
    ]
}

struct World {
    hub: Hub<Engine>,
    queues: Queues,
    id: SessionId,
}

impl World {
    fn new() -> Self {
        let mut hub = Hub::new(Engine::with_seed(&LINUX, 1));
        let id = hub.open();
        Self { hub, queues: Queues::new(), id }
    }

    /// The errno of the answer.
    fn ask(&mut self, message: &Msg) -> i32 {
        self.hub.receive(self.id, &message.bytes(), NOW, &mut self.queues).expect("a message");
        let answer = self.queues.pop(self.id).expect("an answer");
        Header::read(&answer).expect("a header").errno.into()
    }

    fn counts(&self) -> SaCounts {
        self.hub.engine().sa_counts()
    }
}

#[test]
fn one_row_for_each_condition() {
    for (what, message, errno, reached) in rows() {
        let mut world = World::new();
        assert_eq!(world.ask(&message), errno, "{what}");
        let counts = world.counts();
        let got = match (counts.allocated, counts.added) {
            (0, 0) => Nothing,
            (1, 0) => Allocation,
            (1, 1) => Sadb,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(got, reached, "{what}");
        assert_eq!(world.hub.engine().sadb().len(), usize::from(reached == Sadb), "{what}");
    }
}

/// The same rows on AF_KEY, where there is one: `tests/kernel/run-uml` runs this program inside a kernel.
#[test]
fn af_key_gives_the_same_errnos() {
    for (what, message, errno, _) in rows() {
        // Namespaces of their own: each row has an empty SADB.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return eprintln!("skipped: no right to make network namespaces");
        }
        let fd = match socket::open_with(&Backend::AfKey) {
            Ok(fd) => fd,
            Err(error) => return eprintln!("skipped: no AF_KEY here ({error})"),
        };
        use std::os::fd::AsRawFd as _;
        socket::send(fd.as_raw_fd(), &message.bytes()).expect("a message");
        let mut answer = [0; 512];
        let len = nix::sys::socket::recv(fd.as_raw_fd(), &mut answer, nix::sys::socket::MsgFlags::MSG_DONTWAIT);
        let header = Header::read(&answer[..len.expect("an answer")]).expect("a header");
        assert_eq!(i32::from(header.errno), errno, "{what}");
    }
}

/// The three stages of an SA, and what else allocates one.
#[test]
fn the_counters_follow_an_sa() {
    let counts = |requests, allocated, added| SaCounts { requests, allocated, added };
    let mut world = World::new();
    let mut trace = vec![world.counts().to_string()];
    let mut message = ah(M::ADD);
    // The header alone announces more than it is: send refuses it, nobody reads it.
    let refused = world.hub.receive(world.id, &message.bytes()[..16], NOW, &mut world.queues).expect_err("no message");
    assert_eq!((refused.rule.errno().to_raw(), world.counts()), (EMSGSIZE, counts(0, 0, 0)));
    assert_eq!(world.ask(&message.without(0)), EINVAL);
    trace.push(world.counts().to_string());
    assert_eq!(world.ask(&message), 0);
    trace.push(world.counts().to_string());
    assert_eq!(world.ask(&message), EEXIST);
    trace.push(world.counts().to_string());
    assert_eq!(
        trace,
        [
            "SAs: 0 requests, 0 allocated, 0 added",
            "SAs: 1 requests, 0 allocated, 0 added",
            "SAs: 2 requests, 1 allocated, 1 added",
            "SAs: 3 requests, 2 allocated, 1 added",
        ]
    );
    // GETSPI makes a larval; the SA that completes it is another.
    assert_eq!(world.ask(&Msg::new(M::GETSPI, S::AH, 2).pair(A, B).range(0x2000, 0x2000)), 0);
    assert_eq!(world.counts(), counts(3, 3, 2));
    message = ah(M::UPDATE).broken(0, |sa| sa[4..8].copy_from_slice(&0x2000_u32.to_be_bytes()));
    assert_eq!(world.ask(&message), 0);
    assert_eq!(world.counts(), counts(4, 4, 3));
}

/// What `sadb_add` sends, byte for byte by RFC 2367 section 2 on a little-endian machine: the one message that it takes.
#[test]
#[cfg(target_endian = "little")]
fn the_bytes_of_an_add() {
    use std::os::fd::AsRawFd as _;
    let dir = c::scratch("state_alloc_bytes");
    let daemon = daemon::Daemon::start(&dir);
    let sources = ["sadb_add.c", "common.c"].map(|name| c::root().join("c-tests").join(name));
    let program = c::compile(&dir, "sadb_add", &sources, &[]);
    // A promiscuous listener hears each request as it came.
    let backend = Backend::Unix(dir.join("pfkeyd.sock"));
    let listener = socket::open_with(&backend).expect("a descriptor");
    socket::send(listener.as_raw_fd(), &Msg::new(M::X_PROMISC, S(1), 0).bytes()).expect("a message");
    let mut child = Command::new(&program)
        .env("PFKEY_BACKEND", daemon.backend())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    let pid = child.id().to_ne_bytes();
    assert!(child.wait().expect("it ends").success());
    let mut heard = vec![0; 4096];
    let message = loop {
        let len = nix::sys::socket::recv(listener.as_raw_fd(), &mut heard, nix::sys::socket::MsgFlags::MSG_DONTWAIT);
        let bytes = &heard[..len.expect("the request was heard")];
        if bytes[1] == M::ADD.0 {
            break bytes.to_vec();
        }
    };
    let expected = [
        // Version 2, ADD, no errno, AH; 14 words, seq 1, pid.
        &[2, 3, 0, 2, 14, 0, 0, 0, 1, 0, 0, 0][..],
        &pid,
        // SA: 2 words; SPI 0x10001 in network order, replay 0, mature, HMAC-SHA1, no cipher, no flags.
        &[2, 0, 1, 0, 0, 1, 0, 1, 0, 1, 3, 0, 0, 0, 0, 0],
        // Source: 3 words; no protocol, /32; 192.168.0.1.
        &[3, 0, 5, 0, 0, 32, 0, 0, 2, 0, 0, 0, 192, 168, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        // Destination: 192.168.0.2.
        &[3, 0, 6, 0, 0, 32, 0, 0, 2, 0, 0, 0, 192, 168, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        // Authentication key: 4 words; 160 bits, and 4 bytes of padding.
        &[4, 0, 8, 0, 160, 0, 0, 0],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(message, expected);
}

/// A program for `xfrm_state_alloc` as it was first written: two names exist nowhere; with numbers for them it compiles,
/// and its first send is refused, so that it ends with 1 and nothing is allocated. It links with nothing but libc.
#[test]
fn as_first_written() {
    let dir = c::scratch("state_alloc_as_written");
    let source = c::root().join("c-tests/preload/as_written.c");
    let missing = ["SADB_X_CFG_DFLT", "SADB_AH_ALG_HMAC_SHA1"];
    let output = Command::new("cc").args(["-fsyntax-only"]).arg(&source).output().expect("a compiler");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && missing.iter().all(|name| errors.contains(name)), "{errors}");

    let flags = ["-D_GNU_SOURCE", "-DSADB_X_CFG_DFLT=0", "-DSADB_AH_ALG_HMAC_SHA1=3"];
    let program = c::compile_plain(&dir, "as_written", &[source], &flags);
    let object = c::package("pfkey_preload", "libpfkey_preload.so");
    let output = Command::new(program)
        .env("LD_PRELOAD", object)
        .env("PFKEY_BACKEND", "embedded")
        .env("LC_ALL", "C")
        .output()
        .expect("it runs");
    let recorded = std::fs::read_to_string(c::root().join("c-tests/preload/as_written.txt")).expect("the recording");
    assert_eq!(String::from_utf8_lossy(&output.stderr), recorded, "as on AF_KEY");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
}
