/* Sizes and offsets as in linux/pfkeyv2.h and in libipsec 0.9.1 on 64-bit Linux. Compiled, not run. */
#include <stddef.h>

#include <libpfkey.h>

#define SIZE(type, n) _Static_assert(sizeof(struct type) == (n), #type)
#define AT(type, field, n) _Static_assert(offsetof(struct type, field) == (n), #type "." #field)

SIZE(sadb_msg, 16);
SIZE(sadb_ext, 4);
SIZE(sadb_sa, 16);
SIZE(sadb_lifetime, 32);
SIZE(sadb_address, 8);
SIZE(sadb_key, 8);
SIZE(sadb_ident, 16);
SIZE(sadb_sens, 16);
SIZE(sadb_prop, 8);
SIZE(sadb_comb, 72);
SIZE(sadb_supported, 8);
SIZE(sadb_alg, 8);
SIZE(sadb_spirange, 16);
SIZE(sadb_x_kmprivate, 8);
SIZE(sadb_x_sa2, 16);
SIZE(sadb_x_policy, 16);
SIZE(sadb_x_ipsecrequest, 16);
SIZE(sadb_x_nat_t_type, 8);
SIZE(sadb_x_nat_t_port, 8);
SIZE(sadb_x_sec_ctx, 8);
SIZE(sadb_x_kmaddress, 8);
SIZE(sadb_x_filter, 40);

AT(sadb_msg, sadb_msg_errno, 2);
AT(sadb_msg, sadb_msg_satype, 3);
AT(sadb_msg, sadb_msg_len, 4);
AT(sadb_msg, sadb_msg_seq, 8);
AT(sadb_msg, sadb_msg_pid, 12);
AT(sadb_sa, sadb_sa_spi, 4);
AT(sadb_sa, sadb_sa_flags, 12);
AT(sadb_lifetime, sadb_lifetime_bytes, 8);
AT(sadb_x_policy, sadb_x_policy_id, 8);
AT(sadb_x_policy, sadb_x_policy_priority, 12);
AT(sadb_x_ipsecrequest, sadb_x_ipsecrequest_reqid, 8);
AT(sadb_x_sec_ctx, sadb_x_ctx_len, 6);
AT(sadb_x_filter, sadb_x_filter_family, 36);

#ifdef __LP64__
SIZE(pfkey_send_sa_args, 136);
AT(pfkey_send_sa_args, so, 0);
AT(pfkey_send_sa_args, type, 4);
AT(pfkey_send_sa_args, satype, 8);
AT(pfkey_send_sa_args, mode, 12);
AT(pfkey_send_sa_args, src, 16);
AT(pfkey_send_sa_args, dst, 24);
AT(pfkey_send_sa_args, spi, 32);
AT(pfkey_send_sa_args, reqid, 36);
AT(pfkey_send_sa_args, wsize, 40);
AT(pfkey_send_sa_args, keymat, 48);
AT(pfkey_send_sa_args, e_type, 56);
AT(pfkey_send_sa_args, e_keylen, 60);
AT(pfkey_send_sa_args, a_type, 64);
AT(pfkey_send_sa_args, a_keylen, 68);
AT(pfkey_send_sa_args, flags, 72);
AT(pfkey_send_sa_args, l_alloc, 76);
AT(pfkey_send_sa_args, l_bytes, 80);
AT(pfkey_send_sa_args, l_addtime, 84);
AT(pfkey_send_sa_args, l_usetime, 88);
AT(pfkey_send_sa_args, seq, 92);
AT(pfkey_send_sa_args, l_natt_type, 96);
AT(pfkey_send_sa_args, l_natt_sport, 98);
AT(pfkey_send_sa_args, l_natt_dport, 100);
AT(pfkey_send_sa_args, l_natt_oa, 104);
AT(pfkey_send_sa_args, l_natt_frag, 112);
AT(pfkey_send_sa_args, ctxdoi, 114);
AT(pfkey_send_sa_args, ctxalg, 115);
AT(pfkey_send_sa_args, ctxstr, 120);
AT(pfkey_send_sa_args, ctxstrlen, 128);
#endif

_Static_assert(sizeof(libipsec_opt) == 4, "libipsec_opt");
_Static_assert(SADB_MAX == 24, "racoon does not compile with a higher SADB_MAX");
