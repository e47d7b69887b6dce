//! What the kernel tells its listeners, as af_key's notifications.
#![forbid(unsafe_code)]

use super::attribute::{Attributes, Received, split};
use super::layout::{
    UserExpire, UserMapping, UserPolexpire, UserpolicyId, UserpolicyInfo, UsersaId, UsersaInfo, attribute, message,
};
use super::sa::read;
use super::value::ends_from_xfrm;
use super::{EVENT_BUFFER, XfrmEngine, policy};
use crate::afkey::message::{Shown, write_host, write_policy, write_sa};
use crate::afkey::migrate::{migration_header, write_migration};
use crate::afkey::sa::{Sa, SaId, State};
use crate::keyd::{Audience, Context, Errno};
use crate::wire::address::from_xfrm;
use crate::wire::layout::SadbSa;
use crate::wire::{Ends, ExtensionType as Ext, Header, IpsecProtocol, MessageType, SaType};

/// More events than the socket can hold: it is charged 768 bytes at least for each, and Linux doubles its size.
const MOST_EVENTS: usize = 2 * EVENT_BUFFER / 512;

/// The header of a notification: sequence number and process id of the request that caused it, of whatever process.
fn notice(received: &Received<'_>, msg_type: MessageType, satype: SaType) -> Header {
    Header::new(msg_type, satype, received.seq, received.pid)
}

fn spd_notice(received: &Received<'_>, msg_type: MessageType, references: u16) -> Header {
    Header { reserved: references, ..notice(received, msg_type, SaType::UNSPEC) }
}

impl XfrmEngine {
    /// Takes all events that wait.
    pub(super) fn take_events(&mut self, cx: &mut Context<'_>) {
        self.take_events_until(None, cx);
    }

    /// Takes events up to one with this sequence number and process id; without it, or if there is none, all that wait.
    pub(super) fn take_events_until(&mut self, last: Option<(u32, u32)>, cx: &mut Context<'_>) {
        let Some(mut inbox) = self.inbox.take() else { return };
        let (mut lost, mut taken) = (false, 0);
        loop {
            let told = inbox.next(|received| {
                let (mut rest, mut found) = (received, false);
                while let Some((one, next)) = split(rest) {
                    self.tell(&one, cx);
                    found |= last == Some((one.seq, one.pid));
                    rest = next;
                }
                found
            });
            taken += 1;
            match told {
                Ok(Some(true)) => break,
                // What comes faster than it is taken must not hold a request back: what waited when this began was told.
                Ok(Some(false)) if taken > MOST_EVENTS && inbox.is_empty() => break,
                Ok(Some(false)) => {}
                // The kernel had to drop events, and goes on when these are taken.
                Err(Errno::ENOBUFS) => lost = true,
                Ok(None) | Err(_) => break,
            }
        }
        self.inbox = Some(inbox);
        if lost {
            self.overruns += 1;
            self.reqids.forget();
            self.behind = self.complete;
        }
        // If that fails, EXPIREs of SAs that are not known lack their algorithms until it does not.
        if self.behind && self.reconcile().is_ok() {
            self.behind = false;
        }
    }

    /// One event. What PF_KEY cannot show, or does not speak of, is passed over; nobody can be told of an error.
    pub(super) fn tell(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        match event.msg_type {
            message::NEWSA => self.sa_added(event, cx),
            message::UPDSA => self.sa_updated(event, cx),
            message::DELSA => self.sa_deleted(event, cx),
            message::FLUSHSA => self.sas_flushed(event, cx),
            message::EXPIRE => self.sa_expired(event, cx),
            message::ACQUIRE => self.sa_wanted(event, cx),
            message::POLEXPIRE => self.policy_expired(event),
            message::NEWPOLICY => self.policy_added(event, MessageType::X_SPDADD, cx),
            message::UPDPOLICY => self.policy_added(event, MessageType::X_SPDUPDATE, cx),
            message::DELPOLICY => self.policy_deleted(event, cx),
            message::FLUSHPOLICY => {
                if policy::is_main(Attributes(event.body)) {
                    self.shadow.flush_policies();
                    self.gone.policies();
                    cx.send_header(Audience::All, notice(event, MessageType::X_SPDFLUSH, SaType::UNSPEC));
                }
                Some(())
            }
            message::MIGRATE => self.migrated(event, cx),
            message::MAPPING => self.mapping_changed(event, cx),
            _ => None,
        }
    }

