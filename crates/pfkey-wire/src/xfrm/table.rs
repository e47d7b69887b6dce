//! XFRM's attributes, a row each.

use zerocopy::FromBytes as _;

use super::{ReplayEsn, Truncation};

/// How an attribute is laid out: this decides its length, and how it is read and written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// It is there, or not.
    Flag,
    /// `__u8`: 1 = in, 2 = out.
    Direction,
    /// `__u16`.
    U16,
    /// `__u32`.
    U32,
    /// `__u32` of which people read the bits.
    Hex,
    /// `__u64`: Unix time in seconds.
    Time,
    /// [`Mark`](super::Mark).
    Mark,
    /// [`ReplayEsn`] and its bitmap.
    ReplayEsn,
    /// `struct xfrm_replay_state`.
    Replay,
    /// [`Offload`](super::Offload).
    Offload,
    /// `xfrm_address_t`.
    Address,
    /// [`Truncation`].
    Truncation,
    /// `struct xfrm_userpolicy_type`: its type, and nothing.
    PolicyType,
    /// `__u32`: the number of a network interface.
    Interface,
    /// `__u8`: `XFRM_MODE_*`.
    Mode,
}

impl Layout {
    /// Whether an attribute of this layout can have so many bytes as this one.
    #[must_use]
    pub fn fits(self, payload: &[u8]) -> bool {
        let len = match self {
            Self::Flag => 0,
            Self::Direction | Self::Mode => 1,
            Self::U16 => 2,
            Self::U32 | Self::Hex | Self::Interface => 4,
            Self::PolicyType => 6,
            Self::Time | Self::Mark | Self::Offload => 8,
            Self::Replay => 12,
            Self::Address => 16,
            Self::Truncation => size_of::<Truncation>(),
            // As the kernel checks it (`verify_replay`, `xfrm_init_replay`).
            Self::ReplayEsn => {
                let Ok((esn, bitmap)) = ReplayEsn::read_from_prefix(payload) else { return false };
                let words = esn.words.get();
                return words <= ReplayEsn::MAX_WORDS
                    && bitmap.len() == words as usize * 4
                    && esn.window.get() <= words * 32;
            }
        };
        payload.len() == len
    }
}

/// What an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// How an SA or a policy is set.
    Setting,
    /// How far an SA's sequence numbers are.
    Counter,
    /// What the kernel reports, and nobody sets.
    Report,
}

/// What carries an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A whole SA: ADD, UPDATE, GETSPI.
    Sa,
    /// A whole policy: X_SPDADD, X_SPDUPDATE, X_SPDSETIDX.
    Policy,
    /// The name of an SA: GET, DELETE.
    SaName,
    /// The name of a policy: X_SPDGET, X_SPDDELETE, X_SPDDELETE2.
    PolicyName,
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct AttributeInfo {
    /// `XFRMA_*`, or from [`OWN`] on this library's.
    pub number: u16,
    /// That name, without what all begin with ([`AttributeInfo::prefix`]).
    pub c_name: &'static str,
    /// What the operator's language calls it.
    pub name: &'static str,
    /// Its layout.
    pub layout: Layout,
    /// What it is.
    pub role: Role,
    /// What carries it.
    pub carriers: &'static [Carrier],
    /// The first kernel that has it.
    pub since: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

const SA: &[Carrier] = &[Carrier::Sa];
const BOTH: &[Carrier] = &[Carrier::Sa, Carrier::Policy];
const NAMES: &[Carrier] = &[Carrier::Sa, Carrier::Policy, Carrier::SaName, Carrier::PolicyName];
const NAMES_POLICIES: &[Carrier] = &[Carrier::Sa, Carrier::Policy, Carrier::PolicyName];
const POLICIES: &[Carrier] = &[Carrier::Policy, Carrier::PolicyName];

/// From this number on attributes are no netlink's: they say what XFRM has in the fixed parts of its messages.
pub const OWN: u16 = 0x3000;

impl AttributeInfo {
    /// What its name in C begins with.
    #[must_use]
    pub const fn prefix(&self) -> &'static str {
        if self.number < OWN { "XFRMA_" } else { "PFKEY_XFRMA_" }
    }
}

