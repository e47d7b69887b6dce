/*
 * Random calls of the library from several threads on descriptors of their own and on shared ones, while processes are
 * forked that call it too, threads are cancelled inside of it, and signal handlers ask it for its last error. Nothing may
 * hang, crash or leave descriptors behind.
 *
 *   sequences SECONDS [SEED] [WITHOUT...]     WITHOUT: fork, cancel, signal
 *
 * The first process only watches: each thread and each forked process says in shared memory what it is about to do, and
 * since when. The seed is printed; with the same seed each thread draws the same calls.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <pfkey_rs.h>

#define THREADS 4
#define SHARED 3
#define OWN 4
/* A call that takes longer hangs. */
#define PATIENCE 20.0

/* What a thread or process does now. */
struct slot {
	_Atomic(const char *) what;
	_Atomic double since;
	atomic_ulong calls;
};

static struct board {
	/* Each thread's own, its cancelled thread's, its forked process's. */
	struct slot slots[THREADS][3];
	atomic_int over;
	atomic_ulong forks, cancels, signals;
} *board;

static int shared[SHARED];
static int with_fork = 1, with_cancel = 1, with_signal = 1;
static unsigned long seed;

struct random {
	unsigned long state;
};

static unsigned long draw(struct random *r, unsigned long below)
{
	r->state += 0x9e3779b97f4a7c15;
	unsigned long z = r->state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % below;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void begin(struct slot *slot, const char *what)
{
	atomic_store(&slot->since, now());
	atomic_store(&slot->what, what);
}

static void end(struct slot *slot)
{
	atomic_store(&slot->what, NULL);
	atomic_fetch_add(&slot->calls, 1);
}

#define DO(call) do { begin(slot, #call); (void)(call); end(slot); } while (0)

static struct sockaddr_in address(struct random *r)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	a.sin_addr.s_addr = htonl(0x0a000001 + (unsigned)draw(r, 4));
	return a;
}

static int count(const struct pfkey_sa_view *sa, void *arg)
{
	(void)sa;
	return ++*(int *)arg > 1000;
}

/* Receives what waits, and shows some of it. Nothing blocks. */
static void receive(struct slot *slot, struct random *r, int so)
{
	for (int i = 0; i < 8; i++) {
		struct sadb_msg *msg;
		DO(msg = pfkey_recv(so));
		if (msg == NULL)
			return;
		caddr_t mhp[SADB_EXT_MAX + 1];
		DO(pfkey_align(msg, mhp));
		switch (draw(r, 6)) {
		case 0: DO(pfkey_sadump(msg)); break;
		case 1: DO(pfkey_spdump(msg)); break;
		case 2: DO(kdebug_sadb(msg)); break;
		case 3: DO(pfkey_check(mhp)); break;
		}
		free(msg);
	}
}

/* What a thread has, and gives back also when it is cancelled. */
struct own {
	int fds[OWN];
};

static void close_own(void *arg)
{
	struct own *own = arg;
	for (int i = 0; i < OWN; i++)
		if (own->fds[i] >= 0)
			pfkey_close(own->fds[i]);
}

static void nonblocking(int so)
{
	if (so >= 0)
		fcntl(so, F_SETFL, O_NONBLOCK);
}

