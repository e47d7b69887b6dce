//! The embedded key engine: an SADB and an SPD in memory that answer PF_KEY requests as Linux's af_key does.
//!
//! It does no I/O and reads no clock. It protects no packet: a userspace data plane that embeds it asks it for
//! SAs and reports traffic.
//!
//! ```
//! use std::time::Duration;
//!
//! use pfkey_engine::{Engine, Flow, LINUX, Outbound};
//! use pfkey_hub::{Hub, Queues, Service as _};
//! use pfkey_wire::{Ends, Header, MessageType, Profile, SaType, Writer};
//!
//! let mut hub = Hub::new(Engine::new(&LINUX));
//! let mut queues = Queues::new();
//! let now = Duration::from_secs(1_700_000_000);
//!
//! // A key manager registers; its answer waits in its queue.
//! let manager = hub.open();
//! let mut buffer = [0; 64];
//! let request = Header::new(MessageType::REGISTER, SaType::ESP, 1, 4242);
//! let message = Writer::new(&mut buffer, request, Profile::Linux).finish().unwrap();
//! hub.receive(manager, message, now, &mut queues).unwrap();
//! assert_eq!(Header::read(&queues.pop(manager).unwrap()).unwrap().errno, 0);
//!
//! // The data plane asks what a packet needs. There are no policies yet.
//! let ends = Ends::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
//! let flow = Flow::new(ends, 17, 1, 2);
//! let verdict = hub.with_engine(now, None, &mut queues, |engine, cx| engine.outbound(&flow, cx));
//! assert_eq!(verdict, Ok(Outbound::Pass));
//!
//! // When to call `advance`.
//! assert_eq!(hub.next_deadline(), None);
//! ```
#![forbid(unsafe_code)]

pub mod algorithm;
mod counts;
mod dialect;
mod lifetime;
mod migrate;
pub mod resolve;
mod rfc2367;
mod sa_request;
pub mod sadb;
mod slots;
pub mod spd;
mod spd_request;
pub mod spi_set;
mod timer_wheel;
mod traffic;

use std::net::IpAddr;

use pfkey_hub::random::{self, Random};
use pfkey_hub::{Context, DumpMessage, DumpStep, Errno, KeyEngine, Supported, Time};
use pfkey_model::request::{Request, refuse_xfrm};
pub use pfkey_model::{message, policy, sa};
use pfkey_wire::address::{family, to_xfrm};
use pfkey_wire::layout::SadbXFilter;
use pfkey_wire::sockaddr::{AF_INET, AF_INET6};
use pfkey_wire::{Extras, Header, IpsecProtocol, Message, MessageType, Prefix, Writer};
use sa::Sa;
use sa_request::EngineJudge;
use sadb::{Sadb, Walker};
use spd::Spd;

pub use counts::SaCounts;
pub use dialect::{Dialect, LINUX, RFC2367};
pub use sa::{Flow, SaId};
pub use traffic::{Outbound, TrafficError};

/// `net.core.xfrm_acq_expires`: seconds that a larval SA lives.
pub const DEFAULT_ACQ_EXPIRES: u64 = 30;

/// The embedded key engine.
pub struct Engine {
    dialect: &'static Dialect,
    extras: Extras,
    /// Takes what it does nothing about.
    is_copy: bool,
    sadb: Sadb,
    spd: Spd,
    /// Policies of type SUB, which come before those of the SPD; PF_KEY knows none.
    sub_policies: Spd,
    acq_expires: u64,
    /// The sequence number of the last ACQUIRE.
    acquire_seq: u32,
    random: Random,
    /// Without `added`, which the SADB counts.
    counts: SaCounts,
    /// Why the last request was refused, in words.
    why: Option<String>,
}

/// The place of a dump.
pub struct EngineDump(Dumped);

enum Dumped {
    Sas {
        walker: Walker,
        proto: IpsecProtocol,
        filter: Option<SadbXFilter>,
    },
    /// Policies below this position are still to come.
    Policies {
        /// Those of type SUB are to come; the others follow them.
        sub: bool,
        position: u64,
    },
}

impl Engine {
    /// An empty engine of a dialect. SPIs are chosen from a seed of the process.
    #[must_use]
    pub fn new(dialect: &'static Dialect) -> Self {
        Self::with_seed(dialect, random::seed())
    }

