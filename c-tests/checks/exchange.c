/* Requests and answers on one descriptor: what a program left unread, closed or gave away. exchange TEST; exit status 0 = it went well. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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

/* What the library is told instead of being given a message, if not NULL: -1 is returned, and errno. */
static int (*before_recv)(int flags);

/* The library's, too. */
ssize_t recv(int fd, void *buffer, size_t len, int flags)
{
	if (before_recv && before_recv(flags) < 0)
		return -1;
	return recvfrom(fd, buffer, len, flags, NULL, NULL);
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/* The library's, too: blocks that are freed with the key in them; a block that becomes smaller moves, as those of other C
 * libraries do. */
extern void *__libc_malloc(size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static int looks, with_key;

static void look(void *block, size_t len)
{
	if (looks && block && memmem(block, len, SECRET, 12))
		with_key++;
}

void free(void *block)
{
	if (block)
		look(block, malloc_usable_size(block));
	__libc_free(block);
}

void *realloc(void *old, size_t len)
{
	void *block;

	if (!looks || !old || len > malloc_usable_size(old))
		return __libc_realloc(old, len);
	block = __libc_malloc(len);
	if (!block)
		return NULL;
	memcpy(block, old, len);
	free(old);
	return block;
}
#endif

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

static int count(const struct pfkey_sa_view *sa, void *arg)
{
	(void)sa;
	++*(int *)arg;
	return 0;
}

static int listed(void)
{
	int seen = 0;

	CHECK(pfkey_dump_foreach(so, SADB_SATYPE_UNSPEC, count, &seen) == 0);
	return seen;
}

/* More SAs than a descriptor's buffers hold. */
static void add_many(int n)
{
	CHECK(pfkey_batch_begin(so) == 0);
	for (int i = 0; i < n; i++)
		CHECK(add(0x10000 + i) > 0);
	CHECK(pfkey_batch_end(NULL, NULL) == 0);
}

/* A list is whole, whatever was left unread: answers, a dump, one that is not at its end yet, one of which a part was read. */
static void stale_dump(void)
{
	CHECK(add(0x1000) > 0);
	CHECK(listed() == 1);
	CHECK(pfkey_send_dump(so, SADB_SATYPE_UNSPEC) > 0);
	CHECK(add(0x1001) > 0 && add(0x1002) > 0);
	CHECK(listed() == 3);
	add_many(20000);
	CHECK(pfkey_send_dump(so, SADB_SATYPE_UNSPEC) > 0);
	CHECK(listed() == 20003);
	CHECK(pfkey_send_dump(so, SADB_SATYPE_UNSPEC) > 0);
	for (int i = 0; i < 1000; i++) {
		struct sadb_msg *message = pfkey_recv(so);

		CHECK(message != NULL);
		free(message);
	}
	CHECK(listed() == 20003);
	CHECK(waiting() == 0);
}

/* No message is there yet, now and then. */
static int not_yet(int flags)
{
	static int calls;

	if (flags & MSG_PEEK || ++calls % 100 != 0)
		return 0;
	errno = EAGAIN;
	return -1;
}

static void non_blocking(void)
{
	add_many(20000);
	CHECK(fcntl(so, F_SETFL, O_NONBLOCK) == 0);
	before_recv = not_yet;
	for (int i = 0; i < 4; i++)
		CHECK(listed() == 20000);
	before_recv = NULL;
	CHECK(waiting() == 0);
}

/* Where requests go that were kept for a descriptor whose number another has by now. */
static void ends_nowhere(int closes_it)
{
	int pair[2], was = so;
	char bytes[4096];

	CHECK(pfkey_batch_begin(so) == 0);
	CHECK(add(0x1000) > 0);
	if (closes_it)
		CHECK(close(so) == 0);
	else
		pfkey_close(so);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0 && pair[0] == was);
	CHECK(pfkey_batch_end(NULL, NULL) == -1);
	if (closes_it)
		CHECK(errno == EBADF && __ipsec_errcode == 26);
	else
		CHECK(__ipsec_errcode == 2);
	CHECK(recv(pair[1], bytes, sizeof bytes, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	CHECK(close(pair[0]) == 0 && close(pair[1]) == 0);
	so = pfkey_open();
	CHECK(so >= 0);
	/* And a new batch can be begun. */
	CHECK(pfkey_batch_begin(so) == 0 && pfkey_batch_end(NULL, NULL) == 0);
}

static void closed_batch(void)
{
	ends_nowhere(0);
	ends_nowhere(1);
	/* Of another descriptor it is kept. */
	CHECK(pfkey_batch_begin(so) == 0 && add(0x1000) > 0);
	pfkey_close(dup(so));
	CHECK(pfkey_batch_end(NULL, NULL) == 0 && listed() == 1);
}

/* It ends, or says something, when the library has found that nothing waits. */
static int other_end;

static int it_ends(int flags)
{
	if (flags & MSG_PEEK)
		shutdown(so, SHUT_RD);
	return 0;
}

static int it_speaks(int flags)
{
	if (flags & MSG_PEEK)
		CHECK(send(other_end, "too short", 9, 0) == 9);
	return 0;
}

/* A program that tries again for EAGAIN and EINTR does not go on for ever. */
static void ended(void)
{
	int pair[2];

	before_recv = it_ends;
	errno = 0;
	CHECK(pfkey_recv(so) == NULL);
	CHECK(errno == EPIPE && __ipsec_errcode == 26);
	before_recv = NULL;
	errno = EAGAIN;
	CHECK(pfkey_recv(so) == NULL);
	CHECK(errno == EPIPE && __ipsec_errcode == 26);
	errno = EAGAIN;
	CHECK(pfkey_recv_register(so) == -1);
	CHECK(errno == EPIPE && __ipsec_errcode == 26);
	pfkey_close(so);
	so = pfkey_open();
	before_recv = it_ends;
	errno = 0;
	CHECK(pfkey_recv_register(so) == -1);
	CHECK(errno == EPIPE && __ipsec_errcode == 26);
	/* Of what has no errno, errno says nothing. */
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	other_end = pair[1];
	before_recv = it_speaks;
	errno = 0;
	CHECK(pfkey_recv(pair[0]) == NULL);
	CHECK(errno == 0 && __ipsec_errcode == 30);
}

/* pfkey_send as `send`, and in a batch as the others. */
static void raw_messages(void)
{
	struct sadb_msg flush = { .sadb_msg_version = PF_KEY_V2, .sadb_msg_type = SADB_FLUSH, .sadb_msg_len = 2,
		.sadb_msg_seq = 9, .sadb_msg_pid = (unsigned)getpid() }, other = flush;
	uint64_t stray[3] = { 0, 0, 1 };

	CHECK(pfkey_send(so, NULL, 16) == -1 && errno == EFAULT && __ipsec_errcode == 26);
	CHECK(pfkey_send(so, &flush, -1) == -1 && errno == EMSGSIZE && __ipsec_errcode == 26);
	CHECK(pfkey_send(-1, NULL, 16) == -1 && errno == EBADF && __ipsec_errcode == 26);
	CHECK(pfkey_send(999, &flush, -1) == -1 && errno == EBADF && __ipsec_errcode == 26);
	CHECK(pfkey_batch_begin(so) == 0);
	CHECK(add(0x1000) > 0);
	/* What is behind it is no part of it. */
	memcpy(stray, &flush, sizeof flush);
	CHECK(pfkey_send(so, (struct sadb_msg *)stray, 20) == 20);
	CHECK(add(0x1000) > 0);
	CHECK(waiting() == 0);
	/* No message: refused now, and the batch goes on. */
	other.sadb_msg_len = 3;
	CHECK(pfkey_send(so, &other, sizeof other) == -1 && errno == EMSGSIZE);
	CHECK(pfkey_batch_end(NULL, NULL) == 0);
	CHECK(listed() == 1);
}

/* What the library gives back of memory holds no key that it received. */
static void received_keys(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
	struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
	struct sadb_msg *message;

	src.sin_addr.s_addr = htonl(0x0a000001);
	dst.sin_addr.s_addr = htonl(0x0a000002);
	CHECK(add(0x1000) > 0 && waiting() == 1);
	CHECK(pfkey_send_get(so, SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, (struct sockaddr *)&src, (struct sockaddr *)&dst,
		htonl(0x1000)) > 0);
	looks = 1;
	message = pfkey_recv(so);
	CHECK(message != NULL && with_key == 0);
	CHECK(memmem(message, message->sadb_msg_len * 8u, SECRET, 12) != NULL);
	CHECK(malloc_usable_size(message) < 1024);
	free(message);
	CHECK(with_key == 1);
#endif
}

static const struct test {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "stale-batch", stale_batch },
	{ "stale-dump", stale_dump },
	{ "non-blocking", non_blocking },
	{ "closed-batch", closed_batch },
	{ "ended", ended },
	{ "raw", raw_messages },
	{ "received-keys", received_keys },
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
