//! Everything about one SA.

use pfkey_engine::Flow;
use pfkey_wire::{Ends, SaState};

use super::draw::speed;
use super::model::{Item, Model, Way};
use crate::graph::words;
use crate::model::{names, utc};
use crate::overview::{Name, duration};

/// The MTU of a path of which nothing is known.
pub const MTU: u32 = 1500;

fn find<'m>(model: &'m Model, name: &Name) -> Option<&'m Item> {
    model.groups.iter().flat_map(|group| &group.items).find(|item| item.sa.name() == *name)
}

/// An SA in lines.
pub fn fields(model: &Model, name: &Name) -> Vec<String> {
    let Some(item) = find(model, name) else { return vec!["it is gone".to_owned()] };
    let (sa, now) = (&item.sa, model.now);
    let mut lines = vec![
        format!("{} {} → {}  spi {:#010x}", sa.protocol(), sa.ends.src(), sa.ends.dst(), sa.spi),
        format!("mode {}, reqid {}, {}", names::mode(sa.mode.0), sa.reqid, names::state(SaState::from(sa.state).0)),
    ];
    let algorithms = sa.algorithms();
    lines.extend((!algorithms.is_empty()).then(|| format!("algorithms {algorithms}")));
    if sa.mark.mask != 0 {
        lines.push(format!("mark {:#x}/{:#x}", sa.mark.value, sa.mark.mask));
    }
    if sa.if_id != 0 {
        lines.push(format!("if_id {}", sa.if_id));
    }
    let usage = &sa.usage;
    for (what, time) in [("made", usage.add_time), ("used first", usage.use_time)] {
        if time != 0 {
            lines.push(format!("{what} {}, {} ago", utc(time), duration(now.saturating_sub(time))));
        }
    }
    let rate = format!("{}, {:.0} packets/s", speed(item.bytes), item.packets);
    lines.push(format!("{} bytes in {} packets, now {rate}", usage.bytes, usage.packets));
    for (which, limits) in [("soft", sa.soft), ("hard", sa.hard)] {
        let limits = [
            (limits.add_seconds, "seconds"),
            (limits.use_seconds, "seconds from its first use"),
            (limits.bytes, "bytes"),
            (limits.packets, "packets"),
        ];
        let limits: Vec<String> =
            limits.iter().filter(|(n, _)| *n != 0).map(|(n, what)| format!("{n} {what}")).collect();
        lines.extend((!limits.is_empty()).then(|| format!("{which} limit: {}", limits.join(", "))));
    }
    lines.extend(sa.seconds_left(now).map(|left| format!("time ends it in {}", duration(left))));
    if let Some(failures) = sa.failures {
        let (replayed, old, integrity) = (failures.replayed, failures.too_old, failures.integrity);
        lines.push(format!("refused: {replayed} replayed, {old} too old, {integrity} with a wrong integrity value"));
    }
    let policy = item.policy.and_then(|place| model.rules.get(place as usize));
    lines.push(policy.map_or_else(|| "no policy uses it".to_owned(), |policy| format!("policy {}", words(policy))));
    lines
}

/// A packet that an outbound SA could be for: of its policy, or between its ends.
pub fn flow(model: &Model, name: &Name) -> Option<Flow> {
    let item = find(model, name).filter(|item| item.way == Way::Out)?;
    let Some(policy) = item.policy.and_then(|place| model.rules.get(place as usize)) else {
        return Some(Flow::new(item.sa.ends, 0, 0, 0));
    };
    let s = &policy.selector;
    let or = |address: std::net::IpAddr, other| if address.is_unspecified() { other } else { address };
    let ends = Ends::new(or(s.src.address, item.sa.ends.src()), or(s.dst.address, item.sa.ends.dst()))?;
    let mut flow = Flow::new(ends, s.proto, s.sport, s.dport);
    (flow.mark, flow.if_id) = (policy.attached.xfrm.mark().masked(), policy.attached.xfrm.if_id());
    Some(flow)
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;

    #[test]
    fn everything_about_an_sa() {
        let model = model();
        let sa = model.groups[0].items.iter().find(|item| item.way == Way::Out).unwrap().sa;
        let expected = [
            "esp 192.0.2.1 → 198.51.100.2  spi 0x00001001",
            "mode tunnel, reqid 0, mature",
            "algorithms aes-cbc hmac-sha1",
            "made 1970-01-01T00:16:40Z, 301 s ago",
            "5097 bytes in 10 packets, now 1.0kB/s, 10 packets/s",
            "hard limit: 3600 seconds",
            "time ends it in 54 min",
            "policy out 10.0.0.0/24 → 10.1.0.0/24",
        ];
        let fields = fields(&model, &sa.name());
        assert_eq!(fields, expected.map(|line| line.replace("301 s", "5 min")));
        let flow = flow(&model, &sa.name()).unwrap();
        assert_eq!((flow.ends.src().to_string(), flow.ends.dst().to_string()), ("10.0.0.0".into(), "10.1.0.0".into()));
    }

    #[test]
    fn what_is_gone() {
        let model = Model::default();
        let name = crate::graph::tests::sa("192.0.2.1", "198.51.100.2", 1).name();
        assert_eq!(fields(&model, &name), ["it is gone"]);
        assert!(flow(&model, &name).is_none());
    }
}