/* One call, or a few that go together. */
static void act(struct slot *slot, struct random *r, struct own *own)
{
	unsigned long which = draw(r, OWN);
	int *place = &own->fds[which];
	int so = *place >= 0 && draw(r, 2) ? *place : shared[draw(r, SHARED)];
	struct sockaddr_in src = address(r), dst = address(r);
	struct sockaddr *from = (struct sockaddr *)&src, *to = (struct sockaddr *)&dst;
	u_int32_t spi = htonl(0x1000 + (u_int32_t)draw(r, 8));
	char key[36] = "0123456789abcdef0123456789abcdefghi";
	switch (draw(r, 24)) {
	case 0:
		if (*place < 0) {
			DO(*place = pfkey_open());
			nonblocking(*place);
		} else {
			DO(pfkey_close(*place));
			*place = -1;
		}
		break;
	case 1: DO(pfkey_send_register(so, SADB_SATYPE_ESP)); DO(pfkey_recv_register(so)); break;
	case 2: DO(pfkey_send_dump(so, SADB_SATYPE_UNSPEC)); break;
	case 3: DO(pfkey_send_flush(so, SADB_SATYPE_ESP)); break;
	case 4: case 5: case 6: {
		struct pfkey_send_sa_args sa = {
			.so = so, .satype = SADB_SATYPE_ESP, .mode = IPSEC_MODE_TRANSPORT, .src = from, .dst = to,
			.spi = spi, .wsize = 4, .keymat = key, .e_type = SADB_X_EALG_AESCBC, .e_keylen = 16,
			.a_type = SADB_AALG_SHA1HMAC, .a_keylen = 20, .seq = 1,
		};
		if (draw(r, 2))
			DO(pfkey_send_add2(&sa));
		else
			DO(pfkey_send_update2(&sa));
		break;
	}
	case 7: DO(pfkey_send_get(so, SADB_SATYPE_ESP, IPSEC_MODE_ANY, from, to, spi)); break;
	case 8: DO(pfkey_send_delete(so, SADB_SATYPE_ESP, IPSEC_MODE_ANY, from, to, spi)); break;
	case 9: DO(pfkey_send_getspi(so, SADB_SATYPE_ESP, IPSEC_MODE_ANY, from, to, 0x1000, 0x1fff, 0, 7)); break;
	case 10: case 11: {
		char text[] = "out ipsec esp/transport//require";
		ipsec_policy_t policy;
		DO(policy = ipsec_set_policy(text, sizeof text - 1));
		if (policy == NULL)
			break;
		DO(pfkey_send_spdadd(so, from, 32, to, 32, 255, policy, ipsec_get_policylen(policy), 0));
		char *shown;
		DO(shown = ipsec_dump_policy(policy, NULL));
		free(shown);
		free(policy);
		break;
	}
	case 12: DO(pfkey_send_spddump(so)); break;
	case 13: DO(pfkey_send_spdflush(so)); break;
	case 14: DO(pfkey_send_spdget(so, (u_int32_t)draw(r, 32))); break;
	case 15: DO(pfkey_send_promisc_toggle(so, (int)draw(r, 2))); break;
	case 16: DO(ipsec_strerror()); break;
	case 17: DO(ipsec_check_keylen(SADB_EXT_SUPPORTED_AUTH, SADB_AALG_SHA1HMAC, 160)); break;
	case 18: DO(pfkey_send_spddelete2(-1, 3)); DO(ipsec_strerror()); break;
	case 19:
		if (*place >= 0) {
			int n = 0;
			DO(pfkey_dump_foreach(*place, SADB_SATYPE_UNSPEC, count, &n));
		}
		break;
	case 20:
		if (*place < 0)
			break;
		DO(pfkey_batch_begin(*place));
		DO(pfkey_send_delete(*place, SADB_SATYPE_ESP, IPSEC_MODE_ANY, from, to, spi));
		DO(pfkey_send_flush(*place, SADB_SATYPE_AH));
		if (draw(r, 2))
			DO(pfkey_batch_end(NULL, NULL));
		else
			DO(pfkey_batch_drop());
		break;
	case 21: {
		struct pfkey_engine *engine;
		DO(engine = pfkey_engine_new(NULL));
		DO(pfkey_engine_open(engine));
		DO(pfkey_engine_free(engine));
		break;
	}
	default: receive(slot, r, so); break;
	}
}

/* Descriptors of the parent's threads are the child's too; the child closes none of the shared ones. */
static void forked(struct slot *slot, struct random *r)
{
	begin(slot, "fork");
	atomic_fetch_add(&board->forks, 1);
	unsigned long state = draw(r, 1 << 30);
	pid_t pid = fork();
	if (pid == 0) {
		struct random own_random = { state };
		struct own own = { { -1, -1, -1, -1 } };
		for (int i = 0; i < 12; i++)
			act(slot, &own_random, &own);
		close_own(&own);
		_exit(0);
	}
	if (pid < 0) {
		end(slot);
		return;
	}
	int status;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "a forked process ended with status %#x\n", (unsigned)status);
		_exit(1);
	}
	end(slot);
}

struct cancelled {
	struct slot *slot;
	struct random r;
};

static void *cancelled(void *arg)
{
	struct cancelled *c = arg;
	struct own own = { { -1, -1, -1, -1 } };
	pthread_cleanup_push(close_own, &own);
	for (;;) {
		act(c->slot, &c->r, &own);
		pthread_testcancel();
	}
	pthread_cleanup_pop(1);
	return NULL;
}

