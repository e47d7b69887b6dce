/* What a PF_KEY descriptor has to survive. descriptor TEST; exit status 0 = it did, 77 = cannot be tried here. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpfkey.h>

static volatile sig_atomic_t children;

static void on_child(int signal)
{
	(void)signal;
	children++;
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: errno %s, %s\n", what, strerror(errno), ipsec_strerror());
	return 1;
}

/* FLUSH and its answer. */
static int use(int s)
{
	struct sadb_msg *answer;
	if (pfkey_send_flush(s, SADB_SATYPE_UNSPEC) != sizeof *answer)
		return fail("pfkey_send_flush");
	answer = pfkey_recv(s);
	if (!answer || answer->sadb_msg_type != SADB_FLUSH || answer->sadb_msg_errno)
		return fail("pfkey_recv");
	free(answer);
	return 0;
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";
	int s;

	if (strcmp(test, "use") == 0)
		return use(atoi(argv[2]));
	signal(SIGCHLD, on_child);
	s = pfkey_open();
	if (s < 0)
		return fail("pfkey_open");
	if (strcmp(test, "reap") == 0) {
		/* Neither a child to wait for, nor a signal, while it runs and after it ended. */
		if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD)
			return fail("there is a child");
		if (use(s))
			return 1;
		pfkey_close(s);
		if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD || children)
			return fail("there was a child");
		return 0;
	}
	if (strcmp(test, "fork") == 0) {
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit(use(s));
		if (waitpid(child, &status, 0) != child || status != 0)
			return fail("the child");
		return use(s);
	}
	if (strcmp(test, "exec") == 0) {
		char number[16];
		snprintf(number, sizeof number, "%d", s);
		execl("/proc/self/exe", argv[0], "use", number, (char *)NULL);
		return fail("execl");
	}
	if (strcmp(test, "chroot") == 0) {
		if (geteuid() != 0)
			return 77;
		if (chroot(argv[2]) || chdir("/"))
			return fail("chroot");
		return use(s);
	}
	if (strcmp(test, "setuid") == 0) {
		if (geteuid() != 0)
			return 77;
		if (setgid(65534) || setuid(65534))
			return fail("setuid");
		return use(s);
	}
	if (strcmp(test, "low") == 0) {
		/* racoon's is descriptor 0. */
		pfkey_close(s);
		close(0);
		s = pfkey_open();
		return s != 0 ? fail("not descriptor 0") : use(s);
	}
	fprintf(stderr, "no test %s\n", test);
	return 2;
}
