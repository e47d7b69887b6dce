//! The profile `rfc2367`: requests and answers as RFC 2367 has them, where Linux decided otherwise. The SADB, timers,
//! limits and traffic are the same.

use zerocopy::FromZeros as _;

use super::message::{Part, limits, usage, write_host, write_prefix};
use super::resolve::template::Wanted;
use super::sa::{Carried, Flow, Key, Limits, Sa, SaId, Selector, State};
use super::sadb::Index;
use super::{Engine, algorithm};
use pfkey_hub::{Audience, Context, Errno};
use pfkey_model::judge::Judge;
use pfkey_model::read::limits_as_given;
use pfkey_model::request::refuse_xfrm;
use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::address::width;
use pfkey_wire::layout::{SadbAlg, SadbComb, SadbSa};
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{
    AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Ends, ExtensionType as Ext, Header, IpsecProtocol, Message,
    MessageType, Mode, Prefix, SaFlags, SaState, SaType, Writer,
};

/// SPIs below are reserved by IANA (section 2.3.1).
const FIRST_SPI: u32 = 256;

/// Extensions that an SA keeps for its key managers only, and returns unchanged.
const CARRIED: [Ext; 4] = [Ext::IDENTITY_SRC, Ext::IDENTITY_DST, Ext::SENSITIVITY, Ext::X_KMPRIVATE];

/// The most bytes of them, so that they fit into a message together with the longest keys. RFC 2367 has no limit.
const MAX_CARRIED: usize = 4096;

/// One address extension. Ports and a protocol belong together, and to ACQUIRE alone.
fn end(message: &Message<'_>, ext: Ext) -> Result<Prefix, Errno> {
    let (fixed, sockaddr) = message.address(ext).ok_or(Errno::EINVAL)?;
    let address = sockaddr.ip().ok_or(Errno::EINVAL)?;
    if sockaddr.port() != 0 && fixed.proto == 0 || fixed.prefixlen > width(address) {
        return Err(Errno::EINVAL);
    }
    Ok(Prefix { address, len: fixed.prefixlen })
}

/// The addresses of a request (section 2.3.3).
fn read_ends(message: &Message<'_>) -> Result<Ends, Errno> {
    let (src, dst) = (end(message, Ext::ADDRESS_SRC)?.address, end(message, Ext::ADDRESS_DST)?.address);
    Ends::new(src, dst).filter(|ends| !ends.src().is_multicast()).ok_or(Errno::EINVAL)
}

/// Mode and reqid, which RFC 2367 does not have; by default what it implies.
fn mode(message: &Message<'_>) -> (Mode, u32) {
    message
        .sa2()
        .map_or((Mode::TRANSPORT, 0), |sa2| (Mode(sa2.mode).clamp(Mode::TRANSPORT, Mode::BEET), sa2.reqid.get()))
}

/// A key of the right length for its algorithm (section 2.3.4), `None` for no algorithm or one without a key.
fn key(message: &Message<'_>, ext: Ext, algorithm: Option<SadbAlg>) -> Result<Key, Errno> {
    let given = message.key(ext);
    let Some(algorithm) = algorithm.filter(|a| a.maxbits.get() != 0) else {
        return if given.is_some_and(|(bits, _)| bits != 0) { Err(Errno::EINVAL) } else { Ok(Key::default()) };
    };
    let (bits, bytes) = given.ok_or(Errno::EINVAL)?;
    let range = algorithm.minbits.get()..=algorithm.maxbits.get();
    if !range.contains(&bits)
        || (ext == Ext::KEY_ENCRYPT && !algorithm::accepts_encrypt_key(EncryptAlgorithm(algorithm.id), bytes.len()))
    {
        return Err(Errno::EINVAL);
    }
    if ext == Ext::KEY_ENCRYPT && algorithm.id == EncryptAlgorithm::DESCBC.0 && is_weak_des(bytes) {
        return Err(Errno::EINVAL);
    }
    Ok(Key { bits, bytes: zeroize::Zeroizing::new(bytes.into()) })
}

