//! Commands of a file, carried out in order: those that change one SA or policy each travel many together, which takes a fraction
//! of the time that each takes alone.

use pfkey::{Batch, Errno, Error};
use pfkey_wire::MessageType;

use crate::channel::Channel;
use crate::execute::execute;
use crate::failure::{Failure, Unwritable};
use crate::model::policy::Policy;
use crate::model::sa::Sa;
use crate::output::{Out, View};
use crate::setkey::Action;

/// Requests that are gathered; so many may be done before the first refusal is heard of.
const MOST: usize = 1024;

/// Who hears how it goes.
pub trait Follow {
    /// Whether an action may travel with others, so that some behind it may be done although it is refused.
    fn may_join(&self, action: &Action) -> bool;

    /// An action is about to be carried out; so many were before it.
    ///
    /// # Errors
    /// Why it shall not be.
    fn next(&mut self, index: usize, action: &Action) -> Result<(), Failure>;

    /// One has failed, or shall not be carried out.
    ///
    /// # Errors
    /// That ends everything.
    fn failed(&mut self, index: usize, failure: Failure, out: &mut Out) -> Result<(), Failure>;
}

/// Carries out actions in order.
pub fn carry_out<'c>(
    channel: &mut Channel,
    (out, view): (&mut Out, View),
    actions: impl Iterator<Item = &'c Action>,
    follow: &mut impl Follow,
) -> Result<(), Failure> {
    let mut gathered = Gathered::default();
    for (index, action) in actions.enumerate() {
        let outcome = match follow.next(index, action) {
            Err(failure) => Err(failure),
            Ok(()) => match Change::of(action).filter(|_| follow.may_join(action)) {
                Some(change) => gathered.push(channel, index, change),
                None => {
                    gathered.run(channel, out, follow)?;
                    execute(channel, out, view, action)
                }
            },
        };
        if outcome.is_err() || gathered.changes.len() == MOST {
            gathered.run(channel, out, follow)?;
        }
        if let Err(failure) = outcome {
            follow.failed(index, failure, out)?;
        }
    }
    gathered.run(channel, out, follow)
}

/// A change of one SA or one policy.
#[derive(Clone, Copy)]
enum Change<'c> {
    Sa(&'static str, MessageType, &'c Sa),
    /// With whether it is no failure if there is no such policy.
    Policy(&'static str, MessageType, &'c Policy, bool),
}

impl<'c> Change<'c> {
    fn of(action: &'c Action) -> Option<Self> {
        Some(match action {
            Action::Add(sa) => Self::Sa("add", MessageType::ADD, sa),
            Action::Update(sa) => Self::Sa("update", MessageType::UPDATE, sa),
            Action::Delete(sa) => Self::Sa("delete", MessageType::DELETE, sa),
            Action::SpdAdd(policy) => Self::Policy("add", MessageType::X_SPDADD, policy, false),
            Action::SpdUpdate(policy) => Self::Policy("update", MessageType::X_SPDUPDATE, policy, false),
            Action::SpdDelete(policy, copy) => Self::Policy("delete", MessageType::X_SPDDELETE, policy, *copy),
            _ => return None,
        })
    }

    fn what(&self) -> String {
        match self {
            Self::Sa(verb, _, sa) => format!("{verb} {}", sa.title()),
            Self::Policy(verb, _, policy, _) => format!("{verb} {}", policy.title()),
        }
    }

    fn write(&self, seq: u32, pid: u32, buffer: &mut [u8]) -> Result<usize, Unwritable> {
        match self {
            Self::Sa(_, msg_type, sa) => sa.write(*msg_type, seq, pid, buffer),
            Self::Policy(_, msg_type, policy, _) => policy.write(*msg_type, seq, pid, buffer),
        }
    }

    fn may_lack(&self) -> bool {
        matches!(self, Self::Policy(.., true))
    }
}

/// Changes that wait for others, each with its place among the actions.
#[derive(Default)]
struct Gathered<'c> {
    batch: Batch,
    changes: Vec<(usize, Change<'c>)>,
}

impl<'c> Gathered<'c> {
    fn push(&mut self, channel: &mut Channel, index: usize, change: Change<'c>) -> Result<(), Failure> {
        channel.push(&mut self.batch, || change.what(), |seq, pid, buffer| change.write(seq, pid, buffer))?;
        self.changes.push((index, change));
        Ok(())
    }

    fn run(&mut self, channel: &mut Channel, out: &mut Out, follow: &mut impl Follow) -> Result<(), Failure> {
        let (batch, changes) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.changes));
        let Some((first, change)) = changes.first() else { return Ok(()) };
        let outcomes = match channel.run(&batch) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let what = match changes.len() {
                    1 => change.what(),
                    many => format!("{}, or one of {} behind it", change.what(), many - 1),
                };
                return follow.failed(*first, Failure::of(&what, error), out);
            }
        };
        for ((index, change), outcome) in changes.iter().zip(outcomes) {
            match outcome {
                Err(Error::Refused { errno: Errno::ENOENT, .. }) if change.may_lack() => {}
                Err(error) => follow.failed(*index, Failure::of(&change.what(), error), out)?,
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
