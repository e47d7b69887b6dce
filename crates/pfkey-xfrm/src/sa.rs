//! SAs between `struct xfrm_usersa_info` with its attributes and [`Sa`].
#![forbid(unsafe_code)]

use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::algorithm::{Kind, icv_bits, padded};
use super::attached;
use super::attribute::{Attributes, Writer};
use super::layout::{ALGORITHM_NAME, EncapTmpl, Id, Selector as XfrmSelector, UsersaId, UsersaInfo, attribute};
use super::value::{
    ends_from_xfrm, limits_from_xfrm, limits_to_xfrm, mode_from_xfrm, mode_to_xfrm, selector_from_xfrm,
    selector_in_family, selector_to_xfrm, usage,
};
use pfkey_model::attached::AttachedView;
use pfkey_model::sa::{Encap, Key, Limits, Sa, SaId, State, Usage};
use pfkey_model::view::{Failures, KeyView, SaView};
use pfkey_model::xfrm::XfrmView;
use pfkey_wire::address::{family, to_xfrm};
use pfkey_wire::algorithm::Algorithm;
use pfkey_wire::xfrm::{OPTION_PARTIAL, PF_KEYS_FLAGS};
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Extras, IpsecProtocol, Message, SaFlags};

/// `XFRM_STATE_*` flags that PF_KEY has names for.
const FLAGS: [(u8, SaFlags); 3] = [(1, SaFlags::NOECN), (2, SaFlags::DECAP_DSCP), (4, SaFlags::NOPMTUDISC)];

/// The name of an SA in DELSA and GETSA.
pub fn usersa_id(id: &SaId) -> UsersaId {
    UsersaId {
        daddr: to_xfrm(id.dst),
        spi: id.spi.into(),
        family: family(id.dst).into(),
        proto: id.proto.0,
        ..Default::default()
    }
}

/// `sadb_sa_flags` of `XFRM_STATE_*`.
fn flags_from_xfrm(flags: u8) -> SaFlags {
    FLAGS.iter().filter(|(bit, _)| flags & bit != 0).fold(SaFlags::NONE, |all, (_, flag)| all.union(*flag))
}

fn flags_to_xfrm(flags: SaFlags) -> u8 {
    FLAGS.iter().filter(|(_, flag)| flags.contains(*flag)).fold(0, |all, (bit, _)| all | bit)
}

fn selector(sa: &Sa) -> XfrmSelector {
    let device = sa.attached.xfrm.device();
    match &sa.selector {
        Some(selector) => selector_to_xfrm(selector, device),
        None => XfrmSelector { ifindex: device.into(), ..Default::default() },
    }
}

/// The fixed part of an SA.
pub fn usersa_info(sa: &Sa) -> UsersaInfo {
    UsersaInfo {
        sel: selector(sa),
        id: Id { daddr: to_xfrm(sa.ends.dst()), spi: sa.spi.into(), proto: sa.proto.0, ..Default::default() },
        saddr: to_xfrm(sa.ends.src()),
        lft: limits_to_xfrm(&sa.hard, &sa.soft),
        seq: sa.seq.into(),
        reqid: sa.reqid.into(),
        family: family(sa.ends.dst()).into(),
        mode: mode_to_xfrm(sa.mode, sa.attached.xfrm.mode()),
        replay_window: sa.replay,
        flags: flags_to_xfrm(sa.flags) | sa.attached.xfrm.flags(),
        ..Default::default()
    }
}

