#include "unp.h"

#include <string.h>

struct name {
	const char *name;
	int number;
};

static const struct name satypes[] = { { "unspec", SADB_SATYPE_UNSPEC }, { "ah", SADB_SATYPE_AH },
	{ "esp", SADB_SATYPE_ESP }, { "rsvp", SADB_SATYPE_RSVP }, { "ospfv2", SADB_SATYPE_OSPFV2 },
	{ "ripv2", SADB_SATYPE_RIPV2 }, { "mip", SADB_SATYPE_MIP }, { NULL, -1 } };

static const struct name ah_algorithms[] = { { "none", SADB_AALG_NONE }, { "HMAC-MD5-96", SADB_AALG_MD5HMAC },
	{ "HMAC-SHA-1-96", SADB_AALG_SHA1HMAC }, { NULL, -1 } };

static const struct name esp_algorithms[] = { { "none", SADB_EALG_NONE }, { "DES-CBC", SADB_EALG_DESCBC },
	{ "3DES-CBC", SADB_EALG_3DESCBC }, { "NULL", SADB_EALG_NULL }, { NULL, -1 } };

static int lookup(const struct name *list, const char *name)
{
	while (list->name && strcmp(list->name, name) != 0)
		list++;
	return list->number;
}

int getsatypebyname(const char *name)
{
	return lookup(satypes, name);
}

int getsaalgbyname(int satype, const char *name)
{
	switch (satype) {
	case SADB_SATYPE_AH:
		return lookup(ah_algorithms, name);
	case SADB_SATYPE_ESP:
		return lookup(esp_algorithms, name);
	default:
		return -1;
	}
}

void print_sadb_msg(const struct sadb_msg *msg, int book)
{
	pfkey_print_sadb_msg(msg, (size_t)msg->sadb_msg_len * 8, book);
}

struct sadb_msg *next_message(int s)
{
	struct sadb_msg *msg = receive_message(s, 5000);

	if (!msg)
		die("no answer");
	return msg;
}
