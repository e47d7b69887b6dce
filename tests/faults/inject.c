/*
 * Runs a command and makes one of its system calls fail.
 *
 *   inject [-t SECONDS] [-x] [-m] -l -- COMMAND             lists the calls and what each may fail with
 *   inject [-t SECONDS] [-x] [-m] P:NAME:N ERRNO -- COMMAND the Nth listed call of this name of process P fails
 *
 * -m  only calls between two marks count: a program sets a mark by prctl(0x6d61726b, n, 0, 0, 0), n = 0 ends it
 * -x  only calls of processes count that executed another program since the command began (a pfkeyd that a client
 *     starts); without it only calls of the others (the client, and what it forks)
 * -t  seconds after which everything is killed, 10 if not given
 *
 * Processes are named by descent: 0.1 is the second child of 0. The others, whose parent does not count or has ended, are 0, 1,
 * 2, … in the order in which they begin to count, marks or not. The command's exit status is passed on (128 + n after
 * signal n). 124: it was still running when its time was over. 123: it ended, but a process that it left behind did not end in
 * as many seconds again. 122: the call never came. 125: the tool itself failed.
 *
 * A filter sends the calls of the table below to this process (SECCOMP_RET_USER_NOTIF), which lets them go on or
 * answers in the kernel's place; forks and executed programs inherit it. Root is not needed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARK 0x6d61726b
#define MOST 256

/* The calls that can fail for reasons that no argument explains, and these reasons (section 2 of the manual). */
static const struct call {
	const char *name;
	int nr;
	/* The last is 0. */
	int errnos[7];
} calls[] = {
#define CALL(name, ...) { #name, SYS_##name, { __VA_ARGS__ } },
	CALL(socket, EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES)
	CALL(socketpair, EMFILE, ENFILE, ENOMEM)
	CALL(pipe2, EMFILE, ENFILE, ENOMEM)
	CALL(bind, EADDRINUSE, ENOMEM, EACCES)
	CALL(listen, EADDRINUSE, ENOMEM)
	CALL(connect, EAGAIN, ECONNREFUSED, EINTR, EACCES)
	CALL(accept4, EMFILE, ENFILE, ENOMEM, EINTR, ECONNABORTED)
	CALL(openat, EMFILE, ENFILE, EINTR, ENOMEM, EACCES, ENOENT)
	CALL(dup3, EMFILE, EINTR)
	CALL(fcntl, EMFILE, EINTR, EPERM)
	CALL(close_range, EMFILE, ENOMEM)
	CALL(clone, EAGAIN, ENOMEM, EPERM)
	CALL(clone3, EAGAIN, ENOMEM, ENOSYS)
	CALL(wait4, EINTR, ECHILD)
	CALL(waitid, EINTR, ECHILD)
	CALL(execve, EACCES, ENOENT, ENOMEM, EMFILE, ETXTBSY)
	CALL(execveat, EACCES, ENOENT, ENOMEM, EMFILE, ENOSYS)
	CALL(unshare, ENOMEM, EPERM)
#ifdef SYS_newfstatat
	CALL(newfstatat, ENOMEM, EACCES)
#else
	CALL(fstatat64, ENOMEM, EACCES)
	CALL(fstat64, ENOMEM, EIO)
#endif
	CALL(fstat, ENOMEM, EIO)
	CALL(statx, ENOMEM, EACCES)
	CALL(readlinkat, ENOMEM, EACCES)
	CALL(read, EINTR, EIO, EAGAIN)
	CALL(write, EINTR, EIO, EAGAIN, ENOSPC)
	CALL(sendto, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(sendmsg, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(sendmmsg, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(recvfrom, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(recvmsg, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(recvmmsg, EINTR, ENOBUFS, ENOMEM, EAGAIN, EIO)
	CALL(getsockname, ENOBUFS)
	CALL(getpeername, ENOBUFS)
	CALL(getsockopt, ENOBUFS, ENOMEM)
	CALL(setsockopt, ENOBUFS, ENOMEM, EPERM)
	CALL(ioctl, EINTR, EPERM, ENOTTY)
	CALL(ppoll, EINTR, ENOMEM)
	CALL(epoll_create1, EMFILE, ENFILE, ENOMEM)
	CALL(epoll_ctl, ENOMEM, ENOSPC)
	CALL(epoll_pwait, EINTR)
	CALL(eventfd2, EMFILE, ENFILE, ENOMEM)
	CALL(signalfd4, EMFILE, ENFILE, ENOMEM)
	CALL(timerfd_create, EMFILE, ENFILE, ENOMEM)
	CALL(timerfd_settime, ECANCELED)
	CALL(memfd_create, EMFILE, ENFILE, ENOMEM)
	CALL(pidfd_open, EMFILE, ENFILE, ENOMEM, ENOSYS)
	CALL(pidfd_send_signal, EPERM)
	CALL(prctl, EPERM, EINVAL)
	CALL(capset, EPERM)
	CALL(setresuid, EAGAIN, EPERM)
	CALL(setresgid, EAGAIN, EPERM)
	CALL(setgroups, ENOMEM, EPERM)
	CALL(seccomp, ENOMEM, EINVAL, EACCES)
	CALL(getrandom, EINTR, ENOSYS)
#ifdef SYS_epoll_wait
	/* What newer architectures do not have. */
	CALL(epoll_wait, EINTR)
	CALL(poll, EINTR, ENOMEM)
	CALL(open, EMFILE, ENFILE, EINTR, ENOMEM, EACCES, ENOENT)
	CALL(readlink, ENOMEM, EACCES)
	CALL(stat, ENOMEM, EACCES)
	CALL(dup2, EMFILE, EINTR)
	CALL(fork, EAGAIN, ENOMEM)
	CALL(vfork, EAGAIN, ENOMEM)
#endif
};
#define CALLS (sizeof calls / sizeof calls[0])

/* Other numbers of the same calls, which 32-bit programs have: both count as one. `which` is socketcall's first argument. */
static const struct other {
	int nr, which, as;
} others[] = {
#ifdef SYS_socketcall
	/* Whatever of it the C library does not call by a number of its own. */
#define OTHER(which, name) { SYS_socketcall, SYS_##which, SYS_##name },
	OTHER(SOCKET, socket) OTHER(BIND, bind) OTHER(CONNECT, connect) OTHER(LISTEN, listen) OTHER(ACCEPT4, accept4)
	OTHER(GETSOCKNAME, getsockname) OTHER(GETPEERNAME, getpeername) OTHER(SOCKETPAIR, socketpair)
	OTHER(SEND, sendto) OTHER(SENDTO, sendto) OTHER(SENDMSG, sendmsg) OTHER(SENDMMSG, sendmmsg)
	OTHER(RECV, recvfrom) OTHER(RECVFROM, recvfrom) OTHER(RECVMSG, recvmsg) OTHER(RECVMMSG, recvmmsg)
	OTHER(SETSOCKOPT, setsockopt) OTHER(GETSOCKOPT, getsockopt)
#undef OTHER
#endif
#define OTHER(other, name) { SYS_##other, 0, SYS_##name },
#ifdef SYS_recvmmsg_time64
	/* Times of 64 bits. */
	OTHER(recvmmsg_time64, recvmmsg) OTHER(ppoll_time64, ppoll) OTHER(timerfd_settime64, timerfd_settime)
#endif
#ifdef SYS_fcntl64
	OTHER(fcntl64, fcntl)
#endif
#ifdef SYS_setresuid32
	OTHER(setresuid32, setresuid) OTHER(setresgid32, setresgid) OTHER(setgroups32, setgroups)
#endif
#ifdef SYS_stat64
	OTHER(stat64, stat)
#endif
	/* None, so that the table is never empty. */
	{ -1, 0, -1 },
};
#define OTHERS (sizeof others / sizeof others[0])

static const struct { const char *name; int value; } errno_names[] = {
#define NAME(e) { #e, e },
	NAME(EMFILE) NAME(ENFILE) NAME(ENOBUFS) NAME(ENOMEM) NAME(EACCES) NAME(EADDRINUSE) NAME(EAGAIN)
	NAME(ECONNREFUSED) NAME(EINTR) NAME(ECONNABORTED) NAME(ENOENT) NAME(EPERM) NAME(ENOSYS) NAME(ECHILD)
	NAME(ETXTBSY) NAME(EIO) NAME(ENOSPC) NAME(ENOTTY) NAME(ECANCELED) NAME(EINVAL)
};

static const char *errno_name(int value)
{
	for (size_t i = 0; i < sizeof errno_names / sizeof errno_names[0]; i++)
		if (errno_names[i].value == value)
			return errno_names[i].name;
	return "?";
}

static int errno_value(const char *name)
{
	for (size_t i = 0; i < sizeof errno_names / sizeof errno_names[0]; i++)
		if (strcmp(errno_names[i].name, name) == 0)
			return errno_names[i].value;
	return 0;
}

static void die(const char *what)
{
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	exit(125);
}

static const struct call *call_of(const struct seccomp_data *data)
{
	int nr = data->nr;
	for (size_t i = 0; i < OTHERS; i++)
		if (others[i].nr == nr && (others[i].which == 0 || (uint64_t)others[i].which == data->args[0])) {
			nr = others[i].as;
			break;
		}
	for (size_t i = 0; i < CALLS; i++)
		if (calls[i].nr == nr)
			return &calls[i];
	return NULL;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

#ifdef __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCH AUDIT_ARCH_AARCH64
#elif defined __i386__
#define ARCH AUDIT_ARCH_I386
#elif defined __riscv && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#else
#error "name this architecture"
#endif

/* Installs the filter; gives the descriptor on which it tells. */
static int install(void)
{
	struct sock_filter code[2 * (CALLS + OTHERS) + 4], *at = code;
	*at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < CALLS + OTHERS; i++) {
		int nr = i < CALLS ? calls[i].nr : others[i - CALLS].nr;
		*at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1);
		*at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	}
	*at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = (unsigned short)(at - code), .filter = code };
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (fd < 0 && errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	return (int)fd;
}

/* What child and parent say to each other without a system call: the child's calls are not answered yet. */
static struct shared {
	volatile int listener, failed, go;
} *shared;

/* Starts the command with the filter. Both processes have one table of descriptors until then. */
static pid_t start(char **command)
{
	long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid != 0)
		return (pid_t)pid;
	int fd = install();
	if (fd < 0) {
		shared->failed = errno;
		_exit(125);
	}
	shared->listener = fd;
	while (!shared->go)
		;
	/* The listener is closed by exec. */
	syscall(SYS_unshare, CLONE_FILES);
	execvp(command[0], command);
	_exit(127);
}

static struct process {
	pid_t pid;
	/* Another process may get its number. */
	int pidfd;
	int executed;
	/* Empty until it counts. */
	char name[32];
	/* How often each call was made. */
	int counts[CALLS];
} processes[MOST];
static int process_count, numbered;

/* The process of a thread, and its parent. */
static pid_t ids_of(pid_t tid, pid_t *parent)
{
	char path[64], line[256];
	pid_t pid = tid;
	*parent = 0;
	snprintf(path, sizeof path, "/proc/%d/status", tid);
	FILE *file = fopen(path, "r");
	if (file != NULL) {
		while (fgets(line, sizeof line, file) != NULL) {
			sscanf(line, "Tgid: %d", &pid);
			sscanf(line, "PPid: %d", parent);
		}
		fclose(file);
	}
	return pid;
}

static int is_taken(const char *name)
{
	for (int i = 0; i < process_count; i++)
		if (strcmp(processes[i].name, name) == 0)
			return 1;
	return 0;
}

/* Which of two siblings makes its first call first is chance; which was born first is not. */
static void give_name(struct process *process)
{
	char path[64];
	int sibling, index = 0;
	pid_t parent;
	ids_of(process->pid, &parent);
	for (int i = 0; i < process_count; i++) {
		if (processes[i].pid != parent || !processes[i].name[0])
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%d/children", parent, parent);
		FILE *file = fopen(path, "r");
		while (file != NULL && fscanf(file, "%d", &sibling) == 1 && sibling != process->pid)
			index++;
		if (file != NULL)
			fclose(file);
		/* The dead are not listed. */
		char name[32];
		do
			snprintf(name, sizeof name, "%.16s.%d", processes[i].name, index++);
		while (is_taken(name));
		strcpy(process->name, name);
		return;
	}
	snprintf(process->name, sizeof process->name, "%d", numbered++);
}

/* Threads count as their process; a forked one begins as what it was forked from. */
static struct process *process_of(pid_t tid)
{
	pid_t parent, pid = ids_of(tid, &parent);
	for (int i = 0; i < process_count; i++)
		if (processes[i].pid == pid)
			return &processes[i];
	struct process new = { .pid = pid, .pidfd = (int)syscall(SYS_pidfd_open, pid, 0) };
	for (int i = 0; i < process_count; i++)
		if (processes[i].pid == parent)
			new.executed = processes[i].executed;
	if (process_count == MOST) {
		errno = E2BIG;
		die("processes");
	}
	processes[process_count] = new;
	return &processes[process_count++];
}

static void kill_all(void)
{
	for (int i = 0; i < process_count; i++)
		syscall(SYS_pidfd_send_signal, processes[i].pidfd, SIGKILL, NULL, 0);
}

int main(int argc, char **argv)
{
	int option, list = 0, executed = 0, marked = 0, wanted_call = -1, wanted_errno = 0;
	char wanted_process[32] = "", wanted_name[32] = "";
	double seconds = 10;
	while ((option = getopt(argc, argv, "+lmt:x")) != -1)
		switch (option) {
		case 'l': list = 1; break;
		case 'm': marked = 1; break;
		case 't': seconds = atof(optarg); break;
		case 'x': executed = 1; break;
		default: return 125;
		}
	if (!list) {
		if (optind + 2 > argc || sscanf(argv[optind], "%31[^:]:%31[^:]:%d", wanted_process, wanted_name, &wanted_call) != 3 ||
		    (wanted_errno = errno_value(argv[optind + 1])) == 0) {
			fprintf(stderr, "inject: P:NAME:N and an errno, please\n");
			return 125;
		}
		optind += 2;
	}
	if (optind < argc && strcmp(argv[optind], "--") == 0)
		optind++;
	if (optind >= argc) {
		fprintf(stderr, "inject: no command\n");
		return 125;
	}

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	shared->listener = -1;
	pid_t child = start(argv + optind);
	if (child < 0)
		die("clone");
	while (shared->listener < 0 && !shared->failed)
		usleep(1000);
	if (shared->failed) {
		errno = shared->failed;
		die("seccomp");
	}
	/* Above what the child may be given. */
	int listener = fcntl(shared->listener, F_DUPFD_CLOEXEC, 100);
	close(shared->listener == listener ? -1 : shared->listener);
	if (listener < 0)
		die("fcntl");
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	if (pidfd < 0)
		die("pidfd_open");
	/* Its first call is execve, which makes it the command. */
	shared->go = 1;

	struct seccomp_notif_sizes sizes;
	syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
	struct seccomp_notif *notice = calloc(1, sizes.seccomp_notif + sizeof *notice);
	struct seccomp_notif_resp *answer = calloc(1, sizes.seccomp_notif_resp + sizeof *answer);
	int began = 0, mark = 0, done = 0, status = -1;
	double end = now() + seconds;
	for (;;) {
		struct pollfd both[2] = { { .fd = listener, .events = POLLIN }, { .fd = status < 0 ? pidfd : -1, .events = POLLIN } };
		double left = end - now();
		if (left <= 0) {
			kill_all();
			kill(child, SIGKILL);
			fprintf(stderr, "inject: %s\n", status < 0 ? "still running" : "something was left behind");
			return status < 0 ? 124 : 123;
		}
		if (poll(both, 2, (int)(left * 1000) + 1) < 0 && errno != EINTR)
			die("poll");
		if (both[1].revents && status < 0) {
			if (waitpid(child, &status, 0) < 0)
				die("waitpid");
			status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			end = now() + seconds;
		}
		/* Nobody is left who has the filter. */
		if ((both[0].revents & POLLHUP) && status >= 0)
			break;
		if (!(both[0].revents & POLLIN))
			continue;
		memset(notice, 0, sizes.seccomp_notif);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notice) < 0) {
			/* The caller was killed or interrupted. */
			if (errno == EINTR || errno == ENOENT)
				continue;
			die("NOTIF_RECV");
		}
		struct process *process = process_of((pid_t)notice->pid);
		const struct call *call = call_of(&notice->data);
		memset(answer, 0, sizes.seccomp_notif_resp);
		answer->id = notice->id;
		answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		if (began && process->executed == executed && !process->name[0])
			give_name(process);
		int is_exec = notice->data.nr == SYS_execve || notice->data.nr == SYS_execveat;
		if (!began) {
			began = is_exec;
		} else if (notice->data.nr == SYS_prctl && notice->data.args[0] == MARK) {
			mark = (int)notice->data.args[1];
			answer->flags = 0;
		} else if (process->executed == executed && (mark || !marked) && call != NULL) {
			int n = process->counts[call - calls]++;
			if (list) {
				printf("%s:%s:%d %d", process->name, call->name, n, mark);
				for (const int *e = call->errnos; *e != 0; e++)
					printf(" %s", errno_name(*e));
				putchar('\n');
			} else if (strcmp(process->name, wanted_process) == 0 && n == wanted_call && strcmp(call->name, wanted_name) == 0) {
				fprintf(stderr, "inject: %s fails with %s\n", call->name, errno_name(wanted_errno));
				answer->flags = 0;
				answer->error = -wanted_errno;
				done = 1;
			}
			if (is_exec && answer->flags)
				process->executed = 1;
		} else if (is_exec) {
			process->executed = 1;
		}
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer) < 0 && errno != ENOENT)
			die("NOTIF_SEND");
	}
	if (!list && !done && status == 0)
		return 122;
	return status;
}
