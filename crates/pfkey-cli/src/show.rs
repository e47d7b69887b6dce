//! `dump`, `spd`, `get`, `policy get`: what is there.

use pfkey_wire::layout::SadbXPolicy;
use pfkey_wire::{ExtensionType, Header, MessageType, PolicyDirection, Profile, SaType, Writer};

use crate::channel::{Channel, finish};
use crate::failure::Failure;
use crate::model::policy::PolicyEntry;
use crate::model::sa::{Sa, SaEntry};
use crate::output::{Out, Record, View, show};
use crate::state;
use pfkey_model::xfrm::Xfrm;

/// A table's columns for SAs.
const SA_COLUMNS: &[&str] = &[
    "protocol",
    "spi",
    "source",
    "destination",
    "mode",
    "reqid",
    "state",
    "encryption",
    "encryption_key",
    "authentication",
    "authentication_key",
    "compression",
    "hard_seconds",
    "bytes",
    "packets",
];
/// The same where keys are hidden.
const SA_COLUMNS_WITHOUT_KEYS: &[&str] = &[
    "protocol",
    "spi",
    "source",
    "destination",
    "mode",
    "reqid",
    "state",
    "encryption",
    "authentication",
    "compression",
    "hard_seconds",
    "bytes",
    "packets",
];
/// A table's columns for policies.
const POLICY_COLUMNS: &[&str] =
    &["direction", "source", "destination", "upper", "action", "requests", "priority", "id", "used"];

fn show_sas(out: &mut Out, view: View, records: &[Record]) -> Result<(), Failure> {
    let columns = if view.show_keys { SA_COLUMNS } else { SA_COLUMNS_WITHOUT_KEYS };
    Ok(show(out, view, "sas", columns, records)?)
}

/// Every SA of a type.
pub fn sad(channel: &mut Channel, out: &mut Out, view: View, satype: SaType) -> Result<(), Failure> {
    let records: Vec<_> = state::sas(channel, satype)?.iter().map(SaEntry::record).collect();
    show_sas(out, view, &records)
}

/// One SA.
pub fn sa(channel: &mut Channel, out: &mut Out, view: View, sa: &Sa) -> Result<(), Failure> {
    let found = channel.request(
        &format!("get {}", sa.title()),
        |seq, pid, buffer| sa.write(MessageType::GET, seq, pid, buffer),
        |received| received.message.as_ref().and_then(SaEntry::of),
    )?;
    let records: Vec<_> = found.iter().map(SaEntry::record).collect();
    show_sas(out, view, &records)
}

/// Every policy, perhaps of one direction only, with or without those of sockets.
pub fn spd(
    channel: &mut Channel,
    out: &mut Out,
    view: View,
    direction: Option<PolicyDirection>,
    sockets: bool,
) -> Result<(), Failure> {
    let wanted = |entry: &&PolicyEntry| match direction {
        Some(direction) => entry.policy.spec.direction == direction,
        None => sockets || !entry.is_of_socket(),
    };
    let records: Vec<_> = state::policies(channel)?.iter().filter(wanted).map(PolicyEntry::record).collect();
    Ok(show(out, view, "policies", POLICY_COLUMNS, &records)?)
}

/// A request about the policy of a number.
pub fn policy_request(channel: &mut Channel, msg_type: MessageType, id: u32) -> Result<Option<PolicyEntry>, Failure> {
    match request_in(channel, msg_type, id, &Xfrm::default()) {
        // One with a mark or an XFRM interface is found only together with it.
        Err(Failure::Refused { errno: libc::ENOENT, what, why }) => {
            let scope = state::policies(channel)?.into_iter().find(|entry| entry.id == id);
            let scope = scope.map(|entry| entry.policy.attached.xfrm.policy_name()).unwrap_or_default();
            if scope.is_empty() {
                return Err(Failure::Refused { errno: libc::ENOENT, what, why });
            }
            request_in(channel, msg_type, id, &scope)
        }
        other => other,
    }
}

fn request_in(
    channel: &mut Channel,
    msg_type: MessageType,
    id: u32,
    scope: &Xfrm,
) -> Result<Option<PolicyEntry>, Failure> {
    let verb = if msg_type == MessageType::X_SPDGET { "get" } else { "delete" };
    channel.request(
        &format!("policy {verb} {id}"),
        |seq, pid, buffer| {
            let mut w = Writer::new(buffer, Header::new(msg_type, SaType::UNSPEC, seq, pid), Profile::Linux);
            let fixed = SadbXPolicy { exttype: ExtensionType::X_POLICY.0.into(), id: id.into(), ..Default::default() };
            w.policy(fixed, &[]);
            scope.write(&mut w);
            finish(w)
        },
        |received| received.message.as_ref().and_then(|m| PolicyEntry::of(m, received.header.reserved)),
    )
}

/// The policy of a number.
pub fn policy(channel: &mut Channel, out: &mut Out, view: View, id: u32) -> Result<(), Failure> {
    let found = policy_request(channel, MessageType::X_SPDGET, id)?;
    let records: Vec<_> = found.iter().map(PolicyEntry::record).collect();
    Ok(show(out, view, "policies", POLICY_COLUMNS, &records)?)
}
