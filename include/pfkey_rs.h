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
 A key engine with its own SADB and SPD. It does no I/O and reads no clock; every call takes the time in
 nanoseconds since the Unix epoch. One thread at a time may use it. If there is no memory, the process ends.

 Every function that fails sets errno; for a NULL engine it is EINVAL.
 */
typedef struct pfkey_engine pfkey_engine;

/*
 What names an SA of an engine.
 */
typedef struct pfkey_engine_sa {
  /*
   SPI in network byte order, as `sadb_sa_spi`.
   */
  uint32_t spi;
  /*
   SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP.
   */
  uint8_t satype;
  /*
   `sadb_x_sa2_mode` in which it is applied.
   */
  uint8_t mode;
  /*
   AF_INET or AF_INET6.
   */
  uint16_t family;
  /*
   Destination address, network byte order; an IPv4 address stands in the first four bytes, the rest is 0.
   */
  uint8_t dst[16];
} pfkey_engine_sa;

/*
 Limits of an SA, or its use so far.
 */
typedef struct pfkey_sa_lifetime {
  /*
   Packets; as a limit 0 = none.
   */
  uint64_t packets;
  /*
   Bytes; as a limit 0 = none.
   */
  uint64_t bytes;
  /*
   Limits: seconds since creation, 0 = none. Use: Unix time of creation.
   */
  uint64_t addtime;
  /*
   Limits: seconds since first use, 0 = none. Use: Unix time of first use, 0 = unused.
   */
  uint64_t usetime;
} pfkey_sa_lifetime;

/*
 An SA as `pfkey_dump_foreach` shows it. It and what it points to are valid during the callback only.
 */
typedef struct pfkey_sa_view {
  /*
   SADB_SATYPE_AH, SADB_SATYPE_ESP or SADB_X_SATYPE_IPCOMP.
   */
  uint8_t satype;
  /*
   SADB_SASTATE_LARVAL, SADB_SASTATE_MATURE or SADB_SASTATE_DYING.
   */
  uint8_t state;
  /*
   `sadb_sa_auth`.
   */
  uint8_t auth;
  /*
   `sadb_sa_encrypt`.
   */
  uint8_t encrypt;
  /*
   `sadb_x_sa2_mode`.
   */
  uint8_t mode;
  /*
   Replay window in packets.
   */
  uint8_t replay;
  /*
   Bits of authentication key.
   */
  uint16_t auth_bits;
  /*
   Bits of encryption key.
   */
  uint16_t encrypt_bits;
  /*
   UDP encapsulation, 0 = none.
   */
  uint16_t natt_type;
  /*
   UDP source port in host byte order.
   */
  uint16_t natt_sport;
  /*
   UDP destination port in host byte order.
   */
  uint16_t natt_dport;
  /*
   SPI in network byte order, as `sadb_sa_spi`.
   */
  uint32_t spi;
  /*
   `sadb_sa_flags`.
   */
  uint32_t flags;
  /*
   `sadb_x_sa2_reqid`.
   */
  uint32_t reqid;
  /*
   Source; a sockaddr_in or sockaddr_in6 without port.
   */
  const struct sockaddr *src;
  /*
   Destination; a sockaddr_in or sockaddr_in6 without port.
   */
  const struct sockaddr *dst;
  /*
   Authentication key, (auth_bits + 7) / 8 bytes.
   */
  const uint8_t *auth_key;
  /*
   Encryption key, (encrypt_bits + 7) / 8 bytes.
   */
  const uint8_t *encrypt_key;
  /*
   Hard limits.
   */
  struct pfkey_sa_lifetime hard;
  /*
   Soft limits.
   */
  struct pfkey_sa_lifetime soft;
  /*
   Use so far.
   */
  struct pfkey_sa_lifetime current;
} pfkey_sa_view;

/*
 What would become of a packet.
 */
