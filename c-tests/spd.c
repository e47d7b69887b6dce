/* Policies: added, listed, read, removed. */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: spd add SRC/LEN DST/LEN POLICY   e.g. spd add 10.0.0.0/24 10.1.0.0/24 'out ipsec esp/transport//require'\n"
	"       spd dump\n"
	"       spd get ID\n"
	"       spd delete ID\n"
	"       spd flush\n"
	"\n"
	"exit status: 0; 1 if the request failed, 2 for bad usage\n";

/* Reads "ADDRESS/LEN" of either family. */
static unsigned int prefix(const char *text, struct sockaddr_in6 *space)
{
	char address[INET6_ADDRSTRLEN + 8];
	char *slash, *end;
	unsigned long len;
	struct sockaddr_in *in = (struct sockaddr_in *)space;

	memset(space, 0, sizeof *space);
	snprintf(address, sizeof address, "%s", text);
	slash = strchr(address, '/');
	if (!slash)
		die("%s: expected ADDRESS/LEN", text);
	*slash = '\0';
	len = strtoul(slash + 1, &end, 10);
	if (end == slash + 1 || *end)
		die("%s: expected ADDRESS/LEN", text);
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1)
		in->sin_family = AF_INET;
	else if (inet_pton(AF_INET6, address, &space->sin6_addr) == 1)
		space->sin6_family = AF_INET6;
	else
		die("%s: not an IP address", address);
	return (unsigned int)len;
}

static unsigned int number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 0);
	if (end == text || *end)
		die("%s: not a policy id", text);
	return (unsigned int)n;
}

/* Prints the answers of a type, up to the one with sequence number 0. */
static int answers(int s, int type)
{
	for (;;) {
		struct sadb_msg *message = pfkey_recv(s);
		int error, last;
		if (!message)
			die("pfkey_recv: %s", ipsec_strerror());
		if (message->sadb_msg_type != type || message->sadb_msg_pid != (uint32_t)getpid()) {
			free(message);
			continue;
		}
		error = message->sadb_msg_errno;
		last = message->sadb_msg_seq == 0;
		if (error)
			fprintf(stderr, "spd: %s\n", error == ENOENT ? "no such policy" : strerror(error));
		else if (type != SADB_X_SPDFLUSH)
			pfkey_spdump(message);
		free(message);
		if (error)
			return 1;
		if (last)
			return 0;
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int s, sent, type;

	if (strcmp(what, "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (!((strcmp(what, "add") == 0 && argc == 5) || (strcmp(what, "dump") == 0 && argc == 2) ||
	      (strcmp(what, "get") == 0 && argc == 3) || (strcmp(what, "delete") == 0 && argc == 3) ||
	      (strcmp(what, "flush") == 0 && argc == 2))) {
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	if (strcmp(what, "add") == 0) {
		struct sockaddr_in6 src, dst;
		unsigned int prefs = prefix(argv[2], &src), prefd = prefix(argv[3], &dst);
		char *policy = ipsec_set_policy(argv[4], (int)strlen(argv[4]));
		if (!policy)
			die("%s: %s", argv[4], ipsec_strerror());
		type = SADB_X_SPDADD;
		sent = pfkey_send_spdadd(s, (struct sockaddr *)&src, prefs, (struct sockaddr *)&dst, prefd,
			IPSEC_ULPROTO_ANY, policy, ipsec_get_policylen(policy), 0);
		free(policy);
	} else if (strcmp(what, "dump") == 0) {
		type = SADB_X_SPDDUMP;
		sent = pfkey_send_spddump(s);
	} else if (strcmp(what, "get") == 0) {
		type = SADB_X_SPDGET;
		sent = pfkey_send_spdget(s, number(argv[2]));
	} else if (strcmp(what, "delete") == 0) {
		type = SADB_X_SPDDELETE2;
		sent = pfkey_send_spddelete2(s, number(argv[2]));
	} else {
		type = SADB_X_SPDFLUSH;
		sent = pfkey_send_spdflush(s);
	}
	if (sent < 0)
		die("%s: %s", what, ipsec_strerror());
	return answers(s, type);
}
