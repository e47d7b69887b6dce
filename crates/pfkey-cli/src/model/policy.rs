//! A policy.

use std::net::SocketAddr;

use crate::failure::Unwritable;
use pfkey::policy_text::priority::{DEFAULT, HIGH, LOW};
use pfkey::policy_text::{AH, ESP, IPCOMP, PolicySpec, RequestSpec};
use pfkey_wire::layout::SadbLifetime;
use pfkey_wire::sockaddr::sockaddr_len;
use pfkey_wire::xfrm::{Carrier, Mark};
use pfkey_wire::{
    ExtensionType as Ext, Header, Message, MessageType, Mode, PolicyDirection, PolicyLevel, PolicyType, Profile,
    Requests, SaType, Sockaddr, Writer,
};

use super::attached::Attached;
use super::xfrm::Report;
use super::{host, host_port, names, ports, sockaddr, socket_addr, utc, width};
use crate::channel::finish;
use crate::output::{Record, Value};

/// ICMP.
pub const ICMP: u8 = 1;
/// GRE.
pub const GRE: u8 = 47;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Mobile IPv6's header.
pub const MH: u8 = 135;
/// The largest request id that an operator may choose (`IPSEC_MANUAL_REQID_MAX`); Linux makes its own above.
pub const MANUAL_REQID_MAX: u32 = 0x3fff;

/// Which packets, and what to do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Source with its port, or what else the protocol keeps there.
    pub src: SocketAddr,
    /// Its prefix length.
    pub src_prefix: u8,
    /// Destination.
    pub dst: SocketAddr,
    /// Its prefix length.
    pub dst_prefix: u8,
    /// Upper-layer protocol, 255 = any.
    pub upper: u8,
    /// What SAs have as well.
    pub attached: Attached,
    /// Seconds that it lives; 0 = no limit.
    pub lifetime: u64,
    /// Seconds that it lives unused; 0 = no limit.
    pub idle_lifetime: u64,
    /// Direction, action, priority, requests.
    pub spec: PolicySpec,
}

/// What names a policy: its ends, the upper-layer protocol, its direction, its label, and what XFRM has beside them.
pub type Selector = (SocketAddr, u8, SocketAddr, u8, u8, u8, Option<(u8, u8, Vec<u8>)>, Scope);
/// What XFRM has of a policy's name (`Xfrm::policy_name`): mark, XFRM interface, the selector's network interface, whether it is of
/// type sub.
pub type Scope = (Mark, u32, u32, bool);

/// Whether the protocol has ports, and not something else in their place.
pub const fn has_ports(upper: u8) -> bool {
    !matches!(upper, ICMP | ICMPV6 | MH | GRE)
}

impl Policy {
    /// What names it.
    pub fn selector(&self) -> Selector {
        let context = self.attached.context.as_ref().map(|c| (c.doi, c.alg, c.text.clone()));
        let dir = self.spec.direction.0;
        let xfrm = &self.attached.xfrm;
        let scope = (xfrm.mark(), xfrm.if_id(), xfrm.device(), xfrm.is_sub());
        (self.src, self.src_prefix, self.dst, self.dst_prefix, self.upper, dir, context, scope)
    }

    /// For people.
    pub fn title(&self) -> String {
        format!(
            "{} policy {} {} {}",
            direction(self.spec.direction),
            self.source(),
            self.destination(),
            self.upper_words()
        )
    }

    /// The message, with the extensions in setkey's order; a deletion carries no requests.
    pub fn write(&self, msg_type: MessageType, seq: u32, pid: u32, buffer: &mut [u8]) -> Result<usize, Unwritable> {
        let mut w = Writer::new(buffer, Header::new(msg_type, SaType::UNSPEC, seq, pid), Profile::Linux);
        let bytes = if msg_type == MessageType::X_SPDDELETE {
            PolicySpec { requests: Vec::new(), ..self.spec.clone() }.to_bytes()?
        } else {
            self.spec.to_bytes()?
        };
        w.raw(&bytes);
        w.address(Ext::ADDRESS_SRC, self.upper, self.src_prefix, sockaddr(self.src).as_bytes());
        w.address(Ext::ADDRESS_DST, self.upper, self.dst_prefix, sockaddr(self.dst).as_bytes());
        self.attached.write_label(&mut w);
        if (self.lifetime, self.idle_lifetime) != (0, 0) && msg_type != MessageType::X_SPDDELETE {
            let limit = SadbLifetime {
                addtime: self.lifetime.into(),
                usetime: self.idle_lifetime.into(),
                ..Default::default()
            };
            w.lifetime(Ext::LIFETIME_HARD, limit);
        }
        let of_name = msg_type == MessageType::X_SPDDELETE;
        self.attached.write(if of_name { Carrier::PolicyName } else { Carrier::Policy }, &mut w);
        finish(w)
    }

