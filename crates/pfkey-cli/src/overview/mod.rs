//! What `metrics`, `graph` and `top` look at: SAs without their keys, policies, the kernel's counters.

pub mod serving;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use pfkey::listing::{Failures, SaView};
use pfkey_model::policy::Policy;
use pfkey_model::sa::{Limits, State, Usage};
use pfkey_model::view::PolicyView;
use pfkey_wire::xfrm::{Mark, attribute};
use pfkey_wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, IpsecProtocol, MessageType, Mode, PolicyDirection, Prefix, SaType,
};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::names;

/// Where the kernel counts what XFRM refused, by reason.
const XFRM_STAT: &str = "/proc/net/xfrm_stat";

/// SAs and policies from which on nobody listens who reads them: who hears everything hears its own dumps, too.
pub const LOUD: usize = 500;

/// An SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaRow {
    /// Source and destination.
    pub ends: Ends,
    /// In host byte order; 0: a key manager was asked for it.
    pub spi: u32,
    /// AH, ESP or IPComp.
    pub proto: IpsecProtocol,
    /// Transport, tunnel, …
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
    /// Larval, mature, dying.
    pub state: State,
    /// Encryption or compression.
    pub encrypt: EncryptAlgorithm,
    /// Authentication.
    pub auth: AuthAlgorithm,
    /// Where it dies.
    pub hard: Limits,
    /// Where a successor is asked for.
    pub soft: Limits,
    /// What was used.
    pub usage: Usage,
    /// Packets that it refused, where that is known.
    pub failures: Option<Failures>,
    /// In UDP.
    pub is_in_udp: bool,
    /// Its mark.
    pub mark: Mark,
    /// Its XFRM interface; 0 = none.
    pub if_id: u32,
}

/// What names an SA, and orders SAs.
pub type Name = (IpsecProtocol, IpAddr, u32, u32, IpAddr);

impl From<&SaView<'_>> for SaRow {
    fn from(view: &SaView<'_>) -> Self {
        let xfrm = &view.attached.xfrm;
        Self {
            ends: view.ends,
            spi: view.spi,
            proto: view.proto,
            mode: view.mode,
            reqid: view.reqid,
            state: view.state,
            encrypt: view.encrypt,
            auth: view.auth,
            hard: view.hard,
            soft: view.soft,
            usage: view.usage,
            failures: view.failures,
            is_in_udp: view.encap.is_some(),
            mark: xfrm.mark(),
            if_id: xfrm.attributes.read::<zerocopy::native_endian::U32>(attribute::IF_ID).map_or(0, |id| id.get()),
        }
    }
}

impl SaRow {
    /// Its name.
    pub fn name(&self) -> Name {
        (self.proto, self.ends.dst(), self.spi, self.mark.masked(), self.ends.src())
    }

    /// The protocol as setkey names it.
    pub fn protocol(&self) -> String {
        match self.is_in_udp {
            true => "esp-udp".to_owned(),
            false => names::satype(SaType::from_protocol(self.proto)),
        }
    }

    /// The name of its cipher, if it has one.
    pub fn encryption(&self) -> Option<String> {
        let is_cipher = self.proto != IpsecProtocol::IPCOMP && self.encrypt != EncryptAlgorithm::NONE;
        is_cipher.then(|| names::shown(names::ENCRYPT, self.encrypt.0))
    }

    /// The name of what authenticates, if it has one.
    pub fn authentication(&self) -> Option<String> {
        let is_there = self.proto != IpsecProtocol::IPCOMP && self.auth != AuthAlgorithm::NONE;
        is_there.then(|| names::shown(names::AUTH, self.auth.0))
    }

    /// The name of what compresses, if it has one.
    pub fn compression(&self) -> Option<String> {
        let is_there = self.proto == IpsecProtocol::IPCOMP && self.encrypt != EncryptAlgorithm::NONE;
        is_there.then(|| names::shown(names::COMPRESS, self.encrypt.0))
    }

