/* Opening a descriptor in processes as they are: starting TEST [ARGUMENT]; exit status 0 = well, 77 = cannot be tried. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpfkey.h>

extern char **environ;

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s; %s\n", what, strerror(errno), ipsec_strerror());
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

static int open_and_use(void)
{
	int s = pfkey_open();
	if (s < 0)
		return fail("pfkey_open");
	return use(s);
}

/* The processes of the pfkeyd behind a descriptor: its guardian made the socket, and leads their session. */
static int signal_all(int s, int signal)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	struct dirent *entry;
	DIR *proc;
	int count = 0;
	if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || !(proc = opendir("/proc")))
		return fail("its processes");
	while ((entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);
		if (pid > 0 && getsid(pid) == peer.pid && kill(pid, signal) == 0)
			count++;
	}
	closedir(proc);
	return count >= 2 ? 0 : fail("a guardian and a worker");
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *spawn_for_ever(void *nothing)
{
	char *argv[] = { "true", NULL };
	pid_t pid;
	/* On one processor new processes without end can keep pfkeyd's from running for minutes (Linux 6.18). */
	setpriority(PRIO_PROCESS, 0, 19);
	for (;;)
		if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0)
			waitpid(pid, NULL, 0);
	return nothing;
}

/* Another thread's fork holds locks of the C library at the moment of ours. */
static int threads_that_spawn(void)
{
	pthread_t thread;
	int i, s;
	alarm(120);
	for (i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, spawn_for_ever, NULL))
			return fail("pthread_create");
	for (i = 0; i < 100; i++) {
		if ((s = pfkey_open()) < 0)
			return fail("pfkey_open");
		pfkey_close(s);
	}
	return 0;
}

static volatile int forking = 1;
static pid_t forked[4096];
static int forks;

static void *fork_for_ever(void *nothing)
{
	while (forking && forks < 4096) {
		pid_t pid = fork();
		if (pid == 0)
			for (;;)
				pause();
		if (pid > 0)
			forked[forks++] = pid;
	}
	return nothing;
}

/* A child that another thread forks in the middle keeps no end of pfkeyd's. */
static int children_in_the_middle(void)
{
	pthread_t thread;
	int opened[20], i, status = 0;
	alarm(120);
	if (pthread_create(&thread, NULL, fork_for_ever, NULL))
		return fail("pthread_create");
	for (i = 0; i < 20; i++)
		if ((opened[i] = pfkey_open()) < 0)
			return fail("pfkey_open");
	forking = 0;
	pthread_join(thread, NULL);
	for (i = 0; i < 20 && !status; i++) {
		char byte;
		/* The guardian first: nobody replaces the worker then. */
		status = signal_all(opened[i], SIGSTOP) || signal_all(opened[i], SIGKILL);
		if (!status && recv(opened[i], &byte, 1, 0) != 0)
			status = fail("no end of file");
	}
	for (i = 0; i < forks; i++)
		kill(forked[i], SIGKILL);
	return status;
}

/* AF_KEY opens with one descriptor left; we need three. */
static int few_descriptors(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	syscall(SYS_close_range, 3u, ~0u, 0);
	limit.rlim_cur = 6;
	setrlimit(RLIMIT_NOFILE, &limit);
	return open_and_use();
}

/* However many are left: it opens, or says why not, and nobody touches what the caller has. */
static int descriptors_of_the_caller(void)
{
	int left, pair[2], opened = 0;
	char byte;
	struct rlimit limit;
	syscall(SYS_close_range, 3u, ~0u, 0);
	/* 3 and 4, where pfkeyd has its own. */
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) < 0)
		return fail("socketpair");
	getrlimit(RLIMIT_NOFILE, &limit);
	for (left = 0; left < 10; left++) {
		int s;
		limit.rlim_cur = 5 + left;
		setrlimit(RLIMIT_NOFILE, &limit);
		s = pfkey_open();
		if (s < 0 && errno != EMFILE)
			return fail("another error than EMFILE");
		if (s >= 0) {
			opened++;
			if (use(s))
				return 1;
			pfkey_close(s);
		}
		for (int fd = 3; fd < 5; fd++)
			if (recv(fd, &byte, 1, 0) != -1 || errno != EAGAIN)
				return fail("something came over the caller's descriptor");
	}
	return opened >= 7 ? 0 : fail("it opens with three descriptors");
}

