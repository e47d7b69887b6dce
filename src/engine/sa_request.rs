//! Requests about SAs, with af_key's checks in af_key's order.

use super::message::Shown;
use super::policy::address;
use super::sa::{Address, Context as SecurityContext, Encap, Key, Limits, Sa, Said, Selector, State};
use super::sadb::AcquireKey;
use super::{Engine, algorithm, matches_protocol};
use crate::keyd::{Audience, Context, Errno};
use crate::wire::layout::{SadbLifetime, SadbSa};
use crate::wire::{ExtensionType as Ext, Header, Message, MessageType, SaFlags, SaType};

/// Linux's replay window for SAs that come through PF_KEY.
const MAX_REPLAY: u8 = 32;
/// `SADB_AALG_MAX`, `SADB_EALG_MAX`, `SADB_X_CALG_MAX`.
const MAX_AUTH: u8 = 251;
const MAX_ENCRYPT: u8 = 253;
const MAX_COMPRESS: u8 = 4;
/// `UDP_ENCAP_ESPINUDP`.
const ENCAP_ESPINUDP: u8 = 2;

/// Source and destination of a message (`present_and_same_family`).
pub(super) fn address_pair(message: &Message<'_>) -> Result<(bool, Address, Address), Errno> {
    let of = |ext| message.address(ext).and_then(|(_, sockaddr)| address(sockaddr)).ok_or(Errno::EINVAL);
    let ((src_v6, src), (dst_v6, dst)) = (of(Ext::ADDRESS_SRC)?, of(Ext::ADDRESS_DST)?);
    if src_v6 == dst_v6 { Ok((src_v6, src, dst)) } else { Err(Errno::EINVAL) }
}

pub(super) fn limits(lifetime: Option<SadbLifetime>) -> Limits {
    lifetime.map_or(Limits::default(), |l| Limits {
        packets: l.allocations.get().into(),
        bytes: l.bytes.get(),
        add_seconds: l.addtime.get(),
        use_seconds: l.usetime.get(),
    })
}

fn key(message: &Message<'_>, ext: Ext) -> Option<Key> {
    let (bits, bytes) = message.key(ext)?;
    Some(Key { bits, bytes: zeroize::Zeroizing::new(bytes.into()) })
}

/// The answer's header: version, seq and pid of the request.
fn answer(request: Header, msg_type: MessageType, satype: SaType) -> Header {
    Header::new(msg_type, satype, request.seq, request.pid)
}

/// `sadb_x_sa2_mode` as the engine keeps it: any is transport.
fn mode(message: &Message<'_>) -> Result<(u8, u32), Errno> {
    match message.sa2() {
        None => Ok((1, 0)),
        Some(sa2) if sa2.mode <= 3 => Ok((sa2.mode.max(1), sa2.reqid.get())),
        Some(_) => Err(Errno::EINVAL),
    }
}

impl Engine {
    /// `pfkey_getspi`.
    pub(super) fn getspi(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let (v6, saddr, daddr) = address_pair(request)?;
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let (mode, reqid) = mode(request)?;
        let now = cx.now.as_secs();

        let by_seq = self
            .sadb
            .find_by_seq(header.seq)
            .filter(|&i| self.sadb.get(i).is_some_and(|sa| sa.said.daddr == daddr && sa.said.v6 == v6));
        let found = by_seq.or_else(|| self.sadb.find_larval(&AcquireKey { daddr, saddr, proto, v6, mode, reqid }));
        let index = match found {
            Some(index) => index,
            None => {
                let said = Said { daddr, spi: 0, proto, v6 };
                let larval = Sa::larval(said, saddr, mode, reqid, now, self.acq_expires);
                let end = now.saturating_add(self.acq_expires);
                self.sadb.insert(larval, Some(end))
            }
        };

        let range = request.spirange();
        let (min, max) = range.map_or((0x100, 0x0fff_ffff), |r| (r.min.get(), r.max.get()));
        let sa_proto = self.sadb.get(index).map_or(0, |sa| sa.said.proto);
        // verify_spi_info
        match sa_proto {
            50 | 51 => {}
            108 if max <= 0xffff => {}
            _ => return Err(Errno::EINVAL),
        }
        if min > max {
            return Err(Errno::EINVAL);
        }
        // A larval keeps the SPI that it has.
        if self.sadb.get(index).is_some_and(|sa| sa.said.spi == 0) {
            let spi = self.choose_spi(min, max, sa_proto).ok_or(Errno::ENOENT)?;
            self.sadb.reindex(index, |sa| sa.said.spi = spi);
        }
        let reply = answer(header, MessageType::GETSPI, SaType::from_protocol(proto));
        self.show(index, reply, Audience::One, Shown::Whole, cx)
    }

    /// An SPI that no SA of the protocol uses (`xfrm_alloc_spi`). Linux draws with replacement and may miss a free
    /// one in a nearly full range; here it is found.
    pub(super) fn choose_spi(&mut self, min: u32, max: u32, proto: u8) -> Option<u32> {
        // The kernel's count of draws overflows to none.
        if (min, max) == (0, u32::MAX) {
            return None;
        }
        let min = min.max(1);
        if min > max {
            return None;
        }
        let count = u64::from(max - min) + 1;
        let start = min + (self.random.next() % count) as u32;
        let spis = self.sadb.spis();
        spis.first_free(start, max, proto).or_else(|| spis.first_free(min, start, proto))
    }

