//! A socket's own IPsec policy: `IP_IPSEC_POLICY` takes a `sadb_x_policy` and is part of AF_KEY; `IP_XFRM_POLICY`, one
//! number higher, takes an `xfrm_userpolicy_info` with its templates and stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use crate::template::{MAX_TEMPLATES, Template, parse_requests};
use pfkey_wire::address::to_xfrm;
use pfkey_wire::layout::SadbXPolicy;
use pfkey_wire::{Ends, Errno, Mode, PolicyDirection, PolicyType};

/// `IP_IPSEC_POLICY`, at level IPPROTO_IP.
pub const IP_IPSEC_POLICY: i32 = 16;
/// `IPV6_IPSEC_POLICY`, at level IPPROTO_IPV6.
pub const IPV6_IPSEC_POLICY: i32 = 34;
/// What both options of XFRM are named after them.
pub const XFRM_AFTER_IPSEC: i32 = 1;
/// The kernel takes no longer value (`xfrm_user_policy`: PAGE_SIZE, on machines with the smallest pages).
pub const MAX_VALUE: usize = 4096;

/// Bytes of `struct sadb_x_policy`, and of `struct sadb_x_sec_ctx`.
const POLICY_LEN: usize = 16;
const SEC_CTX_LEN: usize = 8;
/// Bytes of `struct xfrm_userpolicy_info`, whose 64-bit numbers stand on words of 32 bits on x86 alone, and of
/// `struct xfrm_user_tmpl`.
const INFO_LEN: usize = if cfg!(target_arch = "x86") { 164 } else { 168 };
const TEMPLATE_LEN: usize = 64;
/// Behind the value, for a 64-bit kernel that takes it from a 32-bit program (XFRM_USER_COMPAT): it makes the structure its own
/// (`xfrm_user_policy_compat`), four bytes longer, and goes on with the length of before. Without these four a policy
/// has one template less, and one that asks for ESP asks for nothing; or is EINVAL where it has none. A 32-bit kernel passes
/// over what is no whole template.
const SPARE_LEN: usize = if cfg!(target_arch = "x86") { 4 } else { 0 };
const VALUE_LEN: usize = INFO_LEN + MAX_TEMPLATES * TEMPLATE_LEN + SPARE_LEN;
/// Where the structure has the selector's family, the limits of bytes and packets, and the direction; the action follows.
const FAMILY_AT: usize = 40;
const LIMITS_AT: usize = 56;
const DIRECTION_AT: usize = 160;
/// `XFRM_POLICY_BLOCK`; `XFRM_POLICY_ALLOW` is 0.
const BLOCK: u8 = 1;

/// The value of XFRM's option.
#[derive(Clone, Copy, Debug)]
pub struct SocketPolicy {
    bytes: [u8; VALUE_LEN],
    len: usize,
}

impl SocketPolicy {
    /// As the kernel takes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len + SPARE_LEN).unwrap_or_default()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn put_template(&mut self, at: usize, template: &Template) {
        // XFRM's modes: 0 transport, 1 tunnel, 4 BEET.
        let mode = match template.mode {
            Mode::BEET => 4,
            Mode::TUNNEL => 1,
            _ => 0,
        };
        self.put(at, &to_xfrm(template.ends.dst()));
        self.put(at + 20, &[template.proto.0]);
        self.put(at + 24, &family(template.ends.is_ipv6()));
        self.put(at + 28, &to_xfrm(template.ends.src()));
        self.put(at + 44, &template.reqid.to_ne_bytes());
        self.put(at + 48, &[mode, 0, template.optional.into()]);
        // Any algorithm will do.
        self.put(at + 52, &[0xff; 12]);
    }
}

/// `AF_INET`, `AF_INET6`.
fn family(v6: bool) -> [u8; 2] {
    if v6 { 10_u16 } else { 2 }.to_ne_bytes()
}

/// Reads a `sadb_x_policy` with the checks of `pfkey_compile_policy`, and gives XFRM's form. The extension's type and the
/// priority are not looked at there either (iked gives type 12). `new_reqid` gives one for a level unique without a number.
///
/// # Errors
/// Those of `pfkey_compile_policy`; EOPNOTSUPP for a security context, for which XFRM's option has no place.
pub fn translate(value: &[u8], v6: bool, mut new_reqid: impl FnMut() -> Option<u32>) -> Result<SocketPolicy, Errno> {
    let (fixed, behind) = SadbXPolicy::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    let len = usize::from(fixed.len.get()) * 8;
    let dir = PolicyDirection(fixed.dir);
    let kind = PolicyType(fixed.policy_type.get());
    if len > value.len()
        || kind.0 > PolicyType::BYPASS.0
        || !matches!(dir, PolicyDirection::INBOUND | PolicyDirection::OUTBOUND)
    {
        return Err(Errno::EINVAL);
    }
    if value.len() - len >= SEC_CTX_LEN && len >= POLICY_LEN {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut policy = SocketPolicy { bytes: [0; VALUE_LEN], len: INFO_LEN };
    if kind == PolicyType::IPSEC {
        let requests = len.checked_sub(POLICY_LEN).and_then(|n| behind.get(..n)).ok_or(Errno::EINVAL)?;
        let nowhere: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        for template in parse_requests(requests, dir, Ends::unspecified(nowhere), |_| new_reqid())? {
            policy.put_template(policy.len, &template);
            policy.len += TEMPLATE_LEN;
        }
    }
    policy.put(FAMILY_AT, &family(v6));
    // No limit of bytes and packets, soft and hard.
    policy.put(LIMITS_AT, &[0xff; 32]);
    let action = if kind == PolicyType::DISCARD { BLOCK } else { 0 };
    policy.put(DIRECTION_AT, &[fixed.dir - 1, action]);
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct sadb_x_policy`, outbound, and a request for ESP in transport mode.
    fn value(kind: u8) -> Vec<u8> {
        let words = if kind == 2 { 4 } else { 2 };
        let mut value = vec![0; words * 8];
        value[..2].copy_from_slice(&(words as u16).to_ne_bytes());
        value[4..6].copy_from_slice(&u16::from(kind).to_ne_bytes());
        value[6] = 2;
        if kind == 2 {
            value[16..18].copy_from_slice(&16_u16.to_ne_bytes());
            value[18..20].copy_from_slice(&50_u16.to_ne_bytes());
            value[20..22].copy_from_slice(&[1, 2]);
        }
        value
    }

    /// Those of 64 bits, everywhere: a 64-bit kernel counts a 32-bit program's so.
    #[test]
    fn a_policy_has_the_bytes_that_a_64_bit_kernel_counts() {
        let len = |kind| translate(&value(kind), false, || None).unwrap().as_bytes().len();
        assert_eq!(len(4), 168);
        assert_eq!(len(2), 168 + 64);
    }
}
