/* Prints every SA, as the program of section 19.3 does. Unlike there a message of somebody else does not end it. */
#include "unp.h"

#include <stdio.h>
#include <unistd.h>

static const char usage[] = "usage: dump [-b] [-t unspec|ah|esp|rsvp|ospfv2|ripv2|mip]\n";

int main(int argc, char **argv)
{
	int satype = SADB_SATYPE_UNSPEC, book = 0, option, s;
	struct sadb_msg *msg;
	struct builder b;

	while ((option = getopt(argc, argv, "bt:")) != -1)
		switch (option) {
		case 'b':
			book = 1;
			break;
		case 't':
			if ((satype = getsatypebyname(optarg)) == -1) {
				fprintf(stderr, "invalid -t option %s\n", optarg);
				return 2;
			}
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	if (optind != argc) {
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	begin_message(&b, SADB_DUMP, satype, 0);
	end_message(&b);
	printf("Sending dump message:\n");
	print_sadb_msg((struct sadb_msg *)(void *)b.bytes, book);
	send_message(s, b.bytes, b.len);
	printf("\nMessages returned:\n");
	do {
		while ((msg = next_message(s))->sadb_msg_type != SADB_DUMP || msg->sadb_msg_pid != (uint32_t)getpid())
			;
		print_sadb_msg(msg, book);
	} while (msg->sadb_msg_seq != 0 && msg->sadb_msg_errno == 0);
	return 0;
}
