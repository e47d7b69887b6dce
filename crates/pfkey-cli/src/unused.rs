//! SAs that no policy uses, and policies whose SAs are missing, as Linux would look for them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use pfkey::policy_text::{AH, ESP, IPCOMP, RequestSpec};
use pfkey_wire::{Mode, PolicyDirection, PolicyLevel, PolicyType, Prefix, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::policy::{PolicyEntry, request_words};
use crate::model::sa::{SaEntry, SaId};
use crate::state;

/// SAs that are looked at for policies of whole networks; beyond that it would take too long.
const PATIENCE: usize = 20_000_000;
/// Lines that are told.
const MOST: usize = 20;

/// What an SA must be: protocol, mode, ends.
type Place = (u8, u8, IpAddr, IpAddr);

struct Sad<'s> {
    sas: &'s [SaEntry],
    by_place: HashMap<Place, Vec<usize>>,
    left: usize,
}

fn protocol(satype: SaType) -> u8 {
    match satype {
        SaType::AH => AH,
        SaType::X_IPCOMP => IPCOMP,
        _ => ESP,
    }
}

fn place(entry: &SaEntry) -> Place {
    let sa = &entry.sa;
    (protocol(sa.satype), sa.mode, sa.src.ip(), sa.dst.ip())
}

/// Whether an address is in a network.
fn contains(network: SocketAddr, len: u8, address: IpAddr) -> bool {
    (Prefix { address: network.ip(), len }).covers(address)
}

impl Sad<'_> {
    /// The SAs that a request of a policy may use; `None` if they are too many to look at.
    fn of(&mut self, entry: &PolicyEntry, request: &RequestSpec, ends: Option<(IpAddr, IpAddr)>) -> Option<Vec<usize>> {
        let policy = &entry.policy;
        let (protocol, mode) = (request.protocol, request.mode.0);
        let is_host = |address: SocketAddr, len| len == crate::model::width(address);
        let hosts = is_host(policy.src, policy.src_prefix) && is_host(policy.dst, policy.dst_prefix);
        let ends = ends.or_else(|| hosts.then_some((policy.src.ip(), policy.dst.ip())));
        let mut found: Vec<usize> = match ends {
            Some((src, dst)) => self.by_place.get(&(protocol, mode, src, dst)).cloned().unwrap_or_default(),
            None => {
                self.left = self.left.checked_sub(self.sas.len())?;
                let fits = |entry: &SaEntry| {
                    let (p, m, src, dst) = place(entry);
                    (p, m) == (protocol, mode)
                        && contains(policy.src, policy.src_prefix, src)
                        && contains(policy.dst, policy.dst_prefix, dst)
                };
                let all = self.sas.iter().enumerate().filter(|(_, entry)| fits(entry));
                all.map(|(at, _)| at).collect()
            }
        };
        // Outbound, an SA of the request's very number is looked for; inbound, a request without one takes any.
        let outbound = policy.spec.direction == PolicyDirection::OUTBOUND;
        let if_id = policy.attached.xfrm.if_id();
        found.retain(|at| {
            self.sas.get(*at).is_some_and(|entry| {
                let sa = &entry.sa;
                (sa.reqid == request.reqid || !outbound && request.reqid == 0)
                    && (if_id == 0 || sa.attached.xfrm.if_id() == if_id)
            })
        });
        Some(found)
    }
}

/// Says what is there in vain, of the SAs that were `added` and of all policies.
pub fn told(channel: &mut Channel, added: &HashSet<SaId>) -> Result<Vec<String>, Failure> {
    let sas = state::sas(channel, SaType::UNSPEC)?;
    let policies = state::policies(channel)?;
    Ok(in_vain(&sas, &policies, added))
}

fn in_vain(sas: &[SaEntry], policies: &[PolicyEntry], added: &HashSet<SaId>) -> Vec<String> {
    let mut by_place: HashMap<Place, Vec<usize>> = HashMap::new();
    for (at, entry) in sas.iter().enumerate() {
        by_place.entry(place(entry)).or_default().push(at);
    }
    let mut sad = Sad { sas, by_place, left: PATIENCE };
    let (mut used, mut lines) = (HashSet::new(), Vec::new());
    let mut all_seen = true;
    // The engine tells of the newest first.
    for entry in policies.iter().rev().filter(|entry| entry.policy.spec.policy_type == PolicyType::IPSEC) {
        let spec = &entry.policy.spec;
        let mut ends = None;
        for request in &spec.requests {
            if request.mode != Mode::TRANSPORT {
                ends = request.addresses.map(|(src, dst)| (src.ip(), dst.ip())).or(ends);
            }
            let Some(found) = sad.of(entry, request, ends) else {
                all_seen = false;
                continue;
            };
            // A policy for forwarded packets uses the SAs of the inbound one whose copy it is.
            let missed = request.level != PolicyLevel::USE && spec.direction != PolicyDirection::FWD;
            if found.is_empty() && missed && !entry.is_of_socket() {
                lines.push(format!("{}: no SA for {}", entry.policy.title(), request_words(request)));
            }
            used.extend(found);
        }
    }
    if all_seen {
        for (at, entry) in sas.iter().enumerate().rev() {
            if added.contains(&entry.sa.id()) && !used.contains(&at) {
                lines.push(format!("{}: no policy uses it", entry.sa.title()));
            }
        }
    }
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} more like these"));
    }
    lines
}
