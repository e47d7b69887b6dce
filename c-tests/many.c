/* Loads many SAs at once, and lists them: pfkey_batch_begin, pfkey_batch_end, pfkey_dump_foreach. */
#include "common.h"

#include <pfkey_rs.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 1000

static void refused(size_t place, int errno_of_it, void *arg)
{
	(*(int *)arg)++;
	printf("request %zu: %s\n", place, strerror(errno_of_it));
}

struct seen {
	unsigned count, last;
};

static int see(const struct pfkey_sa_view *sa, void *arg)
{
	struct seen *seen = arg;
	const struct sockaddr_in *dst = (const struct sockaddr_in *)sa->dst;

	if (sa->satype != SADB_SATYPE_AH || sa->state != SADB_SASTATE_MATURE || sa->auth != SADB_AALG_SHA1HMAC)
		return -2;
	if (sa->auth_bits != 160 || sa->auth_key[19] != 19 || dst->sin_family != AF_INET || sa->hard.addtime != 3600)
		return -3;
	seen->last = ntohl(sa->spi);
	/* Stops at the one that it looks for. */
	return ++seen->count == 10 ? 7 : 0;
}

static int count(const struct pfkey_sa_view *sa, void *arg)
{
	(void)sa;
	++*(unsigned *)arg;
	return 0;
}

int main(void)
{
	struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
	unsigned char key[20];
	unsigned all = 0;
	struct seen seen = { 0, 0 };
	int failures = 0, s = pfkey_open();

	if (s < 0 || pfkey_batch_begin(s) < 0) {
		fprintf(stderr, "many: %s\n", ipsec_strerror());
		return 1;
	}
	/* One batch a thread. */
	if (pfkey_batch_begin(s) != -1)
		return 1;
	src.sin_addr.s_addr = inet_addr("192.0.2.1");
	for (size_t i = 0; i < sizeof key; i++)
		key[i] = (unsigned char)i;
	for (unsigned n = 0; n < MANY; n++) {
		/* The one in the middle has an SPI that is there already. */
		unsigned spi = n == MANY / 2 ? 0x1000 : 0x1000 + n;
		struct pfkey_send_sa_args args = { .so = s, .satype = SADB_SATYPE_AH, .mode = IPSEC_MODE_TRANSPORT,
			.src = (struct sockaddr *)&src, .dst = (struct sockaddr *)&dst, .spi = htonl(spi), .wsize = 4,
			.keymat = (char *)key, .a_type = SADB_AALG_SHA1HMAC, .a_keylen = sizeof key, .l_addtime = 3600 };

		dst.sin_addr.s_addr = htonl(0x0a000000 + (n == MANY / 2 ? 0 : n));
		if (pfkey_send_add2(&args) < 0) {
			fprintf(stderr, "many: %s\n", ipsec_strerror());
			return 1;
		}
	}
	if (pfkey_batch_end(refused, &failures) != 1 || failures != 1) {
		fprintf(stderr, "many: %s\n", ipsec_strerror());
		return 1;
	}
	if (pfkey_batch_end(NULL, NULL) != -1)
		return 1;
	printf("stopped with %d", pfkey_dump_foreach(s, SADB_SATYPE_AH, see, &seen));
	printf(" after %u, at %#x\n", seen.count, seen.last);
	if (pfkey_dump_foreach(s, SADB_SATYPE_UNSPEC, count, &all) != 0 || pfkey_dump_foreach(s, 4, count, &all) != -1)
		return 1;
	printf("%u SAs\n", all);
	/* What is thrown away is not done. */
	if (pfkey_batch_begin(s) < 0 || pfkey_send_flush(s, SADB_SATYPE_UNSPEC) < 0)
		return 1;
	pfkey_batch_drop();
	all = 0;
	if (pfkey_dump_foreach(s, SADB_SATYPE_UNSPEC, count, &all) != 0)
		return 1;
	printf("%u SAs\n", all);
	pfkey_close(s);
	return 0;
}
