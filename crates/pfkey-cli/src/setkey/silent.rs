//! Warnings for what setkey passes over in silence, and is hardly ever meant.

use std::collections::HashMap;
use std::net::SocketAddr;

use pfkey::policy_text::{PolicySpec, address};
use pfkey_wire::{PolicyType, SaType};

use super::{Action, Command, Complaint, Lines};
use crate::model::host;
use crate::model::sa::{Sa, SaId};

/// Of an address that is read as another than it looks: `inet_aton` fills what is missing with zeros, and takes a number that begins
/// with 0 for octal.
pub fn address(word: &str, at: usize) -> Option<Complaint> {
    let read = address::resolve(word, None).ok().filter(SocketAddr::is_ipv4)?;
    let text = host(read);
    (text != word).then(|| Complaint { at, text: format!("'{word}' is read as {text}") })
}

/// Of the addresses of a policy's text, which starts at `start`.
pub fn addresses(text: &[u8], start: usize) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut at = 0;
    for word in text.split(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'.' | b':' | b'_' | b'%')) {
        // Without a dot it is a number of something else.
        if let Some(word) = std::str::from_utf8(word).ok().filter(|word| word.contains('.')) {
            found.extend(address(word, start + at));
        }
        at += word.len() + 1;
    }
    found
}

/// Of limits that are passed before their warning.
pub fn limits(sa: &Sa, at: usize) -> Vec<Complaint> {
    let pairs = [
        ("seconds", sa.soft.addtime, sa.hard.addtime),
        ("seconds of use", sa.soft.usetime, sa.hard.usetime),
        ("bytes", sa.soft.bytes, sa.hard.bytes),
        ("packets", sa.soft.allocations.into(), sa.hard.allocations.into()),
    ];
    let above = pairs.into_iter().filter(|(_, soft, hard)| *hard != 0 && soft > hard);
    above
        .map(|(unit, soft, hard)| Complaint {
            at,
            text: format!(
                "the soft limit of {soft} {unit} is above the hard one of {hard}: the SA ends without notice"
            ),
        })
        .collect()
}

/// Of a policy that is to protect, and says not how.
pub fn unprotected(spec: &PolicySpec, at: usize) -> Option<Complaint> {
    let text = "ipsec without a request: these packets pass in clear, as with none";
    let bare = spec.policy_type == PolicyType::IPSEC && spec.requests.is_empty();
    bare.then(|| Complaint { at, text: text.to_owned() })
}

/// Of SAs that a text adds twice.
pub fn duplicates(commands: &[(Command, bool)], lines: &Lines<'_>) -> Vec<Complaint> {
    let mut there: HashMap<SaId, usize> = HashMap::new();
    let mut found = Vec::new();
    for (Command { at, action }, _) in commands {
        match action {
            Action::Add(sa) => {
                if let Some(first) = there.insert(sa.id(), *at) {
                    let (line, column) = lines.locate(first);
                    let text = format!("this SPI has its SA already, by line {line}, column {column}");
                    found.push(Complaint { at: *at, text });
                }
            }
            Action::Delete(sa) => {
                there.remove(&sa.id());
            }
            Action::DeleteAll(..) => there.clear(),
            Action::Flush(SaType::UNSPEC) => there.clear(),
            Action::Flush(satype) => there.retain(|id, _| id.0 != satype.0),
            _ => {}
        }
    }
    found
}
