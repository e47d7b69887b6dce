//! What SAs and policies both have, as attributes of netlink: a security label, and what PF_KEY lacks.
#![forbid(unsafe_code)]

use pfkey_model::attached::{Attached, AttachedView};
use pfkey_model::xfrm::{Xfrm, XfrmView};
use pfkey_wire::Message;
use pfkey_wire::xfrm::Mark;
use zerocopy::{FromBytes, IntoBytes};

use crate::attribute::{Attributes, Writer};
use crate::layout::{UserSecCtx, attribute};

/// It of an SA or a policy that the kernel reports, with flags and options of the extension.
pub fn view(attributes: Attributes<'_>, flags: u8, options: u8) -> AttachedView<'_> {
    AttachedView { label: label(attributes), xfrm: XfrmView { flags, options, icv_bits: None, attributes } }
}

/// Writes it. The label is as the request has it: the kernel puts the NUL behind it.
pub fn write(request: &Message<'_>, attached: &Attached, writer: &mut Writer) {
    write_xfrm(&attached.xfrm, writer);
    write_label(request, writer);
}

/// Writes what XFRM has beyond PF_KEY. The integrity value's bits belong to the algorithm.
pub fn write_xfrm(xfrm: &Xfrm, writer: &mut Writer) {
    for (number, payload) in xfrm.attributes().filter(|(number, _)| *number != attribute::ALG_AUTH_TRUNC) {
        writer.attribute(number, &[payload]);
    }
}

/// Writes the mark and the XFRM interface that name an SA or a policy.
pub fn write_scope(mark: Mark, if_id: u32, writer: &mut Writer) {
    write_xfrm(&Xfrm::of_scope(mark, if_id), writer);
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

/// The label among attributes, its NUL included.
fn label(attributes: Attributes<'_>) -> Option<&[u8]> {
    let payload = attributes.payload(attribute::SEC_CTX)?;
    let (head, rest) = UserSecCtx::ref_from_prefix(payload).ok()?;
    rest.get(..usize::from(head.ctx_len.get()))
}
