#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fflush(stdout);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

int open_pfkey(void)
{
#ifdef RAW_SOCKET
	int s = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (s < 0)
		die("socket(PF_KEY): %s", strerror(errno));
#else
	int s = pfkey_open();
	if (s < 0)
		die("pfkey_open: %s", ipsec_strerror());
#endif
	return s;
}

void send_message(int s, const void *message, size_t len)
{
#ifdef RAW_SOCKET
	ssize_t sent = send(s, message, len, 0);
#else
	ssize_t sent = pfkey_send(s, (struct sadb_msg *)message, (int)len);
#endif
	if (sent < 0 || (size_t)sent != len)
		die("send: %s", strerror(errno));
}

struct sadb_msg *receive_message(int s, int timeout_ms)
{
	static _Alignas(8) unsigned char buffer[65536];
	struct pollfd wait = { .fd = s, .events = POLLIN };
	struct sadb_msg *message = (struct sadb_msg *)buffer;
	ssize_t len;
	int ready;

	do
		ready = poll(&wait, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready == 0)
		return NULL;
	len = recv(s, buffer, sizeof buffer, 0);
	if (len < 0)
		die("recv: %s", strerror(errno));
	if (len == 0)
		die("recv: end of file");
	if ((size_t)len < sizeof *message || (size_t)len != (size_t)message->sadb_msg_len * 8)
		die("received %zd bytes, the header says %u", len, message->sadb_msg_len * 8U);
	return message;
}

void *find_extension(struct sadb_msg *message, int type)
{
	unsigned char *at = (unsigned char *)(message + 1);
	unsigned char *end = (unsigned char *)message + (size_t)message->sadb_msg_len * 8;

	while (end - at >= (ptrdiff_t)sizeof(struct sadb_ext)) {
		struct sadb_ext *ext = (struct sadb_ext *)at;
		size_t len = (size_t)ext->sadb_ext_len * 8;
		if (len == 0 || len > (size_t)(end - at))
			return NULL;
		if (ext->sadb_ext_type == type)
			return ext;
		at += len;
	}
	return NULL;
}

static const char *name_of(const char *const *names, size_t count, int number)
{
	static char unknown[32];
	if (number >= 0 && (size_t)number < count && names[number])
		return names[number];
	snprintf(unknown, sizeof unknown, "[unknown %d]", number);
	return unknown;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *message_name(int type)
{
	static const char *const names[] = { "RESERVED", "GETSPI", "UPDATE", "ADD", "DELETE", "GET", "ACQUIRE",
		"REGISTER", "EXPIRE", "FLUSH", "DUMP", "X_PROMISC", "X_PCHANGE", "X_SPDUPDATE", "X_SPDADD",
		"X_SPDDELETE", "X_SPDGET", "X_SPDACQUIRE", "X_SPDDUMP", "X_SPDFLUSH", "X_SPDSETIDX", "X_SPDEXPIRE",
		"X_SPDDELETE2", "X_NAT_T_NEW_MAPPING", "X_MIGRATE" };
	return name_of(names, COUNT(names), type);
}

static const char *const satypes[] = { "unspec", NULL, "ah", "esp", NULL, "rsvp", "ospfv2", "ripv2", "mip", "ipcomp" };

const char *satype_name(int satype)
{
	return name_of(satypes, COUNT(satypes), satype);
}

int satype_by_name(const char *name)
{
	for (size_t i = 0; i < COUNT(satypes); i++)
		if (satypes[i] && strcmp(name, satypes[i]) == 0)
			return (int)i;
	return -1;
}

const char *state_name(int state)
{
	static const char *const names[] = { "larval", "mature", "dying", "dead" };
	return name_of(names, COUNT(names), state);
}

const char *extension_name(int type)
{
	static const char *const names[] = { "reserved", "SA", "current lifetime", "hard lifetime", "soft lifetime",
		"source", "destination", "proxy", "authentication key", "encryption key", "source identity",
		"destination identity", "sensitivity", "proposal", "authentication algorithms",
		"encryption algorithms", "SPI range", "private", "policy", "SA2", "NAT-T type", "NAT-T source port",
		"NAT-T destination port", "NAT-T original address", "security context", "key manager's addresses",
		"filter" };
	return name_of(names, COUNT(names), type);
}

static const char *auth_name(int id)
{
	static const char *const names[] = { "none", NULL, "hmac-md5", "hmac-sha1", NULL, "hmac-sha2-256",
		"hmac-sha2-384", "hmac-sha2-512", "hmac-ripemd160", "aes-xcbc-mac", "hmac-sm3" };
	return id == 251 ? "null" : name_of(names, COUNT(names), id);
}

static const char *encrypt_name(int id)
{
	static const char *const names[] = { "none", NULL, "des-cbc", "3des-cbc", NULL, NULL, "cast128-cbc",
		"blowfish-cbc", NULL, NULL, NULL, "null", "aes-cbc", "aes-ctr", "aes-ccm-8", "aes-ccm-12", "aes-ccm-16",
		NULL, "aes-gcm-8", "aes-gcm-12", "aes-gcm-16", NULL, "camellia-cbc", "aes-gmac", "sm4-cbc" };
	return id == 252 ? "serpent-cbc" : id == 253 ? "twofish-cbc" : name_of(names, COUNT(names), id);
}

static void print_address(struct sadb_address *address, size_t len)
{
	struct sockaddr *sa = (struct sockaddr *)(void *)(address + 1);
	char text[INET6_ADDRSTRLEN] = "?";
	unsigned port = 0;

	if (len >= sizeof *address + sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)(void *)sa;
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
		port = ntohs(in->sin_port);
	} else if (len >= sizeof *address + sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
		struct sockaddr_in6 *in = (struct sockaddr_in6 *)(void *)sa;
		inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
		port = ntohs(in->sin6_port);
	}
	printf("%s/%u", text, address->sadb_address_prefixlen);
	if (port)
		printf(" port %u", port);
	if (address->sadb_address_proto)
		printf(" protocol %u", address->sadb_address_proto);
}

