//! X_MIGRATE: the peers of a policy and of its SAs move to other addresses (af_key's `pfkey_migrate`, `xfrm_migrate`).

use zerocopy::{FromBytes, IntoBytes};

use super::Engine;
use super::message::sockaddr;
use super::policy::{MAX_TEMPLATES, Template, address_pair};
use super::resolve::policy_index::FlowKey;
use super::sa::{Address, Sa, Selector, State, Usage};
use super::sa_request::init_state;
use super::sadb::{Index, Route};
use super::spd_request::selector;
use crate::keyd::{Audience, Context, Errno};
use crate::wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use crate::wire::{
    ExtensionType as Ext, Header, Message, MessageType, PolicyLevel, PolicyMode, PolicyType, SaType, Writer,
};

/// Where an end was and where it is to be.
#[derive(Clone, Copy)]
struct Endpoints {
    v6: bool,
    saddr: Address,
    daddr: Address,
}

impl Endpoints {
    /// The sockaddrs behind an ipsecrequest.
    fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let (v6, saddr, daddr) = address_pair(bytes)?;
        Ok(Self { v6, saddr, daddr })
    }
}

/// One pair of requests: SAs and templates of this kind move from one place to another.
#[derive(Clone, Copy)]
struct Move {
    proto: u8,
    mode: u8,
    reqid: u32,
    old: Endpoints,
    new: Endpoints,
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

    fn same_source(&self, other: &Self) -> bool {
        (self.proto, self.mode, self.reqid) == (other.proto, other.mode, other.reqid)
            && (self.old.v6, self.old.saddr, self.old.daddr) == (other.old.v6, other.old.saddr, other.old.daddr)
    }

    /// `migrate_tmpl_match`.
    fn fits_template(&self, template: &Template) -> bool {
        let transport = PolicyMode(template.mode) == PolicyMode::TRANSPORT;
        (template.mode, template.proto) == (self.mode, self.proto)
            && (self.reqid == 0 || template.reqid == self.reqid)
            && (transport || (template.saddr, template.daddr) == (self.old.saddr, self.old.daddr))
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

/// `xfrm_migrate_check`.
fn check(moves: &[Move]) -> Result<(), Errno> {
    for (i, one) in moves.iter().enumerate() {
        let nowhere = one.new.saddr == [0; 16] || one.new.daddr == [0; 16];
        if nowhere || moves.iter().skip(i + 1).any(|other| one.same_source(other)) {
            return Err(Errno::EINVAL);
        }
    }
    Ok(())
}

impl Engine {
    /// `pfkey_migrate`. Everything moves or nothing.
    pub(super) fn migrate(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let (v6, selector) = selector(request)?;
        let (ext, requests) = request.policy().ok_or(Errno::EINVAL)?;
        if ext.dir > 3 {
            return Err(Errno::EINVAL);
        }
        let managers = request.kmaddress().map(Endpoints::read).transpose()?;
        let moves = read_moves(requests)?;
        check(&moves)?;
        if ext.dir == 0 {
            return Err(Errno::EINVAL);
        }
        let Selector { saddr, daddr, proto, .. } = selector;
        let flow = FlowKey { v6, saddr, daddr, proto, sport: 0, dport: 0 };
        let policy = self.spd.lookup(ext.dir, &flow).map(|p| p.id).ok_or(Errno::ENOENT)?;

        let moved = self.moved_sas(&moves)?;
        let mut any = false;
        for template in self.spd.templates_mut(policy) {
            let Some(one) = moves.iter().find(|one| one.fits_template(template)) else { continue };
            any = true;
            if PolicyMode(template.mode) != PolicyMode::TRANSPORT {
                (template.v6, template.saddr, template.daddr) = (one.new.v6, one.new.saddr, one.new.daddr);
            }
        }
        if !any {
            return Err(Errno::ENODATA);
        }
        for (index, sa) in moved {
            self.sadb.remove(index);
            let timer = sa.next_check(cx.now.as_secs());
            self.sadb.insert(sa, timer);
        }
        self.announce(ext.dir, v6, &selector, managers, &moves, cx)
    }

    /// The newest SA of each move (`xfrm_migrate_state_find`), as it will be (`xfrm_state_migrate`).
    fn moved_sas(&self, moves: &[Move]) -> Result<Vec<(Index, Sa)>, Errno> {
        let mut moved: Vec<(Index, Sa)> = Vec::new();
        for one in moves {
            let Some(index) = self.sa_of(one) else { continue };
            let Some(mut sa) = self.sadb.get(index).cloned() else { continue };
            sa.said.v6 = one.new.v6;
            sa.said.daddr = one.new.daddr;
            sa.saddr = one.new.saddr;
            // Linux 7.2 keeps an encapsulation only where the request gives one, which PF_KEY's cannot.
            sa.encap = None;
            sa.usage = Usage { add_time: sa.usage.add_time, ..Usage::default() };
            let taken = self.sadb.find(&sa.said).is_some_and(|found| found != index);
            let twice = moved.iter().any(|(_, other)| other.said == sa.said);
            if init_state(&sa).is_err() || taken || twice {
                return Err(Errno::ENODATA);
            }
            moved.push((index, sa));
        }
        Ok(moved)
    }

    fn sa_of(&self, one: &Move) -> Option<Index> {
        let fits = |sa: &Sa| (sa.mode, sa.said.proto) == (one.mode, one.proto) && sa.state != State::Dead;
        if one.reqid != 0 {
            let route = Route { daddr: one.old.daddr, saddr: one.old.saddr, reqid: one.reqid, v6: one.old.v6 };
            return self.sadb.on_route(route).find(|(_, sa)| fits(sa)).map(|(index, _)| index);
        }
        // Without a reqid any will do.
        let here = |sa: &Sa| (sa.said.v6, sa.saddr, sa.said.daddr) == (one.old.v6, one.old.saddr, one.old.daddr);
        self.sadb.select(|sa| fits(sa) && here(sa)).first().copied()
    }

    /// `pfkey_send_migrate`: everybody hears it, with no sequence number.
    fn announce(
        &mut self,
        dir: u8,
        v6: bool,
        selector: &Selector,
        managers: Option<Endpoints>,
        moves: &[Move],
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        let satype = moves.first().map_or(SaType::UNSPEC, |one| SaType::from_protocol(one.proto));
        let header = Header::new(MessageType::X_MIGRATE, satype, 0, 0);
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
        let policy = SadbXPolicy { policy_type: PolicyType::IPSEC.0.into(), dir, ..Default::default() };
        let profile = self.profile;
        self.send(cx, Audience::All, |_, buffer| {
            let mut writer = Writer::new(buffer, header, profile);
            if let Some(k) = managers {
                let (local, remote) = (sockaddr(&k.saddr, k.v6, 0), sockaddr(&k.daddr, k.v6, 0));
                writer.kmaddress(local.as_slice(), remote.as_slice());
            }
            let s = selector;
            writer.address(Ext::ADDRESS_SRC, s.proto, s.splen, sockaddr(&s.saddr, v6, 0).as_slice());
            writer.address(Ext::ADDRESS_DST, s.proto, s.dplen, sockaddr(&s.daddr, v6, 0).as_slice());
            writer.policy(policy, &requests);
            writer.finish()
        })
        .map(|_| ())
    }
}
