//! The message types of Linux's dialect and RFC 2367's, a row each: number, name, who sends it, af_key's function for it, and what
//! it is for.

use super::number::numbers;

/// Who sends a message to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Programs to the kernel, and the kernel to programs.
    Both,
    /// The kernel alone.
    FromKernel,
    /// Programs alone.
    ToKernel,
    /// Nobody.
    Neither,
}

impl Direction {
    /// As "Unix Network Programming" has it, figure 19.2.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::FromKernel => "from kernel",
            Self::ToKernel => "to kernel",
            Self::Neither => "neither",
        }
    }
}

/// A message type.
#[derive(Clone, Copy, Debug)]
pub struct MessageInfo {
    /// Its number.
    pub msg_type: MessageType,
    /// Who sends it.
    pub direction: Direction,
    /// Linux's handler (`pfkey_funcs[]`); without one it is EOPNOTSUPP.
    pub handler: Option<&'static str>,
    /// What it is for.
    pub meaning: &'static str,
}

macro_rules! messages {
    ($($name:ident = $number:tt: $direction:ident, $handler:expr, $meaning:literal;)*) => {
        numbers! {
            /// `sadb_msg_type`.
            MessageType(u8) {
                /// Not a message.
                RESERVED = 0, "RESERVED";
                $(#[doc = concat!("`SADB_", stringify!($name), "`: ", $meaning, ".")] $name = $number, stringify!($name);)*
            }
        }

        /// All of them, in the order of their numbers.
        pub const MESSAGES: &[MessageInfo] = &[$(MessageInfo {
            msg_type: MessageType::$name,
            direction: Direction::$direction,
            handler: $handler,
            meaning: $meaning,
        }),*];
    };
}

messages! {
    GETSPI = 1: Both, Some("pfkey_getspi"), "choose an SPI for a larval SA";
    UPDATE = 2: Both, Some("pfkey_add"), "complete a larval SA, or change an SA's limits";
    ADD = 3: Both, Some("pfkey_add"), "add a whole SA";
    DELETE = 4: Both, Some("pfkey_delete"), "remove an SA";
    GET = 5: Both, Some("pfkey_get"), "show an SA, to the asker only";
    ACQUIRE = 6: Both, Some("pfkey_acquire"), "ask key managers for an SA; back with an errno: there is none to be had";
    REGISTER = 7: Both, Some("pfkey_register"), "be asked for SAs of a type; back: the algorithms";
    EXPIRE = 8: FromKernel, None, "an SA has reached a limit";
    FLUSH = 9: Both, Some("pfkey_flush"), "remove all SAs, or those of a type";
    DUMP = 10: Both, Some("pfkey_dump"), "show all SAs, to the asker only";
    X_PROMISC = 11: Both, Some("pfkey_promisc"), "hear every message";
    X_PCHANGE = 12: Neither, None, "tell key managers that a policy has changed";
    X_SPDUPDATE = 13: Both, Some("pfkey_spdadd"), "add a policy, or change it";
    X_SPDADD = 14: Both, Some("pfkey_spdadd"), "add a policy";
    X_SPDDELETE = 15: Both, Some("pfkey_spddelete"), "remove a policy by its selector";
    X_SPDGET = 16: Both, Some("pfkey_spdget"), "show a policy by its number";
    X_SPDACQUIRE = 17: Neither, None, "ask for a policy";
    X_SPDDUMP = 18: Both, Some("pfkey_spddump"), "show all policies, to the asker only";
    X_SPDFLUSH = 19: Both, Some("pfkey_spdflush"), "remove all policies";
    X_SPDSETIDX = 20: Both, Some("pfkey_spdadd"), "add a policy";
    X_SPDEXPIRE = 21: Neither, None, "a policy has reached a limit";
    X_SPDDELETE2 = 22: Both, Some("pfkey_spdget"), "remove a policy by its number";
    X_NAT_T_NEW_MAPPING = 23: FromKernel, None, "the peer of an SA in UDP sends from another address or port";
    X_MIGRATE = 24: Both, Some("pfkey_migrate"), "change the addresses of SAs and policies";
    // This library's own. On AF_KEY it is no message: `send` fails with EINVAL.
    X_XFRM = 240: Both, None, "show X_XFRM extensions, or show none any more";
}

const IS_MESSAGE: [bool; 256] = {
    let mut is = [false; 256];
    let mut n = 0;
    while n < MESSAGES.len() {
        is[MESSAGES[n].msg_type.0 as usize] = true;
        n += 1;
    }
    is
};

/// Whether a number is that of a message.
pub(super) const fn is_message(number: u8) -> bool {
    IS_MESSAGE[number as usize]
}