typedef struct pfkey_resolution {
  /*
   Id of the policy that takes it; 0 = none does.
   */
  uint32_t policy;
  /*
   What is left of the path's MTU for the packet in bytes, IP header included.
   */
  uint32_t mtu;
  /*
   The least bytes that the SAs add to a packet.
   */
  uint32_t least_overhead;
  /*
   The most bytes that the SAs add to a packet.
   */
  uint32_t most_overhead;
  /*
   Number of SAs that were found.
   */
  uint32_t sas;
  /*
   The SAs, in the order in which they are applied.
   */
  struct pfkey_engine_sa sa[6];
} pfkey_resolution;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/*
 Finds the extensions of a message: `mhp[n]` points at the extension of type n inside the message, or is NULL; `mhp[0]`
 points at the header. `mhp` is the caller's and has SADB_EXT_MAX + 1 = 27 elements.

 Returns 0; -1 with code 2 for NULL, 3 for lengths that do not add up, 12 for an extension that is unknown or
 there twice. What was found before the error stays.
 */
int pfkey_align(struct sadb_msg *msg,
                char **mhp);

/*
 Checks the header and the two addresses of a message whose extensions `pfkey_align` found.

 Returns 0; -1 with code 2 for NULL, 4 for another version, 11 for an unknown message type, 10 for an SA type that does not go
 with the message, 1 for an SA type that is not IPsec's, 23 for addresses of two protocols, 24 for two address families, 15
 for an unknown family.
 */
int pfkey_check(char **mhp);

/*
 Begins a batch: what this thread sends on `so` from now on with any of the pfkey_send functions is kept, in order,
 until pfkey_batch_end sends it. Those functions return as if it had been sent. pfkey_close(so) throws the batch away.

 Returns 0; -1 with a code otherwise (2 if this thread has begun a batch already).
 */
int pfkey_batch_begin(int so);

/*
 Does all requests of this thread's batch, in order, and reads their answers. `failed`, if not NULL, is called with
 `arg` for each request that the key engine refused: its place in the batch, from 0, and the errno; ipsec_strerror()
 says meanwhile why, where the session is shown that (pfkey_show_xfrm). The others are done all the same. The batch is
 over then, however it ended; keys in it are wiped.

 What waits on the descriptor before is dropped, and what else arrives there meanwhile is read and lost, so use one that is
 registered for nothing. It must not be promiscuous (pfkey_send_promisc_toggle): copies of the requests would be taken for
 their answers. `failed` must not use it, nor leave by longjmp or an exception.

 Returns the number of requests that failed; -1 with a code if there is no batch (2), no memory (21: nothing was sent) or
 sending or receiving failed (26): how many requests were done is not known then, but for EBADF, where the descriptor was
 closed after pfkey_batch_begin, and may be another's by now: nothing was sent.
 */
int pfkey_batch_end(void (*failed)(size_t place, int errno_of_it, void *arg),
                    void *arg);

/*
 Throws this thread's batch away, if there is one.
 */
void pfkey_batch_drop(void);

/*
 Opens a PF_KEY socket and enlarges its buffers.

 Which backend serves it is chosen by the environment variable PFKEY_BACKEND: auto (the default: the kernel's
 AF_KEY, or XFRM where the kernel has none), afkey, service (XFRM by the machine's pfkeyd; service:PATH if it listens
 elsewhere), private or xfrm (XFRM by a pfkeyd of the descriptor's own), embedded, or unix:PATH for a running pfkeyd.

 The thread cannot be cancelled in it, nor in `pfkey_close`.

 Returns the descriptor, which the caller closes; -1 with errno as `socket` would have left it, and code 26
 whose text says why, or code 21 if there is no memory.
 */
int pfkey_open(void);

/*
 Chooses what descriptors that this process opens from now on offer beyond AF_KEY, instead of what the environment
 variable PFKEY_ALGORITHMS names.

 `list`: NUL-terminated, the caller's; words with commas between. "aead": AES-CCM, AES-GCM, AES-GMAC and
 ChaCha20-Poly1305 are listed by REGISTER and can be used; the salt stands behind the key, and counts in its length.
 "sha256-128": SAs with SHA2-256 have the 128 bits of RFC 4868; AF_KEY's have 96, and the peer has to have as many.
 "": nothing. NULL: what PFKEY_ALGORITHMS names, again.

 With a list that is not empty, backend auto means XFRM, backend afkey does not open (EPROTONOSUPPORT), and a pfkeyd
 that listens on a path offers what it was started with.

 Returns 0; -1 for a word that means nothing, and code 26 whose text names it.
 */
