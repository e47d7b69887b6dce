/* What the programs of this directory share. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <libpfkey.h>

/* A PF_KEY descriptor: pfkey_open(), or socket(PF_KEY, SOCK_RAW, PF_KEY_V2) when built with -DRAW_SOCKET. Ends the
 * program with status 1 and a message if there is none. */
int open_pfkey(void);

/* Sends a whole message; ends the program if that fails. Waits for the answers if a pfkeyd serves the descriptor. */
void send_message(int s, const void *message, size_t len);

/* Receives a message into a buffer of 64 KiB that the next call overwrites. NULL after `timeout_ms` without one
 * (-1 waits for ever). Ends the program on an error, at end of file, and if the length is not the header's. */
struct sadb_msg *receive_message(int s, int timeout_ms);

/* The extension of a type, or NULL. */
void *find_extension(struct sadb_msg *message, int type);

/* Names; unknown numbers give "[unknown N]" in a buffer that the next call overwrites. */
const char *message_name(int type);
const char *satype_name(int satype);
const char *state_name(int state);
const char *extension_name(int type);

/* SADB_SATYPE_* of unspec, ah, esp, rsvp, ospfv2, ripv2, mip, ipcomp; -1 for another name. */
int satype_by_name(const char *name);

/* Prints a message with every extension by name. */
void print_message(struct sadb_msg *message);

/* Appends to a message under construction; the buffer is large enough for every use here. */
struct builder {
	_Alignas(8) unsigned char bytes[4096];
	size_t len;
};

void begin_message(struct builder *b, int type, int satype, uint32_t seq);
void add_sa(struct builder *b, uint32_t spi, int auth, int encrypt);
void add_address(struct builder *b, int type, const char *ip, int proto, int prefixlen);
void add_key(struct builder *b, int type, const unsigned char *key, size_t len);
void add_spirange(struct builder *b, uint32_t min, uint32_t max);
void add_lifetime(struct builder *b, int type, uint64_t addtime);
void add_bytes(struct builder *b, const void *bytes, size_t len);
/* Fills in the length. */
void end_message(struct builder *b);

/* Prints "PROGRAM: text" on stderr and ends the program with status 1 (die) or 2 (usage). */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
