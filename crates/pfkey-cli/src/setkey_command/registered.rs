//! The algorithms that the key engine named when it was registered with: keys are checked against them before anything is sent.

use pfkey_print::error::Code;
use pfkey_wire::{ExtensionType, Message};

/// An algorithm: its number, the shortest and the longest key in bits.
type Listed = (u8, u16, u16);

/// Of one key engine.
#[derive(Debug, Default)]
pub struct Registered {
    auth: Vec<Listed>,
    encrypt: Vec<Listed>,
}

impl Registered {
    /// From the answer to a REGISTER.
    pub fn of(message: &Message<'_>) -> Self {
        let list = |ext| {
            let all = message.supported(ext).into_iter().flatten();
            all.map(|a| (a.id, a.minbits.get(), a.maxbits.get())).collect()
        };
        Self { auth: list(ExtensionType::SUPPORTED_AUTH), encrypt: list(ExtensionType::SUPPORTED_ENCRYPT) }
    }

    /// `ipsec_check_keylen`: a wrong length is told on standard error with the right ones.
    ///
    /// # Errors
    /// The code whose text setkey shows.
    pub fn check(&self, encrypt: bool, id: u8, len: usize) -> Result<(), Code> {
        let list = if encrypt { &self.encrypt } else { &self.auth };
        let (_, min, max) = list.iter().find(|(listed, ..)| *listed == id).ok_or(Code::NotSupported)?;
        let bits = len.saturating_mul(8);
        if (usize::from(*min)..=usize::from(*max)).contains(&bits) {
            return Ok(());
        }
        eprintln!("{bits} {min} {max}");
        Err(Code::InvalidKeyLength)
    }
}
