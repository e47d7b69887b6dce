/* Opens PF_KEY by itself and sends by each of the six calls; reads at once, without waiting, as racoon does. */
#include "../common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *const ways[] = { "send", "sendto", "sendmsg", "write", "writev", "sendmmsg" };

static ssize_t send_by(const char *way, int s, unsigned char *bytes, size_t len)
{
	/* iked's writev has the header in a part of its own; an empty part, and a header in pieces, are allowed too. */
	struct iovec parts[] = { { bytes, 0 }, { bytes, 3 }, { bytes + 3, 13 }, { bytes + 16, len - 16 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 4 };
	struct mmsghdr one = { .msg_hdr = message };

	if (strcmp(way, "send") == 0)
		return send(s, bytes, len, 0);
	if (strcmp(way, "sendto") == 0)
		return sendto(s, bytes, len, MSG_DONTWAIT, NULL, 0);
	if (strcmp(way, "sendmsg") == 0)
		return sendmsg(s, &message, 0);
	if (strcmp(way, "write") == 0)
		return write(s, bytes, len);
	if (strcmp(way, "sendmmsg") == 0)
		return sendmmsg(s, &one, 1, 0) == 1 ? (ssize_t)one.msg_len : -1;
	return writev(s, parts, 4);
}

static void ask(const char *way, int s, struct builder *b)
{
	static _Alignas(8) unsigned char buffer[65536];
	struct sadb_msg *answer = (struct sadb_msg *)buffer;
	ssize_t sent, len;

	end_message(b);
	errno = ENOTTY;
	sent = send_by(way, s, b->bytes, b->len);
	if (sent != (ssize_t)b->len)
		die("%s: %zd, %s", way, sent, strerror(errno));
	if (errno != ENOTTY)
		die("%s changed errno to %s", way, strerror(errno));
	while ((len = recv(s, buffer, sizeof buffer, 0)) > 0) {
		printf("%s: %s, satype %s, seq %u", way, message_name(answer->sadb_msg_type),
			satype_name(answer->sadb_msg_satype), answer->sadb_msg_seq);
		/* Kernels differ in their algorithms. */
		if (answer->sadb_msg_type != SADB_REGISTER)
			printf(", %zd bytes", len);
		printf(", %s\n", answer->sadb_msg_errno ? strerror(answer->sadb_msg_errno) : "no error");
	}
	if (len == 0 || errno != EAGAIN)
		die("%s: recv: %s", way, len == 0 ? "end of file" : strerror(errno));
}

static void begin_sa(struct builder *b, int type, uint32_t spi)
{
	begin_message(b, type, SADB_SATYPE_AH, spi);
	add_sa(b, spi, type == SADB_ADD ? SADB_AALG_SHA1HMAC : 0, 0);
	add_address(b, SADB_EXT_ADDRESS_SRC, "192.0.2.1", 0, 32);
	add_address(b, SADB_EXT_ADDRESS_DST, "198.51.100.2", 0, 32);
}

int main(void)
{
	static const unsigned char key[20] = "twenty bytes of key";

	for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
		int s = socket(PF_KEY, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, PF_KEY_V2);
		struct builder b;

		if (s < 0)
			die("socket: %s", strerror(errno));
		begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
		ask(ways[i], s, &b);
		begin_message(&b, SADB_REGISTER, SADB_SATYPE_ESP, 2);
		ask(ways[i], s, &b);
		for (uint32_t spi = 0x1001; spi < 0x1004; spi++) {
			begin_sa(&b, SADB_ADD, spi);
			add_key(&b, SADB_EXT_KEY_AUTH, key, sizeof key);
			ask(ways[i], s, &b);
		}
		begin_sa(&b, SADB_GET, 0x1002);
		ask(ways[i], s, &b);
		begin_sa(&b, SADB_GET, 0x1fff);
		ask(ways[i], s, &b);
		begin_message(&b, SADB_DUMP, SADB_SATYPE_UNSPEC, 9);
		ask(ways[i], s, &b);
		close(s);
	}
	return 0;
}