    /// The copy that setkey makes of an inbound policy for forwarded packets: with the same requests, but without
    /// a unique first one, which only SAs for inbound packets could satisfy.
    pub fn forwarded(&self) -> Self {
        let mut copy = self.clone();
        copy.spec.direction = PolicyDirection::FWD;
        if let Some(first) = copy.spec.requests.first_mut().filter(|r| r.level == PolicyLevel::UNIQUE) {
            first.level = PolicyLevel::REQUIRE;
            first.reqid = 0;
        }
        copy
    }

    fn end(&self, address: SocketAddr, prefix: u8) -> String {
        let prefix = if prefix == width(address) { String::new() } else { format!("/{prefix}") };
        match address.port() {
            port if port != 0 && has_ports(self.upper) => format!("{}{prefix}[{port}]", host(address)),
            _ => format!("{}{prefix}", host(address)),
        }
    }

    fn source(&self) -> String {
        self.end(self.src, self.src_prefix)
    }

    fn destination(&self) -> String {
        self.end(self.dst, self.dst_prefix)
    }

    /// The upper-layer protocol, and ICMP's type and code or GRE's key.
    fn upper_words(&self) -> String {
        let name = names::upper(self.upper);
        match (self.upper, self.src.port(), self.dst.port()) {
            (_, 0, 0) => name,
            (GRE, high, low) => format!("{name} {}", u32::from(high) << 16 | u32::from(low)),
            (upper, a, b) if !has_ports(upper) => format!("{name} {a},{b}"),
            _ => name,
        }
    }
}

impl Policy {
    /// For programs, what stands in the place of ports.
    fn upper_numbers(&self) -> Record {
        let (a, b) = (self.src.port(), self.dst.port());
        let number = |n: u32| Value::Unsaid(Box::new(Value::Number(n.into())));
        match self.upper {
            _ if (a, b) == (0, 0) => Record::new(),
            GRE => vec![("gre_key", number(u32::from(a) << 16 | u32::from(b)))],
            upper if !has_ports(upper) => vec![("upper_type", number(a.into())), ("upper_code", number(b.into()))],
            _ => ports(a, b).collect(),
        }
    }
}

/// A prefix with its length, for programs.
fn prefix(address: SocketAddr, len: u8) -> Box<Value> {
    Box::new(Value::Text(format!("{}/{len}", host(address))))
}

/// Requests as the policy language has them, and as objects.
fn requests(requests: &[RequestSpec]) -> Value {
    let words: Vec<String> = requests.iter().map(request_words).collect();
    let object = |request: &RequestSpec| {
        let level = match request.level {
            PolicyLevel::DEFAULT => "default".to_owned(),
            PolicyLevel::USE => "use".to_owned(),
            PolicyLevel::REQUIRE => "require".to_owned(),
            PolicyLevel::UNIQUE => "unique".to_owned(),
            PolicyLevel(other) => other.to_string(),
        };
        let mut record: Record = vec![
            ("protocol", Value::Text(protocol(request.protocol))),
            ("mode", Value::Text(names::mode(request.mode.0))),
            ("level", Value::Text(level)),
            ("reqid", Value::Number(request.reqid.into())),
        ];
        if let Some((source, destination)) = request.addresses {
            record.push(("source", Value::Text(host(source))));
            record.push(("destination", Value::Text(host(destination))));
            record.extend(ports(source.port(), destination.port()));
        }
        record
    };
    Value::Said(words.join(" "), Box::new(Value::Records(requests.iter().map(object).collect())))
}

