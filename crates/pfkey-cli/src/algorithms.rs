//! `algorithms`: what the key engine can do, as it answers to REGISTER.

use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, ExtensionType, MessageType, SaType};

use crate::channel::{Channel, header_only};
use crate::failure::Failure;
use crate::model::names;
use crate::output::{Out, Record, Value, View, show};

/// The engine's algorithms as records.
pub fn list(channel: &mut Channel) -> Result<Vec<Record>, Failure> {
    // SA type 0 registers nothing and is answered all the same.
    let write = |seq, pid, buffer: &mut [u8]| header_only(MessageType::REGISTER, SaType::UNSPEC, seq, pid, buffer);
    channel.request("register", write, |received| {
        let mut records = Vec::new();
        let kinds = [
            ("authentication", ExtensionType::SUPPORTED_AUTH, names::AUTH),
            ("encryption", ExtensionType::SUPPORTED_ENCRYPT, names::ENCRYPT),
        ];
        for (kind, ext, table) in kinds {
            for alg in received.message.as_ref().and_then(|m| m.supported(ext)).into_iter().flatten() {
                let c_name = match ext {
                    ExtensionType::SUPPORTED_AUTH => AuthAlgorithm(alg.id).name(),
                    _ => EncryptAlgorithm(alg.id).name(),
                };
                records.push(vec![
                    ("kind", Value::Text(kind.to_owned())),
                    ("name", Value::Text(names::shown(table, alg.id))),
                    ("number", Value::Number(alg.id.into())),
                    ("header_name", Value::Text(c_name.unwrap_or_default().to_owned())),
                    ("min_bits", Value::Number(alg.minbits.get().into())),
                    ("max_bits", Value::Number(alg.maxbits.get().into())),
                    ("iv_bytes", Value::Number(alg.ivlen.into())),
                ]);
            }
        }
        records
    })
}

/// Shows them.
pub fn algorithms(view: View) -> Result<(), Failure> {
    let records = list(&mut Channel::open()?)?;
    let columns = &["kind", "name", "number", "min_bits", "max_bits", "iv_bytes", "header_name"];
    Ok(show(&mut Out::new(), view, "algorithms", columns, &records)?)
}
