//! The embedded key engine in the caller's own process: for data planes in userspace, and for tests.
//!
//! Unlike libipsec's functions these need memory that they get: where there is none, the process ends.

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use super::argument;
use super::guard::{Failure, keep_code};
use crate::engine::resolve::lookup::{Outcome, Packet, Resolver};
use crate::engine::resolve::path::Path;
use crate::engine::{Dialect, Engine, Flow, LINUX, SaId, TrafficError};
use crate::hub::{Hub, Queues, Service as _, SessionId};
use crate::wire::address::{family, from_xfrm, to_xfrm};
use crate::wire::{Ends, Errno, Mode, SaType, Sockaddr};

/// A key engine with its own SADB and SPD. It does no I/O and reads no clock; every call takes the time in
/// nanoseconds since the Unix epoch. One thread at a time may use it. If there is no memory, the process ends.
///
/// Every function that fails sets errno; for a NULL engine it is EINVAL.
#[allow(non_camel_case_types)]
pub struct pfkey_engine {
    hub: Hub<Engine>,
    queues: Queues,
    resolver: Resolver,
}

/// What names an SA of an engine.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct pfkey_engine_sa {
    /// SPI in network byte order, as `sadb_sa_spi`.
    pub spi: u32,
    /// SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP.
    pub satype: u8,
    /// `sadb_x_sa2_mode` in which it is applied.
    pub mode: u8,
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// Destination address, network byte order; an IPv4 address stands in the first four bytes, the rest is 0.
    pub dst: [u8; 16],
}

fn fail<T>(errno: Errno) -> Result<T, Failure> {
    nix::errno::Errno::set_raw(errno.to_raw());
    Err(Failure::Errno(errno.to_raw()))
}

/// Calls `body` with an engine that its caller has for itself; a failure is -1 with errno and code 26, as for no engine.
pub(super) fn with(
    engine: Option<&mut pfkey_engine>,
    body: impl FnOnce(&mut pfkey_engine) -> Result<c_int, Errno>,
) -> c_int {
    keep_code(|| engine.ok_or(Errno::EINVAL).and_then(body).or_else(fail))
}

fn session(engine: &pfkey_engine, session: c_int) -> Result<SessionId, Errno> {
    let id = SessionId(u32::try_from(session).map_err(|_| Errno::EBADF)?);
    if engine.hub.statistics(id).is_some() { Ok(id) } else { Err(Errno::EBADF) }
}

fn sa_id(sa: &pfkey_engine_sa) -> Result<SaId, Errno> {
    let dst = from_xfrm(&sa.dst, sa.family).ok_or(Errno::EAFNOSUPPORT)?;
    let proto = SaType(sa.satype).protocol().ok_or(Errno::EINVAL)?;
    Ok(SaId::new(dst, u32::from_be(sa.spi), proto))
}

/// Makes an empty engine. `profile` is NULL or "linux" for one that behaves as Linux's AF_KEY, "rfc2367" for one that
/// keeps to the RFC where Linux does not.
///
/// Returns the engine, which the caller frees with `pfkey_engine_free`; NULL with errno EINVAL for another profile.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_new(profile: *const c_char) -> *mut pfkey_engine {
    keep_code(|| {
        // SAFETY: NULL or a C string.
        let name = (!profile.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(profile) });
        let Some(dialect) = name.map_or(Some(&LINUX), |n| n.to_str().ok().and_then(Dialect::by_name)) else {
            return fail(Errno::EINVAL);
        };
        let hub = Hub::new(Engine::new(dialect));
        Ok(Box::into_raw(Box::new(pfkey_engine { hub, queues: Queues::new(), resolver: Resolver::default() })))
    })
}

/// Frees an engine with its sessions; its keys are wiped. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_free(engine: *mut pfkey_engine) {
    keep_code(|| {
        if !engine.is_null() {
            // SAFETY: pfkey_engine_new made it with Box::into_raw, and the caller gives it up.
            drop(unsafe { Box::from_raw(engine) });
        }
        Ok(())
    });
}

/// Opens a session, the engine's equivalent of a PF_KEY socket.
///
/// Returns its number (0 or more); -1 with errno EMFILE if there are too many.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_open(engine: *mut pfkey_engine) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| c_int::try_from(e.hub.open().0).map_err(|_| Errno::EMFILE))
}

/// Closes a session; its registration, its dump and what it did not receive are gone.
///
/// Returns 0; -1 with errno EBADF if there is none of that number.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_close(engine: *mut pfkey_engine, session: c_int, now: u64) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let id = self::session(e, session)?;
        e.hub.close(id, Duration::from_nanos(now));
        e.queues.close(id);
        Ok(0)
    })
}

