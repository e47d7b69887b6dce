//! Policies and their moves between XFRM's structures and [`Policy`] and [`Migration`].
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, IntoBytes};

use super::attribute::{Attributes, Writer};
use super::layout::{Id, UserKmaddress, UserMigrate, UserTmpl, UserpolicyId, UserpolicyInfo, attribute};
use super::value::{
    family, is_v6, label, limits_from_xfrm, limits_to_xfrm, mode_from_xfrm, mode_to_xfrm, selector_from_xfrm,
    selector_to_xfrm, usage,
};
use crate::afkey::migrate::{Endpoints, Migration, Move};
use crate::afkey::policy::{MAX_TEMPLATES, Policy, Template};
use crate::afkey::sa::{Limits, Selector};
use crate::wire::PolicyMode;

/// Marks the templates that came through PF_KEY (`xfrm_user_tmpl.share`, which the kernel stores and never uses): an
/// ACQUIRE of such a one proposes no algorithms, as AF_KEY's.
pub const SHARE_TAG: u8 = 77;
/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;

/// What an SPDADD or SPDUPDATE asks.
pub struct Wanted<'a> {
    /// Which packets.
    pub selector: &'a Selector,
    /// `sadb_x_policy_dir`, 1 to 3.
    pub dir: u8,
    /// Smaller is stronger.
    pub priority: u32,
    /// Discard.
    pub block: bool,
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
}

/// A policy without its templates.
pub fn userpolicy_info(wanted: &Wanted<'_>) -> UserpolicyInfo {
    UserpolicyInfo {
        sel: selector_to_xfrm(wanted.selector),
        lft: limits_to_xfrm(&wanted.hard, &wanted.soft),
        priority: wanted.priority.into(),
        dir: wanted.dir.wrapping_sub(1),
        action: if wanted.block { BLOCK } else { 0 },
        ..Default::default()
    }
}

/// Writes the templates of a policy of a family.
pub fn write_templates(templates: &[Template], v6: bool, writer: &mut Writer) {
    let mut before = v6;
    let mut list = Vec::new();
    for template in templates {
        let tunnel = PolicyMode(template.mode) == PolicyMode::TUNNEL;
        // XFRM wants a template in transport mode to be of the family of what is inside it; AF_KEY does not look and
        // does not show it.
        let v6 = if PolicyMode(template.mode) == PolicyMode::TRANSPORT { before } else { template.v6 };
        before = v6;
        let address = |address| if tunnel { address } else { [0; 16] };
        list.push(UserTmpl {
            id: Id { daddr: address(template.daddr), proto: template.proto, ..Default::default() },
            family: family(v6).into(),
            saddr: address(template.saddr),
            reqid: template.reqid.into(),
            mode: mode_to_xfrm(template.mode),
            share: SHARE_TAG,
            optional: template.optional.into(),
            // All algorithms. None would make inbound checks fail; AF_KEY has a flag of its own for that.
            aalgos: u32::MAX.into(),
            ealgos: u32::MAX.into(),
            calgos: u32::MAX.into(),
            ..Default::default()
        });
    }
    if !list.is_empty() {
        writer.attribute(attribute::TMPL, &[list.as_bytes()]);
    }
}

/// The templates among attributes.
pub fn templates(attributes: Attributes<'_>) -> impl Iterator<Item = UserTmpl> {
    let bytes = attributes.payload(attribute::TMPL).unwrap_or_default();
    bytes
        .chunks_exact(size_of::<UserTmpl>())
        .filter_map(|bytes| UserTmpl::read_from_bytes(bytes).ok())
        .take(MAX_TEMPLATES)
}

fn template(tmpl: &UserTmpl) -> Option<Template> {
    Some(Template {
        proto: tmpl.id.proto,
        mode: mode_from_xfrm(tmpl.mode)?,
        optional: tmpl.optional != 0,
        reqid: tmpl.reqid.get(),
        v6: is_v6(tmpl.family.get())?,
        saddr: tmpl.saddr,
        daddr: tmpl.id.daddr,
    })
}