int pfkey_set_algorithms(const char *list);

/*
 Chooses what the SAs and policies of descriptors that this process opens from now on have beyond what the program says of
 them, instead of what the environment variable PFKEY_XFRM says.

 `list`: NUL-terminated, the caller's; words with spaces or commas between, such as "if_id=42 out:set-mark=0x10"; libpfkey_rs(3)
 has them all. Names of network interfaces are looked up now, in the thread's network namespace. "": nothing. NULL: what
 PFKEY_XFRM says, again.

 With "if_id" or "mark" such a descriptor is apart from others: DUMP, GET, DELETE, FLUSH, their likes for policies, ACQUIRE
 and EXPIRE are of SAs and policies with this if_id or this mark.

 With a list that is not empty, backend auto means XFRM, and backend afkey does not open (EPROTONOSUPPORT). What a key engine
 does not have makes `pfkey_open` fail (EOPNOTSUPP), with code 26 whose text names it.

 Returns 0; -1 for a word that means nothing, and code 26 whose text names it and its place.
 */
int pfkey_set_xfrm(const char *list);

/*
 Closes a PF_KEY descriptor. A batch that this thread has begun on it (pfkey_batch_begin) is thrown away.
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
 Sends a message as it is. In a batch (pfkey_batch_begin) what is a whole message is kept, as those of the other functions
 are; what is none is sent at once.

 On a descriptor that AF_KEY or a pfkeyd serves, its answers can be read when this returns.

 Returns the number of bytes sent; -1 with errno and code 26 otherwise.
 */
int pfkey_send(int so,
               struct sadb_msg *msg,
               int len);

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
 Prints a message of `len` bytes on stdout as `print_sadb_msg` of "Unix Network Programming", chapter 19, does, keys
 included. With `as_printed` not 0 it keeps that program's slips: the SPI is the number that its bytes are in memory,
 and no separator stands between a limit's bytes and its times.

 Returns 0; -1 with the reason as code, and on stderr, if `len` is not the message's length or the version is not
 PF_KEY_V2. Extensions that are malformed are named and end the listing.
 */
int pfkey_print_sadb_msg(const struct sadb_msg *msg,
                         size_t len,
                         int as_printed);

/*
 Prints bytes in hexadecimal on stdout: a space before every four, a new line before every further 32.
 */
void ipsec_hexdump(const void *buf, int len);

/*
 Writes bytes to stdout as they are.
 */
void ipsec_bindump(char *buf, int len);

/*
 Makes an empty engine. `profile` is NULL or "linux" for one that behaves as Linux's AF_KEY, "rfc2367" for one that
 keeps to the RFC where Linux does not.

 Returns the engine, which the caller frees with `pfkey_engine_free`; NULL with errno EINVAL for another profile.
 */
struct pfkey_engine *pfkey_engine_new(const char *profile);

/*
 Frees an engine with its sessions; its keys are wiped. NULL is allowed.
 */
void pfkey_engine_free(struct pfkey_engine *engine);

/*
 Opens a session, the engine's equivalent of a PF_KEY socket.

 Returns its number (0 or more); -1 with errno EMFILE if there are too many.
 */
int pfkey_engine_open(struct pfkey_engine *engine);

/*
 Closes a session; its registration, its dump and what it did not receive are gone.

 Returns 0; -1 with errno EBADF if there is none of that number.
 */
int pfkey_engine_close(struct pfkey_engine *engine, int session, uint64_t now);

