/* A program of 32 bits on x86-64, without a C library: PF_KEY by the calls' own numbers, and by socketcall, as old C
 * libraries do. Exit status 0, or the line that something else than on AF_KEY happened in. */

struct part { const void *base; unsigned len; };
struct header { void *name; unsigned name_len; struct part *parts; unsigned count; void *control; unsigned control_len, flags; };
struct headers { struct header header; unsigned len; };

enum { WRITE = 4, EXIT = 1, GETEUID32 = 201, SOCKETCALL = 102, WRITEV = 146, SENDMMSG = 345, SOCKET = 359, SETSOCKOPT = 366, SENDTO = 369, SENDMSG = 370 };
enum { EPERM = 1, EBADF = 9, EFAULT = 14, EINVAL = 22, EMSGSIZE = 90, EPROTONOSUPPORT = 93, ESOCKTNOSUPPORT = 94 };
enum { RAW = 3, CLOEXEC = 02000000, DONTWAIT = 0x40 };

static int call(int number, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e)
{
	int result;
	__asm__ volatile ("int $0x80" : "=a" (result) : "0" (number), "b" (a), "c" (b), "d" (c), "S" (d), "D" (e) : "memory");
	return result;
}

static void end(int status)
{
	for (;;)
		call(EXIT, (unsigned)status, 0, 0, 0, 0);
}

#define CHECK(condition) do { if (!(condition)) end(__LINE__); } while (0)
#define ADDRESS(value) ((unsigned)(value))

static int socketcall(int which, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f)
{
	unsigned arguments[6] = { a, b, c, d, e, f };
	return call(SOCKETCALL, (unsigned)which, ADDRESS(arguments), 0, 0, 0);
}

static unsigned char message[16] = { 2, 9, 0, 0, 2, 0, 0, 0 };

static int answered(unsigned s, unsigned char seq)
{
	unsigned char answer[64];
	int len = socketcall(10, s, ADDRESS(answer), sizeof answer, DONTWAIT, 0, 0);
	return len == 16 && answer[8] == seq;
}

void _start(void)
{
	struct part parts[2] = { { message, 7 }, { message + 7, 9 } };
	struct header header = { 0, 0, parts, 2, 0, 0, 0 };
	struct headers several[2] = { { header, 0 }, { header, 0 } };
	struct { unsigned short len, type, kind; unsigned char dir, reserved; unsigned id, priority; } policy = { 2, 18, 9, 2, 0, 0, 0 };
	int a = call(SOCKET, 15, RAW | CLOEXEC, 2, 0, 0), b = socketcall(1, 15, RAW, 2, 0, 0, 0), udp, refusal;

	CHECK(a >= 0 && b >= 0 && a != b);
	CHECK(call(SOCKET, 15, RAW, 0, 0, 0) == -EPROTONOSUPPORT);
	CHECK(socketcall(1, 15, 2, 2, 0, 0, 0) == -ESOCKTNOSUPPORT);
	CHECK(call(SOCKETCALL, 1, 8, 0, 0, 0) == -EFAULT);
	message[8] = 1;
	CHECK(call(WRITE, (unsigned)a, ADDRESS(message), 16, 0, 0) == 16 && answered((unsigned)a, 1));
	message[8] = 2;
	CHECK(call(WRITEV, (unsigned)a, ADDRESS(parts), 2, 0, 0) == 16 && answered((unsigned)a, 2));
	message[8] = 3;
	CHECK(call(SENDTO, (unsigned)a, ADDRESS(message), 16, 0, 0) == 16 && answered((unsigned)a, 3));
	message[8] = 4;
	CHECK(call(SENDMSG, (unsigned)a, ADDRESS(&header), 0, 0, 0) == 16 && answered((unsigned)a, 4));
	message[8] = 5;
	CHECK(call(SENDMMSG, (unsigned)a, ADDRESS(several), 2, 0, 0) == 2 && several[1].len == 16);
	CHECK(answered((unsigned)a, 5) && answered((unsigned)a, 5));
	message[8] = 6;
	CHECK(socketcall(9, (unsigned)b, ADDRESS(message), 16, 0, 0, 0) == 16 && answered((unsigned)b, 6));
	message[8] = 7;
	CHECK(socketcall(11, (unsigned)b, ADDRESS(message), 16, 0, 0, 0) == 16 && answered((unsigned)b, 7));
	message[8] = 8;
	CHECK(socketcall(16, (unsigned)b, ADDRESS(&header), 0, 0, 0, 0) == 16 && answered((unsigned)b, 8));
	message[8] = 9;
	CHECK(socketcall(20, (unsigned)b, ADDRESS(several), 1, 0, 0, 0) == 1 && answered((unsigned)b, 9));
	CHECK(socketcall(9, (unsigned)b, 8, 16, 0, 0, 0) == -EFAULT);
	CHECK(socketcall(9, (unsigned)b, ADDRESS(message), 8, 0, 0, 0) == -EMSGSIZE);
	message[0] = 1;
	CHECK(call(WRITE, (unsigned)b, ADDRESS(message), 16, 0, 0) == -EINVAL);
	/* What others send by socketcall is the kernel's. */
	CHECK(socketcall(9, 99, ADDRESS(message), 16, 0, 0, 0) == -EBADF);
	udp = socketcall(1, 2, 2, 0, 0, 0, 0);
	CHECK(udp >= 0 && udp < 700);
	CHECK(socketcall(14, (unsigned)udp, 1, 2, ADDRESS(&udp), 4, 0) == 0);
	/* A policy of a type that there is not: refused, whoever reads it; nobody reads one of a program without rights. */
	refusal = call(GETEUID32, 0, 0, 0, 0, 0) == 0 ? -EINVAL : -EPERM;
	CHECK(call(SETSOCKOPT, (unsigned)udp, 0, 16, ADDRESS(&policy), 16) == refusal);
	CHECK(socketcall(14, (unsigned)udp, 0, 16, ADDRESS(&policy), 16, 0) == refusal);
	end(0);
}
