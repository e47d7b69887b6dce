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
struct Known {
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

    /// Remembers an SA of the kernel's, with what was known of it before.
    pub fn carry_over(&mut self, before: &mut Before, sa: &Sa) {
        if sa.state != State::Larval {
            let known = before.0.remove(&sa.id());
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

    /// A policy was inserted.
    pub fn policy_inserted(&mut self, id: u32, now: Time) {
        let second = Duration::from_secs(1);
        while let Some(id) = self.order.front() {
            if self.young.get(id).is_some_and(|at| now < *at + second) {
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
        self.young.get(&id).is_some_and(|at| now < *at + Duration::from_secs(1))
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
