//! The kernel's SAs without an engine: for programs that only look.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::{FromBytes, IntoBytes};

use super::algorithm::Kind;
use super::attribute::{Attributes, DUMP, REQUEST};
use super::layout::{ALGORITHM_NAME, AttributeHeader, EncapTmpl, Header, UsersaInfo, attribute, message};
use super::netlink::Netlink;
use super::parts::Parts;
use super::sa::{aead_id, flags_from_xfrm, is_past_soft_limit, said_from_xfrm};
use super::value::{limits_from_xfrm, mode_from_xfrm, usage};
use crate::afkey::sa::Encap;
use crate::afkey::view::SaView;
use crate::keyd::{Errno, Time};
use crate::socket::same_namespace;
use crate::wire::{SaState, SaType};

/// Shows every SA of a protocol (255: AH, ESP and IPComp) in the network namespace of a socket. `None` if that cannot be
/// done from here, and nothing was shown.
pub fn for_each_sa(
    socket: BorrowedFd<'_>,
    proto: u8,
    now: Time,
    visit: &mut dyn FnMut(&SaView<'_>) -> ControlFlow<()>,
) -> Option<Result<(), Errno>> {
    let netlink = Netlink::open().ok()?;
    if !same_namespace(socket, netlink.as_fd()) {
        return None;
    }
    let mut parts = Parts::start(netlink, &request(proto)).ok()?;
    loop {
        let seen = parts.next(|received| {
            let (info, attributes) = received.fixed::<UsersaInfo>()?;
            view(&info, attributes, now).map(|view| visit(&view))
        });
        match seen {
            // The right to look is missing.
            Err(Errno::EPERM) => return None,
            Err(errno) => return Some(Err(errno)),
            Ok(None | Some(Some(ControlFlow::Break(())))) => return Some(Ok(())),
            Ok(Some(_)) => {}
        }
    }
}

/// The request of a dump with its only attribute, in a buffer of its own: a `Writer` allocates.
fn request(proto: u8) -> [u8; 24] {
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
    bytes[20] = proto;
    bytes
}

/// Bits and bytes of a key.
type KeyView<'a> = (u16, &'a [u8]);

/// Name and key of an algorithm attribute; `fixed` = bytes between the two.
fn algorithm(payload: &[u8], fixed: usize) -> Option<(&[u8], KeyView<'_>)> {
    let (name, rest) = payload.split_at_checked(ALGORITHM_NAME)?;
    let bits = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
    let key = rest.get(fixed..)?.get(..(bits as usize).div_ceil(8))?;
    Some((name, (u16::try_from(bits).ok()?, key)))
}

/// What `super::sa::read` makes, without a copy. AEADs have their numbers here.
pub(super) fn view<'a>(info: &UsersaInfo, attributes: Attributes<'a>, now: Time) -> Option<SaView<'a>> {
    let said = said_from_xfrm(&info.id, info.family.get())?;
    let (hard, soft) = limits_from_xfrm(&info.lft);
    let usage = usage(&info.curlft);
    let mut view = SaView {
        satype: SaType::from_protocol(said.proto),
        state: SaState::LARVAL,
        auth: 0,
        encrypt: 0,
        mode: mode_from_xfrm(info.mode)?,
        replay: info.replay_window,
        flags: flags_from_xfrm(info.flags),
        spi: said.spi,
        reqid: info.reqid.get(),
        v6: said.v6,
        src: info.saddr,
        dst: said.daddr,
        auth_key: (0, &[]),
        encrypt_key: (0, &[]),
        hard,
        soft,
        usage,
        encap: None,
    };
    let grown = if is_past_soft_limit(&soft, &usage, now) { SaState::DYING } else { SaState::MATURE };
    for (attr_type, payload) in attributes {
        match attr_type {
            attribute::ALG_AUTH => {
                let (name, key) = algorithm(payload, 4)?;
                (view.state, view.auth, view.auth_key) = (grown, Kind::Auth.id_of(name), key);
            }
            attribute::ALG_CRYPT => {
                let (name, key) = algorithm(payload, 4)?;
                (view.state, view.encrypt, view.encrypt_key) = (grown, Kind::Encrypt.id_of(name), key);
            }
            attribute::ALG_COMP => {
                let (name, _) = algorithm(payload, 4)?;
                (view.state, view.encrypt) = (grown, Kind::Compress.id_of(name));
            }
            attribute::ALG_AEAD => {
                let (_, key) = algorithm(payload, 8)?;
                (view.state, view.encrypt, view.encrypt_key) = (grown, aead_id(payload).unwrap_or(0), key);
            }
            attribute::ALG_AUTH_TRUNC => view.state = grown,
            attribute::ENCAP => {
                let Ok((template, _)) = EncapTmpl::read_from_prefix(payload) else { continue };
                view.encap = Some(Encap {
                    encap_type: template.encap_type.get() as u8,
                    sport: template.sport.get(),
                    dport: template.dport.get(),
                });
            }
            _ => {}
        }
    }
    Some(view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xfrm::attribute::Writer;

    #[test]
    fn the_request_is_what_a_writer_makes() {
        let mut writer = Writer::default();
        writer.message(message::GETSA, REQUEST | DUMP, 1, 0, &[0_u8; 0]).attribute(attribute::PROTO, &[&[50]]);
        assert_eq!(writer.bytes(), request(50));
    }
}
