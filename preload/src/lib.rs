//! `libpfkey_preload.so`: PF_KEY for programs that nobody can rebuild, by `LD_PRELOAD` or by `-lpfkey_preload`.
//!
//! The interposers are no part of the package at the top, because a program linked with `-lpfkey_rs` did not ask for them,
//! and the functions of libipsec must not be among this object's. `compat` puts both into one archive, for
//! `libipsec.so.0`.

pub mod interpose;

use pfkey_model as model;
use pfkey_socket as socket;
use pfkey_wire as wire;
