/* Prints every SA, as the program of chapter 19 of Unix Network Programming does. */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char usage[] =
	"usage: sadb_dump [-t unspec|ah|esp|ipcomp] [-r BYTES]\n"
	"\n"
	"Sends SADB_DUMP and prints every answer up to the one with sequence number 0.\n"
	"\n"
	"  -r BYTES   receive buffer (SO_RCVBUF): a dump waits while it is full\n"
	"\n"
	"exit status: 0; 1 if the dump failed (an empty SADB is no failure), 2 for bad usage\n";

int main(int argc, char **argv)
{
	int satype = SADB_SATYPE_UNSPEC, room = 0, option, s;
	struct builder b;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	while ((option = getopt(argc, argv, "t:r:")) != -1) {
		if (option == 'r' && (room = atoi(optarg)) > 0)
			continue;
		if (option != 't') {
			fputs(usage, stderr);
			return 2;
		}
		satype = satype_by_name(optarg);
		if (satype < 0) {
			fprintf(stderr, "sadb_dump: no SA type \"%s\"\n%s", optarg, usage);
			return 2;
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	if (room && setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) < 0)
		die("SO_RCVBUF: %s", strerror(errno));
	begin_message(&b, SADB_DUMP, satype, 0);
	end_message(&b);
	printf("Sending dump message:\n");
	print_message((struct sadb_msg *)(void *)b.bytes);
	send_message(s, b.bytes, b.len);
	printf("\nMessages returned:\n");
	for (;;) {
		struct sadb_msg *answer = receive_message(s, 5000);
		if (!answer)
			die("the dump broke off");
		/* Somebody else's message may come in between. */
		if (answer->sadb_msg_type != SADB_DUMP || answer->sadb_msg_pid != (uint32_t)getpid())
			continue;
		print_message(answer);
		if (answer->sadb_msg_errno)
			return answer->sadb_msg_errno != ENOENT;
		if (answer->sadb_msg_seq == 0)
			return 0;
	}
}
