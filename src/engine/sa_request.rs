//! Requests about SAs, with af_key's checks in af_key's order.

use super::message::Shown;
use super::sa::{Context as SecurityContext, Sa, State};
use super::sadb::AcquireKey;
use super::{Engine, algorithm};
use crate::afkey::read::{self, Judge, answer, ends, mode};
use crate::keyd::{Audience, Context, Errno};
use crate::wire::extras::Aead;
use crate::wire::{AuthAlgorithm, EncryptAlgorithm, Extras, Header, IpsecProtocol, Message, MessageType, Mode, SaType};

/// `UDP_ENCAP_ESPINUDP`.
const ENCAP_ESPINUDP: u8 = 2;

/// What this engine has: its table of algorithms, and SELinux without a policy.
struct Own {
    extras: Extras,
    allocated: u64,
}

impl Judge for Own {
    fn has_auth(&mut self, id: u8) -> bool {
        algorithm::has_auth(id)
    }

    fn has_encrypt(&mut self, id: u8) -> bool {
        algorithm::has_encrypt(id) || (self.extras.aead && Aead::by_id(id).is_some())
    }

    fn has_compress(&mut self, id: u8) -> bool {
        algorithm::has_compress(id)
    }

    fn context(&mut self, request: &Message<'_>) -> Result<Option<SecurityContext>, Errno> {
        SecurityContext::of(request)
    }

    fn allocated(&mut self) {
        self.allocated += 1;
    }
}

impl Engine {
    /// `pfkey_getspi`.
    pub(super) fn getspi(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let ends = ends(request)?;
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let (mode, reqid) = mode(request)?;
        let now = cx.now.as_secs();

        let by_seq = self
            .sadb
            .find_by_seq(header.seq)
            .filter(|&i| self.sadb.get(i).is_some_and(|sa| sa.ends.dst() == ends.dst()));
        let found = by_seq.or_else(|| self.sadb.find_larval(&AcquireKey { ends, proto, mode, reqid }));
        let index = match found {
            Some(index) => index,
            None => {
                let larval = Sa::larval(ends, 0, proto, mode, reqid, now, self.acq_expires);
                self.counts.allocated += 1;
                self.sadb.insert(larval, now)
            }
        };

        let (min, max) = read::spi_range(request);
        let sa_proto = self.sadb.get(index).map_or(IpsecProtocol::ANY, |sa| sa.proto);
        // verify_spi_info
        match sa_proto {
            IpsecProtocol::ESP | IpsecProtocol::AH => {}
            IpsecProtocol::IPCOMP if max <= 0xffff => {}
            _ => return Err(Errno::EINVAL),
        }
        if min > max {
            return Err(Errno::EINVAL);
        }
        // A larval keeps the SPI that it has.
        if self.sadb.get(index).is_some_and(|sa| sa.spi == 0) {
            let spi = self.choose_spi(min, max, sa_proto).ok_or(Errno::ENOENT)?;
            self.sadb.edit(index, now, |sa| sa.spi = spi);
        }
        let reply = answer(header, MessageType::GETSPI, SaType::from_protocol(proto));
        self.show(index, reply, Audience::One, Shown::Whole, cx)
    }

    /// An SPI that no SA of the protocol uses (`xfrm_alloc_spi`). Linux draws with replacement and may miss a free
    /// one in a nearly full range; here it is found.
    pub(super) fn choose_spi(&mut self, min: u32, max: u32, proto: IpsecProtocol) -> Option<u32> {
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
        spis.first_free(start, max, proto.0).or_else(|| spis.first_free(min, start, proto.0))
    }

