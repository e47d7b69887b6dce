//! What AF_KEY's messages contain and XFRM's leave out, remembered for each SA and policy.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::sa::is_past_soft_limit;
use pfkey_hub::Time;
use pfkey_model::label::SecurityLabel;
use pfkey_model::sa::{Encap, Key, Sa, SaId, State};
use pfkey_model::xfrm::Xfrm;
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Ends, IpsecProtocol};

/// Larvals that are remembered at most. They live for seconds.
const WANTED: usize = 1024;

/// A larval that an ACQUIRE made, by what the kernel finds it by.
#[derive(Debug)]
pub struct Larval {
    /// The ACQUIRE's sequence number.
    pub seq: u32,
    pub ends: Ends,
    pub proto: IpsecProtocol,
    /// Its mark and its XFRM interface.
    pub xfrm: Xfrm,
}

/// An algorithm that an SA's protocol has no use for. AF_KEY keeps and shows it, XFRM refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// `sadb_sa_auth`, or none.
    pub auth: AuthAlgorithm,
    /// Its key.
    pub auth_key: Key,
    /// `sadb_sa_encrypt`, or none.
    pub encrypt: EncryptAlgorithm,
    /// Its key.
    pub encrypt_key: Key,
}

impl Unused {
    /// The algorithm of an SA that XFRM would refuse.
    pub fn of(sa: &Sa) -> Option<Box<Self>> {
        match sa.proto {
            IpsecProtocol::AH if sa.encrypt != EncryptAlgorithm::NONE => Some(Box::new(Self {
                auth: AuthAlgorithm::NONE,
                auth_key: Key::default(),
                encrypt: sa.encrypt,
                encrypt_key: sa.encrypt_key.clone(),
            })),
            IpsecProtocol::IPCOMP if sa.auth != AuthAlgorithm::NONE => Some(Box::new(Self {
                auth: sa.auth,
                auth_key: sa.auth_key.clone(),
                encrypt: EncryptAlgorithm::NONE,
                encrypt_key: Key::default(),
            })),
            _ => None,
        }
    }

    /// Adds it to an SA that XFRM reports.
    pub fn add_to(&self, sa: &mut Sa) {
        if self.auth != AuthAlgorithm::NONE {
            sa.auth = self.auth;
            sa.auth_key = self.auth_key.clone();
        }
        if self.encrypt != EncryptAlgorithm::NONE {
            sa.encrypt = self.encrypt;
            sa.encrypt_key = self.encrypt_key.clone();
        }
    }
}

/// What is remembered of an SA.
#[derive(Debug)]
pub struct Known {
    auth: AuthAlgorithm,
    encrypt: EncryptAlgorithm,
    encap: Option<Encap>,
    label: Option<SecurityLabel>,
    unused: Option<Box<Unused>>,
    /// Whether the kernel reported that a soft limit was reached; `None` = it may have done so before anybody listened.
    dying: Option<bool>,
}

/// What was known of SAs before a reconciliation.
pub struct Before(HashMap<SaId, Known, foldhash::fast::RandomState>);

