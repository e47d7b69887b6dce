//! SAs between `struct xfrm_usersa_info` with its attributes and [`Sa`].
#![forbid(unsafe_code)]

use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

use super::algorithm::{Kind, padded};
use super::attribute::{Attributes, Writer};
use super::layout::{ALGORITHM_NAME, EncapTmpl, Id, UsersaId, UsersaInfo, attribute};
use super::value::{
    family, is_v6, label, limits_from_xfrm, limits_to_xfrm, mode_from_xfrm, mode_to_xfrm, selector_from_xfrm,
    selector_to_xfrm, usage, write_label,
};
use crate::afkey::sa::{Encap, Key, Limits, Sa, Said, State, Usage};
use crate::keyd::Time;
use crate::wire::extras::{AEADS, Aead};
use crate::wire::{AuthAlgorithm, Extras, Message, SaFlags};

/// `XFRM_STATE_*` flags that PF_KEY has names for.
const FLAGS: [(u8, u32); 3] = [(1, SaFlags::NOECN), (2, SaFlags::DECAP_DSCP), (4, SaFlags::NOPMTUDISC)];

/// The name of an SA.
pub fn said_from_xfrm(id: &Id, family: u16) -> Option<Said> {
    Some(Said { daddr: id.daddr, spi: id.spi.get(), proto: id.proto, v6: is_v6(family)? })
}

/// A name as DELSA and GETSA want it.
pub fn usersa_id(said: &Said) -> UsersaId {
    UsersaId {
        daddr: said.daddr,
        spi: said.spi.into(),
        family: family(said.v6).into(),
        proto: said.proto,
        ..Default::default()
    }
}

/// `sadb_sa_flags` of `XFRM_STATE_*`.
pub fn flags_from_xfrm(flags: u8) -> u32 {
    FLAGS.iter().filter(|(bit, _)| flags & bit != 0).fold(0, |all, (_, flag)| all | flag)
}

/// What an SA is beside its attributes.
pub fn usersa_info(sa: &Sa) -> UsersaInfo {
    let flags = FLAGS.iter().filter(|(_, flag)| sa.flags & flag != 0).fold(0, |flags, (bit, _)| flags | bit);
    UsersaInfo {
        sel: selector_to_xfrm(&sa.selector),
        id: Id { daddr: sa.said.daddr, spi: sa.said.spi.into(), proto: sa.said.proto, ..Default::default() },
        saddr: sa.saddr,
        lft: limits_to_xfrm(&sa.hard, &sa.soft),
        seq: sa.seq.into(),
        reqid: sa.reqid.into(),
        family: family(sa.said.v6).into(),
        mode: mode_to_xfrm(sa.mode),
        replay_window: sa.replay,
        flags,
        ..Default::default()
    }
}

/// Writes the attributes of an SA; the label is the request's. Algorithms that the protocol has no use for are left
/// out: XFRM refuses what AF_KEY keeps without using it.
pub fn write_attributes(sa: &Sa, request: &Message<'_>, extras: Extras, writer: &mut Writer) {
    let sha256_128 = extras.sha256_128 && sa.auth == AuthAlgorithm::X_SHA2_256HMAC.0;
    let mut algorithm = |kind: Kind, id: u8, key: &Key| {
        if let Some(algorithm) = kind.by_id(id) {
            let (name, bits) = (algorithm.padded_name(), u32::from(key.bits));
            if kind == Kind::Auth && sha256_128 {
                let icv = 128_u32;
                writer.attribute(attribute::ALG_AUTH_TRUNC, &[&name, bits.as_bytes(), icv.as_bytes(), &key.bytes]);
            } else {
                writer.attribute(kind.attribute(), &[&name, bits.as_bytes(), &key.bytes]);
            }
        }
    };
    if sa.said.proto != 108 {
        algorithm(Kind::Auth, sa.auth, &sa.auth_key);
    }
    match sa.said.proto {
        108 => algorithm(Kind::Compress, sa.encrypt, &Key::default()),
        51 => {}
        _ => match Aead::by_id(sa.encrypt) {
            Some(aead) => write_aead(aead, &sa.encrypt_key, writer),
            None => algorithm(Kind::Encrypt, sa.encrypt, &sa.encrypt_key),
        },
    }
    if let Some(encap) = sa.encap {
        let template = EncapTmpl {
            encap_type: u16::from(encap.encap_type).into(),
            sport: encap.sport.into(),
            dport: encap.dport.into(),
            ..Default::default()
        };
        writer.attribute(attribute::ENCAP, &[template.as_bytes()]);
    }
    write_label(request, writer);
}

