//! The kernel's events: applied to what the engine remembers, and sent to clients as af_key's notifications.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::event::{Event, Mapping, Origin};
use super::{EVENT_BUFFER, XfrmEngine};
use crate::layout::UsersaInfo;
use crate::sa::read;
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::message::{Part, write_host, write_policy, write_sa};
use pfkey_model::migrate::{migration_header, write_migration};
use pfkey_model::policy::Policy;
use pfkey_model::request::PolicyId;
use pfkey_model::sa::{Sa, SaId, State};
use pfkey_wire::layout::SadbSa;
use pfkey_wire::{ExtensionType as Ext, Header, MessageType, SaType};

/// More events than the socket can hold: it is charged 768 bytes at least for each, and Linux doubles its size.
const MOST_EVENTS: usize = 2 * EVENT_BUFFER / 512;

/// Events of so long a time find room in the socket, whoever causes them.
const FRESH: Duration = Duration::from_millis(5);

/// The header of a notification.
const fn notice(origin: Origin, msg_type: MessageType, satype: SaType) -> Header {
    Header::new(msg_type, satype, origin.seq, origin.pid)
}

fn spd_notice(origin: Origin, msg_type: MessageType, references: u16) -> Header {
    Header { reserved: references, ..notice(origin, msg_type, SaType::UNSPEC) }
}

impl XfrmEngine {
    /// Takes all events that wait.
    pub(super) fn take_events(&mut self, cx: &mut Context<'_>) {
        self.looked = Some(cx.now);
        self.take_events_until(None, cx);
    }

