//! `dump`, `spd`, `get`, `policy get`: what is there.

use pfkey_wire::layout::SadbXPolicy;
use pfkey_wire::{ExtensionType, Header, MessageType, PolicyDirection, Profile, SaType, Writer};

use crate::channel::{Channel, finish};
use crate::failure::Failure;
use crate::filter::Filter;
use crate::model::names;
use crate::model::policy::PolicyEntry;
use crate::model::sa::{Sa, SaEntry};
use crate::output::{self, Format, Out, Record, View, show};
use crate::overview::unix_time;
use crate::state;
use pfkey_model::xfrm::Xfrm;

/// A table's columns for SAs, what matters most first; keys only where they are asked for.
const SA_COLUMNS: &[&str] = &[
    "protocol",
    "spi",
    "source",
    "destination",
    "mode",
    "state",
    "encryption",
    "authentication",
    "compression",
    "reqid",
    "bytes",
    "packets",
    "hard_seconds",
    "soft_seconds",
    "hard_bytes",
    "soft_bytes",
];
const KEY_COLUMNS: &[&str] = &["encryption_key", "authentication_key"];
/// What else there can be of an SA.
const MORE_OF_SA: &[&str] = &[
    "replay",
    "encryption_key_bits",
    "authentication_key_bits",
    "flags",
    "selector",
    "source_port",
    "destination_port",
    "hard_idle_seconds",
    "soft_idle_seconds",
    "hard_packets",
    "soft_packets",
    "label",
    "xfrm",
    "if_id",
    "last_used",
    "created",
    "used",
];
/// A table's columns for policies.
const POLICY_COLUMNS: &[&str] =
    &["direction", "source", "destination", "upper", "action", "requests", "priority", "id", "used"];
/// What else there can be of a policy.
const MORE_OF_POLICY: &[&str] = &[
    "references",
    "source_port",
    "destination_port",
    "label",
    "xfrm",
    "if_id",
    "last_used",
    "hard_seconds",
    "hard_idle_seconds",
    "created",
];

/// What of all that there is, is shown.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Chosen {
    #[command(flatten)]
    filter: Filter,
    /// Show these fields, in this order
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Vec<String>,
}

impl Chosen {
    /// The fields that are asked for, of those that there are; none, if none are.
    fn columns(&self, view: View, known: &[&[&'static str]]) -> Result<Option<Vec<&'static str>>, Failure> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        if view.format == Format::Json {
            return Err(Failure::Usage("--columns: JSON has every field".to_owned()));
        }
        let all = || known.iter().copied().flatten().copied();
        let find = |name: &String| {
            all().find(|column| column == name).ok_or_else(|| {
                let near =
                    names::nearest(name, all()).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                Failure::Usage(format!("--columns: no field {name:?}{near}"))
            })
        };
        self.columns.iter().map(find).collect::<Result<_, _>>().map(Some)
    }
}

fn show_sas(out: &mut Out, view: View, records: &[Record]) -> Result<(), Failure> {
    let columns = if view.show_keys { [SA_COLUMNS, KEY_COLUMNS].concat() } else { SA_COLUMNS.to_vec() };
    Ok(show(out, view, "sas", &columns, records)?)
}

/// The SAs of a type that are asked for, with the fields that are asked for.
pub fn some_sas(
    channel: &mut Channel,
    out: &mut Out,
    view: View,
    satype: SaType,
    chosen: &Chosen,
) -> Result<(), Failure> {
    let columns = chosen.columns(view, &[SA_COLUMNS, KEY_COLUMNS, MORE_OF_SA])?;
    let now = unix_time();
    let sas = state::sas(channel, satype)?;
    let records: Vec<Record> =
        sas.iter().filter(|entry| chosen.filter.takes_sa(entry, now)).map(SaEntry::record).collect();
    match columns {
        None => show_sas(out, view, &records),
        Some(columns) => Ok(show(out, view, "sas", &columns, &output::chosen(records, &columns))?),
    }
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
    some_policies(channel, out, view, (direction, sockets), &Chosen::default())
}

/// The same of policies that are asked for, with the fields that are asked for.
pub fn some_policies(
    channel: &mut Channel,
    out: &mut Out,
    view: View,
    (direction, sockets): (Option<PolicyDirection>, bool),
    chosen: &Chosen,
) -> Result<(), Failure> {
    chosen.filter.check_for_policies()?;
    let columns = chosen.columns(view, &[POLICY_COLUMNS, MORE_OF_POLICY])?;
    let now = unix_time();
    let wanted = |entry: &&PolicyEntry| {
        let is_there = match direction {
            Some(direction) => entry.policy.spec.direction == direction,
            None => sockets || !entry.is_of_socket(),
        };
        is_there && chosen.filter.takes_policy(entry, now)
    };
    let records: Vec<_> = state::policies(channel)?.iter().filter(wanted).map(PolicyEntry::record).collect();
    match columns {
        None => Ok(show(out, view, "policies", POLICY_COLUMNS, &records)?),
        Some(columns) => Ok(show(out, view, "policies", &columns, &output::chosen(records, &columns))?),
    }
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
