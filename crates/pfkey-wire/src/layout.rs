//! The structures of `linux/pfkeyv2.h`, byte for byte. All are unaligned (the C ones are packed), so that a
//! message can be read and written wherever it lies.
//!
//! Lengths named `len` count units of 8 bytes, except [`SadbXIpsecrequest::len`], which counts bytes.

use zerocopy::byteorder::{NetworkEndian, native_endian};

pub use native_endian::{U16, U32, U64};
/// 16 bits in network byte order.
pub type Be16 = zerocopy::byteorder::U16<NetworkEndian>;
/// 32 bits in network byte order.
pub type Be32 = zerocopy::byteorder::U32<NetworkEndian>;

#[doc(hidden)]
#[macro_export]
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes)]
            #[derive(zerocopy::KnownLayout, zerocopy::Immutable, zerocopy::Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

            const _: () = assert!(core::mem::size_of::<$name>() == $size);
        )*
    };
}

/// For the structures of another dialect.
pub use crate::layouts;

layouts! {
    /// `struct sadb_msg`: the base header.
    SadbMsg: 16 {
        /// [`super::PF_KEY_V2`].
        version: u8,
        /// See [`super::MessageType`].
        msg_type: u8,
        /// A positive errno, or 0.
        errno: u8,
        /// See [`super::SaType`].
        satype: u8,
        /// Length of the message in units of 8 bytes.
        len: U16,
        /// 0 in requests; a policy's reference count in Linux's SPD messages.
        reserved: U16,
        /// Chosen by the requester, echoed in the answer.
        seq: U32,
        /// The requester's process id, 0 for messages that the kernel starts.
        pid: U32,
    }
    /// `struct sadb_ext`: the header of every extension.
    SadbExt: 4 {
        /// Length of the extension in units of 8 bytes.
        len: U16,
        /// See [`super::ExtensionType`].
        ext_type: U16,
    }
    /// `struct sadb_sa`.
    SadbSa: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Security parameters index, in network byte order.
        spi: Be32,
        /// Replay window in packets.
        replay: u8,
        /// See [`super::SaState`].
        state: u8,
        /// See [`super::AuthAlgorithm`].
        auth: u8,
        /// See [`super::EncryptAlgorithm`], or [`super::CompressionAlgorithm`] for IPComp.
        encrypt: u8,
        /// See [`super::SaFlags`].
        flags: U32,
    }
    /// `struct sadb_lifetime`.
    SadbLifetime: 32 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Packets (Linux); 0 = no limit.
        allocations: U32,
        /// Bytes; 0 = no limit.
        bytes: U64,
        /// Seconds since creation; in CURRENT the Unix time of creation.
        addtime: U64,
        /// Seconds since first use; in CURRENT the Unix time of first use, 0 = unused.
        usetime: U64,
    }
    /// `struct sadb_address`; a sockaddr follows.
    SadbAddress: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Upper-layer protocol, 255 or 0 = any.
        proto: u8,
        /// Prefix length in bits.
        prefixlen: u8,
        /// 0.
        reserved: U16,
    }
    /// `struct sadb_key`; the key follows.
    SadbKey: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Key length in bits.
        bits: U16,
        /// 0.
        reserved: U16,
    }
    /// `struct sadb_ident`; a NUL-terminated string may follow.
    SadbIdent: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// See [`super::IdentityType`].
        ident_type: U16,
        /// 0.
        reserved: U16,
        /// A user id, or 0.
        id: U64,
    }
    /// `struct sadb_sens`; two bitmaps follow.
    SadbSens: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Protection domain.
        dpd: U32,
        /// Sensitivity level.
        sens_level: u8,
        /// Sensitivity bitmap in 64-bit words.
        sens_len: u8,
        /// Integrity level.
        integ_level: u8,
        /// Integrity bitmap in 64-bit words.
        integ_len: u8,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_prop`; combs follow.
    SadbProp: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Suggested replay window.
        replay: u8,
        /// 0.
        reserved: [u8; 3],
    }
    /// `struct sadb_comb`: one proposed combination.
    SadbComb: 72 {
        /// See [`super::AuthAlgorithm`].
        auth: u8,
        /// See [`super::EncryptAlgorithm`].
        encrypt: u8,
        /// See [`super::SaFlags`].
        flags: U16,
        /// Bits.
        auth_minbits: U16,
        /// Bits.
        auth_maxbits: U16,
        /// Bits.
        encrypt_minbits: U16,
        /// Bits.
        encrypt_maxbits: U16,
        /// 0.
        reserved: U32,
        /// See [`SadbLifetime`].
        soft_allocations: U32,
        /// See [`SadbLifetime`].
        hard_allocations: U32,
        /// See [`SadbLifetime`].
        soft_bytes: U64,
        /// See [`SadbLifetime`].
        hard_bytes: U64,
        /// See [`SadbLifetime`].
        soft_addtime: U64,
        /// See [`SadbLifetime`].
        hard_addtime: U64,
        /// See [`SadbLifetime`].
        soft_usetime: U64,
        /// See [`SadbLifetime`].
        hard_usetime: U64,
    }
    /// `struct sadb_supported`; algorithms follow.
    SadbSupported: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_alg`.
    SadbAlg: 8 {
        /// See [`super::AuthAlgorithm`], [`super::EncryptAlgorithm`].
        id: u8,
        /// Length of the initialisation vector in bytes.
        ivlen: u8,
        /// Shortest key in bits.
        minbits: U16,
        /// Longest key in bits.
        maxbits: U16,
        /// 0.
        reserved: U16,
    }
    /// `struct sadb_spirange`. Both ends in host byte order.
    SadbSpirange: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Lowest SPI.
        min: U32,
        /// Highest SPI.
        max: U32,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_x_kmprivate`; opaque data may follow.
    SadbXKmprivate: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_x_sa2`.
    SadbXSa2: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// See [`super::Mode`].
        mode: u8,
        /// 0.
        reserved1: u8,
        /// 0.
        reserved2: U16,
        /// Outbound sequence number; 0 on Linux.
        sequence: U32,
        /// Ties the SA to a policy request.
        reqid: U32,
    }
    /// `struct sadb_x_policy`; requests follow.
    SadbXPolicy: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// See [`super::PolicyType`].
        policy_type: U16,
        /// See [`super::PolicyDirection`].
        dir: u8,
        /// 0.
        reserved: u8,
        /// The kernel's number of the policy.
        id: U32,
        /// Smaller is stronger.
        priority: U32,
    }
    /// `struct sadb_x_ipsecrequest`; two sockaddrs may follow, back to back and unpadded.
    SadbXIpsecrequest: 16 {
        /// Length of the request in **bytes**.
        len: U16,
        /// 50, 51 or 108.
        proto: U16,
        /// See [`super::Mode`].
        mode: u8,
        /// See [`super::PolicyLevel`].
        level: u8,
        /// 0.
        reserved1: U16,
        /// Request id.
        reqid: U32,
        /// 0.
        reserved2: U32,
    }
    /// `struct sadb_x_nat_t_type`.
    SadbXNatTType: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// `UDP_ENCAP_*`.
        nat_t_type: u8,
        /// 0.
        reserved: [u8; 3],
    }
    /// `struct sadb_x_nat_t_port`.
    SadbXNatTPort: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// UDP port, in network byte order.
        port: Be16,
        /// 0.
        reserved: U16,
    }
    /// `struct sadb_x_sec_ctx`; the context's text follows.
    SadbXSecCtx: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// LSM.
        alg: u8,
        /// Domain of interpretation.
        doi: u8,
        /// Bytes of text.
        ctx_len: U16,
    }
    /// `struct sadb_x_kmaddress`; two sockaddrs follow, back to back.
    SadbXKmaddress: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_x_filter`.
    SadbXFilter: 40 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Source prefix.
        saddr: [u8; 16],
        /// Destination prefix.
        daddr: [u8; 16],
        /// Address family.
        family: U16,
        /// Source prefix length in bits.
        splen: u8,
        /// Destination prefix length in bits.
        dplen: u8,
    }
}
