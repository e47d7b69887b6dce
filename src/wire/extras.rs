//! What an engine can offer beyond AF_KEY, where it is asked to: AEAD algorithms, and SHA2-256 as RFC 4868 has it.

use super::EncryptAlgorithm as E;
use super::layout::SadbAlg;

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
    /// Reads a list; gives the word that means nothing, if there is one.
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

/// An AEAD algorithm of ESP. A key in PF_KEY has its salt behind it, as RFC 4106, RFC 4309 and RFC 7634 say of keying
/// material and XFRM wants it; lengths count the salt.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    /// `sadb_sa_encrypt`.
    pub id: u8,
    /// The kernel's name.
    pub name: &'static str,
    /// Bits of the integrity value.
    pub icv: u16,
    /// Lengths of keys in bits.
    pub keys: &'static [u16],
}

const AES_SALT_24: &[u16] = &[152, 216, 280];
const AES_SALT_32: &[u16] = &[160, 224, 288];

const fn aead(id: E, name: &'static str, icv: u16, keys: &'static [u16]) -> Aead {
    Aead { id: id.0, name, icv, keys }
}

/// In the order of REGISTER's answer.
pub const AEADS: [Aead; 8] = [
    aead(E::X_AES_CCM_ICV8, "rfc4309(ccm(aes))", 64, AES_SALT_24),
    aead(E::X_AES_CCM_ICV12, "rfc4309(ccm(aes))", 96, AES_SALT_24),
    aead(E::X_AES_CCM_ICV16, "rfc4309(ccm(aes))", 128, AES_SALT_24),
    aead(E::X_AES_GCM_ICV8, "rfc4106(gcm(aes))", 64, AES_SALT_32),
    aead(E::X_AES_GCM_ICV12, "rfc4106(gcm(aes))", 96, AES_SALT_32),
    aead(E::X_AES_GCM_ICV16, "rfc4106(gcm(aes))", 128, AES_SALT_32),
    aead(E::X_NULL_AES_GMAC, "rfc4543(gcm(aes))", 128, AES_SALT_32),
    aead(E::X_CHACHA20_POLY1305, "rfc7539esp(chacha20,poly1305)", 128, &[288]),
];

impl Aead {
    /// One by its number.
    #[must_use]
    pub fn by_id(id: u8) -> Option<&'static Self> {
        AEADS.iter().find(|aead| aead.id == id)
    }

    /// As REGISTER lists it. All have eight bytes of initialisation vector.
    #[must_use]
    pub fn listed(&self) -> SadbAlg {
        SadbAlg {
            id: self.id,
            ivlen: 8,
            minbits: self.keys.first().copied().unwrap_or_default().into(),
            maxbits: self.keys.last().copied().unwrap_or_default().into(),
            ..Default::default()
        }
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
