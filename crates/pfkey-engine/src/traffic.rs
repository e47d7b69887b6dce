//! The interface of a data plane: what packets need, and what they used.

use std::net::IpAddr;

use super::Engine;
use super::message::Part;
use super::message::write_host;
use super::resolve::template::Resolution;
use super::sa::{Flow, SaId};
use pfkey_hub::{Audience, Context, Errno, KeyEngine as _, MessageBuffer};
use pfkey_wire::layout::SadbSa;
use pfkey_wire::{ExtensionType as Ext, Header, MessageType, Mode, SaType, Writer};

/// What to do with an outbound packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// No policy, or one of type none: let it pass.
    Pass,
    /// Apply these SAs in order, each in its mode.
    Apply(Vec<(SaId, Mode)>),
    /// An SA is missing; key managers were asked, if there are any. Hold or drop the packet.
    Wait,
}

/// Why a packet must not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// The policy discards the packet (EPERM).
    #[error("the policy discards the packet")]
    Discarded,
    /// There is no such SA, or it takes no packets (EINVAL).
    #[error("no such SA, or it is over its limit")]
    NoSa,
    /// The policy has more templates than can be applied (ENOBUFS).
    #[error("the policy asks for more SAs than can be applied")]
    TooManyTemplates,
}

impl TrafficError {
    /// What `sendto` would say.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Discarded => Errno::EPERM,
            Self::NoSa => Errno::EINVAL,
            Self::TooManyTemplates => Errno::ENOBUFS,
        }
    }
}

impl Engine {
    /// Counts packets and their bytes for an SA. Its limits are checked once, before that, as Linux checks them before each
    /// packet (`xfrm_state_check_expire`). An EXPIRE is sent where one is reached.
    ///
    /// # Errors
    /// The SA does not exist, is no longer valid, or has reached its hard limit; the packets must not pass.
    pub fn count_traffic(
        &mut self,
        id: &SaId,
        packets: u64,
        bytes: u64,
        cx: &mut Context<'_>,
    ) -> Result<(), TrafficError> {
        self.advance(cx);
        let index = self.sadb.find(id).ok_or(TrafficError::NoSa)?;
        if self.sadb.get(index).is_none_or(|sa| !sa.state.is_valid()) {
            return Err(TrafficError::NoSa);
        }
        self.sadb.touch(index, cx.now.as_secs());
        if !self.check_volume(index, cx) {
            return Err(TrafficError::NoSa);
        }
        self.sadb.count(index, packets, bytes);
        Ok(())
    }

    /// What to do with an outbound packet (`xfrm_tmpl_resolve_one`). For a missing SA an ACQUIRE is sent. The engine
    /// knows no routes: a tunnel template without a source takes the flow's.
    ///
    /// # Errors
    /// The policy discards the packet, or asks for more SAs than Linux would apply.
    pub fn outbound(&mut self, flow: &Flow, cx: &mut Context<'_>) -> Result<Outbound, TrafficError> {
        self.advance(cx);
        let found = self.policies_for(flow, |matched, policies| (matched, self.resolve(policies, flow, None)));
        let Some((matched, resolution)) = found else { return Ok(Outbound::Pass) };
        let (resolution, wanted) = resolution.map_err(|_| TrafficError::TooManyTemplates)?;
        self.ask_for(&wanted, flow, cx);
        if !matches!(resolution, Resolution::Wait) {
            self.touch(&matched, cx.now);
        }
        match resolution {
            Resolution::Pass { .. } => Ok(Outbound::Pass),
            Resolution::Block => Err(TrafficError::Discarded),
            Resolution::Wait => Ok(Outbound::Wait),
            Resolution::Apply { links, .. } => {
                Ok(Outbound::Apply(links.iter().map(|link| (link.id, link.mode)).collect()))
            }
        }
    }

    /// Reports to key managers that a NAT-T peer moved to another address or port
    /// (`pfkey_send_new_mapping`). The caller repeats it for every packet until an UPDATE.
    ///
    /// # Errors
    /// There is no such SA, or it is not encapsulated.
    pub fn new_mapping(
        &mut self,
        id: &SaId,
        new_addr: IpAddr,
        new_port: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), TrafficError> {
        let index = self.sadb.find(id).ok_or(TrafficError::NoSa)?;
        let Some(sa) = self.sadb.get(index) else { return Err(TrafficError::NoSa) };
        let (encap, old, seq) = (sa.encap.ok_or(TrafficError::NoSa)?, sa.ends.src(), sa.seq);
        let header = Header::new(MessageType::X_NAT_T_NEW_MAPPING, SaType::ESP, seq, 0);
        let _ = cx.send(Audience::Registered, header, |writer| {
            writer.sa(SadbSa { spi: id.spi.into(), ..Default::default() });
            write_host(writer, Ext::ADDRESS_SRC, old);
            writer.nat_t_port(Ext::X_NAT_T_SPORT, encap.sport);
            write_host(writer, Ext::ADDRESS_DST, new_addr);
            writer.nat_t_port(Ext::X_NAT_T_DPORT, new_port);
            sa.attached.xfrm.scope().write(writer);
        });
        Ok(())
    }

    /// The message that a GET would get, without keys, for the program that embeds the engine.
    #[must_use]
    pub fn describe(&self, id: &SaId) -> Option<Vec<u8>> {
        let sa = self.sadb.get(self.sadb.find(id)?)?;
        let header = Header::new(MessageType::GET, sa.satype(), 0, 0);
        let write = |writer: &mut Writer<'_>| self.write_sa(writer, sa, Part::WithoutKeys);
        MessageBuffer::default().write(header, write, <[u8]>::to_vec).ok()
    }
}