    /// An empty engine whose choice of SPIs can be repeated.
    #[must_use]
    pub fn with_seed(dialect: &'static Dialect, seed: u64) -> Self {
        Self {
            dialect,
            extras: Extras::default(),
            is_copy: false,
            sadb: Sadb::default(),
            spd: Spd::default(),
            sub_policies: Spd::default(),
            acq_expires: DEFAULT_ACQ_EXPIRES,
            acquire_seq: 0,
            random: Random::with_seed(seed),
            counts: SaCounts::default(),
            why: None,
        }
    }

    /// Who judges requests.
    const fn judge(&mut self) -> EngineJudge<'_> {
        let Self { extras, is_copy, spd, counts, why, .. } = self;
        EngineJudge { extras: *extras, is_copy: *is_copy, spd, counts, why }
    }

    /// Sets the seconds that a larval SA lives (`net.core.xfrm_acq_expires`).
    pub const fn set_acq_expires(&mut self, seconds: u64) {
        self.acq_expires = seconds;
    }

    /// Sets what is offered beyond AF_KEY.
    pub const fn set_extras(&mut self, extras: Extras) {
        self.extras = extras;
    }

    /// What is offered beyond AF_KEY.
    #[must_use]
    pub const fn extras(&self) -> Extras {
        self.extras
    }

    /// Takes from sessions what only a kernel does, too: offload, IP-TFS, SAs of one processor, policies of type sub. It is kept and
    /// shown; for an engine that stands for a kernel's and has no data plane.
    pub const fn set_copy(&mut self) {
        self.is_copy = true;
    }

    /// What `SADB_EXT_SUPPORTED_ENCRYPT` lists.
    fn supported_encrypt(&self) -> Vec<pfkey_wire::layout::SadbAlg> {
        let mut list = algorithm::supported_encrypt();
        if self.extras.aead {
            list.extend(algorithm::supported_aead());
        }
        list
    }

    /// Its SAs.
    #[must_use]
    pub const fn sadb(&self) -> &Sadb {
        &self.sadb
    }

    /// The steps that requests for SAs reached since the engine was made.
    #[must_use]
    pub const fn sa_counts(&self) -> SaCounts {
        SaCounts { added: self.sadb.inserted(), ..self.counts }
    }

    /// Its policies.
    #[must_use]
    pub const fn spd(&self) -> &Spd {
        &self.spd
    }

    /// Its policies of type SUB. Their ids must differ from those of the SPD.
    #[must_use]
    pub const fn sub_policies(&mut self) -> &mut Spd {
        &mut self.sub_policies
    }

    fn write_sa(&self, writer: &mut Writer<'_>, sa: &Sa, part: message::Part) {
        (self.dialect.write_sa)(writer, sa, part);
    }

    /// af_key's requests.
    fn linux_request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        let mut judge = self.judge();
        let (header, now) = (request.header(), cx.now.as_secs());
        match Request::read(request, now, &mut judge)? {
            Request::GetSpi(wanted) => self.getspi(header, &wanted, cx),
            Request::Add(sa) => self.add(header, sa, cx),
            Request::Update(sa) => self.update(header, sa, cx),
            Request::Delete(id) => self.delete(header, &id, cx),
            Request::Get(id) => self.get(header, &id, cx),
            Request::GiveUp(seq) => {
                self.give_up(seq, now);
                Ok(())
            }
            Request::Flush(proto) => {
                self.flush(header, proto, cx);
                Ok(())
            }
            Request::PolicyAdd(policy) => self.spd_add(header, policy, cx),
            Request::PolicyUpdate(policy) => self.spd_update(header, policy, cx),
            Request::PolicyDelete(name) => self.spd_delete(header, &name, cx),
            Request::PolicyDeleteById(id) => self.spd_delete_by_id(header, &id, cx),
            Request::PolicyGet(id) => self.spd_get(header, &id, cx),
            Request::PolicyFlush => {
                self.spd_flush(header, cx);
                Ok(())
            }
            Request::Migrate(migration) => self.migrate(&migration, cx),
        }
    }
}

impl KeyEngine for Engine {
    type Dump = EngineDump;

