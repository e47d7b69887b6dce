//! What a program's SAs and policies shall have beyond what it says of them: the value of `PFKEY_XFRM`, a list of words with
//! spaces or commas between. A word is [`super::words`]', perhaps behind for what it is meant: `out:set-mark=0x10`. Nothing is
//! allocated.

use core::fmt;

use super::words::{OPTIONS, POLICY_FLAGS, Payload, SA_FLAGS, bit_of, parse_hex, parse_number, parse_value};
use super::{ATTRIBUTES, AttributeInfo, Carrier, Layout, Mark, Role, attribute, is_pf_keys_own};
use crate::{PolicyDirection, SaType};

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 496;

/// The SA type of the message X_XFRM that carries a text: in its extension X_XFRM, as the attribute [`TEXT`].
pub const SETTINGS: SaType = SaType(2);
/// `XFRMA_UNSPEC`.
pub const TEXT: u16 = 0;

/// For which SAs and policies a word is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Of this direction only. An SA that a key manager chose the SPI of (GETSPI, UPDATE) is inbound, one that was added
    /// outbound.
    pub dir: Option<PolicyDirection>,
    /// SAs of this type only.
    pub satype: Option<SaType>,
    /// SAs, or policies, only.
    pub of: Option<Carrier>,
}

impl Meant {
    /// Whether it is for everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is for a direction's SAs of a type (`Carrier::Sa`), or policies (`Carrier::Policy`).
    #[must_use]
    pub fn includes(&self, of: Carrier, dir: PolicyDirection, satype: SaType) -> bool {
        self.of.is_none_or(|only| only == of)
            && self.dir.is_none_or(|only| only == dir)
            && self.satype.is_none_or(|only| of == Carrier::Sa && only == satype)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let both = |a: Option<u8>, b: Option<u8>| a.is_none() || b.is_none() || a == b;
        let of = |meant: &Self| meant.of.or(meant.satype.map(|_| Carrier::Sa)).map(|of| of as u8);
        both(self.dir.map(|dir| dir.0), other.dir.map(|dir| dir.0))
            && both(self.satype.map(|satype| satype.0), other.satype.map(|satype| satype.0))
            && both(of(self), of(other))
    }
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nothing may be allocated, and few are held at once")]
pub enum What {
    /// Flags of SAs, and of policies.
    Flags {
        /// `XFRM_STATE_*`.
        sa: u8,
        /// `XFRM_POLICY_*`.
        policy: u8,
    },
    /// Options of policies.
    Options(u8),
    /// An attribute.
    Attribute(u16, Payload),
}

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// For which.
    pub meant: Meant,
    /// What.
    pub what: What,
}

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What stands before a colon is no SA type, direction, `sa` or `policy`, or says the same twice.
    Meant,
    /// There is no such name.
    Name,
    /// It cannot have this value.
    Value,
    /// There is no such network interface.
    Interface,
    /// A mark, an XFRM interface and a network interface are for everything.
    World,
    /// It is said before.
    Twice,
    /// The text is longer than [`MAX_TEXT`].
    TooLong,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meant => {
                f.write_str("expected in, out, fwd, ah, esp, ipcomp, sa or policy before a colon, each once")
            }
            Self::Name => f.write_str("unknown name"),
            Self::Value => f.write_str("it cannot have this value"),
            Self::Interface => f.write_str("no such network interface"),
            Self::World => f.write_str("mark, if_id and dev are for everything, and take no prefix"),
            Self::Twice => f.write_str("said before"),
            Self::TooLong => write!(f, "more than {MAX_TEXT} bytes"),
        }
    }
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The word, counted from 1.
    pub place: usize,
    /// What is wrong with it.
    pub why: Why,
}

impl Complaint {
    /// It about a text, in words.
    #[must_use]
    pub const fn about(self, text: &str) -> About<'_> {
        About { complaint: self, text }
    }
}

/// A complaint and its text.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    complaint: Complaint,
    text: &'a str,
}

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Complaint { place, why } = self.complaint;
        let word = words(self.text).nth(place.wrapping_sub(1)).unwrap_or_default();
        write!(f, "word {place}, \"{}\": {why}", word.escape_debug())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// What stands before the last colon of a word's name, and the rest.
fn split_meant(word: &str) -> (Option<&str>, &str) {
    let name_len = word.find('=').unwrap_or(word.len());
    let colon = word.get(..name_len).and_then(|name| name.rfind(':'));
    match colon.and_then(|at| Some((word.get(..at)?, word.get(at + 1..)?))) {
        Some((meant, rest)) => (Some(meant), rest),
        None => (None, word),
    }
}

fn parse_meant(text: Option<&str>) -> Option<Meant> {
    /// `None` where it says the same twice.
    fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
        place.replace(value).is_none().then_some(())
    }
    let mut meant = Meant::default();
    for part in text.into_iter().flat_map(|text| text.split(':')) {
        match part {
            "in" => set(&mut meant.dir, PolicyDirection::INBOUND)?,
            "out" => set(&mut meant.dir, PolicyDirection::OUTBOUND)?,
            "fwd" => set(&mut meant.dir, PolicyDirection::FWD)?,
            "ah" => set(&mut meant.satype, SaType::AH)?,
            "esp" => set(&mut meant.satype, SaType::ESP)?,
            "ipcomp" => set(&mut meant.satype, SaType::X_IPCOMP)?,
            "sa" => set(&mut meant.of, Carrier::Sa)?,
            "policy" => set(&mut meant.of, Carrier::Policy)?,
            _ => return None,
        }
    }
    Some(meant)
}