/// A policy as a key engine tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// What was asked for.
    pub policy: Policy,
    /// The engine's number.
    pub id: u32,
    /// Unix times of creation and of last use; 0 = never.
    pub times: (u64, u64),
    /// References to it.
    pub references: u16,
    /// It has more than the file language can say.
    pub partial: bool,
}

impl PolicyEntry {
    /// From a message; `None` if it does not tell of a policy.
    pub fn of(message: &Message<'_>, references: u16) -> Option<Self> {
        let (fixed, requests) = message.policy()?;
        let (src, src_addr) = message.address(Ext::ADDRESS_SRC)?;
        let (dst, dst_addr) = message.address(Ext::ADDRESS_DST)?;
        let mut walk = Requests::new(requests);
        let requests = walk.by_ref().map(|(fixed, body)| request(fixed, body)).collect::<Option<Vec<_>>>()?;
        let hard = message.lifetime(Ext::LIFETIME_HARD).unwrap_or_default();
        let current = message.lifetime(Ext::LIFETIME_CURRENT).unwrap_or_default();
        let (attached, report) = Attached::of(message);
        let soft = message.lifetime(Ext::LIFETIME_SOFT).unwrap_or_default();
        // Linux looks at these, and the file language cannot say them.
        let other_limits =
            [hard.bytes.get(), u64::from(hard.allocations.get()), soft.addtime.get(), soft.usetime.get()];
        let partial = report.partial || other_limits != [0; 4];
        let policy = Policy {
            src: socket_addr(src_addr)?,
            src_prefix: src.prefixlen,
            dst: socket_addr(dst_addr)?,
            dst_prefix: dst.prefixlen,
            upper: dst.proto,
            attached,
            lifetime: hard.addtime.get(),
            idle_lifetime: hard.usetime.get(),
            spec: PolicySpec {
                direction: PolicyDirection(fixed.dir),
                policy_type: PolicyType(fixed.policy_type.get()),
                priority: fixed.priority.get(),
                requests,
            },
        };
        let times = (current.addtime.get(), current.usetime.get());
        Some(Self { policy, id: fixed.id.get(), times, references, partial })
    }

    /// Whether it belongs to a socket.
    pub fn is_of_socket(&self) -> bool {
        self.policy.spec.direction.0 > PolicyDirection::FWD.0
    }

    /// What is shown of it.
    pub fn record(&self) -> Record {
        let policy = &self.policy;
        let spec = &policy.spec;
        let mut record: Record = vec![
            ("direction", Value::Text(direction(spec.direction))),
            ("source", Value::Said(policy.source(), prefix(policy.src, policy.src_prefix))),
            ("destination", Value::Said(policy.destination(), prefix(policy.dst, policy.dst_prefix))),
            ("upper", Value::Said(policy.upper_words(), Box::new(Value::Text(names::upper(policy.upper))))),
            ("action", Value::Text(action(spec.policy_type))),
            ("priority", Value::Said(priority(spec.priority), Box::new(Value::Number(spec.priority.into())))),
            ("requests", requests(&spec.requests)),
            ("id", Value::Number(self.id.into())),
            ("references", Value::Number(self.references.into())),
        ];
        record.extend(policy.upper_numbers());
        record.extend(policy.attached.record(Carrier::Policy, Report::default()));
        let limits = [("hard_seconds", policy.lifetime), ("hard_idle_seconds", policy.idle_lifetime)];
        record.extend(limits.into_iter().filter(|(_, n)| *n != 0).map(|(name, n)| (name, Value::Number(n))));
        for (name, time) in [("created", self.times.0), ("used", self.times.1)] {
            if time != 0 {
                record.push((name, Value::Text(utc(time))));
            }
        }
        record
    }

