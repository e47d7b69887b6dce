//! What can go wrong between a request and its answer.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::OpenError;
use crate::wire::{Errno, MessageType};

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No descriptor could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The request makes no sense; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The key engine refused the request, or could not finish a dump.
    #[error("{request}: {}{}", io::Error::from_raw_os_error(errno.to_raw()), behind(why.as_deref()))]
    Refused {
        /// The request.
        request: MessageType,
        /// Its reason.
        errno: Errno,
        /// The same in words, such as the kernel's own, where they are shown ([`crate::Client::show_xfrm`]).
        why: Option<Box<str>>,
    },
    /// No answer came in this time. The request may have been done: its queue was full, or the engine is stopped.
    #[error("{request}: no answer in {limit:?}")]
    NoAnswer {
        /// The request.
        request: MessageType,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer lacks what it has to have.
    #[error("{request}: the answer has no {missing}")]
    Incomplete {
        /// The request.
        request: MessageType,
        /// What it lacks.
        missing: &'static str,
    },
    /// The pfkeyd behind the descriptor is gone.
    #[error("the key engine has closed the connection")]
    Closed,
    /// A system call on the descriptor failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The errno with which the key engine refused the request.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        if let Self::Refused { errno, .. } = self { Some(*errno) } else { None }
    }

    /// What it said beside the errno, such as the kernel's own words.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        if let Self::Refused { why, .. } = self { why.as_deref() } else { None }
    }
}

fn behind(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

/// A field of a request that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it. No key is repeated.
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, why: impl fmt::Display) -> Self {
        Self { field, why: why.to_string() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for Invalid {}
