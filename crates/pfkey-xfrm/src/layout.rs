//! The structures of `linux/xfrm.h` as the kernel lays them out for programs of this processor, byte for byte; padding has
//! names.
#![allow(missing_docs)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use pfkey_wire::layout::{Be16, Be32, U16, U32, U64};

/// `xfrm_address_t`, see [`pfkey_wire::address`].
type Address = [u8; 16];

/// i386 aligns 64-bit numbers to four bytes only, so that structures which have some end earlier there. A 64-bit kernel
/// gives 32-bit programs the same (`xfrm_compat.c`).
const I386: bool = cfg!(target_arch = "x86");

/// The bytes that pad a structure at its end.
const fn tail(elsewhere: usize) -> usize {
    if I386 { elsewhere - 4 } else { elsewhere }
}

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident: $size:expr => { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
            #[repr(C)]
            pub struct $name { $(pub $field: $ty,)* }

            const _: () = assert!(core::mem::size_of::<$name>() == $size);
        )*
    };
}

layouts! {
    /// `struct nlmsghdr`.
    Header: 16 => { len: U32, msg_type: U16, flags: U16, seq: U32, pid: U32, }
    /// `struct xfrm_selector`. The mask of a port is 0xffff, or 0 for any port.
    Selector: 56 => {
        daddr: Address, saddr: Address, dport: Be16, dport_mask: Be16, sport: Be16, sport_mask: Be16, family: U16,
        prefixlen_d: u8, prefixlen_s: u8, proto: u8, pad: [u8; 3], ifindex: U32, user: U32,
    }
    /// `struct xfrm_id`.
    Id: 24 => { daddr: Address, spi: Be32, proto: u8, pad: [u8; 3], }
    /// `struct xfrm_lifetime_cfg`. Volumes without limit are 2^64-1, times without limit 0.
    LifetimeConfig: 64 => {
        soft_byte: U64, hard_byte: U64, soft_packet: U64, hard_packet: U64, soft_add: U64, hard_add: U64,
        soft_use: U64, hard_use: U64,
    }
    /// `struct xfrm_lifetime_cur`. Times are Unix times in seconds.
    LifetimeCurrent: 32 => { bytes: U64, packets: U64, add_time: U64, use_time: U64, }
    /// `struct xfrm_usersa_info`.
    UsersaInfo: tail(224) => {
        sel: Selector, id: Id, saddr: Address, lft: LifetimeConfig, curlft: LifetimeCurrent, stats: [U32; 3],
        seq: U32, reqid: U32, family: U16, mode: u8, replay_window: u8, flags: u8, pad: [u8; tail(7)],
    }
    /// `struct xfrm_usersa_id`.
    UsersaId: 24 => { daddr: Address, spi: Be32, family: U16, proto: u8, pad: u8, }
    /// `struct xfrm_userspi_info`. Both ends in host byte order.
    UserspiInfo: tail(232) => { info: UsersaInfo, min: U32, max: U32, }
    /// `struct xfrm_userpolicy_info`.
    UserpolicyInfo: tail(168) => {
        sel: Selector, lft: LifetimeConfig, curlft: LifetimeCurrent, priority: U32, index: U32, dir: u8, action: u8,
        flags: u8, share: u8, pad: [u8; tail(4)],
    }
    /// `struct xfrm_userpolicy_id`.
    UserpolicyId: 64 => { sel: Selector, index: U32, dir: u8, pad: [u8; 3], }
    /// `struct xfrm_user_acquire`.
    UserAcquire: tail(280) => {
        id: Id, saddr: Address, sel: Selector, policy: UserpolicyInfo, aalgos: U32, ealgos: U32, calgos: U32, seq: U32,
    }
    /// `struct xfrm_user_expire`.
    UserExpire: tail(tail(232)) => { state: UsersaInfo, hard: u8, pad: [u8; tail(7)], }
    /// `struct xfrm_user_polexpire`.
    UserPolexpire: tail(tail(176)) => { pol: UserpolicyInfo, hard: u8, pad: [u8; tail(7)], }
    /// `struct xfrm_user_tmpl`.
    UserTmpl: 64 => {
        id: Id, family: U16, pad1: U16, saddr: Address, reqid: U32, mode: u8, share: u8, optional: u8, pad2: u8,
        aalgos: U32, ealgos: U32, calgos: U32,
    }
    /// `struct xfrm_user_mapping`.
    UserMapping: 64 => {
        id: UsersaId, reqid: U32, old_saddr: Address, new_saddr: Address, old_sport: Be16, new_sport: Be16,
    }
    /// `struct xfrm_user_migrate`.
    UserMigrate: 76 => {
        old_daddr: Address, old_saddr: Address, new_daddr: Address, new_saddr: Address, proto: u8, mode: u8,
        reserved: U16, reqid: U32, old_family: U16, new_family: U16,
    }
    /// `struct xfrm_user_migrate_state`.
    UserMigrateState: 132 => {
        id: UsersaId, new_daddr: Address, new_saddr: Address, old_mark: [U32; 2], new_sel: Selector, new_reqid: U32,
        flags: U32, new_family: U16, reserved: U16,
    }
    /// `struct xfrm_user_kmaddress`.
    UserKmaddress: 40 => { local: Address, remote: Address, reserved: U32, family: U16, pad: U16, }
    /// `struct xfrm_encap_tmpl`.
    EncapTmpl: 24 => { encap_type: U16, sport: Be16, dport: Be16, pad: U16, oa: Address, }
    /// `struct xfrm_user_sec_ctx`; the text follows. `len` counts bytes, these eight included.
    UserSecCtx: 8 => { len: U16, exttype: U16, alg: u8, doi: u8, ctx_len: U16, }
    /// `struct xfrm_address_filter`.
    AddressFilter: 36 => { saddr: Address, daddr: Address, family: U16, splen: u8, dplen: u8, }
}