    /// `pfkey_add`: ADD and UPDATE.
    pub(super) fn add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let update = header.msg_type == MessageType::UPDATE;
        let mut own = Own { extras: self.extras, allocated: 0 };
        let read = read::sa(request, cx.now.as_secs(), &mut own);
        self.counts.requests += 1;
        self.counts.allocated += own.allocated;
        let mut sa = read?;
        init_state(&sa)?;
        let notice = answer(header, header.msg_type, sa.satype());
        let existing = self.sadb.find(&sa.id());
        let now = cx.now.as_secs();
        if !update {
            if existing.is_some() {
                return Err(Errno::EEXIST);
            }
            let larval = self.answered_by(&sa);
            let index = self.sadb.insert(sa, now);
            // The larval that this SA answers goes without a message.
            if let Some(larval) = larval {
                self.sadb.remove(larval);
            }
            return self.show(index, notice, Audience::All, Shown::Whole, cx);
        }
        let index = existing.ok_or(Errno::ESRCH)?;
        match self.sadb.get(index).ok_or(Errno::ESRCH)?.state {
            // The new SA takes the larval's place.
            State::Larval => {
                self.sadb.remove(index);
                let index = self.sadb.insert(sa, now);
                self.show(index, notice, Audience::All, Shown::Whole, cx)
            }
            State::Mature | State::Dying => {
                self.update_mature(index, &sa, cx)?;
                // What is reported is the request, which was thrown away.
                sa.state = State::Dead;
                cx.send(Audience::All, notice, |writer| self.write_sa(writer, &sa, Shown::Whole))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The larval that a new SA answers: by sequence number, or by addresses, mode and reqid.
    pub(super) fn answered_by(&self, sa: &Sa) -> Option<u32> {
        let is_for = |larval: &Sa| (larval.proto, larval.ends.dst()) == (sa.proto, sa.ends.dst());
        let by_seq = self.sadb.find_by_seq(sa.seq).filter(|&i| self.sadb.get(i).is_some_and(is_for));
        by_seq.or_else(|| self.sadb.find_larval(&AcquireKey::of(sa)))
    }

    /// Sends a message that shows an SA of the SADB.
    pub(super) fn show(
        &self,
        index: u32,
        header: Header,
        audience: Audience,
        shown: Shown,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        let sa = self.sadb.get(index).ok_or(Errno::ESRCH)?;
        cx.send(audience, header, |writer| self.write_sa(writer, sa, shown))
    }

    /// `xfrm_state_update` of an SA in use: limits, encapsulation ports, and a new life.
    fn update_mature(&mut self, index: u32, new: &Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        let old = self.sadb.get(index).ok_or(Errno::ESRCH)?;
        if old.encap.map(|encap| encap.encap_type) != new.encap.map(|encap| encap.encap_type) {
            return Err(Errno::EINVAL);
        }
        let used = old.usage.use_time != 0;
        self.sadb.edit(index, cx.now.as_secs(), |sa| {
            (sa.hard, sa.soft, sa.state) = (new.hard, new.soft, State::Mature);
            sa.encap = new.encap;
        });
        if used {
            self.check_volume(index, cx);
        }
        Ok(())
    }

    /// The SA that a DELETE or GET names (`pfkey_xfrm_state_lookup`).
    fn named(&self, request: &Message<'_>) -> Result<u32, Errno> {
        self.sadb.find(&read::sa_id(request)?).ok_or(Errno::ESRCH)
    }

    /// `pfkey_delete`.
    pub(super) fn delete(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.named(request)?;
        let Some(mut sa) = self.sadb.remove(index) else { return Err(Errno::ESRCH) };
        sa.state = State::Dead;
        let notice = answer(request.header(), MessageType::DELETE, sa.satype());
        cx.send(Audience::All, notice, |writer| self.write_sa(writer, &sa, Shown::Whole))
    }

    /// `pfkey_get`.
    pub(super) fn get(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.named(request)?;
        let reply = answer(request.header(), MessageType::GET, request.header().satype);
        self.show(index, reply, Audience::One, Shown::Whole, cx)
    }

    /// `pfkey_acquire`: a key manager gave up.
    pub(super) fn acquire_failed(&mut self, request: &Message<'_>, now: u64) -> Result<(), Errno> {
        let header = request.header();
        if header.len != 2 {
            return Err(Errno::EOPNOTSUPP);
        }
        if header.seq == 0 || header.errno == 0 {
            return Ok(());
        }
        if let Some(index) = self.sadb.find_by_seq(header.seq) {
            self.sadb.edit(index, now, |sa| sa.state = State::Refused);
        }
        Ok(())
    }

    /// `pfkey_flush`: the answer first, then, if something was removed, a notification.
    pub(super) fn flush(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
        let doomed = self.sadb.select(|sa| proto.includes(sa.proto));
        for &index in &doomed {
            self.sadb.remove(index);
        }
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        if !doomed.is_empty() {
            let notice = answer(header, MessageType::FLUSH, SaType::from_protocol(proto));
            cx.send_header(Audience::All, notice);
        }
        Ok(())
    }
}

/// What `xfrm_init_state` of the SA's protocol refuses.
pub(super) fn init_state(sa: &Sa) -> Result<(), Errno> {
    // The inner family's mode must be the outer's in transport mode.
    if sa.mode == Mode::TRANSPORT && sa.is_inner_ipv6() != sa.ends.is_ipv6() {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let (has_auth, has_encrypt) = (sa.auth != AuthAlgorithm::NONE, sa.encrypt != EncryptAlgorithm::NONE);
    let auth_fits = !has_auth || algorithm::accepts_auth_key(sa.auth.0, sa.auth_key.bytes.len());
    match sa.proto {
        IpsecProtocol::ESP => {
            let cipher_fits = has_encrypt && algorithm::accepts_encrypt_key(sa.encrypt.0, sa.encrypt_key.bytes.len());
            let both = has_auth && Aead::by_id(sa.encrypt.0).is_some();
            if !cipher_fits || !auth_fits || both || sa.encap.is_some_and(|e| e.encap_type != ENCAP_ESPINUDP) {
                return Err(Errno::EINVAL);
            }
        }
        IpsecProtocol::AH => {
            if !has_auth || sa.encap.is_some() || !auth_fits {
                return Err(Errno::EINVAL);
            }
        }
        IpsecProtocol::IPCOMP => {
            if !has_encrypt || sa.encap.is_some() || sa.mode == Mode::BEET {
                return Err(Errno::EINVAL);
            }
        }
        _ => return Err(Errno::EPROTONOSUPPORT),
    }
    Ok(())
}
