//! Dumps, entry by entry.

use std::marker::PhantomData;

use crate::calls::Call;
use crate::client::Client;
use crate::error::Error;
use crate::model::policy::Policy as PolicyInfo;
use crate::model::read::is_of_socket;
use crate::model::sa::Sa as SaInfo;
use crate::model::view::{PolicyView, SaView};
use crate::received::Received;
use crate::request::Request;
use crate::wire::{Errno, Message};

/// What a dump is made of.
pub trait Entry: Sized {
    /// What it is called in an error.
    const NAME: &'static str;

    /// Reads one.
    fn read(message: &Message<'_>) -> Option<Self>;

    /// Whether it is none, and left out.
    fn is_none(message: &Message<'_>) -> bool {
        let _ = message;
        false
    }
}

impl Entry for SaInfo {
    const NAME: &'static str = "SA";

    fn read(message: &Message<'_>) -> Option<Self> {
        SaView::of_message(message).map(|view| (&view).into())
    }
}

impl Entry for PolicyInfo {
    const NAME: &'static str = "policy";

    fn read(message: &Message<'_>) -> Option<Self> {
        PolicyView::of_message(message).map(|view| (&view).into())
    }

    /// A socket's own policy, which is no entry of the SPD.
    fn is_none(message: &Message<'_>) -> bool {
        message.policy().is_some_and(|(policy, _)| is_of_socket(policy.id.get()))
    }
}

/// A dump that runs. It ends after the last entry, or with an error if it is incomplete. What was not read of it when it is
/// dropped is read and forgotten.
#[derive(Debug)]
pub struct Dump<'c, T: Entry> {
    client: &'c mut Client,
    call: Option<Call>,
    entry: PhantomData<T>,
}

/// SAs.
pub type Sas<'c> = Dump<'c, SaInfo>;
/// Policies.
pub type Policies<'c> = Dump<'c, PolicyInfo>;

impl<'c, T: Entry> Dump<'c, T> {
    pub(crate) fn begin(client: &'c mut Client, request: &Request<'_>) -> Result<Self, Error> {
        let call = begin(client, request)?;
        Ok(Self { client, call: Some(call), entry: PhantomData })
    }
}

fn begin(client: &mut Client, request: &Request<'_>) -> Result<Call, Error> {
    // Entries of two dumps cannot be told from each other.
    while let Some(call) = client.unread {
        let deadline = client.deadline();
        skip(client, call, deadline)?;
    }
    client.send(request)
}

/// A dump whose messages are read by `each`.
pub(crate) fn for_each<E: From<Error>>(
    client: &mut Client,
    request: &Request<'_>,
    mut each: impl FnMut(&Received<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let call = begin(client, request)?;
    loop {
        let deadline = client.deadline();
        match client.answer(call, deadline, |answer| (answer.header.seq == 0, each(answer))) {
            Ok((true, outcome)) => return outcome,
            Ok((false, Ok(()))) => {}
            Ok((false, outcome)) => {
                client.unread = Some(call);
                return outcome;
            }
            // Nothing is there: Linux says so with an errno.
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
            Err(error) => {
                if matches!(error, Error::NoAnswer { .. }) {
                    client.unread = Some(call);
                }
                return Err(error.into());
            }
        }
    }
}

/// Reads one entry of a dump and forgets it.
fn skip(client: &mut Client, call: Call, deadline: Option<std::time::Instant>) -> Result<(), Error> {
    let ended = match client.answer(call, deadline, |answer| answer.header.seq == 0) {
        Ok(ended) => ended,
        Err(Error::Refused { .. }) => true,
        Err(error) => return Err(error),
    };
    if ended {
        client.unread = None;
    }
    Ok(())
}

impl<T: Entry> Iterator for Dump<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let call = self.call?;
            let deadline = self.client.deadline();
            let read = |answer: &Received<'_>| {
                let left_out = answer.message.as_ref().is_some_and(T::is_none);
                (answer.header.seq == 0, left_out, answer.message.as_ref().and_then(T::read))
            };
            match self.client.answer(call, deadline, read) {
                Ok((last, left_out, entry)) => {
                    if last {
                        self.call = None;
                    }
                    if left_out {
                        continue;
                    }
                    let missing = Error::Incomplete { request: call.request(), missing: T::NAME };
                    return Some(entry.ok_or(missing));
                }
                Err(error) => {
                    self.call = None;
                    if matches!(error, Error::NoAnswer { .. }) {
                        self.client.unread = Some(call);
                    }
                    // Nothing is there: Linux says so with an errno.
                    return if error.errno() == Some(Errno::ENOENT) { None } else { Some(Err(error)) };
                }
            }
        }
    }
}

impl<T: Entry> Drop for Dump<'_, T> {
    fn drop(&mut self) {
        self.client.unread = self.call.or(self.client.unread);
        while let Some(call) = self.call.filter(|_| self.client.unread.is_some()) {
            let deadline = self.client.deadline();
            // What cannot be read now is recognised when it comes.
            if skip(self.client, call, deadline).is_err() {
                break;
            }
        }
    }
}
