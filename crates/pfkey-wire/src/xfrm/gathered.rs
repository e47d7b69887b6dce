//! Flags, options and attributes gathered in a place of fixed size: as many as an extension can have. Nothing is allocated.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    AttributeHeader, Attributes, FLAG_ESN, MAX_LEN, Mark, Offload, Refusal, Role, SadbXXfrm, Said, Truncation,
    attribute, attribute_info, is_pf_keys_own, round4, words::Payload,
};

/// Of an SA or a policy, or of their names. It may have been written by another hand: its length is not trusted.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Gathered {
    /// Bytes of attributes.
    len: u32,
    /// `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
    flags: u8,
    /// [`super::OPTION_PROPOSE`], [`super::OPTION_PARTIAL`].
    options: u8,
    /// 0.
    reserved: u16,
    /// Netlink attributes, each padded to four bytes.
    attributes: [u64; MAX_LEN / 8],
}

impl Default for Gathered {
    fn default() -> Self {
        Self { len: 0, flags: 0, options: 0, reserved: 0, attributes: [0; MAX_LEN / 8] }
    }
}

impl Gathered {
    /// What an extension says.
    ///
    /// # Errors
    /// [`Refusal::TooLong`].
    pub fn of(said: Said<'_>) -> Result<Self, Refusal> {
        let mut gathered = Self { flags: said.fixed.flags, options: said.fixed.options, ..Self::default() };
        said.attributes.into_iter().try_for_each(|(number, payload)| gathered.append(number, payload))?;
        Ok(gathered)
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        (self.flags, self.options) == (0, 0) && self.attributes().next().is_none()
    }

    /// `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'_> {
        let bytes = self.attributes.as_bytes();
        Attributes(bytes.get(..self.len as usize).unwrap_or_default())
    }

    /// It as an extension says it.
    #[must_use]
    pub fn said(&self) -> Said<'_> {
        let fixed = SadbXXfrm { flags: self.flags, options: self.options, ..SadbXXfrm::default() };
        Said { fixed, attributes: self.attributes() }
    }

    fn append(&mut self, number: u16, payload: &[u8]) -> Result<(), Refusal> {
        let start = self.attributes().0.len();
        let end = start.saturating_add(round4(4 + payload.len()));
        let header =
            u16::try_from(4 + payload.len()).map(|len| AttributeHeader { len: len.into(), attr_type: number.into() });
        let (Some(place), Ok(header)) = (self.attributes.as_mut_bytes().get_mut(start..end), header) else {
            return Err(Refusal::TooLong(end));
        };
        place.fill(0);
        for (to, from) in place.iter_mut().zip(header.as_bytes().iter().chain(payload)) {
            *to = *from;
        }
        self.len = end as u32;
        Ok(())
    }

    /// Sets an attribute, in the place of one with the same number. If it cannot be, nothing changes.
    ///
    /// # Errors
    /// What is wrong with it, wherever it is sent.
    pub fn set(&mut self, number: u16, payload: &[u8]) -> Result<(), Refusal> {
        match attribute_info(number) {
            _ if is_pf_keys_own(number) || number > NUMBER_MAX => return Err(Refusal::PfKeysOwn(number)),
            Some(row) if row.role == Role::Report => return Err(Refusal::Report(number)),
            Some(row) if !row.layout.fits(payload) => return Err(Refusal::Length(number)),
            _ => {}
        }
        let mut changed = Self { flags: self.flags, options: self.options, ..Self::default() };
        let others = self.attributes().filter(|(other, _)| *other != number);
        others.chain([(number, payload)]).try_for_each(|(number, payload)| changed.append(number, payload))?;
        *self = changed;
        Ok(())
    }

    /// Sets an attribute that is a number.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_u32(&mut self, number: u16, value: u32) -> Result<(), Refusal> {
        self.set(number, value.as_bytes())
    }

    /// Sets flags, and clears none.
    pub const fn add_flags(&mut self, flags: u8) {
        self.flags |= flags;
    }

    /// Sets options, and clears none.
    pub const fn add_options(&mut self, options: u8) {
        self.options |= options;
    }

    /// The mark of the packets that it is for, and its bits that count.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_mark(&mut self, value: u32, mask: u32) -> Result<(), Refusal> {
        self.set(attribute::MARK, Mark { value, mask }.as_bytes())
    }

    /// The mark that its packets get, and its bits that are set; all, for a mask of all ones.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_set_mark(&mut self, value: u32, mask: u32) -> Result<(), Refusal> {
        let mut changed = *self;
        changed.set_u32(attribute::SET_MARK, value)?;
        changed.set_u32(attribute::SET_MARK_MASK, mask)?;
        *self = changed;
        Ok(())
    }

    /// A replay window of so many packets, 4096 at most, without extended sequence numbers.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_window(&mut self, packets: u32) -> Result<(), Refusal> {
        let payload = Payload::of_window(packets).ok_or(Refusal::Length(attribute::REPLAY_ESN_VAL))?;
        self.set(attribute::REPLAY_ESN_VAL, payload.as_slice())?;
        self.flags &= !FLAG_ESN;
        Ok(())
    }

    /// Extended sequence numbers, and a replay window of so many packets.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_esn(&mut self, packets: u32) -> Result<(), Refusal> {
        self.set_window(packets)?;
        self.add_flags(FLAG_ESN);
        Ok(())
    }

    /// Bits of the integrity value.
    ///
    /// # Errors
    /// As [`Self::set`]; [`Refusal::Length`] for what is not whole bytes.
    pub fn set_icv(&mut self, bits: u32) -> Result<(), Refusal> {
        if bits == 0 || bits % 8 != 0 {
            return Err(Refusal::Length(attribute::ALG_AUTH_TRUNC));
        }
        self.set(attribute::ALG_AUTH_TRUNC, Truncation { icv_bits: bits.into(), ..Truncation::default() }.as_bytes())
    }

    /// The network interface that does the cryptography, and `XFRM_OFFLOAD_*`.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_offload(&mut self, ifindex: u32, flags: u8) -> Result<(), Refusal> {
        let offload = Offload { ifindex: ifindex.into(), flags, ..Offload::default() };
        self.set(attribute::OFFLOAD_DEV, offload.as_bytes())
    }
}

