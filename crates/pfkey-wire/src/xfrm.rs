//! XFRM's attributes in PF_KEY (`SADB_X_EXT_XFRM`): how they are laid out, and how they are read in place. `table.rs` has which there
//! are.
//!
//! The extension is [`SadbXXfrm`] and then netlink attributes as `linux/xfrm.h` has them, each padded to
//! four bytes; four zero bytes may pad the last one to the extension's end. What PF_KEY says in another place (algorithms, keys,
//! encapsulation, templates, labels) is none of them. An attribute without a row here passes as bytes.

mod gathered;
mod refusal;
pub mod settings;
mod table;
mod why;
pub mod words;

pub use gathered::Gathered;
pub use refusal::{Name, Refusal, Unknown};
pub use table::{ATTRIBUTES, AttributeInfo, Carrier, Layout, OWN, Role, attribute, attribute_info, is_pf_keys_own};
pub use why::{MAX_WHY, Words};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::{U16, U32};
use super::{Extension, ExtensionType, Message, Writer};

/// `struct xfrm_mark`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, PartialOrd, Ord,
)]
#[repr(C)]
pub struct Mark {
    /// Its bits.
    pub value: u32,
    /// Which bits count; none, where there is no mark.
    pub mask: u32,
}

impl Mark {
    /// No mark: it is for every packet.
    pub const NONE: Self = Self { value: 0, mask: 0 };

    /// The bits that count, as a look-up has them.
    #[must_use]
    pub const fn masked(self) -> u32 {
        self.value & self.mask
    }

    /// Whether it is for packets of a mark.
    #[must_use]
    pub const fn covers(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

crate::layouts! {
    /// `struct sadb_x_xfrm` of this library's: XFRM's attributes follow.
    SadbXXfrm: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
        flags: u8,
        /// [`OPTION_PROPOSE`], [`OPTION_PARTIAL`].
        options: u8,
        /// 0.
        reserved: U16,
    }
    /// `struct xfrm_replay_state_esn`; the bitmap follows.
    ReplayEsn: 24 {
        /// Words of the bitmap.
        words: U32,
        /// Sent.
        oseq: U32,
        /// Received.
        seq: U32,
        /// The high halves of both.
        oseq_hi: U32,
        /// Of what was received.
        seq_hi: U32,
        /// Packets.
        window: U32,
    }
    /// `struct xfrm_user_offload`.
    Offload: 8 {
        /// Number of the interface.
        ifindex: U32,
        /// `XFRM_OFFLOAD_*`.
        flags: u8,
        /// Nothing.
        pad: [u8; 3],
    }
    /// `struct xfrm_algo_auth` without a key: the algorithm and its key stand in PF_KEY's own extensions.
    Truncation: 72 {
        /// Zeros.
        name: [[u8; 32]; 2],
        /// 0.
        key_bits: U32,
        /// Bits of the integrity value.
        icv_bits: U32,
    }
    /// `struct nlattr`.
    AttributeHeader: 4 {
        /// Bytes, these included.
        len: U16,
        /// Its number.
        attr_type: U16,
    }
}

impl ReplayEsn {
    /// `XFRMA_REPLAY_ESN_MAX`, in words.
    pub const MAX_WORDS: u32 = 128;

    /// A window of so many packets, nothing received yet.
    #[must_use]
    pub fn of_window(packets: u32) -> Self {
        Self { words: packets.div_ceil(32).into(), window: packets.into(), ..Self::default() }
    }
}

/// Netlink's attributes pad to four bytes.
#[must_use]
pub const fn round4(n: usize) -> usize {
    n.saturating_add(3) & !3
}

/// Appends an attribute. One that is too long for its length field is left out.
pub fn push(bytes: &mut Vec<u8>, number: u16, payload: &[u8]) {
    let Ok(len) = u16::try_from(4 + payload.len()) else { return };
    bytes.extend_from_slice(AttributeHeader { len: len.into(), attr_type: number.into() }.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(round4(bytes.len()), 0);
}

/// Attributes one after the other. They end where a length does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a number.
    #[must_use]
    pub fn payload(mut self, number: u16) -> Option<&'a [u8]> {
        self.find(|(t, _)| *t == number).map(|(_, payload)| payload)
    }