    /// All of them.
    pub fn algorithms(&self) -> String {
        let all = [self.encryption(), self.authentication(), self.compression()];
        all.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Seconds until time ends it; `None` if it never does.
    pub fn seconds_left(&self, now: u64) -> Option<u64> {
        left(&self.hard, &self.usage, now)
    }
}

/// Seconds until the earlier of two limits of time.
pub fn left(limits: &Limits, usage: &Usage, now: u64) -> Option<u64> {
    let end = |since: u64, seconds: u64| (seconds != 0 && since != 0).then(|| since.saturating_add(seconds));
    let ends = [end(usage.add_time, limits.add_seconds), end(usage.use_time, limits.use_seconds)];
    ends.into_iter().flatten().min().map(|end| end.saturating_sub(now))
}

/// What there is at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// SAs, in the order of a dump.
    pub sas: Vec<SaRow>,
    /// Policies, without those of sockets, in the order of a dump.
    pub policies: Vec<Policy>,
    /// What the kernel counted, by name; `None`: it does not.
    pub statistics: Option<Vec<(String, u64)>>,
    /// Unix time in seconds.
    pub now: u64,
}

impl Snapshot {
    /// Reads everything.
    pub fn read(channel: &mut Channel) -> Result<Self, Failure> {
        let mut sas = Vec::new();
        channel.for_each_sa(SaType::UNSPEC, &mut |view| {
            sas.push(SaRow::from(view));
            ControlFlow::Continue(())
        })?;
        let mut policies = Vec::new();
        channel.dump(MessageType::X_SPDDUMP, SaType::UNSPEC, |received| {
            policies.extend(received.message.as_ref().and_then(PolicyView::of_message).map(|view| Policy::from(&view)));
            Ok(())
        })?;
        Ok(Self { sas, policies, statistics: statistics(), now: unix_time() })
    }

    /// SAs and policies.
    pub fn entries(&self) -> usize {
        self.sas.len() + self.policies.len()
    }
}

/// Unix time in seconds.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The kernel's counters of this network namespace.
pub fn statistics() -> Option<Vec<(String, u64)>> {
    std::fs::read_to_string(XFRM_STAT).ok().map(|text| counters(&text))
}

/// Lines of a name and a number.
fn counters(text: &str) -> Vec<(String, u64)> {
    let counter = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// Seconds as people say them.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The first tunnel that a policy demands.
pub fn tunnel(policy: &Policy) -> Option<Ends> {
    policy.templates.iter().find(|template| template.mode != Mode::TRANSPORT).map(|template| template.ends)
}

/// This machine's own addresses, as policies know them.
pub fn own(policies: &[Policy]) -> BTreeSet<IpAddr> {
    let ends = policies.iter().filter_map(|policy| {
        let ends = tunnel(policy).or_else(|| Ends::new(policy.selector.src.address, policy.selector.dst.address))?;
        match policy.dir {
            PolicyDirection::OUTBOUND => Some(ends.src()),
            PolicyDirection::INBOUND => Some(ends.dst()),
            _ => None,
        }
    });
    ends.collect()
}

/// What a policy does with packets.
pub fn action(policy: &Policy) -> &'static str {
    match (policy.block, policy.templates.is_empty()) {
        (true, _) => "discard",
        (false, true) => "none",
        (false, false) => "ipsec",
    }
}

/// The name of a direction.
pub fn direction(dir: PolicyDirection) -> String {
    crate::model::policy::direction(dir)
}

/// One side of a policy: a prefix, of one address without its length, and a port.
pub fn side(prefix: Prefix, port: u16) -> String {
    let shown =
        if prefix.len == Prefix::host(prefix.address).len { prefix.address.to_string() } else { prefix.to_string() };
    if port == 0 { shown } else { format!("{shown}[{port}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_kernel() {
        let text = "XfrmInError             \t0\nXfrmInNoStates          \t17\nnonsense\n";
        assert_eq!(counters(text), [("XfrmInError".to_owned(), 0), ("XfrmInNoStates".to_owned(), 17)]);
    }

    #[test]
    fn the_earlier_limit_counts() {
        let limits = Limits { add_seconds: 100, use_seconds: 10, ..Limits::NONE };
        let usage = Usage { add_time: 1000, ..Usage::NONE };
        assert_eq!(left(&limits, &usage, 1001), Some(99));
        assert_eq!(left(&limits, &Usage { use_time: 1020, ..usage }, 1025), Some(5));
        assert_eq!(left(&limits, &usage, 2000), Some(0));
        assert_eq!(left(&Limits::NONE, &usage, 2000), None);
    }

    #[test]
    fn sides_as_setkey_has_them() {
        assert_eq!(side("10.0.0.0/8".parse().unwrap(), 0), "10.0.0.0/8");
        assert_eq!(side("192.0.2.1".parse().unwrap(), 80), "192.0.2.1[80]");
        assert_eq!(side("::/0".parse().unwrap(), 0), "::/0");
    }
}