fn parse_what(rest: &str, interface: &dyn Fn(&str) -> Option<u32>) -> Result<What, Why> {
    let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
    if value.is_none() {
        let (sa, policy) = (bit_of(SA_FLAGS, name).unwrap_or(0), bit_of(POLICY_FLAGS, name).unwrap_or(0));
        if sa | policy != 0 {
            return Ok(What::Flags { sa, policy });
        }
        if let Some(option) = bit_of(OPTIONS, name) {
            return Ok(What::Options(option));
        }
    }
    let (number, payload) = match ATTRIBUTES.iter().find(|row| row.name == name && is_setting(row)) {
        Some(row) if row.layout == Layout::Flag && value.is_none() => (row.number, Payload::of(&[])),
        Some(row) => {
            let value = value.unwrap_or_default();
            let name = value.split('/').next().unwrap_or_default();
            if matches!(row.layout, Layout::Offload | Layout::Interface) && interface(name).is_none() {
                return Err(Why::Interface);
            }
            let payload = parse_value(row.layout, value, interface);
            (row.number, payload.filter(|payload| is_possible(row.number, payload.as_slice())))
        }
        None => {
            let number = parse_number(name, 0x3fff).map(|number| number as u16);
            let number =
                number.filter(|number| !is_pf_keys_own(*number) && !ATTRIBUTES.iter().any(|row| row.number == *number));
            (number.ok_or(Why::Name)?, value.and_then(parse_hex))
        }
    };
    payload.map(|payload| What::Attribute(number, payload)).ok_or(Why::Value)
}

/// Whether it is for all that a program makes. A program's policies are main ones: only those go with its X_SPDFLUSH.
fn is_setting(row: &AttributeInfo) -> bool {
    row.role == Role::Setting && row.number != attribute::POLICY_TYPE
}

/// Whether a program can live with it: an XFRM interface 0 and a mark without a mask are none.
fn is_possible(number: u16, payload: &[u8]) -> bool {
    match number {
        attribute::IF_ID | attribute::DEV => payload != [0; 4],
        attribute::MARK => payload.get(4..) != Some(&[0; 4]),
        attribute::ALG_AUTH_TRUNC => payload.get(68..72).is_some_and(|bits| bits != [0; 4]),
        _ => true,
    }
}

fn parse(word: &str, interface: &dyn Fn(&str) -> Option<u32>) -> Result<Setting, Why> {
    let (meant, rest) = split_meant(word);
    let meant = parse_meant(meant).ok_or(Why::Meant)?;
    let what = parse_what(rest, interface)?;
    match what {
        What::Attribute(attribute::MARK | attribute::IF_ID | attribute::DEV, _) if !meant.is_all() => Err(Why::World),
        what => Ok(Setting { meant, what }),
    }
}

/// What a text says, word for word. `interface` knows the numbers of network interfaces.
pub fn read<'a>(
    text: &'a str,
    interface: &'a dyn Fn(&str) -> Option<u32>,
) -> impl Iterator<Item = Result<Setting, Complaint>> + 'a {
    let complain = |place, why| Complaint { place, why };
    let same = |a: &What, b: &What| match (a, b) {
        (What::Attribute(a, _), What::Attribute(b, _)) => a == b,
        _ => a == b,
    };
    words(text).enumerate().map(move |(before, word)| {
        let place = before + 1;
        if text.len() > MAX_TEXT {
            return Err(complain(place, Why::TooLong));
        }
        let setting = parse(word, interface).map_err(|why| complain(place, why))?;
        let said = words(text).take(before).filter_map(|word| parse(word, interface).ok());
        for earlier in said {
            if same(&earlier.what, &setting.what) && earlier.meant.overlaps(&setting.meant) {
                return Err(complain(place, Why::Twice));
            }
        }
        Ok(setting)
    })
}

/// The number of a network interface that stands for itself.
#[must_use]
pub fn by_number(name: &str) -> Option<u32> {
    parse_number(name, u32::MAX.into()).map(|number| number as u32)
}

