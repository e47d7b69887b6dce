//! What a key engine tells unasked.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use zeroize::Zeroizing;

use crate::algorithm::{Cipher, Hmac};
use crate::model::migrate::{Migration, read_migration};
use crate::model::policy::Policy as PolicyInfo;
use crate::model::read::ends;
use crate::model::sa::{Sa as SaInfo, SaId};
use crate::model::view::{PolicyView, SaView};
use crate::model::xfrm::{Xfrm, XfrmView};
use crate::received::Received;
use crate::wire::layout::SadbComb;
use crate::wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, Errno, ExtensionType as Ext, Header, Message, MessageType, PolicyDirection,
    SaType,
};

/// The kernel wants an SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// Its sequence number: the SAs that answer it have the same.
    pub seq: u32,
    /// AH, ESP or IPComp.
    pub satype: SaType,
    /// Between which addresses.
    pub ends: Ends,
    /// The policy that wants it.
    pub policy: u32,
    /// That policy's direction.
    pub dir: PolicyDirection,
    /// What would do, the best first; of an IPComp SA none is said.
    pub offers: Vec<Offer>,
    /// The security label of the flow, with its NUL.
    pub label: Option<Vec<u8>>,
    /// The mark and the XFRM interface of the flow, where they are shown ([`crate::Client::show_xfrm`]): its SAs have the same.
    pub xfrm: Xfrm,
}

/// A combination of algorithms that an ACQUIRE offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Authentication; none for an AEAD.
    pub auth: AuthAlgorithm,
    /// The shortest and the longest key of it, in bits.
    pub auth_bits: (u16, u16),
    /// Encryption; none for AH.
    pub encrypt: EncryptAlgorithm,
    /// The shortest and the longest key of it, in bits.
    pub encrypt_bits: (u16, u16),
}

impl From<SadbComb> for Offer {
    fn from(comb: SadbComb) -> Self {
        Self {
            auth: AuthAlgorithm(comb.auth),
            auth_bits: (comb.auth_minbits.get(), comb.auth_maxbits.get()),
            encrypt: EncryptAlgorithm(comb.encrypt),
            encrypt_bits: (comb.encrypt_minbits.get(), comb.encrypt_maxbits.get()),
        }
    }
}

/// The algorithms of a REGISTER, in its order: number, and the shortest and the longest key in bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Authentication.
    pub auth: Vec<(AuthAlgorithm, u16, u16)>,
    /// Encryption.
    pub encrypt: Vec<(EncryptAlgorithm, u16, u16)>,
}

impl Algorithms {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        let list = |ext| {
            let listed = message.supported(ext).into_iter().flatten();
            listed.map(|one| (one.id, one.minbits.get(), one.maxbits.get()))
        };
        Self {
            auth: list(Ext::SUPPORTED_AUTH).map(|(id, min, max)| (AuthAlgorithm(id), min, max)).collect(),
            encrypt: list(Ext::SUPPORTED_ENCRYPT).map(|(id, min, max)| (EncryptAlgorithm(id), min, max)).collect(),
        }
    }

    /// Whether an SA can be encrypted so.
    #[must_use]
    pub fn has_cipher(&self, cipher: Cipher) -> bool {
        self.encrypt.iter().any(|(id, ..)| *id == cipher.number())
    }

    /// Whether an SA can be authenticated so.
    #[must_use]
    pub fn has_hmac(&self, hmac: Hmac) -> bool {
        self.auth.iter().any(|(id, ..)| *id == hmac.number())
    }
}

/// A NAT-T peer has another address or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The SPI of the SA that its packet came by.
    pub spi: u32,
    /// Where the peer was.
    pub old: (IpAddr, u16),
    /// Where it is.
    pub new: (IpAddr, u16),
    /// The sequence number of the SA.
    pub seq: u32,
}

/// What a key engine tells unasked: of what it wants, of what expires, and of what others did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An SA is wanted.
    Acquire(Acquire),
    /// A key manager gave up an ACQUIRE with this sequence number.
    GaveUp(u32, Errno),
    /// An SA has reached a limit: if a soft one it is to be renewed, if a hard one it is gone.
    Expired {
        /// The SA, without keys.
        sa: Box<SaInfo>,
        /// Whether it is gone.
        hard: bool,
    },
    /// A larval SA was made.
    SpiAllocated(SaId),
    /// An SA was added.
    SaAdded(Box<SaInfo>),
    /// An SA was changed.
    SaUpdated(Box<SaInfo>),
    /// An SA was deleted.
    SaDeleted(SaId),
    /// All SAs of a type were deleted; of every type for UNSPEC.
    SasFlushed(SaType),
    /// A policy was added.
    PolicyAdded(Box<PolicyInfo>),
    /// A policy was changed.
    PolicyUpdated(Box<PolicyInfo>),
    /// A policy was deleted.
    PolicyDeleted(Box<PolicyInfo>),
    /// A policy has reached the end of its time.
    PolicyExpired(Box<PolicyInfo>),
    /// All policies were deleted.
    PoliciesFlushed,
    /// A key manager registered for a type of SA; the algorithms that there are now.
    Registered(SaType, Algorithms),
    /// A NAT-T peer has another address or port.
    NewMapping(Mapping),
    /// SAs and a policy's tunnels have moved.
    Migrated(Migration),
    /// Any other message, whole: an answer that nobody waits for any more, what others said to each other, or what this
    /// library has no variant for.
    Other(Header, Bytes),
}

