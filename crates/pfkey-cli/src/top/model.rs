//! What is shown: SAs in groups of one peer and policy, how fast they go, and what has changed within the last minute.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pfkey_model::policy::Policy;
use pfkey_model::sa::State;
use pfkey_wire::{Mode, PolicyDirection};

use crate::model::names;
use crate::overview::serving::serving;
use crate::overview::{Name, SaRow, Snapshot, direction, own, side};

/// How far back things are remembered.
pub const MINUTE: Duration = Duration::from_secs(60);

/// What a group has in common: who is on the other side, and the policy's two sides, this machine's first.
pub type Key = (Option<IpAddr>, String);

/// Where an SA's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From this machine.
    Out,
    /// To it.
    In,
}

/// An SA and how fast it goes.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// It.
    pub sa: SaRow,
    /// Its way.
    pub way: Way,
    /// Bytes a second.
    pub bytes: f64,
    /// Packets a second.
    pub packets: f64,
    /// The policy whose packets take it, by its place among [`Model::rules`].
    pub policy: Option<u32>,
}

impl Item {
    /// Packets that it has refused.
    pub fn refused(&self) -> u64 {
        self.sa.failures.map_or(0, |f| u64::from(f.replayed) + u64::from(f.too_old) + u64::from(f.integrity))
    }
}

/// SAs of one peer and policy.
#[derive(Debug, Default)]
pub struct Group {
    /// Who, and for which packets.
    pub key: Key,
    /// Its SAs.
    pub items: Vec<Item>,
    /// Directions whose policies demand an SA that is not there.
    pub lacks: BTreeSet<String>,
    /// Bytes a second from and to this machine.
    pub out: f64,
    /// The same to it.
    pub into: f64,
    /// Seconds until time ends the first SA.
    pub left: Option<u64>,
    /// Packets that its SAs have refused.
    pub refused: u64,
}

/// A rate over the last minute.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Instant, f64)>);

impl History {
    fn push(&mut self, at: Instant, rate: f64) {
        self.0.push_back((at, rate));
        while self.0.front().is_some_and(|(then, _)| at.saturating_duration_since(*then) > MINUTE) {
            self.0.pop_front();
        }
    }

    /// The last minute in so many columns, the oldest first: the most of each, or what was before where nothing was measured.
    pub fn columns(&self, count: u32) -> Vec<f64> {
        let Some((now, _)) = self.0.back() else { return Vec::new() };
        let since = |at: &Instant| MINUTE.saturating_sub(now.saturating_duration_since(*at));
        let mut samples = self.0.iter().map(|(at, rate)| (since(at), *rate)).peekable();
        let mut last = 0.0;
        let column = |column: u32| {
            let end = MINUTE * column / count;
            let mut most: Option<f64> = None;
            while let Some((_, rate)) = samples.next_if(|(at, _)| *at < end || column == count) {
                most = Some(most.map_or(rate, |most| most.max(rate)));
                last = rate;
            }
            most.unwrap_or(last)
        };
        (1..=count).map(column).collect()
    }
}

/// A counter of the kernel's that has moved within the last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// By how much.
    pub by: u64,
}

/// Everything that is shown.
#[derive(Default)]
pub struct Model {
    /// SAs in their groups, in the order of their keys.
    pub groups: Vec<Group>,
    /// How fast each group goes.
    pub histories: HashMap<Key, History>,
    /// How fast all together go.
    pub history: History,
    /// SAs.
    pub sas: usize,
    /// Those past a soft limit.
    pub dying: usize,
    /// SAs that a key manager was asked for.
    pub acquires: usize,
    /// Those that demand an SA that is not there.
    pub lacking: usize,
    /// Counters that move.
    pub moved: Vec<Moved>,
    /// Unix time of all this.
    pub now: u64,
    /// They themselves.
    pub rules: Vec<Policy>,
    before: HashMap<Name, (u64, u64)>,
    measured: Option<Instant>,
    statistics: VecDeque<(Instant, HashMap<String, u64>)>,
}

