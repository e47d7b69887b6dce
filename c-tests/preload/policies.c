/* Sets sockets' own IPsec policies in AF_KEY's form, and prints what the kernel then has, as netlink shows it.
 * Exit status 77: it cannot be tried here. */
#include "../common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void print_policy(struct nlmsghdr *head)
{
	struct xfrm_userpolicy_info *p = NLMSG_DATA(head);
	struct rtattr *attribute = (struct rtattr *)((char *)p + NLMSG_ALIGN(sizeof *p));
	int left = (int)head->nlmsg_len - (int)((char *)attribute - (char *)head);

	/* index & 7: 3 and 4 are a socket's policies. */
	printf("  place %u, dir %u, action %u, family %u, prefixes %u %u, proto %u, priority %u, flags %u, share %u,"
	       " no limits %d\n",
		p->index & 7, p->dir, p->action, p->sel.family, p->sel.prefixlen_s, p->sel.prefixlen_d, p->sel.proto,
		p->priority, p->flags, p->share,
		p->lft.soft_byte_limit == XFRM_INF && p->lft.hard_byte_limit == XFRM_INF &&
			p->lft.soft_packet_limit == XFRM_INF && p->lft.hard_packet_limit == XFRM_INF &&
			!p->lft.hard_add_expires_seconds && !p->lft.hard_use_expires_seconds);
	for (; left >= (int)sizeof *attribute; ) {
		if (attribute->rta_type == XFRMA_TMPL) {
			struct xfrm_user_tmpl *t = (struct xfrm_user_tmpl *)((char *)attribute + 4);
			int count = (attribute->rta_len - 4) / (int)sizeof *t;
			for (; count > 0; count--, t++) {
				char from[64] = "?", to[64] = "?";
				inet_ntop(t->family, &t->saddr, from, sizeof from);
				inet_ntop(t->family, &t->id.daddr, to, sizeof to);
				printf("    protocol %u, mode %u, family %u, %s-%s, spi %u, reqid %s, optional %u, share %u,"
				       " algorithms %s\n",
					t->id.proto, t->mode, t->family, from, to, t->id.spi,
					t->reqid == 0 ? "none" : t->reqid == 17 ? "17" : t->reqid > 0x3fff ? "generated" : "?",
					t->optional, t->share,
					/* AF_KEY's "any" shows as 0, netlink's as all bits. */
					t->aalgos == t->ealgos && t->aalgos == t->calgos && t->aalgos + 1 <= 1 ? "any" : "some");
			}
		}
		left -= NLMSG_ALIGN(attribute->rta_len);
		attribute = (struct rtattr *)((char *)attribute + NLMSG_ALIGN(attribute->rta_len));
	}
}

static void show(void)
{
	static _Alignas(8) char buffer[65536];
	struct { struct nlmsghdr head; struct xfrm_userpolicy_id id; } request;
	int n = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);

	if (n < 0)
		die("NETLINK_XFRM: %s", strerror(errno));
	memset(&request, 0, sizeof request);
	request.head.nlmsg_len = sizeof request;
	request.head.nlmsg_type = XFRM_MSG_GETPOLICY;
	request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	if (send(n, &request, sizeof request, 0) < 0)
		die("send: %s", strerror(errno));
	for (;;) {
		ssize_t len = recv(n, buffer, sizeof buffer, 0);
		struct nlmsghdr *head = (struct nlmsghdr *)buffer;
		if (len < 0)
			die("recv: %s", strerror(errno));
		for (; NLMSG_OK(head, (unsigned)len); head = NLMSG_NEXT(head, len)) {
			if (head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR) {
				close(n);
				return;
			}
			print_policy(head);
		}
	}
}

struct policy {
	struct sadb_x_policy head;
	unsigned char body[512];
	size_t len;
};

static void begin(struct policy *p, int type, int dir)
{
	memset(p, 0, sizeof *p);
	/* iked's number of the extension. */
	p->head.sadb_x_policy_exttype = 12;
	p->head.sadb_x_policy_type = (uint16_t)type;
	p->head.sadb_x_policy_dir = (uint8_t)dir;
	p->head.sadb_x_policy_priority = 0x80000000;
	p->len = sizeof p->head;
	p->head.sadb_x_policy_len = (uint16_t)(p->len / 8);
}

