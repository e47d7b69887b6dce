/* What the three programs of chapter 19 of Unix Network Programming share. */
#ifndef UNP_H
#define UNP_H

#include "../common.h"

#include <pfkey_rs.h>

/* SADB_SATYPE_* of a name (unspec, ah, esp, rsvp, ospfv2, ripv2, mip), -1 for another; letters' case matters. */
int getsatypebyname(const char *name);

/* The number of an algorithm of an SA type, -1 if it has none of that name. */
int getsaalgbyname(int satype, const char *name);

/* Prints a message as the book does; `book` is the programs' option -b: with the slips of the original. */
void print_sadb_msg(const struct sadb_msg *msg, int book);

/* The next message, or the end of the program if none comes within five seconds. */
struct sadb_msg *next_message(int s);

#endif
