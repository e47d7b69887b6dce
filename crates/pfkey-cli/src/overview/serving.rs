//! Which SAs serve which policy, as the kernel matches them (`xfrm_state_look_at`, `xfrm_state_ok`).

use std::collections::HashMap;
use std::net::IpAddr;

use pfkey_model::policy::{Policy, Template};
use pfkey_wire::{Ends, IpsecProtocol, Mode, PolicyDirection, Prefix};

use super::{SaRow, Snapshot};

/// SAs that are looked at one by one for policies of whole networks, before the rest stays unknown.
const MOST_LOOKS: usize = 20_000_000;

/// What was found for one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Positions of the SAs that packets can take, template after template.
    pub sas: Vec<u32>,
    /// Whether every SA that it demands is there; `None`: there were too many to look at.
    pub complete: Option<bool>,
}

/// For each policy of a snapshot what serves it.
pub fn serving(snapshot: &Snapshot) -> Vec<Served> {
    let index = Index::of(&snapshot.sas);
    let mut looks = MOST_LOOKS;
    snapshot.policies.iter().map(|policy| index.served(&snapshot.sas, policy, &mut looks)).collect()
}

/// SAs by what templates demand of them.
struct Index {
    between: HashMap<(Ends, IpsecProtocol, Mode), Vec<u32>>,
    to: HashMap<(IpAddr, IpsecProtocol, Mode), Vec<u32>>,
    all: HashMap<(IpsecProtocol, Mode), Vec<u32>>,
}

impl Index {
    fn of(sas: &[SaRow]) -> Self {
        let (mut between, mut to, mut all) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (place, sa) in (0_u32..).zip(sas) {
            if sa.state.is_valid() {
                between.entry((sa.ends, sa.proto, sa.mode)).or_insert_with(Vec::new).push(place);
                to.entry((sa.ends.dst(), sa.proto, sa.mode)).or_insert_with(Vec::new).push(place);
                all.entry((sa.proto, sa.mode)).or_insert_with(Vec::new).push(place);
            }
        }
        Self { between, to, all }
    }

    fn served(&self, sas: &[SaRow], policy: &Policy, looks: &mut usize) -> Served {
        let mut served = Served { sas: Vec::new(), complete: Some(true) };
        for template in &policy.templates {
            let before = served.sas.len();
            let candidates = self.candidates(policy, template);
            let looked_at = candidates.len().min(*looks);
            *looks -= looked_at;
            let places = candidates.iter().take(looked_at).copied();
            let fits = |place: &u32| sas.get(*place as usize).is_some_and(|sa| fits(sa, policy, template));
            served.sas.extend(places.filter(fits));
            if served.sas.len() == before && !template.optional {
                served.complete = match served.complete {
                    _ if looked_at < candidates.len() => None,
                    None => None,
                    _ => Some(false),
                };
            }
        }
        served
    }

    /// The shortest list that holds every SA for a template.
    fn candidates(&self, policy: &Policy, template: &Template) -> &[u32] {
        let Template { proto, mode, ends, .. } = *template;
        let is_one = |prefix: Prefix| prefix == Prefix::host(prefix.address);
        let (src, dst) = (policy.selector.src, policy.selector.dst);
        let found = if mode != Mode::TRANSPORT && !ends.src().is_unspecified() {
            self.between.get(&(ends, proto, mode))
        } else if mode != Mode::TRANSPORT {
            self.to.get(&(ends.dst(), proto, mode))
        } else if is_one(src) && is_one(dst) {
            Ends::new(src.address, dst.address).and_then(|ends| self.between.get(&(ends, proto, mode)))
        } else if is_one(dst) {
            self.to.get(&(dst.address, proto, mode))
        } else {
            self.all.get(&(proto, mode))
        };
        found.map_or(&[], Vec::as_slice)
    }
}

/// Whether an SA of the right protocol and mode does for a template.
fn fits(sa: &SaRow, policy: &Policy, template: &Template) -> bool {
    // Outbound a reqid of 0 means SAs without one; inbound it means any.
    let reqid = sa.reqid == template.reqid || template.reqid == 0 && policy.dir != PolicyDirection::OUTBOUND;
    let xfrm = &policy.attached.xfrm;
    let between = if template.mode == Mode::TRANSPORT {
        policy.selector.src.covers(sa.ends.src()) && policy.selector.dst.covers(sa.ends.dst())
    } else {
        sa.ends.dst() == template.ends.dst()
    };
    reqid && between && sa.if_id == xfrm.if_id() && sa.mark.covers(xfrm.mark().masked())
}

#[cfg(test)]
mod tests {
    use pfkey_model::sa::{Selector, State};
    use pfkey_model::view::SaView;

    use super::*;

