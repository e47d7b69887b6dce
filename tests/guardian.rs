//! A pfkeyd whose processes are killed goes on: no descriptor closes, no request hangs or is done twice, nothing that was
//! registered or stored is lost.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with, send};
use pfkey_rs::wire::layout::{SadbSa, SadbXPolicy};
use pfkey_rs::wire::{ExtensionType, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/splitmix.rs"]
mod splitmix;
use daemon::Daemon;
use splitmix::Random;

/// The guardian behind a private descriptor: it made the socket.
fn guardian(fd: &OwnedFd) -> i32 {
    getsockopt(fd, sockopt::PeerCredentials).expect("its peer").pid()
}

/// The other processes of its session: the worker, and a standby where there is one.
fn others(guardian: i32) -> Vec<Pid> {
    // After the state: parent, group, session.
    processes(2, guardian, true)
}

fn children(parent: Pid) -> Vec<Pid> {
    processes(0, parent.as_raw(), true)
}

/// Processes that live, or that ended and were not waited for, and have this number there among those behind the state in
/// `/proc/PID/stat`.
fn processes(field: usize, number: i32, living: bool) -> Vec<Pid> {
    let wanted = number.to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let found = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name in parentheses.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let lives = fields.next() != Some("Z");
        (lives == living && fields.nth(field) == Some(&wanted) && pid != number).then(|| Pid::from_raw(pid))
    });
    found.collect()
}

fn header_only(msg_type: MessageType, satype: SaType, seq: u32) -> Vec<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(msg_type, satype, seq, std::process::id());
    Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits").to_vec()
}

/// What a test stores: SAs, or policies where the kernel has no ESP.
#[derive(Clone, Copy)]
enum Stored {
    Sas,
    Policies,
}

impl Stored {
    /// A request that adds the one of this number.
    fn add(self, number: u32) -> Vec<u8> {
        let mut buffer = [0; 256];
        let satype = match self {
            Self::Sas => SaType::AH,
            Self::Policies => SaType::UNSPEC,
        };
        let header = Header::new(self.added(), satype, number, std::process::id());
        let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
        let [_, a, b, c] = number.to_be_bytes();
        writer.address(ExtensionType::ADDRESS_SRC, 255, 32, SockaddrBytes::new([10, a, b, c].into(), 0).as_bytes());
        writer.address(ExtensionType::ADDRESS_DST, 255, 32, SockaddrBytes::new([10, 0, 0, 2].into(), 0).as_bytes());
        match self {
            Self::Sas => {
                // SADB_AALG_SHA1HMAC
                writer.sa(SadbSa { spi: number.into(), state: 1, auth: 3, ..SadbSa::default() });
                writer.key(ExtensionType::KEY_AUTH, 160, &[7; 20]);
            }
            Self::Policies => {
                // IPSEC_POLICY_DISCARD, IPSEC_DIR_OUTBOUND
                writer.policy(SadbXPolicy { policy_type: 0.into(), dir: 2, ..SadbXPolicy::default() }, &[]);
            }
        }
        writer.finish().expect("it fits").to_vec()
    }

    const fn added(self) -> MessageType {
        match self {
            Self::Sas => MessageType::ADD,
            Self::Policies => MessageType::X_SPDADD,
        }
    }

    const fn dump(self) -> MessageType {
        match self {
            Self::Sas => MessageType::DUMP,
            Self::Policies => MessageType::X_SPDDUMP,
        }
    }

    /// The number of one that a dump lists.
    fn number(message: &[u8]) -> u32 {
        let mut rest = &message[16..];
        while rest[2..4] != ExtensionType::ADDRESS_SRC.0.to_ne_bytes() {
            rest = &rest[8 * usize::from(u16::from_ne_bytes([rest[0], rest[1]]))..];
        }
        // Behind the extension's header and the sockaddr's family and port.
        u32::from_be_bytes([0, rest[13], rest[14], rest[15]])
    }
}

/// The next message; panics if none comes.
fn next(fd: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(30_000_u16)), Ok(1), "no answer came");
    let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("recv");
    assert_ne!(len, 0, "the descriptor was closed");
    buffer.truncate(len);
    buffer
}

/// Sends a request and gives the first answer to it.
fn ask(fd: &OwnedFd, request: &[u8]) -> Header {
    send(fd.as_raw_fd(), request).expect("send");
    let seq = Header::read(request).expect("a request").seq;
    loop {
        let answer = Header::read(&next(fd)).expect("a message");
        if answer.seq == seq {
            return answer;
        }
    }
}

fn drain(fd: RawFd) {
    while recv(fd, &mut [0; 4096], MsgFlags::MSG_DONTWAIT).is_ok() {}
}

