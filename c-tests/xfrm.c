/* What XFRM has beyond PF_KEY, from C: gathered, sent, shown and read again, byte for byte as linux/xfrm.h has it. */
#include "common.h"

#include <pfkey_rs.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Attributes that older headers do not have. */
#define MTIMER_THRESH 32
#define SA_DIR 33
#define NAT_KEEPALIVE 34
#define SA_PCPU 35
#define IPTFS_DROP_TIME 36
#define IPTFS_REORDER_WINDOW 37
#define IPTFS_DONT_FRAG 38
#define IPTFS_INIT_DELAY 39
#define IPTFS_MAX_QSIZE 40
#define IPTFS_PKT_SIZE 41

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			die("line %d: %s (%s)", __LINE__, #condition, ipsec_strerror()); \
	} while (0)

static struct sockaddr_in src = { .sin_family = AF_INET }, dst = { .sin_family = AF_INET };
static struct sockaddr *const from = (struct sockaddr *)&src, *const to = (struct sockaddr *)&dst;
static unsigned char keys[32 + 16];

/* An attribute is there, and has these bytes. */
static void has(const struct pfkey_xfrm *x, int number, const void *bytes, size_t len)
{
	unsigned char payload[1024];

	if (pfkey_xfrm_get(x, number, payload, sizeof payload) != (int)len || memcmp(payload, bytes, len) != 0)
		die("attribute %d has other bytes (%s)", number, ipsec_strerror());
}

static void has_u32(const struct pfkey_xfrm *x, int number, uint32_t value)
{
	has(x, number, &value, sizeof value);
}

static struct pfkey_send_sa_args esp(int so, uint32_t spi)
{
	struct pfkey_send_sa_args args = { .so = so, .satype = SADB_SATYPE_ESP, .mode = IPSEC_MODE_TRANSPORT,
		.src = from, .dst = to, .spi = htonl(spi), .keymat = (char *)keys, .e_type = SADB_X_EALG_AESCBC,
		.e_keylen = 16, .a_type = SADB_X_AALG_SHA2_256HMAC, .a_keylen = 32, .seq = spi };

	return args;
}

