/* A key engine in this very process: a key manager configures it, a data plane asks it. No daemon, no kernel, no clock
 * but our own. Prints what the key manager receives. */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pfkey_rs.h>

static const char usage[] =
	"usage: embedded_engine\n"
	"\n"
	"Makes a key engine in this process, asks it what a packet needs, answers its ACQUIRE with an SA, counts\n"
	"packets until the SA's limits are reached, and prints every message.\n"
	"\n"
	"exit status: 0 if all went as it should, 1 if not, 2 for bad usage\n";

#define SECOND 1000000000ull

static struct pfkey_engine *engine;
static uint64_t now = 1000000000 * SECOND;

static void check(int ok, const char *what)
{
	if (!ok)
		die("%s: %s", what, strerror(errno));
}

/* Prints and gives back the next message of a session. */
static struct sadb_msg *receive(int session)
{
	static _Alignas(8) unsigned char bytes[65536];
	int len = pfkey_engine_recv(engine, session, bytes, sizeof bytes, now);

	check(len >= 0, "pfkey_engine_recv");
	print_message((struct sadb_msg *)(void *)bytes);
	return (struct sadb_msg *)(void *)bytes;
}

static void transmit(int session, struct builder *b)
{
	end_message(b);
	check(pfkey_engine_send(engine, session, b->bytes, b->len, now) == 0, "pfkey_engine_send");
}

static struct sockaddr_in udp(const char *ip, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	check(inet_pton(AF_INET, ip, &address.sin_addr) == 1, ip);
	return address;
}

static int outbound(struct pfkey_engine_sa *sa)
{
	struct sockaddr_in src = udp("10.0.0.1", 1111), dst = udp("10.0.0.2", 2222);

	return pfkey_engine_outbound(engine, (struct sockaddr *)&src, (struct sockaddr *)&dst, IPPROTO_UDP, sa, 1, now);
}

/* What would become of a packet between two hosts; nobody is asked for an SA. */
static int resolve(const char *from, const char *to, struct pfkey_resolution *resolution)
{
	struct sockaddr_in src = udp(from, 1111), dst = udp(to, 2222);

	return pfkey_resolve(engine, (struct sockaddr *)&src, (struct sockaddr *)&dst, IPPROTO_UDP, 1500, resolution);
}

