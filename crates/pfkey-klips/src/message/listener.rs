//! ACQUIRE, REGISTER, EXPIRE: what key managers listen for.

use super::super::reply::Reply;
use super::super::supported::supported;
use super::super::{Context, Engine, Request};
use pfkey_hub::Errno;
use pfkey_wire::ExtensionType as Ext;

/// Forwards a key manager's ACQUIRE to those that registered for its SA type. Only one with an errno comes so far: a
/// proposal is not taken.
pub(super) fn acquire(_: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    if cx.sockets.tell_registered(request.header().satype, request.bytes()) {
        Ok(())
    } else {
        Err(Errno::EPROTONOSUPPORT)
    }
}

/// Registers the requester, and lists the algorithms of the SA type to those registered for it.
pub(super) fn register(_: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let satype = request.header().satype;
    cx.sockets.register(satype);
    let list = supported(satype);
    let reply = Reply::to(request.header())
        .supported(Ext::SUPPORTED_AUTH, &list.auth)
        .supported(Ext::SUPPORTED_ENCRYPT, &list.encrypt);
    cx.sockets.tell_registered(satype, &reply.finish()?);
    Ok(())
}

/// Echoes an EXPIRE to everybody. The tables let a program's EXPIRE have no extensions, so a bare header is all there is
/// to echo.
pub(super) fn expire(_: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    cx.sockets.tell_all(request.bytes());
    Ok(())
}
