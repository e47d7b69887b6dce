//! Requests, one variant each, and as messages.

use std::fmt;
use std::ops::RangeInclusive;

use crate::error::Invalid;
use crate::model::migrate::{Migration, write_migration_request};
use crate::model::sa::SaId;
use crate::model::xfrm::Xfrm;
use crate::policy::Policy;
use crate::sa::{Sa, check_xfrm, write_ends};
use crate::wire::address::unspecified;
use crate::wire::layout::{SadbSa, SadbXPolicy};
use crate::wire::xfrm::{Carrier, Mark};
use crate::wire::{Ends, Errno, Header, MAX_MESSAGE_LEN, MessageType, Mode, Profile, SaType, Writer};

/// What a GETSPI asks for: an SPI of the destination's, between two addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiRange {
    /// AH, ESP or IPComp.
    pub satype: SaType,
    /// Between which addresses.
    pub ends: Ends,
    /// The mode of the SA that it is for.
    pub mode: Mode,
    /// Its request id.
    pub reqid: u32,
    /// The lowest and the highest, of 256 and more, for IPComp up to 65535; `None` = any.
    pub range: Option<(u32, u32)>,
    /// The sequence number of the ACQUIRE that is answered.
    pub seq: Option<u32>,
    /// What XFRM has beyond PF_KEY; the SA's UPDATE needs the same mark.
    pub xfrm: Xfrm,
}

impl SpiRange {
    /// Any SPI for an SA in tunnel or transport mode.
    #[must_use]
    pub fn any(satype: SaType, ends: Ends, mode: Mode) -> Self {
        Self { satype, ends, mode, reqid: 0, range: None, seq: None, xfrm: Xfrm::default() }
    }

    /// One of these.
    #[must_use]
    pub fn within(mut self, range: RangeInclusive<u32>) -> Self {
        self.range = Some(range.into_inner());
        self
    }
}