impl Model {
    /// Takes in a snapshot. `local` are this machine's addresses, beside those that policies know.
    pub fn update(&mut self, snapshot: Snapshot, local: &BTreeSet<IpAddr>, at: Instant) {
        let seconds = self.measured.map(|then| at.saturating_duration_since(then).as_secs_f64()).filter(|s| *s > 0.0);
        let mut own = own(&snapshot.policies);
        own.extend(local);
        let mut groups = Groups::default();
        let labels: Vec<usize> = snapshot.policies.iter().map(|policy| groups.label(between(policy))).collect();
        let unlabelled = groups.label(String::new());
        let mut policy_of: Vec<Option<u32>> = vec![None; snapshot.sas.len()];
        self.lacking = 0;
        for (at, (policy, served)) in (0_u32..).zip(snapshot.policies.iter().zip(serving(&snapshot))) {
            for place in &served.sas {
                if let Some(first) = policy_of.get_mut(*place as usize).filter(|first| first.is_none()) {
                    *first = Some(at);
                }
            }
            if served.complete == Some(false) {
                self.lacking += 1;
                let first = served.sas.first().and_then(|place| snapshot.sas.get(*place as usize));
                let peer = first.map(|sa| other(sa, &own).0).or_else(|| peer(policy));
                let label = labels.get(at as usize).copied().unwrap_or(unlabelled);
                groups.of(peer, label).lacks.insert(direction(policy.dir));
            }
        }
        let mut before = HashMap::with_capacity(snapshot.sas.len());
        for (sa, policy) in snapshot.sas.iter().zip(policy_of) {
            let (peer, way) = other(sa, &own);
            let label = policy.and_then(|policy| labels.get(policy as usize).copied()).unwrap_or(unlabelled);
            let name = sa.name();
            let (bytes, packets) = (sa.usage.bytes, sa.usage.packets);
            let rate = |now: u64, then: u64| seconds.map_or(0.0, |s| now.saturating_sub(then) as f64 / s);
            // What is new has carried all of it since then, if there was a then.
            let (then_bytes, then_packets) = self.before.get(&name).copied().unwrap_or_default();
            let (fast, often) = (rate(bytes, then_bytes), rate(packets, then_packets));
            before.insert(name, (bytes, packets));
            groups.of(Some(peer), label).items.push(Item { sa: *sa, way, bytes: fast, packets: often, policy });
        }
        self.before = before;
        self.measured = Some(at);
        self.groups = groups.finish(snapshot.now);
        let keys: HashSet<&Key> = self.groups.iter().map(|group| &group.key).collect();
        self.histories.retain(|key, _| keys.contains(key));
        for group in &self.groups {
            self.histories.entry(group.key.clone()).or_default().push(at, group.out + group.into);
        }
        self.history.push(at, self.groups.iter().map(|group| group.out + group.into).sum());
        self.sas = snapshot.sas.len();
        self.dying = snapshot.sas.iter().filter(|sa| sa.state == State::Dying).count();
        self.acquires = snapshot.sas.iter().filter(|sa| sa.state == State::Larval && sa.spi == 0).count();
        self.now = snapshot.now;
        self.count(snapshot.statistics.as_deref().unwrap_or_default(), at);
        self.rules = snapshot.policies;
    }

    fn count(&mut self, statistics: &[(String, u64)], at: Instant) {
        let then = self.statistics.front().map(|(_, then)| then);
        let moved = statistics.iter().filter_map(|(name, value)| {
            let by = value.saturating_sub(*then?.get(name)?);
            (by > 0).then(|| Moved { name: name.clone(), value: *value, by })
        });
        self.moved = moved.collect();
        self.statistics.push_back((at, statistics.iter().cloned().collect()));
        while self.statistics.front().is_some_and(|(then, _)| at.saturating_duration_since(*then) > MINUTE) {
            self.statistics.pop_front();
        }
    }
}

/// Groups in the making.
#[derive(Default)]
struct Groups {
    /// Each label once: there are many SAs and few of these.
    labels: Vec<String>,
    known: HashMap<String, usize>,
    places: HashMap<(Option<IpAddr>, usize), usize>,
    groups: Vec<Group>,
}

impl Groups {
    fn label(&mut self, label: String) -> usize {
        if let Some(place) = self.known.get(&label) {
            return *place;
        }
        self.labels.push(label.clone());
        self.known.insert(label, self.labels.len() - 1);
        self.labels.len() - 1
    }

    fn of(&mut self, peer: Option<IpAddr>, label: usize) -> &mut Group {
        let Self { labels, places, groups, .. } = self;
        let place = *places.entry((peer, label)).or_insert_with(|| {
            let label = labels.get(label).cloned().unwrap_or_default();
            groups.push(Group { key: (peer, label), ..Group::default() });
            groups.len() - 1
        });
        &mut groups[place]
    }

    fn finish(mut self, now: u64) -> Vec<Group> {
        self.groups.iter_mut().for_each(|group| group.sum_up(now));
        self.groups.sort_by(|a, b| a.key.cmp(&b.key));
        self.groups
    }
}

impl Group {
    fn sum_up(&mut self, now: u64) {
        for item in &self.items {
            *(if item.way == Way::Out { &mut self.out } else { &mut self.into }) += item.bytes;
            self.left = self.left.into_iter().chain(item.sa.seconds_left(now)).min();
            self.refused += item.refused();
        }
    }
}

/// Who is on the other side of an SA, and its way.
fn other(sa: &SaRow, own: &BTreeSet<IpAddr>) -> (IpAddr, Way) {
    match (own.contains(&sa.ends.src()), own.contains(&sa.ends.dst())) {
        (false, true) => (sa.ends.src(), Way::In),
        _ => (sa.ends.dst(), Way::Out),
    }
}

/// Who is on the other side of a policy.
fn peer(policy: &Policy) -> Option<IpAddr> {
    let is_out = policy.dir == PolicyDirection::OUTBOUND;
    let tunnel = policy.templates.iter().find(|template| template.mode != Mode::TRANSPORT);
    match tunnel {
        Some(template) if is_out => Some(template.ends.dst()),
        Some(template) => Some(template.ends.src()),
        None => {
            let there = if is_out { policy.selector.dst } else { policy.selector.src };
            (there == pfkey_wire::Prefix::host(there.address)).then_some(there.address)
        }
    }
}

