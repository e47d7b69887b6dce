//! What packets do to SAs: counters, limits, a peer that moves.

use std::net::Ipv4Addr;

use super::number::*;
use super::reply::Reply;
use super::request::Endpoint;
use super::sa::{Amounts, Sa};
use super::said::Said;
use super::{Context, Engine};
use pfkey_hub::Errno;
use pfkey_wire::{ExtensionType as Ext, Header, MessageType, SaState, SaType};

impl Engine {
    /// Tests an inbound SA's limits and counts a packet for it. False: the packet must not pass.
    pub fn inbound(&mut self, said: &Said, bytes: u64, cx: &mut Context<'_>) -> bool {
        let usable = self.is_usable(said, cx);
        if usable {
            self.count(said, bytes, cx);
        }
        usable
    }

    /// Whether a packet between these two may come out of a tunnel SA: it is of the flow that X_ADDFLOW with INFLOW gave the
    /// SA, or the SA has none.
    #[must_use]
    pub fn lets_in(&self, tunnel: &Said, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        self.sadb.get(tunnel).is_some_and(|sa| sa.flow.is_none_or(|flow| flow.has(src, dst)))
    }

    /// Tells those registered for ESP that the peer of an encapsulated SA has another address or port
    /// (`pfkey_nat_t_new_mapping`). The SA stays as it is until an UPDATE.
    ///
    /// # Errors
    /// EINVAL: no such SA, not ESP, or not encapsulated. EPROTONOSUPPORT: nobody is registered.
    pub fn new_mapping(&mut self, said: &Said, from: Endpoint, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = Header::new(X_NAT_T_NEW_MAPPING, SaType::ESP, self.next_seq(), 0);
        let sa = self.sadb.get(said).filter(|sa| sa.said.proto == proto::ESP && sa.nat_t.encapsulation != 0);
        let sa = sa.ok_or(Errno::EINVAL)?;
        let message = Reply::new(header)
            .bare_sa(sa)
            .address_of(Ext::ADDRESS_SRC, proto::ESP, sa.src)
            .nat_t_port(X_EXT_NAT_T_SPORT, sa.nat_t.sport)
            .address_of(Ext::ADDRESS_DST, proto::ESP, Some(from))
            .nat_t_port(X_EXT_NAT_T_DPORT, from.port)
            .finish()?;
        if cx.sockets.tell_registered(SaType::ESP, &message) { Ok(()) } else { Err(Errno::EPROTONOSUPPORT) }
    }

    /// Whether an SA can take a packet (`ipsec_lifetime_check`). One over a hard limit goes with its group, and everybody
    /// hears of that; of one over a soft limit everybody hears once. Limits are looked at when there is a packet; there
    /// is no timer.
    pub(super) fn is_usable(&mut self, said: &Said, cx: &mut Context<'_>) -> bool {
        let now = cx.now.as_secs();
        let Some(sa) = self.sadb.get(said) else { return false };
        if matches!(sa.state, SaState::LARVAL | SaState::DEAD) {
            return false;
        }
        if over(sa, sa.hard, now) {
            self.tell_expired(said, Ext::LIFETIME_HARD, cx);
            self.sadb.remove(said);
            return false;
        }
        if sa.state != SaState::DYING && over(sa, sa.soft, now) {
            self.tell_expired(said, Ext::LIFETIME_SOFT, cx);
            if let Some(sa) = self.sadb.get_mut(said) {
                sa.state = SaState::DYING;
            }
        }
        true
    }

    /// Counts a packet for an SA.
    pub(super) fn count(&mut self, said: &Said, bytes: u64, cx: &Context<'_>) {
        let Some(sa) = self.sadb.get_mut(said) else { return };
        sa.current.bytes = sa.current.bytes.saturating_add(bytes);
        sa.current.packets = sa.current.packets.saturating_add(1);
        if sa.current.usetime == 0 {
            sa.current.usetime = cx.now.as_secs();
        }
    }

    /// EXPIRE to everybody, with the limit that was passed (`pfkey_expire`).
    fn tell_expired(&mut self, said: &Said, limit: Ext, cx: &mut Context<'_>) {
        let seq = self.next_seq();
        let Some(sa) = self.sadb.get(said) else { return };
        let Some(satype) = satype(said.proto) else { return };
        let limits = if limit == Ext::LIFETIME_HARD { sa.hard } else { sa.soft };
        let reply = Reply::new(Header::new(MessageType::EXPIRE, satype, seq, 0))
            .sa(sa)
            .lifetime(Ext::LIFETIME_CURRENT, sa.current)
            .lifetime(limit, limits)
            .address(Ext::ADDRESS_SRC, sa.src)
            .address(Ext::ADDRESS_DST, Some(sa.dst));
        if let Ok(message) = reply.finish() {
            cx.sockets.tell_all(&message);
        }
    }
}

/// Whether an SA is over one of these limits. The last byte or second that a limit grants is still good. An SA that was
/// never used has no time of use to be over.
fn over(sa: &Sa, limits: Amounts, now: u64) -> bool {
    let used = sa.current;
    let past = |count: u64, limit: u64| limit != 0 && count > limit;
    past(used.bytes, limits.bytes)
        || past(now.saturating_sub(used.addtime), limits.addtime)
        || used.usetime != 0 && past(now.saturating_sub(used.usetime), limits.usetime)
        || past(used.packets.into(), limits.packets.into())
}
