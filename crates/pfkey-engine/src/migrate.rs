//! X_MIGRATE: the peers of a policy and of its SAs move to other addresses (af_key's `pfkey_migrate`, `xfrm_migrate`).

use super::Engine;
use super::policy::{Policy, Template};
use super::sa::{Flow, Sa, State, Usage};
use super::sa_request::init_state;
use super::sadb::{Index, Route};
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::migrate::{Migration, Move, migration_header, write_migration};
use pfkey_wire::{Ends, Mode, PolicyDirection};

fn same_source(a: &Move, b: &Move) -> bool {
    (a.proto, a.mode, a.reqid, a.old) == (b.proto, b.mode, b.reqid, b.old)
}

/// `migrate_tmpl_match`.
fn fits_template(one: &Move, template: &Template) -> bool {
    (template.mode, template.proto) == (one.mode, one.proto)
        && (one.reqid == 0 || template.reqid == one.reqid)
        && (template.mode == Mode::TRANSPORT || template.ends == one.old)
}

/// Moves the templates of a policy (`xfrm_policy_migrate`). Returns whether there was one to move.
fn move_templates(policy: &mut Policy, moves: &[Move]) -> bool {
    let mut any = false;
    for template in &mut policy.templates {
        let Some(one) = moves.iter().find(|one| fits_template(one, template)) else { continue };
        any = true;
        if template.mode != Mode::TRANSPORT {
            template.ends = one.new;
        }
    }
    any
}

/// `xfrm_migrate_check`.
fn check(moves: &[Move]) -> Result<(), Errno> {
    for (i, one) in moves.iter().enumerate() {
        let nowhere = one.new.src().is_unspecified() || one.new.dst().is_unspecified();
        if nowhere || moves.iter().skip(i + 1).any(|other| same_source(one, other)) {
            return Err(Errno::EINVAL);
        }
    }
    Ok(())
}

impl Engine {
    /// `pfkey_migrate`. Everything moves or nothing.
    pub(super) fn migrate(&mut self, migration: &Migration, cx: &mut Context<'_>) -> Result<(), Errno> {
        let moves = &migration.moves;
        check(moves)?;
        if migration.dir == PolicyDirection::ANY {
            return Err(Errno::EINVAL);
        }
        let selector = &migration.selector;
        let ends = Ends::new(selector.src.address, selector.dst.address).ok_or(Errno::EINVAL)?;
        let flow = Flow::new(ends, selector.proto, selector.sport, selector.dport);
        let policy = self.spd.lookup(migration.dir, &flow).map(|p| p.id).ok_or(Errno::ENOENT)?;

        let moved = self.moved_sas(moves)?;
        if !self.spd.edit(policy, |policy| move_templates(policy, moves)).unwrap_or(false) {
            return Err(Errno::ENODATA);
        }
        for (index, sa) in moved {
            self.counts.allocated += 1;
            self.sadb.remove(index);
            self.sadb.insert(sa, cx.now.as_secs());
        }
        cx.send(Audience::All, migration_header(migration), |writer| write_migration(writer, migration))
    }

    /// The newest SA of each move (`xfrm_migrate_state_find`), as it will be (`xfrm_state_migrate`).
    fn moved_sas(&self, moves: &[Move]) -> Result<Vec<(Index, Sa)>, Errno> {
        let mut moved: Vec<(Index, Sa)> = Vec::new();
        for one in moves {
            let Some(index) = self.sa_of(one) else { continue };
            let Some(mut sa) = self.sadb.get(index).cloned() else { continue };
            sa.ends = one.new;
            // Linux 7.2 drops an encapsulation that the request does not contain, and PF_KEY's requests contain none.
            sa.encap = None;
            sa.usage = Usage { add_time: sa.usage.add_time, ..Usage::default() };
            let taken = self.sadb.find(&sa.id()).is_some_and(|found| found != index);
            let twice = moved.iter().any(|(_, other)| other.id() == sa.id());
            if init_state(&sa).is_err() || taken || twice {
                return Err(Errno::ENODATA);
            }
            moved.push((index, sa));
        }
        Ok(moved)
    }

    fn sa_of(&self, one: &Move) -> Option<Index> {
        let fits = |sa: &Sa| (sa.mode, sa.proto) == (one.mode, one.proto) && sa.state != State::Dead;
        if one.reqid != 0 {
            let route = Route { ends: one.old, reqid: one.reqid };
            return self.sadb.on_route(route).find(|(_, sa)| fits(sa)).map(|(index, _)| index);
        }
        // Without a reqid any will do.
        self.sadb.select(|sa| fits(sa) && sa.ends == one.old).first().copied()
    }
}
