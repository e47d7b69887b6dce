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
    #[error("{what}: {}{}", errno_text(*errno), meaning(*errno, why.as_deref()))]
    Refused {
        /// The request.
        what: String,
        /// Its errno.
        errno: i32,
        /// What the key engine or the kernel says beside it.
        why: Option<Box<str>>,
    },
    /// No answer came.
    #[error("{what}: no answer from the key engine")]
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
    #[error("no PF_KEY backend: {0}\nTry 'pfkey doctor'.")]
    NoBackend(#[from] OpenError),
    /// No backend, which was told already.
    #[error("")]
    Unserved,
    /// What daemons commonly need is missing, which was told already.
    #[error("")]
    Lacking,
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
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
            pfkey::Error::Closed => io::Error::from(io::ErrorKind::ConnectionAborted).into(),
            pfkey::Error::Io(error) => error.into(),
            other => Self::Told(format!("{what}: {other}")),
        }
    }

    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::NoAnswer { .. } | Self::Told(_) | Self::Io(_) | Self::Lacking => REFUSED,
            Self::Usage(_) => USAGE,
            Self::NoBackend(_) => NO_BACKEND,
            Self::Unserved => UNSERVED,
        }
    }
}

/// The words behind an errno's text: the kernel's, or else ours.
fn meaning(errno: i32, why: Option<&str>) -> String {
    why.map_or_else(|| hint(errno).to_owned(), |why| format!(": {why}"))
}

/// What an errno means here, where its text does not say it.
const fn hint(errno: i32) -> &'static str {
    match errno {
        libc::ENOSYS => " (the key engine lacks an algorithm: see 'pfkey algorithms')",
        libc::EPROTONOSUPPORT => " (the kernel lacks the protocol: see 'pfkey doctor')",
        libc::ENOPROTOOPT => " (the kernel is built without this)",
        libc::EBUSY => " (another dump is running on this descriptor)",
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