/// Sends one whole PF_KEY message of `len` bytes from a session. When it returns, every answer and notification that
/// the message causes can be received. The bytes stay the caller's.
///
/// Returns 0; an error of the request itself comes as a message with `sadb_msg_errno`. Returns -1 with errno, and
/// nothing was done: EBADF if there is no such session; EMSGSIZE or EINVAL if the bytes are no message, as `send` on a PF_KEY
/// socket would say; EFAULT for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_send(
    engine: *mut pfkey_engine,
    session: c_int,
    msg: *const c_void,
    len: usize,
    now: u64,
) -> c_int {
    // SAFETY: the caller gives `len` bytes.
    let bytes = unsafe { argument::bytes(msg, len) }.map_err(|_| Errno::EFAULT);
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let id = self::session(e, session)?;
        let outcome = e.hub.receive(id, bytes?, Duration::from_nanos(now), &mut e.queues);
        outcome.map(|()| 0).map_err(|error| error.rule.errno())
    })
}

/// Takes a session's oldest message into `buffer` of `size` bytes. A dump goes on while its messages are taken.
///
/// Returns the message's length in bytes; -1 with errno EAGAIN if there is none, EBADF without such a session,
/// EMSGSIZE if the buffer is too small: then the message stays, `pfkey_engine_pending` says how long it is.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_recv(
    engine: *mut pfkey_engine,
    session: c_int,
    buffer: *mut c_void,
    size: usize,
    now: u64,
) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let id = self::session(e, session)?;
        let len = e.queues.first(id).ok_or(Errno::EAGAIN)?.len();
        if len > size || buffer.is_null() {
            return Err(Errno::EMSGSIZE);
        }
        let message = zeroize::Zeroizing::new(e.queues.pop(id).ok_or(Errno::EAGAIN)?);
        // SAFETY: the buffer has `size` bytes, and the message is no longer.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), buffer.cast(), len) };
        if e.hub.is_dumping(id) && e.queues.may_resume(id) {
            e.hub.writable(id, Duration::from_nanos(now), &mut e.queues);
        }
        Ok(len as c_int)
    })
}

/// Returns the length in bytes of a session's oldest message, 0 if there is none; -1 with errno EBADF.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_pending(engine: *mut pfkey_engine, session: c_int) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let id = self::session(e, session)?;
        Ok(e.queues.first(id).map_or(0, <[u8]>::len) as c_int)
    })
}

/// Returns how many messages a session lost because it did not receive them; UINT64_MAX with errno EBADF.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_dropped(engine: *mut pfkey_engine, session: c_int) -> u64 {
    let mut dropped = u64::MAX;
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        dropped = e.queues.dropped(self::session(e, session)?);
        Ok(0)
    });
    dropped
}

/// Returns the time at which `pfkey_engine_advance` has to be called next, nanoseconds since the Unix epoch;
/// UINT64_MAX if nothing is due.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_next_deadline(engine: *mut pfkey_engine) -> u64 {
    let mut deadline = u64::MAX;
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let next = e.hub.next_deadline().and_then(|at| u64::try_from(at.as_nanos()).ok());
        deadline = next.unwrap_or(u64::MAX);
        Ok(0)
    });
    deadline
}

/// Does what is due at `now`: EXPIRE messages, the end of SAs and policies. Calls with a time of their own do that
/// too.
///
/// Returns 0; -1 with errno.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_advance(engine: *mut pfkey_engine, now: u64) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        e.hub.advance(Duration::from_nanos(now), &mut e.queues);
        Ok(0)
    })
}

/// Sets how many seconds the engine waits for an SA that it asked key managers for (30 at first).
///
/// Returns 0; -1 with errno.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_set_acq_expires(engine: *mut pfkey_engine, seconds: u64) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        e.hub.engine_mut().set_acq_expires(seconds);
        Ok(0)
    })
}

/// Finds the SAs that an outbound packet from `src` to `dst` needs. Ports are in the sockaddrs (for ICMP: type and code),
/// `proto` is the upper-layer protocol. If an SA is missing, registered sessions receive an ACQUIRE for it.
///
/// Writes the SAs to `sas`, which has room for `room` of them (no policy needs more than 6), in the order in which
/// they are applied. Returns their number; 0 = the packet passes as it is. Returns -1 with errno EAGAIN if an SA is
/// missing, EPERM if the policy discards the packet, ENOBUFS if the policy asks for more SAs than can be applied,
/// ENOSPC if `room` is too small, EAFNOSUPPORT for addresses of other or different families, EFAULT for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_outbound(
    engine: *mut pfkey_engine,
    src: *const libc::sockaddr,
    dst: *const libc::sockaddr,
    proto: u8,
    sas: *mut pfkey_engine_sa,
    room: usize,
    now: u64,
) -> c_int {
    // SAFETY: NULL, or sockaddrs of their families.
    let ends = unsafe { argument::sockaddrs(src, dst) };
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let Ok((src, dst)) = ends else { return Err(Errno::EFAULT) };
        let flow = flow(src, dst, proto)?;
        let now = Duration::from_nanos(now);
        // The caller knows its routes, and asks pfkey_resolve for MTUs. A tunnel without a source starts at the packet's.
        let source = flow.ends.src();
        let path = Path { device: 1, mtu: 1500, source, gateway: None, loopback: false, untransformed: false };
        let packet = Packet { flow: &flow, path, socket: None, queue: false, icmp: false };
        let pfkey_engine { hub, queues, resolver } = e;
        let outcome = hub.with_engine(now, None, queues, |engine, cx| resolver.lookup(engine, &packet, &path, cx));
        let bundle = match outcome {
            Ok(Outcome::Bundle(bundle)) => bundle,
            Ok(Outcome::Pass(_)) => return Ok(0),
            Ok(Outcome::Queued(_) | Outcome::Blackhole(_)) | Err(Errno::EREMOTE) => return Err(Errno::EAGAIN),
            Err(errno) => return Err(errno),
        };
        let nodes = bundle.nodes();
        if nodes.len() > room || sas.is_null() {
            return Err(Errno::ENOSPC);
        }
        for (i, node) in nodes.iter().enumerate() {
            // SAFETY: `sas` has room for so many, as was checked.
            unsafe { sas.wrapping_add(i).write(named(&node.id, node.mode)) };
        }
        Ok(nodes.len() as c_int)
    })
}

