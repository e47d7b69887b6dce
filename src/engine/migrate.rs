//! X_MIGRATE: the peers of a policy and of its SAs move to other addresses (af_key's `pfkey_migrate`, `xfrm_migrate`).

use super::Engine;
use super::policy::Template;
use super::resolve::policy_index::FlowKey;
use super::sa::{Sa, Selector, State, Usage};
use super::sa_request::init_state;
use super::sadb::{Index, Route};
use crate::afkey::migrate::{Move, migration_header, read_migration, write_migration};
use crate::keyd::{Audience, Context, Errno};
use crate::wire::{Message, PolicyMode};

fn same_source(a: &Move, b: &Move) -> bool {
    (a.proto, a.mode, a.reqid, a.old) == (b.proto, b.mode, b.reqid, b.old)
}

/// `migrate_tmpl_match`.
fn fits_template(one: &Move, template: &Template) -> bool {
    let transport = PolicyMode(template.mode) == PolicyMode::TRANSPORT;
    (template.mode, template.proto) == (one.mode, one.proto)
        && (one.reqid == 0 || template.reqid == one.reqid)
        && (transport || (template.saddr, template.daddr) == (one.old.saddr, one.old.daddr))
}

/// `xfrm_migrate_check`.
fn check(moves: &[Move]) -> Result<(), Errno> {
    for (i, one) in moves.iter().enumerate() {
        let nowhere = one.new.saddr == [0; 16] || one.new.daddr == [0; 16];
        if nowhere || moves.iter().skip(i + 1).any(|other| same_source(one, other)) {
            return Err(Errno::EINVAL);
        }
    }
    Ok(())
}

impl Engine {
    /// `pfkey_migrate`. Everything moves or nothing.
    pub(super) fn migrate(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let migration = read_migration(request)?;
        let moves = &migration.moves;
        check(moves)?;
        if migration.dir == 0 {
            return Err(Errno::EINVAL);
        }
        let Selector { saddr, daddr, proto, .. } = migration.selector;
        let flow = FlowKey { v6: migration.v6, saddr, daddr, proto, sport: 0, dport: 0 };
        let policy = self.spd.lookup(migration.dir, &flow).map(|p| p.id).ok_or(Errno::ENOENT)?;

        let moved = self.moved_sas(moves)?;
        let mut any = false;
        for template in self.spd.templates_mut(policy) {
            let Some(one) = moves.iter().find(|one| fits_template(one, template)) else { continue };
            any = true;
            if PolicyMode(template.mode) != PolicyMode::TRANSPORT {
                (template.v6, template.saddr, template.daddr) = (one.new.v6, one.new.saddr, one.new.daddr);
            }
        }
        if !any {
            return Err(Errno::ENODATA);
        }
        for (index, sa) in moved {
            self.counts.allocated += 1;
            self.sadb.remove(index);
            let timer = sa.next_check(cx.now.as_secs());
            self.sadb.insert(sa, timer);
        }
        cx.send(Audience::All, migration_header(&migration), |writer| write_migration(writer, &migration))
    }

    /// The newest SA of each move (`xfrm_migrate_state_find`), as it will be (`xfrm_state_migrate`).
    fn moved_sas(&self, moves: &[Move]) -> Result<Vec<(Index, Sa)>, Errno> {
        let mut moved: Vec<(Index, Sa)> = Vec::new();
        for one in moves {
            let Some(index) = self.sa_of(one) else { continue };
            let Some(mut sa) = self.sadb.get(index).cloned() else { continue };
            sa.said.v6 = one.new.v6;
            sa.said.daddr = one.new.daddr;
            sa.saddr = one.new.saddr;
            // Linux 7.2 keeps an encapsulation only where the request gives one, which PF_KEY's cannot.
            sa.encap = None;
            sa.usage = Usage { add_time: sa.usage.add_time, ..Usage::default() };
            let taken = self.sadb.find(&sa.said).is_some_and(|found| found != index);
            let twice = moved.iter().any(|(_, other)| other.said == sa.said);
            if init_state(&sa).is_err() || taken || twice {
                return Err(Errno::ENODATA);
            }
            moved.push((index, sa));
        }
        Ok(moved)
    }

    fn sa_of(&self, one: &Move) -> Option<Index> {
        let fits = |sa: &Sa| (sa.mode, sa.said.proto) == (one.mode, one.proto) && sa.state != State::Dead;
        if one.reqid != 0 {
            let route = Route { daddr: one.old.daddr, saddr: one.old.saddr, reqid: one.reqid, v6: one.old.v6 };
            return self.sadb.on_route(route).find(|(_, sa)| fits(sa)).map(|(index, _)| index);
        }
        // Without a reqid any will do.
        let here = |sa: &Sa| (sa.said.v6, sa.saddr, sa.said.daddr) == (one.old.v6, one.old.saddr, one.old.daddr);
        self.sadb.select(|sa| fits(sa) && here(sa)).first().copied()
    }
}
