//! What Linux's af_key and RFC 2367 do differently with SAs. What they do differently with sessions is in
//! [`pfkey_hub::Dialect`].

use super::message::{self, Part};
use super::resolve::template::{self, Wanted};
use super::sa::Sa;
use super::{Engine, Flow, rfc2367};
use pfkey_hub::{Context, Errno};
use pfkey_wire::{Message, Writer};

/// A dialect, as an engine speaks it.
pub struct Dialect {
    /// The part of a hub in front of the engine.
    pub(super) sessions: &'static pfkey_hub::Dialect,
    /// Handles a request.
    pub(super) request: fn(&mut Engine, &Message<'_>, &mut Context<'_>) -> Result<(), Errno>,
    /// Writes an SA behind a message's header.
    pub(super) write_sa: fn(&mut Writer<'_>, &Sa, Part),
    /// Writes an ACQUIRE behind its header: which SA is wanted, and for which packet.
    pub(super) write_acquire: fn(&mut Writer<'_>, &Wanted, &Flow),
}

/// Linux's af_key.
pub static LINUX: Dialect = Dialect {
    sessions: &pfkey_hub::LINUX,
    request: Engine::linux_request,
    write_sa: message::write_sa,
    write_acquire: template::write_acquire,
};

/// RFC 2367 to the letter, on Linux's numbers. Policies, which it does not have, are Linux's.
pub static RFC2367: Dialect = Dialect {
    sessions: &pfkey_hub::RFC2367,
    request: Engine::rfc_request,
    write_sa: rfc2367::write_sa,
    write_acquire: rfc2367::write_acquire,
};

impl std::fmt::Debug for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.sessions.name)
    }
}

impl Dialect {
    /// The dialect of a name: linux or rfc2367.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        [&LINUX, &RFC2367].into_iter().find(|dialect| dialect.sessions.name == name)
    }
}
