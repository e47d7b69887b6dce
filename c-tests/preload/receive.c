/* What recv on a PF_KEY socket makes of its flags: how many bytes it says, and whether the message stays. The socket has
 * one message of 16 bytes each time; the buffer has room for 8 or for more. */
#include "../common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct {
	const char *name;
	int flags;
} tried[] = {
	{ "none", 0 },
	{ "PEEK", MSG_PEEK },
	{ "DONTWAIT", MSG_DONTWAIT },
	{ "TRUNC", MSG_TRUNC },
	{ "PEEK and TRUNC", MSG_PEEK | MSG_TRUNC },
	{ "PEEK, DONTWAIT and TRUNC", MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC },
	{ "OOB", MSG_OOB },
	{ "DONTROUTE", MSG_DONTROUTE },
	{ "CTRUNC", MSG_CTRUNC },
	{ "EOR", MSG_EOR },
	{ "WAITALL", MSG_WAITALL },
	{ "ERRQUEUE", MSG_ERRQUEUE },
	{ "NOSIGNAL", MSG_NOSIGNAL },
	{ "CMSG_CLOEXEC", MSG_CMSG_CLOEXEC },
	{ "PEEK and WAITALL", MSG_PEEK | MSG_WAITALL },
};

int main(void)
{
	int s = open_pfkey();

	for (size_t i = 0; i < sizeof tried / sizeof tried[0]; i++)
		for (size_t room = 8; room <= 64; room += 56) {
			char buffer[64];
			struct builder b;
			ssize_t got, left;

			begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 1);
			end_message(&b);
			send_message(s, b.bytes, b.len);
			errno = 0;
			got = recv(s, buffer, room, tried[i].flags);
			printf("%s, room for %zu: ", tried[i].name, room);
			if (got < 0)
				printf("%s", strerror(errno));
			else
				printf("%zd bytes", got);
			left = recv(s, buffer, sizeof buffer, MSG_DONTWAIT);
			printf(left < 0 ? ", gone\n" : ", stays\n");
		}
	return 0;
}
