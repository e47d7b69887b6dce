//! Policies and their moves between XFRM's structures and [`Policy`], [`PolicyView`] and [`Migration`].
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, IntoBytes};

use super::attached;
use super::attribute::{Attributes, Writer};
use super::layout::{Id, UserKmaddress, UserMigrate, UserTmpl, UserpolicyId, UserpolicyInfo, attribute};
use super::value::{
    ends_from_xfrm, limits_from_xfrm, limits_to_xfrm, mode_from_xfrm, mode_to_xfrm, selector_from_xfrm,
    selector_to_xfrm, usage,
};
use pfkey_model::migrate::{Migration, Move};
use pfkey_model::policy::{MAX_TEMPLATES, Policy, Template};
use pfkey_model::sa::Selector;
use pfkey_model::view::{PolicyView, Templates};
use pfkey_model::xfrm::XfrmView;
use pfkey_wire::address::{family, to_xfrm, unspecified};
use pfkey_wire::xfrm::{OPTION_PARTIAL, OPTION_PROPOSE};
use pfkey_wire::{IpsecProtocol, Mode, PolicyDirection};

/// Marks the templates that came through PF_KEY (`xfrm_user_tmpl.share`, which the kernel stores and never uses): an
/// ACQUIRE of such a one proposes no algorithms, as AF_KEY's.
pub const SHARE_TAG: u8 = 77;
/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;

/// `XFRM_POLICY_*`, counted from 0.
const fn dir_to_xfrm(dir: PolicyDirection) -> u8 {
    dir.0.wrapping_sub(1)
}

/// A policy without its templates.
pub fn userpolicy_info(policy: &Policy) -> UserpolicyInfo {
    UserpolicyInfo {
        sel: selector_to_xfrm(&policy.selector, policy.attached.xfrm.device()),
        lft: limits_to_xfrm(&policy.hard, &policy.soft),
        priority: policy.priority.into(),
        dir: dir_to_xfrm(policy.dir),
        action: if policy.block { BLOCK } else { 0 },
        flags: policy.attached.xfrm.flags(),
        ..Default::default()
    }
}

