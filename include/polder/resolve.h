/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resolve: asks for the addresses of names, many at once, by c-ares.
 *
 * Names are looked for as the system's files say: /etc/hosts, the name servers of /etc/resolv.conf,
 * or those that the caller states. Nothing here waits but resolver_step() and resolve_all(), which
 * have a limit. The files are read when a resolver is made: after a change of them, make a new one.
 */
#ifndef POLDER_RESOLVE_H
#define POLDER_RESOLVE_H
#include "polder/server_state.h"

#define RESOLVE_FOUND_MAX   64   /* addresses of one name; further ones are not looked at */
#define RESOLVE_TIMEOUT_MS  1000 /* of a name server at first; twice as long the second time */
#define RESOLVE_TRIES       2
#define RESOLVE_SERVERS_MAX 8

struct resolve_answer {
    uint32_t n;     /* 0: none */
    uint32_t ttl_s; /* the shortest of its records; 0 also where a file has it */
    struct server_address at[RESOLVE_FOUND_MAX]; /* each once, families in turn */
    char why[64];                                /* not, where n is 0 */
};
typedef void (*resolve_fn)(void *arg, const struct resolve_answer *answer);

struct resolver;
/* servers: "192.0.2.1:53,[2001:db8::1]:53", "": those of the system. NULL: no memory, or no
 * resolver can be made of the system's files. */
struct resolver *resolver_new(const char *servers);
/* What it is still asked for gets no answer. */
void resolver_free(struct resolver *r);
/* "NAME:PORT". fn is called once, perhaps before this returns. */
void resolver_ask(struct resolver *r, const char *text, resolve_fn fn, void *arg);
/* Waits for answers, for at most wait_ms, and calls their functions. */
void resolver_step(struct resolver *r, unsigned wait_ms);

struct resolve_name {
    const char *text; /* "NAME:PORT" */
    struct resolve_answer answer;
};
/* Asks for all of them side by side; those without an answer within timeout_ms have n 0. */
void resolve_all(const char *servers, struct resolve_name *names, size_t n, unsigned timeout_ms);

#endif