/// Kills one process of a pfkeyd's after another while `work` runs: the next some time after there are `processes` again and
/// two more requests were answered.
fn while_killed(guardian: i32, processes: usize, kills: usize, work: impl FnOnce(&AtomicBool, &AtomicUsize)) -> usize {
    /// Ends the killer, too, when the work panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut random = Random(processes as u64);
            let mut killed = 0;
            let over = || done.load(Ordering::Relaxed);
            while killed < kills && !over() {
                let victims = others(guardian);
                if victims.len() < processes {
                    std::thread::yield_now();
                    continue;
                }
                // Whoever is new is known to the guardian when the worker goes on with requests.
                let seen = answered.load(Ordering::Relaxed);
                while answered.load(Ordering::Relaxed) < seen + 2 && !over() {
                    std::thread::yield_now();
                }
                // As long as some requests take: at any point of one.
                std::thread::sleep(Duration::from_micros(random.below(4_000) as u64));
                let victim = victims[random.below(victims.len())];
                killed += usize::from(kill(victim, Signal::SIGKILL).is_ok());
                // One at a time: it must not count while it dies.
                while others(guardian).contains(&victim) && !over() {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
            killed
        });
        let over = Over(&done);
        work(&done, &answered);
        drop(over);
        killer.join().expect("the killer")
    })
}

/// What a client found out while its pfkeyd was killed.
struct Story {
    stored: Stored,
    added: HashSet<u32>,
    /// It was said that nobody knows.
    uncertain: HashSet<u32>,
}

impl Story {
    fn of(stored: Stored) -> Self {
        Self { stored, added: HashSet::new(), uncertain: HashSet::new() }
    }

    /// Adds SAs until all kills are done.
    fn add_until(&mut self, key: &OwnedFd, done: &AtomicBool, answered: &AtomicUsize, mut between: impl FnMut(u32)) {
        let mut spi = 0x1000 + (self.added.len() + self.uncertain.len()) as u32;
        while !done.load(Ordering::Relaxed) {
            spi += 1;
            let answer = ask(key, &self.stored.add(spi));
            let new = match i32::from(answer.errno) {
                0 => self.added.insert(spi),
                libc::EIO => self.uncertain.insert(spi),
                other => panic!("errno {other} of SPI {spi:#x}"),
            };
            assert!(new);
            answered.fetch_add(1, Ordering::Relaxed);
            drain(key.as_raw_fd());
            between(spi);
        }
    }

    /// All that were added are there, and none that was neither; the registration, too.
    fn check(&self, key: &OwnedFd) {
        drain(key.as_raw_fd());
        send(key.as_raw_fd(), &header_only(self.stored.dump(), SaType::UNSPEC, 7)).expect("send");
        let mut dumped = HashSet::new();
        loop {
            let message = next(key);
            let header = Header::read(&message).expect("a message");
            if (header.msg_type, header.errno) == (self.stored.added(), 0) {
                // What an interrupted request did is news for its sender, too.
                continue;
            }
            assert_eq!((header.msg_type, header.errno), (self.stored.dump(), 0));
            let spi = Stored::number(&message);
            assert!(dumped.insert(spi), "twice: {spi:#x}");
            if header.seq == 0 {
                break;
            }
        }
        assert!(self.added.is_subset(&dumped));
        assert!(dumped.iter().all(|spi| self.added.contains(spi) || self.uncertain.contains(spi)));
        let again = ask(key, &header_only(MessageType::REGISTER, SaType::AH, 9));
        assert_eq!(again.errno, Errno::EEXIST as u8, "still registered");
    }
}

fn registered(backend: &Backend) -> OwnedFd {
    let key = open_with(backend).expect("a pfkeyd");
    assert_eq!(ask(&key, &header_only(MessageType::REGISTER, SaType::AH, 1)).errno, 0);
    key
}

