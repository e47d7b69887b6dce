//! Dumps, entry by entry.

use std::marker::PhantomData;

use crate::calls::{Call, Reply};
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
#[must_use = "what is not read of a dump is forgotten"]
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
    skip_unread(client)?;
    let call = client.send(request)?;
    // Said at once: whoever reads it may fail, panic or be forgotten.
    client.unread = Some(call).filter(Call::is_dump);
    Ok(call)
}

/// Reads one message of a dump, and says whether it is the last; `None`: there is nothing to dump, which Linux says with an
/// errno.
fn step<T>(client: &mut Client, call: Call, read: impl FnOnce(&Received<'_>) -> T) -> Result<Option<(bool, T)>, Error> {
    match client.answer(call, read) {
        Ok((reply, value)) => Ok(Some((reply == Reply::Last, value))),
        Err(error) if call.is_dump() && error.errno() == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what is left of a dump that nobody reads any more, and forgets it.
fn skip_unread(client: &mut Client) -> Result<(), Error> {
    while let Some(call) = client.unread {
        match step(client, call, |_| ()) {
            Ok(Some((false, ()))) => {}
            Ok(_) | Err(Error::Refused { .. }) => client.unread = None,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A dump whose messages are read by `each`.
pub(crate) fn for_each<E: From<Error>>(
    client: &mut Client,
    request: &Request<'_>,
    mut each: impl FnMut(&Received<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let call = begin(client, request)?;
    while let Some((last, outcome)) = step(client, call, &mut each)? {
        if last || outcome.is_err() {
            return outcome;
        }
    }
    Ok(())
}

impl<T: Entry> Iterator for Dump<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let call = self.call.take()?;
            let read = |answer: &Received<'_>| match &answer.message {
                Some(message) if T::is_none(message) => None,
                message => Some(message.as_ref().and_then(T::read)),
            };
            let (last, entry) = match step(self.client, call, read) {
                Ok(step) => step?,
                Err(error) => return Some(Err(error)),
            };
            self.call = Some(call).filter(|_| !last);
            if let Some(entry) = entry {
                let missing = Error::Incomplete { request: call.request(), missing: T::NAME };
                return Some(entry.ok_or(missing));
            }
        }
    }
}

impl<T: Entry> Drop for Dump<'_, T> {
    fn drop(&mut self) {
        if self.call.is_some() {
            // What cannot be read now is recognised when it comes.
            let _ = skip_unread(self.client);
        }
    }
}
