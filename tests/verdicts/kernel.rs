//! A network namespace of this kernel, with AF_KEY.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};

use crate::build::Msg;
use crate::world::{DEVICE, Datagram, Setting, World};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::{ExtensionType as Ext, Header, Message, MessageType as M, Profile, SaType as S};

/// `linux/in.h`, `linux/in6.h`.
const IP_IPSEC_POLICY: libc::c_int = 16;
const IPV6_IPSEC_POLICY: libc::c_int = 34;

pub struct Kernel {
    asker: OwnedFd,
    /// Behind it is a pfkeyd, which makes what AF_KEY cannot.
    beyond: Option<OwnedFd>,
    manager: Option<OwnedFd>,
    /// Sees what leaves through the device.
    tap: OwnedFd,
    /// What it saw already.
    seen: Vec<Vec<u8>>,
}

fn sh(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output().expect("sh");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn tap() -> OwnedFd {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, i32::from(all)) };
    assert!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: just opened, nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain data, valid when zeroed.
    let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    device.sll_family = libc::AF_PACKET as u16;
    device.sll_protocol = all;
    device.sll_ifindex = nix::net::if_::if_nametoindex("out0").expect("the device") as i32;
    let len = size_of_val(&device) as u32;
    // SAFETY: a live sockaddr of that length.
    assert_eq!(unsafe { libc::bind(fd.as_raw_fd(), (&raw const device).cast(), len) }, 0);
    fd
}

/// Messages that wait.
fn drain(fd: &OwnedFd) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let mut next = || {
        let len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buffer[..len].to_vec())
    };
    std::iter::from_fn(&mut next).collect()
}

fn answered(fd: &OwnedFd, message: &Msg) -> u8 {
    send(fd.as_raw_fd(), &message.bytes(), MsgFlags::empty()).expect("a message that is taken");
    let answers = drain(fd);
    Header::read(answers.first().expect("an answer")).expect("a header").errno
}

/// Waits for the answer.
fn answered_later(fd: &OwnedFd, message: &Msg) -> u8 {
    drain(fd);
    send(fd.as_raw_fd(), &message.bytes(), MsgFlags::empty()).expect("a message that is taken");
    assert_ne!(poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], 10_000_u16), Ok(0), "an answer");
    Header::read(drain(fd).first().expect("an answer")).expect("a header").errno
}

impl Kernel {
    pub fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        sh(&format!("ip link add name out0 index {DEVICE} type dummy"));
        sh("echo 2 >/proc/sys/net/core/xfrm_acq_expires
            ip link set lo up && ip link set out0 up mtu 1500
            ip addr add 10.0.0.1/24 dev out0 && ip addr add 192.0.2.1/24 dev out0
            ip addr add 2001:db8::1/64 dev out0 nodad
            ip route add default dev out0 && ip -6 route add default dev out0");
        let asker = socket::open_with(&Backend::AfKey).expect("AF_KEY");
        let tap = tap();
        let mut this = Self { asker, beyond: None, manager: None, tap, seen: Vec::new() };
        this.left();
        this
    }

    /// For random sequences: larvals live as long as a test, and the table of SAs is as large as it will be. Of SAs that
    /// were added in the same second Linux takes the first in its table, whose order turns around when it grows.
    pub fn settle(&mut self) {
        sh("echo 600 >/proc/sys/net/core/xfrm_acq_expires");
        for n in 0..400 {
            let peer = format!("10.9.{}.{}", n / 200, 1 + n % 200);
            let ends = ("10.9.9.9", peer.as_str());
            assert_eq!(self.send(&crate::catalogue::sa(S::AH, 0x9000 + n, ends, (3, 20), (0, 0))), 0);
        }
        assert_eq!(self.send(&Msg::new(M::FLUSH, S::UNSPEC, 1)), 0);
    }

    fn socket(datagram: &Datagram, policy: Option<&[u8]>) -> UdpSocket {
        let ip: IpAddr = datagram.src.0.parse().expect("an address");
        let socket = UdpSocket::bind(SocketAddr::new(ip, datagram.src.1)).expect("a UDP socket");
        if datagram.mark != 0 {
            setsockopt(&socket, sockopt::Mark, &datagram.mark).expect("CAP_NET_ADMIN");
        }
        if let Some(policy) = policy {
            let (level, name) = if ip.is_ipv6() {
                (libc::IPPROTO_IPV6, IPV6_IPSEC_POLICY)
            } else {
                (libc::IPPROTO_IP, IP_IPSEC_POLICY)
            };
            // SAFETY: the option's value is these bytes.
            let set = unsafe {
                libc::setsockopt(socket.as_raw_fd(), level, name, policy.as_ptr().cast(), policy.len() as u32)
            };
            assert_eq!(set, 0, "a socket policy: {}", std::io::Error::last_os_error());
        }
        socket
    }
}

