//! Requests about SAs.

use std::fmt;

use super::message::Part;
use super::sa::{Sa, SaId, State};
use super::sadb::{AcquireKey, Index};
use super::spd::Spd;
use super::{Engine, SaCounts, algorithm};
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::judge::Judge;
use pfkey_model::label::SecurityLabel;
use pfkey_model::read::answer;
use pfkey_model::request::GetSpi;
use pfkey_wire::xfrm::{Name, attribute, attribute_info};
use pfkey_wire::{
    AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Extras, Header, IpsecProtocol, Message, MessageType, Mode,
    SaType,
};

/// `UDP_ENCAP_ESPINUDP`.
const ENCAP_ESPINUDP: u8 = 2;

/// The attributes of an SA in use that an UPDATE changes (`xfrm_state_update`).
const UPDATED: [u16; 4] = [attribute::IF_ID, attribute::SET_MARK, attribute::SET_MARK_MASK, attribute::MTIMER_THRESH];

/// What concerns packets is kept for the data plane, as algorithms are. Of what decides which SA a packet takes, the mark, the
/// interfaces and the direction are looked at. What a data plane in userspace cannot do is refused, unless the engine is a copy.
pub(super) fn has_attribute(number: u16, is_copy: bool) -> Result<(), Errno> {
    let is_known = attribute_info(number).is_some();
    let is_a_kernels = matches!(
        number,
        attribute::OFFLOAD_DEV
            | attribute::SA_PCPU
            | attribute::POLICY_TYPE
            | attribute::MODE
            | attribute::IPTFS_DROP_TIME..=attribute::IPTFS_PKT_SIZE
    );
    if is_known && (is_copy || !is_a_kernels) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// How this engine judges requests: by its table of algorithms, as SELinux without a policy, and by the reqids of its SPD.
pub(super) struct EngineJudge<'e> {
    pub(super) extras: Extras,
    pub(super) is_copy: bool,
    pub(super) spd: &'e mut Spd,
    pub(super) counts: &'e mut SaCounts,
    pub(super) why: &'e mut Option<String>,
}

impl Judge for EngineJudge<'_> {
    fn has_auth(&mut self, id: AuthAlgorithm) -> bool {
        algorithm::has_auth(id)
    }

    fn has_encrypt(&mut self, id: EncryptAlgorithm) -> bool {
        algorithm::has_encrypt(id) || (self.extras.aead && algorithm::is_aead(id))
    }

    fn has_compress(&mut self, id: CompressionAlgorithm) -> bool {
        algorithm::has_compress(id)
    }

    fn label(&mut self, request: &Message<'_>) -> Result<Option<SecurityLabel>, Errno> {
        SecurityLabel::of(request)
    }

    fn new_reqid(&mut self) -> Option<u32> {
        self.spd.new_reqid()
    }

    fn attribute(&mut self, number: u16) -> Result<(), Errno> {
        has_attribute(number, self.is_copy)
            .inspect_err(|_| self.explain(&format_args!("{}: only a kernel does this", Name(number))))
    }

    fn explain(&mut self, why: &dyn fmt::Display) {
        *self.why = Some(why.to_string());
    }

    fn requested(&mut self) {
        self.counts.requests += 1;
    }

    fn allocated(&mut self) {
        self.counts.allocated += 1;
    }
}