static void request(struct policy *p, int proto, int mode, int level, uint32_t reqid, const char *from, const char *to)
{
	struct sadb_x_ipsecrequest r;
	unsigned char *at = (unsigned char *)p + p->len;
	size_t len = sizeof r;
	const char *both[2] = { from, to };

	for (int i = 0; from && i < 2; i++) {
		struct sockaddr_in in = { .sin_family = AF_INET };
		struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
		if (inet_pton(AF_INET, both[i], &in.sin_addr) == 1) {
			memcpy(at + len, &in, sizeof in);
			len += sizeof in;
		} else if (inet_pton(AF_INET6, both[i], &in6.sin6_addr) == 1) {
			memcpy(at + len, &in6, sizeof in6);
			len += sizeof in6;
		}
	}
	memset(&r, 0, sizeof r);
	r.sadb_x_ipsecrequest_len = (uint16_t)len;
	r.sadb_x_ipsecrequest_proto = (uint16_t)proto;
	r.sadb_x_ipsecrequest_mode = (uint8_t)mode;
	r.sadb_x_ipsecrequest_level = (uint8_t)level;
	r.sadb_x_ipsecrequest_reqid = reqid;
	memcpy(at, &r, sizeof r);
	p->len += len;
	p->head.sadb_x_policy_len = (uint16_t)(p->len / 8);
}

static void set(const char *what, int family, const void *value, size_t len)
{
	int s = socket(family, SOCK_DGRAM, 0);
	int status;

	if (s < 0)
		die("socket: %s", strerror(errno));
	errno = 0;
	status = family == AF_INET ? setsockopt(s, IPPROTO_IP, 16, value, (socklen_t)len)
				   : setsockopt(s, IPPROTO_IPV6, 34, value, (socklen_t)len);
	printf("%s, IPv%d: %s\n", what, family == AF_INET ? 4 : 6, status ? strerror(errno) : "set");
	show();
	close(s);
}

int main(void)
{
	static const int families[2] = { AF_INET, AF_INET6 };
	struct policy p;
	int xfrm = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);

	/* Where there is nobody else's. */
	if (xfrm < 0 || unshare(CLONE_NEWNET) < 0) {
		fprintf(stderr, "%s: %s\n", xfrm < 0 ? "NETLINK_XFRM" : "unshare", strerror(errno));
		return 77;
	}
	close(xfrm);
	for (int i = 0; i < 2; i++) {
		int f = families[i];
		const char *a = i ? "2001:db8::1" : "192.0.2.1", *b = i ? "2001:db8::2" : "198.51.100.2";

		begin(&p, 4, 1); set("bypass in", f, &p, p.len);
		begin(&p, 4, 2); set("bypass out", f, &p, p.len);
		begin(&p, 3, 2); set("entrust out", f, &p, p.len);
		begin(&p, 1, 1); set("none in", f, &p, p.len);
		begin(&p, 0, 2); set("discard out", f, &p, p.len);
		begin(&p, 2, 2); set("ipsec without requests", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 1, 2, 0, NULL, NULL); set("esp transport require", f, &p, p.len);
		begin(&p, 2, 1); request(&p, 50, 1, 1, 0, NULL, NULL); set("esp transport use in", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 1, 3, 17, NULL, NULL); set("esp transport unique 17", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 1, 3, 0, NULL, NULL); set("esp transport unique", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 51, 1, 0, 17, NULL, NULL); set("ah transport default 17", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 2, 2, 0, a, b); set("esp tunnel", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 108, 1, 1, 0, NULL, NULL); request(&p, 50, 2, 3, 17, a, b);
		request(&p, 51, 1, 2, 0, NULL, NULL); set("ipcomp, esp tunnel, ah", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 3, 2, 0, NULL, NULL); set("esp beet", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 2, 2, 0, i ? "192.0.2.1" : "2001:db8::1", i ? "198.51.100.2" : "2001:db8::2");
		set("esp tunnel of the other family", f, &p, p.len);

		begin(&p, 5, 1); set("type 5", f, &p, p.len);
		begin(&p, 4, 0); set("direction 0", f, &p, p.len);
		begin(&p, 4, 3); set("direction 3", f, &p, p.len);
		begin(&p, 4, 1); set("cut short", f, &p, 12);
		begin(&p, 4, 1); p.head.sadb_x_policy_len = 3; set("longer than it is", f, &p, 16);
		begin(&p, 2, 1); p.head.sadb_x_policy_len = 1; set("ipsec of length 1", f, &p, 16);
		begin(&p, 2, 2); request(&p, 17, 1, 2, 0, NULL, NULL); set("udp", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 0, 2, 0, NULL, NULL); set("mode any", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 7, 2, 0, NULL, NULL); set("mode 7", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 2, 2, 0, NULL, NULL); set("a tunnel without addresses", f, &p, p.len);
		begin(&p, 2, 2); request(&p, 50, 2, 1, 0, a, b); set("a tunnel that need not be, out", f, &p, p.len);
		begin(&p, 2, 1); request(&p, 50, 2, 1, 0, a, b); set("a tunnel that need not be, in", f, &p, p.len);
		begin(&p, 2, 2);
		for (int n = 0; n < 7; n++)
			request(&p, 50, 1, 2, 0, NULL, NULL);
		set("seven requests", f, &p, p.len);
	}
	return 0;
}
