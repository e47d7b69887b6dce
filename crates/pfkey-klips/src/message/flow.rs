//! X_ADDFLOW and X_DELFLOW: eroutes, and what a tunnel lets in.

use std::net::{IpAddr, Ipv4Addr};

use super::super::eroute::{Bits, Eroute, Selector};
use super::super::number::*;
use super::super::reply::Reply;
use super::super::request::Endpoint;
use super::super::sa::{Identity, InboundFlow};
use super::super::said::Said;
use super::super::{Context, Engine, Released, Request};
use super::protocol_of;
use pfkey_hub::Errno;
use pfkey_wire::ExtensionType as Ext;

/// A flow as a request has it: addresses and masks, each with a port.
struct Flow {
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    src_mask: (Ipv4Addr, u16),
    dst_mask: (Ipv4Addr, u16),
    proto: u8,
}

impl Flow {
    fn read(request: &Request<'_>) -> Result<Self, Errno> {
        let part = |ext| match request.address(ext) {
            Some(Endpoint { ip: IpAddr::V4(ip), port }) => Ok((ip, port)),
            _ => Err(Errno::EINVAL),
        };
        Ok(Self {
            src: part(X_EXT_ADDRESS_SRC_FLOW)?,
            dst: part(X_EXT_ADDRESS_DST_FLOW)?,
            src_mask: part(X_EXT_ADDRESS_SRC_MASK)?,
            dst_mask: part(X_EXT_ADDRESS_DST_MASK)?,
            proto: request.protocol().unwrap_or_default(),
        })
    }

    /// Which packets: a port matters as far as its mask says, the protocol if there is one.
    fn selector(&self) -> Selector {
        let bits = |src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), proto| Bits {
            src: src.0.into(),
            dst: dst.0.into(),
            proto,
            sport: src.1,
            dport: dst.1,
        };
        let proto_mask = if self.proto == 0 { 0 } else { u8::MAX };
        Selector::new(bits(self.src, self.dst, self.proto), bits(self.src_mask, self.dst_mask, proto_mask))
    }

    /// The four addresses of an answer, which has neither ports nor protocol.
    fn show(&self, reply: Reply) -> Reply {
        let parts = [
            (X_EXT_ADDRESS_SRC_FLOW, self.src),
            (X_EXT_ADDRESS_DST_FLOW, self.dst),
            (X_EXT_ADDRESS_SRC_MASK, self.src_mask),
            (X_EXT_ADDRESS_DST_MASK, self.dst_mask),
        ];
        parts
            .into_iter()
            .fold(reply, |reply, (ext, (ip, _))| reply.address(ext, Some(Endpoint { ip: ip.into(), port: 0 })))
    }
}

/// Adds an eroute. With INFLOW: lets a flow in through the tunnel of a group.
pub(super) fn addflow(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let sa = request.sa(Ext::SA).ok_or(Errno::EINVAL)?;
    let dst = request.address(Ext::ADDRESS_DST).ok_or(Errno::EINVAL)?;
    let said = Said { dst: dst.ip, spi: sa.rfc.spi.get(), proto: protocol_of(request.header())? };
    let flow = Flow::read(request)?;
    let asked = sa.rfc.flags.get();
    let reply = flow
        .show(Reply::to(request.header()))
        .sa_as_asked(Ext::SA, &sa)
        .address(Ext::ADDRESS_SRC, request.address(Ext::ADDRESS_SRC))
        .address(Ext::ADDRESS_DST, Some(dst))
        .finish()?;
    if asked & flags::INFLOW != 0 {
        let tunnel = engine.sadb.inwards(&said).find(|sa| sa.said.proto == proto::IPIP).map(|sa| sa.said);
        let tunnel = engine.sadb.get_mut(&tunnel.ok_or(Errno::ENOENT)?).ok_or(Errno::ENOENT)?;
        tunnel.flags |= flags::INFLOW;
        tunnel.flow = Some(InboundFlow {
            src: flow.src.0,
            dst: flow.dst.0,
            src_mask: flow.src_mask.0,
            dst_mask: flow.dst_mask.0,
        });
    } else {
        let selector = flow.selector();
        let replaced = if asked & flags::REPLACEFLOW != 0 { Some(engine.eroutes.remove(&selector)?) } else { None };
        let mut eroute = Eroute::new(said, request.header().pid, cx.now);
        eroute.identity_src = Identity::of_eroute(request, Ext::IDENTITY_SRC);
        eroute.identity_dst = Identity::of_eroute(request, Ext::IDENTITY_DST);
        engine.eroutes.insert(selector, eroute)?;
        let held = replaced.into_iter().flat_map(|old| [old.first, old.last]).flatten();
        engine.released.extend(held.map(Released::Resend));
    }
    cx.sockets.tell_all(&reply);
    Ok(())
}

/// Removes an eroute, or with CLEARFLOW all. What they hold is lost.
pub(super) fn delflow(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let sa = request.sa(Ext::SA).unwrap_or_default();
    let reply = Reply::to(request.header()).sa_as_asked(Ext::SA, &sa);
    let (reply, gone): (Reply, Vec<Eroute>) = if sa.rfc.flags.get() & flags::CLEARFLOW != 0 {
        (reply, engine.eroutes.clear().collect())
    } else {
        let flow = Flow::read(request)?;
        (flow.show(reply), vec![engine.eroutes.remove(&flow.selector())?])
    };
    let held = gone.into_iter().flat_map(|eroute| [eroute.first, eroute.last]).flatten();
    engine.released.extend(held.map(Released::Drop));
    cx.sockets.tell_all(&reply.finish()?);
    Ok(())
}
