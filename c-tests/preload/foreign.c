/* Descriptors that are no PF_KEY sockets get what they always got, even messages that look like PF_KEY's. */
#include "../common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void must(int holds, const char *what)
{
	if (!holds)
		die("%s (errno: %s)", what, strerror(errno));
}

static void through(const char *what, int in, int out, int is_socket)
{
	unsigned char back[64];
	struct builder b;
	struct iovec parts[2] = { { b.bytes, 8 }, { b.bytes + 8, 8 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	struct mmsghdr messages[2] = { { .msg_hdr = message }, { .msg_hdr = message } };

	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
	end_message(&b);
	for (int bad = 0; bad < 2; bad++) {
		/* Of no valid length, the second time. */
		b.bytes[4] = bad ? 77 : 2;
		errno = ENOTTY;
		must(write(in, b.bytes, 16) == 16 && errno == ENOTTY && read(out, back, sizeof back) == 16, what);
		must(memcmp(back, b.bytes, 16) == 0, what);
		must(writev(in, parts, 2) == 16 && read(out, back, sizeof back) == 16, what);
		must(memcmp(back, b.bytes, 16) == 0, what);
		must(send(in, b.bytes, 16, 0) == (is_socket ? 16 : -1), what);
		if (!is_socket) {
			must(errno == ENOTSOCK, what);
			continue;
		}
		must(read(out, back, sizeof back) == 16, what);
		must(sendto(in, b.bytes, 16, 0, NULL, 0) == 16 && read(out, back, sizeof back) == 16, what);
		must(sendmsg(in, &message, 0) == 16 && read(out, back, sizeof back) == 16, what);
		must(memcmp(back, b.bytes, 16) == 0, what);
		must(sendmmsg(in, messages, 2, 0) == 2 && messages[1].msg_len == 16, what);
		must(recv(out, back, 16, 0) == 16 && recv(out, back, 16, 0) == 16, what);
	}
}

static void bad_arguments(int s)
{
	void *nowhere = (void *)8;
	/* The compiler is not to know. */
	volatile int minus_one = -1;
	struct iovec part = { nowhere, 16 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	must(write(s, nowhere, 16) == -1 && errno == EFAULT, "write of a bad pointer");
	must(send(s, nowhere, 16, 0) == -1 && errno == EFAULT, "send of a bad pointer");
	must(sendto(s, nowhere, 16, 0, NULL, 0) == -1 && errno == EFAULT, "sendto of a bad pointer");
	must(writev(s, &part, 1) == -1 && errno == EFAULT, "writev of a bad pointer");
	must(sendmsg(s, &message, 0) == -1 && errno == EFAULT, "sendmsg of a bad pointer");
	must(writev(s, nowhere, 1) == -1 && errno == EFAULT, "writev of bad parts");
	must(sendmsg(s, nowhere, 0) == -1 && errno == EFAULT, "sendmsg of a bad message");
	must(sendmmsg(s, nowhere, 1, 0) == -1 && errno == EFAULT, "sendmmsg of a bad message");
	must(writev(s, &part, minus_one) == -1 && errno == EINVAL, "writev of -1 parts");
	must(write(-1, "x", 1) == -1 && errno == EBADF, "write to no descriptor");
	must(write(s, NULL, 0) == 0, "write of nothing");
	must(setsockopt(-1, IPPROTO_IP, 16, "", 0) == -1 && errno == EBADF, "setsockopt of no descriptor");
}

/* Nobody looks at what is written there. */
static void unread(void)
{
	/* The compiler is not to know. */
	void *volatile nowhere = (void *)8;
	struct iovec part = { nowhere, 16 };
	int null = open("/dev/null", O_WRONLY);

	must(null >= 0 && write(null, nowhere, 16) == 16, "write to /dev/null");
	must(writev(null, &part, 1) == 16, "writev to /dev/null");
	close(null);
}

/* A packet socket sends what is in its ring, and looks at no buffer. */
static void ring(void)
{
	unsigned page = (unsigned)sysconf(_SC_PAGESIZE);
	struct tpacket_req request = { .tp_block_size = page, .tp_block_nr = 1, .tp_frame_size = page / 2, .tp_frame_nr = 2 };
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_802_EX1), .sll_halen = 6 };
	/* The compiler is not to know. */
	void *volatile nowhere = NULL;
	struct iovec part = { nowhere, 100 };
	struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1 };
	char *frames;
	/* The first version is another in programs of 32 bits. */
	int version = TPACKET_V2, s = socket(AF_PACKET, SOCK_RAW, 0);

	/* Needs CAP_NET_RAW. */
	if (s < 0)
		return;
	to.sll_ifindex = (int)if_nametoindex("lo");
	must(setsockopt(s, SOL_PACKET, PACKET_VERSION, &version, sizeof version) == 0, "PACKET_VERSION");
	must(setsockopt(s, SOL_PACKET, PACKET_TX_RING, &request, sizeof request) == 0, "PACKET_TX_RING");
	frames = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
	must(frames != MAP_FAILED, "mmap");
	for (int way = 0; way < 2; way++) {
		struct tpacket2_hdr *frame = (struct tpacket2_hdr *)(frames + page / 2 * (unsigned)way);
		ssize_t sent;

		frame->tp_len = 60;
		frame->tp_status = TP_STATUS_SEND_REQUEST;
		sent = way ? sendmsg(s, &message, 0) : sendto(s, nowhere, 100, 0, (struct sockaddr *)&to, sizeof to);
		must(sent == 60 || (sent == -1 && errno == ENETDOWN), "a ring's frame");
	}
	munmap(frames, page);
	close(s);
}

