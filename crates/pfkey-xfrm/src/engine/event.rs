//! The kernel's notifications, decoded. No I/O and no state: bytes go in, an [`Event`] comes out.
#![forbid(unsafe_code)]

use super::acquire::Acquire;
use crate::attribute::{Attributes, Received};
use crate::layout::{
    UserExpire, UserMapping, UserMigrateState, UserPolexpire, UserpolicyId, UserpolicyInfo, UsersaId, UsersaInfo,
    attribute, message,
};
use crate::policy;
use crate::sa::read;
use crate::value::ends_from_xfrm;
use pfkey_model::migrate::Migration;
use pfkey_model::policy::Policy;
use pfkey_model::sa::{Sa, SaId};
use pfkey_model::xfrm::XfrmView;
use pfkey_wire::address::from_xfrm;
use pfkey_wire::xfrm::{Mark, attribute::MARK};
use pfkey_wire::{Ends, Extras, IpsecProtocol};

/// The request that caused an event, of whatever process: PF_KEY's sequence number and process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`.
    pub pid: u32,
}

impl Origin {
    /// The origin that a message names.
    pub const fn of(received: &Received<'_>) -> Self {
        Self { seq: received.seq, pid: received.pid }
    }
}

/// A NAT-T peer has another address (`XFRM_MSG_MAPPING`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The SA.
    pub id: SaId,
    /// Where the peer was, and where it is.
    pub moved: Ends,
    /// The port that it had.
    pub old_port: u16,
    /// The port that it has.
    pub new_port: u16,
}

/// An event that PF_KEY has a message for, or that changes what the engine remembers.
#[derive(Debug)]
pub enum Event {
    /// An SA was added.
    SaAdded(Sa),
    /// A larval became an SA, or an SA was changed.
    SaUpdated(Sa),
    /// An SA was deleted.
    SaDeleted(Sa),
    /// All SAs of a protocol were deleted.
    SasFlushed(IpsecProtocol),
    /// An SA reached a limit. The event lacks its attributes.
    SaExpired { sa: Sa, hard: bool },
    /// The kernel wants an SA.
    SaWanted(Acquire),
    /// A NAT-T peer moved.
    MappingChanged(Mapping),
    /// A policy was added.
    PolicyAdded(Policy),
    /// A policy took the place of one with its selector.
    PolicyUpdated(Policy),
    /// A policy was deleted, by its number or by its selector.
    PolicyDeleted { policy: Policy, by_id: bool },
    /// A policy with this number reached a limit.
    PolicyExpired { id: u32, hard: bool },
    /// All policies were deleted.
    PoliciesFlushed,
    /// Policies and their SAs moved.
    Migrated(Migration),
    /// The same where PF_KEY cannot show it: policies of type sub, an unknown mode.
    MigratedUnshowable,
    /// One SA moved (`XFRM_MSG_MIGRATE_STATE`, since Linux 7.2): it has another name, and perhaps another reqid.
    SaMoved { old: SaId, new: SaId, reqid: u32 },
    /// An SA or a policy was added that PF_KEY cannot show. These reqids are in use now.
    Unshowable(Vec<u32>),
}