/// Checks a text, and writes it with the numbers of network interfaces in place of their names: they are the program's, not
/// those of who reads it. Returns the length.
///
/// # Errors
/// The first thing that is wrong.
pub fn write_by_number(
    text: &str,
    interface: &dyn Fn(&str) -> Option<u32>,
    out: &mut [u8; MAX_TEXT],
) -> Result<usize, Complaint> {
    for setting in read(text, interface) {
        setting?;
    }
    let mut to = Text { bytes: out, len: 0 };
    for (before, word) in words(text).enumerate() {
        let too_long = |_| Complaint { place: before + 1, why: Why::TooLong };
        let (meant, rest) = split_meant(word);
        let named = ["offload=", "dev="].iter().find_map(|key| Some((*key, rest.strip_prefix(key)?)));
        let named = named.map(|(key, value)| (key, value.split_at(value.find('/').unwrap_or(value.len()))));
        use fmt::Write as _;
        if before != 0 {
            to.write_str(" ").map_err(too_long)?;
        }
        match named.and_then(|(key, (name, flags))| Some((key, interface(name)?, flags))) {
            Some((key, number, flags)) => {
                let (meant, colon) = meant.map_or(("", ""), |meant| (meant, ":"));
                write!(to, "{meant}{colon}{key}{number}{flags}")
            }
            None => to.write_str(word),
        }
        .map_err(too_long)?;
    }
    Ok(to.len)
}

struct Text<'a> {
    bytes: &'a mut [u8; MAX_TEXT],
    len: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// The mark and the XFRM interface by which a program is apart from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The mark.
    pub mark: Option<Mark>,
    /// The XFRM interface.
    pub if_id: Option<u32>,
}

impl World {
    /// Whether it has everything in it.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an SA or a policy with this mark and this XFRM interface is in it.
    #[must_use]
    pub fn has(&self, mark: Mark, if_id: u32) -> bool {
        self.mark.is_none_or(|own| own == mark) && self.if_id.is_none_or(|own| own == if_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(name: &str) -> Option<u32> {
        if name == "eth1" { Some(7) } else { by_number(name) }
    }

    fn complaint(text: &str) -> String {
        read(text, &interfaces).find_map(Result::err).map_or_else(String::new, |why| why.about(text).to_string())
    }

    #[test]
    fn words_have_what_they_are_for_before_them() {
        let all: Vec<_> = read("if_id=42 out:set-mark=0x10,esp:in:esn\tpolicy:icmp 999=0x0102", &interfaces)
            .map(Result::unwrap)
            .collect();
        let [if_id, mark, esn, icmp, other] = all[..] else { panic!("{all:?}") };
        assert!(if_id.meant.is_all());
        assert_eq!(if_id.what, What::Attribute(attribute::IF_ID, Payload::of(&42_u32.to_ne_bytes()).unwrap()));
        let (inbound, outbound) = (PolicyDirection::INBOUND, PolicyDirection::OUTBOUND);
        assert!(mark.meant.includes(Carrier::Sa, outbound, SaType::AH));
        assert!(!mark.meant.includes(Carrier::Sa, inbound, SaType::AH));
        assert!(esn.meant.includes(Carrier::Sa, inbound, SaType::ESP));
        assert!(!esn.meant.includes(Carrier::Policy, inbound, SaType::ESP));
        assert_eq!(icmp.what, What::Flags { sa: 16, policy: 2 });
        assert_eq!(other.what, What::Attribute(999, Payload::of(&[1, 2]).unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            ("if_id=1 ofload=eth1", "word 2, \"ofload=eth1\": unknown name"),
            ("offload=eth9/packet", "word 1, \"offload=eth9/packet\": no such network interface"),
            ("offload=eth1/fast", "word 1, \"offload=eth1/fast\": it cannot have this value"),
            ("if_id=0", "word 1, \"if_id=0\": it cannot have this value"),
            ("if_id", "word 1, \"if_id\": it cannot have this value"),
            ("mark=1/0", "word 1, \"mark=1/0\": it cannot have this value"),
            ("lastused=1", "word 1, \"lastused=1\": unknown name"),
            ("1=0x00", "word 1, \"1=0x00\": unknown name"),
            ("31=0x00000001", "word 1, \"31=0x00000001\": unknown name"),
            ("out:if_id=1", "word 1, \"out:if_id=1\": mark, if_id and dev are for everything, and take no prefix"),
            ("out:dev=eth1", "word 1, \"out:dev=eth1\": mark, if_id and dev are for everything, and take no prefix"),
            ("in:set-mark=1,out:set-mark=2,esp:set-mark=3", "word 3, \"esp:set-mark=3\": said before"),
            ("replay-window=4097", "word 1, \"replay-window=4097\": it cannot have this value"),
        ] {
            assert_eq!(complaint(text), expected);
        }
        assert!(complaint("up:esn").contains("expected in, out"));
        assert!(complaint("in:out:esn").contains("expected in, out"));
        assert!(complaint(&format!("esn {}", " ".repeat(MAX_TEXT))).contains("more than 496 bytes"));
        assert_eq!(complaint("esp:set-mark=1 policy:icmp ah:set-mark=2 coaddr=2001:db8::1"), "");
    }

    #[test]
    fn interfaces_travel_as_numbers() {
        let mut out = [0; MAX_TEXT];
        let len = write_by_number("if_id=42,  esp:offload=eth1/packet out:offload=eth1", &interfaces, &mut out);
        assert_eq!(len, Err(Complaint { place: 3, why: Why::Twice }));
        let len = write_by_number("if_id=42,  esp:offload=eth1/packet ", &interfaces, &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out[..len]), Ok("if_id=42 esp:offload=7/packet"));
    }
}
