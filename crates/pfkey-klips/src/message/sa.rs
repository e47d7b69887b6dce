//! UPDATE, ADD, DELETE, GET, FLUSH.

use super::super::number::protocol;
use super::super::reply::Reply;
use super::super::request::Endpoint;
use super::super::sa::Sa;
use super::super::said::Said;
use super::super::{Context, Engine, Request};
use super::protocol_of;
use pfkey_hub::Errno;
use pfkey_wire::{ExtensionType as Ext, SaType};

/// Adds a mature SA that is not there yet.
pub(super) fn add(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let mut sa = Sa::read(request, protocol_of(request.header())?, |ip| engine.is_local(ip))?;
    if engine.sadb.get(&sa.said).is_some() {
        return Err(Errno::EEXIST);
    }
    sa.check_transform()?;
    sa.saref = engine.sadb.free_saref()?;
    sa.current.addtime = cx.now.as_secs();
    sa.current.allocations = 1;
    cx.sockets.tell_all(&shown(request, &sa).finish()?);
    engine.sadb.insert(sa);
    Ok(())
}

/// Puts an SA in the place of a larval, or of another; or gives one the ports that its peer's NAT has now.
pub(super) fn update(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let mut sa = Sa::read(request, protocol_of(request.header())?, |ip| engine.is_local(ip))?;
    let old = engine.sadb.get_mut(&sa.said).ok_or(Errno::ENOENT)?;
    if sa.nat_t.sport != 0 || sa.nat_t.dport != 0 {
        let set = |port: &mut u16, end: Option<&mut Endpoint>, new: u16| {
            if new != 0 {
                *port = new;
                if let Some(end) = end.filter(|end| end.ip.is_ipv4()) {
                    end.port = new;
                }
            }
        };
        set(&mut old.nat_t.sport, old.src.as_mut(), sa.nat_t.sport);
        set(&mut old.nat_t.dport, Some(&mut old.dst), sa.nat_t.dport);
        let reply = shown(request, old).lifetime(Ext::LIFETIME_CURRENT, old.current);
        cx.sockets.tell_all(&reply.finish()?);
        return Ok(());
    }
    sa.check_transform()?;
    // The age is the larval's; the rest of its group, if it has one, goes with it.
    sa.current.addtime = old.current.addtime;
    sa.saref = old.saref;
    let reply = shown(request, &sa).lifetime(Ext::LIFETIME_CURRENT, sa.current).finish()?;
    engine.sadb.remove(&sa.said);
    cx.sockets.tell_all(&reply);
    engine.sadb.insert(sa);
    Ok(())
}

/// What ADD and UPDATE tell of an SA: no keys, the limits that were asked for.
fn shown(request: &Request<'_>, sa: &Sa) -> Reply {
    let mut reply = Reply::to(request.header())
        .sa(sa)
        .address(Ext::ADDRESS_SRC, sa.src)
        .address(Ext::ADDRESS_DST, Some(sa.dst))
        .identity(Ext::IDENTITY_SRC, sa.identity_src.as_ref())
        .identity(Ext::IDENTITY_DST, sa.identity_dst.as_ref());
    for (ext, limits) in [(Ext::LIFETIME_HARD, sa.hard), (Ext::LIFETIME_SOFT, sa.soft)] {
        if request.has(ext) {
            reply = reply.lifetime(ext, limits);
        }
    }
    reply
}

/// The name of the SA that a request is about.
fn named(request: &Request<'_>) -> Result<Said, Errno> {
    let sa = request.sa(Ext::SA).ok_or(Errno::EINVAL)?;
    let dst = request.address(Ext::ADDRESS_DST).ok_or(Errno::EINVAL)?;
    Ok(Said { dst: dst.ip, spi: sa.rfc.spi.get(), proto: protocol_of(request.header())? })
}

/// Removes an SA and its whole group.
pub(super) fn delete(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let said = named(request)?;
    let reply = Reply::to(request.header())
        .bare_sa(engine.sadb.get(&said).ok_or(Errno::ESRCH)?)
        .address(Ext::ADDRESS_SRC, request.address(Ext::ADDRESS_SRC))
        .address(Ext::ADDRESS_DST, request.address(Ext::ADDRESS_DST))
        .finish()?;
    engine.sadb.remove(&said);
    cx.sockets.tell_all(&reply);
    Ok(())
}

/// Shows an SA to the requester, without its keys.
pub(super) fn get(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let sa = engine.sadb.get(&named(request)?).ok_or(Errno::ESRCH)?;
    let mut reply = Reply::to(request.header())
        .sa(sa)
        .address(Ext::ADDRESS_SRC, sa.src)
        .address(Ext::ADDRESS_DST, Some(sa.dst))
        .address(Ext::ADDRESS_PROXY, sa.proxy)
        .identity(Ext::IDENTITY_SRC, sa.identity_src.as_ref())
        .identity(Ext::IDENTITY_DST, sa.identity_dst.as_ref());
    let lifetimes = [(Ext::LIFETIME_CURRENT, sa.current), (Ext::LIFETIME_HARD, sa.hard), (Ext::LIFETIME_SOFT, sa.soft)];
    for (ext, amounts) in lifetimes {
        if !amounts.is_zero() {
            reply = reply.lifetime(ext, amounts);
        }
    }
    cx.sockets.tell_requester(&reply.finish()?);
    Ok(())
}

/// Removes the SAs of a type, or all, with their groups.
pub(super) fn flush(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let proto = match request.header().satype {
        SaType::UNSPEC => None,
        satype => Some(protocol(satype).ok_or(Errno::EINVAL)?),
    };
    engine.sadb.flush(proto);
    cx.sockets.tell_all(request.bytes());
    Ok(())
}