    /// The first attribute of a number as a structure; `None` also where it is too short.
    #[must_use]
    pub fn read<T: FromBytes + KnownLayout + Immutable>(self, number: u16) -> Option<T> {
        Some(T::read_from_prefix(self.payload(number)?).ok()?.0)
    }

    /// Whether nothing but padding is left behind the last whole attribute.
    #[must_use]
    pub fn is_whole(mut self) -> bool {
        while self.next().is_some() {}
        self.0.len() < 8 && self.0.iter().all(|byte| *byte == 0)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = AttributeHeader::read_from_prefix(self.0).ok()?;
        let len = usize::from(header.len.get());
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(round4(len)..).unwrap_or_default();
        // The top bits are flags (nested, byte order).
        Some((header.attr_type.get() & 0x3fff, payload))
    }
}

/// What a message's extension says, in place; nothing where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// The fixed part.
    pub fixed: SadbXXfrm,
    /// The attributes.
    pub attributes: Attributes<'a>,
}

impl<'a> Message<'a> {
    /// What XFRM has beyond PF_KEY; nothing without the extension.
    #[must_use]
    pub fn xfrm(&self) -> Said<'a> {
        self.extension(ExtensionType::X_XFRM).map_or_else(Said::default, Said::of)
    }
}

impl<'a> Said<'a> {
    /// Of an extension X_XFRM.
    #[must_use]
    pub fn of(extension: Extension<'a>) -> Self {
        let said = SadbXXfrm::read_from_prefix(extension.bytes).ok();
        said.map_or_else(Self::default, |(fixed, rest)| Self { fixed, attributes: Attributes(rest) })
    }
}

impl Writer<'_> {
    /// What XFRM has beyond PF_KEY: flags, options, and attributes that are padded to four bytes each.
    pub fn xfrm(&mut self, flags: u8, options: u8, attributes: &[u8]) -> &mut Self {
        let fixed = SadbXXfrm { flags, options, ..Default::default() };
        self.extension(ExtensionType::X_XFRM, &fixed, &[attributes], 0)
    }
}

/// The most bytes of attributes.
pub const MAX_LEN: usize = 4096;

/// `XFRM_STATE_NOECN`, `_DECAP_DSCP` and `_NOPMTUDISC`, which `sadb_sa_flags` has.
pub const PF_KEYS_FLAGS: u8 = 7;
/// `XFRM_STATE_WILDRECV`: for inbound packets only.
pub const FLAG_WILDRECV: u8 = 8;
/// `XFRM_STATE_ESN`.
pub const FLAG_ESN: u8 = 128;
/// `XFRM_POLICY_ICMP`.
pub const FLAG_POLICY_ICMP: u8 = 2;
/// `XFRM_POLICY_CPU_ACQUIRE`: each processor has SAs of its own.
pub const FLAG_POLICY_CPU_ACQUIRE: u8 = 4;
/// `XFRM_POLICY_TYPE_SUB`, and all of `struct xfrm_userpolicy_type`.
pub const POLICY_TYPE_SUB: [u8; 6] = [1, 0, 0, 0, 0, 0];
/// `XFRM_MODE_IPTFS`.
pub const MODE_IPTFS: u8 = 5;
/// A policy's ACQUIREs propose algorithms, as those of policies that came over netlink do, and AF_KEY's do not.
pub const OPTION_PROPOSE: u8 = 1;
/// A reported SA or policy has more than PF_KEY and this extension can say.
pub const OPTION_PARTIAL: u8 = 2;

