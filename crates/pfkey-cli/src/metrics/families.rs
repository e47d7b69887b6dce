//! What is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pfkey::listing::Failures;
use pfkey_model::policy::Policy;
use pfkey_model::sa::State;
use pfkey_socket::report::Report;
use pfkey_wire::SaState;

use super::text::{Kind, Text};
use crate::model::names;
use crate::overview::serving::{Served, serving};
use crate::overview::{SaRow, Snapshot, action, direction, side};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Numbers of single SAs, too.
    pub per_sa: bool,
    /// Policies, and SAs, with numbers of their own, at most.
    pub most: usize,
}

/// What a listener has heard of since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// ACQUIREs of the kernel's.
    pub acquires: u64,
    /// SAs past a soft limit.
    pub soft_expiries: u64,
    /// SAs past a hard limit.
    pub hard_expiries: u64,
}

/// Everything.
pub struct Measured<'a> {
    /// SAs and policies.
    pub snapshot: &'a Snapshot,
    /// What the machine's pfkeyd says of itself; `None`: there is none.
    pub service: Option<&'a Report>,
    /// What was heard; `None`: nobody listens.
    pub heard: Option<Heard>,
    /// How long reading took.
    pub took: Duration,
}

/// The whole text.
pub fn text(measured: &Measured<'_>, wanted: Wanted) -> String {
    let mut text = Text::default();
    sas(&mut text, measured.snapshot);
    policies(&mut text, measured.snapshot, wanted);
    if wanted.per_sa {
        each_sa(&mut text, measured.snapshot, wanted);
    }
    if let Some(heard) = measured.heard {
        text.family("pfkey_events", Kind::Counter, "", "What the key engine told since this program listens.");
        text.sample(&[("event", "acquire")], heard.acquires);
        text.sample(&[("event", "soft-expire")], heard.soft_expiries);
        text.sample(&[("event", "hard-expire")], heard.hard_expiries);
    }
    if let Some(statistics) = &measured.snapshot.statistics {
        text.family("pfkey_xfrm_stat", Kind::Counter, "", "The kernel's counters of packets that XFRM refused.");
        let unique: BTreeMap<&str, u64> = statistics.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        unique.into_iter().for_each(|(name, count)| text.sample(&[("counter", name)], count));
    }
    text.family("pfkey_service_up", Kind::Gauge, "", "Whether the machine's pfkeyd answers.");
    text.sample(&[], u8::from(measured.service.is_some()));
    if let Some(report) = measured.service {
        text.family("pfkey_service_sessions", Kind::Gauge, "", "Sessions of the machine's pfkeyd that may be known.");
        text.sample(&[], report.sessions.len());
        if let Some(counted) = report.counted {
            let mut counter = |name, help, count: u64| {
                text.family(name, Kind::Counter, "", help);
                text.sample(&[], count);
            };
            let help = "Messages that a session lost because its queue was full.";
            counter("pfkey_service_dropped_messages", help, counted.dropped);
            counter("pfkey_service_refused_clients", "Clients that there was no room for.", counted.refused);
            counter("pfkey_service_replaced_workers", "Workers that died and were replaced.", counted.workers);
            counter("pfkey_service_restarts", "Restarts that its sessions outlived.", counted.restarts);
        }
        if let Some(since) = report.since {
            let help = "When it started, in seconds since 1970.";
            text.family("pfkey_service_start_time_seconds", Kind::Gauge, "seconds", help);
            text.sample(&[], since);
        }
        text.family("pfkey_service_build", Kind::Gauge, "", "Its version; always 1.");
        text.sample(&[("version", &report.version)], 1);
    }
    text.family("pfkey_read_seconds", Kind::Gauge, "seconds", "How long it took to read all this.");
    text.sample(&[], measured.took.as_secs_f64());
    text.finish()
}

/// The name of a state, and which of two larvals it is.
fn state(state: State) -> String {
    names::state(SaState::from(state).0)
}

