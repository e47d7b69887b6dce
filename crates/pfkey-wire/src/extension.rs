//! The extensions of a message in Linux's dialect and RFC 2367's, a row each: number, name, structure, what is checked, and what
//! it is for. The parser and `pfkey types` read this table.

use zerocopy::FromBytes;

use super::layout::*;
use super::message::Extension;
use super::number::numbers;
use super::sockaddr::{self, Sockaddr, sockaddr_len};
use super::xfrm::{Attributes, SadbXXfrm};
use super::{Profile, Rule, WireError, round8};

/// What is checked of an extension besides its least length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Any,
    /// One sockaddr behind `struct sadb_address` (`verify_address_len`).
    Address,
    /// A key of the length in `struct sadb_key` (`verify_key_len`).
    Key,
    /// A label of the length in `struct sadb_x_sec_ctx` (`verify_sec_ctx_len`).
    SecurityContext,
    /// Netlink attributes behind `struct sadb_x_xfrm`, up to the end.
    Attributes,
}

/// An extension type.
#[derive(Clone, Copy, Debug)]
pub struct ExtensionInfo {
    /// Its number.
    pub ext_type: ExtensionType,
    /// Its C structure.
    pub structure: &'static str,
    /// Bytes of that, header included: no extension of the type is shorter (`sadb_ext_min_len`).
    pub min_len: usize,
    /// What else is checked.
    pub body: Body,
    /// What it is for.
    pub meaning: &'static str,
}

macro_rules! extensions {
    ($($name:ident = $number:tt: $layout:ident as $structure:literal, $body:ident, $meaning:literal;)*) => {
        numbers! {
            /// `sadb_ext_type`.
            ExtensionType(u16) {
                /// Not an extension.
                RESERVED = 0, "RESERVED";
                $(#[doc = concat!("`struct ", $structure, "`: ", $meaning, ".")] $name = $number, stringify!($name);)*
            }
        }

        /// All of them, in the order of their numbers.
        pub const EXTENSIONS: &[ExtensionInfo] = &[$(ExtensionInfo {
            ext_type: ExtensionType::$name,
            structure: $structure,
            min_len: size_of::<$layout>(),
            body: Body::$body,
            meaning: $meaning,
        }),*];
    };
}

extensions! {
    SA = 1: SadbSa as "sadb_sa", Any, "SPI, algorithms, state, replay window";
    LIFETIME_CURRENT = 2: SadbLifetime as "sadb_lifetime", Any, "what an SA has carried, and since when";
    LIFETIME_HARD = 3: SadbLifetime as "sadb_lifetime", Any, "where an SA ends";
    LIFETIME_SOFT = 4: SadbLifetime as "sadb_lifetime", Any, "where a successor is wanted";
    ADDRESS_SRC = 5: SadbAddress as "sadb_address", Address, "source address";
    ADDRESS_DST = 6: SadbAddress as "sadb_address", Address, "destination address";
    ADDRESS_PROXY = 7: SadbAddress as "sadb_address", Address, "address that an SA is used on behalf of";
    KEY_AUTH = 8: SadbKey as "sadb_key", Key, "authentication key";
    KEY_ENCRYPT = 9: SadbKey as "sadb_key", Key, "encryption key";
    IDENTITY_SRC = 10: SadbIdent as "sadb_ident", Any, "source's identity";
    IDENTITY_DST = 11: SadbIdent as "sadb_ident", Any, "destination's identity";
    SENSITIVITY = 12: SadbSens as "sadb_sens", Any, "sensitivity of the traffic";
    PROPOSAL = 13: SadbProp as "sadb_prop", Any, "combinations of algorithms, best first";
    SUPPORTED_AUTH = 14: SadbSupported as "sadb_supported", Any, "authentication algorithms";
    SUPPORTED_ENCRYPT = 15: SadbSupported as "sadb_supported", Any, "encryption algorithms";
    SPIRANGE = 16: SadbSpirange as "sadb_spirange", Any, "SPIs to choose from";
    X_KMPRIVATE = 17: SadbXKmprivate as "sadb_x_kmprivate", Any, "private to key managers";
    X_POLICY = 18: SadbXPolicy as "sadb_x_policy", Any, "a policy, and the SAs that it asks for";
    X_SA2 = 19: SadbXSa2 as "sadb_x_sa2", Any, "mode and request id";
    X_NAT_T_TYPE = 20: SadbXNatTType as "sadb_x_nat_t_type", Any, "encapsulation in UDP";
    X_NAT_T_SPORT = 21: SadbXNatTPort as "sadb_x_nat_t_port", Any, "UDP source port";
    X_NAT_T_DPORT = 22: SadbXNatTPort as "sadb_x_nat_t_port", Any, "UDP destination port";
    X_NAT_T_OA = 23: SadbAddress as "sadb_address", Address, "peer's address before translation";
    X_SEC_CTX = 24: SadbXSecCtx as "sadb_x_sec_ctx", SecurityContext, "security label";
    X_KMADDRESS = 25: SadbXKmaddress as "sadb_x_kmaddress", Any, "key managers' addresses";
    X_FILTER = 26: SadbXFilter as "sadb_x_filter", Any, "which SAs a dump shows";
    // This library's own, where no implementation of PF_KEY has numbers (docs/numbers.md).
    X_XFRM = 240: SadbXXfrm as "sadb_x_xfrm", Attributes, "what XFRM has beyond PF_KEY";
}

/// For each number the place of its row, counted from 1; 0 = none.
const PLACES: [u8; 256] = {
    let mut places = [0; 256];
    let mut n = 0;
    while n < EXTENSIONS.len() {
        places[EXTENSIONS[n].ext_type.0 as usize] = n as u8 + 1;
        n += 1;
    }
    places
};

/// The place of a number's row, `None` for one that is no extension.
pub(super) const fn place(number: u16) -> Option<usize> {
    if number as usize >= PLACES.len() {
        return None;
    }
    (PLACES[number as usize] as usize).checked_sub(1)
}

/// The row of a number, `None` for one that is no extension.
#[must_use]
pub const fn extension_info(number: u16) -> Option<&'static ExtensionInfo> {
    match place(number) {
        Some(place) => Some(&EXTENSIONS[place]),
        None => None,
    }
}

