//! Packets: what a data plane sends through the policies, on a kernel's own interface or past the engine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use pfkey_rs::engine::{Flow, Outbound, SaId, TrafficError};
use pfkey_rs::hub::{Hub, Sink};
use pfkey_rs::wire::{Ends, IpsecProtocol, Mode};

/// A UDP datagram that leaves this host.
#[derive(Clone, Copy)]
pub struct Packet {
    pub src: (&'static str, u16),
    pub dst: (&'static str, u16),
    /// Bytes behind the UDP header.
    pub len: usize,
}

/// Seconds that a larval lives where packets are sent; the kernel's default of 30 is long for a test.
pub const ACQ_EXPIRES: u64 = 2;

/// Addresses of the scenarios on an interface that takes every packet, in this thread's network namespace.
pub fn prepare() {
    let script = format!(
        "echo {ACQ_EXPIRES} >/proc/sys/net/core/xfrm_acq_expires
         ip link add name out0 type dummy && ip link set lo up && ip link set out0 up mtu 1500
         ip addr add 10.0.0.1/24 dev out0 && ip addr add 192.0.2.1/24 dev out0
         ip addr add 2001:db8::1/64 dev out0 nodad
         ip route add default dev out0 && ip -6 route add default dev out0"
    );
    let done = Command::new("sh").args(["-ec", &script]).stdin(Stdio::null()).output().expect("sh");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Sends it through the kernel; gives the errno of `sendto`, 0 for success.
pub fn send(packet: &Packet) -> i32 {
    let end = |(ip, port): (&str, u16)| SocketAddr::new(ip.parse().expect("an address"), port);
    let socket = UdpSocket::bind(end(packet.src)).expect("a UDP socket");
    match socket.send_to(&vec![0; packet.len], end(packet.dst)) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Where ESP in UDP arrives, and the SPI of the SA that takes it (no authentication, NULL encryption).
pub const NAT_T: (&str, u16, u32) = ("127.0.0.1", 4500, 0x700);

/// A packet of that SA arrives over the loopback from another port, as long as the sockets that this gives are open.
pub fn arrive(from: u16) -> [UdpSocket; 2] {
    let open = |port| UdpSocket::bind(("127.0.0.1", port)).expect("a UDP socket");
    let (receiver, sender) = (open(NAT_T.1), open(from));
    let esp_in_udp: libc::c_int = 2;
    // SAFETY: the option's value is an int of that size; nix has no name for UDP_ENCAP.
    let set = unsafe {
        libc::setsockopt(receiver.as_raw_fd(), libc::IPPROTO_UDP, UDP_ENCAP, (&raw const esp_in_udp).cast(), 4)
    };
    assert_eq!(set, 0, "UDP_ENCAP: {}", std::io::Error::last_os_error());
    // SPI, sequence number, an empty UDP header, two bytes of padding, their number, "UDP".
    let mut esp = [NAT_T.2.to_be_bytes(), 1_u32.to_be_bytes()].concat();
    esp.extend([0, 9, 0, 9, 0, 8, 0, 0, 1, 2, 2, 17]);
    sender.send_to(&esp, (NAT_T.0, NAT_T.1)).expect("a packet over the loopback");
    [receiver, sender]
}

/// `linux/udp.h`.
const UDP_ENCAP: libc::c_int = 100;

/// Tells the engine of such a packet.
pub fn arrived(from: u16, hub: &mut Hub<pfkey_rs::engine::Engine>, now: Duration, sink: &mut impl Sink) {
    let dst = ip(NAT_T.0);
    let id = SaId::new(dst, NAT_T.2, IpsecProtocol::ESP);
    hub.with_engine(now, None, sink, |engine, cx| engine.new_mapping(&id, dst, from, cx)).expect("an SA");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Asks the engine what becomes of it, and counts it for the SAs that it meets.
pub fn pass(packet: &Packet, hub: &mut Hub<pfkey_rs::engine::Engine>, now: Duration, sink: &mut impl Sink) -> i32 {
    let ends = Ends::new(ip(packet.src.0), ip(packet.dst.0)).expect("one family");
    let flow = Flow::new(ends, 17, packet.src.1, packet.dst.1);
    let outcome = hub.with_engine(now, None, sink, |engine, cx| {
        let Outbound::Apply(chain) = engine.outbound(&flow, cx)? else { return Ok(()) };
        for (id, mode) in chain {
            // What Linux counts is what the transform gets: in transport mode without the IP header.
            let header = if mode == Mode::TRANSPORT {
                0
            } else if ends.is_ipv6() {
                40
            } else {
                20
            };
            engine.count_traffic(&id, 1, (header + 8 + packet.len) as u64, cx)?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => 0,
        Err(TrafficError::Discarded) => libc::EPERM,
        Err(TrafficError::NoSa) => libc::EINVAL,
        Err(TrafficError::TooManyTemplates) => libc::ENOBUFS,
    }
}