static void print_extension(struct sadb_ext *ext, size_t len)
{
	printf("  %s: ", extension_name(ext->sadb_ext_type));
	switch (ext->sadb_ext_type) {
	case SADB_EXT_SA: {
		struct sadb_sa *sa = (struct sadb_sa *)ext;
		printf("spi 0x%08x, %s, replay %u, %s, %s", ntohl(sa->sadb_sa_spi), state_name(sa->sadb_sa_state),
			sa->sadb_sa_replay, auth_name(sa->sadb_sa_auth), encrypt_name(sa->sadb_sa_encrypt));
		break;
	}
	case SADB_EXT_LIFETIME_CURRENT:
	case SADB_EXT_LIFETIME_HARD:
	case SADB_EXT_LIFETIME_SOFT: {
		struct sadb_lifetime *l = (struct sadb_lifetime *)ext;
		printf("%u packets, %llu bytes, added %llu, used %llu", l->sadb_lifetime_allocations,
			(unsigned long long)l->sadb_lifetime_bytes, (unsigned long long)l->sadb_lifetime_addtime,
			(unsigned long long)l->sadb_lifetime_usetime);
		break;
	}
	case SADB_EXT_ADDRESS_SRC:
	case SADB_EXT_ADDRESS_DST:
	case SADB_EXT_ADDRESS_PROXY:
		print_address((struct sadb_address *)ext, len);
		break;
	case SADB_EXT_KEY_AUTH:
	case SADB_EXT_KEY_ENCRYPT: {
		struct sadb_key *key = (struct sadb_key *)ext;
		printf("%u bits", key->sadb_key_bits);
		break;
	}
	case SADB_EXT_SUPPORTED_AUTH:
	case SADB_EXT_SUPPORTED_ENCRYPT: {
		struct sadb_alg *alg = (struct sadb_alg *)((struct sadb_supported *)ext + 1);
		size_t n = (len - sizeof(struct sadb_supported)) / sizeof *alg;
		for (size_t i = 0; i < n; i++)
			printf("\n    %s, iv %u bytes, key %u-%u bits",
				ext->sadb_ext_type == SADB_EXT_SUPPORTED_AUTH ? auth_name(alg[i].sadb_alg_id)
									      : encrypt_name(alg[i].sadb_alg_id),
				alg[i].sadb_alg_ivlen, alg[i].sadb_alg_minbits, alg[i].sadb_alg_maxbits);
		break;
	}
	case SADB_X_EXT_SA2: {
		struct sadb_x_sa2 *sa2 = (struct sadb_x_sa2 *)ext;
		printf("mode %u, reqid %u", sa2->sadb_x_sa2_mode, sa2->sadb_x_sa2_reqid);
		break;
	}
	case SADB_X_EXT_POLICY: {
		struct sadb_x_policy *p = (struct sadb_x_policy *)ext;
		printf("type %u, direction %u, id %u, priority 0x%08x", p->sadb_x_policy_type, p->sadb_x_policy_dir,
			p->sadb_x_policy_id, p->sadb_x_policy_priority);
		break;
	}
	default:
		printf("%zu bytes", len);
	}
	putchar('\n');
}