/// Writes the templates of a policy for packets of its family.
pub fn write_templates(policy: &Policy, writer: &mut Writer) {
    let mut before = unspecified(policy.selector.src.address);
    let share = if policy.attached.xfrm.options() & OPTION_PROPOSE != 0 { 0 } else { SHARE_TAG };
    let mut list = Vec::new();
    for template in &policy.templates {
        // XFRM wants a template in transport mode to be of the family of what is inside it; AF_KEY does not look and
        // does not show it.
        if template.mode != Mode::TRANSPORT {
            before = template.ends.dst();
        }
        let address = |address| if template.mode == Mode::TUNNEL { to_xfrm(address) } else { [0; 16] };
        list.push(UserTmpl {
            id: Id { daddr: address(template.ends.dst()), proto: template.proto.0, ..Default::default() },
            family: family(before).into(),
            saddr: address(template.ends.src()),
            reqid: template.reqid.into(),
            mode: mode_to_xfrm(template.mode, policy.attached.xfrm.mode()),
            share,
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

/// A template, and what is in the place of tunnel mode.
fn template(tmpl: &UserTmpl) -> Option<(Template, Option<u8>)> {
    let (mode, in_place_of_tunnel) = mode_from_xfrm(tmpl.mode)?;
    let template = Template {
        proto: IpsecProtocol(tmpl.id.proto),
        mode,
        optional: tmpl.optional != 0,
        reqid: tmpl.reqid.get(),
        ends: ends_from_xfrm(&tmpl.saddr, &tmpl.id.daddr, tmpl.family.get())?,
    };
    Some((template, in_place_of_tunnel))
}

/// Whether a message is about the SPD's own policies (`XFRM_POLICY_TYPE_MAIN`).
pub fn is_main(attributes: Attributes<'_>) -> bool {
    attributes.payload(attribute::POLICY_TYPE).and_then(|payload| payload.first()).is_none_or(|t| *t == 0)
}

/// `XFRM_POLICY_ICMP`.
const ICMP: u8 = 2;

/// A policy that the kernel reports. `None` for one that PF_KEY cannot show; those of type sub are for sessions that are shown
/// what XFRM has beyond it.
pub fn view<'a>(info: &UserpolicyInfo, attributes: Attributes<'a>) -> Option<PolicyView<'a>> {
    let (hard, soft) = limits_from_xfrm(&info.lft);
    let mut list = Templates::default();
    let (mut ours, mut theirs, mut partial) = (false, false, is_partial(info));
    let mut tunnels = None;
    for (place, tmpl) in list.iter_mut().zip(templates(attributes)) {
        let (template, in_place_of_tunnel) = template(&tmpl)?;
        if template.mode == Mode::TUNNEL {
            // One attribute speaks of all tunnels.
            partial |= tunnels.is_some_and(|before| before != in_place_of_tunnel);
            tunnels.get_or_insert(in_place_of_tunnel);
        }
        *place = Some(template);
        (ours, theirs) = (ours || tmpl.share == SHARE_TAG, theirs || tmpl.share == 0);
        partial |= !matches!(tmpl.share, 0 | SHARE_TAG) || is_partial_template(&tmpl);
    }
    partial |= ours && theirs;
    let option = |is: bool, option: u8| if is { option } else { 0 };
    Some(PolicyView {
        id: info.index.get(),
        dir: PolicyDirection(info.dir.checked_add(1)?),
        priority: info.priority.get(),
        block: info.action == BLOCK,
        icmp: info.flags & ICMP != 0,
        selector: selector_from_xfrm(&info.sel)?,
        attached: attached::view(XfrmView {
            flags: info.flags,
            options: option(theirs, OPTION_PROPOSE) | option(partial, OPTION_PARTIAL),
            device: info.sel.ifindex.get(),
            mode: tunnels.flatten(),
            attributes,
            ..XfrmView::default()
        }),
        templates: list,
        hard,
        soft,
        usage: usage(&info.curlft),
    })
}

/// Whether PF_KEY cannot say all of a policy: a user, ports by mask.
fn is_partial(info: &UserpolicyInfo) -> bool {
    let sel = &info.sel;
    let is_plain = |port: u16, mask: u16| mask == if port == 0 { 0 } else { u16::MAX };
    let ports = is_plain(sel.sport.get(), sel.sport_mask.get()) && is_plain(sel.dport.get(), sel.dport_mask.get());
    !ports || (sel.user.get(), info.share) != (0, 0)
}

/// Whether PF_KEY cannot say all of a template: an SPI, some algorithms only.
fn is_partial_template(tmpl: &UserTmpl) -> bool {
    let all = u32::MAX;
    tmpl.id.spi.get() != 0 || (tmpl.aalgos.get(), tmpl.ealgos.get(), tmpl.calgos.get()) != (all, all, all)
}

/// [`view`], as a copy.
pub fn read(info: &UserpolicyInfo, attributes: Attributes<'_>) -> Option<Policy> {
    view(info, attributes).map(|view| Policy::from(&view))
}

/// A policy by its selector.
pub fn by_selector(selector: &Selector, device: u32, dir: PolicyDirection) -> UserpolicyId {
    UserpolicyId { sel: selector_to_xfrm(selector, device), dir: dir_to_xfrm(dir), ..Default::default() }
}

/// A policy by its number, which holds the direction.
pub fn by_id(id: u32) -> UserpolicyId {
    UserpolicyId { index: id.into(), dir: (id & 7) as u8, ..Default::default() }
}

/// Writes the pairs of an X_MIGRATE, all in one attribute.
pub fn write_moves(migration: &Migration, writer: &mut Writer) {
    if let Some(managers) = migration.managers {
        let address = UserKmaddress {
            local: to_xfrm(managers.src()),
            remote: to_xfrm(managers.dst()),
            family: family(managers.dst()).into(),
            ..Default::default()
        };
        writer.attribute(attribute::KMADDRESS, &[address.as_bytes()]);
    }
    let moves: Vec<UserMigrate> = migration
        .moves
        .iter()
        .map(|one| UserMigrate {
            old_daddr: to_xfrm(one.old.dst()),
            old_saddr: to_xfrm(one.old.src()),
            new_daddr: to_xfrm(one.new.dst()),
            new_saddr: to_xfrm(one.new.src()),
            proto: one.proto.0,
            mode: mode_to_xfrm(one.mode, None),
            reqid: one.reqid.into(),
            old_family: family(one.old.dst()).into(),
            new_family: family(one.new.dst()).into(),
            ..Default::default()
        })
        .collect();
    writer.attribute(attribute::MIGRATION, &[moves.as_bytes()]);
}

fn read_move(one: &UserMigrate) -> Option<Move> {
    Some(Move {
        proto: IpsecProtocol(one.proto),
        mode: mode_from_xfrm(one.mode)?.0,
        reqid: one.reqid.get(),
        old: ends_from_xfrm(&one.old_saddr, &one.old_daddr, one.old_family.get())?,
        new: ends_from_xfrm(&one.new_saddr, &one.new_daddr, one.new_family.get())?,
    })
}

/// A move that the kernel reports: one attribute a pair.
pub fn read_migration(id: &UserpolicyId, attributes: Attributes<'_>) -> Option<Migration> {
    if !is_main(attributes) {
        return None;
    }
    let managers = attributes
        .read::<UserKmaddress>(attribute::KMADDRESS)
        .and_then(|k| ends_from_xfrm(&k.local, &k.remote, k.family.get()));
    let moves = attributes
        .filter(|(attr_type, _)| *attr_type == attribute::MIGRATION)
        .flat_map(|(_, payload)| payload.chunks_exact(size_of::<UserMigrate>()))
        .map(|bytes| read_move(&UserMigrate::read_from_bytes(bytes).ok()?))
        .collect::<Option<Vec<_>>>()?;
    Some(Migration {
        dir: PolicyDirection(id.dir.checked_add(1)?),
        selector: selector_from_xfrm(&id.sel)?,
        managers,
        moves,
    })
}