/// A message's bytes, which may hold keys: wiped when dropped, not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(Zeroizing<Vec<u8>>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Event {
    /// Reads a message. What a type needs and the message does not have makes it [`Event::Other`].
    #[must_use]
    pub fn of(received: &Received<'_>) -> Self {
        let known = received.message.as_ref().filter(|_| !received.is_copy).and_then(|m| known(&received.header, m));
        known.unwrap_or_else(|| Self::Other(received.header, Bytes(Zeroizing::new(received.bytes.to_vec()))))
    }
}

fn known(header: &Header, message: &Message<'_>) -> Option<Event> {
    if header.errno != 0 {
        let gave_up = header.msg_type == MessageType::ACQUIRE;
        return gave_up.then(|| Event::GaveUp(header.seq, Errno::from_raw(header.errno.into())));
    }
    let sa = || SaView::of_message(message).map(|view| Box::new(SaInfo { seq: header.seq, ..(&view).into() }));
    let name = || {
        let dst = ends(message).ok()?.dst();
        let id = SaId::new(dst, message.sa()?.spi.get(), header.satype.protocol()?);
        Some(SaId { mark: XfrmView::of_message(message).mark().masked(), ..id })
    };
    let policy = || PolicyView::of_message(message).map(|view| Box::new((&view).into()));
    Some(match header.msg_type {
        MessageType::ACQUIRE => Event::Acquire(acquire(header, message)?),
        MessageType::EXPIRE => Event::Expired { hard: message.has(Ext::LIFETIME_HARD), sa: sa()? },
        MessageType::GETSPI => Event::SpiAllocated(name()?),
        MessageType::ADD => Event::SaAdded(sa()?),
        MessageType::UPDATE => Event::SaUpdated(sa()?),
        MessageType::DELETE => Event::SaDeleted(name()?),
        MessageType::FLUSH => Event::SasFlushed(header.satype),
        MessageType::REGISTER => Event::Registered(header.satype, Algorithms::of(message)),
        MessageType::X_SPDADD => Event::PolicyAdded(policy()?),
        MessageType::X_SPDUPDATE => Event::PolicyUpdated(policy()?),
        MessageType::X_SPDDELETE | MessageType::X_SPDDELETE2 => Event::PolicyDeleted(policy()?),
        MessageType::X_SPDEXPIRE => Event::PolicyExpired(policy()?),
        MessageType::X_SPDFLUSH => Event::PoliciesFlushed,
        MessageType::X_NAT_T_NEW_MAPPING => Event::NewMapping(mapping(header, message)?),
        MessageType::X_MIGRATE => Event::Migrated(read_migration(message).ok()?),
        _ => return None,
    })
}

fn acquire(header: &Header, message: &Message<'_>) -> Option<Acquire> {
    let policy = message.policy().map(|(policy, _)| policy);
    Some(Acquire {
        seq: header.seq,
        satype: header.satype,
        ends: ends(message).ok()?,
        policy: policy.as_ref().map_or(0, |policy| policy.id.get()),
        dir: policy.map_or(PolicyDirection::ANY, |policy| PolicyDirection(policy.dir)),
        offers: message.proposal().map(|(_, combs)| combs.map(Offer::from).collect()).unwrap_or_default(),
        label: message.sec_ctx().map(|(_, text)| text.to_vec()),
        xfrm: Xfrm::from(&XfrmView::of_message(message)),
    })
}

fn mapping(header: &Header, message: &Message<'_>) -> Option<Mapping> {
    let at = |address, port| {
        let address = message.address(address)?.1.ip()?;
        Some((address, message.nat_t_port(port)?))
    };
    Some(Mapping {
        spi: message.sa()?.spi.get(),
        old: at(Ext::ADDRESS_SRC, Ext::X_NAT_T_SPORT)?,
        new: at(Ext::ADDRESS_DST, Ext::X_NAT_T_DPORT)?,
        seq: header.seq,
    })
}
