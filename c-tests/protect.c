/* Protects the traffic between this host and another with SAs of fixed keys: both ends run it with the same words. */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netinet/udp.h>

#ifndef UDP_ENCAP
#define UDP_ENCAP 100
#endif
#define UDP_ENCAP_ESPINUDP 2

static const char usage[] =
	"usage: protect KIND LOCAL REMOTE [BYTES | exchange]\n"
	"\n"
	"Installs two SAs and two policies between the addresses LOCAL and REMOTE. A demonstration: the keys are fixed.\n"
	"\n"
	"  esp-tunnel   ESP, AES-CBC and HMAC-SHA1, tunnel mode\n"
	"  esp-natt     ESP in UDP on port 4500, transport mode; keeps the port open and does not end\n"
	"  ah           AH, HMAC-SHA2-256, transport mode\n"
	"  aead         ESP, AES-GCM with a 16-byte ICV, transport mode; AF_KEY has none\n"
	"  sha256-128   ESP, AES-CBC and HMAC-SHA2-256 with a 16-byte ICV, transport mode; AF_KEY has 12 bytes\n"
	"  policy       the policies of transport mode ESP only, so that a packet asks for its SA\n"
	"  BYTES        the outbound SA ends after so many bytes; half of them is the soft limit\n"
	"  exchange     SPIs as key managers have them: the kernel chooses the inbound SA's, which is printed, and that SA is\n"
	"               completed; the outbound SA's is the peer's, read from standard input\n"
	"\n"
	"exit status: 0; 1 if something was refused, 2 for bad usage\n";

struct kind {
	const char *name;
	u_int satype, mode, encrypt, encrypt_len, auth, auth_len, natt;
	const char *request;
};

static const struct kind kinds[] = {
	{ "esp-tunnel", SADB_SATYPE_ESP, IPSEC_MODE_TUNNEL, SADB_X_EALG_AESCBC, 16, SADB_AALG_SHA1HMAC, 20, 0,
		"esp/tunnel/%s-%s/require" },
	{ "esp-natt", SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, SADB_X_EALG_AESCBC, 16, SADB_AALG_SHA1HMAC, 20, 4500,
		"esp/transport//require" },
	{ "ah", SADB_SATYPE_AH, IPSEC_MODE_TRANSPORT, 0, 0, SADB_X_AALG_SHA2_256HMAC, 32, 0, "ah/transport//require" },
	/* SADB_X_EALG_AES_GCM_ICV16 */
	{ "aead", SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, 20, 20, 0, 0, 0, "esp/transport//require" },
	{ "sha256-128", SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, SADB_X_EALG_AESCBC, 16, SADB_X_AALG_SHA2_256HMAC, 32, 0,
		"esp/transport//require" },
	{ "policy", SADB_SATYPE_ESP, IPSEC_MODE_TRANSPORT, 0, 0, 0, 0, 0, "esp/transport//require" },
};

static int s;

/* Reads until the answer to our request is there; the SPI that it has, in network byte order. */
static uint32_t answered(const char *what, int type, int sent)
{
	if (sent < 0)
		die("%s: %s", what, ipsec_strerror());
	for (;;) {
		struct sadb_msg *message = pfkey_recv(s);
		int errno_of_it, ours;

		if (!message)
			die("%s: %s", what, ipsec_strerror());
		ours = message->sadb_msg_type == type && message->sadb_msg_pid == (uint32_t)getpid();
		errno_of_it = message->sadb_msg_errno;
		struct sadb_sa *sa = errno_of_it ? NULL : find_extension(message, SADB_EXT_SA);
		uint32_t spi = sa ? sa->sadb_sa_spi : 0;
		free(message);
		if (!ours)
			continue;
		if (errno_of_it)
			die("%s: %s", what, strerror(errno_of_it));
		return spi;
	}
}

static struct sockaddr_in host(const char *ip)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
		die("%s: not an IPv4 address", ip);
	return address;
}