    /// Makes room for the notification of a change that is about to be made. Into a socket that is full the kernel puts none, and
    /// whoever asked for the change would wait for it in vain.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>) {
        if !self.looked.is_some_and(|at| (at..at + FRESH).contains(&cx.now)) {
            self.take_events(cx);
        }
    }

    /// Takes events up to one with this origin; without it, or if there is none, all that wait.
    pub(super) fn take_events_until(&mut self, last: Option<Origin>, cx: &mut Context<'_>) {
        let (mut lost, mut taken) = (false, 0);
        loop {
            let extras = self.extras;
            let next = self.inbox.next(|received| (Origin::of(received), Event::decode(received, extras)));
            taken += 1;
            match next {
                Ok(Some((origin, event))) => {
                    if let Some(event) = event {
                        // It was no request: nobody would receive the error.
                        let _ = self.apply(origin, event, cx);
                    }
                    if last == Some(origin) {
                        break;
                    }
                }
                // The kernel dropped events. It continues when these are taken.
                Err(Errno::ENOBUFS) => lost = true,
                Err(Errno::EPROTO) => {}
                Ok(None) | Err(_) => break,
            }
            // Events may come faster than they are taken, and requests must not wait for them. All events that waited when
            // this began were taken.
            if taken > MOST_EVENTS && self.inbox.is_empty() {
                self.inbox.look_again();
                break;
            }
        }
        if lost {
            self.overruns += 1;
            self.reqids.forget();
            self.shadow.doubt();
            if self.complete {
                self.behind = true;
            } else {
                // SAs that went unseen would be remembered for ever, and nobody is told of an EXPIRE.
                self.shadow.forget_all();
            }
        }
        // Until that succeeds, EXPIREs of unknown SAs lack their algorithms.
        if self.behind {
            self.catch_up();
        }
    }

    /// Makes the shadow what the kernel has; if that fails, it is repeated with the next events.
    pub(super) fn catch_up(&mut self) {
        self.behind = self.as_itself(Self::reconcile).is_err();
    }

    /// Applies an event and notifies clients.
    pub(super) fn apply(&mut self, origin: Origin, event: Event, cx: &mut Context<'_>) -> Result<(), Errno> {
        match event {
            Event::SaAdded(sa) => self.sa_added(origin, sa, cx),
            Event::SaUpdated(sa) => self.sa_updated(origin, sa, cx),
            Event::SaDeleted(sa) => self.sa_deleted(origin, sa, cx),
            Event::SasFlushed(proto) => {
                self.shadow.flush(proto);
                self.removals.note_flush(proto);
                let header = notice(origin, MessageType::FLUSH, SaType::from_protocol(proto));
                cx.send_header(Audience::All, header);
                Ok(())
            }
            Event::SaExpired { sa, hard } => self.sa_expired(sa, hard, cx),
            Event::SaWanted(acquire) => self.sa_wanted(&acquire, cx),
            Event::MappingChanged(mapping) => self.mapping_changed(&mapping, cx),
            Event::PolicyAdded(policy) => self.policy_added(spd_notice(origin, MessageType::X_SPDADD, 3), policy, cx),
            Event::PolicyUpdated(policy) => {
                self.policy_added(spd_notice(origin, MessageType::X_SPDUPDATE, 3), policy, cx)
            }
            Event::PolicyDeleted { policy, by_id } => self.policy_deleted(origin, policy, by_id, cx),
            Event::PolicyExpired { id, hard } => {
                // af_key sends no message.
                if hard {
                    self.shadow.take_label(id);
                    self.removals.note_policy(id);
                }
                Ok(())
            }
            Event::PoliciesFlushed => {
                self.shadow.flush_policies();
                self.removals.note_policy_flush();
                cx.send_header(Audience::All, notice(origin, MessageType::X_SPDFLUSH, SaType::UNSPEC));
                Ok(())
            }
            Event::Migrated(migration) => {
                self.sas_moved();
                cx.send(Audience::All, migration_header(&migration), |writer| write_migration(writer, &migration))
            }
            Event::MigratedUnshowable => {
                self.sas_moved();
                Ok(())
            }
            Event::SaMoved { old, new, reqid } => {
                // af_key sends no message.
                self.reqids.saw(reqid);
                self.sa_moved(&old, &new);
                Ok(())
            }
            Event::Unshowable(reqids) => {
                reqids.into_iter().for_each(|reqid| self.reqids.saw(reqid));
                Ok(())
            }
        }
    }

    fn sa_added(&mut self, origin: Origin, mut sa: Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.reqids.saw(sa.reqid);
        let unused = self.changes.notified(origin, &sa.id()).and_then(|own| own.unused);
        self.shadow.add(&sa, unused);
        self.shadow.complete(&mut sa, cx.now);
        cx.send(Audience::All, notice(origin, MessageType::ADD, sa.satype()), |writer| {
            write_sa(writer, &sa, Part::Whole)
        })
    }

    fn sa_updated(&mut self, origin: Origin, mut sa: Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.reqids.saw(sa.reqid);
        let own = self.changes.notified(origin, &sa.id());
        let mature = own.as_ref().map_or_else(|| self.shadow.has(&sa.id()), |own| own.mature);
        if mature {
            // AF_KEY shows the SA of the request, which it has discarded.
            self.shadow.update(&sa);
            if own.is_none() {
                // The kernel checked the new limits before this notification. Their EXPIRE may have come first.
                self.shadow.set_dying(&sa.id(), None);
            }
            sa.state = State::Dead;
            if let Some(unused) = own.and_then(|own| own.unused) {
                unused.add_to(&mut sa);
            }
        } else {
            self.removals.note_sa(&sa.id());
            self.shadow.add(&sa, own.and_then(|own| own.unused));
            self.shadow.complete(&mut sa, cx.now);
        }
        cx.send(Audience::All, notice(origin, MessageType::UPDATE, sa.satype()), |writer| {
            write_sa(writer, &sa, Part::Whole)
        })
    }

    fn sa_deleted(&mut self, origin: Origin, mut sa: Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.shadow.complete(&mut sa, cx.now);
        self.shadow.remove(&sa.id());
        self.removals.note_sa(&sa.id());
        if self.given_up == Some(sa.id()) {
            // af_key says nothing of it.
            return Ok(());
        }
        sa.state = State::Dead;
        cx.send(Audience::All, notice(origin, MessageType::DELETE, sa.satype()), |writer| {
            write_sa(writer, &sa, Part::Whole)
        })
    }

    fn sa_expired(&mut self, mut sa: Sa, hard: bool, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.shadow.complete_expired(&mut sa);
        if hard {
            self.shadow.remove(&sa.id());
            self.removals.note_sa(&sa.id());
            self.shadow.larval_ended(&sa);
            sa.state = State::Dead;
        } else {
            self.shadow.set_dying(&sa.id(), Some(true));
            sa.state = State::Dying;
        }
        let header = Header::new(MessageType::EXPIRE, sa.satype(), 0, 0);
        cx.send(Audience::Registered, header, |writer| write_sa(writer, &sa, Part::expired(hard)))
    }

    fn policy_added(&mut self, header: Header, mut policy: Policy, cx: &mut Context<'_>) -> Result<(), Errno> {
        policy.templates.iter().for_each(|template| self.reqids.saw(template.reqid));
        self.shadow.policy_inserted(policy.id, cx.now);
        // An update keeps the number, not the position.
        self.removals.note_policy(policy.id);
        if self.labelled {
            let id = PolicyId::of(&policy);
            let asked = self.as_itself(|engine| engine.ask_policy(id));
            policy.attached.label = asked.ok().and_then(|asked| asked.attached.label);
            self.shadow.set_label(policy.id, policy.attached.label.clone());
        }
        self.tell_policy(header, &policy, cx)
    }

    /// Those of type sub are for sessions that are shown what XFRM has beyond PF_KEY.
    fn tell_policy(&self, header: Header, policy: &Policy, cx: &mut Context<'_>) -> Result<(), Errno> {
        if policy.attached.xfrm.is_sub() && !cx.buffer.shows_xfrm() {
            return Ok(());
        }
        cx.send(Audience::All, header, |writer| write_policy(writer, policy))
    }

    fn policy_deleted(
        &mut self,
        origin: Origin,
        mut policy: Policy,
        by_id: bool,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        policy.attached.label = self.shadow.take_label(policy.id);
        self.removals.note_policy(policy.id);
        let msg_type = if by_id { MessageType::X_SPDDELETE2 } else { MessageType::X_SPDDELETE };
        self.tell_policy(spd_notice(origin, msg_type, 1), &policy, cx)
    }

    /// SAs have other names now, which the event does not contain.
    fn sas_moved(&mut self) {
        self.reqids.forget();
        if self.complete {
            self.catch_up();
        } else {
            self.shadow.forget_all();
        }
    }

    /// The event has little of the SA, and the kernel is asked for it.
    fn sa_moved(&mut self, old: &SaId, new: &SaId) {
        self.removals.note_sa(old);
        let known = self.shadow.take(old);
        if !self.complete && known.is_none() {
            return;
        }
        let extras = self.extras;
        let moved = self.as_itself(|engine| {
            engine.ask(new).ok()?;
            let (info, attributes) = engine.requests.answer()?.fixed::<UsersaInfo>()?;
            read(info, attributes, extras)
        });
        if let Some(sa) = moved {
            self.shadow.carry_over(known, &sa);
        }
    }

    /// `pfkey_send_new_mapping`.
    fn mapping_changed(&mut self, mapping: &Mapping, cx: &mut Context<'_>) -> Result<(), Errno> {
        // The event does not name the mark.
        let id = self.shadow.like(&mapping.id);
        let (seq, scope) = self.as_itself(|engine| engine.stored(&id));
        let header = Header::new(MessageType::X_NAT_T_NEW_MAPPING, SaType::ESP, seq, 0);
        cx.send(Audience::Registered, header, |writer| {
            writer.sa(SadbSa { spi: mapping.id.spi.into(), ..Default::default() });
            write_host(writer, Ext::ADDRESS_SRC, mapping.moved.src());
            writer.nat_t_port(Ext::X_NAT_T_SPORT, mapping.old_port);
            write_host(writer, Ext::ADDRESS_DST, mapping.moved.dst());
            writer.nat_t_port(Ext::X_NAT_T_DPORT, mapping.new_port);
            scope.write(writer);
        })
    }
}
