//! Why no PF_KEY descriptor could be opened.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::wire::Extras;

/// Why no PF_KEY descriptor could be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// `PFKEY_BACKEND` has a value that means nothing.
    #[error("PFKEY_BACKEND={value:?}: expected auto, afkey, xfrm, embedded or unix:PATH")]
    UnknownBackend {
        /// The value.
        value: String,
    },
    /// `PFKEY_ALGORITHMS` has a value that means nothing.
    #[error("PFKEY_ALGORITHMS={value:?}: {why}")]
    UnknownAlgorithms {
        /// The value.
        value: String,
        /// The word that is not known.
        why: crate::wire::extras::UnknownExtra,
    },
    /// Algorithms beyond AF_KEY's were asked for, and AF_KEY.
    #[error("AF_KEY has no {extras}: PFKEY_BACKEND=xfrm has, and auto chooses it")]
    AfKeyLacks {
        /// What was asked for.
        extras: Extras,
    },
    /// No pfkeyd was found.
    #[error("no pfkeyd program; sought {}", list(.sought))]
    NoPfkeyd {
        /// Where it was sought.
        sought: Vec<PathBuf>,
    },
    /// The kernel cannot be spoken to: it has no AF_KEY, or that was not asked for, and this neither.
    #[error("this kernel has no XFRM over netlink (CONFIG_XFRM_USER, or the module xfrm_user)")]
    NoXfrm,
    /// The private pfkeyd did not start.
    #[error("{}: {source}", program.display())]
    Helper {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pfkeyd that was named does not answer.
    #[error("{}: {source}", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    System(io::Error),
}

impl OpenError {
    /// The errno that AF_KEY's `socket` would have set.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::UnknownBackend { .. } | Self::UnknownAlgorithms { .. } => libc::EINVAL,
            Self::AfKeyLacks { .. } => libc::EPROTONOSUPPORT,
            Self::NoPfkeyd { .. } | Self::NoXfrm => libc::EAFNOSUPPORT,
            Self::Helper { source, .. } | Self::Connect { source, .. } | Self::System(source) => {
                source.raw_os_error().unwrap_or(libc::EIO)
            }
        }
    }
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
