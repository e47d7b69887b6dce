//! Addresses, networks, and what is between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pfkey_model::policy::{Policy, Template};
use pfkey_model::sa::State;
use pfkey_wire::{Mode, Prefix, SaState};

use crate::model::names;
use crate::overview::serving::serving;
use crate::overview::{SaRow, Snapshot, direction, duration, own, side, tunnel};

/// Kinds of SAs that are told of between two addresses; of the rest how many there are.
const MOST_LINES: usize = 4;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A tunnel ends there.
    Gateway,
    /// An address.
    Host,
    /// More than one address.
    Network,
}

/// What a line between two nodes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There are SAs from the one to the other.
    Sas,
    /// Policies demand an SA from the one to the other that is not there.
    Lacking,
    /// A network is behind a gateway.
    Behind,
}

impl Link {
    /// For programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sas => "sas",
            Self::Lacking => "lacking",
            Self::Behind => "behind",
        }
    }
}

/// A node: an address, or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its address or prefix.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// It is this machine's, or behind it, as policies know it.
    pub own: bool,
}

/// A line between two nodes, by their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Where packets come from.
    pub from: usize,
    /// Where they go.
    pub to: usize,
    /// What it says.
    pub link: Link,
    /// In words.
    pub lines: Vec<String>,
}

/// What there is no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// SAs.
    pub sas: usize,
    /// Policies.
    pub policies: usize,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} SAs and {} policies are not shown (--most)", self.sas, self.policies)
    }
}

/// The whole picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Lines, those that lack something first.
    pub edges: Vec<Edge>,
    /// What is not in it.
    pub left_out: LeftOut,
}

/// An address, or a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Address(IpAddr),
    Network(IpAddr, u8),
}

impl From<Prefix> for Place {
    fn from(prefix: Prefix) -> Self {
        if prefix == Prefix::host(prefix.address) {
            Self::Address(prefix.address)
        } else {
            Self::Network(prefix.address, prefix.len)
        }
    }
}

impl Graph {
    /// The picture of a snapshot with so many lines between addresses, and as many networks behind them, at most.
    pub fn of(snapshot: &Snapshot, most: usize) -> Self {
        let mut routes: BTreeMap<(IpAddr, IpAddr), Vec<&SaRow>> = BTreeMap::new();
        for sa in &snapshot.sas {
            routes.entry((sa.ends.src(), sa.ends.dst())).or_default().push(sa);
        }
        let mut lacking: BTreeMap<(Place, Place), Vec<String>> = BTreeMap::new();
        let mut behind: BTreeMap<(Place, IpAddr), usize> = BTreeMap::new();
        let mut gateways: BTreeSet<IpAddr> = BTreeSet::new();
        let tunnels = snapshot.sas.iter().filter(|sa| sa.mode != Mode::TRANSPORT);
        gateways.extend(tunnels.flat_map(|sa| [sa.ends.src(), sa.ends.dst()]));
        for (policy, served) in snapshot.policies.iter().zip(serving(snapshot)) {
            let Some(ends) = demanded(policy) else { continue };
            if let Some(tunnel) = tunnel(policy) {
                gateways.extend([tunnel.src(), tunnel.dst()]);
                for (prefix, gateway) in [(policy.selector.src, tunnel.src()), (policy.selector.dst, tunnel.dst())] {
                    let place = Place::from(prefix);
                    if place != Place::Address(gateway) && !gateway.is_unspecified() {
                        *behind.entry((place, gateway)).or_default() += 1;
                    }
                }
            }
            if served.complete == Some(false) {
                lacking.entry(ends).or_default().push(words(policy));
            }
        }

        let mut own: BTreeSet<Place> = own(&snapshot.policies).into_iter().map(Place::Address).collect();
        let networks =
            behind.keys().filter(|(_, gateway)| own.contains(&Place::Address(*gateway))).map(|(place, _)| *place);
        own.append(&mut networks.collect());
        let mut graph = Builder { gateways, own, graph: Self::default(), places: BTreeMap::new() };
        let mut room = most;
        for ((from, to), mut policies) in lacking {
            if room == 0 {
                graph.graph.left_out.policies += policies.len();
                continue;
            }
            room -= 1;
            fold(&mut policies, "policies");
            policies.push("no SA".to_owned());
            graph.edge(from, to, Link::Lacking, policies);
        }
        let mut routes: Vec<_> = routes.into_iter().collect();
        // The busiest first; those that are as busy stay in the order of their addresses.
        let bytes = |sas: &[&SaRow]| sas.iter().fold(0_u64, |sum, sa| sum.saturating_add(sa.usage.bytes));
        routes.sort_by_key(|(_, sas)| std::cmp::Reverse(bytes(sas)));
        for ((from, to), sas) in routes {
            if room == 0 {
                graph.graph.left_out.sas += sas.len();
                continue;
            }
            room -= 1;
            let (from, to) = (Place::Address(from), Place::Address(to));
            graph.edge(from, to, Link::Sas, kinds(&sas, snapshot.now));
        }
        let mut room = most;
        for ((place, gateway), policies) in behind {
            // A gateway without a line is one for which there was no room.
            if room == 0 || !graph.places.contains_key(&Place::Address(gateway)) {
                graph.graph.left_out.policies += policies;
                continue;
            }
            room -= 1;
            graph.edge(place, Place::Address(gateway), Link::Behind, Vec::new());
        }
        graph.graph
    }
}

