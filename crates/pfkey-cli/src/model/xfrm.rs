//! What XFRM has beyond PF_KEY, in words: `-X NAME=VALUE`, and names alone for flags. An attribute that has no name is its number and
//! its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::net::if_::{if_indextoname, if_nametoindex};
use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::layout::U32;
pub use pfkey_wire::xfrm::words::parse_u32;
use pfkey_wire::xfrm::words::{
    OFFLOAD_FLAGS, OPTIONS, POLICY_FLAGS, Payload, SA_FLAGS, parse_hex, parse_number, parse_value,
};
use pfkey_wire::xfrm::{
    ATTRIBUTES, AttributeInfo, Carrier, FLAG_ESN, Layout, MODE_IPTFS, Mark, OPTION_PARTIAL, Offload, ReplayEsn, Role,
    SadbXXfrm, Said, Truncation, attribute, attribute_info, is_pf_keys_own,
};
use zerocopy::{FromBytes, IntoBytes};

use super::names;

/// What a key engine reports besides, and nobody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// When it was last used, Unix time; 0 = never.
    pub last_used: u64,
    /// There is more than the file language can say.
    pub partial: bool,
}

/// How an SA or a policy is set, without its sequence numbers; and what is reported besides.
pub fn shown(view: &XfrmView<'_>) -> (Xfrm, Report) {
    let mut settings = Xfrm::default();
    let mut last_used = 0;
    for (number, payload) in view.carried() {
        match attribute_info(number) {
            Some(row) if row.role == Role::Report => {
                last_used = payload.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            }
            Some(row) if row.role == Role::Counter => {}
            Some(row) if row.layout == Layout::ReplayEsn => settings.set(number, &without_counters(payload)),
            _ => settings.set(number, payload),
        }
    }
    if let Some(bits) = view.icv_bits {
        set_icv(&mut settings, bits);
    }
    if view.flags != 0 {
        settings.set_flags(view.flags);
    }
    let options = view.options & !OPTION_PARTIAL;
    if options != 0 {
        settings.set_options(options);
    }
    (settings, Report { last_used, partial: view.options & OPTION_PARTIAL != 0 })
}

/// A replay window as it was set: nothing sent or received yet.
fn without_counters(payload: &[u8]) -> Vec<u8> {
    let Ok((esn, bitmap)) = ReplayEsn::read_from_prefix(payload) else { return payload.to_vec() };
    let mut fresh = ReplayEsn { words: esn.words, window: esn.window, ..ReplayEsn::default() }.as_bytes().to_vec();
    fresh.resize(fresh.len() + bitmap.len(), 0);
    fresh
}

/// Sets the bits of the integrity value.
pub fn set_icv(settings: &mut Xfrm, bits: u32) {
    let truncation = Truncation { icv_bits: bits.into(), ..Truncation::default() };
    settings.set(attribute::ALG_AUTH_TRUNC, truncation.as_bytes());
}

/// Attributes of which the kernel shows no zeros (`copy_to_user_state_extra`).
const SHOWN_IF_ANY: [u16; 7] = [
    attribute::MARK,
    attribute::TFCPAD,
    attribute::SA_EXTRA_FLAGS,
    attribute::IF_ID,
    attribute::MTIMER_THRESH,
    attribute::NAT_KEEPALIVE_INTERVAL,
    attribute::DEV,
];

/// Whether a kernel that was told `wanted` shows `live`.
pub fn is_shown_for(live: &Xfrm, wanted: &Xfrm) -> bool {
    live == wanted || as_shown_for(live, wanted) == as_shown_for(wanted, wanted)
}

