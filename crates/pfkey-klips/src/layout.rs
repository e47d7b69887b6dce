//! KLIPS's structures, byte for byte, where they differ from [`pfkey_wire::layout`]'s.
//!
//! All are unaligned, so that a message can be read and written wherever it lies.

use pfkey_wire::layout::{Be32, SadbComb, SadbLifetime, SadbSa, U16, U32, layouts};

layouts! {
    /// `struct sadb_sa`: RFC 2367's with a reference behind it.
    Sa: 24 {
        /// RFC 2367's fields.
        rfc: SadbSa,
        /// The SA's number in the kernel's table; [`SAREF_NULL`] = none.
        saref: U32,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_lifetime`: RFC 2367's with packets behind it.
    Lifetime: 40 {
        /// RFC 2367's fields.
        rfc: SadbLifetime,
        /// Packets; 0 = no limit.
        packets: U32,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_comb`: RFC 2367's with packets behind it.
    Comb: 80 {
        /// RFC 2367's fields.
        rfc: SadbComb,
        /// Soft limit in packets.
        soft_packets: U32,
        /// Hard limit in packets.
        hard_packets: U32,
    }
    /// `struct sadb_spirange`. Unlike RFC 2367's, both ends are in network byte order.
    Spirange: 16 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Lowest SPI, network byte order.
        min: Be32,
        /// Highest SPI, network byte order.
        max: Be32,
        /// 0.
        reserved: U32,
    }
    /// `struct sadb_x_satype`.
    SaType2: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// An SA type.
        satype: u8,
        /// 0.
        reserved: [u8; 3],
    }
    /// `struct sadb_x_debug`.
    Debug: 56 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// The masks, in the order of [`super::debug::NAMES`], host byte order.
        masks: [U32; 12],
        /// 0.
        reserved: [u8; 4],
    }
    /// `struct sadb_protocol`.
    Protocol: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// Transport protocol, 0 = any.
        proto: u8,
        /// Not used.
        direction: u8,
        /// Not used.
        flags: u8,
        /// 0.
        reserved: u8,
    }
    /// `struct sadb_x_nat_t_port`. Unlike Linux's, the port is in host byte order.
    NatTPort: 8 {
        /// Units of 8 bytes.
        len: U16,
        /// The extension's type.
        exttype: U16,
        /// UDP port, host byte order.
        port: U16,
        /// 0.
        reserved: U16,
    }
}

/// `IPSEC_SAREF_NULL`: no reference.
pub const SAREF_NULL: u32 = u32::MAX;
/// References are below this (`IPSEC_SA_REF_TABLE_NUM_ENTRIES`).
pub const SAREF_LIMIT: u32 = 1 << 16;
