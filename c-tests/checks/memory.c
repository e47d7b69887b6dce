/* Every function with memory that is missing: the n-th block that it asks for is refused, for each n, once alone and once with
 * all that follow; in a process that has just begun, and in one where every function was called before. It has to fail
 * with EIPSEC_NO_BUFS, or to succeed, if the block was one that the C library can do without. Nothing may be left
 * behind, and the next call works. memory [open]; exit status 0 = so it was. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pfkey_rs.h>

#define NO_BUFS 21

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

/* How many blocks there are; how many were asked for while it counts; which is refused, and whether those after it are. */
static long live, asked, refused;
static int counts, all_after;

static int refuse(void)
{
	if (!counts)
		return 0;
	asked++;
	if (asked != refused && !(all_after && asked > refused))
		return 0;
	errno = ENOMEM;
	return 1;
}

static void *counted(void *block)
{
	live += block != NULL;
	return block;
}

void *malloc(size_t size)
{
	return refuse() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
	return refuse() ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *old, size_t size)
{
	void *block = refuse() ? NULL : __libc_realloc(old, size);

	return old ? block : counted(block);
}

void *memalign(size_t alignment, size_t size)
{
	return refuse() ? NULL : counted(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
	void *found = memalign(alignment, size);

	if (!found)
		return ENOMEM;
	*block = found;
	return 0;
}

void free(void *block)
{
	live -= block != NULL;
	__libc_free(block);
}

/* --- the calls; each gives whether it succeeded, and leaves nothing that it was given --- */

/* A pair that nobody reads, and a descriptor with an engine. */
static int pair[2], engine;
static struct sockaddr_in src, dst;
static char policy[64], keys[12000];
/* A REGISTER answer, an SA and a policy as a kernel shows them. */
static union message { struct sadb_msg head; unsigned char bytes[40000]; } answer, sa, spd, large;

static void put(union message *m, const void *bytes, size_t len)
{
	size_t at = m->head.sadb_msg_len * 8u;

	memset(m->bytes + at, 0, (len + 7) & ~7u);
	memcpy(m->bytes + at, bytes, len);
	m->head.sadb_msg_len += (len + 7) / 8;
}

static void begin(union message *m, int type, int satype)
{
	memset(m, 0, sizeof *m);
	m->head.sadb_msg_version = PF_KEY_V2;
	m->head.sadb_msg_type = type;
	m->head.sadb_msg_satype = satype;
	m->head.sadb_msg_len = 2;
}

static void put_address(union message *m, int type, const struct sockaddr_in *address)
{
	struct { struct sadb_address head; struct sockaddr_in address; } whole = {
		{ 3, type, IPPROTO_TCP, 32, 0 }, *address };

	put(m, &whole, sizeof whole);
}

static void put_lifetime(union message *m, int type)
{
	struct sadb_lifetime lifetime = { 4, type, 1, 2, 1700000000, 1700000001 };

	put(m, &lifetime, sizeof lifetime);
}

static void make_messages(void)
{
	struct { struct sadb_supported head; struct sadb_alg algs[2]; } list = {
		{ 3, SADB_EXT_SUPPORTED_AUTH, 0 }, { { 2, 0, 128, 128, 0 }, { 3, 0, 160, 160, 0 } } };
	struct sadb_sa of_sa = { 2, SADB_EXT_SA, htonl(0x1000), 4, SADB_SASTATE_MATURE, 3, 12, 0 };
	struct { struct sadb_key head; unsigned char key[24]; } key = { { 4, SADB_EXT_KEY_AUTH, 160, 0 }, { 7 } };
	struct sadb_x_sa2 sa2 = { .sadb_x_sa2_len = 2, .sadb_x_sa2_exttype = SADB_X_EXT_SA2, .sadb_x_sa2_mode = 1 };
	struct sadb_x_policy of_policy = { .sadb_x_policy_len = 2, .sadb_x_policy_exttype = SADB_X_EXT_POLICY,
		.sadb_x_policy_type = IPSEC_POLICY_NONE, .sadb_x_policy_dir = IPSEC_DIR_OUTBOUND };

	begin(&answer, SADB_REGISTER, SADB_SATYPE_ESP);
	put(&answer, &list, sizeof list);
	list.head.sadb_supported_exttype = SADB_EXT_SUPPORTED_ENCRYPT;
	put(&answer, &list, sizeof list);
	begin(&sa, SADB_DUMP, SADB_SATYPE_ESP);
	put(&sa, &of_sa, sizeof of_sa);
	put_address(&sa, SADB_EXT_ADDRESS_SRC, &src);
	put_address(&sa, SADB_EXT_ADDRESS_DST, &dst);
	put_lifetime(&sa, SADB_EXT_LIFETIME_CURRENT);
	put_lifetime(&sa, SADB_EXT_LIFETIME_HARD);
	put(&sa, &key, sizeof key);
	put(&sa, &sa2, sizeof sa2);
	begin(&spd, SADB_X_SPDDUMP, SADB_SATYPE_UNSPEC);
	put_address(&spd, SADB_EXT_ADDRESS_SRC, &src);
	put_address(&spd, SADB_EXT_ADDRESS_DST, &dst);
	put(&spd, &of_policy, sizeof of_policy);
	put_lifetime(&spd, SADB_EXT_LIFETIME_CURRENT);
	begin(&large, SADB_ACQUIRE, SADB_SATYPE_ESP);
	large.head.sadb_msg_len = sizeof large.bytes / 8;
	memset(policy, 0, sizeof policy);
	memcpy(policy, &of_policy, sizeof of_policy);
}

/* What waits on a descriptor is taken away. */
static void drain(int s)
{
	char byte;

	while (recv(s, &byte, 1, MSG_DONTWAIT) >= 0)
		;
}

static void arrives(const union message *m)
{
	drain(pair[0]);
	if (send(pair[1], m->bytes, m->head.sadb_msg_len * 8u, 0) < 0)
		abort();
}

static struct pfkey_send_sa_args args(int so, int key_len)
{
	struct pfkey_send_sa_args args = { .so = so, .satype = SADB_SATYPE_ESP, .mode = IPSEC_MODE_TRANSPORT,
		.src = (void *)&src, .dst = (void *)&dst, .spi = htonl(0x1234), .keymat = keys, .e_type = 12,
		.e_keylen = key_len, .a_type = 3, .a_keylen = 20, .ctxstr = NULL };

	return args;
}

#define A (struct sockaddr *)&src, (struct sockaddr *)&dst
#define P (struct sockaddr *)&src, 32, (struct sockaddr *)&dst, 32, 255
#define SA_ARGS pair[0], SADB_SATYPE_ESP, 1, A, 1, 0, 4, keys, 12, 16, 3, 20, 0, 0, 0, 0, 0, 0

/* Each sends to the pair; what was sent before is taken away first. */
#define SENDS(name, call) static int name##_(void) { drain(pair[1]); return (call) > 0; }
SENDS(pfkey_send, pfkey_send(pair[0], &answer.head, answer.head.sadb_msg_len * 8))
SENDS(pfkey_send_add, pfkey_send_add(SA_ARGS))
SENDS(pfkey_send_update, pfkey_send_update(SA_ARGS))
SENDS(pfkey_send_add_nat, pfkey_send_add_nat(SA_ARGS, 2, 4500, 4500, NULL, 0))
SENDS(pfkey_send_update_nat, pfkey_send_update_nat(SA_ARGS, 2, 4500, 4500, NULL, 0))
SENDS(pfkey_send_delete, pfkey_send_delete(pair[0], SADB_SATYPE_ESP, 1, A, 1))
SENDS(pfkey_send_delete_all, pfkey_send_delete_all(pair[0], SADB_SATYPE_ESP, 1, A))
SENDS(pfkey_send_get, pfkey_send_get(pair[0], SADB_SATYPE_ESP, 1, A, 1))
SENDS(pfkey_send_getspi, pfkey_send_getspi(pair[0], SADB_SATYPE_ESP, 1, A, 256, 300, 0, 0))
SENDS(pfkey_send_getspi_nat, pfkey_send_getspi_nat(pair[0], SADB_SATYPE_ESP, 1, A, 2, 1, 1, 256, 300, 0, 0))
SENDS(pfkey_send_register, pfkey_send_register(pair[0], SADB_SATYPE_ESP))
SENDS(pfkey_send_flush, pfkey_send_flush(pair[0], 0))
SENDS(pfkey_send_dump, pfkey_send_dump(pair[0], 0))
SENDS(pfkey_send_promisc_toggle, pfkey_send_promisc_toggle(pair[0], 1))
SENDS(pfkey_send_spdflush, pfkey_send_spdflush(pair[0]))
SENDS(pfkey_send_spddump, pfkey_send_spddump(pair[0]))
SENDS(pfkey_send_spdadd, pfkey_send_spdadd(pair[0], P, policy, 16, 0))
SENDS(pfkey_send_spdadd2, pfkey_send_spdadd2(pair[0], P, 1, 1, policy, 16, 0))
SENDS(pfkey_send_spdupdate, pfkey_send_spdupdate(pair[0], P, policy, 16, 0))
SENDS(pfkey_send_spdupdate2, pfkey_send_spdupdate2(pair[0], P, 1, 1, policy, 16, 0))
SENDS(pfkey_send_spddelete, pfkey_send_spddelete(pair[0], P, policy, 16, 0))
SENDS(pfkey_send_spdsetidx, pfkey_send_spdsetidx(pair[0], P, policy, 16, 0))
SENDS(pfkey_send_spddelete2, pfkey_send_spddelete2(pair[0], 8))
SENDS(pfkey_send_spdget, pfkey_send_spdget(pair[0], 8))
SENDS(pfkey_send_migrate, pfkey_send_migrate(pair[0], A, P, policy, 16, 0))

static int pfkey_send_add2_(void)
{
	struct pfkey_send_sa_args a = args(pair[0], 16);

	drain(pair[1]);
	return pfkey_send_add2(&a) > 0;
}

/* Too large for the stack's buffer. */
static int pfkey_send_update2_(void)
{
	struct pfkey_send_sa_args a = args(pair[0], 8000);

	drain(pair[1]);
	return pfkey_send_update2(&a) > 8000;
}

static int received(const union message *m)
{
	struct sadb_msg *message;
	int whole;

	arrives(m);
	message = pfkey_recv(pair[0]);
	whole = message && memcmp(message, m->bytes, m->head.sadb_msg_len * 8u) == 0;
	free(message);
	return whole;
}

static int pfkey_recv_(void) { return received(&sa); }
static int pfkey_recv_large(void) { return received(&large); }

static int pfkey_recv_register_(void)
{
	answer.head.sadb_msg_pid = getpid();
	arrives(&answer);
	return pfkey_recv_register(pair[0]) == 0;
}

/* Whoever runs out of memory may try again. */
static int pfkey_recv_again(void)
{
	struct sadb_msg *message;
	int failed;

	arrives(&sa);
	message = pfkey_recv(pair[0]);
	if (message) {
		free(message);
		return 1;
	}
	counts = 0;
	failed = __ipsec_errcode;
	message = pfkey_recv(pair[0]);
	if (!message)
		abort();
	free(message);
	__ipsec_errcode = failed;
	return 0;
}

static int pfkey_set_supported_(void)
{
	union message copy = answer;

	copy.head.sadb_msg_len *= 8;
	return pfkey_set_supported(&copy.head, copy.head.sadb_msg_len) == 0;
}

static int keylen(void)
{
	struct sadb_alg alg;

	return ipsec_check_keylen(SADB_EXT_SUPPORTED_AUTH, 2, 128) == 0 && ipsec_check_keylen2(SADB_SATYPE_AH, 2, 128) == 0
		&& ipsec_get_keylen(SADB_EXT_SUPPORTED_AUTH, 3, &alg) == 0;
}

/* A length that is wrong, which is also printed. */
static int keylen_wrong(void)
{
	return ipsec_check_keylen(SADB_EXT_SUPPORTED_AUTH, 2, 1) == -1 && __ipsec_errcode == 14;
}

static int dumped(const char *text, int with_ports)
{
	char *made = ipsec_set_policy((char *)text, 0), *shown;

	if (!made)
		return 0;
	shown = ipsec_get_policylen(made) > 16
		? with_ports ? ipsec_dump_policy_withports(made, NULL) : ipsec_dump_policy(made, "\n") : NULL;
	free(made);
	free(shown);
	return shown != NULL;
}

static int ipsec_dump_policy_(void)
{
	return dumped("; out prio def + 1 ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique:9 ah/transport//use ipcomp/transport//use"
		" esp/transport//use esp/transport//use esp/transport//use", 0);
}

static int ipsec_dump_policy_withports_(void)
{
	return dumped("out ipsec esp/tunnel/fe80::1%lo[5]-fe80::2%lo[6]/require", 1);
}

/* Wrong, which is also printed. */
static int ipsec_set_policy_wrong(void)
{
	char *none = ipsec_set_policy((char *)"out ; ipsec esp/transport//require wrong", 0);
	int code = __ipsec_errcode;

	if (none)
		abort();
	if (code == NO_BUFS)
		return 0;
	none = ipsec_set_policy((char *)"out ipsec esp/tunnel/10.0.0.1-10.0.0.256/require", 0);
	return !none && (code == 2) && __ipsec_errcode == 26;
}

static int texts(void)
{
	int text;

	pfkey_send_flush(-1, 0);
	text = strcmp(ipsec_strerror(), "Bad file descriptor") == 0;
	pfkey_send_flush(-1, 77);
	return text && strcmp(ipsec_strerror(), "Invalid SA type") == 0;
}

static int printed(void)
{
	pfkey_sadump(&sa.head);
	pfkey_sadump_withports(&sa.head);
	pfkey_spdump(&spd.head);
	pfkey_spdump_withports(&spd.head);
	kdebug_sadb(&sa.head);
	kdebug_sadb(&spd.head);
	ipsec_hexdump(&sa, 100);
	ipsec_bindump((char *)&sa, 100);
	pfkey_spdump(NULL);
	pfkey_spdump_filter_socket_policy(0);
	return pfkey_print_sadb_msg(&sa.head, sa.head.sadb_msg_len * 8u, 0) == 0;
}

static int small(void)
{
	char *mhp[SADB_EXT_MAX + 1];

	return pfkey_align(&sa.head, mhp) == 0 && pfkey_check(mhp) == 0 && pfkey_set_softrate(0, 80) == 0
		&& pfkey_get_softrate(0) == 80 && pfkey_set_buffer_size(pair[0], 1) > 0 && pfkey_spdump_filtered_count() == 0;
}

static int algorithms(void)
{
	return pfkey_set_algorithms("aead, sha256-128") == 0 && pfkey_set_algorithms(NULL) == 0;
}

static int xfrm(void)
{
	return pfkey_set_xfrm("if_id=42 out:set-mark=0x10, esp:in:replay-window=4096 offload=lo/packet") == 0 &&
	       pfkey_set_xfrm("") == 0 && pfkey_set_xfrm(NULL) == 0;
}

static int xfrm_wrong(void)
{
	return pfkey_set_xfrm("if_id=42 of") == -1 && __ipsec_errcode == 26 &&
	       strcmp(ipsec_strerror(), "word 2, \"of\": unknown name") == 0;
}

static int algorithms_wrong(void)
{
	return pfkey_set_algorithms("no") == -1 && __ipsec_errcode == 26
		&& strcmp(ipsec_strerror(), "\"no\": expected aead or sha256-128") == 0;
}

/* An SA twice and more than travel together: all but the first fail. */
static int batch(void)
{
	struct pfkey_send_sa_args a = args(engine, 16);
	int failed, sent = 1;

	drain(engine);
	if (pfkey_batch_begin(engine) != 0)
		return 0;
	for (int i = 0; i < 100 && sent; i++)
		sent = pfkey_send_add2(&a) > 0;
	if (!sent) {
		int code = __ipsec_errcode;

		pfkey_batch_drop();
		__ipsec_errcode = code;
		return 0;
	}
	failed = pfkey_batch_end(NULL, NULL);
	if (failed != -1 && failed != 100 && failed != 99)
		abort();
	return failed != -1;
}

static int one_more(const struct pfkey_sa_view *sa, void *arg)
{
	(void)sa;
	++*(int *)arg;
	return 0;
}

static int pfkey_dump_foreach_(void)
{
	int shown = 0;

	drain(engine);
	return pfkey_dump_foreach(engine, 0, one_more, &shown) == 0 && shown == 1;
}

static int pfkey_open_(void)
{
	int s = pfkey_open();

	if (s < 0)
		return 0;
	pfkey_close(s);
	return 1;
}

#define CALL(name) { #name, name }
static const struct call { const char *name; int (*call)(void); } calls[] = {
	CALL(pfkey_send_), CALL(pfkey_send_add_), CALL(pfkey_send_update_), CALL(pfkey_send_add_nat_),
	CALL(pfkey_send_update_nat_), CALL(pfkey_send_delete_), CALL(pfkey_send_delete_all_), CALL(pfkey_send_get_),
	CALL(pfkey_send_getspi_), CALL(pfkey_send_getspi_nat_), CALL(pfkey_send_register_), CALL(pfkey_send_flush_),
	CALL(pfkey_send_dump_), CALL(pfkey_send_promisc_toggle_), CALL(pfkey_send_spdflush_), CALL(pfkey_send_spddump_),
	CALL(pfkey_send_spdadd_), CALL(pfkey_send_spdadd2_), CALL(pfkey_send_spdupdate_), CALL(pfkey_send_spdupdate2_),
	CALL(pfkey_send_spddelete_), CALL(pfkey_send_spdsetidx_), CALL(pfkey_send_spddelete2_), CALL(pfkey_send_spdget_),
	CALL(pfkey_send_migrate_), CALL(pfkey_send_add2_), CALL(pfkey_send_update2_), CALL(pfkey_recv_),
	CALL(pfkey_recv_large), CALL(pfkey_recv_again), CALL(pfkey_recv_register_), CALL(pfkey_set_supported_),
	CALL(keylen), CALL(keylen_wrong), CALL(ipsec_dump_policy_), CALL(ipsec_dump_policy_withports_),
	CALL(ipsec_set_policy_wrong), CALL(texts), CALL(printed), CALL(small), CALL(algorithms), CALL(algorithms_wrong),
	CALL(xfrm), CALL(xfrm_wrong),
	CALL(batch), CALL(pfkey_dump_foreach_),
}, open_call[] = { CALL(pfkey_open_) };

static void wrong(const struct call *call, long n, const char *what)
{
	counts = 0;
	fprintf(stderr, "%s, block %ld%s: %s (code %d, %s; %ld blocks)\n", call->name, n, all_after ? " and all after" : "", what,
		__ipsec_errcode, ipsec_strerror(), live);
	_exit(1);
}

/* One call without the n-th block; gives whether it asked for so many. */
static int without(const struct call *call, long n, int warm)
{
	long before = live;
	int done, code;

	asked = 0;
	refused = n;
	counts = 1;
	done = call->call();
	counts = 0;
	code = __ipsec_errcode;
	if (!done && asked < n)
		wrong(call, n, "it failed, and nothing was missing");
	if (!done && code != NO_BUFS)
		wrong(call, n, "not the code of missing memory");
	if (warm && live != before)
		wrong(call, n, "blocks are left");
	if (!call->call())
		wrong(call, n, "the call after it fails");
	return asked >= n;
}

static void try(const struct call *call)
{
	int more = 1;

	for (all_after = 0; all_after < 2; all_after++) {
		/* Each n in a process in which nothing was called before. */
		more = 1;
		for (long n = 1; more; n++) {
			int status;
			pid_t child = fork();

			if (child == 0)
				_exit(without(call, n, 0) ? 0 : 3);
			if (child < 0 || waitpid(child, &status, 0) != child || (status != 0 && status != 3 << 8)) {
				fprintf(stderr, "%s, block %ld: status %#x\n", call->name, n, status);
				exit(1);
			}
			more = status == 0;
		}
	}
}

static void try_again(const struct call *call)
{
	for (all_after = 0; all_after < 2; all_after++)
		for (long n = 1; without(call, n, 1); n++)
			;
}

int main(int argc, char **argv)
{
	int opens = argc > 1 && strcmp(argv[1], "open") == 0;
	const struct call *table = opens ? open_call : calls;
	size_t count = opens ? 1 : sizeof calls / sizeof *calls;

	alarm(120);
	src.sin_family = dst.sin_family = AF_INET;
	src.sin_addr.s_addr = htonl(0x0a000001);
	dst.sin_addr.s_addr = htonl(0x0a000002);
	make_messages();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0 || (engine = pfkey_open()) < 0) {
		fprintf(stderr, "%s\n", ipsec_strerror());
		return 1;
	}
	/* What later calls build on. */
	if (!pfkey_set_supported_())
		return 1;
	for (size_t i = 0; i < count; i++)
		try(table + i);
	if (!opens && !batch())
		return 1;
	for (size_t i = 0; i < count; i++)
		if (!table[i].call())
			wrong(table + i, 0, "it fails");
	for (size_t i = 0; i < count; i++)
		try_again(table + i);
	return 0;
}