/// In one order, with what a kernel adds, without what it never shows, and without what it shows of its own where `wanted` says nothing.
fn as_shown_for(settings: &Xfrm, wanted: &Xfrm) -> Xfrm {
    let said = settings.attributes();
    let is_shown = |(number, payload): &(u16, &[u8])| match *number {
        attribute::REPLAY_THRESH | attribute::ETIMER_THRESH => false,
        attribute::SET_MARK_MASK => said.payload(attribute::SET_MARK).is_some(),
        // `iptfs_copy_to_user`; the others are sysctls where they are not said.
        attribute::IPTFS_DONT_FRAG => true,
        number @ attribute::IPTFS_DROP_TIME..=attribute::IPTFS_PKT_SIZE => {
            wanted.attributes().payload(number).is_some()
        }
        number => !SHOWN_IF_ANY.contains(&number) || payload.iter().any(|byte| *byte != 0),
    };
    let mut attributes: Vec<(u16, &[u8])> = said.filter(is_shown).collect();
    // `xfrm_smark_init`
    if said.payload(attribute::SET_MARK).is_some() && said.payload(attribute::SET_MARK_MASK).is_none() {
        attributes.push((attribute::SET_MARK_MASK, &[0xff; 4]));
    }
    attributes.sort_unstable();
    let mut shown = Xfrm::default();
    attributes.into_iter().for_each(|(number, payload)| shown.set(number, payload));
    if settings.flags() != 0 {
        shown.set_flags(settings.flags());
    }
    if settings.options() != 0 {
        shown.set_options(settings.options());
    }
    shown
}

/// The words behind `-X`, in the order of the attributes.
pub fn words(settings: &Xfrm, carrier: Carrier) -> Vec<String> {
    let flags = if carrier == Carrier::Policy { POLICY_FLAGS } else { SA_FLAGS };
    let mut words = bits(flags, settings.flags(), "flags");
    words.extend(bits(OPTIONS, settings.options(), "options"));
    let mut attributes: Vec<_> = settings.attributes().collect();
    attributes.sort_unstable();
    words.extend(attributes.into_iter().map(|(number, payload)| word(number, payload)));
    words
}

/// Names of bits, and the rest as a number.
fn bits(names: &[(&str, u8)], all: u8, rest: &str) -> Vec<String> {
    let mut left = all;
    let mut words = Vec::new();
    for (name, bit) in names.iter().filter(|(_, bit)| all & bit != 0) {
        words.push((*name).to_owned());
        left &= !bit;
    }
    if left != 0 {
        words.push(format!("{rest}={left:#x}"));
    }
    words
}

fn word(number: u16, payload: &[u8]) -> String {
    let named = attribute_info(number).filter(|row| row.layout.fits(payload));
    let text = named.and_then(|row| Some(format!("{}{}", row.name, value(row.layout, payload)?)));
    text.unwrap_or_else(|| format!("{number}={}", *crate::output::hex(payload)))
}

fn number(payload: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let width = payload.len().min(8);
    if cfg!(target_endian = "little") {
        bytes.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
    } else {
        bytes.iter_mut().skip(8 - width).zip(payload).for_each(|(to, from)| *to = *from);
    }
    u64::from_ne_bytes(bytes)
}

/// `=VALUE` of an attribute; nothing for one that is there or not. `None`: its bytes say more.
fn value(layout: Layout, payload: &[u8]) -> Option<String> {
    Some(match layout {
        Layout::Flag => String::new(),
        Layout::Direction => format!("={}", ["in", "out"].get(usize::from(*payload.first()?).checked_sub(1)?)?),
        Layout::U16 | Layout::U32 | Layout::Time => format!("={}", number(payload)),
        Layout::Hex => format!("={:#x}", number(payload)),
        Layout::Mark => {
            let mark = Mark::read_from_bytes(payload).ok()?;
            format!("={:#x}/{:#x}", mark.value, mark.mask)
        }
        Layout::ReplayEsn => {
            let (esn, _) = ReplayEsn::read_from_prefix(payload).ok()?;
            let window = esn.window.get();
            // The payload bounds the words, and so the window.
            let plain = Payload::of_window(window).is_some_and(|fresh| fresh.as_slice() == payload);
            plain.then(|| format!("={window}"))?
        }
        Layout::Offload => {
            let offload = Offload::read_from_bytes(payload).ok()?;
            let name = interface_name(offload.ifindex.get()).unwrap_or_else(|| offload.ifindex.get().to_string());
            let flags = bits(OFFLOAD_FLAGS, offload.flags, "flags");
            std::iter::once(format!("={name}")).chain(flags).collect::<Vec<_>>().join("/")
        }
        Layout::PolicyType => format!("={}", ["main", "sub"].get(usize::from(*payload.first()?))?),
        Layout::Interface => {
            let number = U32::read_from_bytes(payload).ok()?.get();
            format!("={}", interface_name(number).unwrap_or_else(|| number.to_string()))
        }
        Layout::Mode if payload == [MODE_IPTFS] => "=iptfs".to_owned(),
        Layout::Mode => return None,
        Layout::Address => format!("={}", address(payload)?),
        Layout::Truncation => format!("={}", Truncation::read_from_bytes(payload).ok()?.icv_bits.get()),
        Layout::Replay => return None,
    })
}