/// The two bits above are netlink's (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const NUMBER_MAX: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(gathered: &Gathered) -> Vec<(u16, Vec<u8>)> {
        gathered.attributes().map(|(number, payload)| (number, payload.to_vec())).collect()
    }

    #[test]
    fn an_attribute_takes_the_place_of_another() {
        let mut gathered = Gathered::default();
        assert!(gathered.is_empty());
        gathered.set_u32(attribute::IF_ID, 7).unwrap();
        gathered.set(999, &[1, 2, 3]).unwrap();
        gathered.set(attribute::IPTFS_DONT_FRAG, &[]).unwrap();
        gathered.set_u32(attribute::IF_ID, 8).unwrap();
        let expected = [
            (999, vec![1, 2, 3]),
            (attribute::IPTFS_DONT_FRAG, vec![]),
            (attribute::IF_ID, 8_u32.to_ne_bytes().into()),
        ];
        assert_eq!(list(&gathered), expected);
        assert!(gathered.attributes().is_whole());
        assert_eq!(list(&Gathered::of(gathered.said()).unwrap()), expected);
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let mut gathered = Gathered::default();
        gathered.set_esn(4096).unwrap();
        gathered.set_window(64).unwrap();
        assert_eq!(gathered.flags(), 0, "without extended sequence numbers");
        gathered.set_esn(4096).unwrap();
        assert_eq!(gathered.flags(), FLAG_ESN);
        let before = list(&gathered);
        assert_eq!(gathered.set_esn(4097), Err(Refusal::Length(attribute::REPLAY_ESN_VAL)));
        assert_eq!(gathered.set_icv(97), Err(Refusal::Length(attribute::ALG_AUTH_TRUNC)));
        assert_eq!(gathered.set(attribute::MARK, &[0; 7]), Err(Refusal::Length(attribute::MARK)));
        assert_eq!(gathered.set(5, &[0; 64]), Err(Refusal::PfKeysOwn(5)));
        assert_eq!(
            gathered.set(0x8000 | attribute::IF_ID, &[0; 4]),
            Err(Refusal::PfKeysOwn(0x8000 | attribute::IF_ID))
        );
        assert_eq!(gathered.set(attribute::LASTUSED, &[0; 8]), Err(Refusal::Report(attribute::LASTUSED)));
        assert!(matches!(gathered.set(999, &[0; MAX_LEN - 500]), Err(Refusal::TooLong(_))));
        assert!(matches!(gathered.set(999, &[0; 70_000]), Err(Refusal::TooLong(_))));
        assert_eq!(list(&gathered), before);
        gathered.set(999, &[0; MAX_LEN - 4 - 540]).unwrap();
        assert_eq!(gathered.attributes().0.len(), MAX_LEN);
        assert_eq!(gathered.set(1000, &[]), Err(Refusal::TooLong(MAX_LEN + 4)));
    }

    /// A caller in C may have written anything.
    #[test]
    fn a_length_that_cannot_be_is_no_attributes() {
        for len in [MAX_LEN as u32 + 1, u32::MAX] {
            let mut gathered = Gathered { len, ..Gathered::default() };
            assert!(gathered.is_empty());
            gathered.set_u32(attribute::IF_ID, 1).unwrap();
            assert_eq!(gathered.attributes().0.len(), 8);
        }
    }
}
