//! `monitor`: every message, as it happens.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use pfkey_wire::{ExtensionType as Ext, HEADER_LEN, Message, MessageType};
use zeroize::Zeroizing;

use crate::channel::{Channel, Received};
use crate::failure::{Failure, errno_text};
use crate::filter::Filter;
use crate::model::policy::PolicyEntry;
use crate::model::sa::SaEntry;
use crate::model::{any_host, names, utc};
use crate::output::{Format, Out, Record, Value, View, json_line, plain};
use crate::overview::unix_time;

/// Shows messages until interrupted, or until `count` were shown.
pub fn monitor(view: View, count: Option<u64>, filter: &Filter) -> Result<(), Failure> {
    let mut channel = Channel::open_as_others()?;
    let mut out = Out::new();
    channel.listen(true)?;
    let pid = std::process::id();
    let mut last = Zeroizing::new(Vec::new());
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let next = channel.receive(None, |received| {
            let bytes = received.message.as_ref().map(Message::bytes).unwrap_or_default();
            // Our own request comes back twice, and a promiscuous listener receives what everybody receives twice.
            if (received.header.msg_type, received.header.pid) == (MessageType::X_PROMISC, pid)
                || (!bytes.is_empty() && bytes == last.as_slice())
            {
                last.clear();
                return None;
            }
            last = Zeroizing::new(bytes.to_vec());
            is_meant(filter, received).then(|| record(received))
        })?;
        let Some(next) = next else { break };
        let Some(record) = next else { continue };
        shown += 1;
        match view.format {
            Format::Json => json_line(&mut out, &record, view.show_keys)?,
            Format::Plain => plain(&mut out, &record, view.show_keys)?,
            Format::Table { colour } => coloured(&mut out, colour, &record, view.show_keys)?,
        }
        out.flush()?;
    }
    Ok(())
}

/// Whether a message is about an SA or a policy that a filter takes; with one, other messages are not meant.
fn is_meant(filter: &Filter, received: &Received<'_>) -> bool {
    if filter.is_empty() {
        return true;
    }
    let Some(message) = &received.message else { return false };
    let now = unix_time();
    SaEntry::of(message).map(|entry| filter.takes_sa(&entry, now)).unwrap_or_else(|| {
        let policy = PolicyEntry::of(message, received.header.reserved);
        policy.is_some_and(|entry| filter.takes_policy(&entry, now))
    })
}

/// The time and the message's name in front, in colour.
fn coloured(out: &mut Out, colour: bool, record: &Record, show_keys: bool) -> std::io::Result<()> {
    let text = |i: usize| match record.get(i) {
        Some((_, Value::Text(text))) => text.clone(),
        _ => String::new(),
    };
    let (on, off) = if colour { ("\x1b[1;36m", "\x1b[0m") } else { ("", "") };
    write!(out, "{} {on}{:<11}{off} ", text(0), text(1))?;
    let rest: Record = record.iter().skip(2).map(|(name, value)| (*name, value.clone())).collect();
    plain(out, &rest, show_keys)
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = utc(since.as_secs());
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), since.subsec_micros())
}

/// What is shown of a message.
pub fn record(received: &Received<'_>) -> Record {
    let header = received.header;
    let name = header.msg_type.name().map_or_else(|| format!("type {}", header.msg_type.0), str::to_owned);
    let mut record: Record = vec![
        ("time", Value::Text(now())),
        ("message", Value::Text(name)),
        ("protocol", Value::Text(names::satype(header.satype))),
        ("seq", Value::Number(header.seq.into())),
        ("pid", Value::Number(header.pid.into())),
    ];
    if header.errno != 0 {
        record.push(("errno", Value::Number(header.errno.into())));
        record.push(("error", Value::Text(errno_text(header.errno.into()))));
    }
    let Some(message) = &received.message else {
        record.push(("malformed", Value::Number(u64::from(header.len) * 8)));
        return record;
    };
    if header.msg_type == MessageType::EXPIRE {
        let limit = if message.has(Ext::LIFETIME_HARD) { "hard" } else { "soft" };
        record.push(("limit", Value::Text(limit.to_owned())));
    }
    let known = message.has(Ext::LIFETIME_CURRENT);
    if !known && (message.has(Ext::SA) || message.has(Ext::X_POLICY)) {
        // A key engine's own messages tell of what was used; a request cannot know it, and its state means nothing.
        record.push(("role", Value::Text("request".to_owned())));
    }
    let hidden = |name: &str| {
        name == "protocol" || !known && matches!(name, "state" | "bytes" | "packets" | "id" | "references")
    };
    if let Some(sa) = SaEntry::of(message) {
        record.extend(sa.record().into_iter().filter(|(name, _)| !hidden(name)));
    } else if let Some(policy) = PolicyEntry::of(message, header.reserved) {
        record.extend(policy.record().into_iter().filter(|(name, _)| !hidden(name)));
    } else {
        for (name, ext) in [("source", Ext::ADDRESS_SRC), ("destination", Ext::ADDRESS_DST)] {
            if let Some((_, address)) = message.address(ext) {
                record.push((name, Value::Text(any_host(address))));
            }
        }
    }
    if message.bytes().len() > HEADER_LEN {
        let name = |t: Ext| t.name().map_or_else(|| t.0.to_string(), str::to_owned);
        record.push(("extensions", Value::List(message.extensions().map(|e| name(e.ext_type)).collect())));
    }
    record
}