/// A policy's packets, this machine's side first, so that those of both ways are the same.
fn between(policy: &Policy) -> String {
    let s = &policy.selector;
    let (src, dst) = (side(s.src, s.sport), side(s.dst, s.dport));
    let upper = if s.proto == 0 { String::new() } else { format!(" {}", names::upper(s.proto)) };
    if policy.dir == PolicyDirection::OUTBOUND {
        format!("{src} ⇄ {dst}{upper}")
    } else {
        format!("{dst} ⇄ {src}{upper}")
    }
}

#[cfg(test)]
pub mod tests {
    use pfkey::listing::Failures;
    use pfkey_model::sa::Usage;

    use super::*;
    use crate::graph::tests::{policy, sa};

    const US: &str = "192.0.2.1";
    const THEM: &str = "198.51.100.2";

    pub fn snapshot() -> Snapshot {
        let failures = Some(Failures { replayed: 2, ..Failures::default() });
        Snapshot {
            sas: vec![sa(US, THEM, 0x1001), SaRow { failures, ..sa(THEM, US, 0x1002) }, sa("203.0.113.9", US, 0x1003)],
            policies: vec![
                policy(PolicyDirection::OUTBOUND, ["10.0.0.0/24", "10.1.0.0/24"], [US, THEM]),
                policy(PolicyDirection::INBOUND, ["10.1.0.0/24", "10.0.0.0/24"], [THEM, US]),
                policy(PolicyDirection::OUTBOUND, ["10.0.0.0/24", "10.7.0.0/24"], [US, "198.51.100.77"]),
            ],
            statistics: Some(vec![("XfrmInNoStates".to_owned(), 5), ("XfrmInError".to_owned(), 1)]),
            now: 1300,
        }
    }

    /// A second later, with more carried.
    pub fn later() -> Snapshot {
        let mut later = snapshot();
        for (sa, more) in later.sas.iter_mut().zip([1000, 500, 0]) {
            sa.usage = Usage { bytes: sa.usage.bytes + more, packets: more / 100, ..sa.usage };
        }
        later.statistics = Some(vec![("XfrmInNoStates".to_owned(), 8), ("XfrmInError".to_owned(), 1)]);
        later.now += 1;
        later
    }

    pub fn model() -> Model {
        let (mut model, began) = (Model::default(), Instant::now());
        model.update(snapshot(), &BTreeSet::new(), began);
        model.update(later(), &BTreeSet::new(), began + Duration::from_secs(1));
        model
    }

    #[test]
    fn groups_of_a_peer_and_a_policy() {
        let model = model();
        let shown: Vec<_> = model
            .groups
            .iter()
            .map(|g| {
                (g.key.0.unwrap().to_string(), g.key.1.as_str(), g.items.len(), g.out, g.into, g.refused, g.lacks.len())
            })
            .collect();
        let expected = [
            ("198.51.100.2".to_owned(), "10.0.0.0/24 ⇄ 10.1.0.0/24", 2, 1000.0, 500.0, 2, 0),
            ("198.51.100.77".to_owned(), "10.0.0.0/24 ⇄ 10.7.0.0/24", 0, 0.0, 0.0, 0, 1),
            ("203.0.113.9".to_owned(), "", 1, 0.0, 0.0, 0, 0),
        ];
        assert_eq!(shown, expected);
        assert_eq!((model.sas, model.rules.len(), model.lacking), (3, 3, 1));
        assert_eq!(model.groups[0].left, Some(3299));
    }

    #[test]
    fn nothing_is_fast_before_it_was_seen_twice() {
        let mut model = Model::default();
        model.update(snapshot(), &BTreeSet::new(), Instant::now());
        assert!(model.groups.iter().all(|group| group.out + group.into == 0.0));
        assert!(model.moved.is_empty());
    }

    #[test]
    fn counters_that_move() {
        let expected = Moved { name: "XfrmInNoStates".to_owned(), value: 8, by: 3 };
        assert_eq!(model().moved, [expected]);
    }

    #[test]
    fn a_minute_in_columns() {
        let (mut history, began) = (History::default(), Instant::now());
        for second in 0..120 {
            history.push(began + Duration::from_secs(second), second as f64);
        }
        let columns = history.columns(6);
        assert_eq!(columns, [68.0, 78.0, 88.0, 98.0, 108.0, 119.0]);
        let mut young = History::default();
        young.push(began, 7.0);
        assert_eq!(young.columns(3), [0.0, 0.0, 7.0]);
        // Every 30 seconds is a line, too.
        let mut seldom = History::default();
        for second in [0, 30, 60] {
            seldom.push(began + Duration::from_secs(second), second as f64 + 1.0);
        }
        assert_eq!(seldom.columns(6), [1.0, 1.0, 1.0, 31.0, 31.0, 61.0]);
    }
}
