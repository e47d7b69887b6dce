//! Which extensions each message may and must have, in both directions (Openswan `pfkey_v2_ext_bits.c`).

use super::number::*;
use pfkey_wire::{ExtensionType as Ext, MessageType};

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a program to the engine (`EXT_BITS_IN`).
    In,
    /// From the engine to programs (`EXT_BITS_OUT`).
    Out,
}

/// A set of extension types: bit n is type n.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(pub u32);

impl Set {
    /// The set of these types.
    #[must_use]
    pub const fn of(types: &[Ext]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < types.len() {
            bits |= 1 << types[i].0;
            i += 1;
        }
        Self(bits)
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether a type is in the set.
    #[must_use]
    pub const fn has(self, ext_type: Ext) -> bool {
        ext_type.0 < 32 && self.0 & 1 << ext_type.0 != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a type.
    pub const fn insert(&mut self, ext_type: Ext) {
        if ext_type.0 < 32 {
            self.0 |= 1 << ext_type.0;
        }
    }

    /// The types in it, ascending.
    pub fn iter(self) -> impl Iterator<Item = Ext> {
        (0..32).map(Ext).filter(move |t| self.has(*t))
    }
}

impl core::fmt::Debug for Set {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter().map(|t| extension_name(t).unwrap_or("?"))).finish()
    }
}

/// What a message may and must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// Those it may have.
    pub permitted: Set,
    /// Those it must have.
    pub required: Set,
}

const NONE: Set = Set(0);
const ENDS: Set = Set::of(&[Ext::ADDRESS_SRC, Ext::ADDRESS_DST]);
const SA_ENDS: Set = ENDS.with(Set::of(&[Ext::SA]));
const SA_DST: Set = Set::of(&[Ext::SA, Ext::ADDRESS_DST]);
const PROXY: Set = Set::of(&[Ext::ADDRESS_PROXY]);
const LIMITS: Set = Set::of(&[Ext::LIFETIME_HARD, Ext::LIFETIME_SOFT]);
const CURRENT: Set = Set::of(&[Ext::LIFETIME_CURRENT]);
const KEYS: Set = Set::of(&[Ext::KEY_AUTH, Ext::KEY_ENCRYPT]);
const IDENTITIES: Set = Set::of(&[Ext::IDENTITY_SRC, Ext::IDENTITY_DST]);
const LABELS: Set = IDENTITIES.with(Set::of(&[Ext::SENSITIVITY]));
const NAT_T_PORTS: Set = Set::of(&[X_EXT_NAT_T_SPORT, X_EXT_NAT_T_DPORT]);
const NAT_T: Set = NAT_T_PORTS.with(Set::of(&[X_EXT_NAT_T_TYPE, X_EXT_NAT_T_OA]));
const SPIRANGE: Set = Set::of(&[Ext::SPIRANGE]);
const PROPOSAL: Set = Set::of(&[Ext::PROPOSAL]);
const SECOND: Set = Set::of(&[X_EXT_SATYPE2, X_EXT_SA2, X_EXT_ADDRESS_DST2]);
/// The two addresses of a flow and their masks.
pub(super) const FLOW: Set =
    Set::of(&[X_EXT_ADDRESS_SRC_FLOW, X_EXT_ADDRESS_DST_FLOW, X_EXT_ADDRESS_SRC_MASK, X_EXT_ADDRESS_DST_MASK]);
const PROTOCOL: Set = Set::of(&[X_EXT_PROTOCOL]);
const DEBUG: Set = Set::of(&[X_EXT_DEBUG]);
const WHOLE_SA: Set = SA_ENDS.with(CURRENT).with(LIMITS).with(PROXY).with(KEYS).with(LABELS).with(NAT_T);
/// Extensions 1 to 20.
const ALL_TO_DST2: Set = Set((1 << 21) - 2);

const fn rule(permitted: Set, required: Set) -> Extensions {
    Extensions { permitted, required }
}

const IN: [Extensions; MESSAGES] = [
    rule(NONE, NONE),
    rule(ENDS.with(PROXY).with(SPIRANGE), ENDS.with(SPIRANGE)),
    rule(SA_ENDS.with(CURRENT).with(LIMITS).with(PROXY).with(KEYS).with(LABELS).with(NAT_T_PORTS), SA_ENDS),
    rule(SA_ENDS.with(LIMITS).with(PROXY).with(KEYS).with(LABELS).with(NAT_T), SA_ENDS),
    rule(SA_ENDS, SA_ENDS),
    rule(SA_ENDS, SA_ENDS),
    rule(ENDS.with(PROXY).with(LABELS).with(PROPOSAL), ENDS.with(PROPOSAL)),
    rule(NONE, NONE),
    rule(NONE, NONE),
    rule(NONE, NONE),
    rule(NONE, NONE),
    rule(ALL_TO_DST2, ALL_TO_DST2),
    rule(ALL_TO_DST2, ALL_TO_DST2),
    rule(SA_DST.with(SECOND), SA_DST),
    rule(SA_ENDS.with(FLOW).with(IDENTITIES).with(PROTOCOL), SA_DST.with(FLOW)),
    rule(Set::of(&[Ext::SA]).with(FLOW).with(IDENTITIES).with(PROTOCOL), NONE),
    rule(DEBUG, DEBUG),
    rule(SA_ENDS.with(NAT_T_PORTS), SA_ENDS.with(NAT_T_PORTS)),
];

const OUT: [Extensions; MESSAGES] = [
    rule(NONE, NONE),
    rule(SA_ENDS, SA_ENDS),
    rule(SA_ENDS.with(CURRENT).with(LIMITS).with(PROXY).with(LABELS).with(NAT_T_PORTS), SA_ENDS),
    rule(SA_ENDS.with(LIMITS).with(LABELS).with(NAT_T), SA_ENDS),
    rule(SA_ENDS, SA_ENDS),
    rule(WHOLE_SA, SA_ENDS),
    rule(ENDS.with(PROXY).with(LABELS).with(PROPOSAL), ENDS.with(PROPOSAL)),
    rule(Set::of(&[Ext::SUPPORTED_AUTH, Ext::SUPPORTED_ENCRYPT]), NONE),
    rule(SA_ENDS.with(CURRENT).with(LIMITS), SA_ENDS.with(CURRENT)),
    rule(NONE, NONE),
    rule(WHOLE_SA, SA_ENDS.with(KEYS)),
    rule(ALL_TO_DST2, ALL_TO_DST2),
    rule(ALL_TO_DST2, ALL_TO_DST2),
    rule(SA_DST.with(SECOND), SA_DST),
    rule(SA_ENDS.with(FLOW).with(PROTOCOL), SA_DST.with(FLOW)),
    rule(Set::of(&[Ext::SA]).with(FLOW).with(PROTOCOL), FLOW),
    rule(DEBUG, DEBUG),
    rule(SA_ENDS.with(NAT_T_PORTS), SA_ENDS.with(NAT_T_PORTS)),
];

/// What a message may and must have; nothing for a number that is no message.
#[must_use]
pub fn extensions(direction: Direction, msg_type: MessageType) -> Extensions {
    let table = match direction {
        Direction::In => &IN,
        Direction::Out => &OUT,
    };
    table.get(usize::from(msg_type.0)).copied().unwrap_or(rule(NONE, NONE))
}
