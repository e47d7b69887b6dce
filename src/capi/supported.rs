//! The algorithms that a registration listed, for the whole process.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use pfkey::{Call, Reply};
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

use super::guard::{Failure, guard};
use super::memory::Block;
use super::receive::{Attempt, USUAL, receive, waiting};
use super::stdio::Stream;
use super::{argument, sadb_alg, sadb_msg};
use crate::error::Code;
use crate::wire::layout::{SadbAlg, SadbExt};
use crate::wire::{ExtensionType, HEADER_LEN, Header, MessageType, SaType};

/// A list, by number: of equal numbers the first counts, as in libipsec. Without a lock, which another thread could hold
/// when this process is forked; one that registers anew while another looks an algorithm up shows it the old or
/// the new entry.
struct List {
    /// Whether there is one.
    listed: AtomicBool,
    /// Which numbers it has, one bit each.
    has: [AtomicU64; 4],
    /// The algorithms' eight bytes.
    algorithms: [AtomicU64; 256],
}

/// The lists of AH (authentication) and ESP (encryption); that of IPComp is never filled, as in libipsec.
static AUTH: List = List::new();
static ENCRYPT: List = List::new();

impl List {
    const fn new() -> Self {
        Self {
            listed: AtomicBool::new(false),
            has: [const { AtomicU64::new(0) }; 4],
            algorithms: [const { AtomicU64::new(0) }; 256],
        }
    }

    fn forget(&self) {
        self.listed.store(false, Relaxed);
    }

    /// Takes the algorithms of a list's extension.
    fn store(&self, body: &[u8]) {
        let mut has = [0_u64; 4];
        for bytes in body.chunks_exact(8) {
            let &[id, ..] = bytes else { continue };
            let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
            if has[word] & bit == 0 {
                has[word] |= bit;
                let bytes = bytes.try_into().unwrap_or_default();
                self.algorithms[usize::from(id)].store(u64::from_ne_bytes(bytes), Relaxed);
            }
        }
        for (to, from) in self.has.iter().zip(has) {
            to.store(from, Relaxed);
        }
        self.listed.store(true, Relaxed);
    }

    fn find(&self, id: u32) -> Result<SadbAlg, Code> {
        if !self.listed.load(Relaxed) {
            return Err(Code::DoGetSupportedList);
        }
        let id = u8::try_from(id).map_err(|_| Code::NotSupported)?;
        if self.has[usize::from(id / 64)].load(Relaxed) & (1 << (id % 64)) == 0 {
            return Err(Code::NotSupported);
        }
        let bytes = self.algorithms[usize::from(id)].load(Relaxed).to_ne_bytes();
        SadbAlg::read_from_bytes(&bytes).map_err(|_| Code::NotSupported)
    }
}

/// Forgets what an SA type's registration listed; all for 0.
pub(super) fn forget(satype: u32) {
    if matches!(satype, 0 | 2) {
        AUTH.forget();
    }
    if matches!(satype, 0 | 3) {
        ENCRYPT.forget();
    }
}

