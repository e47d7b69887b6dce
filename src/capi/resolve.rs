//! What would become of a packet, asked of an engine in the program's own process.

use std::ffi::c_int;

use super::argument;
use super::engine::{flow, named, pfkey_engine, pfkey_engine_sa, with};
use crate::engine::resolve::explain::Verdict;
use crate::wire::Errno;

/// Most SAs that a packet can take.
const SAS: usize = 6;

/// What would become of a packet.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct pfkey_resolution {
    /// Id of the policy that takes it; 0 = none does.
    pub policy: u32,
    /// What is left of the path's MTU for the packet in bytes, IP header included.
    pub mtu: u32,
    /// The least bytes that the SAs add to a packet.
    pub least_overhead: u32,
    /// The most bytes that the SAs add to a packet.
    pub most_overhead: u32,
    /// Number of SAs that were found.
    pub sas: u32,
    /// The SAs, in the order in which they are applied.
    pub sa: [pfkey_engine_sa; 6],
}

/// Finds the policy and the SAs that an outbound packet from `src` to `dst` would take, and what would be left of its path's
/// MTU, `path_mtu` bytes. Ports and `proto` are as for pfkey_engine_outbound; but no key manager is asked for an SA, and
/// nothing changes.
///
/// Fills in `resolution`, which is the caller's, even if it returns -1 with EAGAIN, EPERM or ENOBUFS. Returns
/// the number of SAs; 0 = the packet passes as it is. Returns -1 with errno EAGAIN if an SA is missing, EPERM if the
/// policy discards the packet, ENOBUFS if the policy asks for more SAs than can be applied, EAFNOSUPPORT for addresses of
/// other or different families, EINVAL for a NULL engine, EFAULT for another NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_resolve(
    engine: *mut pfkey_engine,
    src: *const libc::sockaddr,
    dst: *const libc::sockaddr,
    proto: u8,
    path_mtu: u32,
    resolution: *mut pfkey_resolution,
) -> c_int {
    // SAFETY: NULL, or sockaddrs of their families.
    let ends = unsafe { argument::sockaddrs(src, dst) };
    let resolve = |engine: &mut pfkey_engine| {
        let Ok((src, dst)) = ends else { return Err(Errno::EFAULT) };
        if resolution.is_null() {
            return Err(Errno::EFAULT);
        }
        let flow = flow(src, dst, proto)?;
        let explanation = engine.engine().explain(&flow, path_mtu);
        let none = || pfkey_engine_sa { spi: 0, satype: 0, mode: 0, family: 0, dst: [0; 16] };
        let mut sa = [(); SAS].map(|()| none());
        let chosen = explanation.steps.iter().filter_map(|step| Some(named(&step.chosen.ok()?, step.template.mode)));
        let mut sas = 0;
        for (place, found) in sa.iter_mut().zip(chosen) {
            *place = found;
            sas += 1;
        }
        let (least_overhead, most_overhead) = explanation.overhead;
        let policy = explanation.policy.map_or(0, |policy| policy.id);
        let told = pfkey_resolution { policy, mtu: explanation.mtu, least_overhead, most_overhead, sas, sa };
        // SAFETY: not null; the caller has one there.
        unsafe { resolution.write(told) };
        match explanation.verdict {
            Verdict::Pass => Ok(0),
            Verdict::Transform => Ok(sas as c_int),
            Verdict::Wait => Err(Errno::EAGAIN),
            Verdict::Discard => Err(Errno::EPERM),
            Verdict::TooManyTemplates => Err(Errno::ENOBUFS),
        }
    };
    // SAFETY: NULL, or what pfkey_engine_new gave and nobody else uses now.
    let engine = unsafe { engine.as_mut() };
    with(engine, resolve)
}
