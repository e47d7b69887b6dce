//! FreeBSD's `-g` and `-t`: policies of no interface, and those of one. An interface is what XFRM calls `if_id`, which a pfkeyd
//! tells in an extension of its own; that is taken out of what is printed.

use std::borrow::Cow;

use pfkey::Received;
use pfkey_model::xfrm::XfrmView;
use pfkey_wire::{ExtensionType, Header, Profile, Writer, extensions};

use super::options::Scope;

/// The message as it is printed, if the policy that it tells of is asked for.
pub fn shown(bytes: &[u8], scope: Scope) -> Option<Cow<'_, [u8]>> {
    if scope == Scope::Any {
        return Some(Cow::Borrowed(bytes));
    }
    let mut copy = bytes.to_vec();
    let received = Received::read(&mut copy)?;
    let message = received.message?;
    let (xfrm, _) = crate::model::xfrm::shown(&XfrmView::of_message(&message));
    if (xfrm.if_id() != 0) != (scope == Scope::Interface) {
        return None;
    }
    Some(Cow::Owned(plain(bytes, received.header)?))
}

/// Without XFRM's extension.
fn plain(bytes: &[u8], header: Header) -> Option<Vec<u8>> {
    let mut buffer = vec![0; bytes.len()];
    let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
    for extension in extensions(bytes) {
        if extension.ext_type != ExtensionType::X_XFRM {
            writer.raw(extension.bytes);
        }
    }
    let len = writer.finish().ok()?.len();
    buffer.truncate(len);
    Some(buffer)
}
