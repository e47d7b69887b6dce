//! libipsec's names of numbers, as `setkey -D` shows them. A number without a name is shown in decimal.

use std::borrow::Cow;

use crate::wire::SaType;

fn named(name: Option<&'static str>, number: u8) -> Cow<'static, str> {
    match name {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(number.to_string()),
    }
}

/// The name of an SA type.
pub(super) fn satype(satype: SaType) -> Cow<'static, str> {
    const NAMES: [&str; 12] =
        ["unspec", "unknown", "ah", "esp", "unknown", "rsvp", "ospfv2", "ripv2", "mip", "ipcomp", "policy", "tcp"];
    named(NAMES.get(usize::from(satype.0)).copied(), satype.0)
}

/// The name of a mode.
pub(super) fn mode(mode: u8) -> Cow<'static, str> {
    named(["any", "transport", "tunnel"].get(usize::from(mode)).copied(), mode)
}

/// The name of a state.
pub(super) fn state(state: u8) -> Cow<'static, str> {
    named(["larval", "mature", "dying", "dead"].get(usize::from(state)).copied(), state)
}

/// The name of an authentication algorithm.
pub(super) fn auth(algorithm: u8) -> Cow<'static, str> {
    let name = match algorithm {
        0 => "none",
        2 => "hmac-md5",
        3 => "hmac-sha1",
        5 => "hmac-sha256",
        6 => "hmac-sha384",
        7 => "hmac-sha512",
        8 => "hmac-ripemd160",
        9 => "aes-xcbc-mac",
        249 => "md5",
        250 => "sha",
        251 => "null",
        _ => return named(None, algorithm),
    };
    Cow::Borrowed(name)
}

/// The name of an encryption algorithm.
pub(super) fn encrypt(algorithm: u8) -> Cow<'static, str> {
    let name = match algorithm {
        0 => "none",
        2 => "des-cbc",
        3 => "3des-cbc",
        6 => "cast128-cbc",
        7 => "blowfish-cbc",
        11 => "null",
        12 => "aes-cbc",
        13 => "aes-ctr",
        22 => "camellia-cbc",
        253 => "twofish-cbc",
        _ => return named(None, algorithm),
    };
    Cow::Borrowed(name)
}

/// The name of a compression algorithm.
pub(super) fn compression(algorithm: u8) -> Cow<'static, str> {
    named(["none", "oui", "deflate", "lzs"].get(usize::from(algorithm)).copied(), algorithm)
}