static void *fill(void *pipe_end)
{
	static char page[65536];
	for (;;)
		if (write(*(int *)pipe_end, page, sizeof page) < 0)
			return "write failed";
}

int main(void)
{
	int ends[2], value = 0;
	socklen_t len = sizeof value;
	pthread_t thread;
	void *result;

	signal(SIGPIPE, SIG_IGN);
	must(pipe(ends) == 0, "pipe");
	through("pipe", ends[1], ends[0], 0);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
	through("stream", ends[0], ends[1], 1);
	bad_arguments(ends[0]);
	close(ends[1]);
	must(write(ends[0], "\2", 1) == -1 && errno == EPIPE, "a broken connection");
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	through("seqpacket", ends[0], ends[1], 1);

	unread();
	ring();

	/* Other sockets, and other options. */
	ends[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(ends[0] >= 0 && (fcntl(ends[0], F_GETFD) & FD_CLOEXEC), "socket(AF_INET)");
	value = 1;
	must(setsockopt(ends[0], SOL_SOCKET, SO_REUSEADDR, &value, sizeof value) == 0, "SO_REUSEADDR");
	value = 0;
	must(getsockopt(ends[0], SOL_SOCKET, SO_REUSEADDR, &value, &len) == 0 && value == 1, "SO_REUSEADDR is set");
	/* Option 34 of another level than IPv6's, and 16 of another than IPv4's. */
	must(setsockopt(ends[0], SOL_SOCKET, SO_INCOMING_CPU, &value, sizeof value) == 0, "SO_INCOMING_CPU");
	must(setsockopt(ends[0], IPPROTO_IPV6, 16, &value, sizeof value) == -1 && errno == ENOPROTOOPT, "IPv6's 16");
	must(socket(12345, SOCK_RAW, 2) == -1 && errno == EAFNOSUPPORT, "an unknown family");

	/* A thread that is cancelled in write goes no further than in the C library's. */
	must(pipe(ends) == 0, "pipe");
	must(pthread_create(&thread, NULL, fill, &ends[1]) == 0, "pthread_create");
	must(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0, "pthread_join");
	must(result == PTHREAD_CANCELED, "cancellation");
	puts("as ever");
	return 0;
}