impl Said<'_> {
    /// Checks what a request says, and whether its carrier can. `replay` is `sadb_sa_replay`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, carrier: Carrier, replay: u8) -> Result<(), Refusal> {
        let SadbXXfrm { flags, options, reserved, .. } = self.fixed;
        if self.attributes.0.len() > MAX_LEN {
            return Err(Refusal::TooLong(self.attributes.0.len()));
        }
        let (settable, possible) = match carrier {
            Carrier::Sa => (!PF_KEYS_FLAGS, 0),
            Carrier::Policy => (u8::MAX, OPTION_PROPOSE),
            Carrier::SaName | Carrier::PolicyName => (0, 0),
        };
        if reserved.get() != 0 || options & !possible != 0 {
            return Err(Refusal::Reserved);
        }
        if flags & !settable != 0 {
            return Err(Refusal::Flags(flags & !settable));
        }
        for (place, (number, payload)) in self.attributes.enumerate() {
            if self.attributes.take(place).any(|(other, _)| other == number) {
                return Err(Refusal::Twice(number));
            }
            if is_pf_keys_own(number) {
                return Err(Refusal::PfKeysOwn(number));
            }
            match attribute_info(number) {
                Some(row) if row.role == Role::Report => return Err(Refusal::Report(number)),
                Some(row) if !row.carriers.contains(&carrier) => return Err(Refusal::Misplaced(number)),
                Some(row) if !row.layout.fits(payload) => return Err(Refusal::Length(number)),
                None if matches!(carrier, Carrier::SaName | Carrier::PolicyName) => {
                    return Err(Refusal::Misplaced(number));
                }
                _ => {}
            }
            self.check_value(number, payload, replay)?;
        }
        if flags & FLAG_ESN != 0
            && carrier == Carrier::Sa
            && self.attributes.payload(attribute::REPLAY_ESN_VAL).is_none()
        {
            return Err(Refusal::Flags(FLAG_ESN));
        }
        Ok(())
    }

    fn check_value(&self, number: u16, payload: &[u8], replay: u8) -> Result<(), Refusal> {
        let has = |other| self.attributes.payload(other).is_some();
        match number {
            // Two windows.
            attribute::REPLAY_ESN_VAL if replay != 0 || has(attribute::REPLAY_VAL) => Err(Refusal::PfKeysOwn(number)),
            attribute::POLICY_TYPE if !matches!(*payload, [0 | 1, 0, 0, 0, 0, 0]) => Err(Refusal::Length(number)),
            // The others PF_KEY has numbers for, or none has SAs.
            attribute::MODE if payload != [MODE_IPTFS] => Err(Refusal::PfKeysOwn(number)),
            attribute::SET_MARK_MASK if !has(attribute::SET_MARK) => Err(Refusal::Misplaced(number)),
            attribute::ALG_AUTH_TRUNC => match Truncation::read_from_bytes(payload) {
                Ok(t) if t.name != [[0; 32]; 2] || t.key_bits.get() != 0 => Err(Refusal::PfKeysOwn(number)),
                Ok(t) if t.icv_bits.get() == 0 || t.icv_bits.get() % 8 != 0 => Err(Refusal::Length(number)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        attributes.iter().for_each(|(number, payload)| push(&mut bytes, *number, payload));
        bytes
    }

    fn check(attributes: &[(u16, &[u8])], carrier: Carrier) -> Result<(), Refusal> {
        let bytes = said(attributes);
        Said { attributes: Attributes(&bytes), ..Said::default() }.check(carrier, 0)
    }

    /// `linux/xfrm.h` of Linux 7.2 has the numbers 0 to 41.
    #[test]
    fn every_number_has_a_row_or_is_pf_keys_own() {
        for number in 0..=41 {
            assert_ne!(attribute_info(number).is_some(), is_pf_keys_own(number), "{number}");
        }
        assert!(ATTRIBUTES.windows(2).all(|two| two[0].number < two[1].number));
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_reading() {
        for len in [0_u16, 3, 9, 0xffff] {
            let attribute = [&len.to_ne_bytes()[..], &[1, 0, 0, 0, 0, 0]].concat();
            assert_eq!(Attributes(&attribute).next(), None, "{len}");
            assert!(!Attributes(&attribute).is_whole());
        }
        assert!(Attributes(&[]).is_whole() && Attributes(&[0; 4]).is_whole() && !Attributes(&[0; 8]).is_whole());
    }

    #[test]
    fn what_is_wrong_is_named() {
        use attribute::{ALG_AUTH_TRUNC, IF_ID, LASTUSED, MARK, REPLAY_ESN_VAL, SET_MARK, SET_MARK_MASK};
        let four: &[u8] = &[1, 0, 0, 0];
        let of = Carrier::Sa;
        assert_eq!(check(&[(IF_ID, four), (MARK, &[0; 8]), (999, &[1, 2, 3])], of), Ok(()));
        assert_eq!(check(&[(IF_ID, four), (MARK, &[0; 8]), (IF_ID, four)], of), Err(Refusal::Twice(IF_ID)));
        assert_eq!(check(&[(999, four), (999, four)], of), Err(Refusal::Twice(999)));
        assert_eq!(check(&[(IF_ID, &[1, 0, 0])], of), Err(Refusal::Length(IF_ID)));
        assert_eq!(check(&[(1, four)], of), Err(Refusal::PfKeysOwn(1)));
        assert_eq!(check(&[(LASTUSED, &[0; 8])], of), Err(Refusal::Report(LASTUSED)));
        assert_eq!(check(&[(SET_MARK_MASK, four)], of), Err(Refusal::Misplaced(SET_MARK_MASK)));
        assert_eq!(check(&[(SET_MARK, four), (SET_MARK_MASK, four)], of), Ok(()));
        assert_eq!(check(&[(SET_MARK, four)], Carrier::Policy), Err(Refusal::Misplaced(SET_MARK)));
        assert_eq!(check(&[(MARK, &[0; 8])], Carrier::SaName), Ok(()));
        assert_eq!(check(&[(IF_ID, four)], Carrier::SaName), Err(Refusal::Misplaced(IF_ID)));
        assert_eq!(check(&[(999, four)], Carrier::PolicyName), Err(Refusal::Misplaced(999)));
        let esn = ReplayEsn::of_window(4096);
        assert_eq!(check(&[(REPLAY_ESN_VAL, &[esn.as_bytes(), &[0; 512]].concat())], of), Ok(()));
        assert_eq!(check(&[(REPLAY_ESN_VAL, esn.as_bytes())], of), Err(Refusal::Length(REPLAY_ESN_VAL)));
        let too_wide = ReplayEsn { words: 0.into(), ..esn };
        assert_eq!(check(&[(REPLAY_ESN_VAL, too_wide.as_bytes())], of), Err(Refusal::Length(REPLAY_ESN_VAL)));
        let mut truncation = Truncation { icv_bits: 128.into(), ..Truncation::default() };
        assert_eq!(check(&[(ALG_AUTH_TRUNC, truncation.as_bytes())], of), Ok(()));
        truncation.name[0][0] = b'h';
        assert_eq!(check(&[(ALG_AUTH_TRUNC, truncation.as_bytes())], of), Err(Refusal::PfKeysOwn(ALG_AUTH_TRUNC)));
    }

    #[test]
    fn two_replay_windows_are_one_too_many() {
        let bytes = said(&[(attribute::REPLAY_ESN_VAL, ReplayEsn::default().as_bytes())]);
        let mut said = Said { attributes: Attributes(&bytes), ..Said::default() };
        assert_eq!(said.check(Carrier::Sa, 32), Err(Refusal::PfKeysOwn(attribute::REPLAY_ESN_VAL)));
        said.fixed.flags = FLAG_ESN;
        assert_eq!(said.check(Carrier::Sa, 0), Ok(()));
        said.attributes = Attributes(&[]);
        assert_eq!(said.check(Carrier::Sa, 0), Err(Refusal::Flags(FLAG_ESN)));
        said.fixed = SadbXXfrm { options: OPTION_PARTIAL, ..SadbXXfrm::default() };
        assert_eq!(said.check(Carrier::Sa, 0), Err(Refusal::Reserved));
    }
}