impl Before {
    /// What was known of an SA.
    pub fn take(&mut self, id: &SaId) -> Option<Known> {
        self.0.remove(id)
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub struct Shadow {
    sas: HashMap<SaId, Known, foldhash::fast::RandomState>,
    wanted: VecDeque<Larval>,
    /// Labels of policies that have one.
    labels: HashMap<u32, SecurityLabel>,
    /// When policies of the last second were inserted, and their order.
    young: HashMap<u32, Time>,
    order: VecDeque<u32>,
}

impl Shadow {
    /// Number of SAs that are remembered.
    pub fn len(&self) -> usize {
        self.sas.len()
    }

    /// An SA was added, or a larval became one.
    pub fn add(&mut self, sa: &Sa, unused: Option<Box<Unused>>) {
        self.remember(sa, unused, Some(false));
    }

    fn remember(&mut self, sa: &Sa, unused: Option<Box<Unused>>, dying: Option<bool>) {
        let known = Known {
            auth: sa.auth,
            encrypt: sa.encrypt,
            encap: sa.encap,
            label: sa.attached.label.clone(),
            unused,
            dying,
        };
        self.sas.insert(sa.id(), known);
    }

    /// A mature SA got new ports.
    pub fn update(&mut self, sa: &Sa) {
        if let Some(known) = self.sas.get_mut(&sa.id()) {
            known.encap = sa.encap;
        }
    }

    /// Whether an SA, not a larval, is known by this name.
    pub fn has(&self, id: &SaId) -> bool {
        self.sas.contains_key(id)
    }

    /// The name of an SA that is known with a mark, of which `id` has none.
    pub fn like(&self, id: &SaId) -> SaId {
        let same = |known: &&SaId| SaId { mark: 0, ..**known } == *id;
        if self.has(id) { *id } else { self.sas.keys().find(same).copied().unwrap_or(*id) }
    }

    /// Sets whether an SA is past a soft limit; `None` = not known.
    pub fn set_dying(&mut self, id: &SaId, dying: Option<bool>) {
        if let Some(known) = self.sas.get_mut(id) {
            known.dying = dying;
        }
    }

    /// An SA was removed.
    pub fn remove(&mut self, id: &SaId) {
        self.sas.remove(id);
    }

    /// All SAs of a protocol were removed.
    pub fn flush(&mut self, proto: IpsecProtocol) {
        self.sas.retain(|id, _| !proto.includes(id.proto));
    }

    /// Events were lost: any SA may have reached a soft limit, or been added anew or updated.
    pub fn doubt(&mut self) {
        self.sas.values_mut().for_each(|known| known.dying = None);
    }

    /// Forgets all SAs, some of which are gone or have other names, but those of which XFRM was not told everything.
    pub fn forget_all(&mut self) {
        self.sas.retain(|_, known| known.unused.is_some());
        self.sas.shrink_to_fit();
    }

    /// Completes an SA that the kernel reported with its attributes.
    pub fn complete(&self, sa: &mut Sa, now: Time) {
        if sa.state == State::Larval {
            return;
        }
        let known = self.sas.get(&sa.id());
        if known.and_then(|k| k.dying).unwrap_or_else(|| is_past_soft_limit(&sa.soft, &sa.usage, now)) {
            sa.state = State::Dying;
        }
        if let Some(unused) = known.and_then(|k| k.unused.as_ref()) {
            unused.add_to(sa);
        }
    }

    /// Completes an SA that the kernel reported without its attributes.
    pub fn complete_expired(&self, sa: &mut Sa) {
        let Some(known) = self.sas.get(&sa.id()) else { return };
        (sa.auth, sa.encrypt, sa.encap) = (known.auth, known.encrypt, known.encap);
        sa.attached.label.clone_from(&known.label);
        if let Some(unused) = &known.unused {
            unused.add_to(sa);
        }
    }

    /// Forgets all SAs. Returns what was known of them, for [`Shadow::carry_over`].
    pub fn start_over(&mut self) -> Before {
        Before(std::mem::take(&mut self.sas))
    }

    /// What is known of an SA, which is remembered no more.
    pub fn take(&mut self, id: &SaId) -> Option<Known> {
        self.sas.remove(id)
    }

    /// Remembers an SA of the kernel's, with what was known of it before.
    pub fn carry_over(&mut self, before: Option<Known>, sa: &Sa) {
        if sa.state != State::Larval {
            // Another SA may have the name now.
            let known = before.filter(|known| (known.auth, known.encrypt) == (sa.auth, sa.encrypt));
            let (unused, dying) = known.map_or((None, None), |known| (known.unused, known.dying));
            self.remember(sa, unused, dying);
        }
    }

    /// A reconciliation failed: SAs that it did not reach stay as they were.
    pub fn keep(&mut self, before: Before) {
        for (id, known) in before.0 {
            self.sas.entry(id).or_insert(known);
        }
    }

    /// The kernel made a larval and wants an SA.
    pub fn want(&mut self, larval: Larval) {
        if self.wanted.len() == WANTED {
            self.wanted.pop_front();
        }
        self.wanted.push_back(larval);
    }

    /// The larval of an ACQUIRE, which is wanted no more.
    pub fn give_up(&mut self, seq: u32) -> Option<Larval> {
        let at = self.wanted.iter().position(|larval| larval.seq == seq)?;
        self.wanted.remove(at)
    }

    /// An SA is gone. If it was a larval that an ACQUIRE made, that is wanted no more; numbers alone may be equal.
    pub fn larval_ended(&mut self, sa: &Sa) {
        self.wanted.retain(|larval| (larval.seq, larval.ends, larval.proto) != (sa.seq, sa.ends, sa.proto));
    }

    /// A policy was inserted.
    pub fn policy_inserted(&mut self, id: u32, now: Time) {
        while let Some(id) = self.order.front() {
            if self.is_young(*id, now) {
                break;
            }
            self.young.remove(id);
            self.order.pop_front();
        }
        self.young.insert(id, now);
        self.order.push_back(id);
    }

    /// Whether a policy is in its first second, during which the kernel's timer refers to it.
    pub fn is_young(&self, id: u32, now: Time) -> bool {
        // A clock that was put back says nothing of what was before.
        self.young.get(&id).is_some_and(|at| (*at..*at + Duration::from_secs(1)).contains(&now))
    }

    /// Remembers the label of a policy, for the notification of its removal.
    pub fn set_label(&mut self, id: u32, label: Option<SecurityLabel>) {
        match label {
            Some(label) => drop(self.labels.insert(id, label)),
            None => drop(self.labels.remove(&id)),
        }
    }

    /// The label of a policy that was removed.
    pub fn take_label(&mut self, id: u32) -> Option<SecurityLabel> {
        self.labels.remove(&id)
    }

    /// All policies were removed.
    pub fn flush_policies(&mut self) {
        self.labels.clear();
        self.young.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey_model::xfrm::Xfrm;

    const NOW: Time = Duration::from_secs(1000);

    fn sa(spi: u32) -> Sa {
        Sa::new(Ends::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap(), spi, IpsecProtocol::AH, NOW.as_secs())
    }

    /// What an SA is shown as.
    fn shown(shadow: &Shadow, spi: u32) -> (State, EncryptAlgorithm) {
        let mut sa = sa(spi);
        shadow.complete(&mut sa, NOW);
        (sa.state, sa.encrypt)
    }

    #[test]
    fn of_events_that_were_lost_nothing_is_taken_for_known() {
        let mut shadow = Shadow::default();
        let limited = Sa { soft: pfkey_model::sa::Limits { bytes: 5, ..<_>::default() }, ..sa(1) };
        shadow.add(&sa(1), None);
        shadow.add(&sa(2), None);
        shadow.set_dying(&sa(2).id(), Some(true));
        shadow.doubt();
        let mut before = shadow.start_over();
        for spi in [1, 2] {
            shadow.carry_over(before.take(&sa(spi).id()), &sa(spi));
        }
        // The first reached its limit, the second was updated since.
        let mut used = limited;
        used.usage.bytes = 5;
        shadow.complete(&mut used, NOW);
        assert_eq!((used.state, shown(&shadow, 2).0), (State::Dying, State::Mature));
    }

    #[test]
    fn an_unused_algorithm_is_not_another_sas() {
        let with = |spi| Sa { encrypt: EncryptAlgorithm::X_AESCBC, ..sa(spi) };
        let mut shadow = Shadow::default();
        for spi in [1, 2] {
            shadow.add(&sa(spi), Unused::of(&with(spi)));
        }
        shadow.add(&sa(3), None);
        let mut before = shadow.start_over();
        let other = Sa { auth: AuthAlgorithm::SHA1HMAC, ..sa(2) };
        for one in [sa(1), other] {
            shadow.carry_over(before.take(&one.id()), &one);
        }
        assert_eq!(shown(&shadow, 1).1, EncryptAlgorithm::X_AESCBC);
        assert_eq!(shown(&shadow, 2).1, EncryptAlgorithm::NONE);
        shadow.add(&sa(3), None);
        shadow.forget_all();
        assert!(shadow.has(&sa(1).id()) && shadow.len() == 1, "XFRM cannot say that again");
    }

    #[test]
    fn an_sa_that_ends_takes_no_larval_of_the_same_number_with_it() {
        let mut shadow = Shadow::default();
        let there = Ends::new([10, 0, 0, 1].into(), [10, 0, 0, 9].into()).unwrap();
        for seq in [7, 8] {
            shadow.want(Larval { seq, ends: there, proto: IpsecProtocol::AH, xfrm: Xfrm::default() });
        }
        shadow.larval_ended(&Sa { seq: 7, ..sa(1) });
        assert!(shadow.give_up(7).is_some());
        shadow.larval_ended(&Sa { seq: 8, ends: there, ..sa(0) });
        assert!(shadow.give_up(8).is_none());
    }

    #[test]
    fn a_clock_that_is_put_back_keeps_no_policy_young() {
        let mut shadow = Shadow::default();
        (0..100).for_each(|id| shadow.policy_inserted(id, NOW));
        assert!(shadow.is_young(5, NOW) && !shadow.is_young(5, NOW + Duration::from_secs(1)));
        let back = NOW - Duration::from_secs(500);
        shadow.policy_inserted(100, back);
        assert!(!shadow.is_young(5, back) && shadow.is_young(100, back));
        assert_eq!((shadow.order.len(), shadow.young.len()), (1, 1));
    }
}