/// The four weak and twelve semi-weak keys of DES (FIPS 74), whatever their parity bits.
fn is_weak_des(key: &[u8]) -> bool {
    const WEAK: [u64; 16] = [
        0x0101_0101_0101_0101,
        0xfefe_fefe_fefe_fefe,
        0xe0e0_e0e0_f1f1_f1f1,
        0x1f1f_1f1f_0e0e_0e0e,
        0x01fe_01fe_01fe_01fe,
        0xfe01_fe01_fe01_fe01,
        0x1fe0_1fe0_0ef1_0ef1,
        0xe01f_e01f_f10e_f10e,
        0x01e0_01e0_01f1_01f1,
        0xe001_e001_f101_f101,
        0x1ffe_1ffe_0efe_0efe,
        0xfe1f_fe1f_fe0e_fe0e,
        0x011f_011f_010e_010e,
        0x1f01_1f01_0e01_0e01,
        0xe0fe_e0fe_f1fe_f1fe,
        0xfee0_fee0_fef1_fef1,
    ];
    const NO_PARITY: u64 = 0xfefe_fefe_fefe_fefe;
    let Ok(key) = <[u8; 8]>::try_from(key) else { return false };
    let key = u64::from_be_bytes(key) & NO_PARITY;
    WEAK.iter().any(|weak| weak & NO_PARITY == key)
}

fn listed(list: Vec<SadbAlg>, id: u8) -> Option<SadbAlg> {
    list.into_iter().find(|a| a.id == id)
}