int main(int argc, char **argv)
{
	struct pfkey_resolution resolution;
	static unsigned char key[20] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 };
	struct pfkey_engine_sa sa;
	struct builder b;
	int manager, i;

	(void)argv;
	if (argc != 1) {
		fputs(usage, stderr);
		return 2;
	}
	check(pfkey_engine_new("no such profile") == NULL && errno == EINVAL, "an unknown profile");
	check((engine = pfkey_engine_new(NULL)) != NULL, "pfkey_engine_new");
	check((manager = pfkey_engine_open(engine)) >= 0, "pfkey_engine_open");

	/* A key manager that answers for AH. */
	begin_message(&b, SADB_REGISTER, SADB_SATYPE_AH, 1);
	transmit(manager, &b);
	receive(manager);

	/* Packets between the two hosts want AH. */
	char *policy = ipsec_set_policy("out ipsec ah/transport//require", 31);
	check(policy != NULL, ipsec_strerror());
	begin_message(&b, SADB_X_SPDADD, SADB_SATYPE_UNSPEC, 2);
	add_address(&b, SADB_EXT_ADDRESS_SRC, "10.0.0.1", 255, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, "10.0.0.2", 255, -1);
	add_bytes(&b, policy, (size_t)ipsec_get_policylen(policy));
	free(policy);
	transmit(manager, &b);
	receive(manager);

	/* A look ahead asks nobody. */
	check(resolve("10.0.0.1", "10.0.0.2", &resolution) == -1 && errno == EAGAIN && resolution.policy != 0, "no SA yet");
	check(resolve("10.0.0.1", "10.0.0.3", &resolution) == 0 && resolution.policy == 0, "no policy");
	check(pfkey_engine_pending(engine, manager) == 0, "nobody was asked");

	/* The data plane has a packet; there is no SA yet, so the key manager is asked. */
	check(outbound(&sa) == -1 && errno == EAGAIN, "a packet without an SA");
	uint32_t seq = receive(manager)->sadb_msg_seq;
	check(outbound(&sa) == -1 && errno == EAGAIN && pfkey_engine_pending(engine, manager) == 0, "asked once");

	begin_message(&b, SADB_ADD, SADB_SATYPE_AH, seq);
	add_sa(&b, 0x1000, SADB_AALG_SHA1HMAC, 0);
	struct sadb_lifetime hard = { .sadb_lifetime_len = 4, .sadb_lifetime_exttype = SADB_EXT_LIFETIME_HARD,
		.sadb_lifetime_bytes = 3000, .sadb_lifetime_addtime = 60 };
	struct sadb_lifetime soft = { .sadb_lifetime_len = 4, .sadb_lifetime_exttype = SADB_EXT_LIFETIME_SOFT,
		.sadb_lifetime_bytes = 1000 };
	add_bytes(&b, &hard, sizeof hard);
	add_bytes(&b, &soft, sizeof soft);
	add_address(&b, SADB_EXT_ADDRESS_SRC, "10.0.0.1", 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, "10.0.0.2", 0, -1);
	add_key(&b, SADB_EXT_KEY_AUTH, key, sizeof key);
	transmit(manager, &b);
	receive(manager);

	/* AH with HMAC-SHA1 takes 24 bytes. */
	check(resolve("10.0.0.1", "10.0.0.2", &resolution) == 1 && resolution.sas == 1, "pfkey_resolve");
	check(resolution.sa[0].spi == htonl(0x1000) && resolution.mtu == 1476, "its SA, and the MTU that is left");
	check(resolution.least_overhead == 24 && resolution.most_overhead == 24, "what it adds");

	/* Two packets of 500 bytes pass; at the third the soft limit is reached. */
	for (i = 0; i < 3; i++) {
		check(outbound(&sa) == 1 && sa.spi == htonl(0x1000) && sa.satype == SADB_SATYPE_AH, "a packet with an SA");
		check(pfkey_engine_count(engine, &sa, 1, 500, now) == 0, "pfkey_engine_count");
	}
	receive(manager);

	/* What was decided is counted as Linux counts: twice there was no SA. */
	char counters[2048];
	check(pfkey_engine_statistics(engine, counters, sizeof counters) < (int)sizeof counters, "pfkey_engine_statistics");
	check(strncmp(counters, "XfrmInError             \t0\n", 26) == 0, "the form of /proc/net/xfrm_stat");
	check(strstr(counters, "\nXfrmOutNoStates         \t2\n") != NULL, "packets without an SA are counted");
	check(pfkey_engine_statistics(engine, counters, 9) > 9 && strcmp(counters, "XfrmInEr") == 0, "as much as there is room");

	/* Its time is over. */
	uint64_t deadline = pfkey_engine_next_deadline(engine);
	check(deadline != UINT64_MAX, "a deadline");
	while ((deadline = pfkey_engine_next_deadline(engine)) != UINT64_MAX) {
		now = deadline;
		check(pfkey_engine_advance(engine, now) == 0, "pfkey_engine_advance");
	}
	printf("after %d seconds\n", (int)(now / SECOND - 1000000000));
	receive(manager);
	check(pfkey_engine_count(engine, &sa, 1, 500, now) == -1 && errno == EINVAL, "an SA that is gone");
	check(pfkey_engine_recv(engine, manager, NULL, 0, now) == -1 && errno == EAGAIN, "nothing more");
	check(pfkey_engine_dropped(engine, manager) == 0, "nothing lost");
	check(pfkey_engine_close(engine, manager, now) == 0, "pfkey_engine_close");
	check(pfkey_engine_close(engine, manager, now) == -1 && errno == EBADF, "closed is closed");
	pfkey_engine_free(engine);
	return 0;
}
