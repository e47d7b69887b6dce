/* Registers for an SA type and prints the algorithms, as the program of section 19.5 does. */
#include "unp.h"

#include <stdio.h>
#include <unistd.h>

static const char usage[] = "usage: register [-b] -t ah|esp|rsvp|ospfv2|ripv2|mip\n";

int main(int argc, char **argv)
{
	int satype = -1, book = 0, option, s;
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
	if (optind != argc || satype == -1) {
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	begin_message(&b, SADB_REGISTER, satype, 0);
	end_message(&b);
	printf("Sending register message:\n");
	print_sadb_msg((struct sadb_msg *)(void *)b.bytes, book);
	send_message(s, b.bytes, b.len);
	printf("\nReply returned:\n");
	while ((msg = next_message(s))->sadb_msg_type != SADB_REGISTER || msg->sadb_msg_pid != (uint32_t)getpid())
		;
	print_sadb_msg(msg, book);
	return msg->sadb_msg_errno != 0;
}
