//! What XFRM has of an SA or a policy beyond PF_KEY: kept as attributes, and written as `SADB_X_EXT_XFRM`.

mod typed;

use zerocopy::IntoBytes as _;

use super::judge::Judge;
use pfkey_wire::layout::U32;
use pfkey_wire::xfrm::{Attributes, Carrier, Mark, POLICY_TYPE_SUB, Said, Truncation, attribute, is_pf_keys_own, push};
use pfkey_wire::{Errno, ExtensionType as Ext, Message, Writer};

pub use typed::OffloadDevice;

/// It of an SA or a policy. Most have nothing of it, which takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xfrm(Option<Box<Content>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    flags: u8,
    options: u8,
    mark: Mark,
    if_id: u32,
    device: u32,
    attributes: Vec<u8>,
}

/// The same in place, in a message or in a netlink buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct XfrmView<'a> {
    /// `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
    pub flags: u8,
    /// `OPTION_*`.
    pub options: u8,
    /// Bits of the integrity value, where they are not what PF_KEY implies.
    pub icv_bits: Option<u32>,
    /// What netlink has in the fixed part of its messages: the number of the selector's network interface, 0 = none.
    pub device: u32,
    /// And the mode in the place of tunnel mode.
    pub mode: Option<u8>,
    /// The attributes, and perhaps others that PF_KEY says in another place.
    pub attributes: Attributes<'a>,
}

impl<'a> XfrmView<'a> {
    /// What a message shows.
    #[must_use]
    pub fn of_message(message: &Message<'a>) -> Self {
        let Said { fixed, attributes } = message.xfrm();
        let icv_bits = attributes.read::<Truncation>(attribute::ALG_AUTH_TRUNC).map(|t| t.icv_bits.get());
        Self { flags: fixed.flags, options: fixed.options, icv_bits, device: 0, mode: None, attributes }
    }

    /// The attributes that PF_KEY does not say in another place, without the integrity value's bits, sequence numbers that are 0
    /// and the usual type of policies.
    pub fn carried(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        self.attributes.filter(|(number, payload)| match *number {
            attribute::ALG_AUTH_TRUNC => false,
            attribute::REPLAY_VAL | attribute::POLICY_TYPE => payload.iter().any(|byte| *byte != 0),
            number => !is_pf_keys_own(number),
        })
    }

    /// Its mark.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.attributes.read(attribute::MARK).unwrap_or_default()
    }
}

impl From<&XfrmView<'_>> for Xfrm {
    fn from(view: &XfrmView<'_>) -> Self {
        let XfrmView { flags, options, icv_bits, device, mode, .. } = *view;
        if (flags, options, icv_bits, device, mode) == (0, 0, None, 0, None) && view.carried().next().is_none() {
            return Self::default();
        }
        let mut xfrm = Self(Some(Box::new(Content { flags, options, ..Content::default() })));
        view.carried().for_each(|(number, payload)| xfrm.set(number, payload));
        if let Some(bits) = icv_bits {
            let truncation = Truncation { icv_bits: bits.into(), ..Truncation::default() };
            xfrm.set(attribute::ALG_AUTH_TRUNC, truncation.as_bytes());
        }
        if device != 0 {
            xfrm.set(attribute::DEV, device.as_bytes());
        }
        if let Some(mode) = mode {
            xfrm.set(attribute::MODE, &[mode]);
        }
        xfrm
    }
}

impl Xfrm {
    /// A mark and an XFRM interface.
    #[must_use]
    pub fn of_scope(mark: Mark, if_id: u32) -> Self {
        let mut xfrm = Self::default();
        if mark != Mark::NONE {
            xfrm.set(attribute::MARK, mark.as_bytes());
        }
        if if_id != 0 {
            xfrm.set(attribute::IF_ID, if_id.as_bytes());
        }
        xfrm
    }

    /// Its mark and its XFRM interface.
    #[must_use]
    pub fn scope(&self) -> Self {
        Self::of_scope(self.mark(), self.if_id())
    }

    /// What belongs to the name of a policy: its mark, its XFRM interface, its type and its selector's network interface.
    #[must_use]
    pub fn policy_name(&self) -> Self {
        Self::of_policy(self.mark(), self.if_id(), self.is_sub(), self.device())
    }

    /// The same of these.
    #[must_use]
    pub fn of_policy(mark: Mark, if_id: u32, sub: bool, device: u32) -> Self {
        let mut name = Self::of_scope(mark, if_id);
        if sub {
            name.set(attribute::POLICY_TYPE, &POLICY_TYPE_SUB);
        }
        if device != 0 {
            name.set(attribute::DEV, device.as_bytes());
        }
        name
    }

