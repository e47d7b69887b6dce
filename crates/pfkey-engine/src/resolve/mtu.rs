//! What a chain of SAs adds to a packet, and what it leaves of the path's MTU
//! (`esp_init_state`, `ah_init_state`, `ipcomp4_init_state`, `xfrm_state_mtu`, `xfrm_init_pmtu`).

use pfkey_model::sa::Sa;
use pfkey_wire::algorithm::{AEAD, AUTH, ENCRYPT, by_id};
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Extras, IpsecProtocol, Mode};

/// Bytes of an IPv4 header without options.
const IPV4_HEADER: u32 = 20;
/// Bytes of an IPv6 header.
const IPV6_HEADER: u32 = 40;
/// Bytes of a UDP header.
const UDP_HEADER: u32 = 8;
/// SPI and sequence number.
const ESP_HEADER: u32 = 8;
/// `struct ip_auth_hdr` up to the ICV.
const AH_HEADER: u32 = 12;

/// What a transform does to a packet's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// 50 ESP, 51 AH, 108 IPComp, 4 or 41 plain encapsulation.
    pub protocol: u8,
    /// How much of the packet is wrapped.
    pub mode: Mode,
    /// Whether the outer header is IPv6.
    pub outer_v6: bool,
    /// Whether the packet inside is IPv6 (differs from `outer_v6` only in tunnel and BEET mode).
    pub inner_v6: bool,
    /// Whether ESP is carried in UDP.
    pub udp_encap: bool,
    /// Bytes of the initialisation vector.
    pub iv_len: u32,
    /// Block size of the cipher in bytes, at least 1.
    pub block_len: u32,
    /// Bytes of the integrity check value.
    pub icv_len: u32,
}

/// IV and block length in bytes of a cipher that PF_KEY can name; `None` for an unknown one.
#[must_use]
pub fn cipher_lengths(algorithm: EncryptAlgorithm) -> Option<(u32, u32)> {
    if algorithm == EncryptAlgorithm::NONE {
        return Some((0, 1));
    }
    let row = by_id(ENCRYPT, algorithm.0).or_else(|| by_id(AEAD, algorithm.0))?;
    Some((row.iv.into(), row.block.into()))
}

/// Bytes of an authentication algorithm's ICV in AF_KEY; `None` for an unknown one.
#[must_use]
pub fn icv_length(algorithm: AuthAlgorithm) -> Option<u32> {
    if algorithm == AuthAlgorithm::NONE {
        return Some(0);
    }
    by_id(AUTH, algorithm.0).map(|row| row.icv.into())
}

/// Bytes of ICV of a combined cipher; 0 for any other.
#[must_use]
pub fn aead_icv_length(algorithm: EncryptAlgorithm) -> u32 {
    by_id(AEAD, algorithm.0).map_or(0, |row| row.icv.into())
}

impl Transform {
    /// What an SA does to the packets inside. An unknown algorithm adds nothing.
    #[must_use]
    pub fn of(sa: &Sa, extras: Extras) -> Self {
        let is_esp = sa.proto == IpsecProtocol::ESP;
        let (iv_len, block_len) = if is_esp { cipher_lengths(sa.encrypt).unwrap_or((0, 1)) } else { (0, 1) };
        let icv_len = match (aead_icv_length(sa.encrypt), sa.auth) {
            (0, _) if sa.attached.xfrm.icv_bits().is_some() => sa.attached.xfrm.icv_bits().unwrap_or(0) / 8,
            (0, AuthAlgorithm::X_SHA2_256HMAC) if extras.sha256_128 => 16,
            (0, auth) => icv_length(auth).unwrap_or(0),
            (aead, _) => aead,
        };
        Self {
            protocol: sa.proto.0,
            mode: sa.mode,
            outer_v6: sa.ends.is_ipv6(),
            inner_v6: sa.is_inner_ipv6(),
            udp_encap: sa.encap.is_some(),
            iv_len,
            block_len,
            icv_len,
        }
    }

    const fn outer_header(&self) -> u32 {
        if self.outer_v6 { IPV6_HEADER } else { IPV4_HEADER }
    }

    /// The cipher's block rounded up to 4 bytes, as ESP pads.
    fn esp_align(&self) -> u32 {
        self.block_len.max(1).next_multiple_of(4)
    }

    /// `x->props.header_len`: bytes put in front.
    #[must_use]
    pub fn header_len(&self) -> u32 {
        let tunnel = matches!(self.mode, Mode::TUNNEL);
        let wrap = match (self.protocol, self.mode) {
            // esp_init_state and esp6_init_state: BEET adds a pseudo header for inner IPv4.
            (50, Mode::BEET) => match (self.outer_v6, self.inner_v6) {
                (false, false) => 8,
                (true, false) => 8 + (IPV6_HEADER - IPV4_HEADER),
                (_, true) => 0,
            },
            (4 | 41, _) => self.outer_header(),
            _ if tunnel => self.outer_header(),
            _ => 0,
        };
        let own = match self.protocol {
            50 => ESP_HEADER + self.iv_len + if self.udp_encap { UDP_HEADER } else { 0 },
            51 => (AH_HEADER + self.icv_len).next_multiple_of(8),
            _ => 0,
        };
        own + wrap
    }

    /// `x->props.trailer_len`: the most that is put behind.
    #[must_use]
    pub fn trailer_len(&self) -> u32 {
        match self.protocol {
            50 => self.esp_align() + 1 + self.icv_len,
            _ => 0,
        }
    }