fn sas(text: &mut Text, snapshot: &Snapshot) {
    let mut counts = BTreeMap::new();
    for sa in &snapshot.sas {
        let key = (
            sa.protocol(),
            names::mode(sa.mode.0),
            state(sa.state),
            sa.encryption().unwrap_or_default(),
            sa.authentication().unwrap_or_default(),
            sa.compression().unwrap_or_default(),
        );
        *counts.entry(key).or_insert(0_u64) += 1;
    }
    text.family("pfkey_sas", Kind::Gauge, "", "SAs.");
    for ((protocol, mode, state, encryption, authentication, compression), count) in &counts {
        let labels = [
            ("protocol", protocol.as_str()),
            ("mode", mode),
            ("state", state),
            ("encryption", encryption),
            ("authentication", authentication),
            ("compression", compression),
        ];
        text.sample(&labels, count);
    }
    let waits = snapshot.sas.iter().filter(|sa| sa.state == State::Larval && sa.spi == 0).count();
    text.family(
        "pfkey_acquires_waiting",
        Kind::Gauge,
        "",
        "SAs that a key manager was asked for and has not made yet.",
    );
    text.sample(&[], waits);
    let known: Vec<Failures> = snapshot.sas.iter().filter_map(|sa| sa.failures).collect();
    if !known.is_empty() {
        let sum = |count: fn(&Failures) -> u32| known.iter().map(|failures| u64::from(count(failures))).sum::<u64>();
        text.family(
            "pfkey_sas_refused_packets",
            Kind::Gauge,
            "packets",
            "Packets that the SAs there are have refused.",
        );
        text.sample(&[("reason", "replayed")], sum(|f| f.replayed));
        text.sample(&[("reason", "too-old")], sum(|f| f.too_old));
        text.sample(&[("reason", "integrity")], sum(|f| f.integrity));
    }
}

fn policies(text: &mut Text, snapshot: &Snapshot, wanted: Wanted) {
    let mut counts = BTreeMap::new();
    for policy in &snapshot.policies {
        *counts.entry((direction(policy.dir), action(policy))).or_insert(0_u64) += 1;
    }
    text.family("pfkey_policies", Kind::Gauge, "", "Policies.");
    for ((direction, action), count) in &counts {
        text.sample(&[("direction", direction), ("action", action)], count);
    }
    let served = serving(snapshot);
    // The same each time, whatever was added since; a dump that changes under way may have one twice.
    let demanding: BTreeMap<u32, (&Policy, &Served)> = snapshot
        .policies
        .iter()
        .zip(&served)
        .filter(|(policy, _)| !policy.templates.is_empty())
        .map(|(policy, served)| (policy.id, (policy, served)))
        .collect();
    let mut lacking: BTreeMap<String, u64> = counts.keys().map(|(direction, _)| (direction.clone(), 0)).collect();
    for (policy, _) in demanding.values().filter(|(_, served)| served.complete == Some(false)) {
        *lacking.entry(direction(policy.dir)).or_default() += 1;
    }
    text.family("pfkey_policies_without_sa", Kind::Gauge, "", "Policies that demand an SA that is not there.");
    lacking.iter().for_each(|(direction, count)| text.sample(&[("direction", direction)], count));

    let listed: Vec<(&Policy, Sums)> =
        demanding.values().take(wanted.most).map(|(policy, served)| (*policy, Sums::of(snapshot, served))).collect();
    text.family("pfkey_policies_unlisted", Kind::Gauge, "", "Policies that demand SAs and have no numbers below.");
    text.sample(&[], demanding.len() - listed.len());
    let mut family = |name: &str, unit: &str, help: &str, number: fn(&Sums) -> Option<u64>| {
        text.family(name, Kind::Gauge, unit, help);
        for (policy, sums) in &listed {
            let Some(number) = number(sums) else { continue };
            let s = &policy.selector;
            let (id, direction) = (policy.id.to_string(), direction(policy.dir));
            let upper = if s.proto == 0 { String::new() } else { names::upper(s.proto) };
            let (source, destination) = (side(s.src, s.sport), side(s.dst, s.dport));
            let labels = [
                ("id", id.as_str()),
                ("direction", &direction),
                ("source", &source),
                ("destination", &destination),
                ("upper", &upper),
            ];
            text.sample(&labels, number);
        }
    };
    family("pfkey_policy_sas", "", "SAs that packets of the policy can take.", |sums| Some(sums.sas));
    family("pfkey_policy_sa_bytes", "bytes", "What they have carried.", |sums| Some(sums.bytes));
    family("pfkey_policy_sa_packets", "packets", "Packets that they have carried.", |sums| Some(sums.packets));
    let help = "Seconds until time ends the first of them.";
    family("pfkey_policy_sa_left_seconds", "seconds", help, |sums| sums.left);
}

