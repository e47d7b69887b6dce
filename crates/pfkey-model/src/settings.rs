//! What a session's SAs and policies have beyond what its program says of them (`pfkey_wire::xfrm::settings`): put into its
//! requests as X_XFRM extensions, so that engines know nothing of it; and which of others' SAs and policies are in its world.

use std::fmt;

use pfkey_wire::layout::U32;
use pfkey_wire::xfrm::settings::{Complaint, Meant, Setting, What, World, by_number, read};
use pfkey_wire::xfrm::words::{OFFLOAD_INBOUND, OFFLOAD_PACKET, Payload};
use pfkey_wire::xfrm::{
    Attributes, Carrier, FLAG_ESN, Mark, Offload, POLICY_TYPE_SUB, Said, attribute, attribute_info, push,
};
use pfkey_wire::{
    AuthAlgorithm, Errno, ExtensionType as Ext, HEADER_LEN, Header, Message, MessageType, Mode, PolicyDirection,
    Profile, Requests, SaType, Writer, extensions,
};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zeroize::Zeroizing;

use super::request::refuse_xfrm;

/// The settings of a session.
pub struct Settings {
    text: Box<str>,
    all: Vec<Setting>,
    world: World,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({:?})", self.text)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Settings {}

/// What a request is about.
struct About {
    /// Of names too the mark and the XFRM interface.
    carrier: Carrier,
    dir: PolicyDirection,
    /// A larval has what the kernel takes for one.
    larval: bool,
}

impl About {
    fn of(request: &Message<'_>) -> Option<Self> {
        let of = |carrier, dir| Some(Self { carrier, dir, larval: false });
        match request.header().msg_type {
            // Who chose the SPI receives.
            MessageType::GETSPI => Some(Self { carrier: Carrier::Sa, dir: PolicyDirection::INBOUND, larval: true }),
            MessageType::UPDATE => of(Carrier::Sa, PolicyDirection::INBOUND),
            MessageType::ADD => of(Carrier::Sa, PolicyDirection::OUTBOUND),
            MessageType::GET | MessageType::DELETE => of(Carrier::SaName, PolicyDirection::ANY),
            MessageType::X_SPDADD | MessageType::X_SPDUPDATE | MessageType::X_SPDSETIDX => {
                of(Carrier::Policy, PolicyDirection(request.policy()?.0.dir))
            }
            MessageType::X_SPDDELETE | MessageType::X_SPDDELETE2 | MessageType::X_SPDGET => {
                of(Carrier::PolicyName, PolicyDirection::ANY)
            }
            _ => None,
        }
    }
}

impl Settings {
    /// Of a text, whose network interfaces are numbers.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, Complaint> {
        let all: Vec<Setting> = read(text, &by_number).collect::<Result<_, _>>()?;
        let mut world = World::default();
        for setting in &all {
            match setting.what {
                What::Attribute(attribute::MARK, payload) => {
                    world.mark = Mark::read_from_bytes(payload.as_slice()).ok()
                }
                What::Attribute(attribute::IF_ID, payload) => {
                    world.if_id = U32::read_from_bytes(payload.as_slice()).ok().map(U32::get);
                }
                _ => {}
            }
        }
        Ok(Self { text: text.into(), all, world })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// By what the session is apart from others.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The attributes that an engine has to have for it.
    pub fn attributes(&self) -> impl Iterator<Item = u16> {
        self.all.iter().filter_map(|setting| match setting.what {
            What::Attribute(number, _) => Some(number),
            What::Flags { sa, .. } if sa & FLAG_ESN != 0 => Some(attribute::REPLAY_ESN_VAL),
            _ => None,
        })
    }

