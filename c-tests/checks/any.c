/* What a program that opens PF_KEY by itself sees, tried hard. Prints the same on AF_KEY and under `pfkey-run --any`.
 * Exit status 77: it cannot be tried here. */
#include "../common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void flush(struct sadb_msg *m, uint32_t seq)
{
	memset(m, 0, sizeof *m);
	m->sadb_msg_version = PF_KEY_V2;
	m->sadb_msg_type = SADB_FLUSH;
	m->sadb_msg_len = sizeof *m / 8;
	m->sadb_msg_seq = seq;
	m->sadb_msg_pid = (unsigned)getpid();
}

/* Its answer is there, and no other. */
static void answered(int s, uint32_t seq)
{
	struct sadb_msg m[64];
	ssize_t len = recv(s, m, sizeof m, MSG_DONTWAIT);

	if (len != sizeof *m || m->sadb_msg_type != SADB_FLUSH || m->sadb_msg_seq != seq || m->sadb_msg_errno)
		die("answer %u: %zd, %s", seq, len, len < 0 ? strerror(errno) : "another");
	if (recv(s, m, sizeof m, MSG_DONTWAIT) >= 0)
		die("answer %u: one more", seq);
}

static void exchange(int s, uint32_t seq)
{
	struct sadb_msg m;

	flush(&m, seq);
	if (write(s, &m, sizeof m) != sizeof m)
		die("write %u: %s", seq, strerror(errno));
	answered(s, seq);
}

static void gives(const char *what, ssize_t got, ssize_t expected, int expected_errno)
{
	if (got != expected || (got < 0 && errno != expected_errno))
		die("%s: %zd, %s", what, got, got < 0 ? strerror(errno) : "no error");
}

static void errors(void)
{
	int s = open_pfkey();
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static char large[1 << 20];
	static struct iovec many[1025];
	struct sadb_msg m, *end = (struct sadb_msg *)(memory + page) - 1;
	struct iovec good = { &m, sizeof m }, bad = { NULL, 16 }, negative = { &m, SIZE_MAX / 2 + 8 };
	struct iovec halves[2] = { { &m, 8 }, { (char *)&m + 8, 8 } }, broken[2] = { { &m, 8 }, { (void *)1, 8 } };
	struct msghdr header = { .msg_iov = &good, .msg_iovlen = 1 };
	volatile uintptr_t nowhere = 8;
	volatile int less = -1;

	if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_NONE) < 0)
		die("memory: %s", strerror(errno));
	flush(&m, 1);
	gives("write from nowhere", write(s, (void *)nowhere, 16), -1, EFAULT);
	gives("write from beyond", write(s, (void *)-nowhere, 16), -1, EFAULT);
	gives("send from nowhere", send(s, (void *)nowhere, 16, 0), -1, EFAULT);
	gives("write of half", write(s, memory + page - 8, 16), -1, EFAULT);
	gives("writev from nowhere", writev(s, &bad, 1), -1, EFAULT);
	gives("writev of half", writev(s, broken, 2), -1, EFAULT);
	gives("writev without parts", writev(s, (void *)nowhere, 1), -1, EFAULT);
	gives("writev of negative", writev(s, &negative, 1), -1, EINVAL);
	gives("writev of too many", writev(s, many, 1025), -1, EINVAL);
	gives("writev of less than none", writev(s, many, less), -1, EINVAL);
	gives("writev of none", writev(s, many, 0), 0, 0);
	gives("writev of empty ones", writev(s, many, 1024), 0, 0);
	gives("sendmsg from nowhere", sendmsg(s, (void *)nowhere, 0), -1, EFAULT);
	header.msg_iovlen = 1025;
	header.msg_iov = many;
	gives("sendmsg of too many", sendmsg(s, &header, 0), -1, EMSGSIZE);
	header.msg_iovlen = 1;
	header.msg_iov = (void *)nowhere;
	gives("sendmsg without parts", sendmsg(s, &header, 0), -1, EFAULT);
	header.msg_iov = &good;
	header.msg_name = (void *)nowhere;
	header.msg_namelen = 8;
	gives("sendmsg to nowhere", sendmsg(s, &header, 0), -1, EFAULT);
	header.msg_namelen = (socklen_t)-1;
	gives("sendmsg to less than nothing", sendmsg(s, &header, 0), -1, EINVAL);
	gives("sendto nowhere", sendto(s, &m, sizeof m, 0, (void *)nowhere, 8), -1, EFAULT);
	gives("sendto somewhere large", sendto(s, &m, sizeof m, 0, (void *)&m, 129), -1, EINVAL);
	gives("send out of band", send(s, &m, sizeof m, MSG_OOB), -1, EOPNOTSUPP);
	gives("write of nothing", write(s, &m, 0), -1, EMSGSIZE);
	gives("send of nothing", send(s, &m, 0, 0), -1, EMSGSIZE);
	gives("write of more than the buffer", write(s, large, sizeof large), -1, EMSGSIZE);
	gives("and from nowhere", write(s, (void *)nowhere, sizeof large), -1, EMSGSIZE);
	gives("write of no message", write(s, large, 16), -1, EINVAL);
	m.sadb_msg_len = 3;
	gives("write of less than it says", write(s, &m, 16), -1, EMSGSIZE);
	m.sadb_msg_len = 2;
	/* Nothing of that was done. */
	exchange(s, 2);
	/* What can be sent from where it is hard to read. */
	flush(end, 3);
	gives("write from a page's end", write(s, end, 16), 16, 0);
	answered(s, 3);
	flush(&m, 4);
	gives("writev of halves", writev(s, halves, 2), 16, 0);
	answered(s, 4);
	gives("sendto somewhere", sendto(s, &m, sizeof m, MSG_DONTROUTE, (void *)&m, 16), 16, 0);
	answered(s, 4);
	if (mprotect(memory, page, PROT_READ) < 0)
		die("mprotect: %s", strerror(errno));
	gives("write from constant memory", write(s, end, 16), 16, 0);
	answered(s, 3);
}