/// What the SAs of a policy have done.
struct Sums {
    sas: u64,
    bytes: u64,
    packets: u64,
    left: Option<u64>,
}

impl Sums {
    fn of(snapshot: &Snapshot, served: &Served) -> Self {
        let mut sums = Self { sas: 0, bytes: 0, packets: 0, left: None };
        for sa in served.sas.iter().filter_map(|place| snapshot.sas.get(*place as usize)) {
            sums.sas += 1;
            sums.bytes = sums.bytes.saturating_add(sa.usage.bytes);
            sums.packets = sums.packets.saturating_add(sa.usage.packets);
            sums.left = sums.left.into_iter().chain(sa.seconds_left(snapshot.now)).min();
        }
        sums
    }
}

fn each_sa(text: &mut Text, snapshot: &Snapshot, wanted: Wanted) {
    // One that was asked for has no name yet.
    let named = snapshot.sas.iter().filter(|sa| sa.spi != 0);
    let mut seen = BTreeSet::new();
    let unique: Vec<&SaRow> = named.filter(|sa| seen.insert(sa.name())).collect();
    let listed = unique.get(..wanted.most).unwrap_or(&unique);
    text.family("pfkey_sas_unlisted", Kind::Gauge, "", "SAs with an SPI that have no numbers below.");
    text.sample(&[], unique.len() - listed.len());
    let mut family = |name: &str, kind: Kind, unit: &str, help: &str, number: fn(&SaRow, u64) -> Option<u64>| {
        text.family(name, kind, unit, help);
        for sa in listed {
            let Some(number) = number(sa, snapshot.now) else { continue };
            let (protocol, spi) = (sa.protocol(), format!("{:#010x}", sa.spi));
            let (source, destination) = (sa.ends.src().to_string(), sa.ends.dst().to_string());
            let reqid = if sa.reqid == 0 { String::new() } else { sa.reqid.to_string() };
            let mark =
                if sa.mark.mask == 0 { String::new() } else { format!("{:#x}/{:#x}", sa.mark.value, sa.mark.mask) };
            let labels = [
                ("protocol", protocol.as_str()),
                ("source", &source),
                ("destination", &destination),
                ("spi", &spi),
                ("reqid", &reqid),
                ("mark", &mark),
            ];
            text.sample(&labels, number);
        }
    };
    let counter = Kind::Counter;
    family("pfkey_sa_bytes", counter, "bytes", "What the SA has carried.", |sa, _| Some(sa.usage.bytes));
    family("pfkey_sa_packets", counter, "packets", "Packets that it has carried.", |sa, _| Some(sa.usage.packets));
    let left = |sa: &SaRow, now| sa.seconds_left(now);
    family("pfkey_sa_left_seconds", Kind::Gauge, "seconds", "Seconds until time ends it.", left);
    if listed.iter().any(|sa| sa.failures.is_some()) {
        let refused =
            |sa: &SaRow, _| sa.failures.map(|f| u64::from(f.replayed) + u64::from(f.too_old) + u64::from(f.integrity));
        family("pfkey_sa_refused_packets", counter, "packets", "Packets that it has refused.", refused);
    }
}
