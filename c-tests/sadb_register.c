/* Registers for an SA type and prints the algorithms that are supported. */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: sadb_register -t ah|esp|ipcomp\n"
	"\n"
	"Sends SADB_REGISTER and prints the algorithms of the answer.\n"
	"\n"
	"exit status: 0; 1 if the registration failed, 2 for bad usage\n";

int main(int argc, char **argv)
{
	int satype = -1, s;
	struct builder b;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "-t") == 0)
		satype = satype_by_name(argv[2]);
	if (satype < 0) {
		if (argc == 3)
			fprintf(stderr, "sadb_register: no SA type \"%s\"\n", argv[2]);
		fputs(usage, stderr);
		return 2;
	}
	s = open_pfkey();
	begin_message(&b, SADB_REGISTER, satype, 0);
	end_message(&b);
	printf("Sending register message:\n");
	print_message((struct sadb_msg *)(void *)b.bytes);
	send_message(s, b.bytes, b.len);
	printf("\nReply returned:\n");
	for (;;) {
		struct sadb_msg *answer = receive_message(s, 5000);
		if (!answer)
			die("no answer");
		if (answer->sadb_msg_type == SADB_REGISTER && answer->sadb_msg_pid == (uint32_t)getpid()) {
			print_message(answer);
			return answer->sadb_msg_errno != 0;
		}
	}
}
