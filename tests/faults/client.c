/*
 * What a key manager does first, between marks that tests/faults/inject.c knows. Whatever call fails in between: every
 * function returns, the next calls work, and no descriptor is left open. Exit status 1 and a line on stderr otherwise; 3 if
 * whoever serves ended the session, which AF_KEY never does.
 *
 *   client           marks opening (1), sending (2), receiving (3), closing (4): failures on the caller's side
 *   client served    marks everything behind the opening (5): failures on the side of the pfkeyd that it started
 *   client listened  marks everything (5): failures on the side of a pfkeyd that listens
 *   client bereaved  the same, and kills the pfkeyd's worker on the way; the pfkeyd is the parent of this process
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <libpfkey.h>

static enum { CALLER, SERVED, LISTENED } side;
static int marking = 1, ended, bereaved;

static void mark(int n)
{
	/* On the other side there is one phase, which lasts until the end. */
	if (marking && (n < 5) == (side == CALLER))
		prctl(0x6d61726b, n, 0, 0, 0);
}

static void fail(const char *format, ...)
{
	va_list arguments;
	prctl(0x6d61726b, 0, 0, 0, 0);
	va_start(arguments, format);
	fprintf(stderr, "client: ");
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

/* Descriptors that are open. */
static int descriptors(void)
{
	int n = 0;
	DIR *directory = opendir("/proc/self/fd");
	if (directory == NULL)
		fail("/proc/self/fd: %s", strerror(errno));
	while (readdir(directory) != NULL)
		n++;
	closedir(directory);
	return n;
}

/* Kills the worker: the child of another child of the pfkeyd whose child this is. */
static void kill_worker(void)
{
	char path[64];
	int guardian = 0, worker = 0;
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", getppid(), getppid());
	FILE *file = fopen(path, "r");
	while (file != NULL && fscanf(file, "%d", &guardian) == 1 && guardian == getpid())
		guardian = 0;
	if (file == NULL || guardian == 0)
		fail("no guardian in %s", path);
	fclose(file);
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", guardian, guardian);
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%d", &worker) != 1 || kill(worker, SIGKILL) < 0)
		fail("no worker in %s", path);
	fclose(file);
}

/* Registers; with `must` everything has to succeed. 1 if it did. */
static int run(int must)
{
	int ok = 0;
	mark(1);
	if (side == LISTENED)
		mark(5);
	int so = pfkey_open();
	mark(0);
	if (so < 0) {
		if (must)
			fail("opening does not work any more: %s", ipsec_strerror());
		fprintf(stderr, "client: open: %s\n", ipsec_strerror());
		return 0;
	}
	mark(5);
	if (side != CALLER) {
		struct timeval patience = { .tv_sec = 2 };
		setsockopt(so, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	}
	for (int try = 0; try < 2; try++) {
		mark(2);
		int sent = pfkey_send_register(so, SADB_SATYPE_ESP);
		mark(0);
		if (sent < 0) {
			fprintf(stderr, "client: send: %s\n", ipsec_strerror());
			if (must)
				fail("sending does not work: %s", ipsec_strerror());
			if (side != CALLER) {
				ended = 1;
				break;
			}
			continue;
		}
		mark(3);
		struct sadb_msg *answer = pfkey_recv(so);
		mark(0);
		if (answer == NULL) {
			fprintf(stderr, "client: receive: %s\n", ipsec_strerror());
			if (must)
				fail("receiving does not work: %s", ipsec_strerror());
			if (side != CALLER) {
				/* It could not be sent; but whoever serves goes on serving. */
				if (errno == EAGAIN)
					continue;
				ended = 1;
				break;
			}
			answer = pfkey_recv(so);
			if (answer == NULL)
				fail("receiving does not work any more: %s", ipsec_strerror());
		}
		if (answer->sadb_msg_type != SADB_REGISTER)
			fail("an answer of type %d", answer->sadb_msg_type);
		/* The answer to the first try was lost, but what it asked for was done. */
		if (answer->sadb_msg_errno == EEXIST && try > 0)
			answer->sadb_msg_errno = 0;
		if (answer->sadb_msg_errno != 0) {
			fprintf(stderr, "client: answer: %s\n", strerror(answer->sadb_msg_errno));
			if (must)
				fail("an errno: %s", strerror(answer->sadb_msg_errno));
		} else {
			ok = 1;
		}
		free(answer);
		if (ok)
			break;
	}
	if (ok && bereaved && marking) {
		kill_worker();
		struct sadb_msg *answer = pfkey_send_register(so, SADB_SATYPE_AH) < 0 ? NULL : pfkey_recv(so);
		/* The answer may be lost, as before. */
		if (answer == NULL && errno != EAGAIN)
			ended = 1;
		free(answer);
	}
	/* A request that was carried out twice is answered twice, both times before it is taken. */
	if (ok && side != CALLER) {
		struct sadb_msg more;
		if (recv(so, &more, sizeof more, MSG_DONTWAIT) > 0)
			fail("answered twice");
	}
	mark(4);
	pfkey_close(so);
	mark(0);
	if (!ok && !ended && side != CALLER)
		fail("the second try failed, too");
	return ok;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		side = strcmp(argv[1], "served") == 0 ? SERVED : LISTENED;
	bereaved = argc > 1 && strcmp(argv[1], "bereaved") == 0;
	/* A daemon around this program may still be starting: that it does not start is no fault of its loop. This session stays, so
	 * that its end is none of the calls either. */
	if (side == LISTENED) {
		int first = pfkey_open();
		if (first < 0 || pfkey_send_flush(first, SADB_SATYPE_UNSPEC) < 0)
			fail("the daemon does not serve: %s", ipsec_strerror());
		free(pfkey_recv(first));
	}
	int before = descriptors();
	run(0);
	int after = descriptors();
	if (after != before)
		fail("%d descriptors were open, now %d", before, after);
	marking = 0;
	prctl(0x6d61726b, 0, 0, 0, 0);
	if (!run(1))
		fail("nothing works any more");
	return ended ? 3 : 0;
}
