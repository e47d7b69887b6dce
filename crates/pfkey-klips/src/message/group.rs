//! X_GRPSA: groups of SAs.

use super::super::number::*;
use super::super::reply::Reply;
use super::super::said::Said;
use super::super::{Context, Engine, Request};
use super::protocol_of;
use pfkey_hub::Errno;
use pfkey_wire::ExtensionType as Ext;

/// Links an SA to the next one outwards, or takes the group of one apart.
pub(super) fn grpsa(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let sa = request.sa(Ext::SA).ok_or(Errno::EINVAL)?;
    let dst = request.address(Ext::ADDRESS_DST).ok_or(Errno::EINVAL)?;
    let first = Said { dst: dst.ip, spi: sa.rfc.spi.get(), proto: protocol_of(request.header())? };
    let reply = Reply::to(request.header()).sa_as_asked(Ext::SA, &sa).address(Ext::ADDRESS_DST, Some(dst));
    let known = engine.sadb.get(&first).is_some();
    let asks_for_second = [X_EXT_SATYPE2, X_EXT_SA2, X_EXT_ADDRESS_DST2].iter().any(|ext| request.has(*ext));
    let reply = match (request.satype2(), request.sa(X_EXT_SA2), request.address(X_EXT_ADDRESS_DST2)) {
        _ if !known => return Err(Errno::ENOENT),
        _ if !asks_for_second => {
            engine.sadb.unlink(&first);
            reply
        }
        (Some(satype2), Some(sa2), Some(dst2)) => {
            let proto = protocol(satype2).ok_or(Errno::EINVAL)?;
            engine.sadb.link(&first, &Said { dst: dst2.ip, spi: sa2.rfc.spi.get(), proto })?;
            reply.second(satype2, &sa2).address(X_EXT_ADDRESS_DST2, Some(dst2))
        }
        // Half a name is no SA's.
        _ => return Err(Errno::ENOENT),
    };
    cx.sockets.tell_all(&reply.finish()?);
    Ok(())
}
