/* For programs that include <netinet/ipsec.h>, which no Linux C library has. */
#ifndef LIBPFKEY_RS_NETINET_IPSEC_H
#define LIBPFKEY_RS_NETINET_IPSEC_H
#include <libpfkey_rs/pfkeyv2_compat.h>
#endif