/// Writes the attributes of an SA; the label is the request's. Algorithms that the protocol has no use for are left
/// out: XFRM refuses what AF_KEY keeps without using it.
pub fn write_attributes(sa: &Sa, request: &Message<'_>, extras: Extras, writer: &mut Writer) {
    let icv_bits = sa.attached.xfrm.icv_bits().or_else(|| implied_icv(sa.auth, extras));
    let mut algorithm = |kind: Kind, id: u8, key: &Key| {
        if let Some(algorithm) = kind.by_id(id) {
            let (name, bits) = (padded(algorithm.kernel), u32::from(key.bits));
            if let Some(icv) = icv_bits.filter(|_| kind == Kind::Auth) {
                writer.attribute(attribute::ALG_AUTH_TRUNC, &[&name, bits.as_bytes(), icv.as_bytes(), &key.bytes]);
            } else {
                writer.attribute(kind.attribute(), &[&name, bits.as_bytes(), &key.bytes]);
            }
        }
    };
    if sa.proto != IpsecProtocol::IPCOMP {
        algorithm(Kind::Auth, sa.auth.0, &sa.auth_key);
    }
    match sa.proto {
        IpsecProtocol::IPCOMP => algorithm(Kind::Compress, sa.encrypt.0, &Key::default()),
        IpsecProtocol::AH => {}
        _ => match Kind::Aead.by_id(sa.encrypt.0) {
            Some(aead) => write_aead(aead, &sa.encrypt_key, writer),
            None => algorithm(Kind::Encrypt, sa.encrypt.0, &sa.encrypt_key),
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
    attached::write(request, &sa.attached, writer);
}

/// The bits of an integrity value that are not AF_KEY's.
fn implied_icv(auth: AuthAlgorithm, extras: Extras) -> Option<u32> {
    (extras.sha256_128 && auth == AuthAlgorithm::X_SHA2_256HMAC).then_some(128)
}

fn write_aead(aead: &Algorithm, key: &Key, writer: &mut Writer) {
    let (bits, icv) = (u32::from(key.bits), icv_bits(aead));
    writer.attribute(attribute::ALG_AEAD, &[&padded(aead.kernel), bits.as_bytes(), icv.as_bytes(), &key.bytes]);
}

/// An algorithm attribute: name and key. `fixed` = bytes between the two.
fn algorithm(payload: &[u8], fixed: usize) -> Option<(&[u8], KeyView<'_>)> {
    let (name, rest) = payload.split_at_checked(ALGORITHM_NAME)?;
    let bits = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
    let key = rest.get(fixed..)?.get(..(bits as usize).div_ceil(8))?;
    Some((name, (u16::try_from(bits).ok()?, key)))
}

/// An algorithm attribute of a kind: number and key.
fn numbered(kind: Kind, payload: &[u8]) -> Option<(u8, KeyView<'_>)> {
    algorithm(payload, 4).map(|(name, key)| (kind.by_name(name).map_or(0, |a| a.id), key))
}

/// An AEAD attribute: number and key of one that PF_KEY can name.
fn aead(payload: &[u8]) -> Option<(u8, KeyView<'_>)> {
    let (name, key) = algorithm(payload, 8)?;
    let icv = u32::from_ne_bytes(*payload.get(ALGORITHM_NAME + 4..)?.first_chunk::<4>()?);
    let aead = Kind::Aead.all().iter().find(|aead| icv_bits(aead) == icv && padded(aead.kernel) == name)?;
    Some((aead.id, key))
}

/// How an SA is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What is offered beyond AF_KEY. It shows AEADs without number and key.
    pub extras: Extras,
    /// The time at which it is decided whether an SA is dying, see [`is_past_soft_limit`]. The kernel does not report it.
    pub judged_at: Option<Duration>,
}

/// An SA that the kernel reports. `None` for one that PF_KEY cannot show (its mode or family). An SA without any algorithm
/// is a larval.
pub fn view<'a>(info: &UsersaInfo, attributes: Attributes<'a>, how: Reading) -> Option<SaView<'a>> {
    let family = info.family.get();
    let ends = ends_from_xfrm(&info.saddr, &info.id.daddr, family)?;
    let (hard, soft) = limits_from_xfrm(&info.lft);
    let usage = usage(&info.curlft);
    let is_dying = how.judged_at.is_some_and(|now| is_past_soft_limit(&soft, &usage, now));
    let grown = if is_dying { State::Dying } else { State::Mature };
    let (mode, in_place_of_tunnel) = mode_from_xfrm(info.mode)?;
    let mut view = SaView {
        state: State::Larval,
        mode,
        replay: info.replay_window,
        flags: flags_from_xfrm(info.flags),
        reqid: info.reqid.get(),
        hard,
        soft,
        usage,
        // A selector without a family is of the SA's family.
        selector: selector_from_xfrm(&info.sel).or_else(|| selector_in_family(&info.sel, family)),
        attached: AttachedView {
            label: None,
            xfrm: XfrmView {
                flags: info.flags & !PF_KEYS_FLAGS,
                options: if is_partial(&info.sel) { OPTION_PARTIAL } else { 0 },
                device: info.sel.ifindex.get(),
                mode: in_place_of_tunnel,
                attributes,
                ..XfrmView::default()
            },
        },
        seq: info.seq.get(),
        failures: Some(failures(info)),
        ..SaView::new(ends, info.id.spi.get(), IpsecProtocol(info.id.proto))
    };
    for (attr_type, payload) in attributes {
        let (encrypt, key) = match attr_type {
            attribute::ALG_AUTH => {
                let (auth, key) = numbered(Kind::Auth, payload).unwrap_or_default();
                (view.state, view.auth, view.auth_key) = (grown, AuthAlgorithm(auth), key);
                continue;
            }
            // ALG_AUTH has the same key.
            attribute::ALG_AUTH_TRUNC => {
                view.state = grown;
                view.attached.xfrm.icv_bits = shown_icv(payload, how.extras);
                continue;
            }
            attribute::ENCAP => {
                let Ok((template, _)) = EncapTmpl::read_from_prefix(payload) else { continue };
                view.encap = Some(Encap {
                    encap_type: template.encap_type.get() as u8,
                    sport: template.sport.get(),
                    dport: template.dport.get(),
                });
                continue;
            }
            attribute::SEC_CTX => {
                view.attached.label = view.attached.label.or_else(|| attached::label_text(payload));
                continue;
            }
            attribute::ALG_CRYPT => numbered(Kind::Encrypt, payload).unwrap_or_default(),
            attribute::ALG_COMP => (numbered(Kind::Compress, payload).unwrap_or_default().0, KeyView::default()),
            attribute::ALG_AEAD if how.extras.aead => aead(payload).unwrap_or_default(),
            attribute::ALG_AEAD => (0, KeyView::default()),
            _ => continue,
        };
        (view.state, view.encrypt, view.encrypt_key) = (grown, EncryptAlgorithm(encrypt), key);
    }
    Some(view)
}