/// Reads the lists behind a header of `message`. Lists that stand before something else are kept, as in libipsec.
fn store(message: &[u8]) -> Result<(), Code> {
    let mut rest = message.get(HEADER_LEN..).unwrap_or_default();
    while !rest.is_empty() {
        let (head, _) = SadbExt::read_from_prefix(rest).map_err(|_| Code::InvalidSaType)?;
        let len = usize::from(head.len.get()) * 8;
        let body = rest.get(8..len).ok_or(Code::InvalidSaType)?;
        match ExtensionType(head.ext_type.get()) {
            ExtensionType::SUPPORTED_AUTH => AUTH.store(body),
            ExtensionType::SUPPORTED_ENCRYPT => ENCRYPT.store(body),
            _ => return Err(Code::InvalidSaType),
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// Waits for the answer to `pfkey_send_register` and keeps the algorithms that it lists. Every other message that
/// arrives before it is thrown away. While it waits, the thread may be cancelled.
///
/// Returns 0; -1 with a code otherwise. An answer with an errno is code 26 with that errno's text.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_recv_register(so: c_int) -> c_int {
    // Which message is the answer is pfkey's to say, but the loop is this crate's own: the thread may be cancelled between two
    // messages only, outside of every Rust frame that has something to drop, and no memory is asked for. A program's own
    // REGISTER may have any sequence number.
    let call = Call::of(Header::new(MessageType::REGISTER, SaType::UNSPEC, 0, std::process::id())).with_any_seq();
    waiting(so, || {
        let mut buffer = Zeroizing::new([0; USUAL]);
        let answer = receive(so, &mut *buffer, |first, rest| {
            let Some(header) = Header::read(first) else { return Err(Code::InvalidMessage.into()) };
            match call.reply(&header) {
                None => return Ok(false),
                Some(Reply::Refused(_)) => return Err(Failure::Errno(header.errno.into())),
                Some(Reply::Entry | Reply::Last) => {}
            }
            if rest.is_empty() {
                store(first)?;
            } else {
                store(Block::joined(first, rest)?.bytes())?;
            }
            Ok(true)
        })?;
        Ok(match answer {
            None => Attempt::Nothing,
            Some(false) => Attempt::Other,
            Some(true) => Attempt::Done(0),
        })
    })
}

/// Keeps the algorithms that a REGISTER answer lists. `sadb_msg_len` must have been replaced by the message's
/// length in **bytes**, `tlen`; extension lengths are replaced likewise by the call.
///
/// Returns 0; -1 with code 2 for disagreeing lengths, 10 for anything but lists.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_set_supported(msg: *mut sadb_msg, tlen: c_int) -> c_int {
    guard(|| {
        let len = usize::try_from(tlen).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the caller gives a header at least, or NULL.
        let header = unsafe { msg.as_ref() }.ok_or(Code::InvalidArgument)?;
        if usize::from(header.len.get()) != len || len < HEADER_LEN {
            return Err(Code::InvalidArgument.into());
        }
        // SAFETY: the caller gives `tlen` bytes.
        let outcome = store(unsafe { argument::bytes(msg.cast(), len) }?);
        // SAFETY: as above, and the caller's own to write; the shared borrow has ended.
        rewrite_lengths(unsafe { std::slice::from_raw_parts_mut(msg.cast(), len) });
        outcome?;
        Ok(0)
    })
}

/// Extension lengths from units of 8 bytes to bytes, as far as libipsec would have walked.
fn rewrite_lengths(message: &mut [u8]) {
    let mut offset = HEADER_LEN;
    while let Some((head, _)) = message.get(offset..).and_then(|rest| SadbExt::read_from_prefix(rest).ok()) {
        let len = usize::from(head.len.get()) * 8;
        let list = matches!(
            ExtensionType(head.ext_type.get()),
            ExtensionType::SUPPORTED_AUTH | ExtensionType::SUPPORTED_ENCRYPT
        );
        if !list || len < 8 || message.len() - offset < len {
            return;
        }
        if let Some(field) = message.get_mut(offset..offset + 2) {
            field.copy_from_slice(&(len as u16).to_ne_bytes());
        }
        offset += len;
    }
}

/// An algorithm of the list for an SA type.
fn find(satype: u32, alg: u32) -> Result<SadbAlg, Code> {
    match SaType(u8::try_from(satype).unwrap_or(u8::MAX)) {
        SaType::AH => AUTH.find(alg),
        SaType::ESP => ENCRYPT.find(alg),
        SaType::X_IPCOMP => Err(Code::DoGetSupportedList),
        _ => Err(Code::InvalidArgument),
    }
}

/// The SA type whose list an extension type fills.
fn satype_of(supported: u32) -> Result<u32, Code> {
    match u16::try_from(supported).map(ExtensionType) {
        Ok(ExtensionType::SUPPORTED_AUTH) => Ok(SaType::AH.0.into()),
        Ok(ExtensionType::SUPPORTED_ENCRYPT) => Ok(SaType::ESP.0.into()),
        _ => Err(Code::InvalidArgument),
    }
}

fn check_keylen(satype: u32, alg: u32, bits: u32) -> Result<c_int, Failure> {
    let alg = find(satype, alg)?;
    let (min, max) = (u32::from(alg.minbits.get()), u32::from(alg.maxbits.get()));
    if bits < min || bits > max {
        let _ = writeln!(Stream::stderr(), "{bits} {min} {max}");
        return Err(Code::InvalidKeyLength.into());
    }
    Ok(0)
}

/// Whether a key of so many bits goes with an algorithm that the last registration listed. `supported` is
/// SADB_EXT_SUPPORTED_AUTH or SADB_EXT_SUPPORTED_ENCRYPT.
///
/// Returns 0; -1 with code 2 for another `supported`, 22 before a registration, 1 for an algorithm that is not
/// listed, 14 for a key too short or too long; then the length and its limits are also printed on stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_check_keylen(supported: u32, alg_id: u32, keylen: u32) -> c_int {
    guard(|| check_keylen(satype_of(supported)?, alg_id, keylen))
}

/// `ipsec_check_keylen` for an SA type: SADB_SATYPE_AH or SADB_SATYPE_ESP.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_check_keylen2(satype: u32, alg_id: u32, keylen: u32) -> c_int {
    guard(|| check_keylen(satype, alg_id, keylen))
}

/// Copies what the last registration said of an algorithm to `alg0`.
///
/// Returns 0; -1 with code 2 for NULL or another `supported`, 22 before a registration, 1 for an algorithm that is
/// not listed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ipsec_get_keylen(supported: u32, alg_id: u32, alg0: *mut sadb_alg) -> c_int {
    guard(|| {
        // SAFETY: the caller gives a struct or NULL; all bytes of it may be written.
        let out = unsafe { alg0.as_mut() }.ok_or(Code::InvalidArgument)?;
        out.as_mut_bytes().copy_from_slice(find(satype_of(supported)?, alg_id)?.as_bytes());
        Ok(0)
    })
}
