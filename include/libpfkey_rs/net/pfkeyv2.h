/* For programs that include <net/pfkeyv2.h>, which no Linux C library has. */
#ifndef LIBPFKEY_RS_NET_PFKEYV2_H
#define LIBPFKEY_RS_NET_PFKEYV2_H
#include <libpfkey_rs/pfkeyv2_compat.h>
#endif
