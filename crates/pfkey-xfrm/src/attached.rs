//! What SAs and policies both have, as attributes of netlink: a security label, and what PF_KEY lacks.
#![forbid(unsafe_code)]

use pfkey_model::attached::{Attached, AttachedView};
use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::Message;
use pfkey_wire::xfrm::{Mark, OWN};
use zerocopy::{FromBytes, IntoBytes};

use crate::attribute::Writer;
use crate::layout::{UserSecCtx, attribute};

/// It of an SA or a policy that the kernel reports: its attributes, and what stands in the fixed part of the message.
pub fn view(xfrm: XfrmView<'_>) -> AttachedView<'_> {
    AttachedView { label: xfrm.attributes.payload(attribute::SEC_CTX).and_then(label_text), xfrm }
}

/// Writes it. The label is as the request has it: the kernel puts the NUL behind it.
pub fn write(request: &Message<'_>, attached: &Attached, writer: &mut Writer) {
    write_xfrm(&attached.xfrm, writer);
    write_label(request, writer);
}

/// Writes what XFRM has beyond PF_KEY. The integrity value's bits belong to the algorithm, and what is not netlink's to the fixed
/// part.
pub fn write_xfrm(xfrm: &Xfrm, writer: &mut Writer) {
    let own = |number: u16| number == attribute::ALG_AUTH_TRUNC || number >= OWN;
    for (number, payload) in xfrm.attributes().filter(|(number, _)| !own(*number)) {
        writer.attribute(number, &[payload]);
    }
}

/// Writes the mark that is a part of an SA's name.
pub fn write_mark(mark: Mark, writer: &mut Writer) {
    write_xfrm(&Xfrm::of_scope(mark, 0), writer);
}

/// Writes the label of a request, if it has one.
pub fn write_label(request: &Message<'_>, writer: &mut Writer) {
    let Some((fixed, text)) = request.sec_ctx() else { return };
    let head = UserSecCtx {
        // The text is at most a page long.
        len: ((size_of::<UserSecCtx>() + text.len()) as u16).into(),
        exttype: attribute::SEC_CTX.into(),
        alg: fixed.alg,
        doi: fixed.doi,
        ctx_len: fixed.ctx_len.get().into(),
    };
    writer.attribute(attribute::SEC_CTX, &[head.as_bytes(), text]);
}

/// The text of a label, its NUL included.
pub fn label_text(payload: &[u8]) -> Option<&[u8]> {
    let (head, rest) = UserSecCtx::ref_from_prefix(payload).ok()?;
    rest.get(..usize::from(head.ctx_len.get()))
}
