//! Policies as dumps show them, read back.

use super::policy::{Policy, parse_requests};
use super::read::{is_of_socket, limits, selector};
use super::sa::Context;
use super::view::usage;
use crate::wire::{Ends, ExtensionType as Ext, Message, PolicyDirection, PolicyType};

/// The policy of an X_SPDDUMP or X_SPDGET message; `None` for a socket's, which is no entry of the SPD.
#[must_use]
pub fn policy(message: &Message<'_>) -> Option<Policy> {
    let selector = selector(message).ok()?;
    let (ext, requests) = message.policy()?;
    let (id, dir) = (ext.id.get(), PolicyDirection(ext.dir));
    if is_of_socket(id) {
        return None;
    }
    let policy_type = PolicyType(ext.policy_type.get());
    let templates = parse_requests(requests, dir, Ends::unspecified(selector.src.address), || None).ok()?;
    let usage = usage(message.lifetime(Ext::LIFETIME_CURRENT));
    Some(Policy {
        id,
        dir,
        priority: ext.priority.get(),
        icmp: false,
        block: policy_type == PolicyType::DISCARD,
        selector,
        context: Context::of(message).ok().flatten(),
        templates,
        hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
        soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
        usage,
        position: 0,
        inserted: u128::from(usage.add_time) * 1_000_000_000,
    })
}