/*
 Sends one whole PF_KEY message of `len` bytes from a session. When it returns, every answer and notification that
 the message causes can be received. The bytes stay the caller's.

 Returns 0; an error of the request itself comes as a message with `sadb_msg_errno`. Returns -1 with errno, and
 nothing was done: EBADF if there is no such session; EMSGSIZE or EINVAL if the bytes are no message, as `send` on a PF_KEY
 socket would say; EFAULT for NULL.
 */
int pfkey_engine_send(struct pfkey_engine *engine,
                      int session,
                      const void *msg,
                      size_t len,
                      uint64_t now);

/*
 Takes a session's oldest message into `buffer` of `size` bytes. A dump goes on while its messages are taken.

 Returns the message's length in bytes; -1 with errno EAGAIN if there is none, EBADF without such a session,
 EMSGSIZE if the buffer is too small: then the message stays, `pfkey_engine_pending` says how long it is.
 */
int pfkey_engine_recv(struct pfkey_engine *engine, int session, void *buffer, size_t size, uint64_t now);

/*
 Returns the length in bytes of a session's oldest message, 0 if there is none; -1 with errno EBADF.
 */
int pfkey_engine_pending(struct pfkey_engine *engine, int session);

/*
 Returns how many messages a session lost because it did not receive them; UINT64_MAX with errno EBADF.
 */
uint64_t pfkey_engine_dropped(struct pfkey_engine *engine, int session);

/*
 Returns the time at which `pfkey_engine_advance` has to be called next, nanoseconds since the Unix epoch;
 UINT64_MAX if nothing is due.
 */
uint64_t pfkey_engine_next_deadline(struct pfkey_engine *engine);

/*
 Does what is due at `now`: EXPIRE messages, the end of SAs and policies. Calls with a time of their own do that
 too.

 Returns 0; -1 with errno.
 */
int pfkey_engine_advance(struct pfkey_engine *engine,
                         uint64_t now);

/*
 Sets how many seconds the engine waits for an SA that it asked key managers for (30 at first).

 Returns 0; -1 with errno.
 */
int pfkey_engine_set_acq_expires(struct pfkey_engine *engine, uint64_t seconds);

/*
 Finds the SAs that an outbound packet from `src` to `dst` needs. Ports are in the sockaddrs (for ICMP: type and code),
 `proto` is the upper-layer protocol. If an SA is missing, registered sessions receive an ACQUIRE for it.

 Writes the SAs to `sas`, which has room for `room` of them (no policy needs more than 6), in the order in which
 they are applied. Returns their number; 0 = the packet passes as it is. Returns -1 with errno EAGAIN if an SA is
 missing, EPERM if the policy discards the packet, ENOBUFS if the policy asks for more SAs than can be applied,
 ENOSPC if `room` is too small, EAFNOSUPPORT for addresses of other or different families, EFAULT for NULL.
 */
int pfkey_engine_outbound(struct pfkey_engine *engine,
                          const struct sockaddr *src,
                          const struct sockaddr *dst,
                          uint8_t proto,
                          struct pfkey_engine_sa *sas,
                          size_t room,
                          uint64_t now);

/*
 Writes the counters of what pfkey_engine_outbound decided, in the form of Linux's `/proc/net/xfrm_stat`, as
 `snprintf` would: `room` bytes of `text` at most, a NUL included. `text` is the caller's, and may be NULL where `room` is
 0.

 Returns the number of bytes that there are, without the NUL; -1 with errno EFAULT if `text` is NULL and `room` is not 0.
 */
int pfkey_engine_statistics(struct pfkey_engine *engine,
                            char *text,
                            size_t room);

/*
 Tests the limits of an SA, inbound or outbound, and counts `packets` packets of together `bytes` bytes for it; EXPIRE
 messages that this causes are delivered.

 Returns 0; -1 with errno EINVAL if there is no such SA or it is over its hard limit: the packets must not pass. EFAULT for
 NULL.
 */
int pfkey_engine_count(struct pfkey_engine *engine,
                       const struct pfkey_engine_sa *sa,
                       uint64_t packets,
                       uint64_t bytes,
                       uint64_t now);