impl Event {
    /// Decodes an event; `None` if it is none of these, or not whole.
    pub fn decode(received: &Received<'_>, extras: Extras) -> Option<Self> {
        match received.msg_type {
            message::NEWSA => sa(received, extras, Self::SaAdded),
            message::UPDSA => sa(received, extras, Self::SaUpdated),
            message::DELSA => deleted_sa(received, extras).map(Self::SaDeleted),
            message::FLUSHSA => match received.body.first()? {
                // Every protocol, as for the kernel (`xfrm_id_proto_match`); `ip xfrm state flush` sends 0.
                0 => Some(Self::SasFlushed(IpsecProtocol::ANY)),
                proto => Some(Self::SasFlushed(IpsecProtocol(*proto))),
            },
            message::EXPIRE => {
                let (expire, attributes) = received.fixed::<UserExpire>()?;
                let sa = read(&expire.state, attributes, extras)?;
                Some(Self::SaExpired { sa, hard: expire.hard != 0 })
            }
            message::ACQUIRE => Acquire::decode(received).map(Self::SaWanted),
            message::MAPPING => mapping(received).map(Self::MappingChanged),
            message::NEWPOLICY => policy(received, Self::PolicyAdded),
            message::UPDPOLICY => policy(received, Self::PolicyUpdated),
            message::DELPOLICY => {
                let (id, attributes) = received.fixed::<UserpolicyId>()?;
                let policy = policy::read(&attributes.read::<UserpolicyInfo>(attribute::POLICY)?, attributes)?;
                // The kernel sends either the number or the selector.
                Some(Self::PolicyDeleted { policy, by_id: id.index.get() != 0 })
            }
            message::POLEXPIRE => {
                let (expire, _) = received.fixed::<UserPolexpire>()?;
                Some(Self::PolicyExpired { id: expire.pol.index.get(), hard: expire.hard != 0 })
            }
            message::FLUSHPOLICY => policy::is_main(Attributes(received.body)).then_some(Self::PoliciesFlushed),
            message::MIGRATE => {
                let (id, attributes) = received.fixed::<UserpolicyId>()?;
                Some(policy::read_migration(id, attributes).map_or(Self::MigratedUnshowable, Self::Migrated))
            }
            message::MIGRATE_STATE => moved_sa(received),
            _ => None,
        }
    }
}

fn sa(received: &Received<'_>, extras: Extras, event: fn(Sa) -> Event) -> Option<Event> {
    let (info, attributes) = received.fixed::<UsersaInfo>()?;
    Some(read(info, attributes, extras).map_or_else(|| Event::Unshowable(vec![info.reqid.get()]), event))
}

fn deleted_sa(received: &Received<'_>, extras: Extras) -> Option<Sa> {
    let (id, attributes) = received.fixed::<UsersaId>()?;
    match attributes.read::<UsersaInfo>(attribute::SA) {
        Some(info) => read(&info, attributes, extras),
        // Older kernels send the name only.
        None => {
            let ends = ends_from_xfrm(&[0; 16], &id.daddr, id.family.get())?;
            Some(Sa::new(ends, id.spi.get(), IpsecProtocol(id.proto), 0))
        }
    }
}

fn moved_sa(received: &Received<'_>) -> Option<Event> {
    let (moved, attributes) = received.fixed::<UserMigrateState>()?;
    let UserMigrateState { id, new_daddr, new_family, new_reqid, .. } = moved;
    let [value, mask] = moved.old_mark.map(|part| part.get());
    let before = Mark { value, mask };
    let after =
        if attributes.payload(MARK).is_some() { XfrmView { attributes, ..XfrmView::default() }.mark() } else { before };
    let name = |daddr, family, mark: Mark| {
        let named = SaId::new(from_xfrm(daddr, family)?, id.spi.get(), IpsecProtocol(id.proto));
        Some(SaId { mark: mark.masked(), ..named })
    };
    Some(Event::SaMoved {
        old: name(&id.daddr, id.family.get(), before)?,
        new: name(new_daddr, new_family.get(), after)?,
        reqid: new_reqid.get(),
    })
}

fn policy(received: &Received<'_>, event: fn(Policy) -> Event) -> Option<Event> {
    let (info, attributes) = received.fixed::<UserpolicyInfo>()?;
    let reqids = || policy::templates(attributes).map(|template| template.reqid.get()).collect();
    Some(policy::read(info, attributes).map_or_else(|| Event::Unshowable(reqids()), event))
}

