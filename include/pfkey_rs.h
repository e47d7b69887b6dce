/* pfkey_rs.h - the C ABI of libpfkey_rs, generated. Programs written for libipsec include <libpfkey.h>. */

#ifndef PFKEY_RS_H
#define PFKEY_RS_H

/* Generated from src/capi by `make headers`; change the functions there. */

#include <libpfkey.h>

#ifdef __cplusplus
extern "C" {
#endif
/* The code of the last call on any thread (libipsec's ipsec_strerror.h). A program may write it. */
extern int __ipsec_errcode;
#ifdef __cplusplus
}
#endif


/*
 Finds the extensions of a message: `mhp[n]` points at the extension of type n, or is NULL; `mhp[0]` at the
 header. `mhp` has SADB_EXT_MAX + 1 = 27 elements.

 Returns 0; -1 with code 2 for NULL, 3 for lengths that do not add up, 12 for an extension that is unknown or
 there twice. What was found before the error stays.
 */
int pfkey_align(struct sadb_msg *msg, char **mhp);

/*
 Checks the header and the two addresses of a message whose extensions `pfkey_align` found.

 Returns 0; -1 with a code otherwise.
 */
int pfkey_check(char **mhp);

/*
 Opens a PF_KEY socket and enlarges its buffers.

 Which backend serves it is chosen by the environment variable PFKEY_BACKEND: auto (the default: the kernel's
 AF_KEY, or XFRM where the kernel has none), afkey, xfrm, embedded, or unix:PATH for a running pfkeyd.

 Returns the descriptor, which the caller closes; -1 with errno as `socket` would have left it, and code 26
 whose text says why.
 */
int pfkey_open(void);

/*
 Closes a PF_KEY descriptor.
 */
void pfkey_close(int so);

/*
 Makes a descriptor's receive buffer at least `size_kb` KiB large, if that is positive.

 Returns the buffer's size in KiB as the kernel reports it, 0 if it cannot be read; -1 with code 26 if it could
 not be set.
 */
int pfkey_set_buffer_size(int so,
                          int size_kb);

/*
 Sends a message as it is.

 On a descriptor that AF_KEY or a pfkeyd serves, its answers can be read when this returns.

 Returns the number of bytes sent; -1 with errno and code 26 otherwise.
 */
int pfkey_send(int so, struct sadb_msg *msg, int len);

/*
 Prints an SA on stdout, as `setkey -D` shows it, keys included.
 */
void pfkey_sadump(struct sadb_msg *m);

/*
 `pfkey_sadump` with ports.
 */
void pfkey_sadump_withports(struct sadb_msg *m);

/*
 Prints a policy on stdout, as `setkey -DP` shows it.
 */
void pfkey_spdump(struct sadb_msg *m);

/*
 `pfkey_spdump` with ports.
 */
void pfkey_spdump_withports(struct sadb_msg *m);

/*
 Leaves per-socket policies out of `pfkey_spdump` (`on` not 0), or no longer.
 */
void pfkey_spdump_filter_socket_policy(int on);

/*
 How many policies were left out since a dump's first message.
 */
unsigned long pfkey_spdump_filtered_count(void);

/*
 Prints every field of a message on stdout, keys included. Unlike libipsec's it never ends the process.
 */
void kdebug_sadb(struct sadb_msg *base);

/*
 Prints bytes in hexadecimal on stdout: a space before every four, a new line before every further 32.
 */
void ipsec_hexdump(const void *buf, int len);

/*
 Writes bytes to stdout as they are.
 */
void ipsec_bindump(char *buf, int len);

/*
 The text of this thread's last error.

 The pointer is valid until the next failing call on the same thread; it is never NULL and must not be freed.
 A code outside 0..30 counts as 30, "Unknown error", and is stored as such.
 */
const char *ipsec_strerror(void);

/*
 Sets the text that goes with code 26 on this thread; the code stays. The string is copied; NULL forgets it.
 */
void __ipsec_set_strerror(const char *text);

/*
 The length in bytes of a policy that `ipsec_set_policy` made; -1 for NULL.
 */
int ipsec_get_policylen(char *policy);

/*
 `ipsec_dump_policy` with the ports of tunnel addresses.
 */
char *ipsec_dump_policy_withports(void *policy, const char *delimiter);

/*
 Receives one message with one system call, waiting for it unless the descriptor is non-blocking.

 Returns a block from `malloc` with the whole message, at least 16 bytes and as long as its header says; the
 caller frees it with `free`. Returns NULL, with the message consumed, if it is not one:
 - code 26: the system call failed (EAGAIN on a non-blocking descriptor or after SO_RCVTIMEO; EINTR is tried
   again); the message is shorter than its header says or longer than any message can be (EMSGSIZE); or the
   pfkeyd behind the descriptor has ended;
 - code 30: fewer than 16 bytes, or end of file on another descriptor;
 - code 3: the header says less than 16 bytes.
 */
struct sadb_msg *pfkey_recv(int so);

/*
 Registers for ACQUIRE and EXPIRE messages of an SA type (0, AH, ESP or IPComp), and forgets the algorithms that
 an earlier registration listed. `pfkey_recv_register` reads the answer.

 Returns the number of bytes sent; -1 with a code otherwise (2 for another SA type).
 */
int pfkey_send_register(int so,
                        uint32_t satype);

/*
 Removes all SAs of a type, or all for 0. Two messages may answer.

 Returns the number of bytes sent; -1 with a code otherwise (10 for an SA type that is not IPsec's).
 */
int pfkey_send_flush(int so, uint32_t satype);

/*
 Asks for all SAs of a type, or all for 0: a message each, the last with sequence number 0.

 Returns the number of bytes sent; -1 with a code otherwise (10 for an SA type that is not IPsec's).
 */
