//! A message as KLIPS reads it (`pfkey_msg_parse`): framing, extensions against the tables, then what the message as a
//! whole must say. Anything a peer may send gives a [`Request`] or a [`Refusal`].

use zerocopy::FromBytes;

use super::field;

use super::number::*;
use super::request::Request;
use super::table::{self, Direction, Set};
use pfkey_hub::Errno;
use pfkey_wire::layout::SadbExt;
use pfkey_wire::{
    AuthAlgorithm, EncryptAlgorithm, ExtensionType as Ext, HEADER_LEN, Header, MessageType, PF_KEY_V2, Rule, SaState,
    SaType, WireError,
};

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The message needs an SA type that KLIPS has SAs for, or at least one.
    #[error("SA type {0} does not go with the message")]
    SaType(u8),
    /// The header carries an errno.
    #[error("a request with errno {0}")]
    Errno(u8),
    /// An extension is longer than what is left of the message.
    #[error("extension {0} is longer than the rest of the message")]
    Overrun(u16),
    /// There is no such extension. Unlike the RFC's, KLIPS's is refused.
    #[error("no extension {0}")]
    Unknown(u16),
    /// The same extension twice.
    #[error("extension {0} is there twice")]
    Twice(u16),
    /// The message must not have this extension.
    #[error("extension {0} does not go with the message")]
    NotPermitted(u16),
    /// What an extension says is refused, with this errno.
    #[error("extension {0}: {1}")]
    Field(u16, Errno),
    /// These extensions are missing.
    #[error("missing {0:?}")]
    Missing(Set),
    /// An SA that is added or updated must be MATURE.
    #[error("state {0} instead of MATURE")]
    State(u8),
    /// The algorithms do not go with the SA type.
    #[error("algorithms do not go with the SA type")]
    Algorithms,
    /// SPIs up to 255 are reserved.
    #[error("SPI {0} is reserved")]
    Spi(u32),
}

impl Refusal {
    /// The errno of the error report.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Field(_, errno) => errno,
            _ => Errno::EINVAL,
        }
    }
}

/// The checks of `pfkey_sendmsg`, in its order: they make `write` fail, and nobody else hears of it.
///
/// # Errors
/// The first rule that `bytes` breaks.
pub fn check_framing(bytes: &[u8]) -> Result<Header, WireError> {
    let at = |offset, rule| Err(WireError { offset, rule });
    let Some(header) = Header::read(bytes) else { return at(0, Rule::TooShort) };
    if header.version != PF_KEY_V2 {
        return at(0, Rule::Version(header.version));
    }
    let announced = usize::from(header.len) * 8;
    if announced != bytes.len() {
        return at(4, Rule::Length { header: announced, actual: bytes.len() });
    }
    if header.reserved != 0 {
        return at(6, Rule::Reserved(header.reserved));
    }
    if header.msg_type == MessageType::RESERVED || usize::from(header.msg_type.0) >= MESSAGES {
        return at(1, Rule::MessageType(header.msg_type.0));
    }
    Ok(header)
}

/// Checks a message whose framing is right.
///
/// `nat_t` says whether the extensions of NAT-T exist.
///
/// # Errors
/// The first rule that it breaks, in KLIPS's order.
pub fn parse<'a>(bytes: &'a [u8], header: Header, direction: Direction, nat_t: bool) -> Result<Request<'a>, Refusal> {
    check_satype(header)?;
    // An ACQUIRE may say that no SA could be negotiated.
    if direction == Direction::In && header.msg_type != MessageType::ACQUIRE && header.errno != 0 {
        return Err(Refusal::Errno(header.errno));
    }
    let rule = table::extensions(direction, header.msg_type);
    let last = if nat_t { EXT_MAX } else { EXT_MAX_WITHOUT_NAT_T };
    let mut request = Request { bytes, header, seen: Set::default(), extensions: [&[]; EXT_MAX as usize + 1] };
    let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    while let Ok((head, _)) = SadbExt::read_from_prefix(rest) {
        let (ext, len) = (Ext(head.ext_type.get()), usize::from(head.len.get()) * 8);
        let Some((body, behind)) = rest.split_at_checked(len) else { return Err(Refusal::Overrun(ext.0)) };
        if ext == Ext::RESERVED || ext.0 > last {
            return Err(Refusal::Unknown(ext.0));
        }
        if request.seen.has(ext) {
            return Err(Refusal::Twice(ext.0));
        }
        if !rule.permitted.has(ext) {
            return Err(Refusal::NotPermitted(ext.0));
        }
        // A length of 0 ends here: no extension is that short.
        field::check(ext, body).map_err(|errno| Refusal::Field(ext.0, errno))?;
        request.seen.insert(ext);
        if let Some(slot) = request.extensions.get_mut(usize::from(ext.0)) {
            *slot = body;
        }
        rest = behind;
    }
    // Who gives up an ACQUIRE need not repeat it.
    if header.errno != 0 {
        return Ok(request);
    }
    let missing = rule.required.without(request.seen);
    if !missing.is_empty() {
        return Err(Refusal::Missing(missing));
    }
    if direction == Direction::In {
        check_whole(&request)?;
    }
    Ok(request)
}

/// The SA type as the message needs it.
fn check_satype(header: Header) -> Result<(), Refusal> {
    let satype = header.satype;
    let known = match header.msg_type {
        MessageType::GETSPI
        | MessageType::UPDATE
        | MessageType::ADD
        | MessageType::DELETE
        | MessageType::GET
        | X_GRPSA
        | X_ADDFLOW => protocol(satype).is_some(),
        MessageType::ACQUIRE | MessageType::REGISTER | MessageType::EXPIRE => satype != SaType::UNSPEC,
        _ => true,
    };
    if known && satype.0 <= SATYPE_MAX { Ok(()) } else { Err(Refusal::SaType(satype.0)) }
}

/// What concerns several extensions.
fn check_whole(request: &Request<'_>) -> Result<(), Refusal> {
    match request.header.msg_type {
        X_DELFLOW => {
            let clears = request.sa(Ext::SA).is_some_and(|sa| sa.rfc.flags.get() & flags::CLEARFLOW != 0);
            let missing = table::FLOW.without(request.seen);
            if clears || missing.is_empty() { Ok(()) } else { Err(Refusal::Missing(missing)) }
        }
        MessageType::ADD | MessageType::UPDATE => {
            let Some(sa) = request.sa(Ext::SA) else { return Err(Refusal::Missing(Set::of(&[Ext::SA]))) };
            if SaState(sa.rfc.state) != SaState::MATURE {
                return Err(Refusal::State(sa.rfc.state));
            }
            let (auth, encrypt) = (AuthAlgorithm(sa.rfc.auth), EncryptAlgorithm(sa.rfc.encrypt));
            let (no_auth, no_encrypt) = (auth == AuthAlgorithm::NONE, encrypt == EncryptAlgorithm::NONE);
            let right = match request.header.satype {
                SaType::AH => !no_auth && no_encrypt,
                SaType::ESP => !no_encrypt && (encrypt != EncryptAlgorithm::NULL || !no_auth),
                X_SATYPE_COMP => !no_encrypt && no_auth,
                _ => true,
            };
            if !right {
                return Err(Refusal::Algorithms);
            }
            let spi = sa.rfc.spi.get();
            if spi <= 255 { Err(Refusal::Spi(spi)) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}
