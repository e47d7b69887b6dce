//! Errnos as messages carry them.

use std::fmt;

/// What `sadb_msg_errno` holds: an errno of one byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u8);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Self = Self(libc::$name as u8);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(other) => write!(f, "errno {other}"),
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST ENODEV EINVAL ENFILE EMFILE ENOSPC EPIPE
    ENOSYS ELOOP ENODATA EREMOTE EPROTO EOVERFLOW EMSGSIZE EPROTONOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT ENETUNREACH
    ECONNRESET ENOBUFS ECONNREFUSED EHOSTUNREACH
}

impl Errno {
    /// An errno of the system's. One that does not fit the byte is EINVAL, as Linux reports it (`pfkey_error`).
    #[must_use]
    pub const fn from_raw(errno: i32) -> Self {
        if errno >= 0 && errno <= u8::MAX as i32 { Self(errno as u8) } else { Self::EINVAL }
    }

    /// `sadb_msg_errno`.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// The system's number.
    #[must_use]
    pub const fn to_raw(self) -> i32 {
        self.0 as i32
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_a_message_is_einval() {
        // ENOTSUPP, which some of the kernel's code returns.
        assert_eq!(Errno::from_raw(524), Errno::EINVAL);
        assert_eq!(Errno::from_raw(-1), Errno::EINVAL);
        assert_eq!((Errno::from_raw(libc::ESRCH), Errno::from_raw(0).to_wire()), (Errno::ESRCH, 0));
    }
}
