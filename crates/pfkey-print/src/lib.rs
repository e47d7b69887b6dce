//! Messages as people read them: libipsec's dumps and the listing of "Unix Network Programming", chapter 19; and libipsec's own
//! checks of messages and error codes, which its dumps tell.
//!
//! Nothing here writes to a stream, asks the C library or allocates: text goes to a [`Sink`], and what depends on the
//! process (the time, its zone, `/etc/protocols`) comes from an [`Environment`]. Each printer has a second function
//! that collects its text in memory.
//!
//! No function reads past its slice. Where libipsec would read beyond an extension, an extension too short for
//! its structure counts as missing, a key ends where its extension ends, and a sockaddr that is cut short is
//! printed as `(null)`, which is what libipsec prints for an address that it cannot convert.
#![forbid(unsafe_code)]

pub mod align;
mod environment;
pub mod error;
mod kdebug;
mod names;
pub mod protocols;
mod sadump;
mod spdump;
mod text;
mod unp;
mod view;

pub use environment::{Environment, Utc};
pub use kdebug::{Ending, Kdebug, NULL_MESSAGE, kdebug_sadb, kdebug_sadb_to};
pub use sadump::{sadump, sadump_to};
pub use spdump::{SocketPolicyFilter, spdump, spdump_to};
pub use text::{Short, Sink, Text, hexdump, hexdump_to};
pub use unp::{ListingError, Style, listing, listing_to};

use error::Code;
use pfkey::policy_text as policy;
use pfkey_wire as wire;

/// What a dump function prints, and the error code that it leaves.
#[derive(Debug)]
pub struct Dumped {
    /// The text, which may hold keys.
    pub text: Text,
    /// [`Code::NoError`], or what `pfkey_align`, `pfkey_check` or `ipsec_dump_policy` refused.
    pub code: Code,
}

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
