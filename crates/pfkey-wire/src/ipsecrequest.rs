//! The templates of a policy (`struct sadb_x_ipsecrequest`).

use zerocopy::FromBytes;

use super::Mode;
use super::layout::SadbXIpsecrequest;

/// The `sadb_x_ipsecrequest`s behind a policy extension. Ends at the first one that does not fit; what is left then is in
/// [`Requests::rest`].
#[derive(Clone, Copy, Debug)]
pub struct Requests<'a> {
    rest: &'a [u8],
}

impl<'a> Requests<'a> {
    /// Over the bytes behind `struct sadb_x_policy`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// A request's fixed part, and what follows within its length.
impl<'a> Iterator for Requests<'a> {
    type Item = (SadbXIpsecrequest, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (fixed, _) = SadbXIpsecrequest::read_from_prefix(self.rest).ok()?;
        let len = usize::from(fixed.len.get());
        let body = self.rest.get(16..len)?;
        self.rest = self.rest.get(len..)?;
        Some((fixed, body))
    }
}

impl SadbXIpsecrequest {
    /// Whether the request needs its two addresses.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        Mode(self.mode) == Mode::TUNNEL
    }
}