    /// `pfkey_add`: ADD and UPDATE.
    pub(super) fn add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let update = header.msg_type == MessageType::UPDATE;
        let mut sa = self.read_sa(request, cx.now.as_secs())?;
        let notice = answer(header, header.msg_type, sa.satype());
        let existing = self.sadb.find(&sa.said);
        let timer = sa.next_check(cx.now.as_secs());
        if !update {
            if existing.is_some() {
                return Err(Errno::EEXIST);
            }
            let larval = self.answered_by(&sa);
            let index = self.sadb.insert(sa, timer);
            // The larval that this SA answers goes without a message.
            if let Some(larval) = larval {
                self.sadb.remove(larval);
            }
            return self.show(index, notice, Audience::All, Shown::Whole, cx);
        }
        let index = existing.ok_or(Errno::ESRCH)?;
        match self.sadb.get(index).ok_or(Errno::ESRCH)?.state {
            // The new SA takes the larval's place.
            State::Acquire => {
                self.sadb.remove(index);
                let index = self.sadb.insert(sa, timer);
                self.show(index, notice, Audience::All, Shown::Whole, cx)
            }
            State::Valid => {
                self.update_mature(index, &sa, cx)?;
                // What is reported is the request, which was thrown away.
                sa.state = State::Dead;
                self.send_sa(cx, Audience::All, notice, &sa, Shown::Whole).map(|_| ())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The larval that a new SA answers: by sequence number, or by addresses, mode and reqid.
    pub(super) fn answered_by(&self, sa: &Sa) -> Option<u32> {
        let by_seq = self.sadb.find_by_seq(sa.seq).filter(|&i| {
            self.sadb.get(i).is_some_and(|l| (l.said.proto, l.said.daddr) == (sa.said.proto, sa.said.daddr))
        });
        by_seq.or_else(|| self.sadb.find_larval(&AcquireKey::of(sa)))
    }

    /// Shows an SA of the SADB.
    pub(super) fn show(
        &mut self,
        index: u32,
        header: Header,
        audience: Audience,
        shown: Shown,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        self.send(cx, audience, |engine, buffer| match engine.sadb.get(index) {
            Some(sa) => engine.write_sa(buffer, header, sa, shown),
            None => crate::wire::Writer::new(buffer, header, engine.profile).finish(),
        })
        .map(|_| ())
    }

    /// `xfrm_state_update` of an SA in use: limits, encapsulation ports, and a new life.
    fn update_mature(&mut self, index: u32, new: &Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        let Some(sa) = self.sadb.get_mut(index) else { return Err(Errno::ESRCH) };
        match (sa.encap, new.encap) {
            (Some(old), Some(encap)) if old.encap_type == encap.encap_type => sa.encap = new.encap,
            (None, None) => {}
            _ => return Err(Errno::EINVAL),
        }
        sa.hard = new.hard;
        sa.soft = new.soft;
        sa.dying = false;
        let used = sa.usage.use_time != 0;
        let timer = sa.next_check(cx.now.as_secs());
        self.sadb.set_timer(index, timer);
        if used {
            self.check_volume(index, cx);
        }
        Ok(())
    }

    /// `pfkey_msg2xfrm_state` and `xfrm_init_state`.
    fn read_sa(&self, request: &Message<'_>, now: u64) -> Result<Sa, Errno> {
        let header = request.header();
        let ext: SadbSa = request.sa().ok_or(Errno::EINVAL)?;
        let (v6, saddr, daddr) = address_pair(request)?;
        let (hard, soft) = (request.lifetime(Ext::LIFETIME_HARD), request.lifetime(Ext::LIFETIME_SOFT));
        if header.satype == SaType::ESP && !request.has(Ext::KEY_ENCRYPT)
            || header.satype == SaType::AH && !request.has(Ext::KEY_AUTH)
            || hard.is_some() != soft.is_some()
        {
            return Err(Errno::EINVAL);
        }
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let ipcomp = header.satype == SaType::X_IPCOMP;
        if ext.auth > MAX_AUTH || ipcomp && ext.encrypt > MAX_COMPRESS || ext.encrypt > MAX_ENCRYPT {
            return Err(Errno::EINVAL);
        }
        let (auth_key, encrypt_key) = (key(request, Ext::KEY_AUTH), key(request, Ext::KEY_ENCRYPT));
        if auth_key.as_ref().is_some_and(|k| k.bits == 0) && ext.auth != 251
            || encrypt_key.as_ref().is_some_and(|k| k.bits == 0) && ext.encrypt != 11
        {
            return Err(Errno::EINVAL);
        }
        let said = Said { daddr, spi: ext.spi.get(), proto, v6 };
        let mut sa = Sa::new(said, saddr, now);
        sa.context = SecurityContext::of(request)?;
        sa.replay = ext.replay.min(MAX_REPLAY);
        sa.flags = ext.flags.get() & (SaFlags::NOECN | SaFlags::DECAP_DSCP | SaFlags::NOPMTUDISC);
        sa.hard = limits(hard);
        sa.soft = limits(soft);
        if ext.auth != 0 {
            if !algorithm::has_auth(ext.auth) {
                return Err(Errno::ENOSYS);
            }
            sa.auth = ext.auth;
            sa.auth_key = auth_key.unwrap_or_default();
        }
        if ext.encrypt != 0 {
            let known = if ipcomp { algorithm::has_compress(ext.encrypt) } else { algorithm::has_encrypt(ext.encrypt) };
            if !known {
                return Err(Errno::ENOSYS);
            }
            sa.encrypt = ext.encrypt;
            if !ipcomp {
                sa.encrypt_key = encrypt_key.unwrap_or_default();
            }
        }
        (sa.mode, sa.reqid) = mode(request)?;
        if let Some((fixed, sockaddr)) = request.address(Ext::ADDRESS_PROXY) {
            let (proxy_v6, proxy) = address(sockaddr).ok_or(Errno::EINVAL)?;
            sa.selector = Selector { saddr: proxy, splen: fixed.prefixlen, v6: Some(proxy_v6), ..Selector::default() };
        }
        if let Some(encap_type) = request.nat_t_type() {
            sa.encap = Some(Encap {
                encap_type,
                sport: request.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
                dport: request.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
            });
        }
        init_state(&sa)?;
        sa.seq = header.seq;
        Ok(sa)
    }

    /// The SA that a DELETE or GET names (`pfkey_xfrm_state_lookup`).
    fn named(&self, request: &Message<'_>) -> Result<u32, Errno> {
        let ext = request.sa().ok_or(Errno::EINVAL)?;
        let (v6, _, daddr) = address_pair(request)?;
        let proto = request.header().satype.protocol().ok_or(Errno::ESRCH)?;
        self.sadb.find(&Said { daddr, spi: ext.spi.get(), proto, v6 }).ok_or(Errno::ESRCH)
    }

    /// `pfkey_delete`.
    pub(super) fn delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.named(request)?;
        let Some(mut sa) = self.sadb.remove(index) else { return Err(Errno::ESRCH) };
        sa.state = State::Dead;
        let notice = answer(request.header(), MessageType::DELETE, sa.satype());
        self.send_sa(cx, Audience::All, notice, &sa, Shown::Whole)?;
        Ok(())
    }

    /// `pfkey_get`.
    pub(super) fn get(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.named(request)?;
        let reply = answer(request.header(), MessageType::GET, request.header().satype);
        self.show(index, reply, Audience::One, Shown::Whole, cx)
    }

    /// `pfkey_acquire`: a key manager gave up.
    pub(super) fn acquire_failed(&mut self, request: &Message<'_>) -> Result<(), Errno> {
        let header = request.header();
        if header.len != 2 {
            return Err(Errno::EOPNOTSUPP);
        }
        if header.seq == 0 || header.errno == 0 {
            return Ok(());
        }
        if let Some(index) = self.sadb.find_by_seq(header.seq) {
            self.sadb.reindex(index, |sa| sa.state = State::Error);
        }
        Ok(())
    }

    /// `pfkey_flush`: the answer first, then, if something was removed, a notification.
    pub(super) fn flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let doomed = self.sadb.select(|sa| matches_protocol(sa, proto));
        for &index in &doomed {
            self.sadb.remove(index);
        }
        self.send_header(cx, Audience::One, Header { errno: 0, len: 2, ..header })?;
        if !doomed.is_empty() {
            let notice = answer(header, MessageType::FLUSH, SaType::from_protocol(proto));
            self.send_header(cx, Audience::All, notice)?;
        }
        Ok(())
    }
}

/// What `xfrm_init_state` of the SA's protocol refuses.
pub(super) fn init_state(sa: &Sa) -> Result<(), Errno> {
    // The inner family's mode must be the outer's in transport mode.
    if sa.mode == 1 && sa.selector.v6.is_some_and(|v6| v6 != sa.said.v6) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let auth_fits = sa.auth == 0 || algorithm::accepts_auth_key(sa.auth, sa.auth_key.bytes.len());
    match sa.said.proto {
        50 => {
            let cipher_fits = sa.encrypt != 0 && algorithm::accepts_encrypt_key(sa.encrypt, sa.encrypt_key.bytes.len());
            if !cipher_fits || !auth_fits || sa.encap.is_some_and(|e| e.encap_type != ENCAP_ESPINUDP) {
                return Err(Errno::EINVAL);
            }
        }
        51 => {
            if sa.auth == 0 || sa.encap.is_some() || !auth_fits {
                return Err(Errno::EINVAL);
            }
        }
        108 => {
            if sa.encrypt == 0 || sa.encap.is_some() || sa.mode == 3 {
                return Err(Errno::EINVAL);
            }
        }
        _ => return Err(Errno::EPROTONOSUPPORT),
    }
    Ok(())
}