    /// Takes what our own request left for its notification.
    fn own(&mut self, event: &Received<'_>, id: &SaId) -> Option<super::Own> {
        let place = self.own.iter().position(|own| (own.id, own.seq, own.pid) == (*id, event.seq, event.pid))?;
        Some(self.own.remove(place))
    }

    fn sa_added(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (info, attributes) = event.fixed::<UsersaInfo>()?;
        self.reqids.saw(info.reqid.get());
        let mut sa = read(&info, attributes, self.extras)?;
        let unused = self.own(event, &sa.id()).and_then(|own| own.unused);
        self.shadow.add(&sa, unused);
        self.shadow.complete(&mut sa, cx.now);
        cx.send(Audience::All, notice(event, MessageType::ADD, sa.satype()), |writer| {
            write_sa(writer, &sa, Shown::Whole)
        })
        .ok()
    }

    fn sa_updated(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (info, attributes) = event.fixed::<UsersaInfo>()?;
        self.reqids.saw(info.reqid.get());
        let mut sa = read(&info, attributes, self.extras)?;
        let own = self.own(event, &sa.id());
        let mature = own.as_ref().map_or_else(|| self.shadow.has(&sa.id()), |own| own.mature);
        if mature {
            // What is told is the request, which was thrown away.
            self.shadow.update(&sa);
            if own.is_none() {
                // The kernel looked at the limits before it told of them: an EXPIRE may have come for the new ones.
                self.shadow.set_dying(&sa.id(), None);
            }
            sa.state = State::Dead;
            if let Some(unused) = own.and_then(|own| own.unused) {
                unused.show(&mut sa);
            }
        } else {
            self.gone.sa(&sa.id());
            self.shadow.add(&sa, own.and_then(|own| own.unused));
            self.shadow.complete(&mut sa, cx.now);
        }
        cx.send(Audience::All, notice(event, MessageType::UPDATE, sa.satype()), |writer| {
            write_sa(writer, &sa, Shown::Whole)
        })
        .ok()
    }

    fn sa_deleted(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (id, attributes) = event.fixed::<UsersaId>()?;
        let mut sa = match attributes.read::<UsersaInfo>(attribute::SA) {
            Some(info) => read(&info, attributes, self.extras)?,
            // Before it told more, the kernel told the name only.
            None => {
                let ends = ends_from_xfrm(&[0; 16], &id.daddr, id.family.get())?;
                Sa::new(ends, id.spi.get(), IpsecProtocol(id.proto), 0)
            }
        };
        self.shadow.complete(&mut sa, cx.now);
        self.shadow.remove(&sa.id());
        self.gone.sa(&sa.id());
        sa.state = State::Dead;
        cx.send(Audience::All, notice(event, MessageType::DELETE, sa.satype()), |writer| {
            write_sa(writer, &sa, Shown::Whole)
        })
        .ok()
    }

    fn sas_flushed(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let proto = IpsecProtocol(*event.body.first()?);
        self.shadow.flush(proto);
        self.gone.sas(proto);
        cx.send_header(Audience::All, notice(event, MessageType::FLUSH, SaType::from_protocol(proto)));
        Some(())
    }

    fn sa_expired(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (expire, _) = event.fixed::<UserExpire>()?;
        let mut sa = read(&expire.state, Attributes(&[]), self.extras)?;
        self.shadow.complete_expired(&mut sa);
        let hard = expire.hard != 0;
        if hard {
            self.shadow.remove(&sa.id());
            self.gone.sa(&sa.id());
            self.shadow.larval_gone(sa.seq);
            sa.state = State::Dead;
        } else {
            self.shadow.set_dying(&sa.id(), Some(true));
            sa.state = State::Dying;
        }
        let header = Header::new(MessageType::EXPIRE, sa.satype(), 0, 0);
        cx.send(Audience::Registered, header, |writer| write_sa(writer, &sa, Shown::Expiry(hard))).ok()
    }