impl Engine {
    /// `pfkey_getspi`.
    pub(super) fn getspi(&mut self, header: Header, wanted: &GetSpi, cx: &mut Context<'_>) -> Result<(), Errno> {
        let GetSpi { ends, proto, mode, reqid, range: (min, max), .. } = *wanted;
        let (mark, if_id) = (wanted.xfrm.mark().masked(), wanted.xfrm.if_id());
        let now = cx.now.as_secs();
        let by_seq = self.sadb.find_by_seq(header.seq).filter(|&i| {
            self.sadb.get(i).is_some_and(|sa| sa.ends.dst() == ends.dst() && sa.attached.xfrm.mark().covers(mark))
        });
        let found = by_seq.or_else(|| self.sadb.find_larval(&AcquireKey { ends, proto, mode, reqid, mark, if_id }));
        // A larval keeps the SPI that it has.
        let larval = found.and_then(|index| self.sadb.get(index));
        let (sa_proto, has_spi) = larval.map_or((proto, false), |sa| (sa.proto, sa.spi != 0));
        let spi = verify_spi_range(min, max, sa_proto).and_then(|()| match has_spi {
            true => Ok(None),
            false => self.choose_spi(min, max, sa_proto).map(Some).ok_or(Errno::ENOENT),
        });
        let index = match (found, spi) {
            (Some(index), Ok(Some(spi))) => {
                self.sadb.edit(index, now, |sa| sa.spi = spi);
                index
            }
            (Some(index), _) => index,
            // A new larval stays, though there may be no SPI for it.
            (None, spi) => {
                let spi = spi.ok().flatten().unwrap_or(0);
                let mut larval = Sa::larval(ends, spi, proto, mode, reqid, now, self.acq_expires);
                larval.attached.xfrm.clone_from(&wanted.xfrm);
                self.counts.allocated += 1;
                self.sadb.insert(larval, now)
            }
        };
        spi?;
        let reply = answer(header, MessageType::GETSPI, SaType::from_protocol(proto));
        self.show(index, reply, Audience::One, Part::Whole, cx)
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
        let start = min + (self.random.next_u64() % count) as u32;
        let spis = self.sadb.spis();
        spis.first_free(start, max, proto).or_else(|| spis.first_free(min, start, proto))
    }

    /// `pfkey_add` of an ADD.
    pub(super) fn add(&mut self, header: Header, sa: Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        init_state(&sa)?;
        let notice = answer(header, MessageType::ADD, sa.satype());
        let index = self.insert_new(sa, cx.now.as_secs())?;
        self.show(index, notice, Audience::All, Part::Whole, cx)
    }

    /// Adds an SA that is not there yet. The larval that it answers goes without a message.
    pub(super) fn insert_new(&mut self, sa: Sa, now: u64) -> Result<Index, Errno> {
        if self.sadb.find(&sa.id()).is_some() {
            return Err(Errno::EEXIST);
        }
        let larval = self.answered_by(&sa);
        let index = self.sadb.insert(sa, now);
        if let Some(larval) = larval {
            self.sadb.remove(larval);
        }
        Ok(index)
    }

    /// `pfkey_add` of an UPDATE.
    pub(super) fn update(&mut self, header: Header, mut sa: Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        init_state(&sa)?;
        let notice = answer(header, MessageType::UPDATE, sa.satype());
        let index = self.sadb.find(&sa.id()).ok_or(Errno::ESRCH)?;
        match self.sadb.get(index).ok_or(Errno::ESRCH)?.state {
            // The new SA takes the larval's place.
            State::Larval => {
                self.sadb.remove(index);
                let index = self.sadb.insert(sa, cx.now.as_secs());
                self.show(index, notice, Audience::All, Part::Whole, cx)
            }
            State::Mature | State::Dying => {
                self.update_mature(index, &sa, cx)?;
                // AF_KEY shows the SA of the request, which it has discarded.
                sa.state = State::Dead;
                cx.send(Audience::All, notice, |writer| self.write_sa(writer, &sa, Part::Whole))
            }
            State::Refused | State::Dead => Err(Errno::EINVAL),
        }
    }

    /// The larval that a new SA answers: by sequence number, or by addresses, mode and reqid.
    pub(super) fn answered_by(&self, sa: &Sa) -> Option<u32> {
        // `__xfrm_find_acq_byseq`
        let mark = sa.attached.xfrm.mark().masked();
        let is_for = |larval: &Sa| {
            (larval.proto, larval.ends.dst()) == (sa.proto, sa.ends.dst()) && larval.attached.xfrm.mark().covers(mark)
        };
        let by_seq = self.sadb.find_by_seq(sa.seq).filter(|&i| self.sadb.get(i).is_some_and(is_for));
        by_seq.or_else(|| self.sadb.find_larval(&AcquireKey::of(sa)))
    }

    /// Sends a message that shows an SA of the SADB.
    pub(super) fn show(
        &self,
        index: u32,
        header: Header,
        audience: Audience,
        part: Part,
        cx: &mut Context<'_>,
    ) -> Result<(), Errno> {
        let sa = self.sadb.get(index).ok_or(Errno::ESRCH)?;
        cx.send(audience, header, |writer| self.write_sa(writer, sa, part))
    }