static void several(void)
{
	int s = open_pfkey();
	struct sadb_msg m[4];
	struct iovec parts[4];
	struct mmsghdr headers[4];
	struct sadb_msg got;

	memset(headers, 0, sizeof headers);
	for (int i = 0; i < 4; i++) {
		flush(&m[i], 10 + (uint32_t)i);
		parts[i] = (struct iovec){ &m[i], sizeof m[i] };
		headers[i].msg_hdr.msg_iov = &parts[i];
		headers[i].msg_hdr.msg_iovlen = 1;
		headers[i].msg_len = 99;
	}
	gives("sendmmsg", sendmmsg(s, headers, 3, 0), 3, 0);
	for (uint32_t i = 0; i < 3; i++) {
		if (recv(s, &got, sizeof got, MSG_DONTWAIT) != sizeof got || got.sadb_msg_seq != 10 + i)
			die("answer %u is not there", i);
		if (headers[i].msg_len != 16)
			die("msg_len %u", headers[i].msg_len);
	}
	if (headers[3].msg_len != 99)
		die("the fourth was touched");
	gives("sendmmsg of none", sendmmsg(s, headers, 0, 0), 0, 0);
	m[2].sadb_msg_version = 3;
	gives("sendmmsg with a broken third", sendmmsg(s, headers, 4, 0), 2, 0);
	gives("sendmmsg with a broken first", sendmmsg(s, headers + 2, 2, 0), -1, EINVAL);
}