/// Whether what is told is about the SPD's own policies (`XFRM_POLICY_TYPE_MAIN`).
pub fn is_main(attributes: Attributes<'_>) -> bool {
    attributes.payload(attribute::POLICY_TYPE).and_then(|payload| payload.first()).is_none_or(|t| *t == 0)
}

/// `XFRM_POLICY_ICMP`.
const ICMP: u8 = 2;

/// A policy as the kernel told it. `None` for one that PF_KEY cannot show.
pub fn read(info: &UserpolicyInfo, attributes: Attributes<'_>) -> Option<Policy> {
    if !is_main(attributes) {
        return None;
    }
    let (hard, soft) = limits_from_xfrm(&info.lft);
    Some(Policy {
        id: info.index.get(),
        dir: info.dir.checked_add(1)?,
        v6: is_v6(info.sel.family.get())?,
        priority: info.priority.get(),
        block: info.action == BLOCK,
        icmp: info.flags & ICMP != 0,
        selector: selector_from_xfrm(&info.sel),
        context: label(attributes),
        templates: templates(attributes).map(|tmpl| template(&tmpl)).collect::<Option<_>>()?,
        hard,
        soft,
        usage: usage(&info.curlft),
        position: 0,
        inserted: 0,
    })
}

/// A policy by its selector.
pub fn by_selector(selector: &Selector, dir: u8) -> UserpolicyId {
    UserpolicyId { sel: selector_to_xfrm(selector), dir: dir.wrapping_sub(1), ..Default::default() }
}

/// A policy by its number, which holds the direction.
pub fn by_id(id: u32) -> UserpolicyId {
    UserpolicyId { index: id.into(), dir: (id & 7) as u8, ..Default::default() }
}

/// Writes the pairs of an X_MIGRATE, all in one attribute.
pub fn write_moves(migration: &Migration, writer: &mut Writer) {
    if let Some(managers) = migration.managers {
        let address = UserKmaddress {
            local: managers.saddr,
            remote: managers.daddr,
            family: family(managers.v6).into(),
            ..Default::default()
        };
        writer.attribute(attribute::KMADDRESS, &[address.as_bytes()]);
    }
    let moves: Vec<UserMigrate> = migration
        .moves
        .iter()
        .map(|one| UserMigrate {
            old_daddr: one.old.daddr,
            old_saddr: one.old.saddr,
            new_daddr: one.new.daddr,
            new_saddr: one.new.saddr,
            proto: one.proto,
            mode: mode_to_xfrm(one.mode),
            reqid: one.reqid.into(),
            old_family: family(one.old.v6).into(),
            new_family: family(one.new.v6).into(),
            ..Default::default()
        })
        .collect();
    writer.attribute(attribute::MIGRATION, &[moves.as_bytes()]);
}

fn read_move(one: &UserMigrate) -> Option<Move> {
    let ends = |family: u16, saddr, daddr| Some(Endpoints { v6: is_v6(family)?, saddr, daddr });
    Some(Move {
        proto: one.proto,
        mode: mode_from_xfrm(one.mode)?,
        reqid: one.reqid.get(),
        old: ends(one.old_family.get(), one.old_saddr, one.old_daddr)?,
        new: ends(one.new_family.get(), one.new_saddr, one.new_daddr)?,
    })
}

/// A move as the kernel told it: one attribute a pair.
pub fn read_migration(id: &UserpolicyId, attributes: Attributes<'_>) -> Option<Migration> {
    if !is_main(attributes) {
        return None;
    }
    let managers = attributes
        .read::<UserKmaddress>(attribute::KMADDRESS)
        .and_then(|k| Some(Endpoints { v6: is_v6(k.family.get())?, saddr: k.local, daddr: k.remote }));
    let moves = attributes
        .filter(|(attr_type, _)| *attr_type == attribute::MIGRATION)
        .flat_map(|(_, payload)| payload.chunks_exact(size_of::<UserMigrate>()))
        .map(|bytes| read_move(&UserMigrate::read_from_bytes(bytes).ok()?))
        .collect::<Option<Vec<_>>>()?;
    Some(Migration {
        dir: id.dir.checked_add(1)?,
        v6: is_v6(id.sel.family.get())?,
        selector: selector_from_xfrm(&id.sel),
        managers,
        moves,
    })
}
