/* A PF_KEY descriptor in other processes: inherited over fork, and passed over a socket. */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
	"usage: fork_and_pass\n"
	"\n"
	"Opens a PF_KEY descriptor, uses it in a child that inherited it, and in one that got it over a socket after the\n"
	"parent closed its own.\n"
	"\n"
	"exit status: 0; 1 if something failed, 2 for bad usage\n";

/* FLUSH and its answer. */
static void use(int s, const char *who)
{
	struct builder b;
	struct sadb_msg *answer;
	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 7);
	end_message(&b);
	send_message(s, b.bytes, b.len);
	answer = receive_message(s, 5000);
	if (!answer)
		die("%s: no answer", who);
	printf("%s: ", who);
	print_message(answer);
	fflush(stdout);
}

static void wait_for(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		die("the child failed");
}

static void pass(int over, int s)
{
	char byte = 0;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { &byte, 1 };
	struct msghdr message;
	struct cmsghdr *head;

	memset(&control, 0, sizeof control);
	memset(&message, 0, sizeof message);
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	message.msg_control = control.space;
	message.msg_controllen = sizeof control.space;
	head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &s, sizeof s);
	if (sendmsg(over, &message, 0) != 1)
		die("sendmsg: %s", strerror(errno));
}

static int take(int over)
{
	char byte;
	int s = -1;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { &byte, 1 };
	struct msghdr message;
	struct cmsghdr *head;

	memset(&message, 0, sizeof message);
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	message.msg_control = control.space;
	message.msg_controllen = sizeof control.space;
	if (recvmsg(over, &message, 0) != 1)
		die("recvmsg: %s", strerror(errno));
	head = CMSG_FIRSTHDR(&message);
	if (!head || head->cmsg_type != SCM_RIGHTS)
		die("no descriptor came");
	memcpy(&s, CMSG_DATA(head), sizeof s);
	return s;
}

int main(int argc, char **argv)
{
	int s, channel[2];
	pid_t child;

	if (argc != 1) {
		int help = argc == 2 && strcmp(argv[1], "--help") == 0;
		fputs(usage, help ? stdout : stderr);
		return help ? 0 : 2;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) < 0)
		die("socketpair: %s", strerror(errno));
	/* This child was there before the descriptor. */
	child = fork();
	if (child == 0) {
		use(take(channel[1]), "passed");
		return 0;
	}
	s = open_pfkey();
	use(s, "opener");
	fflush(stdout);
	pid_t heir = fork();
	if (heir == 0) {
		use(s, "inherited");
		return 0;
	}
	wait_for(heir);
	pass(channel[0], s);
	close(s);
	wait_for(child);
	return 0;
}