/* All attributes that an SA can have, in an order of their own. */
static void gather(void)
{
	struct pfkey_xfrm x = PFKEY_XFRM_INIT;
	struct sockaddr_in6 coaddr = { .sin6_family = AF_INET6 };
	struct xfrm_mark mark = { 0x10, 0xff };
	/* Static: its padding is compared, too. */
	static struct xfrm_user_offload offload = { 7, XFRM_OFFLOAD_INBOUND };
	struct xfrm_replay_state_esn esn = { .bmp_len = 128, .replay_window = 4096 };
	unsigned char window[sizeof esn + 128 * 4] = { 0 };
	struct xfrm_algo_auth icv = { .alg_trunc_len = 128 };
	int numbers = 0;

	CHECK(pfkey_xfrm_next(&x, -1) == -1);
	inet_pton(AF_INET6, "2001:db8::7", &coaddr.sin6_addr);
	CHECK(pfkey_xfrm_set_if_id(&x, 1) == 0 && pfkey_xfrm_set_if_id(&x, 42) == 0);
	CHECK(pfkey_xfrm_set_mark(&x, 0x10, 0xff) == 0);
	CHECK(pfkey_xfrm_set_set_mark(&x, 0x20, 0xf0) == 0);
	CHECK(pfkey_xfrm_set_esn(&x, 4096) == 0);
	CHECK(pfkey_xfrm_set_icv(&x, 128) == 0);
	CHECK(pfkey_xfrm_set_offload(&x, 7, XFRM_OFFLOAD_INBOUND) == 0);
	CHECK(pfkey_xfrm_set_extra_flags(&x, XFRM_SA_XFLAG_DONT_ENCAP_DSCP) == 0);
	CHECK(pfkey_xfrm_set_flags(&x, XFRM_STATE_ICMP) == 0);
	CHECK(pfkey_xfrm_set_tfcpad(&x, 1400) == 0);
	CHECK(pfkey_xfrm_set_sa_dir(&x, 1) == 0);
	CHECK(pfkey_xfrm_set_pcpu(&x, 3) == 0);
	CHECK(pfkey_xfrm_set_nat_keepalive(&x, 20) == 0);
	CHECK(pfkey_xfrm_set_mtimer_thresh(&x, 9) == 0);
	CHECK(pfkey_xfrm_set_coaddr(&x, (struct sockaddr *)&coaddr) == 0);
	CHECK(pfkey_xfrm_set_iptfs_drop_time(&x, 1) == 0 && pfkey_xfrm_set_iptfs_reorder_window(&x, 2) == 0);
	CHECK(pfkey_xfrm_set_iptfs_dont_frag(&x) == 0 && pfkey_xfrm_set_iptfs_init_delay(&x, 3) == 0);
	CHECK(pfkey_xfrm_set_iptfs_max_qsize(&x, 4) == 0 && pfkey_xfrm_set_iptfs_pkt_size(&x, 5) == 0);
	CHECK(pfkey_xfrm_set(&x, PFKEY_XFRMA_DEV, &(uint32_t){ 7 }, 4) == 0);
	CHECK(pfkey_xfrm_set(&x, PFKEY_XFRMA_MODE, "\5", 1) == 0);
	CHECK(pfkey_xfrm_set(&x, 999, "abc", 3) == 0);

	CHECK(x.flags == (XFRM_STATE_ICMP | XFRM_STATE_ESN) && x.options == 0);
	has_u32(&x, XFRMA_IF_ID, 42);
	has(&x, XFRMA_MARK, &mark, sizeof mark);
	has_u32(&x, XFRMA_SET_MARK, 0x20);
	has_u32(&x, XFRMA_SET_MARK_MASK, 0xf0);
	memcpy(window, &esn, sizeof esn);
	has(&x, XFRMA_REPLAY_ESN_VAL, window, sizeof window);
	has(&x, XFRMA_ALG_AUTH_TRUNC, &icv, sizeof icv);
	has(&x, XFRMA_OFFLOAD_DEV, &offload, sizeof offload);
	has_u32(&x, XFRMA_SA_EXTRA_FLAGS, XFRM_SA_XFLAG_DONT_ENCAP_DSCP);
	has_u32(&x, XFRMA_TFCPAD, 1400);
	has(&x, SA_DIR, "\1", 1);
	has_u32(&x, SA_PCPU, 3);
	has_u32(&x, NAT_KEEPALIVE, 20);
	has_u32(&x, MTIMER_THRESH, 9);
	has(&x, XFRMA_COADDR, &coaddr.sin6_addr, 16);
	has_u32(&x, IPTFS_DROP_TIME, 1);
	has(&x, IPTFS_REORDER_WINDOW, &(uint16_t){ 2 }, 2);
	has(&x, IPTFS_DONT_FRAG, "", 0);
	has_u32(&x, IPTFS_INIT_DELAY, 3);
	has_u32(&x, IPTFS_MAX_QSIZE, 4);
	has_u32(&x, IPTFS_PKT_SIZE, 5);
	has_u32(&x, PFKEY_XFRMA_DEV, 7);
	has(&x, PFKEY_XFRMA_MODE, "\5", 1);
	has(&x, 999, "abc", 3);
	for (int number = -1; (number = pfkey_xfrm_next(&x, number)) >= 0;)
		numbers++;
	CHECK(numbers == 23);

	/* As a netlink message has the first of them. */
	struct pfkey_xfrm one = PFKEY_XFRM_INIT;
	struct {
		uint16_t len, type;
		uint32_t value;
	} attribute = { 8, XFRMA_IF_ID, 42 };
	CHECK(pfkey_xfrm_set_if_id(&one, 42) == 0);
	CHECK(one.len == sizeof attribute && memcmp(one.attributes, &attribute, sizeof attribute) == 0);
}

