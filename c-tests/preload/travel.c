/* A PF_KEY socket in other processes than the one that opened it, under other rights, as descriptor 0, and in a thread with a small
 * stack.
 * travel TEST [DIRECTORY]; exit status 77: it cannot be tried here. */
#include "../common.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* As iked: writev, one millisecond of poll, a peek, a read. */
static void use(int s)
{
	struct builder b;
	struct sadb_msg answer;
	struct iovec parts[2];
	struct pollfd wait = { .fd = s, .events = POLLIN };

	begin_message(&b, SADB_FLUSH, SADB_SATYPE_UNSPEC, 7);
	end_message(&b);
	parts[0] = (struct iovec){ b.bytes, 16 };
	parts[1] = (struct iovec){ NULL, 0 };
	if (writev(s, parts, 2) != 16)
		die("writev: %s", strerror(errno));
	if (poll(&wait, 1, 0) != 1)
		die("no answer when writev returned");
	if (recv(s, &answer, sizeof answer, MSG_PEEK) != sizeof answer || read(s, &answer, sizeof answer) != sizeof answer)
		die("read: %s", strerror(errno));
	if (answer.sadb_msg_type != SADB_FLUSH || answer.sadb_msg_seq != 7 || answer.sadb_msg_errno)
		die("another answer");
}

static void *open_and_use(void *unused)
{
	(void)unused;
	use(open_pfkey());
	return NULL;
}

static void wait_for(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		die("the child failed");
}

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

static void pass(int over, int s)
{
	char byte = 2;
	union control control = { .space = { 0 } };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

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
	union control control;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	struct cmsghdr *head;

	if (recvmsg(over, &message, 0) != 1)
		die("recvmsg: %s", strerror(errno));
	head = CMSG_FIRSTHDR(&message);
	if (!head || head->cmsg_type != SCM_RIGHTS)
		die("no descriptor came");
	memcpy(&s, CMSG_DATA(head), sizeof s);
	return s;
}

/* As iked's and racoon's processes. */
static void give_up_rights(const char *directory)
{
	if (chroot(directory) || chdir("/"))
		die("chroot: %s", strerror(errno));
	if (setgid(65534) || setuid(65534))
		die("setuid: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";
	const char *directory = argc > 2 ? argv[2] : "/";
	int root = geteuid() == 0;
	int s;

	if (strcmp(test, "use") == 0) {
		use(atoi(argv[2]));
	} else if (strcmp(test, "fork") == 0) {
		pid_t child;
		s = open_pfkey();
		child = fork();
		if (child == 0) {
			use(s);
			return 0;
		}
		wait_for(child);
		use(s);
	} else if (strcmp(test, "exec") == 0) {
		char number[16];
		snprintf(number, sizeof number, "%d", open_pfkey());
		execl("/proc/self/exe", argv[0], "use", number, (char *)NULL);
		die("execl: %s", strerror(errno));
	} else if (strcmp(test, "zero") == 0) {
		close(0);
		s = open_pfkey();
		if (s != 0)
			die("descriptor %d", s);
		use(s);
	} else if (strcmp(test, "small") == 0) {
		pthread_attr_t attributes;
		pthread_t thread;

		/* The least that a thread has needs much of itself. */
		pthread_attr_init(&attributes);
		if (pthread_attr_setstacksize(&attributes, (size_t)sysconf(_SC_THREAD_STACK_MIN) + 16384) ||
			pthread_create(&thread, &attributes, open_and_use, NULL) || pthread_join(thread, NULL))
			die("no thread");
	} else if (strcmp(test, "rights") == 0) {
		if (!root)
			return 77;
		s = open_pfkey();
		give_up_rights(directory);
		use(s);
	} else if (strcmp(test, "pass") == 0) {
		/* The child is there before the socket, and without rights: iked's order. */
		int channel[2];
		pid_t child;
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) < 0)
			die("socketpair: %s", strerror(errno));
		child = fork();
		if (child == 0) {
			if (root)
				give_up_rights(directory);
			use(take(channel[1]));
			return 0;
		}
		s = open_pfkey();
		pass(channel[0], s);
		close(s);
		wait_for(child);
	} else {
		die("no test %s", test);
	}
	return 0;
}