    fn ends(src: &str, dst: &str) -> Ends {
        Ends::new(src.parse().unwrap(), dst.parse().unwrap()).unwrap()
    }

    fn sa(src: &str, dst: &str, mode: Mode, reqid: u32) -> SaRow {
        SaRow { mode, reqid, ..SaRow::from(&SaView::new(ends(src, dst), 1, IpsecProtocol::ESP)) }
    }

    fn policy(dir: PolicyDirection, src: &str, dst: &str, template: Template) -> Policy {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let selector = Selector { dst, ..Selector::from(src) };
        Policy { dir, templates: vec![template], ..Policy::of(selector) }
    }

    fn template(mode: Mode, reqid: u32, ends: Ends) -> Template {
        Template { proto: IpsecProtocol::ESP, mode, optional: false, reqid, ends }
    }

    fn found(sas: Vec<SaRow>, policy: Policy) -> (Vec<u32>, Option<bool>) {
        let snapshot = Snapshot { sas, policies: vec![policy], ..Snapshot::default() };
        let served = serving(&snapshot).remove(0);
        (served.sas, served.complete)
    }

    #[test]
    fn a_tunnel_takes_the_sas_between_its_ends() {
        let there = ends("192.0.2.1", "198.51.100.2");
        let sas = || {
            vec![
                sa("192.0.2.1", "198.51.100.2", Mode::TUNNEL, 0),
                sa("192.0.2.1", "198.51.100.2", Mode::TRANSPORT, 0),
                sa("192.0.2.1", "198.51.100.2", Mode::TUNNEL, 7),
                sa("192.0.2.9", "198.51.100.2", Mode::TUNNEL, 0),
                SaRow { state: State::Larval, ..sa("192.0.2.1", "198.51.100.2", Mode::TUNNEL, 0) },
            ]
        };
        let by = |dir, reqid, ends| policy(dir, "10.0.0.0/8", "10.1.0.0/16", template(Mode::TUNNEL, reqid, ends));
        let (out, inbound) = (PolicyDirection::OUTBOUND, PolicyDirection::INBOUND);
        assert_eq!(found(sas(), by(out, 0, there)), (vec![0], Some(true)));
        assert_eq!(found(sas(), by(out, 7, there)), (vec![2], Some(true)));
        assert_eq!(found(sas(), by(inbound, 0, there)), (vec![0, 2], Some(true)));
        assert_eq!(found(sas(), by(out, 0, ends("0.0.0.0", "198.51.100.2"))), (vec![0, 3], Some(true)));
        assert_eq!(found(sas(), by(out, 0, ends("192.0.2.1", "198.51.100.3"))), (vec![], Some(false)));
    }

    #[test]
    fn transport_takes_the_sas_between_hosts_of_its_networks() {
        let sas =
            || vec![sa("10.0.0.1", "10.1.0.1", Mode::TRANSPORT, 0), sa("10.9.0.1", "10.1.0.1", Mode::TRANSPORT, 0)];
        let nowhere = Ends::unspecified("0.0.0.0".parse().unwrap());
        let by = |src, dst| policy(PolicyDirection::OUTBOUND, src, dst, template(Mode::TRANSPORT, 0, nowhere));
        assert_eq!(found(sas(), by("10.0.0.0/16", "10.1.0.0/16")), (vec![0], Some(true)));
        assert_eq!(found(sas(), by("10.0.0.0/8", "10.1.0.1")), (vec![0, 1], Some(true)));
        assert_eq!(found(sas(), by("10.9.0.1", "10.1.0.1")), (vec![1], Some(true)));
        assert_eq!(found(sas(), by("10.9.0.1", "10.1.0.2")), (vec![], Some(false)));
    }

    #[test]
    fn what_is_optional_is_not_missed() {
        let there = ends("192.0.2.1", "198.51.100.2");
        let optional = Template { optional: true, ..template(Mode::TUNNEL, 0, there) };
        let by = policy(PolicyDirection::INBOUND, "10.0.0.0/8", "10.1.0.0/16", optional);
        assert_eq!(found(vec![], by), (vec![], Some(true)));
    }

    #[test]
    fn too_many_to_look_at_is_unknown() {
        let sas = vec![sa("10.9.0.1", "10.1.0.1", Mode::TRANSPORT, 0); 4];
        let nowhere = Ends::unspecified("0.0.0.0".parse().unwrap());
        let by = policy(PolicyDirection::OUTBOUND, "10.0.0.0/16", "10.1.0.0/16", template(Mode::TRANSPORT, 0, nowhere));
        let index = Index::of(&sas);
        assert_eq!(index.served(&sas, &by, &mut 3).complete, None);
        assert_eq!(index.served(&sas, &by, &mut 4).complete, Some(false));
    }
}
