//! What an engine can offer beyond AF_KEY, where it is asked to: AEAD algorithms, and SHA2-256 as RFC 4868 has it.

/// What is offered beyond AF_KEY; nothing by default. As text a list such as `aead,sha256-128`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// ESP's AEAD algorithms can be used and are listed by REGISTER. AF_KEY refuses them with ENOSYS.
    pub aead: bool,
    /// An SA with SHA2-256 that is added has an integrity value of 128 bits (RFC 4868), which IKE's peers expect.
    /// AF_KEY's has 96 (`draft-ietf-ipsec-ciph-sha-256-00`), and both ends have to agree.
    pub sha256_128: bool,
}

/// A word in a list of extras means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?}: expected aead or sha256-128")]
pub struct UnknownExtra {
    /// The word.
    pub word: String,
}

impl std::str::FromStr for Extras {
    type Err = UnknownExtra;

    fn from_str(list: &str) -> Result<Self, UnknownExtra> {
        Self::from_list(list).map_err(|word| UnknownExtra { word: word.to_owned() })
    }
}

impl std::fmt::Display for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.aead, self.sha256_128) {
            (false, false) => "",
            (true, false) => "aead",
            (false, true) => "sha256-128",
            (true, true) => "aead,sha256-128",
        })
    }
}

impl Extras {
    /// As bits, for where they travel or are kept.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.aead as u8 | (self.sha256_128 as u8) << 1
    }

    /// From bits; those that mean nothing are passed over.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self { aead: bits & 1 != 0, sha256_128: bits & 2 != 0 }
    }

    /// Reads a list. Returns the word that it does not know, if there is one.
    ///
    /// # Errors
    /// That word.
    pub fn from_list(list: &str) -> Result<Self, &str> {
        let mut extras = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "aead" => extras.aead = true,
                "sha256-128" => extras.sha256_128 = true,
                _ => return Err(word),
            }
        }
        Ok(extras)
    }

    /// Whether nothing is offered.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_extras() {
        assert!("".parse::<Extras>().unwrap().is_none());
        let both: Extras = "sha256-128, aead".parse().unwrap();
        assert_eq!(both, Extras { aead: true, sha256_128: true });
        assert_eq!(both.to_string(), "aead,sha256-128");
        assert_eq!("aead,gcm".parse::<Extras>().unwrap_err().to_string(), "\"gcm\": expected aead or sha256-128");
    }
}
