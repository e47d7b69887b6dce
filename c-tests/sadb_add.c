/* Adds one SA: AH, HMAC-SHA1, SPI 0x10001, 192.168.0.1 to 192.168.0.2. */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: sadb_add [--pfkey-send | --as-first-written]\n"
	"\n"
	"Adds an AH SA with HMAC-SHA1, SPI 0x10001, from 192.168.0.1 to 192.168.0.2, and prints the answer.\n"
	"\n"
	"  --pfkey-send         let pfkey_send_add2 build the message\n"
	"  --as-first-written   send header and SA one by one, which no kernel takes, and show its error\n"
	"\n"
	"exit status: 0 if the SA was added (with --as-first-written: if it was refused), 1 if not, 2 for bad usage\n";

static unsigned char key[20] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 };

/* The message in one piece. */
static void add_whole(int s)
{
	struct builder b;
	begin_message(&b, SADB_ADD, SADB_SATYPE_AH, 1);
	add_sa(&b, 0x10001, SADB_AALG_SHA1HMAC, 0);
	add_address(&b, SADB_EXT_ADDRESS_SRC, "192.168.0.1", 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, "192.168.0.2", 0, -1);
	add_key(&b, SADB_EXT_KEY_AUTH, key, sizeof key);
	end_message(&b);
	send_message(s, b.bytes, b.len);
}

static void add_by_library(int s)
{
	struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
	struct pfkey_send_sa_args args = { .so = s, .satype = SADB_SATYPE_AH, .mode = IPSEC_MODE_TRANSPORT,
		.src = (struct sockaddr *)&src, .dst = (struct sockaddr *)&dst, .spi = htonl(0x10001),
		.keymat = (char *)key, .a_type = SADB_AALG_SHA1HMAC, .a_keylen = sizeof key, .seq = 1 };

	inet_pton(AF_INET, "192.168.0.1", &src.sin_addr);
	inet_pton(AF_INET, "192.168.0.2", &dst.sin_addr);
	if (pfkey_send_add2(&args) < 0)
		die("pfkey_send_add2: %s", ipsec_strerror());
}

/* Header and SA as two messages: the header promises 32 bytes and is alone. */
static int add_in_pieces(int s)
{
	struct builder b;
	begin_message(&b, SADB_ADD, SADB_SATYPE_AH, 1);
	add_sa(&b, 0x10001, SADB_AALG_SHA1HMAC, 0);
	end_message(&b);
#ifdef RAW_SOCKET
	ssize_t sent = send(s, b.bytes, sizeof(struct sadb_msg), 0);
#else
	ssize_t sent = pfkey_send(s, (struct sadb_msg *)(void *)b.bytes, sizeof(struct sadb_msg));
#endif
	if (sent >= 0) {
		printf("the header alone was taken\n");
		return 1;
	}
	printf("the header alone: %s%s\n", strerror(errno), errno == EMSGSIZE ? " (EMSGSIZE)" : "");
	return errno != EMSGSIZE;
}

int main(int argc, char **argv)
{
	const char *how = argc == 2 ? argv[1] : "";
	int s;

	if (strcmp(how, "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc > 2 || (*how && strcmp(how, "--pfkey-send") && strcmp(how, "--as-first-written"))) {
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	if (strcmp(how, "--as-first-written") == 0)
		return add_in_pieces(s);
	if (*how)
		add_by_library(s);
	else
		add_whole(s);
	for (;;) {
		struct sadb_msg *answer = receive_message(s, 5000);
		if (!answer)
			die("no answer");
		if (answer->sadb_msg_type == SADB_ADD && answer->sadb_msg_pid == (uint32_t)getpid()) {
			print_message(answer);
			return answer->sadb_msg_errno != 0;
		}
	}
}
