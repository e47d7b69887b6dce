/* What is no business of the preload object's, although it looks like it. strangers TEST; exit status 0 = it was left alone, 77 =
 * cannot be tried here. Whatever hangs is ended by SIGALRM. */
#include "../common.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int holds, const char *what)
{
	if (!holds)
		die("%s (errno: %s)", what, strerror(errno));
}

/* IP_IPSEC_POLICY and IPV6_IPSEC_POLICY of sockets that do not look at the value. */
static void policies_of_others(void)
{
	void *nowhere = (void *)8;
	static char whole[64] = { 2 };
	int pair[2];
	int others[] = { socket(AF_UNIX, SOCK_STREAM, 0), socket(AF_NETLINK, SOCK_RAW, 0) };

	for (int i = 0; i < 2; i++) {
		must(others[i] >= 0, "socket");
		for (int j = 0; j < 2; j++) {
			int level = j ? IPPROTO_IPV6 : IPPROTO_IP, name = j ? 34 : 16;
			void *values[] = { nowhere, whole };

			for (int k = 0; k < 2; k++) {
				errno = 0;
				must(setsockopt(others[i], level, name, values[k], 64) == -1, "setsockopt");
				/* As without the object: AF_UNIX has no options, netlink knows one level only. */
				must(errno == (i ? ENOPROTOOPT : EOPNOTSUPP), "setsockopt of another family");
			}
		}
	}
	must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0, "socketpair");
	must(setsockopt(pair[0], IPPROTO_IP, 16, nowhere, 64) == -1 && errno == EOPNOTSUPP, "setsockopt of a pair");
}

/* A socket whose name is that of a served one, and nobody reads at its other end. */
static void named(int type, int pair[2])
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int len = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "pfkey/xfrm/strangers/%d", (int)getpid());

	must(socketpair(AF_UNIX, type, 0, pair) == 0, "socketpair");
	must(bind(pair[0], (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + (socklen_t)len) == 0, "bind");
}

static void send_all_ways(int s)
{
	struct builder b;
	struct iovec part = { b.bytes, 16 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
	end_message(&b);
	must(write(s, b.bytes, 16) == 16, "write");
	must(writev(s, &part, 1) == 16, "writev");
	must(send(s, b.bytes, 16, 0) == 16, "send");
	must(sendto(s, b.bytes, 16, 0, NULL, 0) == 16, "sendto");
	must(sendmsg(s, &message, 0) == 16, "sendmsg");
	/* Nothing that it carries is judged either. */
	b.bytes[4] = 77;
	must(send(s, b.bytes, 16, 0) == 16, "send of anything");
}

static void of_another_type(void)
{
	int pair[2];

	named(SOCK_STREAM, pair);
	send_all_ways(pair[0]);
}

/* A descriptor that another user made and handed over. */
static void of_another_user(void)
{
	union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	char byte = 0;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	int way[2], pair[2], status, s;
	pid_t child;

	if (geteuid() != 0) {
		fprintf(stderr, "needs root\n");
		exit(77);
	}
	must(socketpair(AF_UNIX, SOCK_DGRAM, 0, way) == 0, "socketpair");
	child = fork();
	if (child == 0) {
		must(setgid(65534) == 0 && setuid(65534) == 0, "setuid");
		named(SOCK_SEQPACKET, pair);
		memset(&control, 0, sizeof control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), pair, sizeof(int));
		must(sendmsg(way[1], &message, 0) == 1, "sendmsg");
		/* The other end stays open until the parent has sent. */
		must(read(way[1], &byte, 1) == 1, "read");
		_exit(0);
	}
	must(recvmsg(way[0], &message, 0) == 1 && control.header.cmsg_type == SCM_RIGHTS, "recvmsg");
	memcpy(&s, CMSG_DATA(&control.header), sizeof s);
	send_all_ways(s);
	must(write(way[0], &byte, 1) == 1 && waitpid(child, &status, 0) == child && status == 0, "the other user");
}

/* Type 255 was that of several messages at once: no program may send them so, and nothing of them may be done. */
static void several_messages_at_once(void)
{
	struct builder b, inner;
	struct iovec part = { b.bytes, 0 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int s = open_pfkey();
	struct sadb_msg *m;

	for (int way = 0; way < 5; way++) {
		long sent;

		begin_message(&inner, SADB_ADD, SADB_SATYPE_AH, 7);
		add_sa(&inner, 0x1000 + (unsigned)way, SADB_AALG_SHA1HMAC, 0);
		add_address(&inner, SADB_EXT_ADDRESS_SRC, "10.0.0.1", 0, 32);
		add_address(&inner, SADB_EXT_ADDRESS_DST, "10.0.0.2", 0, 32);
		add_key(&inner, SADB_EXT_KEY_AUTH, (const unsigned char *)"12345678901234567890", 20);
		end_message(&inner);
		begin_message(&b, 255, SADB_SATYPE_UNSPEC, 1);
		end_message(&b);
		add_bytes(&b, inner.bytes, inner.len);
		part.iov_len = b.len;
		errno = 0;
		sent = way == 0 ? send(s, b.bytes, b.len, 0)
			: way == 1 ? sendto(s, b.bytes, b.len, 0, NULL, 0)
			: way == 2 ? sendmsg(s, &message, 0)
			: way == 3 ? write(s, b.bytes, b.len)
			: writev(s, &part, 1);
		/* AF_KEY: the header's length is not the message's. */
		must(sent == -1 && (errno == EMSGSIZE || errno == EINVAL), "it is refused");
	}
	begin_message(&b, SADB_DUMP, SADB_SATYPE_UNSPEC, 2);
	end_message(&b);
	must(send(s, b.bytes, b.len, 0) == (long)b.len, "DUMP");
	m = receive_message(s, 10000);
	must(m && m->sadb_msg_type == SADB_DUMP && m->sadb_msg_errno == ENOENT, "no SA is there, and nothing was said of one");
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";

	alarm(8);
	if (strcmp(test, "policies") == 0)
		policies_of_others();
	else if (strcmp(test, "type") == 0)
		of_another_type();
	else if (strcmp(test, "user") == 0)
		of_another_user();
	else if (strcmp(test, "several") == 0)
		several_messages_at_once();
	else
		return 2;
	return 0;
}
