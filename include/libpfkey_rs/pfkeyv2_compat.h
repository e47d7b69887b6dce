/* What libipsec's clients expect of <net/pfkeyv2.h> and <netinet/ipsec.h> beyond Linux's own headers. */
#ifndef LIBPFKEY_RS_PFKEYV2_COMPAT_H
#define LIBPFKEY_RS_PFKEYV2_COMPAT_H

#include <sys/types.h>
#include <sys/socket.h>
#include <linux/pfkeyv2.h>
#include <linux/ipsec.h>

/* Other names of the same numbers. */
#define SADB_X_AALG_SHA2_256 SADB_X_AALG_SHA2_256HMAC
#define SADB_X_AALG_SHA2_384 SADB_X_AALG_SHA2_384HMAC
#define SADB_X_AALG_SHA2_512 SADB_X_AALG_SHA2_512HMAC
#define SADB_AALG_SHA2_256 SADB_X_AALG_SHA2_256HMAC
#define SADB_AALG_SHA2_384 SADB_X_AALG_SHA2_384HMAC
#define SADB_AALG_SHA2_512 SADB_X_AALG_SHA2_512HMAC
#define SADB_AALG_RIPEMD160HMAC SADB_X_AALG_RIPEMD160HMAC
#define SADB_X_AALG_MD5 249
#define SADB_X_AALG_SHA 250
#define SADB_X_EALG_CAST128CBC SADB_X_EALG_CASTCBC
#define SADB_X_EALG_RIJNDAELCBC SADB_X_EALG_AESCBC
#define SADB_X_EALG_AES SADB_X_EALG_AESCBC
#ifndef SADB_X_CALG_NONE
#define SADB_X_CALG_NONE 0
#endif
#ifndef SADB_X_CALG_OUI
#define SADB_X_CALG_OUI 1
#endif
#ifndef SADB_X_CALG_DEFLATE
#define SADB_X_CALG_DEFLATE 2
#endif
#ifndef SADB_X_CALG_LZS
#define SADB_X_CALG_LZS 3
#endif

/* KAME's sadb_sa_flags; Linux ignores them. */
#define SADB_X_EXT_NONE 0x0000
#define SADB_X_EXT_OLD 0x0001
#define SADB_X_EXT_IV4B 0x0010
#define SADB_X_EXT_DERIV 0x0020
#define SADB_X_EXT_CYCSEQ 0x0040
#define SADB_X_EXT_PSEQ 0x0000
#define SADB_X_EXT_PRAND 0x0100
#define SADB_X_EXT_PZERO 0x0200
#define SADB_X_EXT_PMASK 0x0300
#define SADB_X_EXT_RAWCPI 0x0080

/* Soft lifetimes, see pfkey_set_softrate. */
#define PFKEY_SOFT_LIFETIME_RATE 80
#define SADB_X_LIFETIME_ALLOCATIONS 0
#define SADB_X_LIFETIME_BYTES 1
#define SADB_X_LIFETIME_ADDTIME 2
#define SADB_X_LIFETIME_USETIME 3

/* Lengths in bytes and in units of 8 bytes. */
#define PFKEY_ALIGN8(n) ((n) > 0 ? (1 + (((n) - 1) | (8 - 1))) : 0)
#define PFKEY_UNUNIT64(n) ((n) << 3)
#define PFKEY_UNIT64(n) ((n) >> 3)
#define PFKEY_EXTLEN(ext) PFKEY_UNUNIT64(((struct sadb_ext *)(ext))->sadb_ext_len)
#define PFKEY_ADDR_PREFIX(ext) (((struct sadb_address *)(ext))->sadb_address_prefixlen)
#define PFKEY_ADDR_PROTO(ext) (((struct sadb_address *)(ext))->sadb_address_proto)
#define PFKEY_ADDR_SADDR(ext) ((struct sockaddr *)(void *)((char *)(ext) + sizeof(struct sadb_address)))

#ifndef IPSEC_PORT_ANY
#define IPSEC_PORT_ANY 0
#endif
#ifndef IPSEC_ULPROTO_ANY
#define IPSEC_ULPROTO_ANY 255
#endif

#endif
