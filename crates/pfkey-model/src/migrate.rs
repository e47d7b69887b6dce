//! X_MIGRATE's requests and its notification (af_key's `pfkey_migrate` and `pfkey_send_migrate`).

use zerocopy::IntoBytes;

use super::message::write_prefix;
use super::policy::{MAX_TEMPLATES, ends};
use super::read;
use super::sa::Selector;
use pfkey_wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use pfkey_wire::{
    Ends, Errno, ExtensionType as Ext, Header, IpsecProtocol, Message, MessageType, Mode, PolicyDirection, PolicyLevel,
    PolicyType, Requests, SaType, SockaddrBytes, Writer,
};

/// One pair of requests: SAs and templates of this kind move from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// IP protocol.
    pub proto: IpsecProtocol,
    /// `sadb_x_ipsecrequest_mode`, where any was made transport.
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
    /// From where.
    pub old: Ends,
    /// To where.
    pub new: Ends,
}

/// The next ipsecrequest, which has addresses.
fn read_request(requests: &mut Requests<'_>) -> Result<(SadbXIpsecrequest, Ends), Errno> {
    let (request, body) = requests.next().ok_or(Errno::EINVAL)?;
    Ok((request, ends(body)?))
}

impl Move {
    /// `ipsecrequests_to_migrate`: the old request and the new one.
    fn read(requests: &mut Requests<'_>) -> Result<Self, Errno> {
        let ((first, old), (second, new)) = (read_request(requests)?, read_request(requests)?);
        let what = |r: &SadbXIpsecrequest| (r.proto.get(), r.mode, r.reqid.get());
        if what(&first) != what(&second) || Mode(first.mode) > Mode::BEET {
            return Err(Errno::EINVAL);
        }
        // The kernel looks at the low byte of the protocol; mode "any" is transport.
        let proto = IpsecProtocol(first.proto.get() as u8);
        let mode = Mode(first.mode).max(Mode::TRANSPORT);
        Ok(Self { proto, mode, reqid: first.reqid.get(), old, new })
    }
}

/// The pairs of a policy extension.
fn read_moves(bytes: &[u8]) -> Result<Vec<Move>, Errno> {
    let (mut moves, mut requests) = (Vec::new(), Requests::new(bytes));
    while !requests.rest().is_empty() && moves.len() < MAX_TEMPLATES {
        moves.push(Move::read(&mut requests)?);
    }
    if moves.is_empty() || !requests.rest().is_empty() { Err(Errno::EINVAL) } else { Ok(moves) }
}

/// An X_MIGRATE, as a request or a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// `sadb_x_policy_dir`, not checked.
    pub dir: PolicyDirection,
    /// The policy.
    pub selector: Selector,
    /// The key managers' own addresses.
    pub managers: Option<Ends>,
    /// The templates and SAs that move.
    pub moves: Vec<Move>,
}

/// An X_MIGRATE with the checks that `pfkey_migrate` makes itself.
///
/// # Errors
/// EINVAL.
pub fn read_migration(request: &Message<'_>) -> Result<Migration, Errno> {
    let selector = read::selector(request)?;
    let (ext, requests) = request.policy().ok_or(Errno::EINVAL)?;
    let dir = PolicyDirection(ext.dir);
    if dir > PolicyDirection::FWD {
        return Err(Errno::EINVAL);
    }
    let managers = request.kmaddress().map(ends).transpose()?;
    let moves = read_moves(requests)?;
    Ok(Migration { dir, selector, managers, moves })
}

/// The header of the notification, which has no sequence number.
#[must_use]
pub fn migration_header(migration: &Migration) -> Header {
    let satype = migration.moves.first().map_or(SaType::UNSPEC, |one| SaType::from_protocol(one.proto));
    Header::new(MessageType::X_MIGRATE, satype, 0, 0)
}

/// Writes the notification behind its header: the kernel tells no ports.
pub fn write_migration(writer: &mut Writer<'_>, migration: &Migration) {
    write(writer, migration, (0, 0));
}

/// Writes the request behind its header.
pub fn write_migration_request(writer: &mut Writer<'_>, migration: &Migration) {
    write(writer, migration, (migration.selector.sport, migration.selector.dport));
}

fn write(writer: &mut Writer<'_>, migration: &Migration, (sport, dport): (u16, u16)) {
    let Migration { dir, selector, managers, moves } = migration;
    let mut requests = Vec::new();
    for one in moves {
        for ends in [&one.old, &one.new] {
            let (src, dst) = (SockaddrBytes::new(ends.src(), 0), SockaddrBytes::new(ends.dst(), 0));
            let addresses = [src.as_bytes(), dst.as_bytes()].concat();
            let level = if one.reqid == 0 { PolicyLevel::REQUIRE } else { PolicyLevel::UNIQUE };
            let fixed = SadbXIpsecrequest {
                len: ((16 + addresses.len()) as u16).into(),
                proto: u16::from(one.proto.0).into(),
                mode: one.mode.0,
                level: level.0,
                reqid: one.reqid.into(),
                ..Default::default()
            };
            requests.extend_from_slice(fixed.as_bytes());
            requests.extend(addresses);
        }
    }
    let policy = SadbXPolicy { policy_type: PolicyType::IPSEC.0.into(), dir: dir.0, ..Default::default() };
    if let Some(ends) = managers {
        let (local, remote) = (SockaddrBytes::new(ends.src(), 0), SockaddrBytes::new(ends.dst(), 0));
        writer.kmaddress(local.as_bytes(), remote.as_bytes());
    }
    write_prefix(writer, Ext::ADDRESS_SRC, selector.proto, selector.src, sport);
    write_prefix(writer, Ext::ADDRESS_DST, selector.proto, selector.dst, dport);
    writer.policy(policy, &requests);
}