/* What cannot be is named, and changes nothing. */
static void refuse(void)
{
	static const char many[4096];
	struct pfkey_xfrm x = PFKEY_XFRM_INIT;

	CHECK(pfkey_xfrm_set_replay_window(&x, 4097) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set(&x, XFRMA_IF_ID, "abc", 3) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set(&x, XFRMA_LASTUSED, many, 8) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set(&x, XFRMA_ALG_CRYPT, many, 80) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set(&x, 999, many, sizeof many) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set_coaddr(&x, &(struct sockaddr){ .sa_family = AF_UNIX }) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(x.len == 0 && pfkey_xfrm_get(&x, XFRMA_IF_ID, NULL, 0) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_xfrm_set_if_id(NULL, 1) == -1 && pfkey_xfrm_set(&x, 999, NULL, 1) == -1);
	CHECK(pfkey_xfrm_get(NULL, 1, NULL, 0) == -1 && pfkey_xfrm_of(NULL, &x) == -1);

	/* Of the message: two replay windows; an attribute that names nothing. */
	struct pfkey_send_sa_args args = esp(-1, 0x1000);
	args.wsize = 4;
	CHECK(pfkey_xfrm_set_esn(&x, 64) == 0 && pfkey_send_add2_xfrm(&args, &x) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_send_get_xfrm(-1, SADB_SATYPE_ESP, from, to, htonl(0x1000), &x) == -1);
	printf("%s\n", ipsec_strerror());
}

/* What is sent is libipsec's message, and the extension behind it. */
static void send_bytes(void)
{
	int pair[2];
	unsigned char plain[1024], whole[1024];
	struct pfkey_xfrm x = PFKEY_XFRM_INIT, none = PFKEY_XFRM_INIT;
	struct {
		struct sadb_x_xfrm head;
		uint16_t mark_len, mark_type;
		struct xfrm_mark mark;
		uint16_t id_len, id_type;
		uint32_t id, padding;
	} expected = { { 4, SADB_X_EXT_XFRM, 0, 0, 0 }, 12, XFRMA_MARK, { 1, 0xff }, 8, XFRMA_IF_ID, 42, 0 };

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	CHECK(pfkey_xfrm_set_mark(&x, 1, 0xff) == 0 && pfkey_xfrm_set_if_id(&x, 42) == 0);
	struct pfkey_send_sa_args args = esp(pair[0], 0x1000);
	CHECK(pfkey_send_add2(&args) > 0);
	ssize_t len = recv(pair[1], plain, sizeof plain, 0);
	CHECK(pfkey_send_add2_xfrm(&args, NULL) == len && recv(pair[1], whole, sizeof whole, 0) == len);
	CHECK(memcmp(plain, whole, len) == 0);
	CHECK(pfkey_send_add2_xfrm(&args, &none) == len && recv(pair[1], whole, sizeof whole, 0) == len);
	CHECK(memcmp(plain, whole, len) == 0);
	CHECK(pfkey_send_add2_xfrm(&args, &x) == len + (int)sizeof expected);
	CHECK(recv(pair[1], whole, sizeof whole, 0) == len + (int)sizeof expected);
	((struct sadb_msg *)plain)->sadb_msg_len += sizeof expected / 8;
	CHECK(memcmp(plain, whole, len) == 0 && memcmp(whole + len, &expected, sizeof expected) == 0);
	close(pair[0]);
	close(pair[1]);
}

/* The answer to what was sent: its errno, and what it says if that is asked for; otherwise it says nothing. */
static int answer(int s, struct pfkey_xfrm *x)
{
	struct sadb_msg *message = pfkey_recv(s);
	struct pfkey_xfrm nothing;

	CHECK(message != NULL);
	int said = pfkey_xfrm_of(message, x != NULL ? x : &nothing), errno_of_it = message->sadb_msg_errno;
	if (said != (errno_of_it != 0 ? -1 : x != NULL))
		die("message type %d, errno %d: %d", message->sadb_msg_type, errno_of_it, said);
	free(message);
	return errno_of_it;
}

static void refused(size_t place, int errno_of_it, void *of)
{
	CHECK(place == 1 && errno_of_it > 0 && strstr(ipsec_strerror(), "SA_PCPU") != NULL);
	++*(int *)of;
}

/* Of many requests at once: which was refused, and why. */
static void batch(int s, const struct pfkey_xfrm *wrong)
{
	struct pfkey_send_sa_args good = esp(s, 0x1003), bad = esp(s, 0x1004);
	int of = 0;

	CHECK(pfkey_batch_begin(s) == 0);
	CHECK(pfkey_send_add2(&good) > 0 && pfkey_send_add2_xfrm(&bad, wrong) > 0);
	CHECK(pfkey_batch_end(refused, &of) == 1 && of == 1);
	CHECK(pfkey_send_delete(s, SADB_SATYPE_ESP, 0, from, to, good.spi) > 0 && answer(s, NULL) == 0);
}

static void with_an_engine(void)
{
	struct pfkey_xfrm x = PFKEY_XFRM_INIT, shown = PFKEY_XFRM_INIT, mark = PFKEY_XFRM_INIT;
	int s = pfkey_open();

	CHECK(s >= 0 && pfkey_show_xfrm(s, 1) > 0 && answer(s, NULL) == 0);
	CHECK(pfkey_xfrm_set_esn(&x, 256) == 0 && pfkey_xfrm_set_icv(&x, 128) == 0 && pfkey_xfrm_set_if_id(&x, 42) == 0);
	CHECK(pfkey_xfrm_set_mark(&x, 1, 0xff) == 0 && pfkey_xfrm_set_mark(&mark, 1, 0xff) == 0);
	struct pfkey_send_sa_args args = esp(s, 0x1000);
	CHECK(pfkey_send_add2_xfrm(&args, &x) > 0 && answer(s, &shown) == 0);
	CHECK(shown.flags == XFRM_STATE_ESN);
	for (int number = -1; (number = pfkey_xfrm_next(&x, number)) >= 0;) {
		unsigned char bytes[1024];
		has(&shown, number, bytes, pfkey_xfrm_get(&x, number, bytes, sizeof bytes));
	}
	/* The mark is a part of an SA's name. */
	CHECK(pfkey_send_get(s, SADB_SATYPE_ESP, 0, from, to, args.spi) > 0 && answer(s, NULL) == ESRCH);
	CHECK(pfkey_send_get_xfrm(s, SADB_SATYPE_ESP, from, to, args.spi, &mark) > 0 && answer(s, &shown) == 0);
	has_u32(&shown, XFRMA_IF_ID, 42);
	CHECK(pfkey_send_update2_xfrm(&args, &x) > 0 && answer(s, &shown) == 0);
	CHECK(pfkey_send_delete_xfrm(s, SADB_SATYPE_ESP, from, to, args.spi, &mark) > 0 && answer(s, &shown) == 0);
	CHECK(pfkey_send_getspi_xfrm(s, SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, from, to, 0, 0, 0, 0x2000, 0x2000, 0, 1,
		&mark) > 0 && answer(s, &shown) == 0);
	has(&shown, XFRMA_MARK, &(struct xfrm_mark){ 1, 0xff }, sizeof(struct xfrm_mark));
	/* What no key engine takes: the kernels that know it want a direction with it. */
	CHECK(pfkey_xfrm_set_pcpu(&x, 0) == 0);
	args = esp(s, 0x1001);
	CHECK(pfkey_send_add2_xfrm(&args, &x) > 0 && answer(s, &shown) > 0);
	printf("%s\n", ipsec_strerror());
	batch(s, &x);

	/* Two policies that differ by their interface. */
	ipsec_policy_t policy = ipsec_set_policy("out ipsec esp/transport//require", 32);
	CHECK(policy != NULL);
	for (uint32_t if_id = 1; if_id <= 2; if_id++) {
		struct pfkey_xfrm of = PFKEY_XFRM_INIT;
		CHECK(pfkey_xfrm_set_if_id(&of, if_id) == 0);
		CHECK(pfkey_send_spdadd_xfrm(s, from, 32, to, 32, 255, 0, 0, policy, ipsec_get_policylen(policy), if_id,
			&of) > 0 && answer(s, &shown) == 0);
		has_u32(&shown, XFRMA_IF_ID, if_id);
		CHECK(pfkey_send_spdupdate_xfrm(s, from, 32, to, 32, 255, 0, 0, policy, ipsec_get_policylen(policy), if_id,
			&of) > 0 && answer(s, &shown) == 0);
	}
	CHECK(pfkey_send_spddump(s) > 0);
	struct sadb_msg *message = pfkey_recv(s);
	struct sadb_x_policy *first = find_extension(message, SADB_X_EXT_POLICY);
	CHECK(pfkey_xfrm_of(message, &shown) == 1);
	uint32_t spid = first->sadb_x_policy_id;
	free(message);
	free(pfkey_recv(s));
	CHECK(pfkey_send_spdget_xfrm(s, spid, &shown) > 0 && answer(s, &x) == 0);
	CHECK(pfkey_send_spddelete2_xfrm(s, spid, &shown) > 0 && answer(s, &x) == 0);
	/* A policy that says that it is longer would swallow the attributes. */
	CHECK(pfkey_send_spddelete_xfrm(s, from, 32, to, 32, 255, policy, 16, 0, &shown) == -1);
	free(policy);
	policy = ipsec_set_policy("out none", 8);
	CHECK(policy != NULL);
	for (uint32_t if_id = 1; if_id <= 2; if_id++) {
		struct pfkey_xfrm of = PFKEY_XFRM_INIT;
		uint32_t deleted;
		CHECK(pfkey_xfrm_get(&shown, XFRMA_IF_ID, &deleted, sizeof deleted) == sizeof deleted);
		CHECK(pfkey_xfrm_set_if_id(&of, if_id) == 0);
		CHECK(pfkey_send_spddelete_xfrm(s, from, 32, to, 32, 255, policy, 16, 0, &of) > 0);
		CHECK(answer(s, deleted == if_id ? NULL : &x) == (deleted == if_id ? ENOENT : 0));
	}
	free(policy);

	/* Who does not want it is not shown it. */
	CHECK(pfkey_show_xfrm(s, 0) > 0 && answer(s, NULL) == 0);
	args = esp(s, 0x1002);
	CHECK(pfkey_send_add2_xfrm(&args, &mark) > 0 && answer(s, NULL) == 0);
	pfkey_close(s);
}

/* On a descriptor of AF_KEY's nothing is sent: it would pass over what it does not know. */
static void on_af_key(void)
{
	struct pfkey_xfrm x = PFKEY_XFRM_INIT;
	int s = pfkey_open();

	CHECK(s >= 0 && pfkey_xfrm_set_mark(&x, 1, 0xff) == 0);
	struct pfkey_send_sa_args args = esp(s, 0x1000);
	ipsec_policy_t policy = ipsec_set_policy("out ipsec esp/transport//require", 32);
	CHECK(policy != NULL);
	int len = ipsec_get_policylen(policy);
	CHECK(pfkey_show_xfrm(s, 1) == -1 && pfkey_send_add2_xfrm(&args, &x) == -1);
	printf("%s\n", ipsec_strerror());
	CHECK(pfkey_send_update2_xfrm(&args, &x) == -1);
	CHECK(pfkey_send_getspi_xfrm(s, SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, from, to, 0, 0, 0, 0x2000, 0x2000, 0, 1,
		&x) == -1);
	CHECK(pfkey_send_get_xfrm(s, SADB_SATYPE_ESP, from, to, args.spi, &x) == -1);
	CHECK(pfkey_send_delete_xfrm(s, SADB_SATYPE_ESP, from, to, args.spi, &x) == -1);
	CHECK(pfkey_send_spdadd_xfrm(s, from, 32, to, 32, 255, 0, 0, policy, len, 1, &x) == -1);
	CHECK(pfkey_send_spdupdate_xfrm(s, from, 32, to, 32, 255, 0, 0, policy, len, 1, &x) == -1);
	CHECK(pfkey_send_spddelete_xfrm(s, from, 32, to, 32, 255, policy, len, 0, &x) == -1);
	CHECK(pfkey_send_spdget_xfrm(s, 8, &x) == -1 && pfkey_send_spddelete2_xfrm(s, 8, &x) == -1);
	/* Without attributes they are libipsec's. */
	CHECK(pfkey_send_add2_xfrm(&args, NULL) > 0 && answer(s, NULL) == 0);
	free(policy);
	pfkey_close(s);
}

/* How many policies a program is shown that knows PF_KEY alone. */
static void count_policies(void)
{
	int s = pfkey_open(), policies = 0;

	CHECK(s >= 0 && pfkey_send_spddump(s) > 0);
	for (uint32_t seq = 1; seq != 0; policies++) {
		struct sadb_msg *message = pfkey_recv(s);
		CHECK(message != NULL && message->sadb_msg_errno == 0);
		seq = message->sadb_msg_seq;
		free(message);
	}
	printf("%d policies\n", policies);
	pfkey_close(s);
}

int main(int argc, char **argv)
{
	src.sin_addr.s_addr = inet_addr("192.0.2.1");
	dst.sin_addr.s_addr = inet_addr("192.0.2.2");
	for (size_t i = 0; i < sizeof keys; i++)
		keys[i] = (unsigned char)i;
	if (argc > 1) {
		if (strcmp(argv[1], "on-af-key") == 0)
			on_af_key();
		else
			count_policies();
		return 0;
	}
	gather();
	refuse();
	send_bytes();
	with_an_engine();
	return 0;
}
