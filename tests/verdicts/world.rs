//! Steps of a case, and where they are done.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The number of the network interface that packets leave through.
pub const DEVICE: u32 = 77;

use crate::build::Msg;

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub src: (&'static str, u16),
    pub dst: (&'static str, u16),
    /// Bytes behind the UDP header.
    pub len: usize,
    /// `SO_MARK` of its socket.
    pub mark: u32,
}

/// What is set on a host.
#[derive(Clone, Copy, Debug)]
pub enum Setting {
    /// `net.core.xfrm_larval_drop`.
    LarvalDrop(bool),
    /// Packets that no policy takes are refused.
    DefaultBlock,
    /// Policies do not apply to the device (`disable_xfrm`).
    Untransformed,
    /// The default routes are taken away.
    NoDefaultRoute,
    /// Another MTU for the device.
    Mtu(u32),
    /// A policy of type SUB between everybody of 10.0.0.0/24 or of 2001:db8::/64: none, discard, or one SA in transport
    /// mode of this protocol.
    SubPolicy { v6: bool, block: bool, proto: Option<u8> },
}

pub enum Step {
    Send(Msg),
    /// A socket registers for ESP; from then on ACQUIREs are counted.
    Register,
    Udp(Datagram, Option<Vec<u8>>),
    /// The path MTU that a connected socket shows.
    PathMtu(Datagram),
    Set(Setting),
    /// Waits until the held packets went out; at least this many do.
    Released(usize),
}

pub trait World {
    /// Sends a PF_KEY message, one with X_XFRM to whom understands it; gives the errno of its answer.
    fn send(&mut self, message: &Msg) -> u8;
    fn register(&mut self);
    /// ACQUIREs since it was asked last.
    fn acquires(&mut self) -> usize;
    /// Sends a packet, from a socket with this policy; gives the errno of the sender.
    fn udp(&mut self, datagram: &Datagram, policy: Option<&[u8]>) -> i32;
    /// Protocol and length of every packet that left through the device since it was asked last.
    fn left(&mut self) -> Vec<(u8, usize)>;
    /// The path MTU, or the errno.
    fn path_mtu(&mut self, datagram: &Datagram) -> Result<u32, i32>;
    fn set(&mut self, setting: Setting);
    /// `/proc/net/xfrm_stat`.
    fn counters(&mut self) -> BTreeMap<String, u64>;
    /// Waits until at least so many held packets left; they are in `left`.
    fn released(&mut self, least: usize);
}

pub struct Case {
    pub name: &'static str,
    pub steps: Vec<Step>,
}

fn errno(errno: i32) -> String {
    if errno == 0 { "ok".to_owned() } else { format!("{:?}", nix::errno::Errno::from_raw(errno)) }
}

impl Case {
    /// A line a step: what was done and what followed.
    pub fn run(&self, world: &mut impl World) -> String {
        let mut lines = Vec::new();
        let mut before = world.counters();
        for step in &self.steps {
            let mut text = String::new();
            match step {
                Step::Send(message) => {
                    let answer = errno(i32::from(world.send(message)));
                    let _ = write!(text, "message {}: {answer}", message.header.msg_type.0);
                }
                Step::Register => {
                    world.register();
                    text += "register";
                }
                Step::Udp(datagram, policy) => {
                    let Datagram { src, dst, len, mark } = datagram;
                    let sent = errno(world.udp(datagram, policy.as_deref()));
                    let marked = if *mark == 0 { String::new() } else { format!(", mark {mark:#x}") };
                    let _ = write!(text, "udp {} {} > {} {}, {len} bytes{marked}: {sent}", src.0, src.1, dst.0, dst.1);
                }
                Step::PathMtu(datagram) => {
                    let mtu = world.path_mtu(datagram).map_or_else(errno, |mtu| mtu.to_string());
                    let _ = write!(text, "path mtu: {mtu}");
                }
                Step::Set(setting) => {
                    world.set(*setting);
                    text += "set";
                }
                Step::Released(least) => {
                    world.released(*least);
                    text += "released";
                }
            }
            for (times, (proto, len)) in runs(world.left()) {
                let _ = write!(text, ", left {proto}/{len}");
                if times > 1 {
                    let _ = write!(text, " {times} times");
                }
            }
            match world.acquires() {
                0 => {}
                n => {
                    let _ = write!(text, ", {n} ACQUIRE");
                }
            }
            let after = world.counters();
            for (name, value) in &after {
                let was = before.get(name).copied().unwrap_or(0);
                if was != *value {
                    let _ = write!(text, ", {name} +{}", value - was);
                }
            }
            before = after;
            lines.push(text);
        }
        let lines = runs(lines).into_iter();
        lines.map(|(times, line)| if times > 1 { format!("{line}\n… {times} times\n") } else { line + "\n" }).collect()
    }
}

/// Equal neighbours, counted.
fn runs<T: PartialEq>(list: Vec<T>) -> Vec<(usize, T)> {
    let mut runs: Vec<(usize, T)> = Vec::new();
    for item in list {
        match runs.last_mut() {
            Some((times, last)) if *last == item => *times += 1,
            _ => runs.push((1, item)),
        }
    }
    runs
}