    /// The least and the most bytes that are added to a packet: ESP pads to its block, and adds the length of the padding
    /// and the next header.
    #[must_use]
    pub fn overhead(&self) -> (u32, u32) {
        let least = match self.protocol {
            50 => self.header_len() + self.icv_len + 2,
            _ => self.header_len(),
        };
        (least, least + if self.protocol == 50 { self.esp_align() - 1 } else { 0 })
    }

    /// How long a packet of `len` bytes, IP header included, comes out. IPComp is counted as if nothing shrank.
    #[must_use]
    pub fn output_len(&self, len: u32) -> u32 {
        if self.protocol != 50 {
            return len.saturating_add(self.header_len());
        }
        // The IP header in front of a transport or BEET packet is not part of the payload.
        let kept = if matches!(self.mode, Mode::TUNNEL) { 0 } else { self.outer_header().min(len) };
        // Behind the payload come the length of the padding and the next header.
        let padded = (len - kept).saturating_add(2).checked_next_multiple_of(self.esp_align());
        padded.unwrap_or(u32::MAX).saturating_add(kept + self.header_len() + self.icv_len)
    }

    /// `xfrm_state_mtu`: what is left of `mtu` for the packet inside. Never below 1.
    #[must_use]
    pub fn mtu(&self, mtu: u32) -> u32 {
        if self.protocol != 50 {
            return mtu.saturating_sub(self.header_len()).max(1);
        }
        let adjust = match self.mode {
            Mode::TUNNEL => 0,
            // The IP header in front of a transport or BEET packet is not part of the payload.
            _ => self.outer_header(),
        };
        let Some(room) = mtu.checked_sub(self.header_len() + self.icv_len + adjust) else { return 1 };
        let payload = room - room % self.esp_align();
        if payload <= 2 { 1 } else { payload + adjust - 2 }
    }
}

/// What a chain of transforms (applied first to last) leaves of a path's MTU (`xfrm_init_pmtu`).
#[must_use]
pub fn chain_mtu(chain: &[Transform], path_mtu: u32) -> u32 {
    chain.iter().rev().fold(path_mtu, |mtu, transform| transform.mtu(mtu).min(path_mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esp(cipher: EncryptAlgorithm, auth: AuthAlgorithm) -> Transform {
        let (iv_len, block_len) = cipher_lengths(cipher).unwrap();
        Transform {
            protocol: 50,
            mode: Mode::TRANSPORT,
            outer_v6: false,
            inner_v6: false,
            udp_encap: false,
            iv_len,
            block_len,
            icv_len: icv_length(auth).unwrap(),
        }
    }

    fn ah(auth: AuthAlgorithm) -> Transform {
        Transform { protocol: 51, iv_len: 0, block_len: 1, ..esp(EncryptAlgorithm::NULL, auth) }
    }

    /// Path MTUs seen on a real kernel (7.2.7) over a device of 1500 bytes.
    #[test]
    fn path_mtus_of_a_real_kernel() {
        use AuthAlgorithm as A;
        use EncryptAlgorithm as E;
        let des3 = esp(E::A3DESCBC, A::SHA1HMAC);
        let ipcomp = Transform { protocol: 108, ..des3 };
        let rows: [(&str, Vec<Transform>, u32); 12] = [
            ("none", vec![], 1500),
            ("3des sha1", vec![des3], 1466),
            ("3des md5", vec![esp(E::A3DESCBC, A::MD5HMAC)], 1466),
            ("aes sha1", vec![esp(E::X_AESCBC, A::SHA1HMAC)], 1458),
            ("null sha1", vec![esp(E::NULL, A::SHA1HMAC)], 1478),
            ("des", vec![esp(E::DESCBC, A::NONE)], 1482),
            ("3des sha1 in udp", vec![Transform { udp_encap: true, ..des3 }], 1458),
            ("3des sha1 tunnel", vec![Transform { mode: Mode::TUNNEL, ..des3 }], 1446),
            ("ah sha1", vec![ah(A::SHA1HMAC)], 1476),
            ("ah sha256", vec![ah(A::X_SHA2_256HMAC)], 1476),
            ("3des sha1, ah sha1", vec![des3, ah(A::SHA1HMAC)], 1442),
            ("ipcomp", vec![ipcomp], 1500),
        ];
        for (name, chain, expected) in rows {
            assert_eq!(chain_mtu(&chain, 1500), expected, "{name}");
        }
    }

    #[test]
    fn no_length_overflows() {
        let des3 = esp(EncryptAlgorithm::A3DESCBC, AuthAlgorithm::SHA1HMAC);
        for len in [0, 1, 19, 20, u32::MAX - 8, u32::MAX] {
            for mode in [Mode::TRANSPORT, Mode::TUNNEL] {
                let sa = Transform { mode, ..des3 };
                assert!(sa.output_len(len) >= len && sa.mtu(len) <= len.max(1), "{len}");
            }
        }
    }

    #[test]
    fn an_mtu_too_small_for_the_headers_is_one() {
        let des3 = esp(EncryptAlgorithm::A3DESCBC, AuthAlgorithm::SHA1HMAC);
        for mtu in 0..50 {
            assert_eq!(des3.mtu(mtu), 1, "{mtu}");
        }
    }
}
