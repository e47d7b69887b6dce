//! Building what the engine says (`pfkey_msg_build`): extensions in ascending order, none that the message must not have.

use std::collections::BTreeMap;

use zerocopy::{Immutable, IntoBytes};

use super::layout;
use super::number::{X_EXT_SA2, X_EXT_SATYPE2};
use super::request::Endpoint;
use super::sa::{Amounts, Identity, Sa};
use super::table::{self, Direction};
use pfkey_hub::Errno;
use pfkey_wire::layout::{SadbAddress, SadbAlg, SadbExt, SadbIdent, SadbProp, SadbSupported};
use pfkey_wire::{ExtensionType as Ext, HEADER_LEN, Header, SaType, SockaddrBytes, round8};

/// A message under construction. It never holds keys: KLIPS tells none.
pub(super) struct Reply {
    header: Header,
    extensions: BTreeMap<Ext, Vec<u8>>,
}

impl Reply {
    pub(super) const fn new(header: Header) -> Self {
        Self { header, extensions: BTreeMap::new() }
    }

    /// The answer to a request: its type, SA type, number and process.
    pub(super) fn to(request: Header) -> Self {
        Self::new(Header { errno: 0, reserved: 0, ..request })
    }

    /// A whole extension: a structure, whose first four bytes are filled in, and what is behind it.
    fn put<T: IntoBytes + Immutable>(mut self, ext: Ext, fixed: &T, tail: &[&[u8]]) -> Self {
        let mut bytes = [&[fixed.as_bytes()], tail].concat().concat();
        bytes.resize(round8(bytes.len()), 0);
        // One that does not fit a length of 16 bits fails in `finish`.
        let words = u16::try_from(bytes.len() / 8).unwrap_or_default();
        let head = SadbExt { len: words.into(), ext_type: ext.0.into() };
        if let Some(start) = bytes.get_mut(..4) {
            start.copy_from_slice(head.as_bytes());
        }
        self.extensions.insert(ext, bytes);
        self
    }

    /// An SA as it is.
    pub(super) fn sa(self, sa: &Sa) -> Self {
        self.put(Ext::SA, &sa.to_layout(), &[])
    }

    /// An SA with nothing but its SPI and its reference.
    pub(super) fn bare_sa(self, sa: &Sa) -> Self {
        let mut bare = layout::Sa { saref: sa.saref.into(), ..Default::default() };
        bare.rfc.spi = sa.said.spi.into();
        self.put(Ext::SA, &bare, &[])
    }

    /// An SA extension as a request had it.
    pub(super) fn sa_as_asked(self, ext: Ext, sa: &layout::Sa) -> Self {
        self.put(ext, sa, &[])
    }

    /// A lifetime.
    pub(super) fn lifetime(self, ext: Ext, amounts: Amounts) -> Self {
        self.put(ext, &amounts.to_layout(), &[])
    }

    /// An address; none if there is none. Prefix length and protocol are 0.
    pub(super) fn address(self, ext: Ext, endpoint: Option<Endpoint>) -> Self {
        self.address_of(ext, 0, endpoint)
    }

    /// An address with a protocol.
    pub(super) fn address_of(self, ext: Ext, proto: u8, endpoint: Option<Endpoint>) -> Self {
        let Some(Endpoint { ip, port }) = endpoint else { return self };
        let fixed = SadbAddress { proto, ..Default::default() };
        self.put(ext, &fixed, &[SockaddrBytes::new(ip, port).as_bytes()])
    }

    /// An identity; none if there is none.
    pub(super) fn identity(self, ext: Ext, identity: Option<&Identity>) -> Self {
        let Some(identity) = identity else { return self };
        let fixed =
            SadbIdent { ident_type: identity.identity_type.into(), id: identity.id.into(), ..Default::default() };
        self.put(ext, &fixed, &[&identity.text])
    }

    /// A list of algorithms; none if there are none.
    pub(super) fn supported(self, ext: Ext, algorithms: &[SadbAlg]) -> Self {
        if algorithms.is_empty() {
            return self;
        }
        self.put(ext, &SadbSupported::default(), &[algorithms.as_bytes()])
    }

    /// A proposal.
    pub(super) fn proposal(self, replay: u8, combs: &[layout::Comb]) -> Self {
        self.put(Ext::PROPOSAL, &SadbProp { replay, ..Default::default() }, &[combs.as_bytes()])
    }

    /// A group's second SA as a request had it.
    pub(super) fn second(self, satype: SaType, sa: &layout::Sa) -> Self {
        let satype = layout::SaType2 { satype: satype.0, ..Default::default() };
        self.put(X_EXT_SATYPE2, &satype, &[]).sa_as_asked(X_EXT_SA2, sa)
    }

    /// A NAT-T port.
    pub(super) fn nat_t_port(self, ext: Ext, port: u16) -> Self {
        self.put(ext, &layout::NatTPort { port: port.into(), ..Default::default() }, &[])
    }

    /// The message.
    ///
    /// # Errors
    /// EINVAL: an extension that the message must not have. EMSGSIZE: it does not fit its length fields.
    pub(super) fn finish(self) -> Result<Vec<u8>, Errno> {
        let permitted = table::extensions(Direction::Out, self.header.msg_type).permitted;
        if self.extensions.keys().any(|ext| !permitted.has(*ext)) {
            return Err(Errno::EINVAL);
        }
        let len = HEADER_LEN + self.extensions.values().map(Vec::len).sum::<usize>();
        let len = u16::try_from(len / 8).map_err(|_| Errno::EMSGSIZE)?;
        let header = Header { len, ..self.header };
        let parts: Vec<Vec<u8>> = self.extensions.into_values().collect();
        Ok([header.to_layout().as_bytes().to_vec(), parts.concat()].concat())
    }
}
