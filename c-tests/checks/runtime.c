/* The runtime's side of the OCI specification's seccomp agent: installs the filter that the profile of docs/preload.md
 * makes, hands its listener and a state to the agent, and becomes a program.
 *   runtime SOCKET PROGRAM [ARGUMENT...]
 *   runtime SOCKET silent | garbage | nothing | other     what is no container: the agent has to bear it
 * Exit status 77: it cannot be tried here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/net.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))
#define ARGUMENT(n) ((unsigned)offsetof(struct seccomp_data, args[n]))
#define TELL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* Behind a number: the number again for the next. */
#define CALL(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 5)
#define ON_OURS(number) CALL(number), LOAD(ARGUMENT(0)), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffffff00), \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 768, 0, 1), TELL, ALLOW
/* As libseccomp does where the C library has this one call for all of a socket's: what a filter does not see is told of always. */
#ifdef SYS_socketcall
#define WHICH(which) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (which), 0, 1), TELL
#define SOCKETCALL BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socketcall, 0, 12), LOAD(ARGUMENT(0)), WHICH(SYS_SOCKET), \
	WHICH(SYS_SEND), WHICH(SYS_SENDTO), WHICH(SYS_SENDMSG), WHICH(SYS_SENDMMSG), ALLOW,
#else
#define SOCKETCALL
#endif

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* Nobody answers what the filter tells of before the agent has the listener: by the calls' own numbers, and not by socketcall. */
static void hand_over(const char *path, const char *state, int fd)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct iovec part = { (char *)state, strlen(state) };
	union { struct cmsghdr head; char space[CMSG_SPACE(sizeof(int))]; } control;
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int s = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t half = strlen(state) / 2;

	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	if (s < 0 || syscall(SYS_connect, s, &to, sizeof to) < 0)
		fail("connect");
	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	}
	/* In two pieces. */
	part.iov_len = half;
	if (*state && syscall(SYS_sendmsg, s, &message, 0) < 0)
		fail("sendmsg");
	/* An agent that has seen enough of what is no state may close before the rest. */
	if (*state && syscall(SYS_sendto, s, state + half, strlen(state) - half, MSG_NOSIGNAL, NULL, 0) < 0 && errno != EPIPE)
		fail("send");
	if (!*state)
		pause();
	close(s);
}

int main(int argc, char **argv)
{
	struct sock_filter filter[] = {
		LOAD(offsetof(struct seccomp_data, nr)),
		CALL(SYS_socket), LOAD(ARGUMENT(0)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 15, 1, 0), ALLOW, TELL, ALLOW,
		ON_OURS(SYS_sendto), ON_OURS(SYS_sendmsg), ON_OURS(SYS_sendmmsg), ON_OURS(SYS_writev),
		SOCKETCALL
		ALLOW,
	};
	struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };
	char state[512];
	int listener;

	if (argc < 3)
		return 2;
	if (strcmp(argv[2], "silent") == 0)
		hand_over(argv[1], "", -1);
	if (strcmp(argv[2], "garbage") == 0)
		hand_over(argv[1], "} no state {", open("/dev/null", O_RDWR));
	if (strcmp(argv[2], "nothing") == 0)
		hand_over(argv[1], "{\"fds\": [\"seccompFd\"]}", -1);
	if (strcmp(argv[2], "other") == 0)
		hand_over(argv[1], "{\"fds\": [\"seccompFd\"]}", open("/dev/null", O_RDWR));
	if (argv[2][0] != '/')
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("no_new_privs");
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		return 77;
	snprintf(state, sizeof state, "{\"ociVersion\": \"1.0.2\", \"fds\": [\"seccompFd\"], \"pid\": %d, \"metadata\": \"pf_key\","
		" \"state\": {\"ociVersion\": \"1.0.2\", \"id\": \"a test\", \"status\": \"creating\", \"pid\": %d, \"bundle\": \"/\"}}",
		getpid(), getpid());
	hand_over(argv[1], state, listener);
	close(listener);
	execv(argv[2], argv + 2);
	fail(argv[2]);
}
