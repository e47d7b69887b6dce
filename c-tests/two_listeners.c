/* Who hears what: a requester, a bystander, a registered and a promiscuous listener. */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: two_listeners\n"
	"\n"
	"Opens four PF_KEY descriptors - one that asks, a bystander, one registered for AH, one promiscuous - makes a\n"
	"few requests, and prints how many messages each one heard.\n"
	"\n"
	"exit status: 0; 1 if something failed, 2 for bad usage\n";

enum { ASKER, BYSTANDER, REGISTERED, PROMISCUOUS, COUNT };

static int sockets[COUNT];

/* Reads what waits; the answers are there when send returns. */
static int heard(int s)
{
	int n = 0;
	while (receive_message(s, n ? 0 : 100))
		n++;
	return n;
}

static void row(const char *what)
{
	int n[COUNT];
	for (int i = 0; i < COUNT; i++)
		n[i] = heard(sockets[i]);
	printf("%-10s %7d %9d %10d %11d\n", what, n[ASKER], n[BYSTANDER], n[REGISTERED], n[PROMISCUOUS]);
}

static void header_only(int s, int type, int satype)
{
	struct builder b;
	begin_message(&b, type, satype, 0);
	end_message(&b);
	send_message(s, b.bytes, b.len);
}

static void about_sa(int type, int with_key)
{
	static const unsigned char key[20] = { 1 };
	struct builder b;
	begin_message(&b, type, SADB_SATYPE_AH, 0);
	add_sa(&b, 0x10001, SADB_AALG_SHA1HMAC, 0);
	add_address(&b, SADB_EXT_ADDRESS_SRC, "192.168.0.1", 0, -1);
	add_address(&b, SADB_EXT_ADDRESS_DST, "192.168.0.2", 0, -1);
	if (with_key)
		add_key(&b, SADB_EXT_KEY_AUTH, key, sizeof key);
	end_message(&b);
	send_message(sockets[ASKER], b.bytes, b.len);
}

int main(int argc, char **argv)
{
	if (argc != 1) {
		int help = argc == 2 && strcmp(argv[1], "--help") == 0;
		fputs(usage, help ? stdout : stderr);
		return help ? 0 : 2;
	}
	for (int i = 0; i < COUNT; i++)
		sockets[i] = open_pfkey();
	header_only(sockets[REGISTERED], SADB_REGISTER, SADB_SATYPE_AH);
	header_only(sockets[PROMISCUOUS], SADB_X_PROMISC, 1);
	for (int i = 0; i < COUNT; i++)
		heard(sockets[i]);
	printf("%-10s %7s %9s %10s %11s\n", "", "asker", "bystander", "registered", "promiscuous");
	about_sa(SADB_ADD, 1);
	row("ADD");
	about_sa(SADB_ADD, 1);
	row("ADD again");
	about_sa(SADB_GET, 0);
	row("GET");
	header_only(sockets[ASKER], SADB_DUMP, SADB_SATYPE_AH);
	row("DUMP");
	header_only(sockets[ASKER], SADB_REGISTER, SADB_SATYPE_ESP);
	row("REGISTER");
	about_sa(SADB_DELETE, 0);
	row("DELETE");
	header_only(sockets[ASKER], SADB_FLUSH, SADB_SATYPE_UNSPEC);
	row("FLUSH");
	return 0;
}