fn write_aead(aead: &Aead, key: &Key, writer: &mut Writer) {
    let (bits, icv) = (u32::from(key.bits), u32::from(aead.icv));
    writer.attribute(attribute::ALG_AEAD, &[&padded(aead.name), bits.as_bytes(), icv.as_bytes(), &key.bytes]);
}

/// An algorithm attribute: number, key bits, key. `fixed` = bytes between name and key.
fn algorithm(kind: Kind, payload: &[u8], fixed: usize) -> Option<(u8, Key)> {
    let (name, rest) = payload.split_at_checked(ALGORITHM_NAME)?;
    let bits = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
    let bytes = rest.get(fixed..)?.get(..(bits as usize).div_ceil(8))?;
    let key = Key { bits: u16::try_from(bits).ok()?, bytes: Zeroizing::new(bytes.into()) };
    Some((kind.id_of(name), key))
}

/// The number of an AEAD attribute's algorithm, if PF_KEY can name it.
pub fn aead_id(payload: &[u8]) -> Option<u8> {
    let (name, rest) = payload.split_at_checked(ALGORITHM_NAME)?;
    let icv = u32::from_ne_bytes(*rest.get(4..)?.first_chunk::<4>()?);
    AEADS.iter().find(|aead| u32::from(aead.icv) == icv && padded(aead.name) == name).map(|aead| aead.id)
}

/// An AEAD attribute: number and key of one that PF_KEY can name.
fn aead(payload: &[u8]) -> Option<(u8, Key)> {
    let id = aead_id(payload)?;
    algorithm(Kind::Aead, payload, 8).map(|(_, key)| (id, key))
}

/// An SA as the kernel told it. `None` for one that PF_KEY cannot show (its mode or family).
///
/// A larval is one without any algorithm. Whether an SA is dying is not told, see [`is_past_soft_limit`].
pub fn read(info: &UsersaInfo, attributes: Attributes<'_>, extras: Extras) -> Option<Sa> {
    let mut sa = Sa::new(said_from_xfrm(&info.id, info.family.get())?, info.saddr, 0);
    sa.mode = mode_from_xfrm(info.mode)?;
    sa.reqid = info.reqid.get();
    sa.replay = info.replay_window;
    sa.flags = flags_from_xfrm(info.flags);
    (sa.hard, sa.soft) = limits_from_xfrm(&info.lft);
    sa.usage = usage(&info.curlft);
    sa.selector = selector_from_xfrm(&info.sel);
    sa.seq = info.seq.get();
    sa.state = State::Acquire;
    for (attr_type, payload) in attributes {
        match attr_type {
            attribute::ALG_AUTH => {
                sa.state = State::Valid;
                (sa.auth, sa.auth_key) = algorithm(Kind::Auth, payload, 4).unwrap_or_default();
            }
            attribute::ALG_CRYPT => {
                sa.state = State::Valid;
                (sa.encrypt, sa.encrypt_key) = algorithm(Kind::Encrypt, payload, 4).unwrap_or_default();
            }
            attribute::ALG_COMP => {
                sa.state = State::Valid;
                sa.encrypt = algorithm(Kind::Compress, payload, 4).unwrap_or_default().0;
            }
            attribute::ALG_AEAD => {
                sa.state = State::Valid;
                // AF_KEY shows an AEAD without number and key.
                if extras.aead {
                    (sa.encrypt, sa.encrypt_key) = aead(payload).unwrap_or_default();
                }
            }
            // ALG_AUTH says the same.
            attribute::ALG_AUTH_TRUNC => sa.state = State::Valid,
            attribute::ENCAP => {
                let Ok((template, _)) = EncapTmpl::read_from_prefix(payload) else { continue };
                sa.encap = Some(Encap {
                    encap_type: template.encap_type.get() as u8,
                    sport: template.sport.get(),
                    dport: template.dport.get(),
                });
            }
            _ => {}
        }
    }
    sa.context = label(attributes);
    Some(sa)
}