int pfkey_send_dump(int so, uint32_t satype);

/*
 Switches a descriptor to hear every message (`flag` not 0), or no longer.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_promisc_toggle(int so, int flag);

/*
 Removes all policies. Two messages may answer.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_spdflush(int so);

/*
 Asks for all policies: a message each, the last with sequence number 0.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_spddump(int so);

/*
 Creates an SA: SADB_ADD. The field `type` is set by the call; keys are not kept.

 Soft limits are 80 % of the hard ones, or what `pfkey_set_softrate` said.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_add2(struct pfkey_send_sa_args *sa_parms);

/*
 Completes an SA that `pfkey_send_getspi` began, or changes one: SADB_UPDATE. See `pfkey_send_add2`.
 */
int pfkey_send_update2(struct pfkey_send_sa_args *sa_parms);

/*
 Asks for an SPI between `min` and `max` (host byte order, above 255; 0 and 0 for any): SADB_GETSPI. A `max` of
 0xffffffff is not sent.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_getspi(int so,
                      uint32_t satype,
                      uint32_t mode,
                      struct sockaddr *src,
                      struct sockaddr *dst,
                      uint32_t min,
                      uint32_t max,
                      uint32_t reqid,
                      uint32_t seq);

/*
 `pfkey_send_getspi` with NAT traversal: `UDP_ENCAP_*` and two ports in host byte order.
 */
int pfkey_send_getspi_nat(int so,
                          uint32_t satype,
                          uint32_t mode,
                          struct sockaddr *src,
                          struct sockaddr *dst,
                          uint8_t natt_type,
                          uint16_t sport,
                          uint16_t dport,
                          uint32_t min,
                          uint32_t max,
                          uint32_t reqid,
                          uint32_t seq);

/*
 Removes an SA: SADB_DELETE. `spi` is in network byte order; `mode` is not used.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_delete(int so,
                      uint32_t satype,
                      uint32_t mode,
                      struct sockaddr *src,
                      struct sockaddr *dst,
                      uint32_t spi);

/*
 Asks to remove every SA between two addresses: SADB_DELETE without an SPI, which Linux refuses. `mode` is not
 used.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_delete_all(int so, uint32_t satype, uint32_t mode, struct sockaddr *src, struct sockaddr *dst);

/*
 Asks for an SA: SADB_GET. `spi` is in network byte order; `mode` is not used.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_get(int so,
                   uint32_t satype,
                   uint32_t mode,
                   struct sockaddr *src,
                   struct sockaddr *dst,
                   uint32_t spi);

/*
 Removes a policy by its number: SADB_X_SPDDELETE2.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_spddelete2(int so, uint32_t spid);

/*
 Asks for a policy by its number: SADB_X_SPDGET.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_spdget(int so, uint32_t spid);

/*
 Moves SAs and a policy to other addresses: SADB_X_MIGRATE. `local` and `remote` are the key managers' own
 addresses; `policy` holds pairs of old and new requests.

 Returns the number of bytes sent; -1 with a code otherwise.
 */
int pfkey_send_migrate(int so,
                       struct sockaddr *local,
                       struct sockaddr *remote,
                       struct sockaddr *src,
                       uint32_t prefs,
                       struct sockaddr *dst,
                       uint32_t prefd,
                       uint32_t proto,
                       char *policy,
                       int policylen,
                       uint32_t seq);

/*
 Sets the share of a hard lifetime at which the soft one lies, in per cent, for every later ADD and UPDATE of
 the process. `type`: 0 allocations, 1 bytes, 2 addtime, 3 usetime. A rate of 0 or above 100 counts as 100.

 Returns 0; 1 with code 2 for another type.
 */
uint32_t pfkey_set_softrate(uint32_t type, uint32_t rate);

/*
 The share in per cent that `pfkey_set_softrate` set, 80 at first; 0xffffffff for another type.
 */
uint32_t pfkey_get_softrate(uint32_t type);

/*
 Waits for the answer to `pfkey_send_register` and keeps the algorithms that it lists. Every other message that
 arrives before it is thrown away.

 Returns 0; -1 with a code otherwise. An answer with an errno is code 26 with that errno's text.
 */
int pfkey_recv_register(int so);

/*
 Keeps the algorithms that a REGISTER answer lists. `sadb_msg_len` must have been replaced by the message's
 length in **bytes**, `tlen`; extension lengths are replaced likewise by the call.

 Returns 0; -1 with code 2 for disagreeing lengths, 10 for anything but lists.
 */
int pfkey_set_supported(struct sadb_msg *msg, int tlen);

/*
 Whether a key of so many bits goes with an algorithm that the last registration listed. `supported` is
 SADB_EXT_SUPPORTED_AUTH or SADB_EXT_SUPPORTED_ENCRYPT.

 Returns 0; -1 with code 2 for another `supported`, 22 before a registration, 1 for an algorithm that is not
 listed, 14 for a key too short or too long; then the length and its limits are also printed on stderr.
 */
int ipsec_check_keylen(uint32_t supported, uint32_t alg_id, uint32_t keylen);

/*
 `ipsec_check_keylen` for an SA type: SADB_SATYPE_AH or SADB_SATYPE_ESP.
 */
int ipsec_check_keylen2(uint32_t satype, uint32_t alg_id, uint32_t keylen);

/*
 Copies what the last registration said of an algorithm to `alg0`.

 Returns 0; -1 with code 2 for NULL or another `supported`, 22 before a registration, 1 for an algorithm that is
 not listed.
 */
int ipsec_get_keylen(uint32_t supported,
                     uint32_t alg_id,
                     struct sadb_alg *alg0);

#endif  /* PFKEY_RS_H */
