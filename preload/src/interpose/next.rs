//! The functions behind the interposers: those of the same names in the objects that are searched after this one.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// One function, looked up once.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address. A call before this object's constructor looks it up too; dlsym allocates only when it fails.
    fn address(&self) -> *mut c_void {
        // Acquire, Release: what the address points to was made by the dynamic linker before.
        let known = self.address.load(Ordering::Acquire);
        if known.is_null() { self.look_up() } else { known }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: a NUL-terminated name. The call is in this object, after which RTLD_NEXT goes on.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            // An old C library has not all of them. That is no answer to what the program asks next.
            // SAFETY: no pointers; what it gives is not looked at.
            unsafe { libc::dlerror() };
        }
        self.address.store(found, Ordering::Release);
        found
    }
}

/// Runs with this object's constructors: signal handlers must not be the first to call dlsym.
extern "C" fn look_up_all() {
    for next in [&SOCKET, &SEND, &SENDTO, &SENDMSG, &SENDMMSG, &WRITE, &WRITEV, &SETSOCKOPT] {
        next.look_up();
    }
    #[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
    for next in [&SENDMSG64, &SENDMMSG64, &SETSOCKOPT64] {
        next.look_up();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = look_up_all;

macro_rules! next {
    ($($(#[$attribute:meta])* $name:ident = $static:ident, $symbol:literal,
        ($($arg:ident: $ty:ty),*) -> $ret:ty, $($safety:ident)?;)*) => {$(
        static $static: Next = Next::new($symbol);

        #[doc = concat!("The next `", stringify!($name), "`; ENOSYS if there is none.")]
        pub(super) $($safety)? fn $name($($arg: $ty),*) -> $ret {
            let address = $static.address();
            if address.is_null() {
                nix::errno::Errno::set_raw(libc::ENOSYS);
                return -1;
            }
            // SAFETY: the C library's function of this name has this type; a null pointer is excluded.
            let function: unsafe extern "C-unwind" fn($($ty),*) -> $ret = unsafe { std::mem::transmute(address) };
            // SAFETY: the caller's arguments.
            unsafe { function($($arg),*) }
        }
    )*};
}

next! {
    socket = SOCKET, c"socket", (domain: c_int, kind: c_int, protocol: c_int) -> c_int,;
    send = SEND, c"send", (fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t, unsafe;
    sendto = SENDTO, c"sendto", (fd: c_int, buffer: *const c_void, len: size_t, flags: c_int,
        address: *const sockaddr, address_len: socklen_t) -> ssize_t, unsafe;
    sendmsg = SENDMSG, c"sendmsg", (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, unsafe;
    sendmmsg = SENDMMSG, c"sendmmsg", (fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int, unsafe;
    write = WRITE, c"write", (fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t, unsafe;
    writev = WRITEV, c"writev", (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t, unsafe;
    setsockopt = SETSOCKOPT, c"setsockopt", (fd: c_int, level: c_int, name: c_int, value: *const c_void,
        len: socklen_t) -> c_int, unsafe;
}

#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
next! {
    sendmsg64 = SENDMSG64, c"__sendmsg64", (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, unsafe;
    sendmmsg64 = SENDMMSG64, c"__sendmmsg64", (fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int,
        unsafe;
    setsockopt64 = SETSOCKOPT64, c"__setsockopt64", (fd: c_int, level: c_int, name: c_int, value: *const c_void,
        len: socklen_t) -> c_int, unsafe;
}