/// `struct xfrm_stats`.
fn failures(info: &UsersaInfo) -> Failures {
    let [too_old, replayed, integrity] = info.stats.map(|count| count.get());
    Failures { too_old, replayed, integrity }
}

/// The bits of an integrity value (`struct xfrm_algo_auth`), if an ADD that says nothing of them would give others.
fn shown_icv(payload: &[u8], extras: Extras) -> Option<u32> {
    let icv = u32::from_ne_bytes(*payload.get(ALGORITHM_NAME + 4..)?.first_chunk()?);
    let algorithm = Kind::Auth.by_name(payload)?;
    let implied = implied_icv(AuthAlgorithm(algorithm.id), extras).unwrap_or_else(|| icv_bits(algorithm));
    (icv != implied || implied != icv_bits(algorithm)).then_some(icv)
}

/// Whether an SA's selector has more than the source that PF_KEY shows, and the network interface.
fn is_partial(selector: &XfrmSelector) -> bool {
    let only_source = XfrmSelector {
        saddr: selector.saddr,
        prefixlen_s: selector.prefixlen_s,
        family: selector.family,
        ifindex: selector.ifindex,
        ..XfrmSelector::default()
    };
    *selector != only_source
}

/// [`view`], as a copy for an engine, which keeps track of dying SAs itself.
pub fn read(info: &UsersaInfo, attributes: Attributes<'_>, extras: Extras) -> Option<Sa> {
    view(info, attributes, Reading { extras, judged_at: None }).map(|view| Sa::from(&view))
}

/// Whether an SA is over a soft limit, judged from outside: true to the second for times; for volumes the kernel
/// looks only when the next packet comes.
pub fn is_past_soft_limit(soft: &Limits, usage: &Usage, now: Duration) -> bool {
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
    use pfkey_engine::{Engine, LINUX};
    use pfkey_hub::{Hub, Queues, Service as _};
    use pfkey_wire::{ExtensionType as Ext, Header, MessageType as M, Profile, SaType, SockaddrBytes};
    use pfkey_wire::{Writer as Request, layout::SadbLifetime, layout::SadbSa};

    const NOW: Duration = Duration::from_secs(1_700_000_000);

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

    /// What an engine answers to a DUMP.
    fn dumped(hub: &mut Hub<Engine>) -> Vec<Vec<u8>> {
        let (id, mut queues) = (hub.open(), Queues::new());
        let mut buffer = [0; 16];
        let dump = Request::new(&mut buffer, Header::new(M::DUMP, SaType::UNSPEC, 1, 1), Profile::Linux);
        hub.receive(id, dump.finish().unwrap(), NOW, &mut queues).unwrap();
        std::iter::from_fn(|| queues.pop(id)).collect()
    }

    /// The order of `struct xfrm_stats`: replay_window, replay, integrity_failed.
    #[test]
    fn refused_packets_are_told_by_their_reason() {
        let info = UsersaInfo { stats: [1.into(), 2.into(), 3.into()], family: 2.into(), ..Default::default() };
        let mut netlink = Writer::default();
        netlink.message(message::NEWSA, REQUEST, 1, 1, &info);
        let (received, _) = split(netlink.bytes()).unwrap();
        let (info, attributes) = received.fixed::<UsersaInfo>().unwrap();
        let how = Reading { extras: Extras::default(), judged_at: None };
        let expected = Failures { too_old: 1, replayed: 2, integrity: 3 };
        assert_eq!(view(info, attributes, how).unwrap().failures, Some(expected));
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
            add(SaType::ESP, SadbSa { encrypt: 3, flags: SaFlags::NOECN.0.into(), ..Default::default() }, v4, |r| {
                r.key(Ext::KEY_ENCRYPT, 192, &[3; 24]);
                let proxy = SockaddrBytes::new("10.0.0.0".parse().unwrap(), 0);
                r.address(Ext::ADDRESS_PROXY, 0, 8, proxy.as_bytes());
            }),
            add(SaType::X_IPCOMP, SadbSa { encrypt: 2, ..Default::default() }, v4, |_| {}),
        ];
        for bytes in requests {
            let mut direct = Hub::new(Engine::with_seed(&LINUX, 1));
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
            let mut decoded = read(info, attributes, Extras::default()).unwrap();
            // The kernel's clock, which a request does not have.
            decoded.usage.add_time = NOW.as_secs();

            let mut other = Hub::new(Engine::with_seed(&LINUX, 1));
            other.engine_mut().know_sa(decoded);
            let (shown, expected) = (dumped(&mut other), dumped(&mut direct));
            assert_eq!(shown, expected, "{request:?}");
            assert_eq!(shown.len(), 1);
        }
    }
}
