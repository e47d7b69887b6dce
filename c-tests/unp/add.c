/* Adds an SA of AH, as the program of section 19.4 does: SPI 0x9876, no replay window, no limits. */
#include "unp.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char usage[] = "usage: add [-b] src dst none|HMAC-MD5-96|HMAC-SHA-1-96 keybits hexkey\n";

static __attribute__((noreturn)) void refuse(const char *what, const char *word)
{
	fprintf(stderr, "%s: %s\n", what, word);
	exit(2);
}

/* A host's first address, as text. */
static int resolve(const char *host, char *text, size_t size)
{
	struct addrinfo *ai;
	int family, error = getaddrinfo(host, NULL, NULL, &ai);

	if (error)
		refuse(host, gai_strerror(error));
	family = ai->ai_family;
	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, text, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
		refuse(host, "no numeric address");
	freeaddrinfo(ai);
	return family;
}

static unsigned char digit(char c)
{
	const char *digits = "0123456789abcdef", *at = strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);

	if (!c || !at)
		refuse("key", "contains invalid hex digit");
	return (unsigned char)(at - digits);
}

/* The key of so many bits from hexadecimal digits, 0x before them or not; gives its length in bytes. */
static size_t parse_key(const char *bits_text, const char *text, unsigned char *key, size_t room)
{
	char *end;
	unsigned long bits = strtoul(bits_text, &end, 0);
	size_t len = bits / 8, digits;

	if (*bits_text == '\0' || *end || bits % 8 || len > room)
		refuse("invalid number of bits", bits_text);
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		text += 2;
	digits = strlen(text);
	if (digits < 2 * len)
		refuse("key", "not enough bytes");
	if (digits > 2 * len) {
		fprintf(stderr, "key: too many bytes (expected %zu)\n", len);
		exit(2);
	}
	for (size_t i = 0; i < len; i++)
		key[i] = (unsigned char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
	return len;
}

int main(int argc, char **argv)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	int algorithm, book = argc > 1 && strcmp(argv[1], "-b") == 0, s;
	unsigned char key[512];
	struct sadb_msg *msg;
	struct builder b;
	size_t len;

	argv += book;
	if (argc - book != 6) {
		fputs(usage, stderr);
		return 2;
	}
	if (resolve(argv[1], src, sizeof src) != resolve(argv[2], dst, sizeof dst))
		refuse("addresses of two families", argv[2]);
	if ((algorithm = getsaalgbyname(SADB_SATYPE_AH, argv[3])) == -1)
		refuse("unknown authentication algorithm", argv[3]);
	len = parse_key(argv[4], argv[5], key, sizeof key);
	s = open_pfkey();
	begin_message(&b, SADB_ADD, SADB_SATYPE_AH, 0);
	add_sa(&b, 0x9876, algorithm, 0);
	add_address(&b, SADB_EXT_ADDRESS_SRC, src, 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, dst, 0, -1);
	add_key(&b, SADB_EXT_KEY_AUTH, key, len);
	end_message(&b);
	printf("Sending add message:\n");
	print_sadb_msg((struct sadb_msg *)(void *)b.bytes, book);
	send_message(s, b.bytes, b.len);
	explicit_bzero(key, sizeof key);
	explicit_bzero(b.bytes, sizeof b.bytes);
	printf("\nReply returned:\n");
	while ((msg = next_message(s))->sadb_msg_type != SADB_ADD || msg->sadb_msg_pid != (uint32_t)getpid())
		;
	print_sadb_msg(msg, book);
	return msg->sadb_msg_errno != 0;
}
