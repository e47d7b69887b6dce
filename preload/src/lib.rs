//! `libpfkey_preload.so`: PF_KEY for programs that nobody can rebuild, by `LD_PRELOAD` or by `-lpfkey_preload`.
//!
//! The object takes the rooms it needs from the package at the top as source, not as a crate: a cdylib exports every
//! `no_mangle` symbol of the crates below it, and the functions of libipsec must not be among this object's. The
//! other way round, the interposers are no part of the package at the top, because a program linked with
//! `-lpfkey_rs` did not ask for them. `compat` puts both into one archive, for `libipsec.so.0`.

pub mod interpose;
// Its servers and its C ABI are not here.
#[allow(unused_imports, dead_code)]
#[path = "../../src/socket/mod.rs"]
pub mod socket;
pub use pfkey_model as model;
pub use pfkey_wire as wire;
