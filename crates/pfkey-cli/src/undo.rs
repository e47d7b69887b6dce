//! Undoing what a file did: what was there before is told from what is there now, for those SAs and policies that
//! the file's commands were about. What other programs changed meanwhile is left alone.

use std::collections::{HashMap, HashSet};

use pfkey_wire::{MessageType, SaType};

use crate::channel::Channel;
use crate::execute::{about_policy, about_sa};
use crate::failure::Failure;
use crate::model::policy::{PolicyEntry, Selector};
use crate::model::sa::{SaEntry, SaId};
use crate::setkey::Action;
use crate::state;

/// What was there, and what was touched since.
pub struct Undo {
    sas: Vec<SaEntry>,
    policies: Vec<PolicyEntry>,
    touched_sas: HashSet<SaId>,
    touched_policies: HashSet<Selector>,
    /// Types of which everything was removed.
    flushed: Vec<SaType>,
    spd_flushed: bool,
}

impl Undo {
    /// Remembers what is there.
    pub fn new(channel: &mut Channel) -> Result<Self, Failure> {
        let mut policies = state::policies(channel)?;
        policies.retain(|entry| !entry.is_of_socket());
        Ok(Self {
            sas: state::sas(channel, SaType::UNSPEC)?,
            policies,
            touched_sas: HashSet::new(),
            touched_policies: HashSet::new(),
            flushed: Vec::new(),
            spd_flushed: false,
        })
    }

    /// A command is about to be carried out.
    pub fn note(&mut self, action: &Action) {
        match action {
            Action::Add(sa) | Action::Update(sa) | Action::GetSpi(sa) | Action::Delete(sa) => {
                self.touched_sas.insert(sa.id());
            }
            Action::DeleteAll(satype, src, dst) => {
                let same = |e: &&SaEntry| {
                    (e.sa.src.ip(), e.sa.dst.ip()) == (src.ip(), dst.ip())
                        && (*satype == SaType::UNSPEC || e.sa.satype == *satype)
                };
                self.touched_sas.extend(self.sas.iter().filter(same).map(|e| e.sa.id()));
            }
            Action::Flush(satype) => self.flushed.push(*satype),
            Action::SpdAdd(policy) | Action::SpdUpdate(policy) | Action::SpdDelete(policy, _) => {
                self.touched_policies.insert(policy.selector());
            }
            Action::SpdFlush => self.spd_flushed = true,
            Action::Get(_) | Action::Dump(_) | Action::SpdDump | Action::SpdTagged(..) => {}
        }
    }

    /// Puts back what was there. Gives what could not be put back, in words.
    pub fn undo(&self, channel: &mut Channel) -> Result<Vec<String>, Failure> {
        let mut failed = Vec::new();
        let mut try_to = |result: Result<(), Failure>| match result {
            Err(error @ (Failure::Refused { .. } | Failure::Usage(_))) => {
                failed.push(error.to_string());
                Ok(())
            }
            other => other,
        };
        let now: HashMap<SaId, SaEntry> =
            state::sas(channel, SaType::UNSPEC)?.into_iter().map(|entry| (entry.sa.id(), entry)).collect();
        let before: HashMap<SaId, &SaEntry> = self.sas.iter().map(|entry| (entry.sa.id(), entry)).collect();
        // What can be changed back stays, with its sequence numbers.
        let updatable = |found: &SaEntry, old: &SaEntry| found.is_whole() && found.sa.can_become(&old.sa);
        for (id, entry) in &now {
            // Any other SA that is not as it was is made anew, if it can be.
            let stays = |old: &SaEntry| entry.sa == old.sa || updatable(entry, old);
            let other = before.get(id).is_none_or(|old| old.is_whole() && !stays(old));
            if self.touched_sas.contains(id) && other {
                try_to(about_sa(channel, "delete", MessageType::DELETE, &entry.sa))?;
            }
        }
        // The engine tells of the newest first.
        for entry in self.sas.iter().rev().filter(|entry| entry.is_whole()) {
            let id = entry.sa.id();
            let flushed = self.flushed.iter().any(|t| *t == SaType::UNSPEC || *t == entry.sa.satype);
            let touched = self.touched_sas.contains(&id);
            match now.get(&id) {
                Some(found) if found.sa == entry.sa || !touched => {}
                Some(found) if updatable(found, entry) => {
                    try_to(about_sa(channel, "restore", MessageType::UPDATE, &entry.sa))?;
                }
                _ if flushed || touched => try_to(about_sa(channel, "add", MessageType::ADD, &entry.sa))?,
                _ => {}
            }
        }
        let now: HashMap<Selector, PolicyEntry> =
            state::policies(channel)?.into_iter().map(|entry| (entry.policy.selector(), entry)).collect();
        let before: HashSet<Selector> = self.policies.iter().map(|entry| entry.policy.selector()).collect();
        for (selector, entry) in &now {
            if self.touched_policies.contains(selector) && !before.contains(selector) {
                try_to(about_policy(channel, "delete", MessageType::X_SPDDELETE, &entry.policy))?;
            }
        }
        for entry in self.policies.iter().rev() {
            let selector = entry.policy.selector();
            if !self.spd_flushed && !self.touched_policies.contains(&selector) {
                continue;
            }
            let msg_type = match now.get(&selector) {
                Some(found) if found.policy == entry.policy => continue,
                Some(_) => MessageType::X_SPDUPDATE,
                None => MessageType::X_SPDADD,
            };
            try_to(about_policy(channel, "restore", msg_type, &entry.policy))?;
        }
        Ok(failed)
    }
}