void print_message(struct sadb_msg *message)
{
	unsigned char *at = (unsigned char *)(message + 1);
	unsigned char *end = (unsigned char *)message + (size_t)message->sadb_msg_len * 8;

	printf("%s, satype %s, seq %u, %s pid", message_name(message->sadb_msg_type),
		satype_name(message->sadb_msg_satype), message->sadb_msg_seq,
		message->sadb_msg_pid == (uint32_t)getpid() ? "our" : message->sadb_msg_pid == 0 ? "no" : "another's");
	if (message->sadb_msg_errno)
		printf(", errno %u (%s)", message->sadb_msg_errno, strerror(message->sadb_msg_errno));
	putchar('\n');
	while (end - at >= (ptrdiff_t)sizeof(struct sadb_ext)) {
		struct sadb_ext *ext = (struct sadb_ext *)at;
		size_t len = (size_t)ext->sadb_ext_len * 8;
		if (len == 0 || len > (size_t)(end - at)) {
			printf("  a broken extension of %zu bytes\n", len);
			return;
		}
		print_extension(ext, len);
		at += len;
	}
}

void add_bytes(struct builder *b, const void *bytes, size_t len)
{
	if (len > sizeof b->bytes - b->len)
		die("the message does not fit");
	memcpy(b->bytes + b->len, bytes, len);
	b->len += len;
}

void begin_message(struct builder *b, int type, int satype, uint32_t seq)
{
	struct sadb_msg header = { .sadb_msg_version = PF_KEY_V2, .sadb_msg_type = (uint8_t)type,
		.sadb_msg_satype = (uint8_t)satype, .sadb_msg_seq = seq, .sadb_msg_pid = (uint32_t)getpid() };
	b->len = 0;
	add_bytes(b, &header, sizeof header);
}

void add_sa(struct builder *b, uint32_t spi, int auth, int encrypt)
{
	struct sadb_sa sa = { .sadb_sa_len = sizeof sa / 8, .sadb_sa_exttype = SADB_EXT_SA, .sadb_sa_spi = htonl(spi),
		.sadb_sa_state = SADB_SASTATE_MATURE, .sadb_sa_auth = (uint8_t)auth,
		.sadb_sa_encrypt = (uint8_t)encrypt };
	add_bytes(b, &sa, sizeof sa);
}

void add_address(struct builder *b, int type, const char *ip, int proto, int prefixlen)
{
	static const unsigned char padding[8];
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	int v6 = strchr(ip, ':') != NULL;
	size_t salen = v6 ? sizeof in6 : sizeof in;
	size_t len = PFKEY_ALIGN8(sizeof(struct sadb_address) + salen);
	struct sadb_address address = { .sadb_address_len = (uint16_t)(len / 8),
		.sadb_address_exttype = (uint16_t)type, .sadb_address_proto = (uint8_t)proto,
		.sadb_address_prefixlen = (uint8_t)(prefixlen >= 0 ? prefixlen : v6 ? 128 : 32) };

	if (inet_pton(v6 ? AF_INET6 : AF_INET, ip, v6 ? (void *)&in6.sin6_addr : (void *)&in.sin_addr) != 1)
		die("%s: not an IP address", ip);
	add_bytes(b, &address, sizeof address);
	add_bytes(b, v6 ? (void *)&in6 : (void *)&in, salen);
	add_bytes(b, padding, len - sizeof address - salen);
}

void add_key(struct builder *b, int type, const unsigned char *key, size_t len)
{
	static const unsigned char padding[8];
	size_t total = PFKEY_ALIGN8(sizeof(struct sadb_key) + len);
	struct sadb_key head = { .sadb_key_len = (uint16_t)(total / 8), .sadb_key_exttype = (uint16_t)type,
		.sadb_key_bits = (uint16_t)(len * 8) };
	add_bytes(b, &head, sizeof head);
	add_bytes(b, key, len);
	add_bytes(b, padding, total - sizeof head - len);
}

void add_spirange(struct builder *b, uint32_t min, uint32_t max)
{
	struct sadb_spirange range = { .sadb_spirange_len = sizeof range / 8,
		.sadb_spirange_exttype = SADB_EXT_SPIRANGE, .sadb_spirange_min = min, .sadb_spirange_max = max };
	add_bytes(b, &range, sizeof range);
}

void add_lifetime(struct builder *b, int type, uint64_t addtime)
{
	struct sadb_lifetime lifetime = { .sadb_lifetime_len = sizeof lifetime / 8,
		.sadb_lifetime_exttype = (uint16_t)type, .sadb_lifetime_addtime = addtime };
	add_bytes(b, &lifetime, sizeof lifetime);
}

void end_message(struct builder *b)
{
	((struct sadb_msg *)(void *)b->bytes)->sadb_msg_len = (uint16_t)(b->len / 8);
}
