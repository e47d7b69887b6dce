/*
 * libpfkey.h - the interface of libipsec, the PF_KEYv2 library of KAME and ipsec-tools, as libpfkey_rs provides it.
 *
 * Link with -lpfkey_rs (pkg-config: pfkey_rs). Works with C89 plus GNU extensions, later C, and C++, on glibc and
 * musl. What is common to all functions:
 *
 * - functions that return int return -1 on error, functions that return a pointer NULL; ipsec_strerror() then says
 *   what is wrong. Codes are kept for each thread.
 * - what is returned in memory was made by malloc() and is freed by the caller with free().
 * - sockaddrs and buffers that are passed in are only read, during the call.
 * - SPIs are in network byte order; ports inside sockaddrs too; everything else is in host byte order.
 */
#ifndef _LIBPFKEY_H
#define _LIBPFKEY_H
#ifndef KAME_LIBPFKEY_H
#define KAME_LIBPFKEY_H
#endif

#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <linux/pfkeyv2.h>
#include <linux/ipsec.h>

#include <libpfkey_rs/pfkeyv2_compat.h>

#ifdef __cplusplus
extern "C" {
#endif

/* libipsec's prototypes have no const here unless the platform has an ipsec_policy_t of its own; C++ needs it. */
#ifndef __ipsec_const
#if defined(HAVE_IPSEC_POLICY_T) || defined(__cplusplus)
#define __ipsec_const const
#else
#define __ipsec_const
#endif
#endif

/* Policy priorities: smaller is stronger. */
#define PRIORITY_LOW 0xC0000000
#define PRIORITY_DEFAULT 0x80000000
#define PRIORITY_HIGH 0x40000000
#define PRIORITY_OFFSET_POSITIVE_MAX 0x3fffffff
#define PRIORITY_OFFSET_NEGATIVE_MAX 0x40000000

/* Bits of libipsec_opt. */
#define LIBIPSEC_OPT_NATT 0x01
#define LIBIPSEC_OPT_FRAG 0x02
#define LIBIPSEC_OPT_SEC_CTX 0x04

/* The port of a NAT-T port extension in host byte order; whether a NAT-T type extension says encapsulation. */
#define PFKEY_ADDR_X_PORT(ext) (ntohs(((struct sadb_x_nat_t_port *)(ext))->sadb_x_nat_t_port_port))
#define PFKEY_ADDR_X_NATTYPE(ext) \
	((ext) != NULL && ((struct sadb_x_nat_t_type *)(ext))->sadb_x_nat_t_type_type)

/* The extension for what XFRM has beyond PF_KEY (marks, XFRM interfaces ...); netlink attributes follow the structure. A session
 * sends the message SADB_X_XFRM first, which AF_KEY refuses. pfkey_align() refuses messages with the extension. */
#ifndef SADB_X_EXT_XFRM
#define SADB_X_XFRM 240
#define SADB_X_EXT_XFRM 240
#define SADB_X_XFRM_PROPOSE 1
#define SADB_X_XFRM_PARTIAL 2
/* Attributes that are none of netlink's: they say what XFRM has in the fixed parts of its messages. */
#define PFKEY_XFRMA_DEV 0x3000   /* uint32_t: number of the network interface that a selector is for */
#define PFKEY_XFRMA_MODE 0x3001  /* uint8_t: XFRM_MODE_IPTFS, in the place of tunnel mode */
struct sadb_x_xfrm {
	uint16_t sadb_x_xfrm_len;
	uint16_t sadb_x_xfrm_exttype;
	uint8_t sadb_x_xfrm_flags;
	uint8_t sadb_x_xfrm_options;
	uint16_t sadb_x_xfrm_reserved;
};
#endif

/* What an SA or a policy has beyond PF_KEY: see pfkey_xfrm_set() of <pfkey_rs.h>. It is the caller's, holds no pointer and is copied
 * by assignment; its size is that of the largest extension. */
struct pfkey_xfrm {
	uint32_t len;                /* bytes of attributes */
	uint8_t flags;               /* XFRM_STATE_* that sadb_sa_flags lacks, or XFRM_POLICY_* */
	uint8_t options;             /* SADB_X_XFRM_* */
	uint16_t reserved;           /* 0 */
	uint64_t attributes[512];    /* struct nlattr (XFRMA_*, linux/xfrm.h), each padded to 4 bytes */
};
#define PFKEY_XFRM_INIT { 0, 0, 0, 0, { 0 } }

#ifndef IPPROTO_IPV4
#define IPPROTO_IPV4 IPPROTO_IPIP
#endif
#ifndef IPPROTO_IPCOMP
#define IPPROTO_IPCOMP IPPROTO_COMP
#endif
#ifndef IPPROTO_MH
#define IPPROTO_MH 135
#endif

/* Bytes of a sockaddr by its family: 28 for IPv6, 16 for IPv4 and for any other. */
#ifndef __SYSDEP_SA_LEN__
#define __SYSDEP_SA_LEN__
#if defined(__GNUC__) && !defined(__cplusplus)
static __inline__ __attribute__((__unused__))
#elif defined(__GNUC__)
static inline __attribute__((__unused__))
#else
static inline
#endif
unsigned char sysdep_sa_len(const struct sockaddr *sa)
{
	return (unsigned char)(sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
}
#endif

/* What ipsec_set_policy makes. */
#ifndef LIBPFKEY_RS_IPSEC_POLICY_T
#define LIBPFKEY_RS_IPSEC_POLICY_T
typedef char *ipsec_policy_t;
#endif

/* The arguments of pfkey_send_add2 and pfkey_send_update2. Set fields that are not used to 0. What the pointers point at is the
 * caller's; it is read during the call and not kept. */
struct pfkey_send_sa_args {
	int so;                      /* descriptor */
	unsigned int type;           /* set by the call */
	unsigned int satype;         /* SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP */
	unsigned int mode;           /* IPSEC_MODE_* */
	struct sockaddr *src;        /* sockaddr_in or sockaddr_in6 */
	struct sockaddr *dst;        /* of the same family */
	uint32_t spi;               /* network byte order */
	uint32_t reqid;             /* ties the SA to a policy's request "unique:N"; 0 = none */
	unsigned int wsize;          /* replay window in packets */
	char *keymat;                /* encryption key, then authentication key */
	unsigned int e_type;         /* SADB_EALG_*, SADB_X_CALG_* */
	unsigned int e_keylen;       /* bytes */
	unsigned int a_type;         /* SADB_AALG_* */
	unsigned int a_keylen;       /* bytes */
	unsigned int flags;          /* SADB_SAFLAGS_* */
	uint32_t l_alloc;           /* hard limit in packets; 0 = none */
	uint32_t l_bytes;           /* in bytes; 0 = none */
	uint32_t l_addtime;         /* in seconds since creation; 0 = none */
	uint32_t l_usetime;         /* in seconds since first use; 0 = none */
	uint32_t seq;               /* sadb_msg_seq: that of the ACQUIRE that is answered, or any number */
	uint8_t l_natt_type;        /* UDP_ENCAP_*; 0 = none */
	uint16_t l_natt_sport;      /* host byte order */
	uint16_t l_natt_dport;      /* host byte order */
	struct sockaddr *l_natt_oa;  /* the peer's original address, or NULL */
	uint16_t l_natt_frag;       /* not used on Linux */
	uint8_t ctxdoi;             /* of the security context: 1 for SELinux */
	uint8_t ctxalg;             /* the same */
	char *ctxstr;                /* security context, or NULL */
	uint16_t ctxstrlen;         /* bytes */
};

/* What the library supports: bits of LIBIPSEC_OPT_*. */
extern int libipsec_opt;

/* --- errors --- */

/* The text of this thread's last error: never NULL, not to be freed, valid until the next error of the thread. */
const char *ipsec_strerror(void);

/* --- policies as text --- */

/* A policy from text such as "out ipsec esp/transport//require". The text ends at its NUL; len is not used. Freed with free().
 * A syntax error or a bad address is reported on stderr, too. */
ipsec_policy_t ipsec_set_policy(__ipsec_const char *text, int len);
/* The policy's length in bytes; -1 for NULL. */
int ipsec_get_policylen(ipsec_policy_t policy);
/* A policy as text, with delimiter (NULL = a space) before each request. Freed with free(). */
char *ipsec_dump_policy(ipsec_policy_t policy, __ipsec_const char *delimiter);
/* The same with ports. */
char *ipsec_dump_policy_withports(void *policy, const char *delimiter);

/* --- algorithms that the last registration listed --- */

/* Checks whether an algorithm takes keys of keylen bits; supported is SADB_EXT_SUPPORTED_AUTH or _ENCRYPT. Returns 0. */
int ipsec_check_keylen(unsigned int supported, unsigned int alg_id, unsigned int keylen);
/* The same for SADB_SATYPE_AH or _ESP. */
int ipsec_check_keylen2(unsigned int satype, unsigned int alg_id, unsigned int keylen);
/* Copies what was listed of an algorithm to *alg, which is the caller's. Returns 0. */
int ipsec_get_keylen(unsigned int supported, unsigned int alg_id, struct sadb_alg *alg);

/* --- the descriptor --- */

/* Opens a PF_KEY descriptor; which backend serves it is chosen by the environment variable PFKEY_BACKEND. errno is
 * as socket(PF_KEY, ...) would leave it. The caller closes it. */
int pfkey_open(void);
/* Closes a descriptor. */
void pfkey_close(int so);
/* Makes the receive buffer at least size_kb KiB large; returns its size in KiB. */
int pfkey_set_buffer_size(int so, int size_kb);
/* Receives one message, as long as its sadb_msg_len says (units of 8 bytes). Freed with free(). */
struct sadb_msg *pfkey_recv(int so);
/* Sends a message of len bytes as it is; returns the number of bytes sent. */
int pfkey_send(int so, struct sadb_msg *msg, int len);

/* --- messages --- */

/* Finds the extensions: mhp[n] points at the one of type n inside msg, or is NULL; mhp[0] points at the header. mhp is the caller's
 * and has SADB_EXT_MAX + 1 = 27 elements. Returns 0. */
int pfkey_align(struct sadb_msg *msg, char **mhp);
/* Checks the header and the two addresses of what pfkey_align() found. Returns 0. */
int pfkey_check(char **mhp);
/* Print on stdout, keys included. */
void pfkey_sadump(struct sadb_msg *msg);
void pfkey_sadump_withports(struct sadb_msg *msg);
void pfkey_spdump(struct sadb_msg *msg);
void pfkey_spdump_withports(struct sadb_msg *msg);
void kdebug_sadb(struct sadb_msg *msg);
void ipsec_hexdump(const void *buf, int len);
/* Writes bytes to stdout as they are. */
void ipsec_bindump(char *buf, int len);
/* Makes pfkey_spdump leave out policies of sockets (on not 0); returns how many were left out since the dump began. */
void pfkey_spdump_filter_socket_policy(int on);
unsigned long pfkey_spdump_filtered_count(void);

/* --- soft lifetimes --- */

/* The soft limit as a percentage of the hard one, for the whole process; type is SADB_X_LIFETIME_*. Setting it returns 0, or 1 for
 * a wrong type; reading it returns the percentage, or 0xffffffff for a wrong type. */
unsigned int pfkey_set_softrate(unsigned int type, unsigned int rate);
unsigned int pfkey_get_softrate(unsigned int type);

/* --- requests ---
 *
 * Each sends one message and returns the number of bytes sent. None waits for the answer, which pfkey_recv() receives. satype is
 * SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP, and SADB_SATYPE_UNSPEC where all are meant. seq becomes sadb_msg_seq. */

/* Reserves an SPI between min and max (host byte order, above 255; 0 and 0 allow any). The answer has the SPI. */
int pfkey_send_getspi(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t min,
	uint32_t max, uint32_t reqid, uint32_t seq);
/* The same for an SA in UDP: UDP_ENCAP_* and two ports in host byte order. */
int pfkey_send_getspi_nat(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint8_t natt_type, uint16_t sport, uint16_t dport, uint32_t min, uint32_t max, uint32_t reqid,
	uint32_t seq);
/* Completes an SA that pfkey_send_getspi() began, or changes one. */
int pfkey_send_update2(struct pfkey_send_sa_args *args);
/* Creates an SA. */
int pfkey_send_add2(struct pfkey_send_sa_args *args);
/* Removes an SA; mode is not used. */
int pfkey_send_delete(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi);
/* Asks to remove all SAs between two addresses, which Linux refuses; mode is not used. */
int pfkey_send_delete_all(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst);
/* Asks for an SA; mode is not used. */
int pfkey_send_get(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi);
/* Registers for ACQUIRE and EXPIRE messages; the answer lists algorithms. */
int pfkey_send_register(int so, unsigned int satype);
/* Waits for the answer to pfkey_send_register; throws other messages away. Returns 0. */
int pfkey_recv_register(int so);
/* Keeps the algorithms of a REGISTER answer whose sadb_msg_len was replaced by its length in bytes. Returns 0. */
int pfkey_set_supported(struct sadb_msg *msg, int tlen);
/* Removes all SAs of a type. */
int pfkey_send_flush(int so, unsigned int satype);
/* Asks for all SAs of a type: one message for each, the last with sadb_msg_seq 0. */
int pfkey_send_dump(int so, unsigned int satype);
/* Makes the descriptor receive every message (flag not 0), or not any more. */
int pfkey_send_promisc_toggle(int so, int flag);

/* Policies. prefs and prefd are prefix lengths in bits, proto is the upper-layer protocol (255 = any), ports are in the sockaddrs.
 * policy is what ipsec_set_policy() returned, policylen what ipsec_get_policylen() says of it, in bytes; it stays the caller's.
 * ltime and vtime are limits in seconds: how long the policy lives, and how long it lives unused; 0 = none. */

/* Adds a policy. */
int pfkey_send_spdadd(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int prefd,
	unsigned int proto,
	char *policy, int policylen, uint32_t seq);
int pfkey_send_spdadd2(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int prefd,
	unsigned int proto,
	uint64_t ltime, uint64_t vtime, char *policy, int policylen, uint32_t seq);
/* Replaces a policy, or adds it. */
int pfkey_send_spdupdate(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int prefd,
	unsigned int proto,
	char *policy, int policylen, uint32_t seq);
int pfkey_send_spdupdate2(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int
	prefd, unsigned int proto,
	uint64_t ltime, uint64_t vtime, char *policy, int policylen, uint32_t seq);
/* Removes the policy with these addresses and the direction of policy, which has no requests ("out none"): policylen must be 16. */
int pfkey_send_spddelete(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int prefd,
	unsigned int proto,
	char *policy, int policylen, uint32_t seq);
/* Removes a policy, or asks for it, by its number (sadb_x_policy_id). */
int pfkey_send_spddelete2(int so, uint32_t spid);
int pfkey_send_spdget(int so, uint32_t spid);
/* SADB_X_SPDSETIDX, which Linux takes as SADB_X_SPDADD; policylen must be 16. */
int pfkey_send_spdsetidx(int so, struct sockaddr *src, unsigned int prefs, struct sockaddr *dst, unsigned int prefd,
	unsigned int proto,
	char *policy, int policylen, uint32_t seq);
/* Removes all policies. */
int pfkey_send_spdflush(int so);
/* Asks for all policies: one message for each, the last with sadb_msg_seq 0. */
int pfkey_send_spddump(int so);
/* Moves a policy and its SAs to other addresses. local and remote are the key managers' own addresses; policy holds pairs of an old
 * and a new request. */
int pfkey_send_migrate(int so, struct sockaddr *local, struct sockaddr *remote, struct sockaddr *src, unsigned int
	prefs,
	struct sockaddr *dst, unsigned int prefd, unsigned int proto, char *policy, int policylen, uint32_t seq);

/* --- deprecated: the fields of struct pfkey_send_sa_args one by one, with the same units and byte orders --- */

int pfkey_send_update(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi,
	uint32_t reqid, unsigned int wsize, char *keymat, unsigned int e_type, unsigned int e_keylen, unsigned int
	a_type, unsigned int a_keylen,
	unsigned int flags, uint32_t l_alloc, uint64_t l_bytes, uint64_t l_addtime, uint64_t l_usetime, uint32_t seq);
int pfkey_send_update_nat(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi, uint32_t reqid, unsigned int wsize, char *keymat, unsigned int e_type, unsigned int e_keylen,
	unsigned int a_type,
	unsigned int a_keylen, unsigned int flags, uint32_t l_alloc, uint64_t l_bytes, uint64_t l_addtime, uint64_t
	l_usetime,
	uint32_t seq, uint8_t l_natt_type, uint16_t l_natt_sport, uint16_t l_natt_dport, struct sockaddr *l_natt_oa,
	uint16_t l_natt_frag);
int pfkey_send_add(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi,
	uint32_t reqid, unsigned int wsize, char *keymat, unsigned int e_type, unsigned int e_keylen, unsigned int
	a_type, unsigned int a_keylen,
	unsigned int flags, uint32_t l_alloc, uint64_t l_bytes, uint64_t l_addtime, uint64_t l_usetime, uint32_t seq);
int pfkey_send_add_nat(int so, unsigned int satype, unsigned int mode, struct sockaddr *src, struct sockaddr *dst,
	uint32_t spi,
	uint32_t reqid, unsigned int wsize, char *keymat, unsigned int e_type, unsigned int e_keylen, unsigned int
	a_type, unsigned int a_keylen,
	unsigned int flags, uint32_t l_alloc, uint64_t l_bytes, uint64_t l_addtime, uint64_t l_usetime, uint32_t seq,
	uint8_t l_natt_type, uint16_t l_natt_sport, uint16_t l_natt_dport, struct sockaddr *l_natt_oa,
	uint16_t l_natt_frag);

#ifdef __cplusplus
}
#endif

#endif