/// Writes the counters of what pfkey_engine_outbound decided, in the form of Linux's `/proc/net/xfrm_stat`, as
/// `snprintf` would: `room` bytes of `text` at most, a NUL included. `text` is the caller's, and may be NULL where `room` is
/// 0.
///
/// Returns the number of bytes that there are, without the NUL; -1 with errno EFAULT if `text` is NULL and `room` is not 0.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_statistics(
    engine: *mut pfkey_engine,
    text: *mut c_char,
    room: usize,
) -> c_int {
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let lines = e.resolver.statistics().to_string();
        if room > 0 {
            if text.is_null() {
                return Err(Errno::EFAULT);
            }
            let len = lines.len().min(room - 1);
            // SAFETY: `text` has `room` bytes, of which these are at most all.
            unsafe { text.copy_from_nonoverlapping(lines.as_ptr().cast(), len) };
            // SAFETY: and this the last.
            unsafe { text.wrapping_add(len).write(0) };
        }
        c_int::try_from(lines.len()).map_err(|_| Errno::EOVERFLOW)
    })
}

/// An SA as C names it.
pub(super) fn named(id: &SaId, mode: Mode) -> pfkey_engine_sa {
    pfkey_engine_sa {
        spi: id.spi.to_be(),
        satype: SaType::from_protocol(id.proto).0,
        mode: mode.0,
        family: family(id.dst),
        dst: to_xfrm(id.dst),
    }
}

impl pfkey_engine {
    pub(super) const fn engine(&self) -> &Engine {
        self.hub.engine()
    }
}

/// A packet between two sockaddrs, whose ports are its own.
pub(super) fn flow(src: Sockaddr<'_>, dst: Sockaddr<'_>, proto: u8) -> Result<Flow, Errno> {
    let ends = src.ip().zip(dst.ip()).and_then(|(src, dst)| Ends::new(src, dst)).ok_or(Errno::EAFNOSUPPORT)?;
    Ok(Flow::new(ends, proto, src.port(), dst.port()))
}

/// Tests the limits of an SA, inbound or outbound, and counts `packets` packets of together `bytes` bytes for it; EXPIRE
/// messages that this causes are delivered.
///
/// Returns 0; -1 with errno EINVAL if there is no such SA or it is over its hard limit: the packets must not pass. EFAULT for
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_count(
    engine: *mut pfkey_engine,
    sa: *const pfkey_engine_sa,
    packets: u64,
    bytes: u64,
    now: u64,
) -> c_int {
    // SAFETY: NULL, or the caller's.
    let sa = unsafe { sa.as_ref() };
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let id = sa_id(sa.ok_or(Errno::EFAULT)?)?;
        let now = Duration::from_nanos(now);
        e.hub
            .with_engine(now, None, &mut e.queues, |engine, cx| engine.count_traffic(&id, packets, bytes, cx))
            .map(|()| 0)
            .map_err(TrafficError::errno)
    })
}

/// Tells key managers that the peer of an encapsulated SA now sends from another address or port (in `peer`):
/// SADB_X_NAT_T_NEW_MAPPING. To be called for every such packet until the SA was updated.
///
/// Returns 0; -1 with errno EINVAL if there is no such SA or it is not encapsulated, EAFNOSUPPORT for an address of
/// another family, EFAULT for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_engine_new_mapping(
    engine: *mut pfkey_engine,
    sa: *const pfkey_engine_sa,
    peer: *const libc::sockaddr,
    now: u64,
) -> c_int {
    // SAFETY: NULL, or the caller's.
    let sa = unsafe { sa.as_ref() };
    // SAFETY: NULL, or a sockaddr of its family.
    let peer = unsafe { argument::sockaddr(peer) };
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, |e| {
        let (id, Ok(peer)) = (sa_id(sa.ok_or(Errno::EFAULT)?)?, peer) else { return Err(Errno::EFAULT) };
        let to = peer.ip().ok_or(Errno::EAFNOSUPPORT)?;
        if to.is_ipv6() != id.dst.is_ipv6() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let (now, port) = (Duration::from_nanos(now), peer.port());
        e.hub
            .with_engine(now, None, &mut e.queues, |engine, cx| engine.new_mapping(&id, to, port, cx))
            .map(|()| 0)
            .map_err(TrafficError::errno)
    })
}
