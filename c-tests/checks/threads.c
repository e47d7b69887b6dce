/* What threads, forked children, signal handlers and cancelled threads do with the library. threads TEST; exit status 0 =
 * all went well.
 * Whatever hangs is ended by SIGALRM. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpfkey.h>

#define CHILDREN 500
#define ROUNDS 200

static void must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s: errno %s, %s\n", what, strerror(errno), ipsec_strerror());
	_exit(1);
}

/* Calls of each kind; sending fails with EAGAIN once nobody reads. */
static void call_all(int s)
{
	struct sadb_alg alg;

	pfkey_send_register(s, SADB_SATYPE_ESP);
	free(ipsec_set_policy("out ipsec esp/transport//require", 0));
	pfkey_send_flush(-1, SADB_SATYPE_UNSPEC);
	must(*ipsec_strerror() != '\0', "a text");
	ipsec_get_keylen(SADB_EXT_SUPPORTED_AUTH, 2, &alg);
	pfkey_spdump_filtered_count();
	pfkey_set_softrate(0, 80);
}

static void *call_for_ever(void *arg)
{
	for (;;)
		call_all(*(int *)arg);
	return NULL;
}

static void children_of_a_program_with_threads(void)
{
	static int ends[2];
	pthread_t thread;
	int status;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
	for (int i = 0; i < 4; i++)
		must(pthread_create(&thread, NULL, call_for_ever, ends) == 0, "pthread_create");
	for (int i = 0; i < CHILDREN; i++) {
		pid_t child = fork();

		if (child == 0) {
			alarm(10);
			call_all(ends[0]);
			_exit(0);
		}
		must(child > 0 && waitpid(child, &status, 0) == child, "fork");
		if (WIFSIGNALED(status))
			fprintf(stderr, "child %d: %s\n", i, strsignal(WTERMSIG(status)));
		must(status == 0, "a child hangs");
	}
}

static volatile sig_atomic_t handled;

static void on_timer(int signal)
{
	int error = errno;

	(void)signal;
	handled += strlen(ipsec_strerror()) > 0;
	errno = error;
}

static void a_handler_inside_a_call(void)
{
	struct sigaction action = { .sa_handler = on_timer };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec often = { { 0, 20000 }, { 0, 20000 } };
	timer_t timer;
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
	must(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
	must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
	must(timer_settime(timer, 0, &often, NULL) == 0, "timer_settime");
	while (handled < 20000)
		call_all(ends[0]);
	timer_delete(timer);
}

static int descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	must(dir != NULL, "/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

struct victim {
	int s;
	int type;
	atomic_int tid;
	atomic_int calls;
};

static void begin(struct victim *victim)
{
	must(pthread_setcanceltype(victim->type, NULL) == 0, "pthread_setcanceltype");
	atomic_store(&victim->tid, (int)syscall(SYS_gettid));
}

static void *receives(void *arg)
{
	struct victim *victim = arg;

	begin(victim);
	for (;;)
		free(pfkey_recv(victim->s));
	return NULL;
}

static void *receives_register(void *arg)
{
	struct victim *victim = arg;

	begin(victim);
	for (;;)
		pfkey_recv_register(victim->s);
	return NULL;
}

static void *sends(void *arg)
{
	struct victim *victim = arg;

	begin(victim);
	for (;;) {
		must(pfkey_send_register(victim->s, SADB_SATYPE_ESP) > 0, "pfkey_send_register");
		atomic_fetch_add(&victim->calls, 1);
	}
	return NULL;
}

static void *opens(void *arg)
{
	struct victim *victim = arg;

	begin(victim);
	for (;;) {
		int s = pfkey_open();

		must(s >= 0, "pfkey_open");
		atomic_fetch_add(&victim->calls, 1);
		pfkey_close(s);
		pthread_testcancel();
	}
	return NULL;
}

/* Whether a thread sleeps. */
static int sleeps(int tid)
{
	char name[64], line[512] = "";
	FILE *file;
	char *state;

	snprintf(name, sizeof name, "/proc/self/task/%d/stat", tid);
	file = fopen(name, "r");
	must(file && fgets(line, sizeof line, file), name);
	fclose(file);
	state = strrchr(line, ')');
	return state && state[2] == 'S';
}

static void cancelled(void *(*body)(void *), int type, int waits)
{
	struct victim victim = { .s = pfkey_open(), .type = type };
	struct sadb_msg *answer;
	int before;

	must(victim.s >= 0, "pfkey_open");
	before = descriptors();
	for (int i = 0; i < ROUNDS; i++) {
		pthread_t thread;
		void *result = NULL;

		atomic_store(&victim.tid, 0);
		atomic_store(&victim.calls, 0);
		must(pthread_create(&thread, NULL, body, &victim) == 0, "pthread_create");
		/* At once, or where it waits, or after a few calls. */
		if (i % 2) {
			while (!atomic_load(&victim.tid))
				sched_yield();
			while (waits ? !sleeps(victim.tid) : atomic_load(&victim.calls) < i % 8)
				sched_yield();
		}
		must(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0, "pthread_cancel");
		must(result == PTHREAD_CANCELED, "it was cancelled");
	}
	must(descriptors() == before, "no descriptor is left");
	/* What the sender was answered. */
	must(fcntl(victim.s, F_SETFL, O_RDWR | O_NONBLOCK) == 0, "fcntl");
	for (struct sadb_msg *m; (m = pfkey_recv(victim.s)); )
		free(m);
	must(fcntl(victim.s, F_SETFL, O_RDWR) == 0, "fcntl");
	must(pfkey_send_flush(victim.s, SADB_SATYPE_UNSPEC) > 0, "pfkey_send_flush");
	answer = pfkey_recv(victim.s);
	must(answer && answer->sadb_msg_type == SADB_FLUSH, "pfkey_recv");
	free(answer);
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";

	alarm(120);
	if (strcmp(test, "fork") == 0)
		children_of_a_program_with_threads();
	else if (strcmp(test, "signals") == 0)
		a_handler_inside_a_call();
	else if (strcmp(test, "recv") == 0)
		cancelled(receives, PTHREAD_CANCEL_DEFERRED, 1);
	else if (strcmp(test, "recv-asynchronous") == 0)
		cancelled(receives, PTHREAD_CANCEL_ASYNCHRONOUS, 1);
	else if (strcmp(test, "recv_register") == 0)
		cancelled(receives_register, PTHREAD_CANCEL_DEFERRED, 1);
	else if (strcmp(test, "send") == 0)
		cancelled(sends, PTHREAD_CANCEL_DEFERRED, 0);
	else if (strcmp(test, "send-asynchronous") == 0)
		cancelled(sends, PTHREAD_CANCEL_ASYNCHRONOUS, 0);
	else if (strcmp(test, "open") == 0)
		cancelled(opens, PTHREAD_CANCEL_DEFERRED, 0);
	else
		return 2;
	_exit(0);
}
