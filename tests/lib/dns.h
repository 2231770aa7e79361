/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dns: a name server on a loopback port, over UDP and TCP, that answers as a story says, and also as
 * no name server should. Shares no code with the daemon.
 */
#ifndef POLDER_TEST_DNS_H
#define POLDER_TEST_DNS_H
#include "patience.h"

enum dns_manner {
    DNS_PROPER, /* over UDP cut short, and whole over TCP, where it is longer than 512 bytes */
    DNS_NXDOMAIN,
    DNS_SERVFAIL,
    DNS_REFUSED,
    DNS_SILENT,
    DNS_SILENT_V6, /* AAAA gets no answer */
    DNS_CUT,       /* UDP: always "truncated"; TCP: proper */
    DNS_CUT_TWICE, /* TCP closes in the middle */
    DNS_NOISE,     /* random bytes behind the right number */
    DNS_LOOP,      /* compressed names that lead to themselves */
    DNS_LIES,      /* counts of records that are not there, lengths that lead out of the answer */
    DNS_STRANGER,  /* answers with other numbers, then with other questions */
    DNS_EMPTY,     /* datagrams of no byte, and of one */
};

struct dns;
struct dns *dns_start(void);
void dns_stop(struct dns *d);
unsigned dns_port(const struct dns *d);
/* From now on. addresses: "127.0.0.1 ::1"; names that were never set are NXDOMAIN. */
void dns_has(struct dns *d, const char *name, unsigned ttl, const char *addresses);
/* The name is another name for `target`, which the same answer resolves. */
void dns_alias(struct dns *d, const char *name, unsigned ttl, const char *target);
void dns_behaves(struct dns *d, const char *name, enum dns_manner manner);
/* Questions for A records of that name so far. */
unsigned dns_asked(struct dns *d, const char *name);
#endif