struct Builder {
    gateways: BTreeSet<IpAddr>,
    own: BTreeSet<Place>,
    graph: Graph,
    places: BTreeMap<Place, usize>,
}

impl Builder {
    fn node(&mut self, place: Place) -> usize {
        let Self { gateways, own, graph, places } = self;
        *places.entry(place).or_insert_with(|| {
            let (name, kind) = match place {
                Place::Address(ip) if gateways.contains(&ip) => (ip.to_string(), Kind::Gateway),
                Place::Address(ip) => (ip.to_string(), Kind::Host),
                Place::Network(address, len) => (Prefix { address, len }.to_string(), Kind::Network),
            };
            graph.nodes.push(Node { name, kind, own: own.contains(&place) });
            graph.nodes.len() - 1
        })
    }

    fn edge(&mut self, from: Place, to: Place, link: Link, lines: Vec<String>) {
        let (from, to) = (self.node(from), self.node(to));
        self.graph.edges.push(Edge { from, to, link, lines });
    }
}

/// From where to where a policy demands SAs; nothing for one that demands none.
fn demanded(policy: &Policy) -> Option<(Place, Place)> {
    let template: &Template = policy.templates.iter().find(|template| !template.optional)?;
    Some(match template.mode {
        Mode::TRANSPORT => (policy.selector.src.into(), policy.selector.dst.into()),
        _ if template.ends.src().is_unspecified() => (policy.selector.src.into(), Place::Address(template.ends.dst())),
        _ => (Place::Address(template.ends.src()), Place::Address(template.ends.dst())),
    })
}

/// A policy in a line.
pub fn words(policy: &Policy) -> String {
    let s = &policy.selector;
    let upper = if s.proto == 0 { String::new() } else { format!(" {}", names::upper(s.proto)) };
    format!("{} {} → {}{upper}", direction(policy.dir), side(s.src, s.sport), side(s.dst, s.dport))
}

/// SAs in a line for each kind of them: how many, how old the newest is, and when time ends the first.
pub fn kinds(sas: &[&SaRow], now: u64) -> Vec<String> {
    let mut kinds: BTreeMap<String, (usize, u64, Option<u64>)> = BTreeMap::new();
    for sa in sas {
        let state = match sa.state {
            State::Mature => String::new(),
            state => format!(" {}", names::state(SaState::from(state).0)),
        };
        let algorithms = Some(sa.algorithms()).filter(|text| !text.is_empty());
        let algorithms = algorithms.map_or_else(String::new, |text| format!(" {text}"));
        let kind = format!("{} {}{algorithms}{state}", sa.protocol(), names::mode(sa.mode.0));
        let age = now.saturating_sub(sa.usage.add_time);
        let (count, youngest, left) = kinds.entry(kind).or_insert((0, age, None));
        *count += 1;
        *youngest = age.min(*youngest);
        *left = left.iter().copied().chain(sa.seconds_left(now)).min();
    }
    let line = |(kind, (count, youngest, left)): (String, (usize, u64, Option<u64>))| {
        let count = if count == 1 { String::new() } else { format!(" ×{count}") };
        let left = left.map_or_else(String::new, |left| format!(", {} left", duration(left)));
        format!("{kind}{count}, {} old{left}", duration(youngest))
    };
    let mut lines: Vec<String> = kinds.into_iter().map(line).collect();
    fold(&mut lines, "kinds");
    lines
}

/// Leaves out what is too much to read, and says so.
pub fn fold(lines: &mut Vec<String>, what: &str) {
    if lines.len() > MOST_LINES + 1 {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("… and {more} more {what}"));
    }
}