/*
 Tells key managers that the peer of an encapsulated SA now sends from another address or port (in `peer`):
 SADB_X_NAT_T_NEW_MAPPING. To be called for every such packet until the SA was updated.

 Returns 0; -1 with errno EINVAL if there is no such SA or it is not encapsulated, EAFNOSUPPORT for an address of
 another family, EFAULT for NULL.
 */
int pfkey_engine_new_mapping(struct pfkey_engine *engine,
                             const struct pfkey_engine_sa *sa,
                             const struct sockaddr *peer,
                             uint64_t now);

/*
 Calls `callback` once for each SA of a type (SADB_SATYPE_UNSPEC: of all), newest first, with `arg`; a value other
 than 0 stops it.

 Behind XFRM and AF_KEY the SAs come straight from the kernel by netlink, without a PF_KEY message each; DYING is then
 judged from limits and counters. Where the program may not (no CAP_NET_ADMIN), or another engine is behind `so`, it
 is a DUMP over `so`: what waits there before is dropped, the rest of another dump among it, and what else arrives there
 meanwhile is read and lost, so use a descriptor that is registered for nothing. Its entries are waited for on a
 non-blocking descriptor, too, 30 seconds each; SO_RCVTIMEO holds as for pfkey_recv. The callback must not use `so`, nor
 leave by longjmp or an exception.

 The thread cannot be cancelled meanwhile.

 Returns 0, or the callback's value that stopped it; -1 with a code otherwise (10 for an SA type that has no SAs, 21
 without memory).
 */
int pfkey_dump_foreach(int so,
                       uint32_t satype,
                       int (*callback)(const struct pfkey_sa_view *sa, void *arg),
                       void *arg);

/*
 The length in bytes of a policy that `ipsec_set_policy` made; -1 for NULL.
 */
int ipsec_get_policylen(char *policy);

/*
 `ipsec_dump_policy` with the ports of tunnel addresses.
 */
char *ipsec_dump_policy_withports(void *policy, const char *delimiter);

/*
 Receives one message, waiting for it unless the descriptor is non-blocking. A message that is there already takes
 one system call. While it waits, the thread may be cancelled.

 Returns a block from `malloc` with the whole message, at least 16 bytes and as long as its header says; the
 caller frees it with `free`. Returns NULL, with the message consumed, if it is not one:
 - code 26: the system call failed (EAGAIN on a non-blocking descriptor or after SO_RCVTIMEO; EINTR is tried
   again); the message is shorter than its header says or longer than any message can be (EMSGSIZE); or the
   pfkeyd behind the descriptor has ended (EPIPE);
 - code 30: fewer than 16 bytes, or end of file on another descriptor;
 - code 3: the header says less than 16 bytes;
 - code 21: there is no memory. A message of up to 4096 bytes still waits then.
 */
struct sadb_msg *pfkey_recv(int so);

/*
 Finds the policy and the SAs that an outbound packet from `src` to `dst` would take, and what would be left of its path's
 MTU, `path_mtu` bytes. Ports and `proto` are as for pfkey_engine_outbound; but no key manager is asked for an SA, and
 nothing changes.

 Fills in `resolution`, which is the caller's, even if it returns -1 with EAGAIN, EPERM or ENOBUFS. Returns
 the number of SAs; 0 = the packet passes as it is. Returns -1 with errno EAGAIN if an SA is missing, EPERM if the
 policy discards the packet, ENOBUFS if the policy asks for more SAs than can be applied, EAFNOSUPPORT for addresses of
 other or different families, EINVAL for a NULL engine, EFAULT for another NULL.
 */
int pfkey_resolve(struct pfkey_engine *engine,
                  const struct sockaddr *src,
                  const struct sockaddr *dst,
                  uint8_t proto,
                  uint32_t path_mtu,
                  struct pfkey_resolution *resolution);

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
 Asks to be shown what XFRM has beyond PF_KEY (`on` not 0), or no longer, on this descriptor: SADB_X_XFRM. Messages about SAs and
 policies then have it, and messages with an errno what the kernel says of it; `pfkey_xfrm_of` reads both.

 The answer is a message of the same type, to this descriptor alone. A pfkeyd that is older than the extension does not answer.

 Returns the number of bytes sent; -1 with a code otherwise: AF_KEY has no such message (26, EINVAL).
 */