static void cancel_one(struct slot *slot, struct slot *victims, struct random *r)
{
	struct cancelled c = { victims, { draw(r, 1 << 30) } };
	pthread_t thread;
	begin(slot, "pthread_cancel");
	atomic_fetch_add(&board->cancels, 1);
	if (pthread_create(&thread, NULL, cancelled, &c) == 0) {
		struct timespec nap = { .tv_nsec = (long)draw(r, 3000000) };
		nanosleep(&nap, NULL);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		atomic_store(&victims->what, NULL);
	}
	end(slot);
}

static void *work(void *arg)
{
	struct slot *slots = arg, *slot = &slots[0];
	long number = slots - &board->slots[0][0];
	struct random r = { seed + (unsigned long)number };
	struct own own = { { -1, -1, -1, -1 } };
	while (!atomic_load(&board->over)) {
		unsigned long n = draw(&r, 200);
		if (n < 4 && with_fork)
			forked(&slots[2], &r);
		else if (n == 5 && with_cancel)
			cancel_one(slot, &slots[1], &r);
		else
			act(slot, &r, &own);
	}
	close_own(&own);
	return NULL;
}

static void handler(int signal)
{
	int kept = errno;
	(void)signal;
	atomic_fetch_add(&board->signals, 1);
	(void)ipsec_strerror();
	errno = kept;
}

static int descriptors(void)
{
	int n = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (directory != NULL && readdir(directory) != NULL)
		n++;
	if (directory != NULL)
		closedir(directory);
	return n;
}

static int worker(void)
{
	/* What is shown goes nowhere; stdio is initialised before there are threads. */
	if (freopen("/dev/null", "w", stdout) == NULL)
		return 1;
	int before = descriptors();
	for (int i = 0; i < SHARED; i++) {
		shared[i] = pfkey_open();
		if (shared[i] < 0) {
			fprintf(stderr, "pfkey_open: %s\n", ipsec_strerror());
			return 1;
		}
		nonblocking(shared[i]);
	}
	if (with_signal) {
		struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
		struct itimerval timer = { { 0, 3000 }, { 0, 3000 } };
		sigaction(SIGALRM, &action, NULL);
		setitimer(ITIMER_REAL, &timer, NULL);
	}
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, board->slots[i]) != 0)
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < SHARED; i++)
		pfkey_close(shared[i]);
	int after = descriptors();
	/* A thread that is cancelled between opening and what it does with it leaves a descriptor. */
	if (after > before && !with_cancel) {
		fprintf(stderr, "%d descriptors at the beginning, %d at the end\n", before, after);
		return 1;
	}
	return 0;
}

/* What has been going on for too long, or NULL. */
static const char *hanging(void)
{
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < 3; j++) {
			struct slot *slot = &board->slots[i][j];
			const char *what = atomic_load(&slot->what);
			if (what != NULL && now() - atomic_load(&slot->since) > PATIENCE)
				return what;
		}
	return NULL;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	if (argc > 2)
		seed = strtoul(argv[2], NULL, 0);
	else if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		return 1;
	for (int i = 3; i < argc; i++) {
		with_fork = with_fork && strcmp(argv[i], "fork") != 0;
		with_cancel = with_cancel && strcmp(argv[i], "cancel") != 0;
		with_signal = with_signal && strcmp(argv[i], "signal") != 0;
	}
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return 1;
	printf("seed %#lx\n", seed);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		_exit(worker());
	}
	setpgid(pid, pid);
	double until = now() + seconds;
	int status;
	for (;;) {
		struct timespec nap = { .tv_nsec = 50000000 };
		pid_t ended = waitpid(pid, &status, WNOHANG);
		if (ended == pid)
			break;
		const char *what = hanging();
		if (what != NULL || now() > until + 3 * PATIENCE) {
			/* The name is in the program, which is the same in both processes. */
			printf("hangs: %s\n", what != NULL ? what : "at the end");
			fflush(stdout);
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return 1;
		}
		if (now() > until)
			atomic_store(&board->over, 1);
		nanosleep(&nap, NULL);
	}
	unsigned long calls = 0;
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < 3; j++)
			calls += atomic_load(&board->slots[i][j].calls);
	printf("%lu calls, %lu forks, %lu cancelled threads, %lu signals\n", calls, atomic_load(&board->forks),
	    atomic_load(&board->cancels), atomic_load(&board->signals));
	if (WIFSIGNALED(status))
		printf("crashed: signal %d\n", WTERMSIG(status));
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