    /// A request with them; `None`: it is as it was. What the request says itself stays.
    ///
    /// # Errors
    /// EINVAL for one about another world, EOPNOTSUPP for X_MIGRATE in a world: it would move others' policies.
    pub fn apply(&self, request: &Message<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Errno> {
        refuse_xfrm(request)?;
        if request.header().msg_type == MessageType::X_MIGRATE && !self.world.is_all() {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some(about) = About::of(request) else { return Ok(None) };
        let said = request.xfrm();
        self.check_world(&said)?;
        let mut attributes = Vec::new();
        said.attributes.for_each(|(number, payload)| push(&mut attributes, number, payload));
        let (mut flags, mut options, own) = (said.fixed.flags, said.fixed.options, attributes.len());
        let auth = request.sa().map_or(AuthAlgorithm::NONE, |sa| AuthAlgorithm(sa.auth));
        for Setting { meant, what } in &self.all {
            match *what {
                What::Attribute(number, payload) => {
                    let has = said.attributes.payload(number).is_some();
                    let fits = about.takes(meant, number, request.header().satype)
                        && (number != attribute::ALG_AUTH_TRUNC || auth != AuthAlgorithm::NONE);
                    let fits = fits && (number != attribute::MODE || has_tunnel(request));
                    let payload = if number == attribute::OFFLOAD_DEV { about.offload(payload) } else { Some(payload) };
                    if let Some(payload) = payload.filter(|_| fits && !has) {
                        push(&mut attributes, number, payload.as_slice());
                    }
                }
                What::Flags { sa, policy } if about.is_meant(meant, request.header().satype) => match about.carrier {
                    Carrier::Sa if !about.larval => flags |= sa,
                    Carrier::Policy => flags |= policy,
                    _ => {}
                },
                What::Options(more) if about.carrier == Carrier::Policy => {
                    options |= if about.is_meant(meant, SaType::UNSPEC) { more } else { 0 };
                }
                _ => {}
            }
        }
        let mut has_window = Attributes(&attributes).payload(attribute::REPLAY_ESN_VAL).is_some();
        if flags & FLAG_ESN != 0 && about.carrier == Carrier::Sa && !has_window {
            // As wide as PF_KEY's.
            let window = Payload::of_window(32).ok_or(Errno::EINVAL)?;
            push(&mut attributes, attribute::REPLAY_ESN_VAL, window.as_slice());
            has_window = true;
        }
        let own_window = has_window && said.attributes.payload(attribute::REPLAY_ESN_VAL).is_none();
        if (flags, options, attributes.len()) == (said.fixed.flags, said.fixed.options, own) {
            return Ok(None);
        }
        rewrite(request, own_window, flags, options, &attributes).map(Some)
    }

    /// A request says no other mark or XFRM interface than those of the session.
    fn check_world(&self, said: &Said<'_>) -> Result<(), Errno> {
        let mark = said.attributes.read::<Mark>(attribute::MARK);
        let if_id = said.attributes.read::<U32>(attribute::IF_ID).map(U32::get);
        let differs = self.world.mark.is_some_and(|own| mark.is_some_and(|said| said != own))
            || self.world.if_id.is_some_and(|own| if_id.is_some_and(|said| said != own));
        if differs { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl About {
    fn is_meant(&self, meant: &Meant, satype: SaType) -> bool {
        meant.includes(self.carrier, self.dir, satype)
    }

    /// Whether a request of this kind takes an attribute.
    fn takes(&self, meant: &Meant, number: u16, satype: SaType) -> bool {
        let carriers = attribute_info(number).map_or(&[Carrier::Sa][..], |row| row.carriers);
        if !carriers.contains(&self.carrier) {
            return false;
        }
        match self.carrier {
            // The mark and the XFRM interface, which are meant for everything.
            Carrier::SaName | Carrier::PolicyName => true,
            _ if self.larval => {
                use attribute::{DEV, IF_ID, MARK, MODE, SA_DIR, SA_PCPU};
                let of_larvals = [MARK, IF_ID, SA_DIR, SA_PCPU, DEV, MODE];
                of_larvals.contains(&number) && self.is_meant(meant, satype)
            }
            _ => self.is_meant(meant, satype),
        }
    }

    /// Offload by direction. A policy has it where the card does whole packets.
    fn offload(&self, payload: Payload) -> Option<Payload> {
        let mut offload = Offload::read_from_bytes(payload.as_slice()).ok()?;
        match (self.carrier, self.dir) {
            (Carrier::Policy, _) if offload.flags & OFFLOAD_PACKET == 0 => return None,
            (Carrier::Sa, PolicyDirection::INBOUND) => offload.flags |= OFFLOAD_INBOUND,
            _ => {}
        }
        Payload::of(offload.as_bytes())
    }
}

/// Whether a request is about a tunnel, whose mode can be another.
fn has_tunnel(request: &Message<'_>) -> bool {
    let sa = request.sa2().is_some_and(|sa2| Mode(sa2.mode) == Mode::TUNNEL);
    let requests = request.policy().map_or(&[][..], |(_, requests)| requests);
    sa || Requests::new(requests).any(|(fixed, _)| Mode(fixed.mode) == Mode::TUNNEL)
}

/// A message with another X_XFRM; `no_window`: without a replay window of PF_KEY's.
fn rewrite(
    message: &Message<'_>,
    no_window: bool,
    flags: u8,
    options: u8,
    attributes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Errno> {
    // Of sadb_sa_replay.
    const REPLAY: usize = 8;
    let mut buffer = Zeroizing::new(vec![0; message.bytes().len() + attributes.len() + 16]);
    let mut writer = Writer::new(&mut buffer, message.header(), Profile::Linux);
    for extension in message.extensions() {
        match extension.ext_type {
            Ext::X_XFRM => {}
            Ext::SA if no_window => {
                let mut sa = extension.bytes.to_vec();
                sa.iter_mut().skip(REPLAY).take(1).for_each(|replay| *replay = 0);
                writer.raw(&sa);
            }
            _ => {
                writer.raw(extension.bytes);
            }
        }
    }
    writer.xfrm(flags, options, attributes);
    let len = writer.finish().map_err(|_| Errno::ENOBUFS)?.len();
    buffer.truncate(len);
    Ok(buffer)
}

/// What a message that an engine sent has beyond PF_KEY.
fn shown(message: &[u8]) -> Said<'_> {
    extensions(message).find(|extension| extension.ext_type == Ext::X_XFRM).map_or_else(Said::default, Said::of)
}

/// Whether a message is about a policy of type sub, which AF_KEY does not show.
#[must_use]
pub fn is_sub_policy(message: &[u8]) -> bool {
    shown(message).attributes.payload(attribute::POLICY_TYPE) == Some(&POLICY_TYPE_SUB)
}

/// The mark and the XFRM interface of the SA or the policy that a message of an engine's is about; `None`: it is about none.
#[must_use]
pub fn scope(message: &[u8]) -> Option<(Mark, u32)> {
    let is_about_one = !matches!(
        Header::read(message)?.msg_type,
        MessageType::REGISTER
            | MessageType::FLUSH
            | MessageType::X_SPDFLUSH
            | MessageType::X_PROMISC
            | MessageType::X_PCHANGE
            | MessageType::X_MIGRATE
            | MessageType::X_XFRM
    );
    if message.len() <= HEADER_LEN || !is_about_one {
        return None;
    }
    let attributes = shown(message).attributes;
    let if_id = attributes.read::<U32>(attribute::IF_ID).map_or(0, U32::get);
    Some((attributes.read(attribute::MARK).unwrap_or_default(), if_id))
}

/// The request, of this sequence number and process, that deletes the SA or the policy of a dump's message.
///
/// # Errors
/// EINVAL: it shows none.
pub fn deletion(dumped: &[u8], seq: u32, pid: u32) -> Result<Vec<u8>, Errno> {
    let header = Header::read(dumped).ok_or(Errno::EINVAL)?;
    let is_policy = header.msg_type == MessageType::X_SPDDUMP;
    let msg_type = if is_policy { MessageType::X_SPDDELETE2 } else { MessageType::DELETE };
    let carrier = if is_policy { Carrier::PolicyName } else { Carrier::SaName };
    let kept: &[Ext] = if is_policy { &[Ext::X_POLICY] } else { &[Ext::SA, Ext::ADDRESS_SRC, Ext::ADDRESS_DST] };
    let mut buffer = vec![0; dumped.len() + 64];
    let mut writer = Writer::new(&mut buffer, Header::new(msg_type, header.satype, seq, pid), Profile::Linux);
    extensions(dumped).filter(|extension| kept.contains(&extension.ext_type)).for_each(|extension| {
        writer.raw(extension.bytes);
    });
    let mut name = Vec::new();
    for (number, payload) in shown(dumped).attributes {
        let names = attribute_info(number).is_some_and(|row| row.carriers.contains(&carrier));
        if names {
            push(&mut name, number, payload);
        }
    }
    if !name.is_empty() {
        writer.xfrm(0, 0, &name);
    }
    let len = writer.finish().map_err(|_| Errno::EINVAL)?.len();
    buffer.truncate(len);
    Ok(buffer)
}