    /// The `spdadd` command that makes it again, and what will differ; or why there is none. With `with_forward`
    /// the command also makes the copy for forwarded packets.
    pub fn command(&self, with_forward: bool) -> Result<(String, Option<&'static str>), &'static str> {
        let policy = &self.policy;
        let spec = &policy.spec;
        if spec.requests.iter().any(|r| r.mode == Mode::BEET) {
            return Err("a BEET request, which the policy language cannot name");
        }
        let exact = if spec.direction == PolicyDirection::INBOUND && !with_forward { " -k" } else { "" };
        let mut text = format!("spdadd{exact} {} {} {}", policy.source(), policy.destination(), policy.upper_words());
        text.push_str(&policy.attached.words(Carrier::Policy)?);
        for (option, seconds) in [("-lh", policy.lifetime), ("-uh", policy.idle_lifetime)] {
            if seconds != 0 {
                text.push_str(&format!(" {option} {seconds}"));
            }
        }
        text.push_str(&format!(
            " -P {} {} {}",
            direction(spec.direction),
            priority(spec.priority),
            action(spec.policy_type)
        ));
        for request in &spec.requests {
            // The kernel takes no such number from anybody.
            let reqid = if request.reqid > MANUAL_REQID_MAX { 0 } else { request.reqid };
            text.push(' ');
            text.push_str(&request_words(&RequestSpec { reqid, ..*request }));
        }
        text.push(';');
        let generated = spec.requests.iter().any(|r| r.reqid > MANUAL_REQID_MAX);
        Ok((text, generated.then_some("a request id that the kernel chose; it will choose another")))
    }
}

/// One request, `None` if its addresses make no sense.
fn request(fixed: pfkey_wire::layout::SadbXIpsecrequest, body: &[u8]) -> Option<RequestSpec> {
    let addresses = if body.is_empty() {
        None
    } else {
        let (source, destination) = body.split_at_checked(sockaddr_len(Sockaddr(body).family()))?;
        Some((socket_addr(Sockaddr(source))?, socket_addr(Sockaddr(destination))?))
    };
    Some(RequestSpec {
        protocol: u8::try_from(fixed.proto.get()).ok()?,
        mode: Mode(fixed.mode),
        level: PolicyLevel(fixed.level),
        reqid: fixed.reqid.get(),
        addresses,
    })
}

/// The name of a direction.
pub fn direction(direction: PolicyDirection) -> String {
    match ["any", "in", "out", "fwd", "in(socket)", "out(socket)"].get(usize::from(direction.0)) {
        Some(name) => (*name).to_owned(),
        None => direction.0.to_string(),
    }
}

fn action(policy_type: PolicyType) -> String {
    match ["discard", "none", "ipsec", "entrust", "bypass"].get(usize::from(policy_type.0)) {
        Some(name) => (*name).to_owned(),
        None => policy_type.0.to_string(),
    }
}

/// `prio BASE [+ N| - N]`, which every number has.
fn priority(priority: u32) -> String {
    let (base, name) = match priority {
        0..0x6000_0000 => (HIGH, "high"),
        0x6000_0000..0xa000_0000 => (DEFAULT, "def"),
        _ => (LOW, "low"),
    };
    match priority.abs_diff(base) {
        0 => format!("prio {name}"),
        n if priority < base => format!("prio {name} + {n}"),
        n => format!("prio {name} - {n}"),
    }
}

/// The name of a security protocol.
fn protocol(number: u8) -> String {
    match number {
        ESP => "esp".to_owned(),
        AH => "ah".to_owned(),
        IPCOMP => "ipcomp".to_owned(),
        other => other.to_string(),
    }
}

/// One request as the policy language has it.
pub fn request_words(request: &RequestSpec) -> String {
    let protocol = protocol(request.protocol);
    let addresses = match request.addresses {
        Some((a, b)) if (a.port(), b.port()) != (0, 0) => {
            format!("{}[{}]-{}[{}]", host(a), a.port(), host(b), b.port())
        }
        Some((a, b)) => format!("{}-{}", host_port(a), host_port(b)),
        None => String::new(),
    };
    let level = match (request.level, request.reqid) {
        (PolicyLevel::DEFAULT, _) => "default".to_owned(),
        (PolicyLevel::USE, _) => "use".to_owned(),
        (PolicyLevel::REQUIRE, _) => "require".to_owned(),
        (PolicyLevel::UNIQUE, 0) => "unique".to_owned(),
        (PolicyLevel::UNIQUE, reqid) => format!("unique:{reqid}"),
        (level, _) => level.0.to_string(),
    };
    format!("{protocol}/{}/{addresses}/{level}", names::mode(request.mode.0))
}
