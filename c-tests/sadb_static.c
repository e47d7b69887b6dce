/* An SA by hand: added, read, and deleted, through libipsec's calls. */
#include "common.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: sadb_static\n"
	"\n"
	"Adds an ESP SA with AES-CBC and HMAC-SHA1, reads it, deletes it, and looks for it again.\n"
	"\n"
	"exit status: 0 if all of that happened, 1 if not, 2 for bad usage\n";

/* The next message of a type that answers us. */
static void answer(int s, int type)
{
	for (;;) {
		struct sadb_msg *message = pfkey_recv(s);
		if (!message)
			die("pfkey_recv: %s", ipsec_strerror());
		if (message->sadb_msg_type == type && message->sadb_msg_pid == (uint32_t)getpid()) {
			print_message(message);
			free(message);
			return;
		}
		free(message);
	}
}

static void sent(const char *what, int result)
{
	if (result < 0)
		die("%s: %s", what, ipsec_strerror());
}

int main(int argc, char **argv)
{
	static unsigned char keys[36];
	struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
	struct sockaddr *from = (struct sockaddr *)&src, *to = (struct sockaddr *)&dst;
	struct pfkey_send_sa_args args = { .satype = SADB_SATYPE_ESP, .mode = IPSEC_MODE_TUNNEL, .src = from, .dst = to,
		.spi = htonl(0x2000), .reqid = 7, .wsize = 4, .keymat = (char *)keys, .e_type = SADB_X_EALG_AESCBC,
		.e_keylen = 16, .a_type = SADB_AALG_SHA1HMAC, .a_keylen = 20, .l_addtime = 3600 };
	int s;

	if (argc != 1) {
		int help = argc == 2 && strcmp(argv[1], "--help") == 0;
		fputs(usage, help ? stdout : stderr);
		return help ? 0 : 2;
	}
	for (size_t i = 0; i < sizeof keys; i++)
		keys[i] = (unsigned char)i;
	inet_pton(AF_INET, "192.0.2.1", &src.sin_addr);
	inet_pton(AF_INET, "198.51.100.2", &dst.sin_addr);
	s = open_pfkey();
	args.so = s;
	sent("add", pfkey_send_add2(&args));
	answer(s, SADB_ADD);
	sent("get", pfkey_send_get(s, SADB_SATYPE_ESP, 0, from, to, args.spi));
	answer(s, SADB_GET);
	sent("delete", pfkey_send_delete(s, SADB_SATYPE_ESP, 0, from, to, args.spi));
	answer(s, SADB_DELETE);
	sent("get", pfkey_send_get(s, SADB_SATYPE_ESP, 0, from, to, args.spi));
	answer(s, SADB_GET);
	pfkey_close(s);
	return 0;
}