/// The checks that depend on an extension's content (`verify_address_len`, `verify_key_len`,
/// `verify_sec_ctx_len`).
pub(super) fn check_body(profile: Profile, ext: Extension<'_>) -> Result<(), WireError> {
    let t = ext.ext_type.0;
    let fail = |offset, rule| Err(WireError { offset: ext.offset + offset, rule });
    match profile.body(t) {
        Body::Any => {}
        Body::Address => {
            let Ok((fixed, rest)) = SadbAddress::read_from_prefix(ext.bytes) else {
                return fail(0, Rule::ExtensionShort(t));
            };
            let family = Sockaddr(rest).family();
            let width: u8 = match family {
                sockaddr::AF_INET => 32,
                sockaddr::AF_INET6 => 128,
                _ => return fail(8, Rule::AddressFamily(family)),
            };
            if ext.bytes.len() != round8(8 + sockaddr_len(family)) {
                return fail(0, Rule::AddressLength(t));
            }
            if fixed.prefixlen > width {
                return fail(5, Rule::PrefixLength(fixed.prefixlen));
            }
        }
        Body::Key => {
            let Ok((fixed, rest)) = SadbKey::read_from_prefix(ext.bytes) else {
                return fail(0, Rule::ExtensionShort(t));
            };
            if usize::from(fixed.bits.get()).div_ceil(8) > rest.len() {
                return fail(4, Rule::KeyLength(t));
            }
        }
        Body::SecurityContext => {
            let Ok((fixed, _)) = SadbXSecCtx::read_from_prefix(ext.bytes) else {
                return fail(0, Rule::ExtensionShort(t));
            };
            let len = usize::from(fixed.ctx_len.get());
            // The kernel's limit is PAGE_SIZE.
            if len > 4096 || ext.bytes.len() != round8(8 + len) {
                return fail(6, Rule::SecurityContext(fixed.ctx_len.get()));
            }
        }
        Body::Attributes => {
            if !Attributes(ext.bytes.get(size_of::<SadbXXfrm>()..).unwrap_or_default()).is_whole() {
                return fail(0, Rule::Content(t));
            }
        }
    }
    Ok(())
}
