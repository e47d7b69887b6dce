/* A program of 32 bits on x86-64, without a C library: sends a primer through the sockets that are its standard input and
 * output (crates/pfkey-wire/src/hello.rs). */

enum { EXIT = 1, SEND = 9, SOCKETCALL = 102 };

static int call(int number, unsigned a, unsigned b)
{
	int result;
	__asm__ volatile ("int $0x80" : "=a" (result) : "0" (number), "b" (a), "c" (b) : "memory");
	return result;
}

/* XFRM_MSG_GETSA with NLM_F_REQUEST | NLM_F_ACK, its number, and a usersa_id of AF_INET and ESP. */
static const unsigned char primer[40] = { 40, 0, 0, 0, 0x12, 0, 5, 0, 'y', 'k', 'f', 'p', [36] = 2, [38] = 50 };

void _start(void)
{
	int failed = 0;
	for (unsigned socket = 0; socket < 2; socket++) {
		unsigned arguments[4] = { socket, (unsigned)primer, sizeof primer, 0 };
		failed |= call(SOCKETCALL, SEND, (unsigned)arguments) != sizeof primer;
	}
	for (;;)
		call(EXIT, (unsigned)failed, 0);
}