/// `xfrm_address_t` does not say its family: an IPv4 address has zeros behind it.
fn address(payload: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 16] = payload.try_into().ok()?;
    let [a, b, c, d, rest @ ..] = bytes;
    Some(if rest == [0; 12] { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() })
}

/// The number of a network interface, by its name or as it is.
pub fn interface_number(text: &str) -> Option<u32> {
    if_nametoindex(text).ok().or_else(|| text.parse().ok())
}

fn interface_name(number: u32) -> Option<String> {
    if_indextoname(number).ok()?.into_string().ok()
}

/// Adds what one word behind `-X` says.
///
/// # Errors
/// Why it says nothing.
pub fn parse(settings: &mut Xfrm, carrier: Carrier, word: &str) -> Result<(), String> {
    let flags = if carrier == Carrier::Policy { POLICY_FLAGS } else { SA_FLAGS };
    let wrong = || format!("-X {word}: this value cannot be");
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    if let (Some((_, bit)), None) = (flags.iter().find(|(flag, _)| *flag == name), value) {
        settings.set_flags(settings.flags() | bit);
        return Ok(());
    }
    if let (Some((_, bit)), None) = (OPTIONS.iter().find(|(option, _)| *option == name), value) {
        settings.set_options(settings.options() | bit);
        return Ok(());
    }
    if let ("flags", Some(value)) = (name, value) {
        let bits = parse_number(value, 255).ok_or_else(wrong)? as u8;
        settings.set_flags(settings.flags() | bits);
        return Ok(());
    }
    let (number, payload) = match ATTRIBUTES.iter().find(|row| row.name == name) {
        Some(AttributeInfo { number, layout: Layout::Flag, .. }) if value.is_none() => (*number, Payload::of(&[])),
        Some(row) => (row.number, parse_value(row.layout, value.unwrap_or_default(), interface_number)),
        None => {
            let number = parse_number(name, 0x3fff).filter(|n| !is_pf_keys_own(*n as u16));
            let number = number.ok_or_else(|| unknown(name, flags))? as u16;
            let payload = value.and_then(parse_hex);
            (number, Some(payload.ok_or_else(|| format!("-X {word}: 0x and the attribute's bytes expected"))?))
        }
    };
    let payload = payload.ok_or_else(wrong)?;
    if settings.attributes().payload(number).is_some() {
        return Err(format!("-X {name} is there twice"));
    }
    settings.set(number, payload.as_slice());
    Ok(())
}

