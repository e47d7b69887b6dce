/* What the calls say that a PF_KEY socket has no use for, and that poll follows its queue. */
#include "../common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void say(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "done");
}

static void polled(int s, const char *when)
{
	struct pollfd wait = { .fd = s, .events = POLLIN | POLLOUT };

	poll(&wait, 1, 0);
	printf("poll, %s:%s%s%s\n", when, wait.revents & POLLIN ? " readable" : "", wait.revents & POLLOUT ? " writable" : "",
		wait.revents & ~(POLLIN | POLLOUT) ? " and more" : "");
}

int main(void)
{
	struct sockaddr address = { .sa_family = AF_UNSPEC };
	socklen_t len = sizeof address;
	char buffer[64];
	struct builder b;
	int s = open_pfkey(), value;
	void *mapped;

	signal(SIGPIPE, SIG_IGN);
	polled(s, "nothing waits");
	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
	end_message(&b);
	send_message(s, b.bytes, b.len);
	polled(s, "an answer waits");
	say("recv", recv(s, buffer, sizeof buffer, 0));
	polled(s, "it was received");
	/* A family of no socket at all. */
	say("bind", bind(s, &address, len));
	say("listen", listen(s, 1));
	say("accept", accept(s, NULL, NULL));
	mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, s, 0);
	say("mmap", mapped == MAP_FAILED ? -1 : 0);
	value = 1;
	say("setsockopt of another level", setsockopt(s, 6, 1, &value, sizeof value));
	say("connect", connect(s, &address, len));
	len = sizeof address;
	say("getsockname", getsockname(s, &address, &len));
	len = sizeof address;
	say("getpeername", getpeername(s, &address, &len));
	say("FIONREAD", ioctl(s, FIONREAD, &value));
	say("shutdown", shutdown(s, SHUT_RDWR));
	say("send afterwards", send(s, b.bytes, b.len, 0));
	return 0;
}
