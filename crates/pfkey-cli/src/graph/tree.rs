//! As text: pairs of addresses, with the SAs and policies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pfkey_model::policy::Policy;
use pfkey_wire::{Ends, Mode};

use super::model::{LeftOut, kinds, words};
use crate::overview::serving::serving;
use crate::overview::{SaRow, Snapshot, own};

/// Policies of one pair that are told of; of the rest how many there are.
const MOST_POLICIES: usize = 20;

/// What a line means, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Two addresses.
    Pair,
    /// Something between them.
    Plain,
    /// An SA is missing.
    Lacking,
}

/// What is between two addresses, of which the first is this machine's if that is known.
#[derive(Default)]
struct Pair<'s> {
    there: Vec<&'s SaRow>,
    back: Vec<&'s SaRow>,
    policies: Vec<(&'s Policy, bool)>,
}

/// The lines, and what there was no room for.
pub fn tree(snapshot: &Snapshot, most: usize) -> (Vec<(Line, String)>, LeftOut) {
    let own = own(&snapshot.policies);
    let mut pairs: BTreeMap<(IpAddr, IpAddr), Pair<'_>> = BTreeMap::new();
    for sa in &snapshot.sas {
        let (key, is_back) = ordered(&own, sa.ends.src(), sa.ends.dst());
        let pair = pairs.entry(key).or_default();
        if is_back { pair.back.push(sa) } else { pair.there.push(sa) }
    }
    for (policy, served) in snapshot.policies.iter().zip(serving(snapshot)) {
        let Some(ends) = between(policy) else { continue };
        let pair = pairs.entry(ordered(&own, ends.src(), ends.dst()).0).or_default();
        pair.policies.push((policy, served.complete == Some(false)));
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    // What lacks something first.
    pairs.sort_by_key(|(_, pair)| !pair.policies.iter().any(|(_, lacks)| *lacks));
    let mut left_out = LeftOut::default();
    let mut lines = Vec::new();
    for (at, ((one, other), pair)) in pairs.iter().enumerate() {
        if at >= most {
            left_out.sas += pair.there.len() + pair.back.len();
            left_out.policies += pair.policies.len();
            continue;
        }
        lines.push((Line::Pair, format!("{one} ⇄ {other}")));
        let mut below: Vec<(Line, String)> = Vec::new();
        for (arrow, sas) in [("→", &pair.there), ("←", &pair.back)] {
            below.extend(kinds(sas, snapshot.now).into_iter().map(|line| (Line::Plain, format!("{arrow} {line}"))));
        }
        for (policy, lacks) in pair.policies.iter().take(MOST_POLICIES) {
            let words = words(policy);
            below.push(if *lacks { (Line::Lacking, format!("{words}  no SA")) } else { (Line::Plain, words) });
        }
        if pair.policies.len() > MOST_POLICIES {
            let rest = pair.policies.get(MOST_POLICIES..).unwrap_or_default();
            let lacking = rest.iter().filter(|(_, lacks)| *lacks).count();
            below.push((Line::Plain, format!("… and {} more policies, {lacking} of them without an SA", rest.len())));
        }
        let last = below.len();
        let twig = |at: usize| if at + 1 == last { "└─" } else { "├─" };
        lines.extend(below.into_iter().enumerate().map(|(at, (line, text))| (line, format!("{} {text}", twig(at)))));
    }
    (lines, left_out)
}

/// Two addresses, this machine's first, and whether they were the other way round.
fn ordered(own: &BTreeSet<IpAddr>, src: IpAddr, dst: IpAddr) -> ((IpAddr, IpAddr), bool) {
    let is_back = match (own.contains(&src), own.contains(&dst)) {
        (true, false) => false,
        (false, true) => true,
        _ => dst < src,
    };
    if is_back { ((dst, src), true) } else { ((src, dst), false) }
}

/// The addresses between which a policy demands SAs.
fn between(policy: &Policy) -> Option<Ends> {
    let template = policy.templates.first()?;
    if template.mode == Mode::TRANSPORT {
        return Ends::new(policy.selector.src.address, policy.selector.dst.address);
    }
    Some(template.ends)
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{sa, two_gateways};
    use super::*;

    #[test]
    fn the_tree_of_two_gateways() {
        let (lines, left_out) = tree(&two_gateways(), 10);
        let expected = [
            (Line::Pair, "192.0.2.1 ⇄ 198.51.100.2"),
            (Line::Plain, "├─ → esp tunnel aes-cbc hmac-sha1 ×2, 5 min old, 55 min left"),
            (Line::Plain, "├─ out 10.0.0.0/24 → 10.1.0.0/24"),
            (Line::Lacking, "└─ in 10.1.0.0/24 → 10.0.0.0/24  no SA"),
        ];
        assert_eq!(lines, expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(left_out, LeftOut::default());
    }

    #[test]
    fn this_machine_is_on_the_left() {
        let mut snapshot = two_gateways();
        snapshot.sas.push(sa("9.9.9.9", "192.0.2.1", 3));
        let (lines, _) = tree(&snapshot, 10);
        assert_eq!(lines[4].1, "192.0.2.1 ⇄ 9.9.9.9");
        assert!(lines[5].1.starts_with("└─ ← esp"), "{lines:?}");
        assert_eq!(tree(&snapshot, 1).1, LeftOut { sas: 1, policies: 0 });
    }
}
