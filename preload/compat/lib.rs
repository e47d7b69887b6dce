//! libipsec and the interposers of the preload object in one archive.
//!
//! `make install LIBIPSEC_COMPAT=DIR` makes a `libipsec.so.0` of it. racoon opens PF_KEY sockets and sets
//! IP_IPSEC_POLICY by itself; symbols are searched breadth-first, so an object that racoon names itself, as it names
//! libipsec.so.0, comes before the C library, and one that this object named would not.

pub use pfkey_preload::interpose;
pub use pfkey_rs::capi;