/* `spi` 0: one of its own for each direction. */
static void add_sa_between(const struct kind *kind, const char *from, const char *to, uint64_t bytes, uint32_t spi,
	int completes)
{
	static unsigned char keys[64];
	struct sockaddr_in src = host(from), dst = host(to);
	struct pfkey_send_sa_args args = { .so = s, .satype = (uint8_t)kind->satype, .mode = (uint8_t)kind->mode,
		.src = (struct sockaddr *)&src, .dst = (struct sockaddr *)&dst,
		.spi = spi ? spi : htonl(0x1000 + (ntohl(dst.sin_addr.s_addr) & 0xff)), .wsize = 4, .keymat = (char *)keys,
		.e_type = kind->encrypt, .e_keylen = kind->encrypt_len, .a_type = kind->auth, .a_keylen = kind->auth_len,
		.l_bytes = bytes };

	for (size_t i = 0; i < sizeof keys; i++)
		keys[i] = (unsigned char)i;
	if (kind->natt) {
		args.l_natt_type = UDP_ENCAP_ESPINUDP;
		args.l_natt_sport = args.l_natt_dport = (uint16_t)kind->natt;
	}
	if (completes)
		answered("update", SADB_UPDATE, pfkey_send_update2(&args));
	else
		answered("add", SADB_ADD, pfkey_send_add2(&args));
}

/* As openiked does it: register, GETSPI, tell the peer, UPDATE of the inbound SA, ADD of the outbound one. */
static void exchange(const struct kind *kind, const char *local, const char *remote)
{
	struct sockaddr_in src = host(remote), dst = host(local);
	uint32_t inbound, outbound;

	if (pfkey_send_register(s, kind->satype) < 0 || pfkey_recv_register(s) < 0)
		die("register: %s", ipsec_strerror());
	inbound = answered("getspi", SADB_GETSPI, pfkey_send_getspi(s, kind->satype, kind->mode, (struct sockaddr *)&src,
		(struct sockaddr *)&dst, 0x100, 0xfffffffe, 0, 1));
	printf("%08x\n", ntohl(inbound));
	fflush(stdout);
	if (scanf("%x", &outbound) != 1)
		die("no SPI from the peer");
	add_sa_between(kind, remote, local, 0, inbound, 1);
	add_sa_between(kind, local, remote, 0, htonl(outbound), 0);
}

/* A policy for everything between two hosts, or for a UDP port of both. */
static void add_policy(char *text, const char *from, const char *to, unsigned port)
{
	struct sockaddr_in src = host(from), dst = host(to);
	char *policy = ipsec_set_policy(text, (int)strlen(text));

	if (!policy)
		die("%s: %s", text, ipsec_strerror());
	src.sin_port = dst.sin_port = htons((uint16_t)port);
	answered("spdadd", SADB_X_SPDADD, pfkey_send_spdadd(s, (struct sockaddr *)&src, 32, (struct sockaddr *)&dst, 32,
		port ? IPPROTO_UDP : IPSEC_ULPROTO_ANY, policy, ipsec_get_policylen(policy), 0));
	free(policy);
}

static void protect_direction(const struct kind *kind, const char *direction, const char *from, const char *to)
{
	char request[128], text[160];

	snprintf(request, sizeof request, kind->request, from, to);
	snprintf(text, sizeof text, "%s ipsec %s", direction, request);
	add_policy(text, from, to, 0);
}

int main(int argc, char **argv)
{
	const struct kind *kind = NULL;
	int port = -1;

	for (size_t i = 0; argc >= 4 && i < sizeof kinds / sizeof kinds[0]; i++)
		if (strcmp(argv[1], kinds[i].name) == 0)
			kind = &kinds[i];
	if (!kind || argc > 5) {
		fputs(usage, stderr);
		return 2;
	}
	const char *local = argv[2], *remote = argv[3];
	int exchanges = argc == 5 && strcmp(argv[4], "exchange") == 0;
	uint64_t bytes = argc == 5 ? strtoull(argv[4], NULL, 10) : 0;

	if (kind->natt) {
		struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons((uint16_t)kind->natt) };
		int encap = UDP_ENCAP_ESPINUDP;

		port = socket(AF_INET, SOCK_DGRAM, 0);
		if (port < 0 || bind(port, (struct sockaddr *)&any, sizeof any) < 0 ||
			setsockopt(port, IPPROTO_UDP, UDP_ENCAP, &encap, sizeof encap) < 0)
			die("UDP port %u: %s", kind->natt, strerror(errno));
	}
	s = open_pfkey();
	if (exchanges) {
		exchange(kind, local, remote);
	} else if (kind->encrypt || kind->auth) {
		add_sa_between(kind, local, remote, bytes, 0, 0);
		add_sa_between(kind, remote, local, 0, 0, 0);
	}
	char bypass[] = "in prio high none";
	/* What comes to the port is in the clear until it is decapsulated. */
	if (kind->natt)
		add_policy(bypass, remote, local, kind->natt);
	protect_direction(kind, "out", local, remote);
	if (kind->encrypt || kind->auth)
		protect_direction(kind, "in", remote, local);
	if (!exchanges)
		puts("protected");
	fflush(stdout);
	if (port >= 0)
		pause();
	return 0;
}