fn unknown(name: &str, flags: &[(&'static str, u8)]) -> String {
    let known = ATTRIBUTES.iter().map(|row| row.name).chain(flags.iter().map(|(flag, _)| *flag)).chain(["propose"]);
    let near = names::nearest(name, known).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    format!("-X {name:?}: unknown{near}")
}

/// Checks what all words together say. Extended sequence numbers without a window have one of 32 packets.
///
/// # Errors
/// What is wrong.
pub fn check(settings: &mut Xfrm, carrier: Carrier, replay: u8) -> Result<(), String> {
    if carrier == Carrier::Sa
        && settings.flags() & FLAG_ESN != 0
        && settings.attributes().payload(attribute::REPLAY_ESN_VAL).is_none()
    {
        if let Some(window) = Payload::of_window(32) {
            settings.set(attribute::REPLAY_ESN_VAL, window.as_slice());
        }
    }
    let fixed = SadbXXfrm { flags: settings.flags(), options: settings.options(), ..SadbXXfrm::default() };
    let said = Said { fixed, attributes: settings.attributes() };
    let has_window = settings.attributes().payload(attribute::REPLAY_ESN_VAL).is_some();
    if has_window && replay != 0 {
        return Err("-r and -X replay-window (or -X esn) are two windows".to_owned());
    }
    said.check(carrier, 0).map_err(|refusal| format!("-X: {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str], carrier: Carrier) -> Result<Xfrm, String> {
        let mut settings = Xfrm::default();
        words.iter().try_for_each(|word| parse(&mut settings, carrier, word))?;
        check(&mut settings, carrier, 0).map(|()| settings)
    }

    #[test]
    fn what_is_written_is_read() {
        let all = [
            "icmp",
            "esn",
            "flags=0x1",
            "coaddr=2001:db8::1",
            "icv=128",
            "mark=0x1/0xff",
            "tfcpad=100",
            "replay-window=4096",
            "extra-flags=0x3",
            "offload=lo/in/packet",
            "set-mark=0x10",
            "set-mark-mask=0xff",
            "if_id=42",
            "mtimer-thresh=5",
            "dir=in",
            "nat-keepalive=20",
            "pcpu=3",
            "iptfs-reorder-window=7",
            "iptfs-dont-frag",
            "dev=lo",
            "mode=iptfs",
            "999=0x0102",
        ];
        let mut settings = Xfrm::default();
        for word in all {
            parse(&mut settings, Carrier::Sa, word).unwrap();
        }
        let mut shown = words(&settings, Carrier::Sa);
        let mut expected: Vec<_> = all.iter().map(|word| (*word).to_owned()).collect();
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected);
        let policy = said(&["localok", "propose", "if_id=7", "mark=5", "dev=lo", "type=sub"], Carrier::Policy).unwrap();
        let shown = ["localok", "propose", "type=sub", "mark=0x5/0xffffffff", "if_id=7", "dev=lo"];
        assert_eq!(words(&policy, Carrier::Policy), shown);
        let name = ["type=sub", "mark=0x5/0xffffffff", "if_id=7", "dev=lo"];
        assert_eq!(words(&policy.policy_name(), Carrier::PolicyName), name);
    }

    #[test]
    fn extended_sequence_numbers_have_a_window() {
        let esn = said(&["esn"], Carrier::Sa).unwrap();
        assert_eq!(words(&esn, Carrier::Sa), ["esn", "replay-window=32"]);
        assert_eq!(
            check(&mut said(&["esn"], Carrier::Sa).unwrap(), Carrier::Sa, 4).unwrap_err().split(' ').next(),
            Some("-r")
        );
    }

    #[test]
    fn complaints_name_the_word() {
        for (words, complaint) in [
            (&["mark=x"][..], "-X mark=x: this value cannot be"),
            (&["if-id=1"], "-X \"if-id\": unknown; did you mean \"if_id\"?"),
            (&["if_id=1", "if_id=2"], "-X if_id is there twice"),
            (&["2=0x00"], "-X \"2\": unknown"),
            (&["replay-window=4097"], "-X replay-window=4097: this value cannot be"),
            (&["mode=tunnel"], "-X mode=tunnel: this value cannot be"),
            (&["type=sub"], "-X: attribute 16 (XFRMA_POLICY_TYPE) does not belong to this message"),
            (&["set-mark-mask=1"], "-X: attribute 30 (XFRMA_SET_MARK_MASK) does not belong to this message"),
            (&["lastused=1"], "-X: attribute 15 (XFRMA_LASTUSED) is what the kernel reports; it cannot be set"),
        ] {
            assert_eq!(said(words, Carrier::Sa).unwrap_err(), complaint);
        }
        assert!(said(&["pcpu=1"], Carrier::Policy).unwrap_err().contains("XFRMA_SA_PCPU"));
    }
}
