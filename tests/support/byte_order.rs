//! Recorded bytes in this machine's byte order: they were recorded on little-endian ones. Which bytes form a number is what
//! `linux/pfkeyv2.h` says, in the order of its structures, not what this library makes of it.
#![allow(dead_code)]

/// Where a structure has numbers in the host's byte order, and how many bytes each has.
type Numbers = &'static [(usize, usize)];

/// `struct sadb_msg`: length, reserved, sequence, pid.
const MSG: Numbers = &[(4, 2), (6, 2), (8, 4), (12, 4)];
/// `struct sadb_ext`: length, type.
const EXT: Numbers = &[(0, 2), (2, 2)];
/// `struct sadb_comb`: flags, four lengths of keys, reserved, two counts, six limits.
const COMB: Numbers = &[
    (2, 2),
    (4, 2),
    (6, 2),
    (8, 2),
    (10, 2),
    (12, 4),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (64, 8),
];
/// `struct sadb_alg`: two lengths of keys, reserved.
const ALG: Numbers = &[(2, 2), (4, 2), (6, 2)];
/// `struct sadb_x_ipsecrequest`: length, protocol, reserved, reqid, reserved.
const IPSECREQUEST: Numbers = &[(0, 2), (2, 2), (6, 2), (8, 4), (12, 4)];

/// The numbers of an extension behind its length and type, before what repeats.
const fn numbers(ext_type: u16) -> Numbers {
    match ext_type {
        // SA: its flags. The SPI is in network byte order.
        1 => &[(12, 4)],
        // Lifetimes
        2..=4 => &[(4, 4), (8, 8), (16, 8), (24, 8)],
        // Addresses, and that of NAT-T
        5..=7 | 23 => &[(6, 2)],
        // Keys
        8 | 9 => &[(4, 2), (6, 2)],
        // Identities
        10 | 11 => &[(4, 2), (6, 2), (8, 8)],
        // Sensitivity
        12 => &[(4, 4), (12, 4)],
        // SPI range
        16 => &[(4, 4), (8, 4), (12, 4)],
        // Lists of algorithms, X_KMPRIVATE. What X_KMADDRESS reserves is shown as if it were in network byte order.
        14 | 15 | 17 => &[(4, 4)],
        // X_POLICY
        18 => &[(4, 2), (8, 4), (12, 4)],
        // X_SA2
        19 => &[(6, 2), (8, 4), (12, 4)],
        // X_SEC_CTX
        24 => &[(6, 2)],
        // X_FILTER
        26 => &[(36, 2)],
        _ => &[],
    }
}

fn swap(bytes: &mut [u8], numbers: Numbers) {
    for &(at, len) in numbers {
        if let Some(number) = bytes.get_mut(at..at + len) {
            number.reverse();
        }
    }
}

/// In which order the numbers are before they are put into the other one.
#[derive(Clone, Copy)]
enum Before {
    Recorded,
    Native,
}

impl Before {
    fn u16_at(self, bytes: &[u8], at: usize) -> u16 {
        let number = bytes.get(at..at + 2).map_or([0; 2], |b| [b[0], b[1]]);
        match self {
            Self::Recorded => u16::from_le_bytes(number),
            Self::Native => u16::from_ne_bytes(number),
        }
    }
}

/// `struct sockaddr_in` and `sockaddr_in6`: the family, and a scope. Returns its length.
fn sockaddr(bytes: &mut [u8], before: Before) -> usize {
    let family = before.u16_at(bytes, 0);
    swap(bytes, &[(0, 2)]);
    if family == 10 {
        swap(bytes, &[(24, 4)]);
        return 28;
    }
    16
}

fn requests(mut bytes: &mut [u8], before: Before) {
    while bytes.len() >= 16 {
        let len = usize::from(before.u16_at(bytes, 0)).clamp(16, bytes.len());
        let (request, rest) = bytes.split_at_mut(len);
        swap(request, IPSECREQUEST);
        let mut at = 16;
        while at < request.len() {
            at += sockaddr(&mut request[at..], before);
        }
        bytes = rest;
    }
}

fn extension(bytes: &mut [u8], before: Before) {
    let ext_type = before.u16_at(bytes, 2);
    swap(bytes, EXT);
    swap(bytes, numbers(ext_type));
    let whole = bytes.len();
    let rest = |from: usize| from.min(whole);
    match ext_type {
        5..=7 | 23 => {
            sockaddr(&mut bytes[rest(8)..], before);
        }
        13 => bytes[rest(8)..].chunks_mut(72).for_each(|comb| swap(comb, COMB)),
        14 | 15 => bytes[rest(8)..].chunks_mut(8).for_each(|alg| swap(alg, ALG)),
        18 => requests(&mut bytes[rest(16)..], before),
        25 => {
            let mut at = rest(8);
            while at + 16 <= bytes.len() {
                at += sockaddr(&mut bytes[at..], before);
            }
        }
        _ => {}
    }
}

fn extensions(mut rest: &mut [u8], before: Before) {
    while rest.len() >= 4 {
        let len = (usize::from(before.u16_at(rest, 0)) * 8).clamp(4, rest.len());
        let (ext, others) = rest.split_at_mut(len);
        extension(ext, before);
        rest = others;
    }
}

/// A message, perhaps a bad one, as it would have been on this machine.
pub fn native(mut message: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        let whole = message.len();
        let (header, rest) = message.split_at_mut(whole.min(16));
        swap(header, MSG);
        extensions(rest, Before::Recorded);
    }
    message
}

/// A header of this machine's, as it would have been recorded.
pub fn recorded_header(mut header: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        swap(&mut header, MSG);
    }
    header
}

/// Whole extensions of this machine's, as they would have been recorded.
pub fn recorded_extensions(mut bytes: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        extensions(&mut bytes, Before::Native);
    }
    bytes
}

/// A `struct sadb_alg`, as it would have been on this machine.
pub fn native_algorithm(mut bytes: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        swap(&mut bytes, ALG);
    }
    bytes
}

/// A policy extension, as it would have been on this machine.
pub fn native_extension(mut bytes: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        extension(&mut bytes, Before::Recorded);
    }
    bytes
}
