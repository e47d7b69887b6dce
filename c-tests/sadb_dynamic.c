/* A key manager: registers, answers ACQUIREs with a pair of SAs, and follows their expiry. */
#include "common.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: sadb_dynamic [--serve]\n"
	"\n"
	"Registers for ESP and runs through what a key manager does: an SPI is allocated with GETSPI, the SA completed\n"
	"with UPDATE, and its limits are short, so that its soft and its hard EXPIRE follow.\n"
	"\n"
	"  --serve   wait for the ACQUIREs of real traffic instead, and answer each with SAs for both directions\n"
	"\n"
	"exit status: 0; 1 if something did not happen, 2 for bad usage\n";

static unsigned char cipher_key[16] = { 1 }, hash_key[20] = { 2 };

static struct sadb_msg *expect(int s, int type, int timeout_ms)
{
	for (;;) {
		struct sadb_msg *message = receive_message(s, timeout_ms);
		if (!message)
			die("no %s within %d ms", message_name(type), timeout_ms);
		if (message->sadb_msg_type != type)
			continue;
		print_message(message);
		if (message->sadb_msg_errno)
			die("%s failed", message_name(type));
		return message;
	}
}

static uint32_t spi_of(struct sadb_msg *message)
{
	struct sadb_sa *sa = find_extension(message, SADB_EXT_SA);
	if (!sa)
		die("%s without an SA", message_name(message->sadb_msg_type));
	return ntohl(sa->sadb_sa_spi);
}

static void send_getspi(int s, const char *src, const char *dst, uint32_t seq)
{
	struct builder b;
	begin_message(&b, SADB_GETSPI, SADB_SATYPE_ESP, seq);
	add_address(&b, SADB_EXT_ADDRESS_SRC, src, 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, dst, 0, -1);
	add_spirange(&b, 0x1000, 0x1000);
	end_message(&b);
	send_message(s, b.bytes, b.len);
}

static void send_sa(int s, int type, const char *src, const char *dst, uint32_t spi, uint32_t seq, uint64_t hard)
{
	struct builder b;
	begin_message(&b, type, SADB_SATYPE_ESP, seq);
	add_sa(&b, spi, SADB_AALG_SHA1HMAC, SADB_X_EALG_AESCBC);
	if (hard) {
		add_lifetime(&b, SADB_EXT_LIFETIME_HARD, hard);
		add_lifetime(&b, SADB_EXT_LIFETIME_SOFT, hard - 1);
	}
	add_address(&b, SADB_EXT_ADDRESS_SRC, src, 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, dst, 0, -1);
	add_key(&b, SADB_EXT_KEY_AUTH, hash_key, sizeof hash_key);
	add_key(&b, SADB_EXT_KEY_ENCRYPT, cipher_key, sizeof cipher_key);
	end_message(&b);
	send_message(s, b.bytes, b.len);
}

static void address_text(struct sadb_msg *message, int type, char *text, size_t size)
{
	struct sadb_address *address = find_extension(message, type);
	struct sockaddr *sa;
	if (!address)
		die("ACQUIRE without addresses");
	sa = PFKEY_ADDR_SADDR(address);
	inet_ntop(sa->sa_family,
		sa->sa_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)(void *)sa)->sin6_addr
					  : (void *)&((struct sockaddr_in *)(void *)sa)->sin_addr,
		text, (socklen_t)size);
}

/* Both peers use the same keys and the same SPIs: a demonstration, no key exchange. */
static __attribute__((noreturn)) void serve(int s)
{
	for (;;) {
		char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
		uint32_t seq;
		struct sadb_msg *acquire = receive_message(s, -1);
		if (acquire->sadb_msg_type != SADB_ACQUIRE || acquire->sadb_msg_errno)
			continue;
		print_message(acquire);
		seq = acquire->sadb_msg_seq;
		address_text(acquire, SADB_EXT_ADDRESS_SRC, src, sizeof src);
		address_text(acquire, SADB_EXT_ADDRESS_DST, dst, sizeof dst);
		send_sa(s, SADB_ADD, dst, src, 0x1001, 0, 0);
		send_sa(s, SADB_ADD, src, dst, 0x1001, seq, 0);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct builder b;
	uint32_t spi;
	int s, serving = argc == 2 && strcmp(argv[1], "--serve") == 0;

	if (argc > 1 && !serving) {
		int help = strcmp(argv[1], "--help") == 0;
		fputs(usage, help ? stdout : stderr);
		return help ? 0 : 2;
	}
	s = open_pfkey();
	begin_message(&b, SADB_REGISTER, SADB_SATYPE_ESP, 0);
	end_message(&b);
	send_message(s, b.bytes, b.len);
	if (!receive_message(s, 5000))
		die("no answer to REGISTER");
	if (serving)
		serve(s);
	send_getspi(s, "198.51.100.2", "192.0.2.1", 1);
	spi = spi_of(expect(s, SADB_GETSPI, 5000));
	send_sa(s, SADB_UPDATE, "198.51.100.2", "192.0.2.1", spi, 1, 2);
	expect(s, SADB_UPDATE, 5000);
	/* No limit is passed over: the soft EXPIRE after one second, the hard one after two. */
	expect(s, SADB_EXPIRE, 10000);
	expect(s, SADB_EXPIRE, 10000);
	return 0;
}