    fn policy_added(&mut self, event: &Received<'_>, msg_type: MessageType, cx: &mut Context<'_>) -> Option<()> {
        let (info, attributes) = event.fixed::<UserpolicyInfo>()?;
        policy::templates(attributes).for_each(|template| self.reqids.saw(template.reqid.get()));
        let mut policy = policy::read(&info, attributes)?;
        self.shadow.policy_inserted(policy.id, cx.now);
        // An update takes over the number, not the place.
        self.gone.policy(policy.id);
        if self.labelled {
            policy.context = self.ask_policy(policy.id).ok().and_then(|told| told.context);
            self.shadow.set_label(policy.id, policy.context.clone());
        }
        cx.send(Audience::All, spd_notice(event, msg_type, 3), |writer| write_policy(writer, &policy)).ok()
    }

    fn policy_deleted(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (id, attributes) = event.fixed::<UserpolicyId>()?;
        let mut policy = policy::read(&attributes.read::<UserpolicyInfo>(attribute::POLICY)?, attributes)?;
        policy.context = self.shadow.take_label(policy.id);
        self.gone.policy(policy.id);
        // By number the kernel says the number only, otherwise the selector only.
        let by_id = id.index.get() != 0;
        let msg_type = if by_id { MessageType::X_SPDDELETE2 } else { MessageType::X_SPDDELETE };
        cx.send(Audience::All, spd_notice(event, msg_type, 1), |writer| write_policy(writer, &policy)).ok()
    }

    /// af_key does not tell of it.
    fn policy_expired(&mut self, event: &Received<'_>) -> Option<()> {
        let (expire, _) = event.fixed::<UserPolexpire>()?;
        if expire.hard != 0 {
            self.shadow.take_label(expire.pol.index.get());
            self.gone.policy(expire.pol.index.get());
        }
        Some(())
    }

    fn migrated(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (id, attributes) = event.fixed::<UserpolicyId>()?;
        let migration = policy::read_migration(&id, attributes)?;
        self.reqids.forget();
        // SAs have other names now, and which ones is not told.
        if self.complete {
            let _ = self.reconcile();
        }
        cx.send(Audience::All, migration_header(&migration), |writer| write_migration(writer, &migration)).ok()
    }

    /// `pfkey_send_new_mapping`.
    fn mapping_changed(&mut self, event: &Received<'_>, cx: &mut Context<'_>) -> Option<()> {
        let (mapping, _) = event.fixed::<UserMapping>()?;
        let (id, family) = (&mapping.id, mapping.id.family.get());
        let (proto, spi) = (IpsecProtocol(id.proto), id.spi);
        let moved = ends_from_xfrm(&mapping.old_saddr, &mapping.new_saddr, family)?;
        if proto != IpsecProtocol::ESP {
            return None;
        }
        let dst = from_xfrm(&id.daddr, family)?;
        let seq = self.stored_seq(&SaId { dst, spi: spi.get(), proto });
        let header = Header::new(MessageType::X_NAT_T_NEW_MAPPING, SaType::ESP, seq, 0);
        cx.send(Audience::Registered, header, |writer| {
            writer.sa(SadbSa { spi, ..Default::default() });
            write_host(writer, Ext::ADDRESS_SRC, moved.src());
            writer.nat_t_port(Ext::X_NAT_T_SPORT, mapping.old_sport.get());
            write_host(writer, Ext::ADDRESS_DST, moved.dst());
            writer.nat_t_port(Ext::X_NAT_T_DPORT, mapping.new_sport.get());
        })
        .ok()
    }

    /// The ends and the protocol of an ACQUIRE's larval; their family is that of the template that asks. And whether that is
    /// PF_KEY's.
    pub(super) fn larval_name(
        acquire: &super::layout::UserAcquire,
        attributes: Attributes<'_>,
    ) -> Option<(Ends, IpsecProtocol, bool)> {
        let wanted = policy::templates(attributes).find(|tmpl| {
            tmpl.id.proto == acquire.id.proto && (tmpl.id.daddr == [0; 16] || tmpl.id.daddr == acquire.id.daddr)
        });
        let family = wanted.map_or(acquire.sel.family, |tmpl| tmpl.family);
        let ours = wanted.is_some_and(|tmpl| tmpl.share == policy::SHARE_TAG);
        let ends = ends_from_xfrm(&acquire.saddr, &acquire.id.daddr, family.get())?;
        Some((ends, IpsecProtocol(acquire.id.proto), ours))
    }
}
