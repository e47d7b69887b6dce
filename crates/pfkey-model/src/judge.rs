//! What an engine decides while a request is read.

use std::fmt;

use super::label::SecurityLabel;
use pfkey_wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, Errno, Message};

/// The decisions of an engine that reading a request needs.
pub trait Judge {
    /// Whether an authentication algorithm can be used (`xfrm_aalg_get_byid`).
    fn has_auth(&mut self, id: AuthAlgorithm) -> bool;
    /// Whether an encryption algorithm can be used (`xfrm_ealg_get_byid`).
    fn has_encrypt(&mut self, id: EncryptAlgorithm) -> bool;
    /// Whether a compression algorithm can be used (`xfrm_calg_get_byid`).
    fn has_compress(&mut self, id: CompressionAlgorithm) -> bool;
    /// The security label of a request.
    ///
    /// # Errors
    /// That of the security module.
    fn label(&mut self, request: &Message<'_>) -> Result<Option<SecurityLabel>, Errno>;
    /// A reqid of its own for a template of level unique (`gen_reqid`).
    fn new_reqid(&mut self) -> Option<u32>;
    /// Whether an attribute of XFRM's can be used.
    ///
    /// # Errors
    /// EOPNOTSUPP: it cannot.
    fn attribute(&mut self, number: u16) -> Result<(), Errno>;
    /// Says in words why the request is refused.
    fn explain(&mut self, why: &dyn fmt::Display) {
        let _ = why;
    }
    /// The request is an ADD or UPDATE (`pfkey_msg2xfrm_state`).
    fn requested(&mut self) {}
    /// The request has what an SA needs, so that Linux allocates one (`xfrm_state_alloc`). Algorithms, mode and label are
    /// checked afterwards.
    fn allocated(&mut self) {}
}
