/* The type of every function against libipsec's prototype. Compiled, not run. */
#include <libpfkey.h>

#define TYPE(function, result, ...) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(&function), result (*)(__VA_ARGS__)), #function)

TYPE(pfkey_open, int, void);
TYPE(pfkey_close, void, int);
TYPE(pfkey_set_buffer_size, int, int, int);
TYPE(pfkey_recv, struct sadb_msg *, int);
TYPE(pfkey_send, int, int, struct sadb_msg *, int);
TYPE(pfkey_align, int, struct sadb_msg *, caddr_t *);
TYPE(pfkey_check, int, caddr_t *);
TYPE(pfkey_set_softrate, u_int, u_int, u_int);
TYPE(pfkey_get_softrate, u_int, u_int);
TYPE(pfkey_send_getspi, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t,
	u_int32_t, u_int32_t, u_int32_t);
TYPE(pfkey_send_getspi_nat, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int8_t,
	u_int16_t, u_int16_t, u_int32_t, u_int32_t, u_int32_t, u_int32_t);
TYPE(pfkey_send_update2, int, struct pfkey_send_sa_args *);
TYPE(pfkey_send_add2, int, struct pfkey_send_sa_args *);
TYPE(pfkey_send_update, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t,
	u_int32_t, u_int, caddr_t, u_int, u_int, u_int, u_int, u_int, u_int32_t, u_int64_t, u_int64_t, u_int64_t,
	u_int32_t);
TYPE(pfkey_send_add, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t, u_int32_t,
	u_int, caddr_t, u_int, u_int, u_int, u_int, u_int, u_int32_t, u_int64_t, u_int64_t, u_int64_t,
	u_int32_t);
TYPE(pfkey_send_update_nat, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t,
	u_int32_t, u_int, caddr_t, u_int, u_int, u_int, u_int, u_int, u_int32_t, u_int64_t, u_int64_t, u_int64_t,
	u_int32_t, u_int8_t, u_int16_t, u_int16_t, struct sockaddr *, u_int16_t);
TYPE(pfkey_send_add_nat, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t,
	u_int32_t, u_int, caddr_t, u_int, u_int, u_int, u_int, u_int, u_int32_t, u_int64_t, u_int64_t, u_int64_t,
	u_int32_t, u_int8_t, u_int16_t, u_int16_t, struct sockaddr *, u_int16_t);
TYPE(pfkey_send_delete, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t);
TYPE(pfkey_send_get, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *, u_int32_t);
TYPE(pfkey_send_delete_all, int, int, u_int, u_int, struct sockaddr *, struct sockaddr *);
TYPE(pfkey_send_register, int, int, u_int);
TYPE(pfkey_send_flush, int, int, u_int);
TYPE(pfkey_send_dump, int, int, u_int);
TYPE(pfkey_recv_register, int, int);
TYPE(pfkey_set_supported, int, struct sadb_msg *, int);
TYPE(pfkey_send_promisc_toggle, int, int, int);
TYPE(pfkey_send_spdadd, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int, caddr_t, int,
	u_int32_t);
TYPE(pfkey_send_spdupdate, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int, caddr_t,
	int, u_int32_t);
TYPE(pfkey_send_spddelete, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int, caddr_t,
	int, u_int32_t);
TYPE(pfkey_send_spdsetidx, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int, caddr_t,
	int, u_int32_t);
TYPE(pfkey_send_spdadd2, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int, u_int64_t,
	u_int64_t, caddr_t, int, u_int32_t);
TYPE(pfkey_send_spdupdate2, int, int, struct sockaddr *, u_int, struct sockaddr *, u_int, u_int,
	u_int64_t, u_int64_t, caddr_t, int, u_int32_t);
TYPE(pfkey_send_spddelete2, int, int, u_int32_t);
TYPE(pfkey_send_spdget, int, int, u_int32_t);
TYPE(pfkey_send_spdflush, int, int);
TYPE(pfkey_send_spddump, int, int);
TYPE(pfkey_send_migrate, int, int, struct sockaddr *, struct sockaddr *, struct sockaddr *, u_int, struct
	sockaddr *, u_int, u_int, caddr_t, int, u_int32_t);
TYPE(pfkey_sadump, void, struct sadb_msg *);
TYPE(pfkey_sadump_withports, void, struct sadb_msg *);
TYPE(pfkey_spdump, void, struct sadb_msg *);
TYPE(pfkey_spdump_withports, void, struct sadb_msg *);
TYPE(kdebug_sadb, void, struct sadb_msg *);
TYPE(pfkey_spdump_filter_socket_policy, void, int);
TYPE(pfkey_spdump_filtered_count, unsigned long, void);
TYPE(ipsec_check_keylen, int, u_int, u_int, u_int);
TYPE(ipsec_check_keylen2, int, u_int, u_int, u_int);
TYPE(ipsec_get_keylen, int, u_int, u_int, struct sadb_alg *);
TYPE(ipsec_set_policy, ipsec_policy_t, char *, int);
TYPE(ipsec_get_policylen, int, ipsec_policy_t);
TYPE(ipsec_dump_policy, char *, ipsec_policy_t, char *);
TYPE(ipsec_dump_policy_withports, char *, void *, const char *);
TYPE(ipsec_strerror, const char *, void);
TYPE(ipsec_hexdump, void, const void *, int);
TYPE(ipsec_bindump, void, caddr_t, int);
