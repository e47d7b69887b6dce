//! GETSPI.

use super::super::reply::Reply;
use super::super::sa::Sa;
use super::super::{Context, Engine, Request};
use super::protocol_of;
use pfkey_hub::Errno;
use pfkey_wire::{ExtensionType as Ext, SaState};

/// Makes a larval SA with a free SPI of the range. Everybody hears of it before it is there.
pub(super) fn getspi(engine: &mut Engine, request: &Request<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
    let proto = protocol_of(request.header())?;
    let (min, max) = request.spirange().ok_or(Errno::EINVAL)?;
    let mut larval = Sa::read(request, proto, |ip| engine.is_local(ip))?;
    // From a random one on: no more steps than there are SAs in the way. KLIPS draws again and again, and may miss a
    // free one.
    let size = u64::from(max) - u64::from(min) + 1;
    let start = engine.random.next_u64() % size;
    let free = (0..size).map(|n| min.wrapping_add(((start + n) % size) as u32)).find(|spi| {
        larval.said.spi = *spi;
        engine.sadb.get(&larval.said).is_none()
    });
    larval.said.spi = free.ok_or(Errno::EEXIST)?;
    larval.saref = engine.sadb.free_saref()?;
    larval.state = SaState::LARVAL;
    larval.current.addtime = cx.now.as_secs();
    larval.current.allocations = 1;
    let reply = Reply::to(request.header())
        .bare_sa(&larval)
        .address(Ext::ADDRESS_SRC, larval.src)
        .address(Ext::ADDRESS_DST, Some(larval.dst));
    cx.sockets.tell_all(&reply.finish()?);
    engine.sadb.insert(larval);
    Ok(())
}