macro_rules! attributes {
    ($($c_name:ident = $number:literal, $name:literal: $layout:ident, $role:ident, $carriers:ident, $since:literal, $meaning:literal;)*) => {
        /// `XFRMA_*`, and `PFKEY_XFRMA_*` from [`OWN`](super::OWN) on.
        pub mod attribute {
            $(#[doc = concat!("`", stringify!($c_name), "`: ", $meaning, ".")] pub const $c_name: u16 = $number;)*
        }

        /// Those that are known, in the order of their numbers.
        pub const ATTRIBUTES: &[AttributeInfo] = &[$(AttributeInfo {
            number: $number,
            c_name: stringify!($c_name),
            name: $name,
            layout: Layout::$layout,
            role: Role::$role,
            carriers: $carriers,
            since: $since,
            meaning: $meaning,
        }),*];
    };
}

attributes! {
    REPLAY_VAL = 10, "replay": Replay, Counter, SA, "2.6.17", "sequence numbers, without extended ones";
    REPLAY_THRESH = 11, "replay-thresh": U32, Setting, SA, "2.6.17", "packets after which sequence numbers are reported";
    ETIMER_THRESH = 12, "etimer-thresh": U32, Setting, SA, "2.6.17", "tenths of a second after which they are reported";
    COADDR = 14, "coaddr": Address, Setting, SA, "2.6.19", "care-of address of a mobile node";
    LASTUSED = 15, "lastused": Time, Report, SA, "2.6.19", "when it was last used";
    POLICY_TYPE = 16, "type": PolicyType, Setting, POLICIES, "2.6.19", "main or sub: a packet meets a policy of each";
    ALG_AUTH_TRUNC = 20, "icv": Truncation, Setting, SA, "2.6.33", "bits of the integrity value";
    MARK = 21, "mark": Mark, Setting, NAMES, "2.6.34", "mark of the packets that it is for; a part of its name";
    TFCPAD = 22, "tfcpad": U32, Setting, SA, "2.6.39", "bytes to which packets are padded";
    REPLAY_ESN_VAL = 23, "replay-window": ReplayEsn, Setting, SA, "2.6.39", "replay window above 32, and extended sequence numbers";
    SA_EXTRA_FLAGS = 24, "extra-flags": Hex, Setting, SA, "3.11", "XFRM_SA_XFLAG_*";
    OFFLOAD_DEV = 28, "offload": Offload, Setting, BOTH, "4.11, of policies 6.2", "network interface that does the cryptography";
    SET_MARK = 29, "set-mark": Hex, Setting, SA, "4.14", "mark that its packets get";
    SET_MARK_MASK = 30, "set-mark-mask": Hex, Setting, SA, "4.19", "bits of the mark that its packets get";
    IF_ID = 31, "if_id": U32, Setting, NAMES_POLICIES, "4.19", "XFRM interface that it belongs to";
    MTIMER_THRESH = 32, "mtimer-thresh": U32, Setting, SA, "5.16", "seconds between two reports that a peer moved";
    SA_DIR = 33, "dir": Direction, Setting, SA, "6.10", "direction of its packets";
    NAT_KEEPALIVE_INTERVAL = 34, "nat-keepalive": U32, Setting, SA, "6.11", "seconds between two NAT keepalives";
    SA_PCPU = 35, "pcpu": U32, Setting, SA, "6.13", "processor that it is for";
    IPTFS_DROP_TIME = 36, "iptfs-drop-time": U32, Setting, SA, "6.14", "microseconds that a missing packet is waited for";
    IPTFS_REORDER_WINDOW = 37, "iptfs-reorder-window": U16, Setting, SA, "6.14", "packets that can be put into order";
    IPTFS_DONT_FRAG = 38, "iptfs-dont-frag": Flag, Setting, SA, "6.14", "packets are not split among others";
    IPTFS_INIT_DELAY = 39, "iptfs-init-delay": U32, Setting, SA, "6.14", "microseconds that packets are gathered";
    IPTFS_MAX_QSIZE = 40, "iptfs-max-qsize": U32, Setting, SA, "6.14", "bytes that can wait";
    IPTFS_PKT_SIZE = 41, "iptfs-pkt-size": U32, Setting, SA, "6.14", "bytes of an outer packet";
    DEV = 0x3000, "dev": Interface, Setting, NAMES_POLICIES, "2.6", "network interface that its selector is for";
    MODE = 0x3001, "mode": Mode, Setting, BOTH, "6.14", "mode in the place of tunnel mode: iptfs";
}

/// Those that PF_KEY says in another place, or that no SA and no policy of the SPD has: XFRMA_UNSPEC, ALG_AUTH, ALG_CRYPT, ALG_COMP,
/// ENCAP, TMPL, SA, POLICY, SEC_CTX, LTIME_VAL, SRCADDR, MIGRATE, ALG_AEAD, KMADDRESS, PROTO, ADDRESS_FILTER, PAD.
const PF_KEYS_OWN: [u16; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 18, 19, 25, 26, 27];

/// Whether PF_KEY says in another place what an attribute says.
#[must_use]
pub fn is_pf_keys_own(number: u16) -> bool {
    PF_KEYS_OWN.contains(&number)
}

/// The row of a number.
#[must_use]
pub fn attribute_info(number: u16) -> Option<&'static AttributeInfo> {
    ATTRIBUTES.iter().find(|row| row.number == number)
}