    /// `xfrm_state_update` of an SA in use: new limits and encapsulation ports; it is mature again.
    fn update_mature(&mut self, index: u32, new: &Sa, cx: &mut Context<'_>) -> Result<(), Errno> {
        let old = self.sadb.get(index).ok_or(Errno::ESRCH)?;
        if old.encap.map(|encap| encap.encap_type) != new.encap.map(|encap| encap.encap_type) {
            return Err(Errno::EINVAL);
        }
        let used = old.usage.use_time != 0;
        self.sadb.edit(index, cx.now.as_secs(), |sa| {
            (sa.hard, sa.soft, sa.state) = (new.hard, new.soft, State::Mature);
            sa.encap = new.encap;
            // Of the attributes a few change.
            for (number, payload) in new.attached.xfrm.attributes().filter(|(number, _)| UPDATED.contains(number)) {
                sa.attached.xfrm.set(number, payload);
            }
        });
        if used {
            self.check_volume(index, cx);
        }
        Ok(())
    }

    /// `pfkey_delete`.
    pub(super) fn delete(&mut self, header: Header, id: &SaId, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.sadb.find(id).ok_or(Errno::ESRCH)?;
        let write_sa = self.dialect.write_sa;
        let removed = self.sadb.remove_with(index, |sa| {
            sa.state = State::Dead;
            let notice = answer(header, MessageType::DELETE, sa.satype());
            cx.send(Audience::All, notice, |writer| write_sa(writer, sa, Part::Whole))
        });
        removed.ok_or(Errno::ESRCH)?
    }

    /// `pfkey_get`.
    pub(super) fn get(&mut self, header: Header, id: &SaId, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.sadb.find(id).ok_or(Errno::ESRCH)?;
        self.show(index, answer(header, MessageType::GET, header.satype), Audience::One, Part::Whole, cx)
    }

    /// `pfkey_acquire`: a key manager gave up.
    pub(super) fn give_up(&mut self, seq: Option<u32>, now: u64) {
        if let Some(index) = seq.and_then(|seq| self.sadb.find_by_seq(seq)) {
            self.sadb.edit(index, now, |sa| sa.state = State::Refused);
        }
    }

    /// `pfkey_flush`: the answer first, then, if something was removed, a notification.
    pub(super) fn flush(&mut self, header: Header, proto: IpsecProtocol, cx: &mut Context<'_>) {
        let doomed = self.sadb.select(|sa| proto.includes(sa.proto));
        for &index in &doomed {
            self.sadb.remove(index);
        }
        cx.send_header(Audience::One, Header { errno: 0, len: 2, ..header });
        if !doomed.is_empty() {
            let notice = answer(header, MessageType::FLUSH, SaType::from_protocol(proto));
            cx.send_header(Audience::All, notice);
        }
    }
}

/// `verify_spi_info`.
fn verify_spi_range(min: u32, max: u32, proto: IpsecProtocol) -> Result<(), Errno> {
    match proto {
        IpsecProtocol::ESP | IpsecProtocol::AH => {}
        IpsecProtocol::IPCOMP if max <= 0xffff => {}
        _ => return Err(Errno::EINVAL),
    }
    if min > max { Err(Errno::EINVAL) } else { Ok(()) }
}

/// What `xfrm_init_state` of the SA's protocol refuses.
pub(super) fn init_state(sa: &Sa) -> Result<(), Errno> {
    // The inner family's mode must be the outer's in transport mode.
    if sa.mode == Mode::TRANSPORT && sa.is_inner_ipv6() != sa.ends.is_ipv6() {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let (has_auth, has_encrypt) = (sa.auth != AuthAlgorithm::NONE, sa.encrypt != EncryptAlgorithm::NONE);
    let auth_fits = !has_auth || algorithm::accepts_auth_key(sa.auth, sa.auth_key.bytes.len());
    match sa.proto {
        IpsecProtocol::ESP => {
            let cipher_fits = has_encrypt && algorithm::accepts_encrypt_key(sa.encrypt, sa.encrypt_key.bytes.len());
            let both = has_auth && algorithm::is_aead(sa.encrypt);
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
