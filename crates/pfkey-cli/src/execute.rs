//! One command of the file language, carried out.

use std::net::SocketAddr;

use pfkey::policy_text::PolicySpec;
use pfkey_wire::{Header, MessageType, Profile, SaType, Writer};

use crate::channel::{Channel, finish};
use crate::failure::{Failure, Unwritable};
use crate::filter::Filter;
use crate::model::policy::{Policy, PolicyEntry};
use crate::model::sa::Sa;
use crate::output::{Out, View};
use crate::overview::unix_time;
use crate::setkey::Action;
use crate::{show, state};

/// Sends what the command says, and shows what it asks to see.
pub fn execute(channel: &mut Channel, out: &mut Out, view: View, action: &Action) -> Result<(), Failure> {
    match action {
        Action::Add(sa) => about_sa(channel, "add", MessageType::ADD, sa),
        Action::Update(sa) => about_sa(channel, "update", MessageType::UPDATE, sa),
        Action::GetSpi(sa) => about_sa(channel, "getspi", MessageType::GETSPI, sa),
        Action::Delete(sa) => about_sa(channel, "delete", MessageType::DELETE, sa),
        Action::Get(sa) => show::sa(channel, out, view, sa),
        Action::DeleteAll(satype, src, dst) => delete_all(channel, *satype, *src, *dst),
        Action::Flush(satype) => channel.header_request(MessageType::FLUSH, *satype),
        Action::Dump(satype) => show::sad(channel, out, view, *satype),
        Action::SpdAdd(policy) => about_policy(channel, "add", MessageType::X_SPDADD, policy),
        Action::SpdUpdate(policy) => about_policy(channel, "update", MessageType::X_SPDUPDATE, policy),
        Action::SpdDelete(policy, copy) => match about_policy(channel, "delete", MessageType::X_SPDDELETE, policy) {
            Err(Failure::Refused { errno: libc::ENOENT, .. }) if *copy => Ok(()),
            other => other,
        },
        Action::SpdTagged(update, spec) => {
            let msg_type = if *update { MessageType::X_SPDUPDATE } else { MessageType::X_SPDADD };
            channel.request("policy for tagged packets", |seq, pid, b| tagged(msg_type, spec, seq, pid, b), |_| ())
        }
        Action::SpdFlush => channel.header_request(MessageType::X_SPDFLUSH, SaType::UNSPEC),
        Action::SpdDump => show::spd(channel, out, view, None, false),
    }
}

/// ADD, UPDATE, GETSPI or DELETE.
pub fn about_sa(channel: &mut Channel, verb: &str, msg_type: MessageType, sa: &Sa) -> Result<(), Failure> {
    let what = format!("{verb} {}", sa.title());
    channel.request(&what, |seq, pid, buffer| sa.write(msg_type, seq, pid, buffer), |_| ())
}

/// X_SPDADD, X_SPDUPDATE or X_SPDDELETE.
pub fn about_policy(channel: &mut Channel, verb: &str, msg_type: MessageType, policy: &Policy) -> Result<(), Failure> {
    let what = format!("{verb} {}", policy.title());
    channel.request(&what, |seq, pid, buffer| policy.write(msg_type, seq, pid, buffer), |_| ())
}

/// A policy without addresses: its tag has no extension in Linux, and none in setkey's message for Linux.
pub fn tagged(
    msg_type: MessageType,
    spec: &PolicySpec,
    seq: u32,
    pid: u32,
    buffer: &mut [u8],
) -> Result<usize, Unwritable> {
    let mut writer = Writer::new(buffer, Header::new(msg_type, SaType::UNSPEC, seq, pid), Profile::Linux);
    writer.raw(&spec.to_bytes()?);
    finish(writer)
}

/// Deletes the SAs that a filter takes, and says how many there were.
pub fn delete_some(channel: &mut Channel, satype: SaType, filter: &Filter) -> Result<usize, Failure> {
    let (mut deleted, now) = (0, unix_time());
    for entry in state::sas(channel, satype)?.iter().filter(|entry| filter.takes_sa(entry, now)) {
        match about_sa(channel, "delete", MessageType::DELETE, &entry.sa) {
            // It expired meanwhile, or is a larval SA without an SPI.
            Err(Failure::Refused { errno: libc::ESRCH, .. }) => {}
            other => other.map(|()| deleted += 1)?,
        }
    }
    Ok(deleted)
}

/// Deletes the policies that a filter takes, but for those of sockets.
pub fn delete_some_policies(channel: &mut Channel, filter: &Filter) -> Result<(), Failure> {
    filter.check_for_policies()?;
    let now = unix_time();
    let wanted = |entry: &&PolicyEntry| !entry.is_of_socket() && filter.takes_policy(entry, now);
    for entry in state::policies(channel)?.iter().filter(wanted) {
        match about_policy(channel, "delete", MessageType::X_SPDDELETE, &entry.policy) {
            Err(Failure::Refused { errno: libc::ENOENT, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Linux deletes SAs one by one only.
pub fn delete_all(channel: &mut Channel, satype: SaType, src: SocketAddr, dst: SocketAddr) -> Result<(), Failure> {
    for entry in state::sas(channel, satype)? {
        if (entry.sa.src.ip(), entry.sa.dst.ip()) == (src.ip(), dst.ip()) {
            match about_sa(channel, "delete", MessageType::DELETE, &entry.sa) {
                // It expired meanwhile, or is a larval SA without an SPI.
                Err(Failure::Refused { errno: libc::ESRCH, .. }) => {}
                other => other?,
            }
        }
    }
    Ok(())
}