/// `XFRM_INF`.
pub const INFINITE: u64 = u64::MAX;
/// Bytes of the name in `struct xfrm_algo`, `xfrm_algo_auth`, `xfrm_algo_aead`.
pub const ALGORITHM_NAME: usize = 64;

/// `XFRM_MSG_*` and the control messages of netlink.
pub mod message {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    pub const NEWSA: u16 = 0x10;
    pub const DELSA: u16 = 0x11;
    pub const GETSA: u16 = 0x12;
    pub const NEWPOLICY: u16 = 0x13;
    pub const DELPOLICY: u16 = 0x14;
    pub const GETPOLICY: u16 = 0x15;
    pub const ALLOCSPI: u16 = 0x16;
    pub const ACQUIRE: u16 = 0x17;
    pub const EXPIRE: u16 = 0x18;
    pub const UPDPOLICY: u16 = 0x19;
    pub const POLEXPIRE: u16 = 0x1b;
    pub const UPDSA: u16 = 0x1a;
    pub const FLUSHSA: u16 = 0x1c;
    pub const FLUSHPOLICY: u16 = 0x1d;
    pub const MIGRATE: u16 = 0x21;
    pub const MAPPING: u16 = 0x26;
    pub const MIGRATE_STATE: u16 = 0x29;
}

/// `XFRMA_*`: those that PF_KEY says in another place. The others are in [`pfkey_wire::xfrm`].
pub mod attribute {
    pub use pfkey_wire::xfrm::attribute::ALG_AUTH_TRUNC;

    pub const ALG_AUTH: u16 = 1;
    pub const ALG_CRYPT: u16 = 2;
    pub const ALG_COMP: u16 = 3;
    pub const ENCAP: u16 = 4;
    pub const TMPL: u16 = 5;
    pub const SA: u16 = 6;
    pub const POLICY: u16 = 7;
    pub const SEC_CTX: u16 = 8;
    pub const POLICY_TYPE: u16 = 16;
    /// `XFRMA_MIGRATE`.
    pub const MIGRATION: u16 = 17;
    pub const ALG_AEAD: u16 = 18;
    pub const KMADDRESS: u16 = 19;
    pub const PROTO: u16 = 25;
    pub const ADDRESS_FILTER: u16 = 26;
}
