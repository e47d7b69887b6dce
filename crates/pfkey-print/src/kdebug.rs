//! A message field by field, as `setkey -v` and `setkey -x` show it: `kdebug_sadb`.
//!
//! Oddities are part of the format: lifetimes are cut to 32 bits, a policy's id is in hexadecimal without a
//! mark, the times of a proposal are called `alloc` and `bytes`, and security contexts are unknown.

use zerocopy::FromBytes;

use crate::wire::layout::*;
use crate::wire::sockaddr::{AF_INET, AF_INET6, Sockaddr, sockaddr_len};
use crate::wire::{ExtensionType, HEADER_LEN, Header, PolicyType};

use super::Text;
use super::text::{Out, Sink, collect, put};

/// What libipsec prints for a NULL pointer, before it ends the process.
pub const NULL_MESSAGE: &str = "kdebug_sadb: NULL pointer was passed.\n";

/// How far a message was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// To its end.
    Complete,
    /// To something malformed or unknown, which the last line names.
    Stopped,
    /// The same, but libipsec ends the process here, with status 1.
    WouldExit,
}

/// What `kdebug_sadb` prints.
#[derive(Debug)]
pub struct Kdebug {
    /// The text, which may hold keys.
    pub text: Text,
    /// How far it goes.
    pub ending: Ending,
}

/// Writes every field of a message. Nothing is validated first; a message shorter than its header gives nothing.
#[must_use]
pub fn kdebug_sadb(message: &[u8]) -> Kdebug {
    let (text, ending) = collect(message.len(), |sink| kdebug_sadb_to(message, sink));
    Kdebug { text, ending }
}

/// [`kdebug_sadb`], piece by piece.
pub fn kdebug_sadb_to(message: &[u8], sink: &mut Sink<'_>) -> Ending {
    put_message(&mut Out(sink), message)
}

fn put_message(out: &mut Out<'_, '_>, message: &[u8]) -> Ending {
    let Some(h) = Header::read(message) else { return Ending::Stopped };
    let (t, errno, satype) = (h.msg_type.0, h.errno, h.satype.0);
    put!(out, "sadb_msg{{ version={} type={t} errno={errno} satype={satype}\n", h.version);
    put!(out, "  len={} reserved={} seq={} pid={}\n", h.len, h.reserved, h.seq, h.pid);
    let announced = usize::from(h.len) * 8;
    let mut rest = message.get(HEADER_LEN..announced.min(message.len())).unwrap_or_default();
    while let Ok((head, _)) = SadbExt::read_from_prefix(rest) {
        let (len, t) = (head.len.get(), head.ext_type.get());
        put!(out, "sadb_ext{{ len={len} type={t} }}\n");
        if len == 0 {
            put!(out, "kdebug_sadb: invalid ext_len=0 was passed.\n");
            return Ending::Stopped;
        }
        let Some((ext, next)) = rest.split_at_checked(usize::from(len) * 8) else {
            put!(out, "kdebug_sadb: ext_len exceeds end of buffer.\n");
            return Ending::Stopped;
        };
        match put_extension(out, ExtensionType(t), ext) {
            Some(Ending::Complete) => {}
            Some(ending) => return ending,
            None => put!(out, "kdebug_sadb: ext_len too short for ext_type {t}.\n"),
        }
        rest = next;
    }
    if announced > message.len() {
        put!(out, "kdebug_sadb: message exceeds end of buffer.\n");
        return Ending::Stopped;
    }
    Ending::Complete
}

