//! The numbers of PF_KEYv2 with their names, as in `linux/pfkeyv2.h` and `linux/ipsec.h`.
//!
//! Each kind is a newtype that can hold any value, because any value can arrive.

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident($repr:ty) { $($(#[$vdoc:meta])* $variant:ident = $value:expr, $text:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

        impl $name {
            $($(#[$vdoc])* pub const $variant: $name = $name($value);)*

            /// The name in the C header without its prefix, if the value has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }

            /// Every named value.
            pub const ALL: &'static [$name] = &[$($name($value)),*];
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    };
}

pub(super) use numbers;

numbers! {
    /// `sadb_msg_satype`.
    SaType(u8) {
        /// Any.
        UNSPEC = 0, "UNSPEC";
        /// IP authentication header.
        AH = 2, "AH";
        /// IP encapsulating security payload.
        ESP = 3, "ESP";
        /// RSVP.
        RSVP = 5, "RSVP";
        /// OSPFv2.
        OSPFV2 = 6, "OSPFV2";
        /// RIPv2.
        RIPV2 = 7, "RIPV2";
        /// Mobile IP.
        MIP = 8, "MIP";
        /// IP payload compression.
        X_IPCOMP = 9, "X_IPCOMP";
    }
}

impl SaType {
    /// The IP protocol of this SA type, any of them for `UNSPEC` (the kernel's `pfkey_satype2proto`). `None` for every
    /// other type.
    #[must_use]
    pub const fn protocol(self) -> Option<IpsecProtocol> {
        match self {
            Self::UNSPEC => Some(IpsecProtocol::ANY),
            Self::AH => Some(IpsecProtocol::AH),
            Self::ESP => Some(IpsecProtocol::ESP),
            Self::X_IPCOMP => Some(IpsecProtocol::IPCOMP),
            _ => None,
        }
    }

    /// The SA type of an IP protocol; `UNSPEC` for a protocol that has none.
    #[must_use]
    pub const fn from_protocol(protocol: IpsecProtocol) -> Self {
        match protocol {
            IpsecProtocol::AH => Self::AH,
            IpsecProtocol::ESP => Self::ESP,
            IpsecProtocol::IPCOMP => Self::X_IPCOMP,
            _ => Self::UNSPEC,
        }
    }
}

numbers! {
    /// The IP protocol of an SA, and what policies ask for beside SAs.
    IpsecProtocol(u8) {
        /// IPv6's routing header.
        ROUTING = 43, "ROUTING";
        /// IP encapsulating security payload.
        ESP = 50, "ESP";
        /// IP authentication header.
        AH = 51, "AH";
        /// IPv6's destination options.
        DSTOPTS = 60, "DSTOPTS";
        /// IP payload compression.
        IPCOMP = 108, "COMP";
        /// `IPSEC_PROTO_ANY`: AH, ESP or IPComp.
        ANY = 255, "ANY";
    }
}

impl IpsecProtocol {
    /// Whether it is this protocol (`xfrm_id_proto_match`): [`ANY`](Self::ANY) stands for the three that have SAs.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        self.0 == other.0 || matches!((self, other), (Self::ANY, Self::AH | Self::ESP | Self::IPCOMP))
    }
}

numbers! {
    /// `sadb_sa_state`.
    SaState(u8) {
        /// Has an SPI, no keys yet.
        LARVAL = 0, "LARVAL";
        /// In use.
        MATURE = 1, "MATURE";
        /// In use, past its soft limit.
        DYING = 2, "DYING";
        /// Gone.
        DEAD = 3, "DEAD";
    }
}

numbers! {
    /// `sadb_ident_type`.
    IdentityType(u16) {
        /// Not an identity.
        RESERVED = 0, "RESERVED";
        /// An address prefix as text.
        PREFIX = 1, "PREFIX";
        /// A domain name.
        FQDN = 2, "FQDN";
        /// A mailbox.
        USERFQDN = 3, "USERFQDN";
    }
}

numbers! {
    /// `sadb_x_policy_type`.
    PolicyType(u16) {
        /// Drop the packet.
        DISCARD = 0, "DISCARD";
        /// Let the packet pass.
        NONE = 1, "NONE";
        /// Apply the requests.
        IPSEC = 2, "IPSEC";
        /// Look at the SPD (per-socket policies).
        ENTRUST = 3, "ENTRUST";
        /// Pass by the SPD (per-socket policies).
        BYPASS = 4, "BYPASS";
    }
}

numbers! {
    /// `sadb_x_policy_dir`.
    PolicyDirection(u8) {
        /// Any.
        ANY = 0, "ANY";
        /// Packets to this host.
        INBOUND = 1, "INBOUND";
        /// Packets from this host.
        OUTBOUND = 2, "OUTBOUND";
        /// Forwarded packets.
        FWD = 3, "FWD";
        /// A socket's inbound policy, in dumps.
        SOCKET_IN = 4, "SOCKET_IN";
        /// A socket's outbound policy, in dumps.
        SOCKET_OUT = 5, "SOCKET_OUT";
    }
}

impl PolicyDirection {
    /// Whether policies of the SPD have it; a socket's own have others.
    #[must_use]
    pub const fn is_in_spd(self) -> bool {
        matches!(self, Self::INBOUND | Self::OUTBOUND | Self::FWD)
    }
}

numbers! {
    /// `sadb_x_ipsecrequest_mode` and `sadb_x_sa2_mode`.
    Mode(u8) {
        /// Any.
        ANY = 0, "ANY";
        /// Transport.
        TRANSPORT = 1, "TRANSPORT";
        /// Tunnel.
        TUNNEL = 2, "TUNNEL";
        /// Bound end-to-end tunnel.
        BEET = 3, "BEET";
    }
}

numbers! {
    /// `sadb_x_ipsecrequest_level`.
    PolicyLevel(u8) {
        /// The system's default.
        DEFAULT = 0, "DEFAULT";
        /// Use an SA if there is one.
        USE = 1, "USE";
        /// An SA is needed.
        REQUIRE = 2, "REQUIRE";
        /// An SA of its own, named by the reqid, is needed.
        UNIQUE = 3, "UNIQUE";
    }
}

/// `sadb_sa_flags`, a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SaFlags(pub u32);

impl SaFlags {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Perfect forward secrecy.
    pub const PFS: Self = Self(1);
    /// Do not clear DF on tunnel packets for path MTU discovery.
    pub const NOPMTUDISC: Self = Self(0x2000_0000);
    /// Copy the DSCP from the outer header when decapsulating.
    pub const DECAP_DSCP: Self = Self(0x4000_0000);
    /// No ECN.
    pub const NOECN: Self = Self(0x8000_0000);
    /// The flags that Linux keeps.
    pub const KEPT: Self = Self(Self::NOPMTUDISC.0 | Self::DECAP_DSCP.0 | Self::NOECN.0);

    /// Whether it has every flag of another set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The flags that are in both sets.
    #[must_use]
    pub const fn intersection(self, flags: Self) -> Self {
        Self(self.0 & flags.0)
    }

    /// The flags that are in either set.
    #[must_use]
    pub const fn union(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl core::fmt::Debug for SaFlags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SaFlags({:#x})", self.0)
    }
}