    fn dialect(&self) -> &'static pfkey_hub::Dialect {
        self.dialect.sessions
    }

    fn request(&mut self, request: &Message<'_>, cx: &mut Context<'_>) -> Result<(), Errno> {
        self.advance(cx);
        (self.dialect.request)(self, request, cx)
    }

    fn why(&mut self) -> Option<String> {
        self.why.take()
    }

    fn dump(&mut self, request: &Message<'_>, _now: Time) -> Result<EngineDump, Errno> {
        refuse_xfrm(request)?;
        if request.header().msg_type == MessageType::X_SPDDUMP {
            return Ok(EngineDump(Dumped::Policies { sub: true, position: u64::MAX }));
        }
        let proto = request.header().satype.protocol().ok_or(Errno::EINVAL)?;
        let filter = request.filter();
        if filter.is_some_and(|f| f.splen > 128 || f.dplen > 128) {
            return Err(Errno::EINVAL);
        }
        Ok(EngineDump(Dumped::Sas { walker: self.sadb.start_walk(), proto, filter }))
    }

    fn dump_next(
        &mut self,
        dump: &mut EngineDump,
        now: Time,
        message: &mut DumpMessage<'_>,
    ) -> Result<DumpStep, Errno> {
        // The hub fills in seq and pid.
        match &mut dump.0 {
            Dumped::Sas { walker, proto, filter } => {
                let (proto, filter) = (*proto, *filter);
                let keep = |sa: &Sa| proto.includes(sa.proto) && filter.is_none_or(|f| matches_filter(sa, &f));
                let Some(sa) = self.sadb.walk(*walker, keep).and_then(|i| self.sadb.get(i)) else {
                    return Ok(DumpStep::End);
                };
                let header = Header::new(MessageType::DUMP, sa.satype(), 0, 0);
                message.write(header, |writer| self.write_sa(writer, sa, message::Part::Whole))?;
            }
            Dumped::Policies { sub, position } => {
                let of_type_sub = if *sub { self.sub_policies.below(*position) } else { None };
                if of_type_sub.is_none() && *sub {
                    (*sub, *position) = (false, u64::MAX);
                }
                let Some(policy) = of_type_sub.or_else(|| self.spd.below(*position)) else { return Ok(DumpStep::End) };
                *position = policy.position;
                let reserved = spd_request::references(policy, now);
                let header =
                    Header { reserved, ..Header::new(MessageType::X_SPDDUMP, pfkey_wire::SaType::UNSPEC, 0, 0) };
                message.write(header, |writer| message::write_policy(writer, policy))?;
            }
        }
        Ok(DumpStep::Entry)
    }

    fn dump_end(&mut self, dump: EngineDump) {
        if let Dumped::Sas { walker, .. } = dump.0 {
            self.sadb.end_walk(walker);
        }
    }

    fn objects(&self) -> usize {
        self.sadb.len() + self.spd.len() + self.sub_policies.len()
    }

    fn supported(&mut self) -> Result<Supported, Errno> {
        Ok(Supported { auth: algorithm::supported_auth(), encrypt: self.supported_encrypt() })
    }

    fn attribute(&mut self, number: u16) -> Result<(), Errno> {
        sa_request::has_attribute(number, self.is_copy)
    }

    fn next_deadline(&self) -> Option<Time> {
        let ends = [self.sadb.next_timer(), self.spd.next_end(), self.sub_policies.next_end()];
        let seconds = ends.into_iter().flatten().min()?;
        Some(Time::from_secs(seconds))
    }

    fn statistics(&self) -> Option<String> {
        Some(self.sa_counts().to_string())
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        self.run_timers(cx);
        self.spd.expire(cx.now.as_secs());
        self.sub_policies.expire(cx.now.as_secs());
    }
}

/// `__xfrm_state_filter_match`.
fn matches_filter(sa: &Sa, filter: &SadbXFilter) -> bool {
    let (src, dst) = (sa.ends.src(), sa.ends.dst());
    if matches!(filter.family.get(), AF_INET | AF_INET6) && filter.family.get() != family(dst) {
        return false;
    }
    // Without a family the bytes alone count.
    let bytes = |address| IpAddr::from(to_xfrm(address));
    let covers = |address: [u8; 16], len, of| Prefix { address: address.into(), len }.covers(bytes(of));
    covers(filter.saddr, filter.splen, src) && covers(filter.daddr, filter.dplen, dst)
}

/// The example of README.md is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