/// Prints the body of an extension; `None` if it is shorter than its structure.
fn put_extension(out: &mut Out<'_, '_>, ext_type: ExtensionType, ext: &[u8]) -> Option<Ending> {
    use ExtensionType as E;
    match ext_type {
        E::SA => put_sa(out, read(ext)?.0),
        E::LIFETIME_CURRENT | E::LIFETIME_HARD | E::LIFETIME_SOFT => put_lifetime(out, read(ext)?.0),
        E::ADDRESS_SRC | E::ADDRESS_DST | E::ADDRESS_PROXY | E::X_NAT_T_OA => put_address(out, read(ext)?),
        E::KEY_AUTH | E::KEY_ENCRYPT => put_key(out, read(ext)?),
        E::IDENTITY_SRC => put_identity(out, "src", read(ext)?),
        E::IDENTITY_DST => put_identity(out, "dst", read(ext)?),
        E::SENSITIVITY | E::SPIRANGE | E::X_KMPRIVATE => {}
        E::PROPOSAL => put_proposal(out, read(ext)?),
        E::SUPPORTED_AUTH | E::SUPPORTED_ENCRYPT => put_supported(out, read::<SadbSupported>(ext)?.1),
        E::X_POLICY => put_policy(out, read(ext)?),
        E::X_SA2 => put_sa2(out, read(ext)?.0),
        E::X_NAT_T_TYPE => {
            put!(out, "sadb_x_nat_t_type{{ type={} }}\n", read::<SadbXNatTType>(ext)?.0.nat_t_type);
        }
        E::X_NAT_T_SPORT | E::X_NAT_T_DPORT => {
            put!(out, "sadb_x_nat_t_port{{ port={} }}\n", read::<SadbXNatTPort>(ext)?.0.port.get());
        }
        E::X_KMADDRESS => return Some(put_kmaddress(out, read(ext)?)),
        _ => {
            put!(out, "kdebug_sadb: invalid ext_type {} was passed.\n", ext_type.0);
            return Some(Ending::Stopped);
        }
    }
    Some(Ending::Complete)
}

fn read<T: FromBytes>(ext: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(ext).ok()
}

fn put_sa(out: &mut Out<'_, '_>, sa: SadbSa) {
    put!(out, "sadb_sa{{ spi={} replay={} state={}\n", sa.spi.get(), sa.replay, sa.state);
    put!(out, "  auth={} encrypt={} flags=0x{:08x} }}\n", sa.auth, sa.encrypt, sa.flags.get());
}

fn put_lifetime(out: &mut Out<'_, '_>, l: SadbLifetime) {
    put!(out, "sadb_lifetime{{ alloc={}, bytes={}\n", l.allocations.get(), l.bytes.get() as u32);
    put!(out, "  addtime={}, usetime={} }}\n", l.addtime.get() as u32, l.usetime.get() as u32);
}

fn put_address(out: &mut Out<'_, '_>, (fixed, rest): (SadbAddress, &[u8])) {
    let [a, b] = fixed.reserved.get().to_ne_bytes();
    let (proto, prefixlen) = (fixed.proto, fixed.prefixlen);
    put!(out, "sadb_address{{ proto={proto} prefixlen={prefixlen} reserved=0x{a:02x}{b:02x} }}\n");
    put_sockaddr(out, rest);
}

