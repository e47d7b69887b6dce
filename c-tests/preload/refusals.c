/* What socket(PF_KEY) and a send to it refuse. */
#include "../common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void open_with(const char *what, int type, int protocol)
{
	int s;
	errno = 0;
	s = socket(PF_KEY, type, protocol);
	if (s < 0) {
		printf("socket, %s: %s\n", what, strerror(errno));
		return;
	}
	printf("socket, %s: opened, close on exec %d, non-blocking %d\n", what, fcntl(s, F_GETFD) & FD_CLOEXEC,
		!!(fcntl(s, F_GETFL) & O_NONBLOCK));
	close(s);
}

static void refuse(int s, const char *what, const void *bytes, size_t len)
{
	char byte;
	struct iovec parts[2] = { { (void *)bytes, 1 }, { (char *)bytes + 1, len - 1 } };
	ssize_t sent = send(s, bytes, len, 0);
	printf("send, %s: %s", what, sent < 0 ? strerror(errno) : "sent");
	/* What is no length of a message is written to too many things to be looked at. */
	if (len % 8 == 0 && len >= 16) {
		sent = writev(s, parts, 2);
		printf("; writev: %s", sent < 0 ? strerror(errno) : "sent");
	}
	/* A refused message has no answer. */
	printf("; %s\n", recv(s, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN ? "no answer" : "an answer");
}

/* The first is good, and so is the third. */
static void refuse_the_second(int s, void *good, void *bad)
{
	struct iovec parts[3] = { { good, 16 }, { bad, 16 }, { good, 16 } };
	struct mmsghdr messages[3];
	char answer[16];
	int sent, answers = 0;

	memset(messages, 0, sizeof messages);
	for (int i = 0; i < 3; i++) {
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(s, messages, 3, 0);
	while (recv(s, answer, sizeof answer, MSG_DONTWAIT) > 0)
		answers++;
	printf("sendmmsg, the second of three is bad: %d sent, %d answers\n", sent, answers);
	sent = sendmmsg(s, messages + 1, 2, 0);
	printf("sendmmsg, the first of two is bad: %s", sent < 0 ? strerror(errno) : "sent");
	printf("; %s\n", recv(s, answer, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN ? "no answer" : "an answer");
	sent = sendmmsg(s, messages, 0, 0);
	printf("sendmmsg of none: %d\n", sent);
}

int main(int argc, char **argv)
{
	struct builder b, good;
	struct sadb_msg *message = (struct sadb_msg *)b.bytes;
	int s;

	(void)argv;
	open_with("raw", SOCK_RAW, PF_KEY_V2);
	open_with("non-blocking", SOCK_RAW | SOCK_NONBLOCK, PF_KEY_V2);
	open_with("close on exec", SOCK_RAW | SOCK_CLOEXEC, PF_KEY_V2);
	open_with("both flags", SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, PF_KEY_V2);
	open_with("datagram", SOCK_DGRAM, PF_KEY_V2);
	open_with("stream", SOCK_STREAM, PF_KEY_V2);
	open_with("packet", SOCK_PACKET, PF_KEY_V2);
	open_with("type 0", 0, PF_KEY_V2);
	open_with("type 11", 11, PF_KEY_V2);
	open_with("type 15", 15, PF_KEY_V2);
	open_with("type -1", -1, PF_KEY_V2);
	open_with("unknown flag", SOCK_RAW | 0x100, PF_KEY_V2);
	open_with("protocol 0", SOCK_RAW, 0);
	open_with("protocol 1", SOCK_RAW, 1);
	open_with("protocol 258", SOCK_RAW, 258);
	open_with("protocol -2", SOCK_RAW, -2);
	open_with("datagram, protocol 0", SOCK_DGRAM, 0);
	open_with("unknown flag, protocol 0", SOCK_RAW | 0x100, 0);
	/* With an argument: where only opening is of interest. */
	if (argc > 1)
		return 0;
	s = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (s < 0)
		die("socket: %s", strerror(errno));
	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
	end_message(&b);
	refuse(s, "8 bytes", b.bytes, 8);
	refuse(s, "15 bytes", b.bytes, 15);
	message->sadb_msg_len = 3;
	refuse(s, "length 3", b.bytes, b.len);
	message->sadb_msg_len = 0;
	refuse(s, "length 0", b.bytes, b.len);
	message->sadb_msg_len = 2;
	message->sadb_msg_reserved = 1;
	refuse(s, "reserved", b.bytes, b.len);
	message->sadb_msg_reserved = 0;
	message->sadb_msg_type = 0;
	refuse(s, "type 0", b.bytes, b.len);
	message->sadb_msg_type = 25;
	refuse(s, "type 25", b.bytes, b.len);
	begin_message(&good, SADB_FLUSH, SADB_SATYPE_UNSPEC, 2);
	end_message(&good);
	refuse_the_second(s, good.bytes, b.bytes);
	return 0;
}
