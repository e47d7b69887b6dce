//! The example `userspace_vpn` on two hosts, which are network namespaces: key managers fill it, packets pass and none in
//! clear, an SA wears out and is renewed, and what it says of the MTU is what passes.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pfkey::{Backend, Cipher, Client, Direction, Event, Hmac, KeyManager, Limits, Policy, Rule, Sa, SaType};

const PORT: u16 = 4242;
const SECRET: &[u8] = b"nobody between the two may read this";

/// A host: a network namespace with a device to the other, and a VPN.
struct Host {
    /// A process that keeps the namespace.
    keeper: Child,
    vpn: Option<Child>,
    directory: PathBuf,
    outer: [u8; 4],
    inner: [u8; 4],
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a word")).args(words).status().expect(command);
    assert!(status.success(), "{command}");
}

/// The example, which `cargo test` builds unless it is told what to test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a name");
    let example = test.ancestors().nth(2).expect("target/debug").join("examples/userspace_vpn");
    if !example.exists() {
        let package = env!("CARGO_PKG_NAME");
        let arguments = ["build", "--locked", "--quiet", "--package", package, "--example", "userspace_vpn"];
        assert!(Command::new(env!("CARGO")).args(arguments).status().expect("cargo").success());
    }
    example
}

impl Host {
    fn new(n: u8) -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut line).expect("a word");
        assert_eq!(line, "there\n");
        let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("pfkey-vpn-XXXXXX")).expect("a directory");
        Self { keeper, vpn: None, directory, outer: [192, 0, 2, n], inner: [10, n, 0, 1] }
    }

    fn ip(&self, arguments: &str) {
        run(&format!("nsenter --net=/proc/{}/ns/net ip {arguments}", self.keeper.id()));
    }

    fn path(&self) -> PathBuf {
        self.directory.join("s")
    }

    fn backend(&self) -> Backend {
        Backend::Unix(self.path())
    }

    fn client(&self) -> Client {
        Client::open_with(&self.backend()).expect("the VPN serves")
    }

    /// Starts the VPN to another host.
    fn start(&mut self, other: &Host) {
        let [a, b, c, d] = self.outer;
        let (outer, pid) = (format!("{a}.{b}.{c}.{d}"), self.keeper.id());
        self.ip(&format!("address add {outer}/24 dev wire"));
        self.ip("link set wire up");
        let example = example();
        let mut vpn = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(example)
            .args(["vpn", &outer, "1500"])
            .arg(self.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example");
        let mut line = String::new();
        BufReader::new(vpn.stdout.take().expect("a pipe")).read_line(&mut line).expect("a word");
        assert_eq!(line, "ready\n");
        self.vpn = Some(vpn);
        let ([a, b, c, d], [e, f, ..]) = (self.inner, other.inner);
        self.ip(&format!("address add {a}.{b}.{c}.{d}/32 dev vpn"));
        self.ip("link set vpn up");
        self.ip(&format!("route add {e}.{f}.0.0/16 dev vpn src {a}.{b}.{c}.{d}"));
    }

    /// Does something in the host's namespace, on a thread of its own; what it opens stays there.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.id())).expect("a namespace");
        let enter = || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("it works"))
    }

    fn udp(&self) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind((std::net::Ipv4Addr::from(self.inner), PORT))).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        socket
    }

    /// Everything that passes on the wire, as whole IP packets.
    fn capture(&self) -> OwnedFd {
        self.inside(|| {
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let protocol = (libc::ETH_P_ALL as u16).to_be().into();
            // SAFETY: no pointers.
            let raw = nix::errno::Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, protocol) });
            // SAFETY: socket has just made it.
            unsafe { OwnedFd::from_raw_fd(raw.expect("root may")) }
        })
    }

    /// An outbound policy for the other's network, and nothing else.
    fn protect(&self, other: &Host) {
        let network = |host: &Host| format!("10.{}.0.0/16", host.inner[1]).parse().expect("a prefix");
        let rule = Rule::esp().tunnel(self.outer, other.outer);
        let policy = Policy::new(Direction::OUTBOUND, network(self), network(other)).rule(rule);
        self.client().add_policy(&policy).expect("X_SPDADD");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.vpn.iter_mut().chain([&mut self.keeper]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Two hosts with a wire between them and policies for what goes over it; `None` where they cannot be had.
fn hosts() -> Option<(Host, Host)> {
    let has = |program: &str| Command::new(program).arg("-V").stdout(Stdio::null()).status().is_ok();
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: network namespaces and a TUN device need root");
        return None;
    }
    if !["ip", "unshare", "nsenter"].into_iter().all(has) {
        println!("skipped: no ip, unshare or nsenter");
        return None;
    }
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    a.ip(&format!("link add wire type veth peer name wire netns {}", b.keeper.id()));
    a.start(&b);
    b.start(&a);
    a.protect(&b);
    b.protect(&a);
    Some((a, b))
}

/// What a pair of SAs is made of.
#[derive(Clone, Copy)]
enum Suite {
    Gcm,
    Cbc,
}

fn esp(suite: Suite, from: &Host, to: &Host, spi: u32) -> Sa {
    let sa = Sa::esp(from.outer, to.outer, spi).tunnel().replay_window(32);
    match suite {
        Suite::Gcm => sa.encrypt(Cipher::AesGcm16, &[spi as u8; 20]),
        Suite::Cbc => sa.encrypt(Cipher::AesCbc, &[spi as u8; 32]).authenticate(Hmac::Sha256, &[spi as u8; 32]),
    }
}

/// The next event of a kind.
fn event<T>(manager: &mut KeyManager, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let deadline = Some(Instant::now() + Duration::from_secs(20));
    loop {
        let event = manager.next(deadline).expect("events").expect("it comes");
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
}

/// Sends a packet there, and waits for it.
fn passes(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) {
    from.send_to(payload, to.local_addr().expect("an address")).expect("it is sent");
    let mut buffer = vec![0; 65536];
    let (len, sender) = to.recv_from(&mut buffer).expect("it comes");
    assert_eq!((&buffer[..len], sender), (payload, from.local_addr().expect("an address")));
}

#[test]
fn two_key_managers_fill_it_and_packets_pass() {
    let Some((a, b)) = hosts() else { return };
    let wire = a.capture();
    let (at_a, at_b) = (a.udp(), b.udp());
    let mut manager = KeyManager::register_with(&a.backend(), &[SaType::ESP]).expect("REGISTER");
    for (suite, spi) in [(Suite::Gcm, 0x1000), (Suite::Cbc, 0x2000)] {
        // The first packet waits for its SA, which the key manager is asked for.
        at_a.send_to(SECRET, at_b.local_addr().expect("an address")).expect("it is sent");
        let seq = event(&mut manager, |event| match event {
            Event::Acquire(acquire) => Some(acquire.seq),
            _ => None,
        });
        let (out, back) = (esp(suite, &a, &b, spi), esp(suite, &b, &a, spi + 1));
        for sa in [&out, &back] {
            b.client().add(sa).expect("ADD");
        }
        manager.client().add(&back).expect("ADD");
        manager.client().add(&out.clone().answering(seq)).expect("ADD");
        let mut buffer = [0; 100];
        assert_eq!(at_b.recv(&mut buffer).expect("it has waited"), SECRET.len());
        passes(&at_b, &at_a, SECRET);
        passes(&at_a, &at_b, SECRET);
        // ESP in tunnel mode with what the resolver says of the MTU: that much passes, and one byte more does not.
        let mtu = match suite {
            Suite::Gcm => 1446,
            Suite::Cbc => 1438,
        };
        let payload = |len: usize| vec![7; len - 28];
        dont_fragment(&at_a);
        passes(&at_a, &at_b, &payload(mtu));
        let to = at_b.local_addr().expect("an address");
        at_a.send_to(&payload(mtu + 1), to).expect("the device would take it");
        let learnt = std::iter::repeat_with(|| learnt_mtu(&a)).take(1000).find_map(|mtu| mtu);
        assert_eq!(learnt, Some(mtu));
        let refused = at_a.send_to(&payload(mtu + 1), to).map_err(|error| error.raw_os_error());
        assert_eq!(refused, Err(Some(libc::EMSGSIZE)));
        // What has come once does not come again: the next that comes is new.
        let packets = captured(&wire);
        let to_b = packets.iter().rev().find(|packet| packet[16..20] == b.outer).expect("one to b");
        replay(&a, to_b);
        passes(&at_a, &at_b, b"new");
        for host in [&a, &b] {
            host.client().flush(SaType::ESP).expect("FLUSH");
        }
        a.ip("route flush cache");
    }
    assert_ne!(captured(&wire).len(), 0);
}

#[test]
fn an_sa_wears_out_and_is_renewed() {
    let Some((a, b)) = hosts() else { return };
    let wire = a.capture();
    let (at_a, at_b) = (a.udp(), b.udp());
    let mut manager = KeyManager::register_with(&a.backend(), &[SaType::ESP]).expect("REGISTER");
    let limits = |packets: u64| Limits { bytes: packets * (SECRET.len() as u64 + 28), ..Limits::NONE };
    let install = |manager: &mut KeyManager, spi: u32| {
        let sa = esp(Suite::Gcm, &a, &b, spi).hard(limits(6)).soft(limits(3));
        b.client().add(&sa).expect("ADD");
        manager.client().add(&sa).expect("ADD");
    };
    let expiry = |manager: &mut KeyManager| {
        event(manager, |event| match event {
            Event::Expired { sa, hard } => Some((sa.spi, *hard)),
            _ => None,
        })
    };
    for spi in 0x1000..0x1008 {
        install(&mut manager, spi);
        // The fourth finds what the soft limit allows used up, and still passes.
        (0..4).for_each(|_| passes(&at_a, &at_b, SECRET));
        assert_eq!(expiry(&mut manager), (spi, false));
    }
    // What nobody renews wears out, and then a key manager is asked again.
    (0..2).for_each(|_| passes(&at_a, &at_b, SECRET));
    at_a.send_to(SECRET, at_b.local_addr().expect("an address")).expect("it is sent, and dropped");
    assert_eq!(expiry(&mut manager), (0x1007, true));
    assert!(captured(&wire).len() >= 34);
}

fn dont_fragment(socket: &UdpSocket) {
    let always = libc::IP_PMTUDISC_DO;
    // SAFETY: the pointer is that of a live integer of this length.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const always).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
}

/// What a host knows of the MTU on the way to the other.
fn learnt_mtu(host: &Host) -> Option<usize> {
    let pid = host.keeper.id();
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(["ip", "route", "get", "10.2.0.1"])
        .output()
        .expect("ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().skip_while(|word| *word != "mtu").nth(1)?.parse().ok()
}

/// Sends a packet again, with its IP header.
fn replay(host: &Host, packet: &[u8]) {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sendto, socket};
    let raw = host.inside(|| {
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, nix::sys::socket::SockProtocol::Raw)
    });
    let to: [u8; 4] = packet[16..20].try_into().expect("four bytes");
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(to.into(), 0));
    sendto(raw.expect("root may").as_raw_fd(), packet, &to, MsgFlags::empty()).expect("it is sent");
}

/// The IP packets that were seen: each is ESP, and none shows what it carries.
fn captured(wire: &OwnedFd) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let mut packets = Vec::new();
    loop {
        match nix::sys::socket::recv(wire.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) {
            Ok(len) => {
                let packet = &buffer[..len];
                // ARP, and what the hosts say to other addresses.
                if packet.len() < 20
                    || packet[0] >> 4 != 4
                    || packet[12..15] != [192, 0, 2]
                    || packet[16..19] != [192, 0, 2]
                {
                    continue;
                }
                assert_eq!(i32::from(packet[9]), libc::IPPROTO_ESP);
                assert!(!packet.windows(SECRET.len()).any(|window| window == SECRET));
                packets.push(packet.to_vec());
            }
            Err(errno) => {
                assert_eq!(std::io::Error::from(errno).kind(), ErrorKind::WouldBlock);
                return packets;
            }
        }
    }
}