int pfkey_show_xfrm(int so,
                    int on);

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
 `pfkey_send_add2` with what XFRM has beyond PF_KEY; NULL is nothing. An SA with XFRM's own replay window
 (`pfkey_xfrm_set_esn`, `pfkey_xfrm_set_replay_window`) has `wsize` 0.

 Returns the number of bytes sent; -1 with a code otherwise: 26, whose text names the attribute, for one that the message cannot
 carry, and on a descriptor of AF_KEY's (EOPNOTSUPP), which would pass over it. All functions pfkey_send_*_xfrm do so.
 */
int pfkey_send_add2_xfrm(struct pfkey_send_sa_args *sa_parms,
                         const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_update2` with what XFRM has beyond PF_KEY, see `pfkey_send_add2_xfrm`. An SA with a mark is found by it.
 */
int pfkey_send_update2_xfrm(struct pfkey_send_sa_args *sa_parms,
                            const struct pfkey_xfrm *xfrm);

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
 `pfkey_send_getspi_nat` (`natt_type` and ports 0: `pfkey_send_getspi`) with what XFRM has beyond PF_KEY, see
 `pfkey_send_add2_xfrm`. A larval SA with a mark is completed by an UPDATE with that mark.
 */
int pfkey_send_getspi_xfrm(int so,
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
                           uint32_t seq,
                           const struct pfkey_xfrm *xfrm);

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
 `pfkey_send_delete` of an SA with a mark (`pfkey_xfrm_set_mark`), see `pfkey_send_add2_xfrm`.
 */
int pfkey_send_delete_xfrm(int so,
                           uint32_t satype,
                           struct sockaddr *src,
                           struct sockaddr *dst,
                           uint32_t spi,
                           const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_get` of an SA with a mark (`pfkey_xfrm_set_mark`), see `pfkey_send_add2_xfrm`.
 */
int pfkey_send_get_xfrm(int so,
                        uint32_t satype,
                        struct sockaddr *src,
                        struct sockaddr *dst,
                        uint32_t spi,
                        const struct pfkey_xfrm *xfrm);

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
 `pfkey_send_spdadd2` (`ltime` and `vtime` 0: `pfkey_send_spdadd`) with what XFRM has beyond PF_KEY, see
 `pfkey_send_add2_xfrm`. Policies that differ in mark or XFRM interface are different policies.
 */
int pfkey_send_spdadd_xfrm(int so,
                           struct sockaddr *src,
                           uint32_t prefs,
                           struct sockaddr *dst,
                           uint32_t prefd,
                           uint32_t proto,
                           uint64_t ltime,
                           uint64_t vtime,
                           char *policy,
                           int policylen,
                           uint32_t seq,
                           const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_spdupdate2` with what XFRM has beyond PF_KEY, see `pfkey_send_spdadd_xfrm`.
 */
int pfkey_send_spdupdate_xfrm(int so,
                              struct sockaddr *src,
                              uint32_t prefs,
                              struct sockaddr *dst,
                              uint32_t prefd,
                              uint32_t proto,
                              uint64_t ltime,
                              uint64_t vtime,
                              char *policy,
                              int policylen,
                              uint32_t seq,
                              const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_spddelete` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`. `policylen` must be 16, and
 the policy as long as that ("out none").
 */
int pfkey_send_spddelete_xfrm(int so,
                              struct sockaddr *src,
                              uint32_t prefs,
                              struct sockaddr *dst,
                              uint32_t prefd,
                              uint32_t proto,
                              char *policy,
                              int policylen,
                              uint32_t seq,
                              const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_spddelete2` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`.
 */
int pfkey_send_spddelete2_xfrm(int so, uint32_t spid, const struct pfkey_xfrm *xfrm);

/*
 `pfkey_send_spdget` of a policy with a mark or an XFRM interface, see `pfkey_send_add2_xfrm`.
 */
int pfkey_send_spdget_xfrm(int so, uint32_t spid, const struct pfkey_xfrm *xfrm);

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
 The text of this thread's last error. A signal handler may ask for it.

 The pointer is valid until the next failing call on the same thread; it is never NULL and must not be freed.
 A code outside 0..30 counts as 30, "Unknown error", and is stored as such.
 */
const char *ipsec_strerror(void);

/*
 Sets the text that goes with code 26 on this thread; the code stays. The string is copied, 1023 bytes of it at most;
 NULL forgets it.
 */
void __ipsec_set_strerror(const char *text);

/*
 Waits for the answer to `pfkey_send_register` and keeps the algorithms that it lists. Every other message that
 arrives before it is thrown away. While it waits, the thread may be cancelled.

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

/*
 Sets any attribute, one of a kernel newer than this library too: `number` is XFRMA_*, `payload` its `len` bytes as
 linux/xfrm.h has them, in host byte order; NULL and 0 for one that has none. It takes the place of one with the same number.

 Returns 0; -1 with code 26, whose text names the attribute, for one that PF_KEY says in another place, that the kernel only
 reports, or whose length cannot be, and for more than 4096 bytes altogether. Nothing is changed then. All functions
 pfkey_xfrm_set_* do so.
 */
int pfkey_xfrm_set(struct pfkey_xfrm *xfrm,
                   int number,
                   const void *payload,
                   size_t len);

/*
 Sets the mark of the packets that it is for: those whose mark has `value` in the bits of `mask`. It is a part of the names of
 SAs and policies.
 */
int pfkey_xfrm_set_mark(struct pfkey_xfrm *xfrm,
                        uint32_t value,
                        uint32_t mask);

/*
 Sets the mark that an SA's packets get: `value` in the bits of `mask`, 0xffffffff for all. Linux 4.19.
 */
int pfkey_xfrm_set_set_mark(struct pfkey_xfrm *xfrm, uint32_t value, uint32_t mask);

/*
 Sets extended sequence numbers (ESN, RFC 4303) and a replay window of `packets`, 4096 at most. `wsize` of
 `struct pfkey_send_sa_args` is 0 then.
 */
int pfkey_xfrm_set_esn(struct pfkey_xfrm *xfrm, uint32_t packets);

/*
 Sets a replay window of `packets`, 4096 at most, without extended sequence numbers. `wsize` of `struct pfkey_send_sa_args` is 0
 then.
 */
int pfkey_xfrm_set_replay_window(struct pfkey_xfrm *xfrm,
                                 uint32_t packets);

/*
 Sets the bits of the integrity value, such as 128 for SHA2-256 (RFC 4868), of which AF_KEY makes 96. Whole bytes. The algorithm
 and its key stand where they always do.
 */
int pfkey_xfrm_set_icv(struct pfkey_xfrm *xfrm,
                       uint32_t bits);

/*
 Sets the network interface that does the cryptography: its number (if_nametoindex), and XFRM_OFFLOAD_INBOUND for an inbound SA,
 XFRM_OFFLOAD_PACKET for whole packets. A policy has it with XFRM_OFFLOAD_PACKET.
 */
int pfkey_xfrm_set_offload(struct pfkey_xfrm *xfrm,
                           uint32_t ifindex,
                           uint8_t flags);

/*
 Sets flags, and clears none: XFRM_STATE_WILDRECV, _ICMP, _AF_UNSPEC, _ALIGN4 of an SA, whose others are in `sadb_sa_flags`
 (`pfkey_xfrm_set_esn` sets _ESN); XFRM_POLICY_LOCALOK, _ICMP, _CPU_ACQUIRE of a policy.
 */
int pfkey_xfrm_set_flags(struct pfkey_xfrm *xfrm,
                         uint8_t flags);

/*
 Sets the direction of an SA's packets: XFRM_SA_DIR_IN (1) or XFRM_SA_DIR_OUT (2). Linux 6.10.
 */
int pfkey_xfrm_set_sa_dir(struct pfkey_xfrm *xfrm, uint8_t dir);

/*
 Sets the care-of address of a mobile node: a sockaddr_in or sockaddr_in6, which is copied.
 */
int pfkey_xfrm_set_coaddr(struct pfkey_xfrm *xfrm, const struct sockaddr *address);

/*
 Sets that IP-TFS does not split packets.
 */
int pfkey_xfrm_set_iptfs_dont_frag(struct pfkey_xfrm *xfrm);

/*
 Sets the XFRM interface that it belongs to; 0 = none.
 */
int pfkey_xfrm_set_if_id(struct pfkey_xfrm *xfrm, uint32_t if_id);

/*
 Sets `XFRM_SA_XFLAG_*`.
 */
int pfkey_xfrm_set_extra_flags(struct pfkey_xfrm *xfrm, uint32_t flags);

/*
 Sets the bytes to which packets are padded (traffic flow confidentiality).
 */
int pfkey_xfrm_set_tfcpad(struct pfkey_xfrm *xfrm, uint32_t bytes);

/*
 Sets the processor that an SA is for, from 0. Linux 6.13.
 */
int pfkey_xfrm_set_pcpu(struct pfkey_xfrm *xfrm, uint32_t cpu);

/*
 Sets the seconds between two NAT keepalives, which the kernel then sends; 0 = none. Linux 6.11.
 */
int pfkey_xfrm_set_nat_keepalive(struct pfkey_xfrm *xfrm, uint32_t seconds);

/*
 Sets the seconds at least between two reports that a NAT-T peer has another address or port. Linux 5.16.
 */
int pfkey_xfrm_set_mtimer_thresh(struct pfkey_xfrm *xfrm, uint32_t seconds);

/*
 Sets the microseconds that IP-TFS waits for a missing packet. Linux 6.14, as all of IP-TFS.
 */
int pfkey_xfrm_set_iptfs_drop_time(struct pfkey_xfrm *xfrm, uint32_t microseconds);

/*
 Sets the microseconds that IP-TFS gathers packets before it sends them.
 */
int pfkey_xfrm_set_iptfs_init_delay(struct pfkey_xfrm *xfrm, uint32_t microseconds);

/*
 Sets the bytes that can wait in an IP-TFS queue.
 */
int pfkey_xfrm_set_iptfs_max_qsize(struct pfkey_xfrm *xfrm, uint32_t bytes);

/*
 Sets the bytes of an outer packet of IP-TFS; 0 = what the path takes.
 */
int pfkey_xfrm_set_iptfs_pkt_size(struct pfkey_xfrm *xfrm, uint32_t bytes);

/*
 Sets the packets that IP-TFS can put into order.
 */
int pfkey_xfrm_set_iptfs_reorder_window(struct pfkey_xfrm *xfrm, uint16_t packets);

/*
 Reads an attribute: copies its payload to `payload`, `len` bytes of it at most, in host byte order.

 Returns the payload's length, which is more than `len` if not all was copied, and 0 for an attribute that has none; -1 with
 code 26 if the attribute is not there.
 */
int pfkey_xfrm_get(const struct pfkey_xfrm *xfrm,
                   int number,
                   void *payload,
                   size_t len);

/*
 The least number of an attribute that is greater than `number`: from -1 on, one after the other.

 Returns -1 if there is none.
 */
int pfkey_xfrm_next(const struct pfkey_xfrm *xfrm, int number);

/*
 Reads what a message says beyond PF_KEY. A session that asked (`pfkey_show_xfrm`) receives it in messages about SAs and
 policies.

 Returns 1 if the message says something; 0 if not, and `xfrm` is empty; -1 with a code otherwise. A message with an errno is -1
 and code 26, whose text is the errno's, and behind it, in a session that asked, what the kernel says of it.
 */
int pfkey_xfrm_of(const struct sadb_msg *msg,
                  struct pfkey_xfrm *xfrm);

#ifdef __cplusplus
}  /* extern "C" */
#endif  /* __cplusplus */

#endif  /* PFKEY_RS_H */
