//! `types`: the numbers of messages, extensions and SA types in a dialect, and what they are for.

use pfkey_rs::wire::{ExtensionType, MessageType, Profile};

use crate::failure::Failure;
use crate::meaning;
use crate::output::{Out, Record, Value, View, show};

/// KLIPS's messages above RFC 2367's (Openswan 2.6 `pfkeyv2.h`).
const KLIPS_MESSAGES: &[&str] = &["X_GRPSA", "X_ADDFLOW", "X_DELFLOW", "X_DEBUG", "X_NAT_T_NEW_MAPPING"];
/// KLIPS's extensions above RFC 2367's.
const KLIPS_EXTENSIONS: &[&str] = &[
    "X_SATYPE2",
    "X_SA2",
    "X_ADDRESS_DST2",
    "X_ADDRESS_SRC_FLOW",
    "X_ADDRESS_DST_FLOW",
    "X_ADDRESS_SRC_MASK",
    "X_ADDRESS_DST_MASK",
    "X_DEBUG",
    "X_PROTOCOL",
    "X_NAT_T_TYPE",
    "X_NAT_T_SPORT",
    "X_NAT_T_DPORT",
    "X_NAT_T_OA",
];
/// RFC 2367's last message and extension, up to which the dialects agree.
const LAST_SHARED: (u8, u16) = (12, 17);

fn message(profile: Profile, number: u8) -> Option<&'static str> {
    match (profile, number.checked_sub(LAST_SHARED.0 + 1)) {
        (Profile::Klips, Some(above)) => KLIPS_MESSAGES.get(usize::from(above)).copied(),
        _ => MessageType(number).name(),
    }
}

fn extension(profile: Profile, number: u16) -> Option<&'static str> {
    match (profile, number.checked_sub(LAST_SHARED.1 + 1)) {
        (Profile::Klips, Some(above)) => KLIPS_EXTENSIONS.get(usize::from(above)).copied(),
        _ => ExtensionType(number).name(),
    }
}

/// Shows the tables of a dialect.
pub fn types(view: View, profile: Profile) -> Result<(), Failure> {
    let text = |text: &str| Value::Text(text.to_owned());
    let origin = |rfc: bool| text(if rfc { "RFC 2367" } else { "extension" });
    let mut records: Vec<Record> = Vec::new();
    for number in 1..=profile.max_message_type() {
        let Some(name) = message(profile, number) else { continue };
        let (direction, meaning) = meaning::message(profile, name).unwrap_or_default();
        records.push(vec![
            ("kind", text("message")),
            ("number", Value::Number(number.into())),
            ("name", text(name)),
            ("direction", text(direction)),
            ("meaning", text(meaning)),
            ("origin", origin(number <= LAST_SHARED.0)),
        ]);
    }
    for number in 1..=profile.max_extension_type() {
        let Some(name) = extension(profile, number) else { continue };
        let (structure, meaning) = meaning::extension(profile, name).unwrap_or_default();
        let bytes = profile.min_extension_len(number).unwrap_or_default();
        records.push(vec![
            ("kind", text("extension")),
            ("number", Value::Number(number.into())),
            ("name", text(name)),
            ("structure", text(structure)),
            ("fixed_bytes", Value::Number(bytes as u64)),
            ("meaning", text(meaning)),
            ("origin", origin(number <= LAST_SHARED.1)),
        ]);
    }
    for (number, name, meaning, rfc) in meaning::satypes(profile) {
        records.push(vec![
            ("kind", text("satype")),
            ("number", Value::Number(number.into())),
            ("name", text(name)),
            ("meaning", text(meaning)),
            ("origin", origin(rfc)),
        ]);
    }
    let columns = &["kind", "number", "name", "direction", "structure", "fixed_bytes", "meaning"];
    Ok(show(&mut Out::new(), view, "types", columns, &records)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_dialect_has_a_name_and_a_meaning() {
        for profile in [Profile::Linux, Profile::Rfc2367, Profile::Klips] {
            for number in 1..=profile.max_message_type() {
                let name = message(profile, number);
                let meaning = name.and_then(|name| meaning::message(profile, name));
                assert!(meaning.is_some(), "{profile:?} message {number}");
            }
            for number in 1..=profile.max_extension_type() {
                let name = extension(profile, number);
                let meaning = name.and_then(|name| meaning::extension(profile, name));
                assert!(meaning.is_some(), "{profile:?} extension {number}");
            }
        }
    }

    #[test]
    fn the_dialects_part_where_their_headers_do() {
        // linux/pfkeyv2.h and Openswan's pfkeyv2.h.
        assert_eq!((message(Profile::Linux, 14), message(Profile::Klips, 14)), (Some("X_SPDADD"), Some("X_ADDFLOW")));
        assert_eq!(extension(Profile::Linux, 26), Some("X_FILTER"));
        assert_eq!(extension(Profile::Klips, 26), Some("X_PROTOCOL"));
        assert_eq!(extension(Profile::Klips, 30), Some("X_NAT_T_OA"));
    }
}