impl Engine {
    /// The requests of RFC 2367; others are Linux's.
    pub(super) fn rfc_request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        if header.msg_type.0 > MessageType::X_PCHANGE.0 {
            return self.linux_request(request, cx);
        }
        refuse_xfrm(request)?;
        // Section 2.1: an errno comes with an ACQUIRE only.
        if header.errno != 0 && header.msg_type != MessageType::ACQUIRE {
            return Err(Errno::EINVAL);
        }
        match header.msg_type {
            MessageType::GETSPI => self.rfc_getspi(request, cx),
            MessageType::ADD => self.rfc_add(request, cx),
            MessageType::UPDATE => self.rfc_update(request, cx),
            MessageType::DELETE => {
                let index = self.rfc_named(request, Carrier::SaName)?;
                let write_sa = self.dialect.write_sa;
                let removed = self.sadb.remove_with(index, |sa| {
                    cx.send(Audience::All, reply(header), |writer| write_sa(writer, sa, Part::Name))
                });
                removed.ok_or(Errno::ESRCH)?
            }
            MessageType::GET => {
                let index = self.rfc_named(request, Carrier::SaName)?;
                self.show(index, reply(header), Audience::One, Part::Whole, cx)
            }
            MessageType::ACQUIRE => self.rfc_acquire(request, cx),
            MessageType::X_PCHANGE => {
                read_ends(request)?;
                forward(request, cx);
                Ok(())
            }
            MessageType::FLUSH => {
                let proto = header.satype.protocol().ok_or(Errno::EINVAL)?;
                for index in self.sadb.select(|sa| proto.includes(sa.proto)) {
                    self.sadb.remove(index);
                }
                cx.send_header(Audience::All, reply(header));
                Ok(())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Section 3.1.1. Every session receives the SPI.
    fn rfc_getspi(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        let ends = read_ends(request)?;
        let proto = engine_protocol(header.satype)?;
        let range = request.spirange().ok_or(Errno::EINVAL)?;
        let (min, max) = (range.min.get(), range.max.get());
        if min > max || min < FIRST_SPI || (proto == IpsecProtocol::IPCOMP && max > 0xffff) {
            return Err(Errno::EINVAL);
        }
        let (mode, reqid) = mode(request);
        let spi = self.choose_spi(min, max, proto).ok_or(Errno::EEXIST)?;
        let acquired = self.sadb.find_by_seq(header.seq).filter(|&i| self.is_larval_for(i, &ends, proto));
        let index = match acquired {
            Some(index) => {
                self.sadb.edit(index, cx.now.as_secs(), |sa| sa.spi = spi);
                index
            }
            None => {
                let now = cx.now.as_secs();
                let larval = Sa::larval(ends, spi, proto, mode, reqid, now, self.acq_expires);
                self.counts.allocated += 1;
                self.sadb.insert(larval, now)
            }
        };
        self.show(index, reply(header), Audience::All, Part::Name, cx)
    }

    fn is_larval_for(&self, index: Index, ends: &Ends, proto: IpsecProtocol) -> bool {
        self.sadb.get(index).is_some_and(|sa| (sa.spi, sa.proto, sa.ends.dst()) == (0, proto, ends.dst()))
    }

    /// Section 3.1.3.
    fn rfc_add(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        if request.has(Ext::LIFETIME_CURRENT) {
            return Err(Errno::EINVAL);
        }
        let now = cx.now.as_secs();
        let sa = self.rfc_counted_sa(request, now)?;
        let index = self.insert_new(sa, now)?;
        self.show(index, reply(request.header()), Audience::All, Part::Reply, cx)
    }

    /// Section 3.1.2: completes a larval; of an SA in use only the lifetimes change.
    fn rfc_update(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let index = self.rfc_named(request, Carrier::Sa)?;
        let now = cx.now.as_secs();
        let state = self.sadb.get(index).ok_or(Errno::ESRCH)?.state;
        let index = match state {
            State::Larval => {
                let sa = self.rfc_counted_sa(request, now)?;
                self.sadb.remove(index);
                self.sadb.insert(sa, now)
            }
            State::Mature | State::Dying => {
                let (ext, sa) = (request.sa().ok_or(Errno::EINVAL)?, self.sadb.get(index).ok_or(Errno::ESRCH)?);
                let other_key = |ext, key: &Key| request.key(ext).is_some_and(|(_, bytes)| *bytes != **key.bytes);
                if ext.state != SaState::MATURE.0
                    || (ext.auth, ext.encrypt) != (sa.auth.0, sa.encrypt.0)
                    || other_key(Ext::KEY_AUTH, &sa.auth_key)
                    || other_key(Ext::KEY_ENCRYPT, &sa.encrypt_key)
                {
                    return Err(Errno::EINVAL);
                }
                let (hard, soft) = rfc_limits(request);
                self.sadb.edit(index, now, |sa| (sa.hard, sa.soft, sa.state) = (hard, soft, State::Mature));
                index
            }
            _ => return Err(Errno::EINVAL),
        };
        self.show(index, reply(request.header()), Audience::All, Part::Reply, cx)
    }

    fn rfc_counted_sa(&mut self, request: &Message<'_>, now: u64) -> Result<Sa, Errno> {
        let read = self.rfc_read_sa(request, now);
        self.counts.requests += 1;
        self.counts.allocated += u64::from(read.is_ok());
        read
    }

    /// An SA of an ADD, or of an UPDATE that completes a larval.
    fn rfc_read_sa(&mut self, request: &Message<'_>, now: u64) -> Result<Sa, Errno> {
        let header = request.header();
        let ext: SadbSa = request.sa().ok_or(Errno::EINVAL)?;
        let ends = read_ends(request)?;
        let proto = engine_protocol(header.satype)?;
        let spi = ext.spi.get();
        if ext.state != SaState::MATURE.0 || spi < FIRST_SPI || (proto == IpsecProtocol::IPCOMP && spi > 0xffff) {
            return Err(Errno::EINVAL);
        }
        let mut sa = Sa::new(ends, spi, proto, now);
        let auth = listed(algorithm::supported_auth(), ext.auth);
        let encrypt = listed(self.supported_encrypt(), ext.encrypt);
        // Section 3.1.3: "none" is for types that have no such transform.
        let fits = match proto {
            IpsecProtocol::AH => auth.is_some() && ext.encrypt == 0,
            IpsecProtocol::ESP => {
                encrypt.is_some()
                    && (ext.auth == 0 || auth.is_some() && !algorithm::is_aead(EncryptAlgorithm(ext.encrypt)))
            }
            _ => algorithm::has_compress(CompressionAlgorithm(ext.encrypt)) && ext.auth == 0,
        };
        if !fits {
            return Err(Errno::EINVAL);
        }
        (sa.auth, sa.encrypt) = (AuthAlgorithm(ext.auth), EncryptAlgorithm(ext.encrypt));
        sa.auth_key = key(request, Ext::KEY_AUTH, auth)?;
        sa.encrypt_key = key(request, Ext::KEY_ENCRYPT, encrypt.filter(|_| proto == IpsecProtocol::ESP))?;
        sa.replay = ext.replay;
        sa.flags = SaFlags(ext.flags.get()).intersection(SaFlags::PFS);
        (sa.hard, sa.soft) = rfc_limits(request);
        (sa.mode, sa.reqid) = mode(request);
        if request.has(Ext::ADDRESS_PROXY) {
            sa.selector = Some(Box::new(Selector::from(end(request, Ext::ADDRESS_PROXY)?)));
        }
        let carried: Box<[u8]> =
            CARRIED.iter().filter_map(|&e| request.extension(e)).flat_map(|e| e.bytes).copied().collect();
        // An SA that no message can show must not be added: a dump would end there.
        if carried.len() > MAX_CARRIED {
            return Err(Errno::ENOBUFS);
        }
        sa.carried = (!carried.is_empty()).then(|| Box::new(Carried(carried)));
        let mut judge = self.judge();
        sa.attached.xfrm = Xfrm::read(request, Carrier::Sa, &mut judge)?;
        sa.seq = header.seq;
        Ok(sa)
    }

    /// The SA that a request names: source, destination, type and SPI (section 2.1).
    fn rfc_named(&mut self, request: &Message<'_>, carrier: Carrier) -> Result<Index, Errno> {
        let ext = request.sa().ok_or(Errno::EINVAL)?;
        let ends = read_ends(request)?;
        let proto = engine_protocol(request.header().satype)?;
        request.xfrm().check(carrier, ext.replay).map_err(|refusal| {
            Judge::explain(&mut self.judge(), &refusal);
            refusal.errno()
        })?;
        let mark = XfrmView::of_message(request).mark().masked();
        let id = SaId { mark, ..SaId::new(ends.dst(), ext.spi.get(), proto) };
        let index = self.sadb.find(&id).ok_or(Errno::ESRCH)?;
        if self.sadb.get(index).is_some_and(|sa| sa.ends == ends) { Ok(index) } else { Err(Errno::ESRCH) }
    }

    /// Section 3.1.6: a key manager that gave up, or a consumer that wants an SA.
    fn rfc_acquire(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let header = request.header();
        if header.errno != 0 {
            if let Some(index) = self.sadb.find_by_seq(header.seq) {
                self.sadb.edit(index, cx.now.as_secs(), |sa| sa.state = State::Refused);
            }
            cx.send_header(Audience::All, Header { len: 2, reserved: 0, ..header });
            return Ok(());
        }
        read_ends(request)?;
        if !request.has(Ext::PROPOSAL) {
            return Err(Errno::EINVAL);
        }
        if forward(request, cx) == 0 { Err(Errno::EPROTONOSUPPORT) } else { Ok(()) }
    }
}

/// Hands a request on, as it came, to those registered for its type.
fn forward(request: &Message<'_>, cx: &mut Context<'_>) -> usize {
    cx.out.deliver(Audience::RegisteredFor(request.header().satype), request.bytes())
}

/// Protocols whose SAs this engine keeps; those of user-level consumers (OSPF, RIP, …) it does not.
fn engine_protocol(satype: SaType) -> Result<IpsecProtocol, Errno> {
    satype.protocol().filter(|&proto| proto != IpsecProtocol::ANY).ok_or(Errno::EINVAL)
}

fn reply(request: Header) -> Header {
    Header::new(request.msg_type, request.satype, request.seq, request.pid)
}

/// Each of the two limits may be absent (section 2.3.2). Times are cut to what timers can hold, which count in signed
/// seconds, as Linux's do.
fn rfc_limits(request: &Message<'_>) -> (Limits, Limits) {
    const AGES: u64 = 1 << 62;
    let read = |ext| {
        let given = limits_as_given(request.lifetime(ext));
        let seconds = |n: u64| n.min(AGES);
        Limits { add_seconds: seconds(given.add_seconds), use_seconds: seconds(given.use_seconds), ..given }
    };
    (read(Ext::LIFETIME_HARD), read(Ext::LIFETIME_SOFT))
}

/// What an ACQUIRE proposes (section 2.3.7), every algorithm that has a key, strongest first.
fn combinations(proto: IpsecProtocol) -> Vec<SadbComb> {
    let keyed = |list: Vec<SadbAlg>| list.into_iter().rev().filter(|a| a.minbits.get() != 0).collect::<Vec<_>>();
    let none = [SadbAlg::new_zeroed()];
    let (auth, encrypt) = (keyed(algorithm::supported_auth()), keyed(algorithm::supported_encrypt()));
    let encrypt: &[SadbAlg] = if proto == IpsecProtocol::ESP { &encrypt } else { &none };
    let auth: &[SadbAlg] = if proto == IpsecProtocol::IPCOMP { &none } else { &auth };
    let combination = |e: &SadbAlg, a: &SadbAlg| SadbComb {
        auth: a.id,
        encrypt: e.id,
        auth_minbits: a.minbits,
        auth_maxbits: a.maxbits,
        encrypt_minbits: e.minbits,
        encrypt_maxbits: e.maxbits,
        hard_addtime: 86_400.into(),
        soft_addtime: 72_000.into(),
        hard_usetime: 28_800.into(),
        soft_usetime: 25_200.into(),
        ..Default::default()
    };
    encrypt.iter().flat_map(|e| auth.iter().map(move |a| combination(e, a))).collect()
}

/// The message of a kernel's ACQUIRE: the packet's addresses with protocol and ports, and a proposal.
pub(super) fn write_acquire(writer: &mut Writer<'_>, wanted: &Wanted, flow: &Flow) {
    let key = &wanted.key;
    // The ports belong to the packet's addresses, not to a tunnel's.
    let (proto, sport, dport) = if key.ends == flow.ends { (flow.proto, flow.sport, flow.dport) } else { (0, 0, 0) };
    write_prefix(writer, Ext::ADDRESS_SRC, proto, Prefix::host(key.ends.src()), sport);
    write_prefix(writer, Ext::ADDRESS_DST, proto, Prefix::host(key.ends.dst()), dport);
    writer.proposal(32, &combinations(key.proto));
    wanted.attached.xfrm.write(writer);
}

/// An SA as RFC 2367 shows it: extensions in the order of their numbers, without empty ones.
pub(super) fn write_sa(writer: &mut Writer<'_>, sa: &Sa, part: Part) {
    let name = SadbSa { spi: sa.spi.into(), ..Default::default() };
    let whole = SadbSa {
        replay: sa.replay,
        state: SaState::from(sa.state).0,
        auth: sa.auth.0,
        encrypt: sa.encrypt.0,
        flags: sa.flags.0.into(),
        ..name
    };
    writer.sa(if part == Part::Name { name } else { whole });
    if matches!(part, Part::Whole | Part::WithoutKeys | Part::Hard | Part::Soft) {
        writer.lifetime(Ext::LIFETIME_CURRENT, usage(&sa.usage));
    }
    let limited = |l: &Limits| *l != Limits::default();
    if match part {
        Part::Name | Part::Soft => false,
        Part::Hard => true,
        _ => limited(&sa.hard),
    } {
        writer.lifetime(Ext::LIFETIME_HARD, limits(&sa.hard));
    }
    if match part {
        Part::Name | Part::Hard => false,
        Part::Soft => true,
        _ => limited(&sa.soft),
    } {
        writer.lifetime(Ext::LIFETIME_SOFT, limits(&sa.soft));
    }
    write_host(writer, Ext::ADDRESS_SRC, sa.ends.src());
    write_host(writer, Ext::ADDRESS_DST, sa.ends.dst());
    let proxy = sa.selector.as_deref().filter(|_| !matches!(sa.state, State::Larval | State::Refused));
    if let Some(s) = proxy.filter(|_| matches!(part, Part::Whole | Part::WithoutKeys | Part::Hard | Part::Soft)) {
        write_prefix(writer, Ext::ADDRESS_PROXY, 0, s.src, 0);
    }
    if part == Part::Whole {
        for (ext, key) in [(Ext::KEY_AUTH, &sa.auth_key), (Ext::KEY_ENCRYPT, &sa.encrypt_key)] {
            if key.bits != 0 {
                writer.key(ext, key.bits, &key.bytes);
            }
        }
    }
    if matches!(part, Part::Whole | Part::WithoutKeys | Part::Reply) {
        if let Some(Carried(extensions)) = sa.carried.as_deref() {
            writer.copied(extensions);
        }
        // RFC 2367 does not have them: only where they differ from what it implies.
        if (sa.mode, sa.reqid) != (Mode::TRANSPORT, 0) {
            writer.sa2(sa.mode.0, sa.reqid);
        }
    }
    sa.attached.xfrm.write(writer);
}