static int stopped(void)
{
	struct sadb_msg *answer;
	struct rusage before, after;
	double began;
	int s = pfkey_open();
	if (s < 0 || use(s) || signal_all(s, SIGSTOP))
		return fail("pfkey_open");
	alarm(100);
	began = now();
	getrusage(RUSAGE_SELF, &before);
	if (pfkey_send_flush(s, SADB_SATYPE_UNSPEC) < 0 || now() - began > 60)
		return fail("pfkey_send_flush");
	getrusage(RUSAGE_SELF, &after);
	/* Thirty seconds. It sleeps until something wakes it. */
	if (after.ru_nvcsw - before.ru_nvcsw > 100)
		return fail("it polls");
	if (signal_all(s, SIGCONT))
		return 1;
	if (!(answer = pfkey_recv(s)))
		return fail("pfkey_recv");
	free(answer);
	return 0;
}

/* Modules are loaded, the processor has other work. Key managers ask on non-blocking descriptors, and look only once. */
static int slow(void)
{
	char answer[4096];
	pid_t child;
	int s = pfkey_open();
	if (s < 0 || use(s) || signal_all(s, SIGSTOP))
		return fail("pfkey_open");
	alarm(60);
	fcntl(s, F_SETFL, O_RDWR | O_NONBLOCK);
	child = fork();
	if (child == 0) {
		sleep(3);
		_exit(signal_all(s, SIGCONT));
	}
	if (pfkey_send_flush(s, SADB_SATYPE_UNSPEC) < 0 || recv(s, answer, sizeof answer, 0) < 16)
		return fail("a sending function returned before the answer was there");
	return waitpid(child, NULL, 0) == child ? 0 : fail("waitpid");
}

/* PFKEYD names a program that does nothing. */
static int mute(void)
{
	double began = now();
	int s = pfkey_open();
	if (s >= 0 || errno != ETIMEDOUT || !strstr(ipsec_strerror(), "no answer") || now() - began > 60)
		return fail("a pfkeyd that says nothing");
	return 0;
}

static int new_pid_namespace(void)
{
	pid_t child;
	int status;
	if (unshare(CLONE_NEWPID) < 0)
		return 77;
	if (pfkey_open() >= 0 || errno != EAGAIN || !strstr(ipsec_strerror(), "CLONE_NEWPID"))
		return fail("pfkey_open after unshare");
	child = fork();
	if (child == 0)
		_exit(getpid() == 1 ? 0 : 1);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		return fail("the program's own first process");
	return 0;
}

/* In a new root there is pfkeyd and what it needs, and no /dev/null. */
static int no_dev_null(const char *root)
{
	char link[64], target[256];
	struct ucred peer;
	socklen_t len = sizeof peer;
	ssize_t n;
	int s, proc = open("/proc", O_RDONLY | O_DIRECTORY);
	if (chroot(root) < 0)
		return 77;
	if (chdir("/") < 0 || setenv("PFKEYD", "/pfkeyd", 1) || (s = pfkey_open()) < 0 || use(s))
		return fail("pfkey_open");
	if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return fail("SO_PEERCRED");
	for (int fd = 0; fd < 3; fd++) {
		snprintf(link, sizeof link, "%d/fd/%d", peer.pid, fd);
		n = readlinkat(proc, link, target, sizeof target - 1);
		if (n < 0 || strncmp(target, "socket:", 7) != 0)
			return fail("pfkeyd has the caller's streams");
	}
	return 0;
}

/* In the new root there is what pfkeyd needs, and no pfkeyd: the one of before is taken. */
static int no_pfkeyd_inside(const char *root)
{
	if (chroot(root) < 0)
		return 77;
	return chdir("/") < 0 ? fail("chdir") : open_and_use();
}

/* Nor is there anything that pfkeyd needs: what is missing is said. */
static int nothing_inside(const char *root)
{
	int s;
	if (chroot(root) < 0)
		return 77;
	if (chdir("/") < 0)
		return fail("chdir");
	s = pfkey_open();
	if (s >= 0)
		return use(s); /* It needs nothing. */
	return errno == ENOENT && strstr(ipsec_strerror(), "C library") ? 0 : fail("the text");
}

/* Who closes what it does not know, and uses the number, keeps its file. */
static int number_used_again(const char *root)
{
	struct stat before, after;
	int fd;
	for (fd = 3; fd < 1024; fd++)
		close(fd);
	fd = open("/proc/self/status", O_RDONLY);
	if (fd < 0 || dup2(fd, 100) < 0 || fstat(100, &before) < 0)
		return fail("dup2");
	if (chroot(root) < 0)
		return 77;
	if (chdir("/") < 0)
		return fail("chdir");
	if (pfkey_open() >= 0 || errno != EAFNOSUPPORT)
		return fail("another file is no pfkeyd");
	return fstat(100, &after) < 0 || before.st_ino != after.st_ino ? fail("its file") : 0;
}