fn peer(datagram: &Datagram) -> SocketAddr {
    SocketAddr::new(datagram.dst.0.parse().expect("an address"), datagram.dst.1)
}

fn code<T>(done: std::io::Result<T>) -> Result<T, i32> {
    done.map_err(|e| e.raw_os_error().unwrap_or(-1))
}

impl World for Kernel {
    fn send(&mut self, message: &Msg) -> u8 {
        if !Message::parse(&message.bytes(), Profile::Linux).is_ok_and(|message| message.has(Ext::X_XFRM)) {
            return answered(&self.asker, message);
        }
        let open = || socket::open_with(&Backend::Xfrm).expect("a pfkeyd");
        let errno = answered_later(self.beyond.get_or_insert_with(open), message);
        // What others hear of it.
        drain(&self.asker);
        errno
    }

    fn register(&mut self) {
        let manager = socket::open_with(&Backend::AfKey).expect("AF_KEY");
        assert_eq!(answered(&manager, &Msg::new(M::REGISTER, S::ESP, 1)), 0);
        self.manager = Some(manager);
    }

    fn acquires(&mut self) -> usize {
        let is_acquire = |message: &Vec<u8>| Header::read(message).is_some_and(|h| h.msg_type == M::ACQUIRE);
        self.manager.as_ref().map_or(0, |manager| drain(manager).iter().filter(|m| is_acquire(m)).count())
    }

    fn udp(&mut self, datagram: &Datagram, policy: Option<&[u8]>) -> i32 {
        let sent = Self::socket(datagram, policy).send_to(&vec![0; datagram.len], peer(datagram));
        code(sent).err().unwrap_or(0)
    }

    fn left(&mut self) -> Vec<(u8, usize)> {
        self.seen.extend(drain(&self.tap));
        self.seen.drain(..).filter_map(|packet| Some((protocol(&packet)?, packet.len()))).collect()
    }

    fn path_mtu(&mut self, datagram: &Datagram) -> Result<u32, i32> {
        let socket = Self::socket(datagram, None);
        code(socket.connect(peer(datagram)))?;
        let (level, name) = if peer(datagram).is_ipv6() {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU)
        };
        let (mut mtu, mut len) = (0_u32, 4);
        // SAFETY: an int and its length, both live.
        let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut mtu).cast(), &raw mut len) };
        if got == 0 { Ok(mtu) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)) }
    }

    fn set(&mut self, setting: Setting) {
        match setting {
            Setting::LarvalDrop(drop) => sh(&format!("echo {} >/proc/sys/net/core/xfrm_larval_drop", u8::from(drop))),
            Setting::DefaultBlock => sh("ip xfrm policy setdefault out block"),
            Setting::Untransformed => sh("echo 1 >/proc/sys/net/ipv4/conf/out0/disable_xfrm"),
            Setting::NoDefaultRoute => sh("ip route del default && ip -6 route del default"),
            Setting::Mtu(mtu) => sh(&format!("ip link set out0 mtu {mtu}")),
            Setting::SubPolicy { v6, block, proto } => {
                let net = if v6 { "2001:db8::/64" } else { "10.0.0.0/24" };
                let action = if block { "block" } else { "allow" };
                let template = match proto {
                    Some(51) => "tmpl proto ah mode transport",
                    Some(_) => "tmpl proto esp mode transport",
                    None => "",
                };
                sh(&format!("ip xfrm policy add src {net} dst {net} dir out ptype sub action {action} {template}"));
            }
        }
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string("/proc/thread-self/net/xfrm_stat").expect("xfrm_stat");
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    fn released(&mut self, least: usize) {
        let mut released = 0;
        while released < least {
            let mut polled = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
            assert_ne!(poll(&mut polled, 10_000_u16), Ok(0), "held packets leave");
            let packets = drain(&self.tap);
            released += packets.iter().filter(|packet| protocol(packet).is_some()).count();
            self.seen.extend(packets);
        }
    }
}

/// The protocol of a packet that a case may have sent: none of those that IPv6 sends by itself.
fn protocol(packet: &[u8]) -> Option<u8> {
    let proto = match packet.first()? >> 4 {
        4 => *packet.get(9)?,
        6 => *packet.get(6)?,
        _ => return None,
    };
    matches!(proto, 4 | 17 | 41 | 50 | 51 | 108).then_some(proto)
}
