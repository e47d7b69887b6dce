//! Why a command fails, and the exit status that says so.

use std::io;

use pfkey_socket::OpenError;

/// The command did what it was asked for.
pub const OK: u8 = 0;
/// The key engine refused something, or a system call failed.
pub const REFUSED: u8 = 1;
/// The arguments or a file are wrong; nothing was sent.
pub const USAGE: u8 = 2;
/// `doctor`: nothing serves PF_KEY.
const UNSERVED: u8 = 2;
/// No PF_KEY descriptor could be opened.
pub const NO_BACKEND: u8 = 3;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The key engine answered with an error.
    #[error("{what}: {}{}", errno_text(*errno), meaning(what, *errno, why.as_deref()))]
    Refused {
        /// The request.
        what: String,
        /// Its errno.
        errno: i32,
        /// What the key engine or the kernel says beside it.
        why: Option<Box<str>>,
    },
    /// No answer came.
    #[error("{what}: no answer from the key engine (it is stopped, or this descriptor's queue was full)")]
    NoAnswer {
        /// The request.
        what: String,
    },
    /// Wrong arguments, or a file with errors; the text has one line or more.
    #[error("{0}")]
    Usage(String),
    /// Something that was told already, line by line.
    #[error("{0}")]
    Told(String),
    /// No backend.
    #[error("no PF_KEY backend: {}{}", .0, unopened(.0))]
    NoBackend(#[from] OpenError),
    /// No backend, which was told already.
    #[error("")]
    Unserved,
    /// What daemons commonly need is missing, which was told already.
    #[error("")]
    Lacking,
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// A system call failed.
    #[error("{what}: {error}")]
    Io {
        /// What it was for.
        what: String,
        /// Why.
        error: io::Error,
    },
}

impl Failure {
    /// Of a request that this names.
    pub fn of(what: &str, error: pfkey::Error) -> Self {
        let what = what.to_owned();
        match error {
            pfkey::Error::Open(error) => Self::NoBackend(error),
            pfkey::Error::Refused { errno, why, .. } => Self::Refused { what, errno: errno.to_raw(), why },
            pfkey::Error::NoAnswer { .. } => Self::NoAnswer { what },
            pfkey::Error::Invalid(invalid) => Self::Usage(format!("{what}: {invalid}")),
            pfkey::Error::Closed => Self::io(&format!("{what}: pfkeyd has ended"), io::ErrorKind::ConnectionAborted),
            pfkey::Error::Io(error) => Self::io(&format!("{what}: the PF_KEY descriptor"), error),
            other => Self::Told(format!("{what}: {other}")),
        }
    }

    /// Of a system call that was for this.
    pub fn io(what: &str, error: impl Into<io::Error>) -> Self {
        Self::Io { what: what.to_owned(), error: error.into() }
    }

    /// Whether a user with CAP_NET_ADMIN would not have failed.
    pub fn lacks_a_right(&self) -> bool {
        let errno = match self {
            Self::NoBackend(error) => error.errno(),
            Self::Refused { errno, .. } => *errno,
            _ => 0,
        };
        matches!(errno, libc::EPERM | libc::EACCES)
    }

    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::NoAnswer { .. } | Self::Told(_) | Self::Output(_) | Self::Io { .. } => REFUSED,
            Self::Lacking => REFUSED,
            Self::Usage(_) => USAGE,
            Self::NoBackend(_) => NO_BACKEND,
            Self::Unserved => UNSERVED,
        }
    }
}

/// The words behind an errno's text: the kernel's, or else ours.
fn meaning(what: &str, errno: i32, why: Option<&str>) -> String {
    let own = || hint(what, errno).map_or_else(String::new, |hint| format!(" ({hint})"));
    why.map_or_else(own, |why| format!(": {why}"))
}

/// What an errno means here, and what can be done. `what` is the request: its verb, then what it is about.
fn hint(what: &str, errno: i32) -> Option<&'static str> {
    let is_policy = what.contains("policy ") || what.starts_with("x_spd");
    let adds = what.starts_with("add ");
    let by_number = what.starts_with("policy ");
    Some(match errno {
        libc::EPERM | libc::EACCES => "it needs CAP_NET_ADMIN",
        // A number says its direction, and one that does not cannot be.
        libc::ENOENT | libc::EINVAL if by_number => "no policy has this number: 'pfkey spd' lists them",
        libc::ENOENT | libc::ESRCH if is_policy => "there is no such policy: 'pfkey spd' lists them",
        libc::ENOENT | libc::ESRCH => "there is no such SA: 'pfkey dump' lists them",
        libc::EEXIST if is_policy => "there is one with this selector: 'spdupdate' replaces it",
        libc::EEXIST => "this SPI has its SA: 'pfkey get' shows it",
        libc::EINVAL if adds && is_policy => "its selector, its requests or its limits cannot be",
        libc::EINVAL if adds => "a field of it cannot be: SPI, key length, limits or addresses",
        libc::EINVAL => "a field of it cannot be",
        libc::ENOSYS => {
            "the key engine lacks an algorithm: 'pfkey algorithms' lists what it has; AEADs need PFKEY_ALGORITHMS=aead, not \
             AF_KEY, and the kernel's module gcm, ccm or chacha20poly1305"
        }
        libc::EPROTONOSUPPORT => "the kernel lacks the protocol: see 'pfkey doctor'",
        libc::EAFNOSUPPORT => "the kernel lacks IPsec for these addresses: see 'pfkey doctor'",
        libc::ENOPROTOOPT => "the kernel is built without this",
        libc::EOPNOTSUPP => "this key engine does not do it",
        libc::EBUSY => "another dump is running on this descriptor",
        libc::ENOBUFS => "the key engine holds as many SAs and policies as it may, or the kernel has no memory",
        libc::ENOMEM => "the kernel has no memory",
        _ => return None,
    })
}

/// What the errno for which nothing could be opened means, where the error does not say it.
fn unopened(error: &OpenError) -> &'static str {
    match (error, error.errno()) {
        // A socket's file is not the kernel's to give: its mode decides, or a profile.
        (OpenError::Connect { .. }, libc::EACCES) => {
            ": this user may not connect there, or an AppArmor profile forbids it"
        }
        (_, libc::EPERM | libc::EACCES) => ": it needs CAP_NET_ADMIN",
        (OpenError::System(_), libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => ": this kernel has no AF_KEY",
        (OpenError::Connect { .. }, libc::ENOENT | libc::ECONNREFUSED) => ": no pfkeyd listens there",
        _ => "",
    }
}

/// The system's text for an errno.
pub fn errno_text(errno: i32) -> String {
    nix::errno::Errno::from_raw(errno).desc().to_owned()
}

/// Why a request cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// It is longer than a message.
    #[error("No buffers available")]
    TooLong,
    /// A key is longer than its length field can say.
    #[error("Invalid key length")]
    KeyLength,
}

impl From<pfkey::policy_text::TooLong> for Unwritable {
    fn from(_: pfkey::policy_text::TooLong) -> Self {
        Self::TooLong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_reached_is_no_lack_of_a_capability() {
        let refused = |errno| OpenError::Connect {
            path: "/run/pfkeyd/pfkeyd.sock".into(),
            source: std::io::Error::from_raw_os_error(errno),
        };
        assert!(unopened(&refused(libc::EACCES)).contains("AppArmor"));
        assert_eq!(unopened(&refused(libc::EPERM)), ": it needs CAP_NET_ADMIN");
        assert_eq!(
            unopened(&OpenError::System(std::io::Error::from_raw_os_error(libc::EACCES))),
            ": it needs CAP_NET_ADMIN"
        );
    }
}