/// How often a process is killed in a test: PFKEY_KILLS says otherwise.
fn kills() -> usize {
    std::env::var("PFKEY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

fn killed_again_and_again(backend: &Backend, stored: Stored) {
    let key = registered(backend);
    let mut story = Story::of(stored);
    let killed =
        while_killed(guardian(&key), 1, kills(), |done, answered| story.add_until(&key, done, answered, |_| {}));
    println!("{killed} kills, {} SAs added, {} requests interrupted", story.added.len(), story.uncertain.len());
    story.check(&key);
}

#[test]
fn an_embedded_engine_whose_worker_is_killed_again_and_again_loses_nothing() {
    killed_again_and_again(&Backend::Embedded, Stored::Sas);
}

/// A network namespace of this thread only, and of the pfkeyds that it starts. False: this machine has none with XFRM.
fn new_network() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a network namespace of its own needs root");
        return false;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    open_with(&Backend::Xfrm).inspect_err(|error| println!("skipped: {error}")).is_ok()
}

#[test]
fn a_pfkeyd_over_xfrm_whose_worker_is_killed_again_and_again_loses_nothing() {
    if new_network() {
        killed_again_and_again(&Backend::Xfrm, Stored::Policies);
    }
}

/// Adds a policy while clients have no worker. Each of them receives one notification of it.
fn a_policy_is_added_meanwhile(clients: &[OwnedFd], guardian: Pid, worker: Pid) {
    kill(guardian, Signal::SIGSTOP).expect("it lives");
    kill(worker, Signal::SIGKILL).expect("it lives");
    while children(guardian).contains(&worker) {
        std::thread::yield_now();
    }
    let other = open_with(&Backend::Xfrm).expect("another pfkeyd");
    assert_eq!(ask(&other, &Stored::Policies.add(1)).errno, 0);
    kill(guardian, Signal::SIGCONT).expect("it lives");
    for client in clients {
        let news = Header::read(&next(client)).expect("a message");
        assert_eq!((news.msg_type, news.errno), (MessageType::X_SPDADD, 0));
        send(client.as_raw_fd(), &header_only(MessageType::DUMP, SaType::AH, 5)).expect("send");
        let answer = Header::read(&next(client)).expect("a message");
        assert_eq!((answer.msg_type, answer.seq), (MessageType::DUMP, 5), "and nothing else");
    }
}

#[test]
fn what_the_kernel_reports_while_no_worker_lives_is_not_lost() {
    if !new_network() {
        return;
    }
    let key = open_with(&Backend::Xfrm).expect("a pfkeyd");
    let guardian = guardian(&key);
    let worker = others(guardian)[0];
    a_policy_is_added_meanwhile(&[key], Pid::from_raw(guardian), worker);
}

#[test]
fn every_client_receives_what_the_kernel_reported_while_no_worker_lived() {
    if !new_network() {
        return;
    }
    let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("pfkey-guardian-XXXXXX")).expect("a directory");
    let daemon = Daemon::start_with(&directory, &["--engine", "xfrm"]);
    let backend = Backend::parse(daemon.backend().as_bytes()).expect("a backend");
    let clients: Vec<OwnedFd> = (0..20).map(|_| open_with(&backend).expect("a client")).collect();
    // All are served before the worker is killed.
    for client in &clients {
        ask(client, &header_only(MessageType::DUMP, SaType::AH, 4));
    }
    let guardian = children(Pid::from_raw(guardian(&clients[0])))[0];
    let worker = children(guardian)[0];
    a_policy_is_added_meanwhile(&clients, guardian, worker);
    drop(daemon);
    std::fs::remove_dir_all(directory).expect("it is ours");
}

/// Refuses to wait for events, as a filter of a program's own may that a pfkeyd inherits, and becomes another program.
const NO_EPOLL: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef SYS_epoll_wait
#define SYS_epoll_wait SYS_epoll_pwait
#endif
#define IF(number, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, skip, 0)
int main(int argc, char **argv) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        IF(SYS_epoll_wait, 2),
        IF(SYS_epoll_pwait, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 77;
    execv(argv[1], argv + 1);
    return 99;
}
"#;

/// A worker that dies of what will be so for the next one, too, would keep a processor busy for ever.
#[test]
fn workers_that_die_at_once_are_started_once_in_a_second() {
    let directory = c::scratch("guardian_hasty");
    let filter = c::compile_text(&directory, "no_epoll", NO_EPOLL, &[]);
    let mut pfkeyd = std::process::Command::new(filter);
    let pfkeyd = pfkeyd.arg(c::program("pfkeyd")).args(["--unconfined", "--listen"]).arg(directory.join("socket"));
    let mut pfkeyd = pfkeyd.stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let said = BufReader::new(pfkeyd.stderr.take().expect("its stderr"));
    let waits =
        said.lines().any(|line| line.is_ok_and(|line| line.ends_with(" died one after another; the next in 1s")));
    kill(Pid::from_raw(pfkeyd.id() as i32), Signal::SIGTERM).expect("it lives");
    pfkeyd.wait().expect("its end");
    assert!(waits, "it ended");
    std::fs::remove_dir_all(directory).expect("it is ours");
}

/// The record of what was done is begun anew when it is full, on a copy of the process.
#[test]
fn an_embedded_engine_goes_on_from_its_standby() {
    let key = registered(&Backend::Embedded);
    let guardian = guardian(&key);
    // No message at all, but recorded: an unknown extension type of 60 KiB.
    let mut large = header_only(MessageType::ADD, SaType::AH, 3);
    large[4..6].copy_from_slice(&(2 + 7680_u16).to_ne_bytes());
    large.extend([0x00, 0x1e, 200, 0]);
    large.resize(16 + 61440, 0);
    let fill = |bytes: usize| {
        for _ in 0..bytes / large.len() {
            // Refused, or interrupted.
            assert!([libc::EINVAL, libc::EIO].contains(&ask(&key, &large).errno.into()));
        }
    };
    let mut story = Story::of(Stored::Sas);
    story.added.extend([1, 2]);
    for spi in [1, 2] {
        assert_eq!(ask(&key, &Stored::Sas.add(spi)).errno, 0);
    }
    assert_eq!(others(guardian).len(), 1, "a worker");
    fill(20 << 20);
    assert_eq!(others(guardian).len(), 2, "a worker and a standby");
    fill(40 << 20);
    assert_eq!(processes(2, guardian, false), [], "standbys that ended");
    let killed = while_killed(guardian, 2, 100, |done, answered| {
        story.add_until(&key, done, answered, |spi| {
            if spi % 8 == 0 {
                fill(1 << 20)
            }
        })
    });
    assert_eq!(killed, 100);
    println!("{killed} kills, {} SAs added, {} requests interrupted", story.added.len(), story.uncertain.len());
    story.check(&key);
}
