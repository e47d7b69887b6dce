//! A client that the kernel asks for SAs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use crate::client::Client;
use crate::error::{Error, Invalid};
use crate::event::{Acquire, Algorithms, Event};
use crate::request::SpiRange;
use crate::sa::Sa;
use crate::socket::Backend;
use crate::wire::{Errno, Mode, SaType};

/// A key manager: a registered descriptor, whose events it takes, and a [`Client`] for what it does about them. Were they one,
/// a full queue would lose answers together with events.
///
/// [`AsFd`] is that of the registered one: poll, epoll or a runtime says when [`KeyManager::try_next`] has something. What
/// arrives while it registers, or in [`KeyManager::show_xfrm`], is read with the answer, and makes it readable no more: after
/// either, `try_next` comes first, until it returns `None`.
#[derive(Debug)]
pub struct KeyManager {
    client: Client,
    listener: Client,
    algorithms: Algorithms,
}

impl AsFd for KeyManager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for KeyManager {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl KeyManager {
    /// Registers for a type of SA on the backend that `PFKEY_BACKEND` names.
    ///
    /// # Errors
    /// [`Error`].
    pub fn register(satype: SaType) -> Result<Self, Error> {
        Self::register_with(&Backend::from_environment()?, &[satype])
    }

    /// Registers for types of SA on a backend.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Invalid`] for none, which would never hear anything.
    pub fn register_with(backend: &Backend, satypes: &[SaType]) -> Result<Self, Error> {
        if satypes.is_empty() {
            return Err(Invalid::new("SA types", "there are none").into());
        }
        let mut listener = Client::open_with(backend)?;
        let mut algorithms = Algorithms::default();
        for satype in satypes {
            let Algorithms { auth, encrypt } = listener.register(*satype)?;
            add_new(&mut algorithms.auth, auth);
            add_new(&mut algorithms.encrypt, encrypt);
        }
        Ok(Self { client: Client::open_with(backend)?, listener, algorithms })
    }

    /// The algorithms that there were when it registered.
    #[must_use]
    pub const fn algorithms(&self) -> &Algorithms {
        &self.algorithms
    }

    /// The next event; `None` if the deadline passes first. Without a deadline it waits.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        self.forget_others();
        self.listener.next_event(deadline)
    }

    /// The next event, if one waits.
    ///
    /// # Errors
    /// As [`KeyManager::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>, Error> {
        self.forget_others();
        self.listener.try_event()
    }

    /// What others did the client hears too, and nobody reads it there.
    fn forget_others(&mut self) {
        // That the pfkeyd is gone, the next request says.
        let _ = self.client.forget_events();
    }

    /// Is shown the mark and the XFRM interface for which an SA is asked for ([`Acquire::xfrm`]), and what else XFRM has beyond
    /// PF_KEY. [`KeyManager::allocate_spi`] and [`KeyManager::install`] then make SAs that have them.
    ///
    /// # Errors
    /// As [`Client::show_xfrm`].
    pub fn show_xfrm(&mut self, shown: bool) -> Result<(), Error> {
        self.listener.show_xfrm(shown)?;
        self.client.show_xfrm(shown)
    }

    /// An SPI for the inbound SA of a pair that answers an ACQUIRE: from its peer to this host.
    ///
    /// # Errors
    /// As [`Client::allocate_spi`].
    pub fn allocate_spi(&mut self, acquire: &Acquire, mode: Mode) -> Result<u32, Error> {
        let ends = acquire.ends.reversed();
        let range = SpiRange::any(acquire.satype, ends, mode);
        self.client.allocate_spi(&SpiRange { xfrm: acquire.xfrm.scope(), ..range })
    }

    /// Answers an ACQUIRE: completes the inbound SA whose SPI [`KeyManager::allocate_spi`] returned, and adds the outbound one,
    /// which the packet waits for. Both have the mark and the XFRM interface of the ACQUIRE where they say none.
    ///
    /// # Errors
    /// [`Error::Invalid`] of either: nothing was sent. Of an [`Error`] of the UPDATE or the ADD: if it is of the latter, the inbound
    /// one is there.
    pub fn install(&mut self, acquire: &Acquire, inbound: &Sa, outbound: &Sa) -> Result<(), Error> {
        for sa in [inbound, outbound] {
            if sa.satype() != acquire.satype {
                return Err(Invalid::new("SA type", "another than the ACQUIRE's").into());
            }
        }
        let inbound = inbound.clone().or_scope(&acquire.xfrm);
        let outbound = outbound.clone().or_scope(&acquire.xfrm).answering(acquire.seq);
        inbound.check()?;
        outbound.check()?;
        self.client.update(&inbound)?;
        self.client.add(&outbound)
    }

    /// Answers an ACQUIRE with an error: no SA will come.
    ///
    /// # Errors
    /// [`Error`].
    pub fn give_up(&mut self, acquire: &Acquire, errno: Errno) -> Result<(), Error> {
        self.client.give_up(acquire.satype, acquire.seq, errno)
    }

    /// The client, for all else. The manager reads events from the other descriptor, and forgets what this one hears.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

fn add_new<T: PartialEq>(all: &mut Vec<T>, new: Vec<T>) {
    for one in new {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}
