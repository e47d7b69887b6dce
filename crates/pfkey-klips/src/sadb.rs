//! KLIPS's SAs and their groups (`ipsec_sadb_hash`).
//!
//! A group is a chain: a packet meets its innermost SA first. SAs that go take their whole group with them.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::SAREF_LIMIT;
use super::sa::Sa;
use super::said::Said;
use pfkey_hub::Errno;

/// The SAs.
#[derive(Default)]
pub struct Sadb {
    sas: BTreeMap<Said, Sa>,
    sarefs: BTreeSet<u32>,
    last_saref: u32,
}

impl Sadb {
    /// An SA by its name.
    #[must_use]
    pub fn get(&self, said: &Said) -> Option<&Sa> {
        self.sas.get(said)
    }

    pub(super) fn get_mut(&mut self, said: &Said) -> Option<&mut Sa> {
        self.sas.get_mut(said)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Sa> {
        self.sas.values()
    }

    /// A reference that no SA has.
    ///
    /// # Errors
    /// ENOMEM: all are taken.
    pub(super) fn free_saref(&self) -> Result<u32, Errno> {
        let behind = (1..SAREF_LIMIT).map(|n| 1 + (self.last_saref + n - 1) % (SAREF_LIMIT - 1));
        behind.into_iter().find(|saref| !self.sarefs.contains(saref)).ok_or(Errno::ENOMEM)
    }

    /// Adds an SA whose name is free.
    pub(super) fn insert(&mut self, sa: Sa) {
        self.last_saref = sa.saref;
        self.sarefs.insert(sa.saref);
        self.sas.insert(sa.said, sa);
    }

    /// The SA and those outwards of it in its group, as a packet meets them.
    pub fn outwards(&self, said: &Said) -> impl Iterator<Item = &Sa> {
        std::iter::successors(self.get(said), |sa| self.get(&sa.outer?))
    }

    /// The SA and those inwards of it in its group.
    pub fn inwards(&self, said: &Said) -> impl Iterator<Item = &Sa> {
        std::iter::successors(self.get(said), |sa| self.get(&sa.inner?))
    }

    /// The names of an SA's whole group, innermost first.
    #[must_use]
    pub fn group(&self, said: &Said) -> Vec<Said> {
        let innermost = self.inwards(said).last().map(|sa| sa.said);
        innermost.map(|first| self.outwards(&first).map(|sa| sa.said).collect()).unwrap_or_default()
    }

    /// Links two SAs: packets meet `first`, then `second`.
    ///
    /// # Errors
    /// ENOENT: one is missing. EEXIST: one is linked there already, or the group would be a ring.
    pub(super) fn link(&mut self, first: &Said, second: &Said) -> Result<(), Errno> {
        let (a, b) = (self.get(first).ok_or(Errno::ENOENT)?, self.get(second).ok_or(Errno::ENOENT)?);
        let ring = self.outwards(second).any(|sa| sa.said == *first);
        if a.outer.is_some() || b.inner.is_some() || ring {
            return Err(Errno::EEXIST);
        }
        if let Some(sa) = self.get_mut(first) {
            sa.outer = Some(*second);
        }
        if let Some(sa) = self.get_mut(second) {
            sa.inner = Some(*first);
        }
        Ok(())
    }

    /// Takes an SA's group apart.
    pub(super) fn unlink(&mut self, said: &Said) {
        for member in self.group(said) {
            if let Some(sa) = self.get_mut(&member) {
                (sa.inner, sa.outer) = (None, None);
            }
        }
    }

    /// Removes an SA and its whole group (`ipsec_sa_delchain`).
    pub(super) fn remove(&mut self, said: &Said) {
        for member in self.group(said) {
            if let Some(sa) = self.sas.remove(&member) {
                self.sarefs.remove(&sa.saref);
            }
        }
    }

    /// Removes the SAs of a protocol, or all, with their groups.
    pub(super) fn flush(&mut self, proto: Option<u8>) {
        let doomed: Vec<Said> =
            self.sas.keys().filter(|said| proto.is_none_or(|proto| said.proto == proto)).copied().collect();
        for said in doomed {
            self.remove(&said);
        }
    }
}