/// A sockaddr that is cut short shows its family only.
fn put_sockaddr(out: &mut Out<'_, '_>, bytes: &[u8]) {
    let sockaddr = Sockaddr(bytes);
    let family = sockaddr.family();
    put!(out, "sockaddr{{ len={} family={family}", sockaddr_len(family));
    match (family, sockaddr.exact()) {
        (AF_INET, Some(exact)) => {
            put!(out, " port={}\n", sockaddr.port());
            out.hex(exact.get(4..8).unwrap_or_default());
        }
        (AF_INET6, Some(exact)) => {
            put!(out, " port={}\n", sockaddr.port());
            let flow: [u8; 4] = exact.get(4..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
            let (flow, scope) = (u32::from_ne_bytes(flow), sockaddr.scope_id());
            put!(out, "  flowinfo=0x{flow:08x}, scope_id=0x{scope:08x}\n");
            out.hex(exact.get(8..24).unwrap_or_default());
        }
        _ => {}
    }
    put!(out, "  }}\n");
}

fn put_key(out: &mut Out<'_, '_>, (fixed, rest): (SadbKey, &[u8])) {
    let (bits, len) = (fixed.bits.get(), usize::from(fixed.bits.get() / 8));
    put!(out, "sadb_key{{ bits={bits} reserved={}\n  key=", fixed.reserved.get());
    if len > rest.len() {
        put!(out, "kdebug_sadb_key: key length mismatch, bit:{len} len:{}.\n", rest.len());
    }
    out.hex(rest.get(..len).unwrap_or(rest));
    put!(out, " }}\n");
}

fn put_identity(out: &mut Out<'_, '_>, which: &str, (fixed, rest): (SadbIdent, &[u8])) {
    put!(out, "sadb_ident_{which}{{ type={} id={}", fixed.ident_type.get(), fixed.id.get());
    if !rest.is_empty() {
        put!(out, "\n  str=\"");
        for &byte in rest.split(|&b| b == 0).next().unwrap_or_default() {
            match byte {
                b' '..=b'~' => out.raw(&[byte]),
                _ => put!(out, "\\{byte:03o}"),
            }
        }
        put!(out, "\"");
    }
    put!(out, " }}\n");
}

fn put_proposal(out: &mut Out<'_, '_>, (fixed, mut rest): (SadbProp, &[u8])) {
    put!(out, "sadb_prop{{ replay={}\n", fixed.replay);
    while let Ok((c, next)) = SadbComb::read_from_prefix(rest) {
        put!(out, "sadb_comb{{ auth={} encrypt={} ", c.auth, c.encrypt);
        put!(out, "flags=0x{:04x} reserved=0x{:08x}\n", c.flags.get(), c.reserved.get());
        put!(out, "  auth_minbits={} auth_maxbits={} ", c.auth_minbits.get(), c.auth_maxbits.get());
        put!(out, "encrypt_minbits={} encrypt_maxbits={}\n", c.encrypt_minbits.get(), c.encrypt_maxbits.get());
        put!(out, "  soft_alloc={} hard_alloc={} ", c.soft_allocations.get(), c.hard_allocations.get());
        put!(out, "soft_bytes={} hard_bytes={}\n", c.soft_bytes.get(), c.hard_bytes.get());
        put!(out, "  soft_alloc={} hard_alloc={} ", c.soft_addtime.get(), c.hard_addtime.get());
        put!(out, "soft_bytes={} hard_bytes={} }}\n", c.soft_usetime.get(), c.hard_usetime.get());
        rest = next;
    }
    put!(out, "}}\n");
}

fn put_supported(out: &mut Out<'_, '_>, mut rest: &[u8]) {
    put!(out, "sadb_sup{{\n");
    while let Ok((a, next)) = SadbAlg::read_from_prefix(rest) {
        let (min, max) = (a.minbits.get(), a.maxbits.get());
        put!(out, "  {{ id={} ivlen={} min={min} max={max} }}\n", a.id, a.ivlen);
        rest = next;
    }
    put!(out, "}}\n");
}

fn put_sa2(out: &mut Out<'_, '_>, sa2: SadbXSa2) {
    put!(out, "sadb_x_sa2{{ mode={} reqid={}\n", sa2.mode, sa2.reqid.get());
    let (reserved1, reserved2) = (sa2.reserved1, sa2.reserved2.get());
    put!(out, "  reserved1={reserved1} reserved2={reserved2} sequence={} }}\n", sa2.sequence.get());
}

/// Requests that do not fit end the list, but not the message.
fn put_policy(out: &mut Out<'_, '_>, (p, mut rest): (SadbXPolicy, &[u8])) {
    let (t, dir, id, priority) = (p.policy_type.get(), p.dir, p.id.get(), p.priority.get());
    put!(out, "sadb_x_policy{{ type={t} dir={dir} id={id:x} priority={priority} }}\n");
    if PolicyType(t) != PolicyType::IPSEC {
        return;
    }
    while !rest.is_empty() {
        let Some((r, body)) = read::<SadbXIpsecrequest>(rest) else {
            return put!(out, "invalid ipsec policy length\n");
        };
        let len = usize::from(r.len.get());
        put!(out, " {{ len={len} proto={} mode={} level={} ", r.proto.get(), r.mode, r.level);
        put!(out, "reqid={}\n", r.reqid.get());
        if len > HEADER_LEN {
            let first = sockaddr_len(Sockaddr(body).family());
            put_sockaddr(out, body);
            put_sockaddr(out, body.get(first..).unwrap_or_default());
        }
        put!(out, " }}\n");
        if len == 0 {
            return put!(out, "kdebug_sadb_x_policy: wrong policy struct.\n");
        }
        match rest.get(len..) {
            Some(next) => rest = next,
            None => return put!(out, "invalid ipsec policy length\n"),
        }
    }
}

fn put_kmaddress(out: &mut Out<'_, '_>, (fixed, rest): (SadbXKmaddress, &[u8])) -> Ending {
    let [a, b, c, d] = fixed.reserved.get().to_ne_bytes();
    put!(out, "sadb_x_kmaddress{{ reserved=0x{a:02x}{b:02x}{c:02x}{d:02x} }}\n");
    let mut rest = rest;
    let mut families = [0; 2];
    for (which, family) in ["first", "second"].into_iter().zip(&mut families) {
        let Some(exact) = Sockaddr(rest).exact() else {
            put!(out, "kdebug_sadb_x_kmaddress: not enough data to read {which} sockaddr.\n");
            return Ending::WouldExit;
        };
        put_sockaddr(out, exact);
        *family = Sockaddr(exact).family();
        rest = rest.get(exact.len()..).unwrap_or_default();
    }
    if families[0] != families[1] {
        put!(out, "kdebug_sadb_x_kmaddress:  !!!! Please, note the unexpected mismatch in address family.\n");
    }
    Ending::Complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MessageType, Profile, SaType, SockaddrBytes, Writer};

    fn printed(fill: impl FnOnce(&mut Writer<'_>)) -> (String, Ending) {
        let mut buffer = [0; 256];
        let header = Header::new(MessageType::ADD, SaType::ESP, 0, 0);
        let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
        fill(&mut writer);
        let Kdebug { text, ending } = kdebug_sadb(writer.finish().unwrap());
        (String::from_utf8(text.to_vec()).unwrap(), ending)
    }

    #[test]
    fn a_message_shorter_than_announced_is_printed_as_far_as_it_goes() {
        let header = Header { len: 3, ..Header::new(MessageType::ADD, SaType::ESP, 0, 0) };
        let Kdebug { text, ending } = kdebug_sadb(zerocopy::IntoBytes::as_bytes(&header.to_layout()));
        assert_eq!(ending, Ending::Stopped);
        assert!(text.ends_with(b" pid=0\nkdebug_sadb: message exceeds end of buffer.\n"));
        assert_eq!(kdebug_sadb(&[2; 15]).ending, Ending::Stopped);
    }

    #[test]
    fn a_kmaddress_without_its_second_address_would_end_the_process() {
        let local = SockaddrBytes::new("192.0.2.1".parse().unwrap(), 0);
        let (text, ending) = printed(|writer| {
            writer.kmaddress(local.as_bytes(), &[]);
        });
        assert_eq!(ending, Ending::WouldExit);
        assert!(text.ends_with("kdebug_sadb_x_kmaddress: not enough data to read second sockaddr.\n"));
    }

    #[test]
    fn what_is_cut_short_is_named_and_the_rest_still_printed() {
        let (text, ending) = printed(|writer| {
            let short_sa = [1u16, ExtensionType::SA.0, 0, 0].map(u16::to_ne_bytes).concat();
            let policy = SadbXPolicy { policy_type: PolicyType::IPSEC.0.into(), ..Default::default() };
            writer.raw(&short_sa).policy(policy, &[0; 16]).nat_t_port(ExtensionType::X_NAT_T_SPORT, 4500);
        });
        assert_eq!(ending, Ending::Complete);
        assert!(text.contains("kdebug_sadb: ext_len too short for ext_type 1.\nsadb_ext{ len=4 type=18 }\n"));
        let wrong = " { len=0 proto=0 mode=0 level=0 reqid=0\n }\nkdebug_sadb_x_policy: wrong policy struct.\n";
        assert!(text.contains(wrong));
        assert!(text.ends_with("sadb_x_nat_t_port{ port=4500 }\n"));
    }
}
