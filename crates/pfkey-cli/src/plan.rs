//! What would make a key engine's SAs and policies those of a file, in an order in which no packet goes unprotected: what is new
//! comes before what is old goes.

use std::collections::HashMap;

use pfkey_wire::{PolicyLevel, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::policy::{MANUAL_REQID_MAX, Policy, PolicyEntry, Selector};
use crate::model::sa::{Sa, SaEntry, SaId};
use crate::output::{Record, Value, View};
use crate::setkey::{Action, Command};
use crate::state;

/// The SAs and policies that are compared: a file that says nothing of SAs leaves them alone, and likewise of policies.
pub struct Side {
    sas: Vec<SaEntry>,
    policies: Vec<PolicyEntry>,
}

/// Of what a file speaks.
#[derive(Clone, Copy, Default)]
pub struct Subject {
    sas: bool,
    policies: bool,
}

impl Subject {
    /// Of commands.
    pub fn of(commands: &[Command]) -> Self {
        let mut subject = Self::default();
        for Command { action, .. } in commands {
            match action {
                Action::Add(_) | Action::Update(_) | Action::Delete(_) | Action::DeleteAll(..) | Action::Flush(_) => {
                    subject.sas = true;
                }
                Action::SpdAdd(_) | Action::SpdUpdate(_) | Action::SpdDelete(..) | Action::SpdFlush => {
                    subject.policies = true;
                }
                _ => {}
            }
        }
        subject
    }
}

impl Side {
    /// What an engine has; what key managers are negotiating, and what belongs to sockets, is theirs.
    pub fn of(channel: &mut Channel, subject: Subject) -> Result<Self, Failure> {
        let mut sas = if subject.sas { state::sas(channel, SaType::UNSPEC)? } else { Vec::new() };
        sas.retain(SaEntry::is_whole);
        let mut policies = if subject.policies { state::policies(channel)? } else { Vec::new() };
        policies.retain(|entry| !entry.is_of_socket());
        // The engine tells of the newest first.
        sas.reverse();
        policies.reverse();
        for entry in &mut policies {
            unnumbered(&mut entry.policy);
        }
        Ok(Self { sas, policies })
    }

    /// Without what XFRM has beyond PF_KEY, for a comparison with an engine that does not tell it.
    pub fn without_xfrm(&mut self) {
        self.sas.iter_mut().for_each(|entry| entry.sa.attached.xfrm = Default::default());
        self.policies.iter_mut().for_each(|entry| entry.policy.attached.xfrm = Default::default());
    }
}

/// A request's number that the kernel chose is another in each kernel, and is asked for as none.
fn unnumbered(policy: &mut Policy) {
    for request in &mut policy.spec.requests {
        if request.level == PolicyLevel::UNIQUE && request.reqid > MANUAL_REQID_MAX {
            request.reqid = 0;
        }
    }
}

/// What is done to one SA or policy.
pub struct Step {
    change: &'static str,
    what: String,
    fields: Vec<String>,
    /// In order.
    pub actions: Vec<Action>,
}

impl Step {
    fn new(change: &'static str, what: String, actions: Vec<Action>) -> Self {
        Self { change, what, fields: Vec::new(), actions }
    }

    /// What is shown of it.
    pub fn record(&self) -> Record {
        let mut record: Record =
            vec![("change", Value::Text(self.change.to_owned())), ("what", Value::Text(self.what.clone()))];
        if !self.fields.is_empty() {
            record.push(("fields", Value::List(self.fields.clone())));
        }
        record
    }
}

/// Names of fields that two records have otherwise, but for those that count or number; and their values, without keys.
fn differences(old: &Record, new: &Record) -> Vec<String> {
    const OTHERS: [&str; 8] = ["bytes", "packets", "created", "used", "last_used", "state", "id", "references"];
    let text = |record: &Record, name: &str| {
        record.iter().find(|(n, _)| *n == name).map(|(_, value)| match value {
            Value::Key(key) => (Some(key.clone()), "hidden".to_owned()),
            value => (None, value.to_plain()),
        })
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in old.iter().chain(new) {
        if !OTHERS.contains(name) && !names.contains(name) {
            names.push(name);
        }
    }
    let changed = names.into_iter().filter(|name| text(old, name) != text(new, name));
    changed
        .map(|name| {
            let shown = |record| text(record, name).map_or_else(|| "none".to_owned(), |(_, text)| text);
            format!("{name}={}->{}", shown(old), shown(new))
        })
        .collect()
}

/// Whether a kernel that was told to have one SA shows the other.
fn is_same_sa(live: &Sa, wanted: &Sa) -> bool {
    live == wanted
        || live.attached.is_shown_for(&wanted.attached)
            && Sa { attached: wanted.attached.clone(), ..live.clone() } == *wanted
}

/// The same of policies.
fn is_same_policy(live: &Policy, wanted: &Policy) -> bool {
    live == wanted
        || live.attached.is_shown_for(&wanted.attached)
            && Policy { attached: wanted.attached.clone(), ..live.clone() } == *wanted
}

/// The steps from what is live to what a file says.
pub fn steps(live: &Side, wanted: &Side) -> Vec<Step> {
    let live_sas: HashMap<SaId, &SaEntry> = live.sas.iter().map(|entry| (entry.sa.id(), entry)).collect();
    let wanted_sas: HashMap<SaId, &SaEntry> = wanted.sas.iter().map(|entry| (entry.sa.id(), entry)).collect();
    let (mut steps, mut changed) = (Vec::new(), Vec::new());
    for entry in &wanted.sas {
        let sa = &entry.sa;
        match live_sas.get(&sa.id()) {
            None => steps.push(Step::new("add", sa.title(), vec![Action::Add(Box::new(sa.clone()))])),
            Some(old) if is_same_sa(&old.sa, sa) => {}
            Some(old) => {
                let (old_sa, new) = (Box::new(old.sa.clone()), Box::new(sa.clone()));
                // Limits change in place, and an UPDATE that says none takes them away; whatever else differs is another SA of
                // the same name.
                let limits_only = is_same_sa(&Sa { hard: sa.hard, soft: sa.soft, ..old.sa.clone() }, sa);
                let actions = match limits_only {
                    true => vec![Action::Update(new)],
                    false => vec![Action::Delete(old_sa), Action::Add(new)],
                };
                let fields = differences(&old.record(), &entry.record());
                changed.push(Step { fields, ..Step::new("change", sa.title(), actions) });
            }
        }
    }
    steps.append(&mut changed);
    let live_policies: HashMap<Selector, &PolicyEntry> =
        live.policies.iter().map(|e| (e.policy.selector(), e)).collect();
    let wanted_policies: HashMap<Selector, &PolicyEntry> =
        wanted.policies.iter().map(|e| (e.policy.selector(), e)).collect();
    for entry in &wanted.policies {
        let policy = Box::new(entry.policy.clone());
        let title = policy.title();
        match live_policies.get(&policy.selector()) {
            None => steps.push(Step::new("add", title, vec![Action::SpdAdd(policy)])),
            Some(old) if is_same_policy(&old.policy, &policy) => {}
            Some(old) => {
                let fields = differences(&old.record(), &entry.record());
                steps.push(Step { fields, ..Step::new("change", title, vec![Action::SpdUpdate(policy)]) });
            }
        }
    }
    for entry in live.policies.iter().filter(|entry| !wanted_policies.contains_key(&entry.policy.selector())) {
        let action = Action::SpdDelete(Box::new(entry.policy.clone()), false);
        steps.push(Step::new("remove", entry.policy.title(), vec![action]));
    }
    for entry in live.sas.iter().filter(|entry| !wanted_sas.contains_key(&entry.sa.id())) {
        steps.push(Step::new("remove", entry.sa.title(), vec![Action::Delete(Box::new(entry.sa.clone()))]));
    }
    steps
}

/// Shows the steps.
pub fn show(out: &mut crate::output::Out, view: View, steps: &[Step]) -> Result<(), Failure> {
    let records: Vec<Record> = steps.iter().map(Step::record).collect();
    Ok(crate::output::show(out, view, "changes", &["change", "what", "fields"], &records)?)
}
