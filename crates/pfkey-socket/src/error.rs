//! Why no PF_KEY descriptor could be opened.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use thiserror::Error;

use pfkey_wire::Extras;
use pfkey_wire::xfrm::attribute_info;
use pfkey_wire::xfrm::settings::Complaint;

/// On x86 the structures of XFRM's messages are others for 32-bit programs.
const FOR_32_BITS: &str =
    if cfg!(target_arch = "x86") { "; on a 64-bit kernel CONFIG_XFRM_USER_COMPAT too, or a 64-bit pfkeyd" } else { "" };

/// Why no PF_KEY descriptor could be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// `PFKEY_BACKEND` has a value that means nothing.
    #[error("PFKEY_BACKEND={value:?}: expected auto, afkey, service, private, embedded or unix:PATH")]
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
        why: pfkey_wire::extras::UnknownExtra,
    },
    /// Algorithms beyond AF_KEY's were asked for, and AF_KEY.
    #[error("AF_KEY has no {extras}: PFKEY_BACKEND=xfrm has, and auto chooses it")]
    AfKeyLacks {
        /// What was asked for.
        extras: Extras,
    },
    /// `PFKEY_XFRM` has a value that means nothing.
    #[error("PFKEY_XFRM: {}", why.about(.value))]
    UnknownXfrm {
        /// The value.
        value: String,
        /// What is wrong, and where.
        why: Complaint,
    },
    /// Attributes of XFRM's were asked for, and AF_KEY.
    #[error("AF_KEY has none of XFRM's attributes (PFKEY_XFRM): PFKEY_BACKEND=private has, and auto chooses it")]
    AfKeyLacksXfrm,
    /// The key engine does not have what `PFKEY_XFRM` asks for.
    #[error("PFKEY_XFRM: {}", lacked(*.number))]
    LacksXfrm {
        /// The attribute, 0: any.
        number: u16,
        /// Why.
        errno: i32,
    },
    /// No pfkeyd was found.
    #[error("no pfkeyd program; sought {}", places(.installed.as_deref(), .beside.as_deref()))]
    NoPfkeyd {
        /// Where it should have been installed, or the file that `PFKEYD` names.
        installed: Option<PathBuf>,
        /// The library's file: it was sought beside it and in sbin and libexec above it, where nobody else can write.
        beside: Option<PathBuf>,
    },
    /// The pfkeyd that was found may have been written by somebody else.
    #[error("{}: owned or writable by others than root and this user; not started", program.display())]
    Unfit {
        /// The program.
        program: PathBuf,
    },
    /// The kernel cannot be spoken to: it has no AF_KEY, or that was not asked for, and this neither.
    #[error("this kernel has no XFRM over netlink (CONFIG_XFRM_USER, or the module xfrm_user{FOR_32_BITS})")]
    NoXfrm,
    /// The next process that the caller starts is the first of a new pid namespace (`unshare(CLONE_NEWPID)`). Were it
    /// pfkeyd's, the caller could never start one of its own.
    #[error(
        "no pfkeyd can be started between unshare(CLONE_NEWPID) and the first fork: open the descriptor before or after"
    )]
    NewPidNamespace,
    /// The private pfkeyd did not start.
    #[error("{}: {step}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What failed.
        step: Step,
        /// Why.
        source: io::Error,
    },
    /// There was no memory to start one, or to say why not.
    #[error("out of memory")]
    NoMemory,
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
            Self::UnknownBackend { .. } | Self::UnknownAlgorithms { .. } | Self::UnknownXfrm { .. } => libc::EINVAL,
            Self::LacksXfrm { errno, .. } => *errno,
            Self::AfKeyLacks { .. } | Self::AfKeyLacksXfrm => libc::EPROTONOSUPPORT,
            Self::NoPfkeyd { .. } | Self::Unfit { .. } | Self::NoXfrm => libc::EAFNOSUPPORT,
            Self::NewPidNamespace => libc::EAGAIN,
            Self::NoMemory => libc::ENOMEM,
            Self::Start { source, .. } | Self::Connect { source, .. } | Self::System(source) => {
                source.raw_os_error().unwrap_or(libc::EIO)
            }
        }
    }
}

/// What is done to start a pfkeyd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// A new process.
    Clone = 1,
    /// A session of its own.
    Session,
    /// Its descriptors.
    Descriptors,
    /// The client's end of the served socket goes to the caller.
    HandOver,
    /// Capabilities.
    Rights,
    /// The directory `/`.
    Directory,
    /// The program.
    Exec,
    /// pfkeyd's own start.
    Serve,
    /// The wait for it.
    Wait,
    /// It ended without a word.
    Ended,
}

impl Step {
    /// From its number, which the new process tells.
    pub(super) const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Clone,
            2 => Self::Session,
            3 => Self::Descriptors,
            5 => Self::Rights,
            6 => Self::Directory,
            7 => Self::Exec,
            _ => Self::HandOver,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "no new process (RLIMIT_NPROC, or the control group's pids.max)",
            Self::Session => "setsid",
            Self::Descriptors => "its descriptors",
            Self::HandOver => "the hand-over of the descriptor",
            Self::Rights => "its capabilities",
            Self::Directory => "chdir(\"/\")",
            Self::Exec => "exec (after a chroot its C library has to be in the new root)",
            Self::Serve => "it does not serve",
            Self::Wait => "no answer",
            Self::Ended => "it ended before it served",
        })
    }
}

/// That a key engine does not have an attribute of XFRM's, in words.
#[must_use]
pub fn lacks_xfrm(number: u16) -> String {
    lacked(number).to_string()
}

/// An attribute that a key engine does not have, as text.
struct Lacked(u16);

const fn lacked(number: u16) -> Lacked {
    Lacked(number)
}

impl fmt::Display for Lacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match attribute_info(self.0) {
            _ if self.0 == 0 => f.write_str("the pfkeyd behind this descriptor has none of XFRM's attributes"),
            Some(row) => {
                write!(
                    f,
                    "this key engine has no {} ({}{}; Linux has it since {})",
                    row.name,
                    row.prefix(),
                    row.c_name,
                    row.since
                )
            }
            None => write!(f, "this key engine has no attribute {}", self.0),
        }
    }
}

const NOT_OTHERS: &str = "what others than root and this user can write is left out";

/// Where a pfkeyd was sought, as text.
struct Places<'a>(Option<&'a Path>, Option<&'a Path>);

fn places<'a>(installed: Option<&'a Path>, beside: Option<&'a Path>) -> Places<'a> {
    Places(installed, beside)
}

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(None, None) => f.write_str("nowhere: it was never installed, and /proc/self/maps names no file"),
            Self(Some(installed), None) => write!(f, "{}", installed.display()),
            Self(None, Some(beside)) => write!(f, "beside and above {} ({NOT_OTHERS})", beside.display()),
            Self(Some(installed), Some(beside)) => {
                write!(f, "{}, and beside and above {} ({NOT_OTHERS})", installed.display(), beside.display())
            }
        }
    }
}