static int small_limits(void)
{
	struct rlimit limit;
	int resources[] = { RLIMIT_STACK, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA };
	for (int i = 0; i < 4; i++) {
		getrlimit(resources[i], &limit);
		/* Seconds, or bytes. */
		limit.rlim_cur = resources[i] == RLIMIT_CPU ? 1 : resources[i] == RLIMIT_DATA ? 1 << 22 : 1 << 12;
		setrlimit(resources[i], &limit);
	}
	return open_and_use();
}

static int no_more_processes(void)
{
	struct rlimit none = { 0, 0 };
	if (geteuid() == 0 && (setgid(64999) || setuid(64999)))
		return 77;
	setrlimit(RLIMIT_NPROC, &none);
	if (pfkey_open() >= 0 || errno != EAGAIN || !strstr(ipsec_strerror(), "RLIMIT_NPROC"))
		return fail("RLIMIT_NPROC");
	return 0;
}

static volatile sig_atomic_t children;

static void on_child(int signal)
{
	(void)signal;
	children++;
}

/* Orphans are a subreaper's, pfkeyd is one: there is something to wait for, once it ended. */
static int subreaper(void)
{
	int s;
	pid_t pid;
	alarm(60);
	signal(SIGCHLD, on_child);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	s = pfkey_open();
	if (s < 0 || use(s))
		return fail("pfkey_open");
	if (waitpid(-1, NULL, WNOHANG) != 0)
		return fail("it lives");
	pfkey_close(s);
	while ((pid = waitpid(-1, NULL, 0)) < 0 && errno == EINTR)
		;
	return pid > 0 && children ? 0 : fail("its end");
}

static int set_capabilities(unsigned effective)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { effective, effective, 0 }, { 0, 0, 0 } };
	return (int)syscall(SYS_capset, &header, data);
}

/* PR_SET_KEEPCAPS, as a file capability: effective, and not inheritable. */
static int capability_without_root(void)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return 77;
	prctl(PR_SET_KEEPCAPS, 1);
	if (setgroups(0, NULL) || setgid(64999) || setuid(64999) || set_capabilities(1u << CAP_NET_ADMIN))
		return fail("setuid");
	return open_and_use();
}

static int root_without_capability(void)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return 77;
	if (set_capabilities(1u << CAP_SETUID))
		return fail("capset");
	if (pfkey_open() >= 0 || errno != EPERM)
		return fail("pfkey_open without CAP_NET_ADMIN");
	return 0;
}

/* What a service manager does to all processes of a unit, and a shell to a group. */
static int signals(void)
{
	int deadly[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP, SIGTTIN, SIGXCPU, SIGIO };
	int s = pfkey_open();
	if (s < 0)
		return fail("pfkey_open");
	for (unsigned i = 0; i < sizeof deadly / sizeof *deadly; i++)
		if (signal_all(s, deadly[i]) || use(s))
			return fail(strsignal(deadly[i]));
	return signal_all(s, SIGRTMIN + 1) || use(s);
}

static int cannot_open(const char *why)
{
	if (pfkey_open() >= 0 || !strstr(ipsec_strerror(), why))
		return fail(why);
	return 0;
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";
	struct { const char *name; int (*run)(void); } tests[] = {
		{ "use", open_and_use }, { "spawn", threads_that_spawn }, { "children", children_in_the_middle },
		{ "few", few_descriptors }, { "descriptors", descriptors_of_the_caller }, { "stopped", stopped }, { "slow", slow },
		{ "mute", mute }, { "namespace", new_pid_namespace }, { "limits", small_limits },
		{ "processes", no_more_processes }, { "subreaper", subreaper }, { "capability", capability_without_root },
		{ "root", root_without_capability }, { "signals", signals },
	};
	if (strcmp(test, "root-directory") == 0)
		return no_dev_null(argument);
	if (strcmp(test, "no-pfkeyd-inside") == 0)
		return no_pfkeyd_inside(argument);
	if (strcmp(test, "nothing-inside") == 0)
		return nothing_inside(argument);
	if (strcmp(test, "number-used-again") == 0)
		return number_used_again(argument);
	if (strcmp(test, "cannot") == 0)
		return cannot_open(argument);
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
		if (strcmp(test, tests[i].name) == 0)
			return tests[i].run();
	fprintf(stderr, "no test %s\n", test);
	return 2;
}