#[cfg(test)]
pub mod tests {
    use pfkey_model::sa::{Limits, Selector, Usage};
    use pfkey_model::view::SaView;
    use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Ends, IpsecProtocol, PolicyDirection};

    use super::*;

    pub fn sa(src: &str, dst: &str, spi: u32) -> SaRow {
        let ends = Ends::new(src.parse().unwrap(), dst.parse().unwrap()).unwrap();
        SaRow {
            mode: Mode::TUNNEL,
            encrypt: EncryptAlgorithm::X_AESCBC,
            auth: AuthAlgorithm::SHA1HMAC,
            hard: Limits { add_seconds: 3600, ..Limits::NONE },
            usage: Usage { add_time: 1000, bytes: spi.into(), ..Usage::NONE },
            ..SaRow::from(&SaView::new(ends, spi, IpsecProtocol::ESP))
        }
    }

    pub fn policy(dir: PolicyDirection, selector: [&str; 2], tunnel: [&str; 2]) -> Policy {
        let [src, dst] = selector.map(|text| text.parse().unwrap());
        let [from, to] = tunnel.map(|text| text.parse().unwrap());
        let template = Template {
            proto: IpsecProtocol::ESP,
            mode: Mode::TUNNEL,
            optional: false,
            reqid: 0,
            ends: Ends::new(from, to).unwrap(),
        };
        Policy { dir, templates: vec![template], ..Policy::of(Selector { dst, ..Selector::from(src) }) }
    }

    /// Two gateways with a network each, and SAs one way only.
    pub fn two_gateways() -> Snapshot {
        let (a, b) = ("192.0.2.1", "198.51.100.2");
        Snapshot {
            sas: vec![sa(a, b, 1), sa(a, b, 2)],
            policies: vec![
                policy(PolicyDirection::OUTBOUND, ["10.0.0.0/24", "10.1.0.0/24"], [a, b]),
                policy(PolicyDirection::INBOUND, ["10.1.0.0/24", "10.0.0.0/24"], [b, a]),
            ],
            now: 1300,
            ..Snapshot::default()
        }
    }

    #[test]
    fn two_gateways_and_what_lacks() {
        let graph = Graph::of(&two_gateways(), 100);
        let name = |place: usize| graph.nodes[place].name.as_str();
        let edges: Vec<_> = graph
            .edges
            .iter()
            .map(|edge| (name(edge.from), edge.link.name(), name(edge.to), edge.lines.join("; ")))
            .collect();
        let expected = [
            ("198.51.100.2", "lacking", "192.0.2.1", "in 10.1.0.0/24 → 10.0.0.0/24; no SA".to_owned()),
            ("192.0.2.1", "sas", "198.51.100.2", "esp tunnel aes-cbc hmac-sha1 ×2, 5 min old, 55 min left".to_owned()),
            ("10.0.0.0/24", "behind", "192.0.2.1", String::new()),
            ("10.1.0.0/24", "behind", "198.51.100.2", String::new()),
        ];
        assert_eq!(edges, expected);
        let kinds: Vec<_> = graph.nodes.iter().map(|node| (node.name.as_str(), node.kind, node.own)).collect();
        let expected = [
            ("198.51.100.2", Kind::Gateway, false),
            ("192.0.2.1", Kind::Gateway, true),
            ("10.0.0.0/24", Kind::Network, true),
            ("10.1.0.0/24", Kind::Network, false),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(graph.left_out, LeftOut::default());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut snapshot = two_gateways();
        snapshot.sas.push(sa("192.0.2.1", "203.0.113.9", 9));
        // What lacks comes first, then what is busy.
        let graph = Graph::of(&snapshot, 2);
        assert_eq!(graph.edges.iter().filter(|edge| edge.link != Link::Behind).count(), 2);
        assert_eq!(graph.left_out, LeftOut { sas: 2, policies: 0 });
        assert_eq!(Graph::of(&snapshot, 0).left_out, LeftOut { sas: 3, policies: 5 });
    }

    #[test]
    fn hosts_in_transport_mode() {
        let sas = vec![SaRow { mode: Mode::TRANSPORT, ..sa("2001:db8::1", "2001:db8::2", 1) }];
        let graph = Graph::of(&Snapshot { sas, now: 1000, ..Snapshot::default() }, 10);
        assert_eq!(graph.nodes[0], Node { name: "2001:db8::1".to_owned(), kind: Kind::Host, own: false });
        assert_eq!(graph.edges.len(), 1);
    }

    #[test]
    fn many_kinds_are_folded() {
        let mut lines: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        fold(&mut lines, "kinds");
        assert_eq!(lines.len(), 5);
        lines.push("5".to_owned());
        fold(&mut lines, "kinds");
        assert_eq!(lines, ["0", "1", "2", "3", "… and 2 more kinds"]);
    }
}
