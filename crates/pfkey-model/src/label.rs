//! Security labels of SAs and policies.

use std::hash::{Hash, Hasher};

use pfkey_wire::{Errno, Message};

/// A security label of SELinux. As in Linux without a loaded policy, any text is valid. Two that differ in what stands behind their
/// first NUL only are one: for SELinux a text ends there, and some programs send the NUL, which is followed by another then.
#[derive(Clone, Debug)]
pub struct SecurityLabel {
    /// The text with the NUL that `selinux_xfrm_alloc_user` puts behind it.
    pub text: Box<[u8]>,
}

impl SecurityLabel {
    /// `XFRM_SC_DOI_LSM`.
    pub const DOI: u8 = 1;
    /// `XFRM_SC_ALG_SELINUX`.
    pub const ALG: u8 = 1;
    /// `PAGE_SIZE`.
    const PAGE: usize = 4096;

    /// The label of a message, if it has one.
    ///
    /// # Errors
    /// EINVAL for another LSM, or no text; ENOMEM for one that does not fit a page with its NUL.
    pub fn of(message: &Message<'_>) -> Result<Option<Self>, Errno> {
        let Some((fixed, text)) = message.sec_ctx() else { return Ok(None) };
        if fixed.doi != Self::DOI || fixed.alg != Self::ALG {
            return Err(Errno::EINVAL);
        }
        if text.len() >= Self::PAGE {
            return Err(Errno::ENOMEM);
        }
        if text.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut bytes = text.to_vec();
        bytes.push(0);
        Ok(Some(Self { text: bytes.into() }))
    }

    fn name(&self) -> &[u8] {
        self.text.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl PartialEq for SecurityLabel {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for SecurityLabel {}

impl Hash for SecurityLabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::SecurityLabel;

    #[test]
    fn a_label_ends_at_its_first_nul() {
        let label = |text: &[u8]| SecurityLabel { text: text.into() };
        assert_eq!(label(b"a:b\0"), label(b"a:b\0\0"));
        assert_ne!(label(b"a:b\0"), label(b"a:bc\0"));
    }
}