/* What has the number of a PF_KEY socket later. */
static void numbers(void)
{
	int s = open_pfkey(), again, low = open("/dev/null", O_RDWR), pair[2];
	volatile uintptr_t nowhere = 8;
	struct sadb_msg m;

	flush(&m, 20);
	exchange(s, 20);
	if (pipe(pair) < 0 || dup2(pair[1], s) != s)
		die("dup2: %s", strerror(errno));
	gives("write to a pipe", write(s, &m, 16), 16, 0);
	gives("read from the pipe", read(pair[0], &m, sizeof m), 16, 0);
	gives("send to a pipe", send(s, &m, 16, 0), -1, ENOTSOCK);
	close(s);
	gives("write to nothing", write(s, &m, 16), -1, EBADF);
	gives("writev to nothing", writev(s, (void *)nowhere, 1), -1, EBADF);
	gives("sendmsg to nothing", sendmsg(s, (void *)nowhere, 0), -1, EBADF);
	again = open_pfkey();
	exchange(again, 21);
	/* A copy elsewhere. */
	if (dup2(again, low) != low)
		die("dup2: %s", strerror(errno));
	close(again);
	exchange(low, 22);
	m.sadb_msg_version = 1;
	gives("write of no message to a copy", write(low, &m, 16), -1, EINVAL);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

/* No request is done twice because a signal came, and none is lost. */
static void signals(void)
{
	struct sigaction action;
	struct itimerval often = { { 0, 500 }, { 0, 500 } };
	int s = open_pfkey();

	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	for (int restart = 0; restart < 2; restart++) {
		action.sa_flags = restart ? SA_RESTART : 0;
		sigaction(SIGALRM, &action, NULL);
		setitimer(ITIMER_REAL, &often, NULL);
		for (uint32_t i = 1; i < 1500 || alarms < 20; i++) {
			struct sadb_msg m;
			ssize_t sent;
			flush(&m, i);
			/* What a call was interrupted in was not begun. */
			while ((sent = write(s, &m, sizeof m)) < 0 && errno == EINTR && !restart)
				;
			if (sent != sizeof m)
				die("write %u: %s", i, strerror(errno));
			answered(s, i);
		}
		alarms = 0;
	}
}

static volatile int stop;
static char *shared;

static void *change(void *unused)
{
	struct sadb_msg *m = (struct sadb_msg *)shared;
	(void)unused;
	while (!stop) {
		m->sadb_msg_version ^= 1;
		m->sadb_msg_len ^= 0x8000;
		m->sadb_msg_reserved++;
		if (mprotect(shared, 4096, PROT_NONE) < 0 || mprotect(shared, 4096, PROT_READ | PROT_WRITE) < 0)
			die("mprotect: %s", strerror(errno));
		flush(m, 7);
	}
	return NULL;
}

static void changing(void)
{
	pthread_t thread;
	int s = open_pfkey(), sent = 0;
	struct sadb_msg got;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	flush((struct sadb_msg *)shared, 7);
	if (pthread_create(&thread, NULL, change, NULL))
		die("pthread_create");
	for (int i = 0; i < 3000; i++) {
		ssize_t n = write(s, shared, 16);
		if (n == 16)
			sent++;
		else if (n >= 0 || (errno != EFAULT && errno != EINVAL && errno != EMSGSIZE))
			die("write: %zd, %s", n, strerror(errno));
		if (recv(s, &got, sizeof got, MSG_DONTWAIT) == sizeof got ? n != 16 : n == 16)
			die("write gave %zd, and the answer is %s", n, n == 16 ? "missing" : "there");
	}
	stop = 1;
	pthread_join(thread, NULL);
	if (sent == 0 || sent == 3000)
		fprintf(stderr, "%d of 3000 sent\n", sent);
	exchange(s, 30);
}

static int victim, other;

static void *replace(void *unused)
{
	int keep = dup(victim);
	(void)unused;
	while (!stop) {
		dup2(other, victim);
		close(victim);
		dup2(keep, victim);
	}
	dup2(keep, victim);
	return NULL;
}

/* A message that met the socket while the supervisor saw the file is with pfkeyd, which answers before it takes it away. */
static void wait_until_taken(int s)
{
	int left;

	while (ioctl(s, TIOCOUTQ, &left) == 0 && left > 0)
		sched_yield();
}

static void replaced(void)
{
	pthread_t thread;
	struct sadb_msg m, got;

	victim = open_pfkey();
	other = open("/dev/null", O_RDWR);
	if (pthread_create(&thread, NULL, replace, NULL))
		die("pthread_create");
	for (int i = 0; i < 3000; i++) {
		ssize_t n;
		flush(&m, 8);
		n = write(victim, &m, 16);
		if (n != 16 && errno != EBADF)
			die("write: %zd, %s", n, strerror(errno));
		while (recv(victim, &got, sizeof got, MSG_DONTWAIT) > 0)
			;
	}
	stop = 1;
	pthread_join(thread, NULL);
	wait_until_taken(victim);
	while (recv(victim, &got, sizeof got, MSG_DONTWAIT) > 0)
		;
	exchange(victim, 31);
}

/* Programs that are killed in whatever call they are. */
static void killed(void)
{
	int s = open_pfkey();
	struct sadb_msg m;

	for (int i = 0; i < 40; i++) {
		pid_t child = fork();
		if (child == 0) {
			for (;;) {
				int own = i % 2 ? s : open_pfkey();
				flush(&m, 9);
				if (write(own, &m, 16) != 16)
					die("write: %s", strerror(errno));
				if (own != s)
					close(own);
			}
		}
		usleep(500 + 137 * (unsigned)i);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	/* What the killed had asked for may be done a little later; there has to be room for our own answer. */
	usleep(100000);
	while (recv(s, &m, sizeof m, MSG_DONTWAIT) > 0)
		;
	flush(&m, 32);
	gives("write when others were killed", write(s, &m, sizeof m), 16, 0);
	while (recv(s, &m, sizeof m, 0) == sizeof m && m.sadb_msg_seq != 32)
		;
	exchange(s, 33);
}

static void *exchanges(void *unused)
{
	int s = open_pfkey();
	(void)unused;
	for (uint32_t i = 1; i <= 200; i++)
		exchange(s, i);
	close(s);
	return NULL;
}

static void threads(void)
{
	pthread_t all[8];

	for (int i = 0; i < 8; i++)
		if (pthread_create(&all[i], NULL, exchanges, NULL))
			die("pthread_create");
	for (int i = 0; i < 8; i++)
		pthread_join(all[i], NULL);
}

/* The processes of the pfkeyd behind a socket: its guardian made the socket, and leads their session. */
static void signal_all(pid_t guardian, int signal)
{
	struct dirent *entry;
	DIR *proc = opendir("/proc");

	if (!proc)
		die("/proc: %s", strerror(errno));
	while ((entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);
		if (pid > 0 && getsid(pid) == guardian)
			kill(pid, signal);
	}
	closedir(proc);
}

static void *write_one(void *socket)
{
	struct sadb_msg m;

	flush(&m, 7);
	if (write(*(int *)socket, &m, sizeof m) != sizeof m)
		die("write: %s", strerror(errno));
	return NULL;
}

static int queued(int s)
{
	int bytes;

	if (ioctl(s, SIOCOUTQ, &bytes) < 0)
		die("SIOCOUTQ: %s", strerror(errno));
	return bytes;
}

/* Who waits for a pfkeyd that is stopped keeps no other from sending, not even the second time, and is not refused for being one
 * of many: a queue of AF_UNIX holds ten or so. */
static void stopped(void)
{
	int a = open_pfkey(), b = open_pfkey(), before;
	struct ucred peer;
	struct sadb_msg m;
	socklen_t len = sizeof peer;
	pthread_t threads[40];

	/* AF_KEY has nobody who could be stopped. */
	if (getsockopt(a, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid == 0)
		return;
	alarm(20);
	for (int round = 0; round < 3; round++) {
		int count = round == 2 ? 40 : 1;
		signal_all(peer.pid, SIGSTOP);
		for (int i = 0; i < count; i++)
			if (pthread_create(&threads[i], NULL, write_one, &a))
				die("pthread_create");
		while (queued(a) == 0)
			sched_yield();
		do {
			before = queued(a);
			for (uint32_t seq = 0; seq < 10; seq++)
				exchange(b, seq);
		} while (queued(a) != before);
		signal_all(peer.pid, SIGCONT);
		for (int i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < count; i++)
			if (recv(a, &m, sizeof m, MSG_DONTWAIT) != sizeof m || m.sadb_msg_seq != 7 || m.sadb_msg_errno)
				die("answer %d of %d", i, count);
		if (recv(a, &m, sizeof m, MSG_DONTWAIT) >= 0)
			die("one more");
	}
	alarm(0);
}

/* A thousand programs at once, which all have the same socket. */
static void many(void)
{
	int s = open_pfkey(), go[2], count = 0, status;
	char byte;

	if (pipe(go) < 0)
		die("pipe: %s", strerror(errno));
	for (int i = 0; i < 1000; i++) {
		pid_t child = fork();
		if (child < 0) {
			fprintf(stderr, "%d processes: %s\n", i, strerror(errno));
			exit(77);
		}
		if (child == 0) {
			struct sadb_msg m, got;
			close(go[1]);
			flush(&m, (uint32_t)i);
			if (read(go[0], &byte, 1) != 0 || write(s, &m, sizeof m) != sizeof m)
				die("write: %s", strerror(errno));
			recv(s, &got, sizeof got, MSG_DONTWAIT);
			_exit(0);
		}
	}
	close(go[0]);
	close(go[1]);
	while (wait(&status) > 0)
		count += WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (count != 1000)
		die("%d of 1000", count);
	for (struct sadb_msg got; recv(s, &got, sizeof got, MSG_DONTWAIT) > 0; )
		;
	exchange(s, 33);
}

static int refused(void)
{
	int s = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (s >= 0) {
		close(s);
		return 0;
	}
	return errno;
}

static int policies(int s)
{
	struct sadb_msg *m;
	struct builder b;
	int count = 0;

	begin_message(&b, SADB_X_SPDDUMP, SADB_SATYPE_UNSPEC, 1);
	end_message(&b);
	send_message(s, b.bytes, b.len);
	while ((m = receive_message(s, 5000)) && m->sadb_msg_errno == 0) {
		count++;
		if (m->sadb_msg_seq == 0)
			break;
	}
	return count;
}

static void add_policy(int s)
{
	struct sadb_x_policy none = { .sadb_x_policy_len = 2, .sadb_x_policy_exttype = SADB_X_EXT_POLICY,
		.sadb_x_policy_type = IPSEC_POLICY_NONE, .sadb_x_policy_dir = IPSEC_DIR_OUTBOUND };
	struct builder b;
	struct sadb_msg *m;

	begin_message(&b, SADB_X_SPDADD, SADB_SATYPE_UNSPEC, 1);
	add_address(&b, SADB_EXT_ADDRESS_SRC, "192.0.2.1", 255, 32);
	add_address(&b, SADB_EXT_ADDRESS_DST, "198.51.100.2", 255, 32);
	add_bytes(&b, &none, sizeof none);
	end_message(&b);
	send_message(s, b.bytes, b.len);
	if ((m = receive_message(s, 5000)) && m->sadb_msg_errno)
		die("SPDADD: %s", strerror(m->sadb_msg_errno));
}

/* In a network namespace where nothing was before. */
static void alone(void)
{
	int s = open_pfkey();

	if (policies(s) != 0)
		die("there are policies already");
	add_policy(s);
	if (policies(open_pfkey()) != 1)
		die("another socket of the namespace does not see the policy");
}

static void without_rights(void)
{
	if (refused() != EPERM)
		die("without rights: %s", strerror(refused()));
}

/* Who may open one, and of which network namespace it is. */
static void rights(void)
{
	int before = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), first, s, status;

	if (geteuid() != 0 || socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM) < 0 || unshare(CLONE_NEWNET) < 0) {
		fprintf(stderr, "root, NETLINK_XFRM and a network namespace cannot be had\n");
		exit(77);
	}
	first = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	s = open_pfkey();
	add_policy(s);
	if (policies(open_pfkey()) != 1)
		die("another socket of the namespace does not see the policy");
	if (unshare(CLONE_NEWNET) < 0 || policies(open_pfkey()) != 0)
		die("a new namespace has policies");
	if (setns(first, CLONE_NEWNET) < 0 || policies(open_pfkey()) != 1)
		die("the policy is not seen on return");
	if (seteuid(65534) < 0 || refused() != EPERM)
		die("without rights: %s", strerror(errno));
	if (seteuid(0) < 0 || refused() != 0)
		die("with rights again: %s", strerror(errno));
	/* All rights in a user namespace of its own, and none over the network namespace. */
	if (fork() == 0) {
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(0);
		if (refused() != EPERM)
			die("rights of a user namespace: %s", strerror(errno));
		if (unshare(CLONE_NEWNET) == 0 && refused() != 0)
			die("a user namespace's network namespace: %s", strerror(errno));
		_exit(0);
	}
	wait(&status);
	if (status)
		die("user namespaces");
	if (setns(before, CLONE_NEWNET) < 0)
		die("setns: %s", strerror(errno));
}

/* A write of a length that a message can have leaves nothing behind: the lock ends with the file. */
static void files(void)
{
	char name[] = "/tmp/pfkey-any-XXXXXX";
	int other = mkstemp(name);

	if (other < 0)
		die("mkstemp: %s", strerror(errno));
	for (int i = 0; i < 3000; i++) {
		int file = open(name, O_WRONLY);

		gives("flock", flock(file, LOCK_EX | LOCK_NB), 0, 0);
		gives("write", write(file, "12345678", 8), 8, 0);
		close(file);
		gives("flock, when the file was closed", flock(other, LOCK_EX | LOCK_NB), 0, 0);
		flock(other, LOCK_UN);
	}
	unlink(name);
}

/* A socket that is named as a PF_KEY socket over a pfkeyd: its peer is told who sends, and not who supervises. */
static void sender(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	socklen_t len = offsetof(struct sockaddr_un, sun_path);
	char control[CMSG_SPACE(sizeof(struct ucred))];
	int on = 1, server = socket(AF_UNIX, SOCK_SEQPACKET, 0), peer;
	struct sadb_msg m;
	struct iovec part = { &m, sizeof m };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct ucred said = { 0 };
	pid_t child;

	if (geteuid() != 0) {
		fprintf(stderr, "it needs root\n");
		exit(77);
	}
	/* The name is chosen by the kernel. */
	if (bind(server, (void *)&name, len) < 0 || listen(server, 1) < 0 ||
	    setsockopt(server, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
		die("server: %s", strerror(errno));
	len = sizeof name;
	getsockname(server, (void *)&name, &len);
	child = fork();
	if (child == 0) {
		struct sockaddr_un own = { .sun_family = AF_UNIX };
		int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		int n = snprintf(own.sun_path + 1, sizeof own.sun_path - 1, "pfkey/of a test/%d", (int)getpid());

		if (setgid(65534) < 0 || setuid(65534) < 0 ||
		    bind(s, (void *)&own, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0 ||
		    connect(s, (void *)&name, len) < 0)
			die("client: %s", strerror(errno));
		flush(&m, 50);
		gives("write to a stranger", write(s, &m, sizeof m), 16, 0);
		exit(0);
	}
	peer = accept(server, NULL, NULL);
	if (peer < 0 || recvmsg(peer, &header, 0) != sizeof m || !CMSG_FIRSTHDR(&header))
		die("recvmsg: %s", strerror(errno));
	memcpy(&said, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof said);
	if (said.pid != child || said.uid != 65534 || said.gid != 65534)
		die("sent by %d, user %u, group %u", (int)said.pid, said.uid, said.gid);
	waitpid(child, NULL, 0);
}

/* Run as another user, from a file that root gave its rights to. */
static void set_user_id(void)
{
	int status = refused();
	if (geteuid() != 0 || getuid() == 0)
		die("not set-user-ID: %u %u", getuid(), geteuid());
	if (status)
		die("socket: %s", strerror(status));
	if (seteuid(getuid()) < 0 || refused() != EPERM)
		die("without rights: %s", strerror(errno));
}

/* Its supervisor is killed when it has said "ready". */
static int orphan(void)
{
	int s = open_pfkey();
	struct sadb_msg m;
	char byte;

	exchange(s, 40);
	printf("ready\n");
	fflush(stdout);
	if (read(0, &byte, 1) != 1)
		return 1;
	flush(&m, 41);
	printf("socket: %s\n", strerror(refused()));
	printf("write: %s\n", write(s, &m, 16) < 0 ? strerror(errno) : "done");
	printf("write elsewhere: %s\n", write(1, "", 0) < 0 ? strerror(errno) : "done");
	return 0;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } tests[] = {
		{ "errors", errors }, { "several", several }, { "numbers", numbers }, { "signals", signals },
		{ "changing", changing }, { "replaced", replaced }, { "killed", killed }, { "threads", threads },
		{ "many", many }, { "stopped", stopped }, { "files", files }, { "sender", sender }, { "rights", rights }, { "set-user-ID", set_user_id },
		{ "alone", alone }, { "without rights", without_rights },
	};

	if (argc > 1 && strcmp(argv[1], "orphan") == 0)
		return orphan();
	for (size_t i = 0; argc > 1 && i < sizeof tests / sizeof tests[0]; i++) {
		if (strcmp(argv[1], tests[i].name) == 0) {
			tests[i].run();
			printf("as on AF_KEY\n");
			return 0;
		}
	}
	die("no such test");
}
