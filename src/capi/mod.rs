//! The C ABI of libipsec, and our few additions. Each function converts its arguments, calls one safe function, and
//! converts the result back; `guard::guard` keeps panics inside.
//!
//! Memory given to C comes from `malloc` and is freed with `free`. Text goes through C's stdio.
#![allow(unsafe_code)]
// A block's reason is the reason of one operation.
#![deny(clippy::multiple_unsafe_ops_per_block)]
// What a caller has to keep to stands in each function's text in the words of C; there are no further conditions.
#![allow(clippy::missing_safety_doc)]
// The names are libipsec's.
#![allow(non_upper_case_globals)]

mod align;
mod argument;
mod batch;
mod descriptor;
mod dump;
mod engine;
mod error;
mod foreach;
mod guard;
mod memory;
mod policy;
mod receive;
mod resolve;
mod send_header;
mod send_sa;
mod send_spd;
mod sending;
mod softrate;
mod stdio;
mod strerror;
mod supported;
mod xfrm;

pub use align::{pfkey_align, pfkey_check};
pub use batch::{pfkey_batch_begin, pfkey_batch_drop, pfkey_batch_end};
pub use descriptor::{libipsec_opt, pfkey_close, pfkey_open, pfkey_send, pfkey_set_buffer_size};
pub use dump::{
    ipsec_bindump, ipsec_hexdump, kdebug_sadb, pfkey_sadump, pfkey_sadump_withports, pfkey_spdump,
    pfkey_spdump_filter_socket_policy, pfkey_spdump_filtered_count, pfkey_spdump_withports,
};
pub use engine::{
    pfkey_engine, pfkey_engine_advance, pfkey_engine_close, pfkey_engine_count, pfkey_engine_dropped,
    pfkey_engine_free, pfkey_engine_new, pfkey_engine_new_mapping, pfkey_engine_next_deadline, pfkey_engine_open,
    pfkey_engine_outbound, pfkey_engine_pending, pfkey_engine_recv, pfkey_engine_sa, pfkey_engine_send,
    pfkey_engine_set_acq_expires,
};
pub use error::__ipsec_errcode;
pub use foreach::{pfkey_dump_foreach, pfkey_sa_lifetime, pfkey_sa_view};
pub use policy::{ipsec_dump_policy, ipsec_dump_policy_withports, ipsec_get_policylen, ipsec_set_policy};
pub use receive::pfkey_recv;
pub use resolve::{pfkey_resolution, pfkey_resolve};
pub use send_header::{
    pfkey_send_dump, pfkey_send_flush, pfkey_send_promisc_toggle, pfkey_send_register, pfkey_send_spddump,
    pfkey_send_spdflush, pfkey_show_xfrm,
};
pub use send_sa::{
    pfkey_send_add, pfkey_send_add_nat, pfkey_send_add2, pfkey_send_add2_xfrm, pfkey_send_delete,
    pfkey_send_delete_all, pfkey_send_delete_xfrm, pfkey_send_get, pfkey_send_get_xfrm, pfkey_send_getspi,
    pfkey_send_getspi_nat, pfkey_send_getspi_xfrm, pfkey_send_sa_args, pfkey_send_update, pfkey_send_update_nat,
    pfkey_send_update2, pfkey_send_update2_xfrm,
};
pub use send_spd::{
    pfkey_send_migrate, pfkey_send_spdadd, pfkey_send_spdadd_xfrm, pfkey_send_spdadd2, pfkey_send_spddelete,
    pfkey_send_spddelete_xfrm, pfkey_send_spddelete2, pfkey_send_spddelete2_xfrm, pfkey_send_spdget,
    pfkey_send_spdget_xfrm, pfkey_send_spdsetidx, pfkey_send_spdupdate, pfkey_send_spdupdate_xfrm,
    pfkey_send_spdupdate2,
};
pub use softrate::{pfkey_get_softrate, pfkey_set_softrate};
pub use strerror::{__ipsec_set_strerror, ipsec_strerror};
pub use supported::{
    ipsec_check_keylen, ipsec_check_keylen2, ipsec_get_keylen, pfkey_recv_register, pfkey_set_supported,
};

pub use xfrm::{
    pfkey_xfrm, pfkey_xfrm_get, pfkey_xfrm_next, pfkey_xfrm_of, pfkey_xfrm_set, pfkey_xfrm_set_coaddr,
    pfkey_xfrm_set_esn, pfkey_xfrm_set_extra_flags, pfkey_xfrm_set_flags, pfkey_xfrm_set_icv, pfkey_xfrm_set_if_id,
    pfkey_xfrm_set_iptfs_dont_frag, pfkey_xfrm_set_iptfs_drop_time, pfkey_xfrm_set_iptfs_init_delay,
    pfkey_xfrm_set_iptfs_max_qsize, pfkey_xfrm_set_iptfs_pkt_size, pfkey_xfrm_set_iptfs_reorder_window,
    pfkey_xfrm_set_mark, pfkey_xfrm_set_mtimer_thresh, pfkey_xfrm_set_nat_keepalive, pfkey_xfrm_set_offload,
    pfkey_xfrm_set_pcpu, pfkey_xfrm_set_replay_window, pfkey_xfrm_set_sa_dir, pfkey_xfrm_set_set_mark,
    pfkey_xfrm_set_tfcpad,
};

/// `struct sadb_msg` of `linux/pfkeyv2.h`, with its extensions behind it.
#[allow(non_camel_case_types)]
pub type sadb_msg = crate::wire::layout::SadbMsg;
/// `struct sadb_alg` of `linux/pfkeyv2.h`.
#[allow(non_camel_case_types)]
pub type sadb_alg = crate::wire::layout::SadbAlg;
