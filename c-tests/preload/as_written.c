/* A test program for xfrm_state_alloc as somebody might write it who has the header and no kernel to try it on. Every
 * mistake is there on purpose: tests/state_alloc.rs says what becomes of each. c-tests/sadb_add.c is the same done right.
 *
 * - Two of its names are in no header, so that it is compiled with -DSADB_X_CFG_DFLT=0 -DSADB_AH_ALG_HMAC_SHA1=3.
 * - The addresses are prepared, and never sent.
 * - The SA extension does not say that it is one.
 * - Header and SA are sent as two messages. The header announces four words and has two, so that the first send fails,
 *   and no SA is ever allocated. */
#include <arpa/inet.h>
#include <linux/pfkeyv2.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	struct sadb_msg header;
	struct sadb_sa sa;
	struct sockaddr_in src, dst;
	int s = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);

	if (s < 0) {
		perror("socket");
		return 1;
	}
	memset(&header, 0, sizeof header);
	header.sadb_msg_version = PF_KEY_V2;
	header.sadb_msg_type = SADB_ADD;
	header.sadb_msg_satype = SADB_SATYPE_AH;
	header.sadb_msg_len = (sizeof header + sizeof sa) / 8;
	header.sadb_msg_seq = 1;
	header.sadb_msg_pid = (unsigned)getpid();

	memset(&sa, 0, sizeof sa);
	sa.sadb_sa_len = sizeof sa / 8;
	sa.sadb_sa_spi = htonl(0x10001);
	sa.sadb_sa_state = SADB_X_CFG_DFLT;
	sa.sadb_sa_auth = SADB_AH_ALG_HMAC_SHA1;

	memset(&src, 0, sizeof src);
	src.sin_family = AF_INET;
	src.sin_addr.s_addr = inet_addr("192.168.0.1");
	memset(&dst, 0, sizeof dst);
	dst.sin_family = AF_INET;
	dst.sin_addr.s_addr = inet_addr("192.168.0.2");

	if (send(s, &header, sizeof header, 0) < 0) {
		perror("send header");
		close(s);
		return 1;
	}
	if (send(s, &sa, sizeof sa, 0) < 0) {
		perror("send sa");
		close(s);
		return 1;
	}
	close(s);
	printf("xfrm_state allocated\n");
	return 0;
}