/// Whether an SA is over a soft limit, judged from outside: true to the second for times; for volumes the kernel
/// looks only when the next packet comes.
pub fn is_past_soft_limit(soft: &Limits, usage: &Usage, now: Time) -> bool {
    let now = now.as_secs();
    let reached = |limit: u64, value: u64| limit != 0 && value >= limit;
    // The kernel's timer runs a second after the SA was added.
    let looked_at = now > usage.add_time;
    reached(soft.bytes, usage.bytes) || reached(soft.packets, usage.packets) || looked_at && usage.is_over(soft, now)
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{REQUEST, split};
    use super::super::layout::message;
    use super::*;
    use crate::engine::Engine;
    use crate::keyd::{Hub, Queues};
    use crate::wire::{ExtensionType as Ext, Header, MessageType as M, Profile, SaType, SockaddrBytes};
    use crate::wire::{Writer as Request, layout::SadbLifetime, layout::SadbSa};

    const NOW: Time = Time::from_secs(1_700_000_000);

    fn add(satype: SaType, sa: SadbSa, ends: [&str; 2], more: impl FnOnce(&mut Request<'_>)) -> Vec<u8> {
        let mut buffer = [0; 1024];
        let mut request = Request::new(&mut buffer, Header::new(M::ADD, satype, 7, 1), Profile::Linux);
        request.sa(SadbSa { spi: 0x1234.into(), state: 1, ..sa });
        for (ext, end) in [Ext::ADDRESS_SRC, Ext::ADDRESS_DST].into_iter().zip(ends) {
            let prefix = if end.contains(':') { 128 } else { 32 };
            request.address(ext, 0, prefix, SockaddrBytes::new(end.parse().unwrap(), 0).as_bytes());
        }
        more(&mut request);
        request.finish().unwrap().to_vec()
    }

    /// What an engine says to a DUMP.
    fn dumped(hub: &mut Hub<Engine>) -> Vec<Vec<u8>> {
        let (id, mut queues) = (hub.open(), Queues::new());
        let mut buffer = [0; 16];
        let dump = Request::new(&mut buffer, Header::new(M::DUMP, SaType::UNSPEC, 1, 1), Profile::Linux);
        hub.receive(id, dump.finish().unwrap(), NOW, &mut queues).unwrap();
        std::iter::from_fn(|| queues.pop(id)).collect()
    }

    /// An SA that a program adds is the same SA when it has gone through netlink's NEWSA.
    #[test]
    fn netlinks_bytes_yield_the_same_sa() {
        let (v4, v6) = (["192.0.2.1", "198.51.100.2"], ["2001:db8::1", "2001:db8::2"]);
        let lifetime = |n: u64| SadbLifetime { bytes: (n * 9).into(), addtime: n.into(), ..Default::default() };
        let requests = [
            add(SaType::AH, SadbSa { auth: 3, replay: 32, ..Default::default() }, v4, |r| {
                r.key(Ext::KEY_AUTH, 160, &[7; 20]);
            }),
            add(SaType::ESP, SadbSa { auth: 5, encrypt: 12, replay: 4, ..Default::default() }, v6, |r| {
                r.lifetime(Ext::LIFETIME_HARD, lifetime(3600)).lifetime(Ext::LIFETIME_SOFT, lifetime(3000));
                r.key(Ext::KEY_AUTH, 256, &[1; 32]).key(Ext::KEY_ENCRYPT, 128, &[2; 16]).sa2(2, 77);
            }),
            add(SaType::ESP, SadbSa { encrypt: 11, ..Default::default() }, v4, |r| {
                r.key(Ext::KEY_ENCRYPT, 0, &[]).nat_t(2, 4500, 4501);
            }),
            add(SaType::ESP, SadbSa { encrypt: 3, flags: SaFlags::NOECN.into(), ..Default::default() }, v4, |r| {
                r.key(Ext::KEY_ENCRYPT, 192, &[3; 24]);
                let proxy = SockaddrBytes::new("10.0.0.0".parse().unwrap(), 0);
                r.address(Ext::ADDRESS_PROXY, 0, 8, proxy.as_bytes());
            }),
            add(SaType::X_IPCOMP, SadbSa { encrypt: 2, ..Default::default() }, v4, |_| {}),
        ];
        for bytes in requests {
            let mut direct = Hub::new(Engine::with_seed(Profile::Linux, 1), Profile::Linux);
            let id = direct.open();
            direct.receive(id, &bytes, NOW, &mut Queues::new()).unwrap();
            let request = Message::parse(&bytes, Profile::Linux).unwrap();
            let header = request.header();
            let sadb = direct.engine().sadb();
            let sa = sadb.select(|_| true).into_iter().next().and_then(|i| sadb.get(i)).expect("it was added").clone();

            let mut netlink = Writer::default();
            netlink.message(message::NEWSA, REQUEST, header.seq, header.pid, &usersa_info(&sa));
            write_attributes(&sa, &request, Extras::default(), &mut netlink);
            let (received, _) = split(netlink.bytes()).unwrap();
            let (info, attributes) = received.fixed::<UsersaInfo>().unwrap();
            let mut decoded = read(&info, attributes, Extras::default()).unwrap();
            // The kernel's clock, which a request does not have.
            decoded.usage.add_time = NOW.as_secs();

            let mut other = Hub::new(Engine::with_seed(Profile::Linux, 1), Profile::Linux);
            other.engine_mut().know_sa(decoded);
            let (shown, expected) = (dumped(&mut other), dumped(&mut direct));
            assert_eq!(shown, expected, "{request:?}");
            assert_eq!(shown.len(), 1);
        }
    }
}
