/* Requests and answers on one descriptor: what a program left unread, closed or gave away. exchange TEST; exit status 0 = it went well. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libpfkey.h>
#include <pfkey_rs.h>

#define CHECK(what) do { if (!(what)) fail(__LINE__, #what); } while (0)

static const char SECRET[] = "SECRETSECRETSECRET20";

static int so;

static void fail(int line, const char *what)
{
	fprintf(stderr, "line %d: not %s (errno %s, %s)\n", line, what, strerror(errno), ipsec_strerror());
	_exit(1);
}

/* An SA, whose answer waits then. */
static int add(unsigned spi)
{
	struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
	char key[sizeof SECRET];
	struct pfkey_send_sa_args args = { .so = so, .satype = SADB_SATYPE_ESP, .mode = IPSEC_MODE_TRANSPORT,
		.src = (struct sockaddr *)&src, .dst = (struct sockaddr *)&dst, .spi = htonl(spi), .keymat = key,
		.e_type = SADB_EALG_NULL, .a_type = SADB_AALG_SHA1HMAC, .a_keylen = 20 };

	memcpy(key, SECRET, sizeof key);
	src.sin_addr.s_addr = htonl(0x0a000001);
	dst.sin_addr.s_addr = htonl(0x0a000002);
	return pfkey_send_add2(&args);
}

/* How many messages wait; they are gone then. */
static int waiting(void)
{
	static char message[65536];
	int n = 0;

	while (recv(so, message, sizeof message, MSG_DONTWAIT) > 0)
		n++;
	CHECK(errno == EAGAIN);
	return n;
}

struct refusals {
	int count, errno_of_it;
	size_t place;
};

static void refused(size_t place, int errno_of_it, void *arg)
{
	struct refusals *refusals = arg;

	refusals->count++;
	refusals->place = place;
	refusals->errno_of_it = errno_of_it;
}

/* The answer to an ADD that succeeded is not that of another in a batch, which fails. */
static void stale_batch(void)
{
	struct refusals refusals = { 0, 0, 0 };

	CHECK(add(0x1000) > 0);
	CHECK(pfkey_batch_begin(so) == 0);
	CHECK(add(0x1001) > 0 && add(0x1002) > 0 && add(0x1000) > 0);
	CHECK(pfkey_batch_end(refused, &refusals) == 1);
	CHECK(refusals.count == 1 && refusals.place == 2 && refusals.errno_of_it == EEXIST);
	CHECK(waiting() == 0);
}

static const struct test {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "stale-batch", stale_batch },
};

int main(int argc, char **argv)
{
	alarm(300);
	so = pfkey_open();
	CHECK(so >= 0);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		if (argc > 1 && strcmp(argv[1], tests[i].name) == 0) {
			tests[i].run();
			return 0;
		}
	fprintf(stderr, "no such test\n");
	return 2;
}
