//! The SAD and the SPD as a key engine tells of them.

use pfkey_wire::{MessageType, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::policy::PolicyEntry;
use crate::model::sa::SaEntry;

/// Every SA of a type, in the engine's order: Linux tells of the newest first.
pub fn sas(channel: &mut Channel, satype: SaType) -> Result<Vec<SaEntry>, Failure> {
    let mut entries = Vec::new();
    channel.dump(MessageType::DUMP, satype, |received| {
        entries.extend(received.message.as_ref().and_then(SaEntry::of));
        Ok(())
    })?;
    Ok(entries)
}

/// Every policy, in the engine's order.
pub fn policies(channel: &mut Channel) -> Result<Vec<PolicyEntry>, Failure> {
    let mut entries = Vec::new();
    channel.dump(MessageType::X_SPDDUMP, SaType::UNSPEC, |received| {
        let references = received.header.reserved;
        entries.extend(received.message.as_ref().and_then(|message| PolicyEntry::of(message, references)));
        Ok(())
    })?;
    Ok(entries)
}
