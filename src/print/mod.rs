//! Messages as people read them: libipsec's dumps and the listing of "Unix Network Programming", chapter 19.
//!
//! Nothing here writes to a stream or asks the C library: every function returns bytes, and what depends on the
//! process (the time, its zone, `/etc/protocols`) comes from an [`Environment`].
//!
//! No function reads past its slice. Where libipsec would read beyond an extension, an extension too short for
//! its structure counts as missing, a key ends where its extension ends, and a sockaddr that is cut short is
//! printed as `(null)`, which is what libipsec prints for an address that it cannot convert.
#![forbid(unsafe_code)]

mod environment;
mod kdebug;
mod names;
mod sadump;
mod spdump;
mod text;
mod unp;
mod view;

pub use environment::{Environment, Utc};
pub use kdebug::{Ending, Kdebug, NULL_MESSAGE, kdebug_sadb};
pub use sadump::sadump;
pub use spdump::{SocketPolicyFilter, spdump};
pub use text::{Text, hexdump};
pub use unp::{ListingError, Style, listing};

use crate::error::Code;

/// What a dump function prints, and the error code that it leaves.
#[derive(Debug)]
pub struct Dumped {
    /// The text, which may hold keys.
    pub text: Text,
    /// [`Code::NoError`], or what `pfkey_align`, `pfkey_check` or `ipsec_dump_policy` refused.
    pub code: Code,
}
