//! Capabilities, by the system calls: `linux/capability.h`.

use std::io;

/// `struct __user_cap_header_struct`.
#[repr(C)]
pub(super) struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

impl CapHeader {
    /// Of the calling thread, with `_LINUX_CAPABILITY_VERSION_3`: two [`CapData`].
    pub(super) const fn own() -> Self {
        Self { version: 0x2008_0522, pid: 0 }
    }
}

/// `struct __user_cap_data_struct`: 32 capabilities each.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CapData {
    pub(super) effective: u32,
    pub(super) permitted: u32,
    pub(super) inheritable: u32,
}

/// CAP_NET_ADMIN.
pub(super) const NET_ADMIN_NUMBER: u32 = 12;
/// Its bit.
pub(super) const NET_ADMIN: u32 = 1 << NET_ADMIN_NUMBER;
/// The bit of CAP_SETGID.
pub(super) const SETGID: u32 = 1 << 6;
/// The bit of CAP_SETUID.
pub(super) const SETUID: u32 = 1 << 7;

fn get() -> io::Result<[CapData; 2]> {
    get_of(0)
}

/// Of another thread, or of this one with 0.
fn get_of(pid: libc::c_int) -> io::Result<[CapData; 2]> {
    let mut header = CapHeader { pid, ..CapHeader::own() };
    let mut data = [CapData::default(); 2];
    // SAFETY: the header names the version of which `data` is the form; both are live.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(data)
}

fn set(data: [CapData; 2]) -> io::Result<()> {
    let mut header = CapHeader::own();
    // SAFETY: as above; capset only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the calling thread may open an AF_KEY socket in its own user namespace: CAP_NET_ADMIN is effective. Where
/// that cannot be asked, the kernel will say it later.
pub(crate) fn has_net_admin() -> bool {
    get().map_or(true, |data| data[0].effective & NET_ADMIN != 0)
}

/// Whether CAP_NET_ADMIN is effective for another thread, in its own user namespace.
///
/// # Errors
/// ESRCH if there is none.
pub fn thread_has_net_admin(thread: i32) -> io::Result<bool> {
    get_of(thread).map(|data| data[0].effective & NET_ADMIN != 0)
}

/// Gives up uid 0, if the process has it, and every capability but CAP_NET_ADMIN. Says which uid it has then: `user`, or
/// the one it had where it is not 0 or cannot be changed (a user namespace that maps no other).
///
/// # Errors
/// Those of `capget` and `capset`.
pub fn become_unprivileged(user: u32) -> io::Result<u32> {
    let data = get()?;
    let has = |bit: u32| data[0].permitted & bit != 0;
    if nix::unistd::geteuid().is_root() && has(SETUID) && has(SETGID) {
        // Keeps what is permitted over the change.
        nix::sys::prctl::set_keepcaps(true)?;
        let (uid, gid) = (nix::unistd::Uid::from_raw(user), nix::unistd::Gid::from_raw(user));
        // The user last, who may do the rest.
        let changed = nix::unistd::setgroups(&[])
            .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
            .and_then(|()| nix::unistd::setresuid(uid, uid, uid));
        // EINVAL: not mapped here; EPERM: setgroups is forbidden here. Such a uid 0 is no more than its namespace's.
        match changed {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        nix::sys::prctl::set_keepcaps(false)?;
    }
    let kept = data[0].permitted & NET_ADMIN;
    set([CapData { effective: kept, permitted: kept, inheritable: 0 }, CapData::default()])?;
    Ok(nix::unistd::geteuid().as_raw())
}

/// Gives up every capability.
///
/// # Errors
/// That of `capset`.
pub fn drop_capabilities() -> io::Result<()> {
    set([CapData::default(); 2])
}