    /// What a request says, if its carrier can and the engine has it.
    ///
    /// # Errors
    /// Those of [`Said::check`] and of [`Judge::attribute`].
    pub fn read(request: &Message<'_>, carrier: Carrier, judge: &mut impl Judge) -> Result<Self, Errno> {
        if !request.has(Ext::X_XFRM) {
            return Ok(Self::default());
        }
        let replay = request.sa().map_or(0, |sa| sa.replay);
        if let Err(refusal) = request.xfrm().check(carrier, replay) {
            judge.explain(&refusal);
            return Err(refusal.errno());
        }
        let view = XfrmView::of_message(request);
        view.attributes.into_iter().try_for_each(|(number, _)| judge.attribute(number))?;
        Ok(Self::from(&view))
    }

    /// Sets an attribute.
    pub fn set(&mut self, number: u16, payload: &[u8]) {
        let content = self.0.get_or_insert_default();
        let others = Attributes(&content.attributes).filter(|(other, _)| *other != number);
        let mut attributes = Vec::with_capacity(content.attributes.len() + payload.len() + 8);
        others.for_each(|(other, payload)| push(&mut attributes, other, payload));
        push(&mut attributes, number, payload);
        content.attributes = attributes;
        let all = Attributes(&content.attributes);
        content.mark = all.read(attribute::MARK).unwrap_or_default();
        content.if_id = all.read::<U32>(attribute::IF_ID).unwrap_or_default().get();
        content.device = all.read::<U32>(attribute::DEV).unwrap_or_default().get();
    }

    /// Sets the flags.
    pub fn set_flags(&mut self, flags: u8) {
        self.0.get_or_insert_default().flags = flags;
    }

    /// Sets the options.
    pub fn set_options(&mut self, options: u8) {
        self.0.get_or_insert_default().options = options;
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0.as_ref().map_or(0, |content| content.flags)
    }

    /// `OPTION_*`.
    #[must_use]
    pub fn options(&self) -> u8 {
        self.0.as_ref().map_or(0, |content| content.options)
    }

    /// The mark of the packets that it is for.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.0.as_ref().map_or(Mark::NONE, |content| content.mark)
    }

    /// The XFRM interface that it belongs to, 0 = none.
    #[must_use]
    pub fn if_id(&self) -> u32 {
        self.0.as_ref().map_or(0, |content| content.if_id)
    }

    /// The network interface that its selector is for, 0 = any.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.0.as_ref().map_or(0, |content| content.device)
    }

    /// Whether it is for packets that leave through a network interface (`__xfrm4_selector_match`) and are sent by a processor
    /// (`xfrm_state_look_at`).
    #[must_use]
    pub fn is_for(&self, device: u32, cpu: u32) -> bool {
        let on = |one: u32| one == 0 || one == device;
        self.is_empty() || on(self.device()) && self.pcpu().is_none_or(|one| one == cpu)
    }

    /// Whether it is a policy of type sub (`XFRM_POLICY_TYPE_SUB`): a packet meets one of them, and then one of the others.
    #[must_use]
    pub fn is_sub(&self) -> bool {
        self.attributes().payload(attribute::POLICY_TYPE) == Some(&POLICY_TYPE_SUB)
    }

    /// The mode in the place of tunnel mode (`XFRM_MODE_*`).
    #[must_use]
    pub fn mode(&self) -> Option<u8> {
        self.attributes().payload(attribute::MODE).and_then(|payload| payload.first().copied())
    }

    /// Bits of the integrity value, where they are not what PF_KEY implies.
    #[must_use]
    pub fn icv_bits(&self) -> Option<u32> {
        self.attributes().read::<Truncation>(attribute::ALG_AUTH_TRUNC).map(|t| t.icv_bits.get())
    }

    /// An attribute that is a `__u32`.
    #[must_use]
    pub fn u32(&self, number: u16) -> Option<u32> {
        self.attributes().read::<U32>(number).map(U32::get)
    }

    /// All attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(self.0.as_ref().map_or(&[], |content| &content.attributes))
    }

    /// Writes the extension, if there is anything.
    pub fn write(&self, writer: &mut Writer<'_>) {
        if let Some(content) = &self.0 {
            writer.xfrm(content.flags, content.options, &content.attributes);
        }
    }
}
