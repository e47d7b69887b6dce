//! The kernel's SAs without an engine, for programs that only read.

use std::ops::ControlFlow;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::attribute::{DUMP, REQUEST};
use super::dump_reader::DumpReader;
use super::layout::{Header, UsersaInfo, attribute, message};
use super::netlink::Netlink;
use super::sa::{Reading, view};
use pfkey_model::view::SaView;
use pfkey_wire::xfrm::AttributeHeader;
use pfkey_wire::{Errno, Extras, IpsecProtocol};

/// Shows every SA of a protocol in the network namespace of a netlink socket. `None` if that cannot be
/// done from here, and nothing was shown.
pub fn for_each_sa(
    netlink: Netlink,
    proto: IpsecProtocol,
    now: Duration,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Option<Result<(), Errno>> {
    let how = Reading { extras: Extras { aead: true, sha256_128: false }, judged_at: Some(now) };
    let mut reader = DumpReader::start(netlink, &request(proto)).ok()?;
    loop {
        let seen = reader.next(|received| {
            let (info, attributes) = received.fixed::<UsersaInfo>()?;
            view(info, attributes, how).map(|view| visit(&view))
        });
        match seen {
            // This program may not read them.
            Err(Errno::EPERM) => return None,
            Err(errno) => return Some(Err(errno)),
            Ok(None | Some(Some(ControlFlow::Break(())))) => return Some(Ok(())),
            Ok(Some(_)) => {}
        }
    }
}

/// The request of a dump with its only attribute, in a buffer of its own: a `Writer` allocates.
fn request(proto: IpsecProtocol) -> [u8; 24] {
    let header = Header {
        len: 24.into(),
        msg_type: message::GETSA.into(),
        flags: (REQUEST | DUMP).into(),
        seq: 1.into(),
        ..Default::default()
    };
    let attribute = AttributeHeader { len: 5.into(), attr_type: attribute::PROTO.into() };
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(header.as_bytes());
    bytes[16..20].copy_from_slice(attribute.as_bytes());
    bytes[20] = proto.0;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Writer;

    #[test]
    fn the_request_is_what_a_writer_makes() {
        let mut writer = Writer::default();
        writer.message(message::GETSA, REQUEST | DUMP, 1, 0, &[0_u8; 0]).attribute(attribute::PROTO, &[&[50]]);
        assert_eq!(writer.bytes(), request(IpsecProtocol::ESP));
    }
}
