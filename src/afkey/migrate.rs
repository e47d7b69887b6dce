//! X_MIGRATE's requests and its notification (af_key's `pfkey_migrate` and `pfkey_send_migrate`).

use zerocopy::{FromBytes, IntoBytes};

use super::message::sockaddr;
use super::policy::{MAX_TEMPLATES, address_pair};
use super::read;
use super::sa::{Address, Selector};
use crate::keyd::Errno;
use crate::wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use crate::wire::{
    ExtensionType as Ext, Header, Message, MessageType, PolicyLevel, PolicyMode, PolicyType, SaType, Writer,
};

/// Where an end was, or where it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// IPv6.
    pub v6: bool,
    /// Source address.
    pub saddr: Address,
    /// Destination address.
    pub daddr: Address,
}

impl Endpoints {
    /// The sockaddrs behind an ipsecrequest or a KMADDRESS.
    ///
    /// # Errors
    /// EINVAL.
    pub fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let (v6, saddr, daddr) = address_pair(bytes)?;
        Ok(Self { v6, saddr, daddr })
    }
}

/// One pair of requests: SAs and templates of this kind move from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// IP protocol.
    pub proto: u8,
    /// `sadb_x_ipsecrequest_mode`, where 0 was made 1.
    pub mode: u8,
    /// Request id.
    pub reqid: u32,
    /// From where.
    pub old: Endpoints,
    /// To where.
    pub new: Endpoints,
}

/// An ipsecrequest with addresses, and what follows it.
fn read_request(bytes: &[u8]) -> Result<(SadbXIpsecrequest, Endpoints, &[u8]), Errno> {
    let (request, _) = SadbXIpsecrequest::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
    let len = usize::from(request.len.get());
    let endpoints = Endpoints::read(bytes.get(16..len).ok_or(Errno::EINVAL)?)?;
    Ok((request, endpoints, bytes.get(len..).unwrap_or_default()))
}

impl Move {
    /// `ipsecrequests_to_migrate`: the old request and the new one.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Errno> {
        let (first, old, rest) = read_request(bytes)?;
        let (second, new, rest) = read_request(rest)?;
        let what = |r: &SadbXIpsecrequest| (r.proto.get(), r.mode, r.reqid.get());
        if what(&first) != what(&second) || first.mode > PolicyMode::BEET.0 {
            return Err(Errno::EINVAL);
        }
        // The kernel looks at the low byte of the protocol; mode "any" is transport.
        let (proto, mode, reqid) = (first.proto.get() as u8, first.mode.max(1), first.reqid.get());
        Ok((Self { proto, mode, reqid, old, new }, rest))
    }
}

/// The pairs of a policy extension.
fn read_moves(mut bytes: &[u8]) -> Result<Vec<Move>, Errno> {
    let mut moves = Vec::new();
    while !bytes.is_empty() && moves.len() < MAX_TEMPLATES {
        let (one, rest) = Move::read(bytes)?;
        moves.push(one);
        bytes = rest;
    }
    if moves.is_empty() || !bytes.is_empty() { Err(Errno::EINVAL) } else { Ok(moves) }
}

/// What an X_MIGRATE asks, or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// `sadb_x_policy_dir`; 0 is let through by this reading.
    pub dir: u8,
    /// IPv6.
    pub v6: bool,
    /// Which policy.
    pub selector: Selector,
    /// The key managers' own addresses.
    pub managers: Option<Endpoints>,
    /// What moves.
    pub moves: Vec<Move>,
}

/// An X_MIGRATE with the checks that `pfkey_migrate` makes itself.
///
/// # Errors
/// EINVAL.
pub fn read_migration(request: &Message<'_>) -> Result<Migration, Errno> {
    let (v6, selector) = read::selector(request)?;
    let (ext, requests) = request.policy().ok_or(Errno::EINVAL)?;
    if ext.dir > 3 {
        return Err(Errno::EINVAL);
    }
    let managers = request.kmaddress().map(Endpoints::read).transpose()?;
    let moves = read_moves(requests)?;
    Ok(Migration { dir: ext.dir, v6, selector, managers, moves })
}

/// The header of the notification, which has no sequence number.
#[must_use]
pub fn migration_header(migration: &Migration) -> Header {
    let satype = migration.moves.first().map_or(SaType::UNSPEC, |one| SaType::from_protocol(one.proto));
    Header::new(MessageType::X_MIGRATE, satype, 0, 0)
}

/// Writes the notification behind its header.
pub fn write_migration(writer: &mut Writer<'_>, migration: &Migration) {
    let Migration { dir, v6, selector: s, managers, moves } = migration;
    let mut requests = Vec::new();
    for one in moves {
        for ends in [&one.old, &one.new] {
            let (src, dst) = (sockaddr(&ends.saddr, ends.v6, 0), sockaddr(&ends.daddr, ends.v6, 0));
            let addresses = [src.as_slice(), dst.as_slice()].concat();
            let level = if one.reqid == 0 { PolicyLevel::REQUIRE } else { PolicyLevel::UNIQUE };
            let fixed = SadbXIpsecrequest {
                len: ((16 + addresses.len()) as u16).into(),
                proto: u16::from(one.proto).into(),
                mode: one.mode,
                level: level.0,
                reqid: one.reqid.into(),
                ..Default::default()
            };
            requests.extend_from_slice(fixed.as_bytes());
            requests.extend(addresses);
        }
    }
    let policy = SadbXPolicy { policy_type: PolicyType::IPSEC.0.into(), dir: *dir, ..Default::default() };
    if let Some(k) = managers {
        let (local, remote) = (sockaddr(&k.saddr, k.v6, 0), sockaddr(&k.daddr, k.v6, 0));
        writer.kmaddress(local.as_slice(), remote.as_slice());
    }
    writer.address(Ext::ADDRESS_SRC, s.proto, s.splen, sockaddr(&s.saddr, *v6, 0).as_slice());
    writer.address(Ext::ADDRESS_DST, s.proto, s.dplen, sockaddr(&s.daddr, *v6, 0).as_slice());
    writer.policy(policy, &requests);
}
