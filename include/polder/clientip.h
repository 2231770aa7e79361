/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clientip: addresses, networks, and which address is the client's.
 *
 * Addresses are 16 bytes, IPv4 as v4-mapped IPv6. The client is the connection's peer, or what a
 * trusted proxy says: the right-most entry of Forwarded (RFC 7239) or X-Forwarded-For that is not
 * itself a trusted proxy. Pure functions, no sockets.
 */
#ifndef POLDER_CLIENTIP_H
#define POLDER_CLIENTIP_H
#include "polder/field.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct clientip {
    uint8_t addr[16];
};
struct clientip_net {
    uint8_t addr[16];
    uint8_t bits; /* 0..128; IPv4 /8 is 104 */
};

void clientip_from_sockaddr(struct clientip *ip, const struct sockaddr *sa); /* unix: ::1 */
int clientip_parse(const char *text, size_t len, struct clientip *ip); /* no port, no brackets */
int clientip_net_parse(const char *text, struct clientip_net *net);    /* "10.0.0.0/8", "::1" */
/* IPv4 is in networks written as IPv4 (or in ::ffff:0:0/96), not in ::/0. */
bool clientip_in(const struct clientip *ip, const struct clientip_net *nets, size_t n);
/* "192.0.2.1" or "2001:db8::1"; out holds at least 46 bytes; returns the length */
size_t clientip_format(const struct clientip *ip, char *out);
/* "10.0.0.0/8"; a single address without its length; out holds at least 50 bytes. What
 * clientip_net_parse() takes. */
size_t clientip_net_format(const struct clientip_net *net, char *out);
/* What rate limits count: the address for IPv4, the /64 for IPv6 (rest zeroed). */
void clientip_group(const struct clientip *ip, struct clientip *group);
/* A hash of the client (clientip_group()), for tables that a client must not aim in. */
uint64_t clientip_hash(const struct clientip *ip, const uint8_t secret[32]);

/* The client behind trusted proxies. xff and forwarded are the joined field values (NULL where
 * absent). At most 100 hops are looked at, from the right. Returns peer where the peer is not
 * trusted, the field is unusable, or both fields are there and disagree: a proxy that writes one of
 * them passes the other as its client sent it. */
void clientip_forwarded(const struct clientip *peer, const struct clientip_net *trusted,
                        size_t n_trusted, const char *xff, size_t xff_len, const char *forwarded,
                        size_t forwarded_len, struct clientip *out);

/* Forwarded (joined, RFC 7239) translated to X-Forwarded-*, for backends that know only those. The
 * chain is that of X-Forwarded-For, with "unknown" for hops without an address; proto and host are
 * those of the element that the client was taken from (empty where that does not say, or says
 * nothing usable), because entries to its left were sent by the client itself. */
struct clientip_origin {
    struct str proto, host; /* in the field; a quoted host without its quotes */
};
size_t clientip_forwarded_chain(const char *forwarded, size_t len, char *out, size_t size);
void clientip_forwarded_origin(const char *forwarded, size_t len,
                               const struct clientip_net *trusted, size_t n_trusted,
                               struct clientip_origin *origin);

/* PROXY protocol v1 and v2 (haproxy proxy-protocol.txt). Returns bytes consumed, 0: need more,
 * -EPROTO: not a PROXY header. *ip untouched for LOCAL and UNKNOWN. */
#define CLIENTIP_PROXY_MAX 536
int clientip_proxy_parse(const uint8_t *buf, size_t len, struct clientip *ip, uint16_t *port);
#endif