/// A request of PF_KEY's. `Debug` shows its type alone: there may be keys.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Request<'a> {
    /// GETSPI: a larval SA and its SPI.
    GetSpi(&'a SpiRange),
    /// ADD.
    Add(&'a Sa),
    /// UPDATE: completes the larval SA of a GETSPI, or changes the limits and keys of another.
    Update(&'a Sa),
    /// DELETE of one SA. One with a mark is named by it ([`SaId::mark`]).
    Delete(SaId),
    /// GET of one SA, named likewise.
    Get(SaId),
    /// ACQUIRE with an errno: no SA will come for the kernel's ACQUIRE with this sequence number.
    GiveUp(SaType, u32, Errno),
    /// REGISTER: ACQUIRE and EXPIRE of a type are wanted.
    Register(SaType),
    /// FLUSH of all SAs of a type; of every type for UNSPEC.
    Flush(SaType),
    /// DUMP of all SAs of a type; of every type for UNSPEC.
    Dump(SaType),
    /// X_PROMISC: every message of every socket is wanted, or not any more.
    Promiscuous(bool),
    /// X_SPDADD.
    AddPolicy(&'a Policy),
    /// X_SPDUPDATE: as X_SPDADD, in the place of one with the same selector.
    UpdatePolicy(&'a Policy),
    /// X_SPDDELETE of the one with the same selector, direction and label.
    DeletePolicy(&'a Policy),
    /// X_SPDGET by id.
    Policy(u32),
    /// X_SPDDELETE2 by id.
    DeletePolicyById(u32),
    /// X_SPDGET by id of one with a mark or an XFRM interface.
    PolicyOf(u32, &'a Xfrm),
    /// X_SPDDELETE2 by id of one with a mark or an XFRM interface.
    DeletePolicyOf(u32, &'a Xfrm),
    /// X_XFRM: what XFRM has beyond PF_KEY is to be shown, or not any more.
    ShowXfrm(bool),
    /// X_SPDFLUSH.
    FlushPolicies,
    /// X_SPDDUMP.
    DumpPolicies,
    /// X_MIGRATE.
    Migrate(&'a Migration),
    /// Whatever else: a header, of which type, SA type and errno count, and extensions.
    Raw(Header, &'a [u8]),
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.msg_type())
    }
}

impl Request<'_> {
    /// Its type.
    #[must_use]
    pub const fn msg_type(&self) -> MessageType {
        match self {
            Self::GetSpi(_) => MessageType::GETSPI,
            Self::Add(_) => MessageType::ADD,
            Self::Update(_) => MessageType::UPDATE,
            Self::Delete(_) => MessageType::DELETE,
            Self::Get(_) => MessageType::GET,
            Self::GiveUp(..) => MessageType::ACQUIRE,
            Self::Register(_) => MessageType::REGISTER,
            Self::Flush(_) => MessageType::FLUSH,
            Self::Dump(_) => MessageType::DUMP,
            Self::Promiscuous(_) => MessageType::X_PROMISC,
            Self::AddPolicy(_) => MessageType::X_SPDADD,
            Self::UpdatePolicy(_) => MessageType::X_SPDUPDATE,
            Self::DeletePolicy(_) => MessageType::X_SPDDELETE,
            Self::Policy(_) | Self::PolicyOf(..) => MessageType::X_SPDGET,
            Self::DeletePolicyById(_) | Self::DeletePolicyOf(..) => MessageType::X_SPDDELETE2,
            Self::ShowXfrm(_) => MessageType::X_XFRM,
            Self::FlushPolicies => MessageType::X_SPDFLUSH,
            Self::DumpPolicies => MessageType::X_SPDDUMP,
            Self::Migrate(_) => MessageType::X_MIGRATE,
            Self::Raw(header, _) => header.msg_type,
        }
    }

    const fn satype(&self) -> SaType {
        match self {
            Self::GetSpi(spi) => spi.satype,
            Self::Add(sa) | Self::Update(sa) => sa.satype(),
            Self::Delete(id) | Self::Get(id) => SaType::from_protocol(id.proto),
            Self::GiveUp(satype, ..) | Self::Register(satype) | Self::Flush(satype) | Self::Dump(satype) => *satype,
            Self::Promiscuous(on) | Self::ShowXfrm(on) => SaType(*on as u8),
            Self::Raw(header, _) => header.satype,
            _ => SaType::UNSPEC,
        }
    }

    /// The sequence number that it has to have.
    const fn seq(&self) -> Option<u32> {
        match self {
            Self::GetSpi(spi) => spi.seq,
            Self::Add(sa) | Self::Update(sa) => sa.seq,
            Self::GiveUp(_, seq, _) => Some(*seq),
            _ => None,
        }
    }

    /// Whether its descriptor is promiscuous from then on; `None`: it says nothing about that.
    pub(crate) const fn promiscuous(&self) -> Option<bool> {
        match self {
            Self::Promiscuous(on) => Some(*on),
            Self::Raw(Header { msg_type: MessageType::X_PROMISC, satype: SaType(on @ 0..=1), .. }, []) => {
                Some(*on == 1)
            }
            _ => None,
        }
    }

    /// Whether it has to have the sequence number that it has.
    pub(crate) fn is_named(&self) -> bool {
        self.seq().is_some()
    }

    /// Whether it says what XFRM has beyond PF_KEY: AF_KEY would pass over it.
    pub(crate) fn is_beyond_pf_key(&self) -> bool {
        match self {
            Self::GetSpi(spi) => !spi.xfrm.is_empty(),
            Self::Add(sa) | Self::Update(sa) => !sa.beyond().is_empty(),
            Self::Delete(id) | Self::Get(id) => id.mark != 0,
            Self::AddPolicy(policy) | Self::UpdatePolicy(policy) | Self::DeletePolicy(policy) => {
                !policy.beyond().is_empty()
            }
            Self::PolicyOf(_, xfrm) | Self::DeletePolicyOf(_, xfrm) => !xfrm.is_empty(),
            _ => false,
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Add(sa) | Self::Update(sa) => sa.check(),
            Self::AddPolicy(policy) | Self::UpdatePolicy(policy) | Self::DeletePolicy(policy) => policy.check(),
            Self::GetSpi(SpiRange { range: Some((min, max)), satype, .. })
                if *min < 256 || min > max || *max > highest_spi(*satype) =>
            {
                let highest = highest_spi(*satype);
                Err(Invalid::new("SPI range", format_args!("{min:#x} to {max:#x}: 0x100 to {highest:#x}")))
            }
            Self::GetSpi(SpiRange { satype, .. }) | Self::Register(satype)
                if !matches!(*satype, SaType::AH | SaType::ESP | SaType::X_IPCOMP) =>
            {
                Err(Invalid::new("SA type", "AH, ESP or IPComp"))
            }
            Self::GetSpi(spi) => check_xfrm(&spi.xfrm, Carrier::Sa, 0),
            Self::PolicyOf(_, xfrm) | Self::DeletePolicyOf(_, xfrm) => check_xfrm(xfrm, Carrier::PolicyName, 0),
            // The kernel would pass over it in silence.
            Self::GiveUp(_, 0, _) => Err(Invalid::new("sequence number", "an ACQUIRE has another than 0")),
            Self::GiveUp(.., errno) if errno.to_wire() == 0 => Err(Invalid::new("errno", "0 is none")),
            Self::Migrate(Migration { moves, .. }) if moves.is_empty() => Err(Invalid::new("moves", "there are none")),
            Self::Raw(_, extensions) if extensions.len() % 8 != 0 => {
                Err(Invalid::new("extensions", "not a multiple of 8 bytes"))
            }
            _ => Ok(()),
        }
    }

    /// Writes it, with `seq` unless it has to have another. Returns its header and its length.
    pub(crate) fn write(&self, seq: u32, pid: u32, buffer: &mut Vec<u8>) -> Result<(Header, usize), Invalid> {
        self.check()?;
        buffer.resize(MAX_MESSAGE_LEN, 0);
        let mut header = Header::new(self.msg_type(), self.satype(), self.seq().unwrap_or(seq), pid);
        header.errno = match self {
            Self::GiveUp(_, _, errno) => errno.to_wire(),
            Self::Raw(raw, _) => raw.errno,
            _ => 0,
        };
        let mut writer = Writer::new(buffer, header, Profile::Linux);
        self.write_extensions(&mut writer);
        let len = writer.finish().map_err(|_| Invalid::new("message", "longer than 512 KiB"))?.len();
        Ok((header, len))
    }

    fn write_extensions(&self, writer: &mut Writer<'_>) {
        match self {
            Self::GetSpi(spi) => {
                writer.sa2(spi.mode.0, spi.reqid);
                write_ends(writer, spi.ends.src(), spi.ends.dst());
                // Of IPComp the kernel takes no request without a range: its own goes beyond what a CPI can be.
                let is_cpi = spi.satype == SaType::X_IPCOMP;
                if let Some((min, max)) = spi.range.or(is_cpi.then_some((0x100, highest_spi(spi.satype)))) {
                    writer.spirange(min, max);
                }
                spi.xfrm.write(writer);
            }
            Self::Add(sa) | Self::Update(sa) => sa.write(writer),
            Self::Delete(id) | Self::Get(id) => {
                writer.sa(SadbSa { spi: id.spi.into(), ..SadbSa::default() });
                // An SA's name has no source, but its messages do.
                write_ends(writer, unspecified(id.dst), id.dst);
                name_of(id).write(writer);
            }
            Self::AddPolicy(policy) | Self::UpdatePolicy(policy) => policy.write(writer),
            Self::DeletePolicy(policy) => policy.write_name(writer),
            Self::Policy(id) | Self::DeletePolicyById(id) => {
                writer.policy(SadbXPolicy { id: (*id).into(), ..SadbXPolicy::default() }, &[]);
            }
            Self::PolicyOf(id, xfrm) | Self::DeletePolicyOf(id, xfrm) => {
                writer.policy(SadbXPolicy { id: (*id).into(), ..SadbXPolicy::default() }, &[]);
                xfrm.write(writer);
            }
            Self::Migrate(migration) => write_migration_request(writer, migration),
            Self::Raw(_, extensions) => {
                writer.copied(extensions);
            }
            Self::GiveUp(..)
            | Self::Register(_)
            | Self::Flush(_)
            | Self::Dump(_)
            | Self::Promiscuous(_)
            | Self::ShowXfrm(_)
            | Self::FlushPolicies
            | Self::DumpPolicies => {}
        }
    }
}

/// The highest SPI that there is: IPComp's is a CPI of 16 bits (RFC 3173).
const fn highest_spi(satype: SaType) -> u32 {
    if matches!(satype, SaType::X_IPCOMP) { u16::MAX as u32 } else { u32::MAX }
}

/// What names an SA beside its addresses and its SPI.
fn name_of(id: &SaId) -> Xfrm {
    // Its mark has only bits that count.
    let mask = if id.mark == 0 { 0 } else { u32::MAX };
    Xfrm::of_scope(Mark { value: id.mark, mask }, 0)
}
