//! What SAs and policies both have: a security label, and XFRM's attributes. How it is read, and written, is said here for both.

use super::judge::Judge;
use super::label::SecurityLabel;
use super::xfrm::{Xfrm, XfrmView};
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{Errno, Message, Writer};

/// It of an SA or a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Security label.
    pub label: Option<SecurityLabel>,
    /// What XFRM has beyond PF_KEY.
    pub xfrm: Xfrm,
}

/// The same in place, in a message or in a netlink buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachedView<'a> {
    /// Security label, the NUL included.
    pub label: Option<&'a [u8]>,
    /// What XFRM has beyond PF_KEY.
    pub xfrm: XfrmView<'a>,
}

impl<'a> AttachedView<'a> {
    /// What a message shows.
    #[must_use]
    pub fn of_message(message: &Message<'a>) -> Self {
        Self { label: message.sec_ctx().map(|(_, text)| text), xfrm: XfrmView::of_message(message) }
    }
}

impl From<&AttachedView<'_>> for Attached {
    fn from(view: &AttachedView<'_>) -> Self {
        Self { label: view.label.map(|text| SecurityLabel { text: text.into() }), xfrm: Xfrm::from(&view.xfrm) }
    }
}

impl Attached {
    /// What a request says, if its carrier can and the engine has it.
    ///
    /// # Errors
    /// Those of [`Judge::label`] and of [`Xfrm::read`].
    pub fn read(request: &Message<'_>, carrier: Carrier, judge: &mut impl Judge) -> Result<Self, Errno> {
        Ok(Self { label: judge.label(request)?, xfrm: Xfrm::read(request, carrier, judge)? })
    }

    /// What of a policy's an SA has to have: the label, the mark, the XFRM interface.
    #[must_use]
    pub fn wanted(&self) -> Self {
        Self { label: self.label.clone(), xfrm: self.xfrm.scope() }
    }

    /// Writes the extensions, as many as there are.
    pub fn write(&self, writer: &mut Writer<'_>) {
        if let Some(label) = &self.label {
            writer.sec_ctx(SecurityLabel::DOI, SecurityLabel::ALG, &label.text);
        }
        self.xfrm.write(writer);
    }
}