/// `pfkey_send_new_mapping` is for ESP only.
fn mapping(received: &Received<'_>) -> Option<Mapping> {
    let (mapping, _) = received.fixed::<UserMapping>()?;
    let (name, family) = (&mapping.id, mapping.id.family.get());
    let id = SaId::new(from_xfrm(&name.daddr, family)?, name.spi.get(), IpsecProtocol(name.proto));
    let moved = ends_from_xfrm(&mapping.old_saddr, &mapping.new_saddr, family)?;
    let ports = (mapping.old_sport.get(), mapping.new_sport.get());
    (id.proto == IpsecProtocol::ESP).then_some(Mapping { id, moved, old_port: ports.0, new_port: ports.1 })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::attribute::{Writer, split};
    use pfkey_model::sa::{Selector, State};
    use pfkey_wire::{AuthAlgorithm as A, EncryptAlgorithm as E, Mode, PolicyDirection};

    /// The notifications of Linux 7.2 (`tests/kernel/record-events`): the commands that caused them, and the messages.
    fn recorded() -> Vec<(&'static str, Vec<u8>)> {
        let text = include_str!("../../../../tests/transcripts/7.2/xfrm-events.txt");
        let bytes =
            |hex: &str| (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect();
        let event = |block: &'static str| {
            let (cause, hex) = block.split_once('\n').unwrap();
            (cause, bytes(&hex.replace('\n', "")))
        };
        text.split("== ").skip(1).map(event).collect()
    }

    fn decode(bytes: &[u8], extras: Extras) -> Option<Event> {
        Event::decode(&split(bytes)?.0, extras)
    }

    /// The events of one kind, in order.
    fn events(kind: &str) -> Vec<Option<Event>> {
        let of_kind = recorded().into_iter().filter(|(cause, _)| cause.split(':').next() == Some(kind));
        of_kind.map(|(_, bytes)| decode(&bytes, Extras::default())).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ends(src: &str, dst: &str) -> Ends {
        Ends::new(ip(src), ip(dst)).unwrap()
    }

    #[test]
    #[cfg_attr(
        any(target_endian = "big", target_arch = "x86"),
        ignore = "recorded on little-endian machines of 64 bits"
    )]
    fn a_kernels_events_of_sas_are_what_was_done() {
        let [
            Some(Event::SaAdded(tunnel)),
            Some(Event::SaAdded(v6)),
            Some(Event::SaAdded(aead)),
            Some(Event::SaAdded(_)),
        ] = &events("NEWSA")[..]
        else {
            panic!("{:?}", events("NEWSA"))
        };
        assert_eq!(tunnel.ends, ends("192.0.2.1", "192.0.2.2"));
        assert_eq!((tunnel.spi, tunnel.proto), (0x1001, IpsecProtocol::ESP));
        assert_eq!((tunnel.reqid, tunnel.mode), (7, Mode::TUNNEL));
        assert_eq!((tunnel.auth, tunnel.encrypt), (A::SHA1HMAC, E::X_AESCBC));
        assert_eq!((&tunnel.auth_key.bytes[..], &tunnel.encrypt_key.bytes[..]), (&[10; 20][..], &[11; 16][..]));
        let selector = tunnel.selector.as_deref().expect("a selector");
        assert_eq!((selector.src.to_string(), selector.dst.to_string()), ("10.0.0.0/8".into(), "10.1.0.0/16".into()));
        assert_eq!((v6.ends, v6.proto), (ends("2001:db8::1", "2001:db8::3"), IpsecProtocol::AH));
        assert_eq!((v6.reqid, v6.auth, v6.encrypt), (20_000, A::SHA1HMAC, E::NONE));
        let encap = aead.encap.expect("ESP in UDP");
        assert_eq!((encap.encap_type, encap.sport, encap.dport), (2, 4500, 4501));
        assert_eq!((aead.state, aead.encrypt), (State::Mature, E::NONE), "AF_KEY shows an AEAD without number and key");

        let [Some(Event::SaUpdated(updated))] = &events("UPDSA")[..] else { panic!("{:?}", events("UPDSA")) };
        assert_eq!((updated.id(), updated.hard.add_seconds), (tunnel.id(), 3600));
        let [Some(Event::SaExpired { sa: expired, hard: true })] = &events("EXPIRE")[..] else {
            panic!("{:?}", events("EXPIRE"))
        };
        assert_eq!((expired.ends.dst(), expired.spi, expired.hard.add_seconds), (ip("192.0.2.4"), 0x1004, 1));
        let [Some(Event::SaDeleted(deleted))] = &events("DELSA")[..] else { panic!("{:?}", events("DELSA")) };
        assert_eq!((deleted.id(), deleted.ends), (aead.id(), aead.ends));
        assert!(matches!(events("FLUSHSA")[..], [Some(Event::SasFlushed(IpsecProtocol::ANY))]));
        let [Some(Event::SaWanted(acquire))] = &events("ACQUIRE")[..] else { panic!("{:?}", events("ACQUIRE")) };
        assert_eq!((acquire.ends, acquire.proto), (ends("192.0.2.1", "192.0.2.77"), IpsecProtocol::ESP));
    }

    #[test]
    #[cfg_attr(
        any(target_endian = "big", target_arch = "x86"),
        ignore = "recorded on little-endian machines of 64 bits"
    )]
    fn a_kernels_events_of_policies_are_what_was_done() {
        let added = events("NEWPOLICY");
        let [
            Some(Event::PolicyAdded(tunnel)),
            Some(Event::PolicyAdded(block)),
            Some(Event::Unshowable(route_optimisation)),
            Some(Event::PolicyAdded(of_type_sub)),
            Some(Event::PolicyAdded(forward)),
            Some(Event::PolicyAdded(_)),
        ] = &added[..]
        else {
            panic!("{added:?}")
        };
        assert_eq!((tunnel.dir, tunnel.priority, tunnel.block), (PolicyDirection::OUTBOUND, 5, false));
        let Selector { src, dst, .. } = tunnel.selector;
        assert_eq!((src.to_string(), dst.to_string()), ("10.0.0.0/8".into(), "10.1.0.0/16".into()));
        let [template] = &tunnel.templates[..] else { panic!("{tunnel:?}") };
        assert_eq!((template.proto, template.mode, template.reqid), (IpsecProtocol::ESP, Mode::TUNNEL, 7));
        assert_eq!(template.ends, ends("192.0.2.1", "192.0.2.2"));
        assert_eq!((block.dir, block.block, block.selector.sport), (PolicyDirection::INBOUND, true, 80));
        assert_eq!(block.selector.dst.to_string(), "2001:db8:2::/48");
        assert_eq!(route_optimisation, &vec![17_000]);
        assert!(of_type_sub.attached.xfrm.is_sub() && !tunnel.attached.xfrm.is_sub());
        assert_eq!((forward.dir, forward.hard.add_seconds), (PolicyDirection::FWD, 1));

        let [Some(Event::PolicyUpdated(updated))] = &events("UPDPOLICY")[..] else {
            panic!("{:?}", events("UPDPOLICY"))
        };
        assert_eq!((updated.id, updated.priority, updated.templates[0].reqid), (tunnel.id, 6, 9));
        let [Some(Event::PolicyExpired { id, hard: true })] = events("POLEXPIRE")[..] else {
            panic!("{:?}", events("POLEXPIRE"))
        };
        assert_eq!(id, forward.id);
        let [Some(Event::Migrated(migration))] = &events("MIGRATE")[..] else { panic!("{:?}", events("MIGRATE")) };
        let [one] = &migration.moves[..] else { panic!("{migration:?}") };
        assert_eq!((migration.dir, one.proto, one.mode), (PolicyDirection::OUTBOUND, IpsecProtocol::ESP, Mode::TUNNEL));
        assert_eq!(one.reqid, 9);
        assert_eq!((one.old, one.new), (ends("192.0.2.1", "192.0.2.2"), ends("192.0.2.1", "192.0.2.5")));
        let [
            Some(Event::PolicyDeleted { policy: first, by_id: false }),
            Some(Event::PolicyDeleted { policy: second, by_id: true }),
        ] = &events("DELPOLICY")[..]
        else {
            panic!("{:?}", events("DELPOLICY"))
        };
        assert_eq!((first.id, second.id), (block.id, tunnel.id));
        assert!(matches!(events("FLUSHPOLICY")[..], [None, Some(Event::PoliciesFlushed)]), "the first is of type sub");
    }

    /// `struct xfrm_user_mapping` of `linux/xfrm.h`, byte for byte: the recorded kernel has no peer that moves.
    #[test]
    fn a_peer_that_moves_is_one_of_esp() {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&[192, 0, 2, 2]);
        bytes[16..20].copy_from_slice(&0x1001_u32.to_be_bytes());
        bytes[20..22].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[28..32].copy_from_slice(&[192, 0, 2, 1]);
        bytes[44..48].copy_from_slice(&[198, 51, 100, 7]);
        bytes[60..64].copy_from_slice(&[0x11, 0x94, 0xea, 0x60]);
        let mut mapping = |proto| {
            bytes[22] = proto;
            let mut writer = Writer::default();
            writer.message(message::MAPPING, 0, 0, 0, &bytes);
            decode(writer.bytes(), Extras::default())
        };
        let Some(Event::MappingChanged(Mapping { id, moved, old_port, new_port })) = mapping(50) else {
            panic!("a mapping")
        };
        assert_eq!(id, SaId::new(ip("192.0.2.2"), 0x1001, IpsecProtocol::ESP));
        assert_eq!((moved, old_port, new_port), (ends("192.0.2.1", "198.51.100.7"), 4500, 60_000));
        assert!(mapping(51).is_none());
    }

    /// As Linux 7.2 told it: SPI 0x300 of AH, from 10.0.0.2 to 10.0.0.9, with reqid 55.
    #[test]
    #[cfg_attr(target_endian = "big", ignore = "recorded on a little-endian machine")]
    fn an_sa_that_moves_alone_has_another_name() {
        let mut bytes = [0; 132];
        bytes[..4].copy_from_slice(&[10, 0, 0, 2]);
        bytes[16..24].copy_from_slice(&[0, 0, 3, 0, 2, 0, 0x33, 0]);
        bytes[24..28].copy_from_slice(&[10, 0, 0, 9]);
        bytes[40..44].copy_from_slice(&[10, 0, 0, 1]);
        bytes[104] = 2;
        bytes[120] = 0x37;
        bytes[128] = 2;
        let moved = |bytes: &[u8; 132], mark: Option<[u8; 8]>| {
            let mut writer = Writer::default();
            writer.message(message::MIGRATE_STATE, 0, 1, 77, bytes);
            mark.map(|mark| writer.attribute(MARK, &[&mark]).bytes().len());
            let event = decode(writer.bytes(), Extras::default());
            let Some(Event::SaMoved { old, new, reqid }) = event else { panic!("{event:?}") };
            (old, new, reqid)
        };
        let [old, new] = ["10.0.0.2", "10.0.0.9"].map(|dst| SaId::new(ip(dst), 0x300, IpsecProtocol::AH));
        assert_eq!(moved(&bytes, None), (old, new, 55));
        bytes[56..64].copy_from_slice(&[5, 0, 0, 0, 0xff, 0, 0, 0]);
        let marked = |id, mark| SaId { mark, ..id };
        assert_eq!(moved(&bytes, None), (marked(old, 5), marked(new, 5), 55), "it keeps its mark");
        assert_eq!(moved(&bytes, Some([6, 0, 0, 0, 7, 0, 0, 0])), (marked(old, 5), marked(new, 6), 55));
        assert_eq!(moved(&bytes, Some([0; 8])), (marked(old, 5), new, 55));
    }

    #[test]
    fn an_event_that_is_not_whole_is_none() {
        for (cause, bytes) in recorded().into_iter().filter(|(cause, _)| !cause.starts_with("FLUSH")) {
            for len in 16..bytes.len() {
                let mut part = bytes[..len].to_vec();
                part[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                // Attributes may be missing; the fixed part may not, of which a deleted SA's name is the shortest.
                let decoded = decode(&part, Extras::default()).is_some();
                assert!(!decoded || len >= 16 + 24, "{cause}: {len} bytes of {}", bytes.len());
            }
        }
    }

    proptest! {
        /// No bytes are too strange: recorded events with some of their bytes changed.
        #[test]
        fn any_event_is_decoded_or_passed_over(
            which in 0_usize..64,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            aead: bool,
        ) {
            let all = recorded();
            let mut bytes = all[which % all.len()].1.clone();
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at.index(len)] = byte;
            }
            let _ = decode(&bytes, Extras { aead, sha256_128: false });
        }
    }
}
